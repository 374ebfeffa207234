"""Bootstrap intervals: of resampled cells where that suffices, or of rows."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import base, counting, intervals, rows, tables
from effjax.metrics.cells import Cells, join

Array = jax.Array
_METHODS = ("percentile", "bca")


def bootstrap(
  key: Array,
  metric: base.Metric,
  batch: Mapping[str, Any],
  resamples: int = 1000,
  *,
  paired: Mapping[str, Any] | None = None,
  level: float = 0.95,
  method: str = "percentile",
  strata: Any = None,
  joint: bool | None = None,
) -> intervals.Interval:
  """Returns the bootstrap interval of a metric over resampled rows.

  A resample draws as many rows as count (have a weight other than 0), with
  replacement; it is the same batch with multiplied weights. Three ways lead to
  the same distribution, and the fastest that fits is taken:

  *   counts of cells are drawn, for each attribute by itself: metrics with
      `cells`, arrays with values (outside `jit`) and weights of 0 and 1;
  *   rows are drawn and their cells counted by a matrix product: the same, but
      where the value combines attributes (`joint`). The cost is that of R x N x
      A x K multiplications and of drawing R x N rows;
  *   rows are drawn and the metric is updated for each resample.

  Counts of cells are exact but for areas, which join scores to 64 bins of equal
  mass, and calibration errors, which take probabilities within a quarter of a
  bin as equal. Their estimates stay those of all rows; what the resamples lose
  is far below the error of resampling. Cells are joined further where groups
  make them many. Two models have joint cells, up to 512 bins each; rows are
  drawn where they differ by less than these resolve, or where more than 4096
  cells would be left.
  Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13
  and 14.

  Args:
    key: A random key.
    metric: The metric; its value may be any tree of arrays.
    batch: The named arrays of one batch.
    resamples: The number of resamples.
    paired: A second batch with the same samples row by row, or None. Then the
      interval is that of `metric(batch) - metric(paired)`, with the same rows
      drawn from both.
    level: The coverage.
    method: "percentile", or "bca": bias-corrected and accelerated. BCa needs
      the value without each sample: cheap with cells, one more evaluation for
      each row without.
    strata: [N] integers or bools, or None. Rows are drawn within each stratum,
      whose size stays.
    joint: Whether the same rows are drawn for all attributes, as a value needs
      that combines them; None asks for it unless the last axis of every array
      of the value has the length A.

  Returns:
    An `Interval` of trees like the value. NaN resamples are left out, linear
    interpolation between the rest; `count` tells how many there were.

  Raises:
    ValueError: If `level` is outside (0, 1), `resamples` below 1, `method` is
      neither of the two, or the arrays differ in their number of rows.

  >>> from effjax import metrics
  >>> batch = {"predictions": np.arange(100)[:, None] < 80}
  >>> key, rate = jax.random.key(0), metrics.positive_rate()
  >>> interval = bootstrap(key, rate, batch, method="bca")
  >>> bool(0.65 < interval.low[0] < interval.estimate[0] < interval.high[0])
  True
  """
  intervals.check_level(level)
  check_resamples(resamples)
  if method not in _METHODS:
    raise ValueError(
      f"method must be one of {', '.join(_METHODS)}, got {method!r}."
    )
  plan = prepare(metric, batch, paired, strata=strata, joint=joint)
  samples = draw(key, plan, resamples)
  if method == "percentile":
    return intervals.percentile(plan.estimate, samples, level)
  left_out = _leave_out(plan)
  return intervals.accelerated(plan.estimate, samples, *left_out, level)


def explicit_bootstrap(
  metric: base.Metric,
  batch: Mapping[str, Any],
  index: Any,
  *,
  paired: Mapping[str, Any] | None = None,
  level: float = 0.95,
) -> intervals.Interval:
  """Returns the percentile interval over given resamples.

  Args:
    metric: The metric; its value may be any tree of arrays.
    batch: The named arrays of one batch.
    index: [R, n] integers, the rows of each resample.
    paired: A second batch, as in `bootstrap`.
    level: The coverage.

  Returns:
    An `Interval` of trees like the value, as from `bootstrap`.

  Raises:
    ValueError: If `level` is outside (0, 1), or `index` is no matrix of rows.

  >>> from effjax import metrics
  >>> batch = {"predictions": np.array([[True], [False]])}
  >>> index = np.array([[0, 0], [0, 1], [1, 1]])
  >>> rate = metrics.positive_rate()
  >>> interval = explicit_bootstrap(rate, batch, index, level=0.5)
  >>> interval.low.tolist(), interval.high.tolist()
  ([0.25], [0.75])
  """
  intervals.check_level(level)
  batches = _batches(batch, paired)
  size = rows.number(batches)
  concrete = _concrete(index)
  index = jnp.asarray(index)
  if index.ndim != 2 or not jnp.issubdtype(index.dtype, jnp.integer):
    raise ValueError(
      f"index must be a matrix [R, n] of integers, got {index.dtype}"
      f"{list(index.shape)}."
    )
  if concrete and index.size and not 0 <= index.min() <= index.max() < size:
    raise ValueError(
      f"index runs from {index.min()} to {index.max()}, but the batch has"
      f" {size} rows."
    )
  samples = rows.given(
    metric.update, metric.compute, metric.empty, batches, index
  )
  estimate = rows.value(metric, batches)
  return intervals.percentile(estimate, samples, level)


class Counted(NamedTuple):
  """A batch as counts of cells.

  Attributes:
    cells: How the states follow from the counts.
    table: The counts.
    joint: Whether all attributes share their rows.
    lost: What the value of the counts lacks, a tree like the value; None where
      they lose nothing.
  """

  cells: Cells
  table: tables.Table
  joint: bool
  lost: Any = None


class Plan(NamedTuple):
  """What a bootstrap draws from; see `prepare`.

  Attributes:
    metric: The metric.
    batches: One batch or two.
    estimate: The value of the metric, or the difference of two.
    strata: [N] or None.
    counted: The batch as counts, or None where rows are drawn.
  """

  metric: base.Metric
  batches: list[dict[str, Any]]
  estimate: Any
  strata: Any
  counted: Counted | None = None


def prepare(
  metric: base.Metric,
  batch: Mapping[str, Any],
  paired: Mapping[str, Any] | None = None,
  *,
  strata: Any = None,
  joint: bool | None = None,
) -> Plan:
  """Checks the arrays of a bootstrap and counts their cells.

  Args:
    metric: The metric.
    batch: The named arrays of one batch.
    paired: A second batch, or None.
    strata: [N] integers or bools, or None.
    joint: As in `bootstrap`.

  Returns:
    A `Plan`.

  Raises:
    ValueError: If the arrays differ in their number of rows.
  """
  batches = _batches(batch, paired)
  size = rows.number(batches)
  if strata is not None and np.shape(strata) != (size,):
    raise ValueError(
      f"strata must have shape [{size}], one for each row, got"
      f" {list(np.shape(strata))}."
    )
  plan = Plan(metric, batches, rows.value(metric, batches), strata)
  cells = metric.cells
  if cells is not None and len(batches) > 1:
    cells = join(*[cells.paired or cells] * 2)
  if cells is None or not size or not _concrete((batches, strata)):
    return plan
  table = tables.tabulate(cells, batches, strata)
  if table is None:
    return plan
  width = len(table.counts)
  if joint is None:
    leaves = jax.tree.leaves(plan.estimate)
    joint = any(x.shape[-1:] != (width,) for x in leaves)
  joint = joint and width > 1
  if joint and not tables.can_draw_rows(table):
    return plan
  counted = Counted(table.cells, table, joint)
  if not cells.exact:
    whole = _of_counts(plan, counted, [table.counts[None].astype(np.int32)], 1)
    lost = jax.tree.map(
      lambda x, y: jnp.nan_to_num(x - y[0], posinf=0.0, neginf=0.0),
      plan.estimate,
      whole,
    )
    counted = counted._replace(lost=lost)
  return plan._replace(counted=counted)


def draw(key: Array, plan: Plan, resamples: int) -> Any:
  """Returns the values of resamples.

  Args:
    key: A random key. Plans with as many rows that count get the same rows from
      the same key, if all of them are counted and joint or none is counted.
    plan: What to draw from.
    resamples: R, how many.

  Returns:
    A tree like the value, of [R, ...].
  """
  counted = plan.counted
  if counted is not None and _concrete(key):
    sampler = tables.draw_rows if counted.joint else tables.draw
    blocks = sampler(generator(key), counted.table, resamples)
    return _of_counts(plan, counted, blocks, resamples)
  return rows.draw(
    plan.metric.update,
    plan.metric.compute,
    resamples,
    plan.metric.empty,
    plan.batches,
    plan.strata,
    key,
  )


def generator(key: Array) -> np.random.Generator:
  """Returns NumPy's generator of random numbers with the seed of a key."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  seed = np.asarray(jax.random.key_data(key)).tolist()
  return np.random.Generator(np.random.Philox(seed))


