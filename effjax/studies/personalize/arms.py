"""The arms of the study: what is trained, and whether earlier mails are seen.

An arm is what is trained ("pretrained" is nothing), "_raft" if some prompts of
training have earlier mails, and "_rag" if those of drafts have some.
"""

from typing import NamedTuple

from effjax.studies.adapters import plans
from effjax.studies.text import meant

TRAINED = ("full", "lora", "dora", "rosa")


class Arm(NamedTuple):
  """An arm.

  Attributes:
    name: Its name in configs and results.
    trained: What is trained, a key of `plans.TITLES`; None for nothing.
    raft: Whether some prompts of training have earlier mails.
    rag: Whether prompts of drafts have earlier mails.
  """

  name: str
  trained: str | None
  raft: bool
  rag: bool

  @property
  def title(self) -> str:
    """What it is called."""
    first = "pretrained" if self.trained is None else plans.TITLES[self.trained]
    parts = [first, *["RAFT"] * self.raft, *["RAG"] * self.rag]
    return " + ".join(parts)


def _all() -> dict[str, Arm]:
  found = {}
  for trained in (None, *TRAINED):
    for raft in (False, True)[: 1 + (trained is not None)]:
      for rag in (False, True):
        parts = [trained or "pretrained", *["raft"] * raft, *["rag"] * rag]
        name = "_".join(parts)
        found[name] = Arm(name, trained, raft, rag)
  return found


ARMS = _all()


def find(name: str) -> Arm:
  """Return an arm by its name.

  Args:
    name: A key of `ARMS`.

  Returns:
    The arm.

  Raises:
    ValueError: If there is none, with the nearest one.

  >>> find("lora_raft_rag").title
  'LoRA + RAFT + RAG'
  """
  if name not in ARMS:
    raise ValueError(
      f"there is no arm {name!r}{meant(name, ARMS)}; known are"
      f" {', '.join(ARMS)}"
    )
  return ARMS[name]
