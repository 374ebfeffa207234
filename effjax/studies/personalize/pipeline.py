"""From a mailbox to a model that writes like its owner, in stages.

Each stage leaves a file that is read the next time: a run that was interrupted
goes on where it was. Of mails only what lies in `private/` holds any text.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from effjax.data import emails
from effjax.data.mails import Mail, Split
from effjax.io import files
from effjax.studies import language
from effjax.studies.adapters import finetuning, plans
from effjax.studies.personalize import (
  arms,
  assistant,
  examiner,
  folders,
  letters,
  playback,
  prompts,
  tuning,
)
from effjax.studies.text import meant
from effjax.training import workdir

RETRIEVERS = ("minilm", "bm25")
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What to make of a mailbox.

  Attributes:
    mailbox: A file or directory, see `emails.read`.
    owner: Addresses of the owner; none for the most frequent sender.
    model: The base, see `language.load`.
    directory: Where weights lie.
    arm: A key of `arms.ARMS` in which something is trained.
    recipe: How to train; its `arm` is that of the arm, and its `raft`, by
      default that of Panza, counts only if the arm has some.
    mails: The most mails; the latest are taken, or the last ones if dates are
      missing. 0 for all.
    share: The most of the mails that are never learned from, as a share; as
      few as `tested` says.
    instructions: "model" (the base is asked what each mail follows),
      "extracted" (by rules) or a file, see `playback.read`.
    retriever: One of `RETRIEVERS`, by which earlier mails are found.
    about: What the model should know about the owner, in every prompt.
    max_tokens: The most tokens of a draft.
    tested: The most mails that are not learned from, to judge the model by
      drafts of them; 0 for none.
    seed: Of all random draws.
  """

  mailbox: str
  owner: tuple[str, ...] = ()
  model: str = "smollm2"
  directory: str | None = None
  arm: str = "lora_raft_rag"
  recipe: tuning.Recipe = dataclasses.field(default_factory=tuning.Recipe)
  mails: int = 200
  share: float = 0.2
  instructions: str = "model"
  retriever: str = "minilm"
  about: str = ""
  max_tokens: int = 256
  tested: int = 16
  seed: int = 0


class Cleaned(NamedTuple):
  """The mails of a run.

  Attributes:
    split: Those to learn from and to be judged by.
    said: What was kept and left out, in a sentence or two.
  """

  split: Split
  said: str


def check(plan: Plan) -> None:
  """Check a plan before anything costly begins.

  Args:
    plan: The plan.

  Raises:
    ValueError: If a value makes no sense.
    FileNotFoundError: If the mailbox, or a file of instructions, is not there.
  """
  arm = arms.find(plan.arm)
  if arm.trained is None:
    trains = [name for name, each in arms.ARMS.items() if each.trained]
    raise ValueError(
      f"the arm {plan.arm!r} trains nothing; take one of {', '.join(trains)}"
    )
  if plan.retriever not in RETRIEVERS:
    raise ValueError(
      f"there is no retriever {plan.retriever!r}"
      f"{meant(plan.retriever, RETRIEVERS)}; known are {', '.join(RETRIEVERS)}"
    )
  for name, least in (("mails", 0), ("tested", 0), ("max_tokens", 1)):
    if getattr(plan, name) < least:
      raise ValueError(
        f"{name} must be at least {least}, got {getattr(plan, name)}"
      )
  if 0 < plan.mails < emails.LEAST:
    raise ValueError(
      f"mails={plan.mails} is too few: {emails.LEAST} are needed at least"
    )
  if plan.instructions not in ("model", "extracted"):
    playback.read(plan.instructions)


def clean(folder: folders.Folder, plan: Plan, mailbox: str) -> Cleaned:
  """Read the owner's mails and split them, or what was kept of them.

  Args:
    folder: The folder of the run.
    plan: The plan.
    mailbox: Digest of the mailbox, see `folders.digest`.

  Returns:
    The mails; `keep` writes them.

  Raises:
    ValueError: As `emails.read` does.
  """
  asked = _asked(plan, mailbox)
  kept = folders.read(folder.mails)
  if kept is not None and kept.get("asked") == asked:
    split = Split(*(_mails(kept[part]) for part in Split._fields))
    return Cleaned(split, kept["said"])
  found = emails.read(
    plan.mailbox,
    owner=list(plan.owner) or None,
    unwrap=True,
    least=emails.LEAST,
  )
  said, mails = emails.describe(found), found.mails
  if 0 < plan.mails < len(mails):
    mails = emails.latest(mails, plan.mails)
    said += f" Of these the latest {plan.mails} are taken."
  train, test = emails.split(mails, plan.share)
  # What nobody is judged by is learned from.
  spare = test[plan.tested :]
  return Cleaned(Split((*train, *spare), test[: plan.tested]), said)


def keep(
  folder: folders.Folder, plan: Plan, mailbox: str, found: Cleaned
) -> None:
  """Write the mails where the next run finds them."""
  content = {
    "asked": _asked(plan, mailbox),
    "said": found.said,
    **{
      part: [mail._asdict() for mail in getattr(found.split, part)]
      for part in Split._fields
    },
  }
  folders.write_private(folder.mails, content)


