"""Intervals: Student's t over seeds, Wilson's of a share, of resamples."""

import math
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments

Array = jax.Array


class Interval(NamedTuple):
  """An estimate with an interval; each field is a tree of equal structure.

  Attributes:
    estimate: The value itself.
    low: The lower end, NaN where there is none.
    high: The upper end.
    count: How many defined seeds (or resamples, or samples) the interval rests
      on.
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
  check_level(level)
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


def wilson(count: Any, total: Any, *, level: float = 0.95) -> Interval:
  """Returns a share with Wilson's score interval, which suits small groups.

  With z the normal quantile, centre (k + z^2/2) / (n + z^2) and half width
  z / (n + z^2) sqrt(k (n - k) / n + z^2/4): it stays inside [0, 1] and has a
  width even where the share is 0 or 1.
  Wilson, "Probable Inference, the Law of Succession, and Statistical
  Inference" (JASA 1927).

  Args:
    count: [...], the samples that qualify.
    total: [...], all samples; broadcast against `count`.
    level: The coverage.

  Returns:
    An `Interval` of float32 [...], NaN where `total` is 0; its `count` is
    `total`.

  Raises:
    ValueError: If `level` is outside (0, 1).

  >>> interval = wilson(0, 10)
  >>> float(interval.low), round(float(interval.high), 4)
  (0.0, 0.2775)
  """
  check_level(level)
  support = jnp.asarray(total)
  shape = jnp.broadcast_shapes(np.shape(count), support.shape)
  support = jnp.broadcast_to(support, shape)
  k = jnp.broadcast_to(jnp.asarray(count), shape).astype(jnp.float32)
  n = support.astype(jnp.float32)
  z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
  usable = n > 0
  n = jnp.where(usable, n, 1.0)
  share = k / n
  centre = (k + z**2 / 2) / (n + z**2)
  half = z / (n + z**2) * jnp.sqrt(share * (n - k) + z**2 / 4)
  # At the borders the two terms are equal, but for their rounding.
  low = jnp.where(k <= 0, 0.0, centre - half)
  high = jnp.where(k >= n, 1.0, centre + half)
  share, low, high = (jnp.where(usable, x, jnp.nan) for x in (share, low, high))
  return Interval(share, low, high, support)


@jax.jit
def percentile(estimate: Any, samples: Any, level: float) -> Interval:
  """Returns the percentile interval of resampled values.

  Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

  Args:
    estimate: A tree of [...].
    samples: A tree of [R, ...]; NaN is left out, linear interpolation between
      the rest.
    level: The coverage.

  Returns:
    An `Interval` of trees like `estimate`.
  """
  drawn, count = _sorted(samples)
  tail = (1.0 - level) / 2
  ends = (_quantile(drawn, count, q) for q in (tail, 1.0 - tail))
  return _interval(estimate, *ends, count)


@jax.jit
def accelerated(
  estimate: Any,
  samples: Any,
  left_out: Any,
  weights: Array,
  strata: Array,
  level: float,
) -> Interval:
  """Returns the bias-corrected and accelerated (BCa) interval.

  The levels of the percentile interval are moved to Phi(z0 + (z0 + z) / (1 - a
  (z0 + z))), where Phi(z0) is the share of resamples below the estimate (ties
  count one half) and a a sixth of the skewness of the jackknife influences.
  Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), equations
  14.10, 14.14 and 14.15; for several strata their influences are pooled.

  Args:
    estimate: A tree of [...].
    samples: A tree of [R, ...].
    left_out: A tree of [J, ...], values without one sample; NaN is left out.
    weights: [J, A] or [J, 1], how many samples give each of them. The columns
      belong to the last axis of the leaves where that has A elements.
    strata: [J] integers in [0, J), the stratum of each.
    level: The coverage.

  Returns:
    An `Interval` of trees like `estimate`; NaN ends where the estimate is NaN.
  """
  drawn, count = _sorted(samples)
  value = _matrix(jax.tree.map(lambda x: x[None], estimate))
  below = jnp.sum(drawn < value, axis=0, dtype=jnp.int32)
  upto = jnp.sum(drawn <= value, axis=0, dtype=jnp.int32)
  size = jnp.maximum(count, 1).astype(jnp.float32)
  # Half a resample short of the border, where Phi^-1 would be infinite.
  share = 0.5 * (below + upto).astype(jnp.float32) / size
  bias = jax.scipy.special.ndtri(jnp.clip(share, 0.5 / size, 1.0 - 0.5 / size))
  bias = jnp.where(jnp.isnan(value[0]), jnp.nan, bias)
  weights = jax.tree.map(lambda x: _like(weights, x), left_out)
  speed = _acceleration(_matrix(left_out), _matrix(weights), strata)
  tail = jax.scipy.special.ndtri(jnp.asarray((1.0 - level) / 2, jnp.float32))

  def end(z):
    shift = bias + z
    moved = jax.scipy.special.ndtr(bias + shift / (1.0 - speed * shift))
    return _quantile(drawn, count, moved)

  return _interval(estimate, end(tail), end(-tail), count)


def check_level(level: float) -> None:
  """Raises a ValueError unless `level` lies in (0, 1)."""
  arguments.share("level", level, below=True)


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


def _matrix(tree: Any) -> Array:
  """Puts leaves [R, ...] side by side, so that few programs are compiled."""
  leaves = [x.astype(jnp.float32) for x in jax.tree.leaves(tree)]
  flat = [x.reshape(len(x), math.prod(x.shape[1:])) for x in leaves]
  return jnp.concatenate(flat, axis=1)


def _sorted(samples: Any) -> tuple[Array, Array]:
  """Returns the samples in order [R, M], NaN last, and how many are not NaN."""
  drawn = jnp.sort(_matrix(samples), axis=0)
  return drawn, jnp.sum(~jnp.isnan(drawn), axis=0, dtype=jnp.int32)


def _interval(estimate: Any, *rows: Array) -> Interval:
  """Cuts rows [M] into trees like the estimate."""
  leaves, structure = jax.tree.flatten(estimate)
  edges = np.cumsum([x.size for x in leaves])[:-1]

  def tree(row):
    parts = jnp.split(row, edges)
    return structure.unflatten(
      [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]
    )

  return Interval(estimate, *map(tree, rows))


def _like(weights: Array, values: Array) -> Array:
  """Gives the weights of samples and attributes the shape of the values."""
  if values.ndim == 1 or weights.shape[1] != values.shape[-1]:
    weights = weights[:, :1]
  shape = [len(values)] + [1] * (values.ndim - 1)
  if values.ndim > 1:
    shape[-1] = weights.shape[1]
  return jnp.broadcast_to(weights.reshape(shape), values.shape)


def _quantile(ordered: Array, count: Array, level: Any) -> Array:
  """Interpolates between sorted values, of which `count` [...] are defined."""
  level = jnp.broadcast_to(jnp.asarray(level, jnp.float32), count.shape)
  place = level * jnp.maximum(count - 1, 0).astype(jnp.float32)
  below = jnp.nan_to_num(jnp.floor(place)).astype(jnp.int32)
  above = jnp.minimum(below + 1, jnp.maximum(count - 1, 0))
  low, high = (
    jnp.take_along_axis(ordered, i[None], axis=0)[0] for i in (below, above)
  )
  # Also between infinite neighbours, whose difference is NaN.
  between = low + (high - low) * (place - below.astype(jnp.float32))
  value = jnp.where(low == high, low, between)
  return jnp.where((count > 0) & ~jnp.isnan(level), value, jnp.nan)


def _acceleration(values: Array, weights: Array, strata: Array) -> Array:
  """Returns a sixth of the skewness of the influences [J, M]; 0 without any."""
  # A value of weight 0 may be undefined; so may one without its sample be.
  weights = jnp.where(jnp.isnan(values), 0.0, weights)
  values = jnp.where(weights > 0, values, 0.0)

  def pooled(x):
    sums = jax.ops.segment_sum(x, strata, num_segments=len(x))
    return jnp.take(sums, strata, axis=0)

  size = jnp.maximum(pooled(weights), 1.0)
  # Around the first mean the differences are small, and keep their digits.
  gap = values - pooled(weights * values) / size
  gap = gap - pooled(weights * gap) / size
  influence = -gap * (size - 1.0) / size
  # Relative to the largest, so that no power underflows.
  influence = jnp.where(weights > 0, influence, 0.0)
  scale = jnp.max(jnp.abs(influence), axis=0)
  unit = influence / jnp.where(scale > 0, scale, 1.0)[None]
  square, cube = (jnp.sum(weights * unit**p, axis=0) for p in (2, 3))
  return jnp.where(square > 0, cube, 0.0) / (
    6.0 * jnp.where(square > 0, square, 1.0) ** 1.5
  )
