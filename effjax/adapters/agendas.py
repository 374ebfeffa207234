"""What RoSA trains at which step: its low-rank part, its sparse one, both."""

import dataclasses
import re

from effjax import arguments
from effjax import tree as trees

_NAMES = ("wl16", "default", "df", "spa_only", "lora_only")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agenda:
  """What each step of a run does.

  Attributes:
    warm_up: Steps of the low-rank part alone.
    collecting: Steps after them that gather gradients for the masks.
    low_rank: Whether the low-rank part is trained; while gradients are gathered
      without it, nothing is.
    sparse: Whether the sparse part is trained at the end.
  """

  warm_up: int
  collecting: int
  low_rank: bool
  sparse: bool

  @property
  def masks_at(self) -> int | None:
    """The first step that needs masks, None without a sparse part.

    RoSA ends the run there if it gathered gradients, and trains anew with the
    masks: both parts from zero, under the agenda "default" with loaded masks.
    """
    return self.warm_up + self.collecting if self.sparse else None

  def at(self, step: int) -> frozenset[str]:
    """Say what a step does.

    Args:
      step: Number of the step, from 0.

    Returns:
      A set of "lora", "spa" and "grad_collection".
    """
    parts = {"lora"} if self.low_rank else set()
    if step >= self.warm_up + self.collecting:
      return frozenset(parts | ({"spa"} if self.sparse else set()))
    return frozenset(
      parts if step < self.warm_up else parts | {"grad_collection"}
    )

  def text(self, step: int) -> str:
    """Write what a step does as the published program does.

    Args:
      step: Number of the step, from 0.

    Returns:
      For example "lora+grad_collection".
    """
    order = ("lora", "grad_collection", "spa")
    return "+".join(part for part in order if part in self.at(step))


def agenda(
  name: str,
  *,
  density: float,
  gradient_batches: int = 1,
  masks_loaded: bool = False,
) -> Agenda:
  """Read a schedule of RoSA by its name.

  Args:
    name: "wlN" trains the low-rank part for N steps, then gathers gradients
      while it goes on, then trains both parts; "default" or "df" is "wl0";
      "spa_only" gathers, then trains the sparse part; "lora_only".
    density: Share of the weights in the sparse part, 0 for "lora_only" alone.
    gradient_batches: Steps that gather gradients, 1 or more.
    masks_loaded: Whether there are masks already; then none gather.

  Returns:
    The agenda.

  Raises:
    ValueError: If a number is out of range, or the name is unknown or does not
      go with the density.

  >>> steps = agenda("wl2", density=0.01)
  >>> [steps.text(t) for t in (0, 2, 3)]
  ['lora', 'lora+grad_collection', 'lora+spa']
  """
  arguments.finite("density", density, 0)
  if density > 1:
    raise ValueError(f"density {density} is outside [0, 1]")
  gradient_batches = arguments.whole("gradient_batches", gradient_batches)
  warm = re.fullmatch(r"wl(\d+)", "wl0" if name in ("default", "df") else name)
  if warm is None and name not in _NAMES:
    raise ValueError(
      f"there is no schedule {name!r}; choose 'wlN' with a number of steps N,"
      f" or one of {', '.join(trees.nearest(name, _NAMES[1:]))}"
    )
  if (name == "lora_only") != (density == 0):
    raise ValueError(
      f"the schedule {name!r} does not go with density {density}: 'lora_only'"
      " is the one for density 0, and for no other"
    )
  return Agenda(
    warm_up=int(warm[1]) if warm else 0,
    collecting=0 if masks_loaded or not density else gradient_batches,
    low_rank=name != "spa_only",
    sparse=density > 0,
  )