def start(
  folder: folders.Folder, plan: Plan, mailbox: str, model: language.Language
) -> None:
  """Make or re-enter a folder, which belongs to one plan.

  Raises:
    ValueError: If it was made by another plan, with what differs.
  """
  config = dataclasses.asdict(plan) | {
    "mailbox": mailbox,
    "model": model.digest,
  }
  del config["directory"]
  if plan.instructions not in ("model", "extracted"):
    config["instructions"] = files.sha256(plan.instructions)
  workdir.start(folder.root, config)
  # The command and the plan may name the owner's address.
  for name in ("config.json", "environment.json"):
    (folder.root / name).chmod(0o600)


def ask(
  folder: folders.Folder,
  plan: Plan,
  model: language.Language,
  split: Split,
  progress: Progress,
) -> tuple[dict[str, str], dict[str, int]]:
  """Find out what each mail follows.

  Args:
    folder: The folder of the run, which keeps what was found.
    plan: The plan.
    model: The base.
    split: The mails.
    progress: Called with "playback", the mails done and all of them.

  Returns:
    Instructions by the id of their mail, and how they came about.
  """
  given = None
  if plan.instructions not in ("model", "extracted"):
    given = playback.read(plan.instructions)
  asks = plan.instructions == "model"
  made = playback.instructions(
    jax.random.key(plan.seed) if asks else None,
    model if asks else None,
    (*split.train, *split.test),
    path=folder.instructions,
    given=given,
    progress=lambda done, count: progress("playback", done, count),
  )
  folder.instructions.chmod(0o600)
  return {name: each.text for name, each in made.items()}, playback.counts(made)


def gather(
  plan: Plan, split: Split, instructions: dict[str, str]
) -> letters.Letters:
  """Put together the mails, what they follow, and the index of them."""
  encode = None
  if plan.retriever != "bm25":
    encode = assistant.encoder(plan.directory)
  return letters.make(
    "me",
    split.train,
    split.test,
    instructions,
    preamble=prompts.Preamble(user=plan.about),
    kind=plan.retriever,
    encode=encode,
  )


def train(
  folder: folders.Folder,
  plan: Plan,
  model: language.Language,
  own: letters.Letters,
  started: Callable[[Any, Any], None] | None = None,
) -> tuning.Trained:
  """Train the arm of a plan, or go on where it was interrupted.

  Args:
    folder: The folder of the run.
    plan: The plan.
    model: The base.
    own: The mails.
    started: As in `finetuning.Tuner.tune`.

  Returns:
    What was trained.
  """
  return tuning.tune(
    finetuning.Tuner(model.module, model.params, []),
    own,
    model.tokenizer,
    recipe(plan),
    folder.training,
    checkpoint_every=10,
    started=started,
  )


def recipe(plan: Plan) -> tuning.Recipe:
  """Return the recipe of a plan, with what its arm says."""
  arm = arms.find(plan.arm)
  return dataclasses.replace(
    plan.recipe,
    arm=arm.trained or "",
    raft=(plan.recipe.raft or letters.Raft()) if arm.raft else None,
    seed=plan.seed,
  )


def planned(plan: Plan) -> plans.Plan:
  """Return how a plan fine-tunes, but for the number of steps, to check it."""
  used = recipe(plan)
  return plans.Plan(
    arm=used.arm,
    rank=used.rank,
    density=used.density,
    learning_rate=used.learning_rate,
    seed=used.seed,
  )


def evaluate(
  folder: folders.Folder,
  plan: Plan,
  model: language.Language,
  own: letters.Letters,
  tuned: finetuning.Tuned,
  progress: Progress,
) -> dict[str, dict[str, Any]]:
  """Judge the base and what was made of it by mails that it has not seen.

  Args:
    folder: The folder of the run, which keeps what was found.
    plan: The plan.
    model: The base.
    own: The mails.
    tuned: What was trained.
    progress: Called with what writes, the drafts made and all of them.

  Returns:
    The measures of `examiner.Examiner.examine` for "pretrained" and for the
    arm; nothing if no mail is to be tested.
  """
  found = folders.read(folder.results) or {}
  if not plan.tested:
    return found
  # Of so few mails MAUVE would say little.
  examines = examiner.Examiner(
    model,
    max_tokens=plan.max_tokens,
    length=plan.recipe.length,
    mauve_seeds=0,
  )
  count = prompts.AFTERWARDS if arms.find(plan.arm).rag else 0
  for name, retrieve in (("pretrained", 0), (plan.arm, count)):
    if name in found:
      continue
    adapted = name == plan.arm
    params = model.params
    if adapted:
      params = jax.jit(tuned.chosen.arm.merge)(tuned.trained, tuned.frozen)
    examined = examines.examine(
      params,
      own,
      seed=plan.seed,
      retrieve=retrieve,
      progress=lambda done, many, name=name: progress(name, done, many),
    )
    found[name] = files.without_nan(examined.measures)
    files.write_json(folder.results, found)
  return found


def _asked(plan: Plan, mailbox: str) -> dict[str, Any]:
  """Say what the mails that are kept depend on."""
  return {
    "mailbox": mailbox,
    "owner": list(plan.owner),
    "mails": plan.mails,
    "share": plan.share,
    "tested": plan.tested,
  }


def _mails(entries: Sequence[dict[str, Any]]) -> tuple[Mail, ...]:
  return tuple(
    Mail(**each)._replace(thread=tuple(each["thread"])) for each in entries
  )
