"""Is a difference between two populations of models more than chance?

Statistics are float64 where `jax_enable_x64` is on and float32 otherwise, with
which a p-value is good to about three digits (its error relative to itself is
below 1e-3) and 0 below 1e-38.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Welch(NamedTuple):
  """Welch's test of equal means, with what it rests on; all [...].

  Attributes:
    difference: Mean of the first minus mean of the second population; NaN
      where one of them is empty.
    t: The statistic, NaN where undefined.
    freedom: Degrees of freedom after Welch and Satterthwaite.
    p: The two-sided p-value, NaN where undefined.
    first_count: How many defined values the first population has.
    second_count: The same for the second.
  """

  difference: Array
  t: Array
  freedom: Array
  p: Array
  first_count: Array
  second_count: Array


def welch(first: Any, second: Any) -> Welch:
  """Tests whether two populations have the same mean, variances apart.

  Welch, "The Generalization of 'Student's' Problem when Several Different
  Population Variances are Involved" (Biometrika, 1947).

  A NaN is a model in which the value is undefined: it is left out and the
  counts tell how many remain. With fewer than two on either side there is no
  test: t, freedom and p are NaN. Where neither side varies, equal means give
  NaN and different ones an infinite t and p = 0, with one degree of freedom.

  Args:
    first: [K, ...], the values of K models.
    second: [L, ...], of L others.

  Returns:
    A `Welch` of [...].

  Raises:
    ValueError: If the shapes behind the leading axis differ.

  >>> import numpy as np
  >>> test = welch(np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0, 8.0]))
  >>> round(float(test.t), 3), round(float(test.p), 3)
  (-1.837, 0.179)
  """
  first, second = widest(first), widest(second)
  if not first.ndim or not second.ndim or first.shape[1:] != second.shape[1:]:
    raise ValueError(
      "Both populations need the shape [models, ...] with the same axes behind"
      f" the first, got {list(first.shape)} and {list(second.shape)}."
    )
  return _welch(first, second)


@jax.jit
def _welch(first: Array, second: Array) -> Welch:
  # Equal values differ from their smallest by exactly 0, so a population that
  # does not vary has variance 0 in floating point as well.
  origins, means, errors, counts = zip(
    *map(_moments, (first, second)), strict=True
  )
  difference = (origins[0] - origins[1]) + (means[0] - means[1])
  squared = errors[0] + errors[1]
  varies = squared > 0
  safe = jnp.where(varies, squared, 1.0)
  t = difference / jnp.sqrt(squared)
  parts = (
    (error / safe) ** 2 / (count - 1).astype(error.dtype)
    for error, count in zip(errors, counts, strict=True)
  )
  freedom = jnp.where(varies, 1.0 / sum(parts), 1.0)
  defined = (counts[0] > 1) & (counts[1] > 1)
  t, freedom = (jnp.where(defined, x, jnp.nan) for x in (t, freedom))
  return Welch(difference, t, freedom, _two_sided(t, freedom), *counts)


def holm(p: Any, *, counts: Any = None) -> Array:
  """Adjusts p-values so that any false rejection has at most their level.

  Step-down: the i-th smallest of m (from 0) becomes the largest p_j (m - j)
  over j <= i, at most 1. Holm, "A Simple Sequentially Rejective Multiple Test
  Procedure" (Scandinavian Journal of Statistics, 1979).

  Args:
    p: [...] p-values, all of them one family; map over families with `vmap`. A
      NaN stays NaN and is not counted.
    counts: How many tests share each p-value, integers like `p`; None for one
      each.

  Returns:
    [...] adjusted p-values: reject where at most the level.

  Raises:
    ValueError: If a concrete p-value lies outside [0, 1].

  >>> import numpy as np
  >>> adjusted = holm(np.array([0.01, 0.04, np.nan, 0.03]))
  >>> [round(float(p), 2) for p in adjusted]
  [0.03, 0.06, nan, 0.06]
  """
  return _adjust(*_read_family(p, counts), _step_down)


def benjamini_hochberg(p: Any, *, counts: Any = None) -> Array:
  """Adjusts p-values so that false discoveries have at most their level.

  Step-up: the i-th smallest of m (from 1) becomes the smallest p_j m / j over
  j >= i, at most 1. The expected share of false rejections is then controlled
  for independent (and positively dependent) tests. Benjamini and Hochberg,
  "Controlling the False Discovery Rate" (JRSS B, 1995).

  Args:
    p: [...] p-values of one family, as in `holm`.
    counts: As in `holm`.

  Returns:
    [...] adjusted p-values.

  Raises:
    ValueError: If a concrete p-value lies outside [0, 1].
  """
  return _adjust(*_read_family(p, counts), _step_up)


CORRECTIONS = {"holm": holm, "benjamini_hochberg": benjamini_hochberg}


def check_correction(name: str) -> None:
  """Raises a ValueError unless `name` is an entry of `CORRECTIONS`."""
  if name not in CORRECTIONS:
    raise ValueError(
      f"correction must be one of {', '.join(CORRECTIONS)}, got {name!r}."
    )


def widest(x: Any) -> Array:
  """Returns an array in the widest floating type that is enabled."""
  return jnp.asarray(x).astype(jax.dtypes.canonicalize_dtype(np.float64))


def _moments(values: Array) -> tuple[Array, Array, Array, Array]:
  """Returns origin, mean from there, squared standard error and count."""
  defined = ~jnp.isnan(values)
  count = jnp.sum(defined, axis=0, dtype=jnp.int32)
  number = count.astype(values.dtype)
  origin = jnp.min(values, axis=0, initial=jnp.inf, where=defined)
  shifted = jnp.where(defined, values - origin[None], 0.0)
  mean = jnp.sum(shifted, axis=0) / number
  squares = jnp.where(defined, (shifted - mean[None]) ** 2, 0.0)
  variance = jnp.sum(squares, axis=0) / (number - 1.0)
  return origin, mean, variance / number, count


def _two_sided(t: Array, freedom: Array) -> Array:
  """P(|T| > |t|) of Student's distribution."""
  half = jnp.full_like(t, 0.5)
  x = freedom / (freedom + t**2)
  return jax.scipy.special.betainc(0.5 * freedom, half, x)


