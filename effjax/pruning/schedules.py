"""When masks are updated, and to which sparsity.

Steps are numbers of optimizer updates already done. A schedule holds a table of
its updates on the host, so that counts of weights are computed there, exactly;
`sparsity` and `fires` answer for any step, concrete or traced.
"""

import itertools
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.pruning.allocation import check_sparsity
from effjax.pruning.scores import check_convention


class Schedule(NamedTuple):
  """A plan of mask updates.

  Attributes:
    sparsity: `sparsity(step)`: the sparsity asked for at a step or an array of
      them, float32.
    fires: `fires(step)`: whether the masks are updated then, bool.
    steps: The steps at which it fires, ascending.
    levels: The sparsity asked for at each of them.
    alternates: Whether pruned weights may come back when the sparsity falls.
  """

  sparsity: Callable[[int | jax.Array], jax.Array]
  fires: Callable[[int | jax.Array], jax.Array]
  steps: tuple[int, ...]
  levels: tuple[float, ...]
  alternates: bool = False


def check(schedule: Any) -> Schedule:
  """Reject what is not a schedule.

  Args:
    schedule: What a transform is given.

  Returns:
    The schedule.

  Raises:
    ValueError: If it is something else, such as a sparsity.

  >>> check(one_shot(0.9)).levels
  (0.9,)
  """
  if not isinstance(schedule, Schedule):
    raise ValueError(
      f"a schedule is wanted, such as pruning.one_shot(0.9) or"
      f" pruning.cubic(...), not {textwrap.shorten(repr(schedule), 60)}"
    )
  return schedule


def _whole(**steps: Any) -> list[int]:
  """Return numbers of steps as host integers that fit into int32."""
  whole = []
  for name, step in steps.items():
    try:
      number = int(step) if step == int(step) else -1
    except (TypeError, ValueError, OverflowError):
      number = -1
    if not 0 <= number < 2**31:
      most = " (of at most 2**31 - 1)" if number > 0 else ""
      raise ValueError(
        f"{name} must be a whole number of steps{most}, not {step!r}"
      )
    whole.append(number)
  return whole


