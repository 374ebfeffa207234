"""Intervals: Student's t over seeds, percentile bootstrap over rows."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, counting


class Interval(NamedTuple):
  """An estimate with an interval; each field is a tree of equal structure.

  Attributes:
    estimate: The value itself.
    low: The lower end, NaN where there is none.
    high: The upper end.
    count: How many defined seeds (or resamples) the interval rests on.
  """

  estimate: Any
  low: Any
  high: Any
  count: Any


def seed_interval(
  values: Any, *, level: float = 0.95, reference: Any = None
) -> Interval:
  """Returns the mean over seeds with Student's t interval.

  Args:
    values: [S, ...]. A NaN is a seed in which the value is undefined: it is
      left out, and `count` tells how many remain.
    level: The coverage.
    reference: Values of another arm with the same seeds in the same order, or
      None. Then the interval is that of the paired difference.

  Returns:
    An `Interval` of NumPy float64 [...]; NaN ends below two defined seeds.

  Raises:
    ValueError: If `level` is outside (0, 1), or the shapes differ.

  >>> interval = seed_interval([1.0, 2.0, 3.0])
  >>> float(interval.estimate), round(float(interval.high), 3)
  (2.0, 4.484)
  """
  _check_level(level)
  values = np.asarray(values, np.float64)
  if not values.ndim:
    raise ValueError("values must have a leading axis of seeds, got a scalar.")
  if reference is not None:
    reference = np.asarray(reference, np.float64)
    if reference.shape != values.shape:
      raise ValueError(
        f"values {list(values.shape)} and reference {list(reference.shape)}"
        " must have the same shape to be paired by seed."
      )
    values = values - reference
  defined = ~np.isnan(values)
  count = defined.sum(axis=0)
  known = np.where(defined, values, 0.0)
  with np.errstate(divide="ignore", invalid="ignore"):
    mean = known.sum(axis=0) / count
    squares = np.where(defined, (values - mean) ** 2, 0.0).sum(axis=0)
    error = np.sqrt(squares / (count - 1) / count)
  quantiles = np.array(
    [np.nan, np.nan]
    + [student_quantile(0.5 + level / 2, n) for n in range(1, len(values))]
  )
  half = quantiles[np.minimum(count, len(quantiles) - 1)] * error
  half = np.where(count > 1, half, np.nan)
  return Interval(mean, mean - half, mean + half, count)


def bootstrap(
  key: jax.Array,
  metric: base.Metric,
  batch: dict[str, Any],
  resamples: int = 1000,
  *,
  paired: dict[str, Any] | None = None,
  level: float = 0.95,
) -> Interval:
  """Returns the percentile interval of a metric over resampled rows.

  A resample draws as many rows as count (have a weight other than 0), with
  replacement; it is the same batch with multiplied weights, so nothing is
  gathered, and all resamples run in one compiled program.
  Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

  Args:
    key: A random key.
    metric: The metric; its value may be any tree of floating arrays.
    batch: The named arrays of one batch.
    resamples: The number of resamples.
    paired: A second batch with the same samples row by row, or None. Then the
      interval is that of `metric(batch) - metric(paired)`, with the same rows
      drawn from both.
    level: The coverage.

  Returns:
    An `Interval` of trees like the value. NaN resamples are left out, linear
    interpolation between the rest; `count` tells how many there were.

  Raises:
    ValueError: If `level` is outside (0, 1), `resamples` below 1, or the two
      batches differ in their number of rows.
  """
  _check_level(level)
  if resamples < 1:
    raise ValueError(f"resamples must be at least 1, got {resamples}.")
  sizes = {
    np.shape(x)[0]
    for part in (batch, paired or {})
    for x in part.values()
    if x is not None
  }
  if len(sizes) != 1:
    raise ValueError(
      "Every array of the batch (and of its pair) must have the same number of"
      f" rows, got {sorted(sizes)}."
    )
  batches = [dict(b) for b in (batch, paired) if b is not None]
  return _bootstrap(metric, resamples, level)(key, batches)


def _bootstrap(metric: base.Metric, resamples: int, level: float):
  """Returns the compiled program `(key, batches) -> Interval`."""

  def value(batches, multiplicity=None):
    values = []
    for batch in batches:
      if multiplicity is not None:
        weights = counting.read_weights(batch.get("weights"), len(multiplicity))
        weights = weights * multiplicity.astype(weights.dtype)
        batch = {**batch, "weights": weights}
      values.append(base.compute(metric, **batch))
    return jax.tree.map(lambda a, *b: a - b[0] if b else a, *values)

  @jax.jit
  def program(key, batches):
    first = batches[0]
    rows = next(iter(first.values())).shape[0]
    live = counting.read_weights(first.get("weights"), rows) != 0
    order = jnp.argsort(~live, stable=True)
    size = jnp.sum(live, dtype=jnp.int32)

    def one(index):
      place = jax.random.randint(
        jax.random.fold_in(key, index), (rows,), 0, size
      )
      drawn = (jnp.arange(rows, dtype=jnp.int32) < size).astype(jnp.int32)
      counts = jnp.zeros(rows, jnp.int32).at[order[place]].add(drawn)
      return value(batches, counts)

    samples = jax.lax.map(one, jnp.arange(resamples, dtype=jnp.int32))
    tail = (1.0 - level) / 2
    low, high = (
      jax.tree.map(lambda x, q=q: jnp.nanquantile(x, q, axis=0), samples)
      for q in (tail, 1.0 - tail)
    )
    count = jax.tree.map(
      lambda x: jnp.sum(~jnp.isnan(x), axis=0, dtype=jnp.int32), samples
    )
    return Interval(value(batches), low, high, count)

  return program


def student_quantile(probability: float, freedom: int) -> float:
  """Returns the quantile of Student's t distribution.

  The distribution function has a closed form for whole degrees of freedom
  (Abramowitz and Stegun, 26.7.3 and 26.7.4) in the angle arctan(t/sqrt(n)),
  which is bisected.

  Args:
    probability: In (0, 1).
    freedom: The degrees of freedom, at least 1.

  Returns:
    The quantile, to about 12 digits.

  >>> round(student_quantile(0.975, 4), 6)
  2.776445
  """

  def central(angle):
    """P(|T| < sqrt(freedom) tan(angle))."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for i in range(freedom // 2):
      total += term
      step = 2 * i + 1 + odd
      term *= step / (step + 1) * cosine**2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total

  target = abs(2 * probability - 1)
  low, high = 0.0, math.pi / 2
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if central(middle) < target else (low, middle)
  return math.copysign(math.sqrt(freedom) * math.tan(low), probability - 0.5)


def _check_level(level: float) -> None:
  if not 0.0 < level < 1.0:
    raise ValueError(f"level must lie in (0, 1), got {level}.")