def _read_family(p: Any, counts: Any) -> tuple[Array, Array]:
  if not isinstance(p, jax.core.Tracer):
    values = np.asarray(p)
    if np.any((values < 0) | (values > 1)):
      raise ValueError("p-values must lie in [0, 1]; write NaN for undefined.")
  p = jnp.asarray(p)
  if counts is None:
    return widest(p), jnp.ones(p.shape, jnp.int32)
  counts = jnp.asarray(counts).astype(jnp.int32)
  if counts.shape != p.shape:
    raise ValueError(
      f"counts {list(counts.shape)} and p {list(p.shape)} must have one shape."
    )
  return widest(p), counts


@functools.partial(jax.jit, static_argnums=2)
def _adjust(p: Array, counts: Array, rule: Callable[..., Array]) -> Array:
  shape, p, counts = p.shape, p.reshape(-1), counts.reshape(-1)
  counted = ~jnp.isnan(p) & (counts > 0)
  # What is not counted goes behind all p-values, where neither rule sees it.
  key = jnp.where(counted, p, 2.0)
  order = jnp.argsort(key)
  ordered = jnp.where(counted, counts, 0)[order]
  upto = jnp.cumsum(ordered)
  before, total = widest(upto - ordered), widest(jnp.sum(ordered))
  value = rule(key[order], before, widest(upto), total)
  value = jnp.zeros_like(p).at[order].set(jnp.minimum(value, 1.0))
  return jnp.where(counted, value, jnp.nan).reshape(shape)


def _step_down(p, before, upto, total):
  del upto
  return jax.lax.cummax(p * (total - before))


def _step_up(p, before, upto, total):
  del before
  return jax.lax.cummin(p * total / jnp.maximum(upto, 1.0), reverse=True)
