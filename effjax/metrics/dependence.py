"""Interdependence of decisions: how well the others predict one of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from effjax.metrics import base, counting

Array = jax.Array
# An unexplained share of variance, and the square of a coefficient, below this
# count as 0: float32 elimination leaves errors of about 1e-6.
_TOLERANCE = 1e-5


class Gram(NamedTuple):
  """Exact second moments of binary decisions.

  Attributes:
    joint: [A, A], the number of samples in which two decisions are positive.
    total: [], the number of samples.
    invalid: [A] or [], the number of NaN logits among them.
  """

  joint: Array
  total: Array
  invalid: Array


def interdependence(
  threshold: float = 0.0, *, convention: str = "exact"
) -> base.Metric:
  """Makes the R^2 with which the other decisions predict each decision.

  Ordinary least squares with intercept of one column of predictions on the
  A - 1 others, fitted and scored on the same samples; R^2 does not depend on
  which of several solutions is taken where columns repeat or are constant.
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023).

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.
    convention: What a constant column gets: NaN under "exact", 1 under
      "reference" (a perfect fit of nothing).

  Returns:
    A metric of (predictions or logits) with value [A]. A NaN logit makes every
    value NaN, since each depends on all attributes.
  """
  counting.check_convention(convention)
  constant = 1.0 if convention == "reference" else jnp.nan

  def update(state: Gram, **batch) -> Gram:
    read = counting.read(batch, "predictions", threshold=threshold)
    joint = counting.cooccurrence(
      read.weights, read.predictions, read.predictions
    )
    new = Gram(joint, jnp.sum(read.weights), read.invalid)
    return base.add(state, new)

  def compute(state: Gram) -> Array:
    if not state.joint.ndim:
      return jnp.full((), jnp.nan)
    covariance, defined = _covariance(state)
    value = jnp.where(defined, explained(covariance), constant)
    usable = (state.total > 0) & ~jnp.any(state.invalid > 0)
    return jnp.where(usable, value, jnp.nan)

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(Gram(zero, zero, zero), update, base.add, compute)


@jax.jit
def explained(covariance: Array) -> Array:
  """Returns the R^2 of each variable on all the others, by one elimination.

  Gauss-Jordan sweeps (with the largest remaining pivot) invert the correlation
  matrix of a maximal independent set S of variables, and leave, for each
  variable outside, its coefficients on S. Then R^2 = 1 for every variable that
  takes part in a linear dependence, and 1 - 1/(C^-1)_aa for the rest.

  Args:
    covariance: [A, A]. A variable of variance 0 explains nothing.

  Returns:
    [A] float32 in [0, 1]; 0 for a variable of variance 0.
  """
  variance = jnp.diagonal(covariance)
  varies = variance > 0
  scale = jnp.where(
    varies, jax.lax.rsqrt(jnp.where(varies, variance, 1.0)), 0.0
  )
  work = covariance * scale[:, None] * scale[None, :]
  size = work.shape[0]
  work = jnp.where(jnp.eye(size, dtype=bool), varies.astype(work.dtype), work)

  def sweep(_, carry):
    work, swept = carry
    left = jnp.where(swept, -jnp.inf, jnp.diagonal(work))
    k = jnp.argmax(left)
    proceed = left[k] > _TOLERANCE
    pivot = jnp.where(proceed, left[k], 1.0)
    at = jnp.arange(size) == k
    row = work[k] / pivot
    column = jnp.where(at, 0.0, work[:, k])
    new = work - column[:, None] * row[None, :]
    new = jnp.where(at[:, None], row[None, :], new)
    new = jnp.where(
      at[None, :], jnp.where(at, 1.0, -column)[:, None] / pivot, new
    )
    return jnp.where(proceed, new, work), swept | (at & proceed)

  work, swept = jax.lax.fori_loop(0, size, sweep, (work, jnp.zeros(size, bool)))
  # Rows of S, columns outside S: coefficients of the dependent variables.
  dependent = varies & ~swept
  linked = swept[:, None] & dependent[None, :] & (work**2 > _TOLERANCE)
  involved = dependent | jnp.any(linked, axis=1)
  inverse = jnp.where(swept, jnp.diagonal(work), 1.0)
  value = jnp.clip(1.0 - 1.0 / inverse, 0.0, 1.0)
  return jnp.where(varies, jnp.where(involved, 1.0, value), 0.0)


def _covariance(state: Gram) -> tuple[Array, Array]:
  """Returns the [A, A] covariance and which [A] columns vary."""
  ones = jnp.diagonal(state.joint)
  # A column and its complement have equal R^2. Complementing those that are
  # mostly true, in exact counts, keeps p_i p_j small, where the subtraction
  # below would otherwise cancel.
  flip = 2 * ones > state.total
  joint = jnp.where(flip[:, None], ones[None, :] - state.joint, state.joint)
  ones = jnp.where(flip, state.total - ones, ones)
  joint = jnp.where(flip[None, :], ones[:, None] - joint, joint)
  rate = counting.ratio(ones, state.total)
  covariance = (
    counting.ratio(joint, state.total) - rate[:, None] * rate[None, :]
  )
  defined = ones > 0
  both = defined[:, None] & defined[None, :]
  return jnp.where(both, covariance, 0.0), defined