def check_resamples(resamples: int) -> None:
  """Raises a ValueError unless there is at least one resample."""
  arguments.whole("resamples", resamples)


def _leave_out(plan: Plan) -> tuple[Any, Array, Array]:
  """Returns the values without one sample, their weights and strata."""
  if plan.counted is not None:
    left = tables.leave_out(plan.counted.table, joint=plan.counted.joint)
    values = _of_counts(plan, plan.counted, left.blocks, len(left.weights))
    return (
      values,
      jnp.asarray(left.weights),
      jnp.asarray(left.strata, jnp.int32),
    )
  metric, size = plan.metric, rows.number(plan.batches)
  values = rows.without_each(
    metric.update, metric.compute, metric.empty, plan.batches
  )
  weights = counting.read_weights(plan.batches[0].get("weights"), size)
  strata = jnp.zeros(size, jnp.int32)
  if plan.strata is not None:
    _, strata = jnp.unique(
      jnp.asarray(plan.strata), return_inverse=True, size=size
    )
  return values, (weights != 0)[:, None].astype(jnp.int32), strata


def _of_counts(
  plan: Plan, counted: Counted, blocks: Iterable[np.ndarray], number: int
) -> Any:
  """Returns the values of [B, A, P, K] counts, in blocks, as one tree."""
  values = [
    _of_block(
      counted.cells.state,
      plan.metric.compute,
      len(plan.batches),
      block,
      counted.table.kinds,
      counted.table.means,
      counted.table.codes,
    )
    for block in blocks
  ]
  values = jax.tree.map(lambda *x: jnp.concatenate(x)[:number], *values)
  if counted.lost is None:
    return values
  return jax.tree.map(lambda x, y: x + y[None], values, counted.lost)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _of_block(state, compute, parts, block, kinds, means, codes):
  def one(counts):
    times = counts.astype(jnp.float32)
    sums = jax.tree.map(lambda mean: times * mean, means)
    whole = state(counts, kinds, sums, codes)
    return rows.difference(
      [compute(s) for s in (whole if parts > 1 else [whole])]
    )

  return jax.vmap(one)(block)


def _batches(
  batch: Mapping[str, Any], paired: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
  """Returns the given arrays, all of which have the same number of rows."""
  batches = [
    {name: x for name, x in part.items() if x is not None}
    for part in (batch, paired)
    if part is not None
  ]
  sizes = {np.shape(x)[0] for part in batches for x in part.values()}
  if len(sizes) != 1:
    raise ValueError(
      "Every array of the batch (and of its pair) must have the same number of"
      f" rows, got {sorted(sizes)}."
    )
  return batches


def _concrete(tree: Any) -> bool:
  leaves = jax.tree.leaves(tree)
  return not any(isinstance(x, jax.core.Tracer) for x in leaves)
