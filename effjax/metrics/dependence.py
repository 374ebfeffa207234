"""Interdependence of decisions: how well the others predict one of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.metrics import base, counting

Array = jax.Array
# An unexplained share of variance, and the square of a coefficient, below this
# count as 0: float32 elimination leaves errors of about 1e-6.
_TOLERANCE = 1e-5


class Gram(NamedTuple):
  """Exact second moments of binary decisions.

  Attributes:
    joint: [A, A], the number of samples in which two decisions are positive.
    zeros: [A], the number of samples in which a decision is negative.
    total: [], the number of samples.
    invalid: [A] or [], the number of NaN logits among them.
  """

  joint: Array
  zeros: Array
  total: Array
  invalid: Array


def interdependence(
  threshold: Any = 0.0,
  *,
  ridge: float = 0.0,
  adjusted: bool = False,
  convention: str = "exact",
) -> base.Metric:
  """Makes the R^2 with which the other decisions predict each decision.

  Ordinary least squares with intercept of one column of predictions on the
  A - 1 others, fitted and scored on the same samples; R^2 does not depend on
  which of several solutions is taken where columns repeat or are constant.
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023).

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.
    ridge: The weight of the squared coefficients beside the *mean* squared
      error; the intercept is free. It is n times smaller than the `alpha` of
      scikit-learn's `Ridge`. R^2 is that of the fit, without the penalty.
    adjusted: Return 1 - (1 - R^2) (n - 1) / (n - r - 1) with r the rank of the
      predictors, which does not grow with useless predictors and can be
      negative; NaN where n - r < 2.
    convention: What a constant column gets: NaN under "exact", 1 under
      "reference" (a perfect fit of nothing).

  Returns:
    A metric of (predictions or logits) with value [A]. A NaN logit makes every
    value NaN, since each depends on all attributes.

  Raises:
    ValueError: If `ridge` is negative, or given together with `adjusted`.
  """
  counting.check_convention(convention)
  arguments.finite("ridge", ridge, 0)
  if ridge > 0 and adjusted:
    raise ValueError(
      "ridge excludes adjusted, which counts free coefficients; got ridge"
      f" {ridge}."
    )
  constant = 1.0 if convention == "reference" else jnp.nan

  def compute(state: Gram) -> Array:
    if not state.joint.ndim:
      return jnp.full((), jnp.nan)
    covariance, defined = _covariance(state)
    value, rank = _eliminate(covariance)
    if ridge:
      value = _ridge(covariance, ridge)
    if adjusted:
      total = state.total.astype(jnp.float32)
      left = total - rank.astype(jnp.float32) - 1.0
      value = 1.0 - (1.0 - value) * (total - 1.0) / left
      value = jnp.where(left > 0, value, jnp.nan)
    return _where_usable(state, jnp.where(defined, value, constant))

  return _of_gram(threshold, compute)


def mutual_information(
  threshold: Any = 0.0, *, reduce: str = "mean"
) -> base.Metric:
  """Makes the mutual information of each decision with the other decisions.

  For a pair of attributes sum p(x, y) log(p(x, y) / (p(x) p(y))) over the four
  combinations of their decisions, in nats, from exact counts; then the mean or
  the maximum over the other attributes. Unlike `interdependence` it looks at
  pairs only.

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.
    reduce: "mean" or "max" over the others, or "none" for all pairs, the
      diagonal holding the entropies.

  Returns:
    A metric of (predictions or logits) with value [A], or [A, A]. A constant
    decision is NaN and is left out of the others' means and maxima; NaN too if
    there is no other. A NaN logit makes every value NaN.

  Raises:
    ValueError: If `reduce` is unknown.
  """
  if reduce not in ("mean", "max", "none"):
    raise ValueError(f"reduce must be mean, max or none, got {reduce!r}.")

  def compute(state: Gram) -> Array:
    if not state.joint.ndim:
      return jnp.full((), jnp.nan)
    value, defined = _pairwise_information(state)
    if reduce != "none":
      others = defined & ~jnp.eye(value.shape[0], dtype=bool)
      number = jnp.sum(others, axis=1, dtype=jnp.int32)
      if reduce == "mean":
        value = jnp.sum(jnp.where(others, value, 0.0), axis=1)
        value = counting.ratio(value, number)
      else:
        value = jnp.max(jnp.where(others, value, -jnp.inf), axis=1)
      defined = number > 0
    return _where_usable(state, jnp.where(defined, value, jnp.nan))

  return _of_gram(threshold, compute)


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
  value, _ = _eliminate(jnp.asarray(covariance))
  return value


@jax.jit
def _eliminate(covariance: Array) -> tuple[Array, Array]:
  """Returns the R^2 of each variable and the rank of all the others, [A]."""
  variance = jnp.diagonal(covariance)
  varies = variance > 0
  scale = jnp.where(
    varies, jax.lax.rsqrt(jnp.where(varies, variance, 1.0)), 0.0
  )
  work = covariance * scale[:, None] * scale[None, :]
  size = work.shape[0]
  if not size:
    return scale, jnp.zeros(0, jnp.int32)
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
  value = jnp.where(varies, jnp.where(involved, 1.0, value), 0.0)
  # Without a variable that depends on no others the rank is one less.
  alone = (swept & ~involved).astype(jnp.int32)
  return value, jnp.sum(swept, dtype=jnp.int32) - alone


def _ridge(covariance: Array, weight: float) -> Array:
  """Returns the R^2 of ridge regressions on all the others, [A].

  Column a of (C + weight I)^-1, divided by its entry a, holds 1 at a and minus
  the coefficients elsewhere, so v^T C v is the variance that is left.
  """
  size = covariance.shape[0]
  identity = jnp.eye(size, dtype=covariance.dtype)
  factor = jax.scipy.linalg.cho_factor(covariance + weight * identity)
  inverse = jax.scipy.linalg.cho_solve(factor, identity)
  residual = inverse / jnp.diagonal(inverse)[None, :]
  explained = jnp.matmul(
    covariance, residual, precision=jax.lax.Precision.HIGHEST
  )
  left = jnp.sum(residual * explained, axis=0)
  return jnp.clip(1.0 - left / jnp.diagonal(covariance), 0.0, 1.0)


def _covariance(state: Gram) -> tuple[Array, Array]:
  """Returns the [A, A] covariance and which [A] columns vary."""
  ones = jnp.diagonal(state.joint)
  # A column and its complement have equal R^2. Complementing those that are
  # mostly true, in exact counts, keeps p_i p_j small, where the subtraction
  # below would otherwise cancel.
  flip = ones > state.zeros
  joint = jnp.where(flip[:, None], ones[None, :] - state.joint, state.joint)
  ones = jnp.where(flip, state.zeros, ones)
  joint = jnp.where(flip[None, :], ones[:, None] - joint, joint)
  rate = counting.ratio(ones, state.total)
  covariance = (
    counting.ratio(joint, state.total) - rate[:, None] * rate[None, :]
  )
  defined = ones > 0
  both = defined[:, None] & defined[None, :]
  return jnp.where(both, covariance, 0.0), defined


def _of_gram(threshold: Any, compute: Callable[[Gram], Array]) -> base.Metric:
  """Makes a metric of the decisions that is computed from a `Gram`."""

  def update(state: Gram, **batch) -> Gram:
    read = counting.read(batch, "predictions", threshold=threshold)
    joint = counting.cooccurrence(read.rows, read.predictions, read.predictions)
    # Counted themselves: a difference of rounded sums may miss 0.
    zeros = counting.count(read.rows, ~read.predictions)
    new = Gram(joint, zeros, jnp.sum(read.weights), read.invalid)
    return base.add(state, new)

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(Gram(zero, zero, zero, zero), update, base.add, compute)


def _where_usable(state: Gram, value: Array) -> Array:
  usable = (state.total > 0) & ~jnp.any(state.invalid > 0)
  return jnp.where(usable, value, jnp.nan)


def _pairwise_information(state: Gram) -> tuple[Array, Array]:
  """Returns the mutual information [A, A] and where neither is constant."""
  ones, total = jnp.diagonal(state.joint), state.total
  sides = (ones, state.zeros)
  rows = tuple(jnp.broadcast_to(x[:, None], state.joint.shape) for x in sides)
  columns = tuple(x.T for x in rows)
  both = state.joint
  cells = (
    (both, rows[0], columns[0]),
    (rows[0] - both, rows[0], columns[1]),
    (columns[0] - both, rows[1], columns[0]),
    (total - rows[0] - columns[0] + both, rows[1], columns[1]),
  )

  def term(both, row, column):
    # Shares, because products of counts pass 2^31 and float32's digits.
    share = counting.ratio(both, total)
    odds = counting.ratio(both, row) / counting.ratio(column, total)
    return jnp.where(both > 0, share * jnp.log(odds), 0.0)

  value = jnp.maximum(sum(term(*cell) for cell in cells), 0.0)
  varies = (ones > 0) & (state.zeros > 0)
  return value, varies[:, None] & varies[None, :]