def from_table(
  steps: Sequence[int], levels: Sequence[float], *, alternates: bool = False
) -> Schedule:
  """Make a schedule from a table of updates.

  Args:
    steps: The steps at which masks are updated, strictly ascending.
    levels: The sparsity asked for at each.
    alternates: Whether pruned weights may come back when the sparsity falls.

  Returns:
    A schedule whose sparsity is that of the latest update, 0 before the first.

  Raises:
    ValueError: If lengths differ, steps do not ascend or a level is out of
      range.

  >>> schedule = from_table([10, 20], [0.5, 0.9])
  >>> [float(schedule.sparsity(step)) for step in (9, 10, 19)]
  [0.0, 0.5, 0.5]
  """
  steps = tuple(_whole(**{f"step {i}": step for i, step in enumerate(steps)}))
  levels = tuple(check_sparsity(level) for level in levels)
  if len(steps) != len(levels):
    raise ValueError(f"{len(steps)} steps do not fit {len(levels)} levels")
  if any(a >= b for a, b in itertools.pairwise(steps)):
    raise ValueError(f"the steps of a schedule must ascend, not {steps}")
  table = np.asarray(steps, np.int32)
  values = np.asarray((0.0, *levels), np.float32)

  def against(step: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    step = jnp.expand_dims(jnp.asarray(step), -1)
    return step, jnp.asarray(table).reshape((1,) * (step.ndim - 1) + (-1,))

  def sparsity(step: int | jax.Array) -> jax.Array:
    passed = jnp.sum(jnp.greater_equal(*against(step)), -1, dtype=jnp.int32)
    return jnp.asarray(values)[passed]

  def fires(step: int | jax.Array) -> jax.Array:
    return jnp.any(jnp.equal(*against(step)), -1)

  return Schedule(sparsity, fires, steps, levels, alternates)


def one_shot(sparsity: float, step: int = 0) -> Schedule:
  """Prune once.

  Args:
    sparsity: Share of weights to prune.
    step: When.

  Returns:
    A schedule.

  >>> one_shot(0.9, 5).steps
  (5,)
  """
  return from_table([step], [sparsity])


def constant(sparsity: float, begin: int, end: int, every: int) -> Schedule:
  """Hold one sparsity and choose the weights anew again and again.

  Args:
    sparsity: Share of weights to prune.
    begin: Step of the first update.
    end: Step of the last one, which always fires.
    every: Steps between updates.

  Returns:
    A schedule.

  >>> constant(0.5, 0, 5, 2).steps
  (0, 2, 4, 5)
  """
  steps = _steps(begin, end, every, "exact")
  return from_table(steps, [sparsity] * len(steps))


def _steps(begin: int, end: int, every: int, convention: str) -> list[int]:
  begin, end, every = _whole(begin=begin, end=end, every=every)
  if end < begin or every < 1:
    raise ValueError(
      f"a schedule needs begin <= end and every >= 1, not begin {begin}, end"
      f" {end}, every {every}"
    )
  steps = list(range(begin, end + 1, every))
  if convention == "exact" and steps[-1] != end:
    steps.append(end)
  return steps


def polynomial(
  initial: float,
  final: float,
  begin: int,
  end: int,
  every: int,
  *,
  degree: float = 3.0,
  convention: str = "exact",
) -> Schedule:
  """Raise the sparsity quickly at first, then ever more slowly.

  Args:
    initial: Sparsity at `begin`.
    final: Sparsity from `end` on.
    begin: Step of the first update.
    end: Step of the last one.
    every: Steps between updates.
    degree: Of the polynomial, above 0.
    convention: "exact" always fires at `end`, with the final sparsity.
      "reference" fires only at begin, begin + every, ... up to `end`, which
      may be missed, and its sparsity before `begin` is NaN.

  Returns:
    A schedule with sparsity final - (final - initial) (1 - t)^degree, t running
    from 0 to 1 between `begin` and `end` (Zhu and Gupta 2017, arXiv
    1710.01878).

  Raises:
    ValueError: If a number is out of range.

  >>> schedule = polynomial(0.0, 0.9, 0, 10, 5)
  >>> schedule.steps, [round(level, 4) for level in schedule.levels]
  ((0, 5, 10), [0.0, 0.7875, 0.9])
  """
  check_convention(convention)
  check_sparsity(initial, "initial sparsity")
  check_sparsity(final, "final sparsity")
  if not degree > 0:
    raise ValueError(f"the degree must be above 0, got {degree}")
  steps = _steps(begin, end, every, convention)
  begin, end = _whole(begin=begin, end=end)
  length = max(end - begin, 1)
  # A single step jumps to the final value.
  share = lambda step: (
    1.0 if end == begin else min((step - begin) / length, 1.0)
  )
  level = lambda step: final - (final - initial) * (1.0 - share(step)) ** degree
  base = from_table(steps, [min(1.0, max(0.0, level(step))) for step in steps])
  before = jnp.float32(jnp.nan if convention == "reference" else 0.0)

  def sparsity(step: int | jax.Array) -> jax.Array:
    step = jnp.asarray(step)
    done = (step - begin).astype(jnp.float32) / length if end > begin else 1.0
    left = 1.0 - jnp.clip(jnp.asarray(done, jnp.float32), 0.0, 1.0)
    value = final - (final - initial) * left**degree
    return jnp.where(step < begin, before, value.astype(jnp.float32))

  return base._replace(sparsity=sparsity)


def cubic(
  initial: float,
  final: float,
  begin: int,
  end: int,
  every: int,
  *,
  convention: str = "exact",
) -> Schedule:
  """Raise the sparsity along a cubic: gradual magnitude pruning.

  Args:
    initial: Sparsity at `begin`.
    final: Sparsity from `end` on.
    begin: Step of the first update.
    end: Step of the last one, which fires under the exact convention.
    every: Steps between updates.
    convention: See `polynomial`.

  Returns:
    A schedule (Zhu and Gupta 2017, arXiv 1710.01878).

  >>> cubic(0.05, 0.95, 10, 81, 10, convention="reference").steps[-1]
  80
  """
  return polynomial(
    initial, final, begin, end, every, degree=3.0, convention=convention
  )


def alternating(
  sparsity: float,
  begin: int,
  end: int,
  *,
  sparse: int,
  dense: int,
) -> Schedule:
  """Alternate sparse and dense phases and end sparse (AC/DC).

  Args:
    sparsity: Share of weights pruned in a sparse phase.
    begin: Step at which the first sparse phase starts.
    end: Step of the last update, after which the model stays sparse.
    sparse: Steps of a sparse phase.
    dense: Steps of a dense phase, in which all weights train.

  Returns:
    A schedule that fires at the start of every phase (Peste et al. 2021, arXiv
    2106.12379).

  Raises:
    ValueError: If a number is out of range.

  >>> schedule = alternating(0.9, 0, 25, sparse=10, dense=5)
  >>> list(zip(schedule.steps, schedule.levels))
  [(0, 0.9), (10, 0.0), (15, 0.9), (25, 0.9)]
  """
  begin, end, sparse, dense = _whole(
    begin=begin, end=end, sparse=sparse, dense=dense
  )
  if end < begin or sparse < 1 or dense < 1:
    raise ValueError(
      f"alternating needs begin <= end and phases of at least one step, not"
      f" begin {begin}, end {end}, sparse {sparse}, dense {dense}"
    )
  steps, levels, step = [], [], begin
  while step < end:
    steps.append(step)
    levels.append(sparsity)
    if step + sparse < end:
      steps.append(step + sparse)
      levels.append(0.0)
    step += sparse + dense
  return from_table([*steps, end], [*levels, sparsity], alternates=True)


# Schedules by name, for configurations.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
  "one_shot": one_shot,
  "constant": constant,
  "polynomial": polynomial,
  "cubic": cubic,
  "alternating": alternating,
}
