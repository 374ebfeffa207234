"""Do probabilities mean what they say?"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.metrics import base, blocks, columns, counting, reliability

Array = jax.Array
_NORMS = ("l1", "l2", "max")
_OUTCOMES = {
  "binary": reliability.positive_class,
  "classwise": reliability.every_class,
  "top_class": reliability.top_class,
}


class Calibration(NamedTuple):
  """A calibration error with what it rests on.

  Attributes:
    value: [A], NaN without samples.
    support: [A], the number of samples.
  """

  value: Array
  support: Array


class GroupCalibration(NamedTuple):
  """Calibration errors of groups with what they rest on.

  Attributes:
    value: [G, A], NaN where the group has no samples.
    support: [G, A], the number of samples.
    gap: [A], the largest minus the smallest value of the estimable groups; NaN
      where fewer than two are.
    estimable: [A], the number of groups whose value is not NaN.
    overall: [A], the error of all samples together.
  """

  value: Array
  support: Array
  gap: Array
  estimable: Array
  overall: Array


def calibration_error(
  bins: int = 10,
  norm: str = "l1",
  *,
  confidence: str = "binary",
  by_group: bool = False,
  details: bool = False,
  convention: str = "exact",
) -> base.Metric:
  """Makes the calibration error of probabilities in equal-width bins.

  With bins b of probability p, shares w_b = n_b / n and distances d_b =
  abs(mean p - mean y): l1 = sum w_b d_b (ECE), l2 = sqrt(sum w_b d_b^2) (RMS),
  max = max d_b (MCE) over the bins in use. Naeini et al., "Obtaining Well
  Calibrated Probabilities" (AAAI 2015); classwise: Kull et al., "Beyond
  Temperature Scaling" (NeurIPS 2019).

  Args:
    bins: The number of bins.
    norm: "l1", "l2" or "max".
    confidence: "binary": p = sigmoid(z) of each attribute. For one-hot labels
      of A classes: "classwise", p = softmax(z), an error for each class; or
      "top_class", the largest p against "is this class right?", where [A] is
      [1] in what follows.
    by_group: Return the errors within each group.
    details: Return a `Calibration`, or a `GroupCalibration` with the gap.
    convention: A probability of exactly 1 belongs to the last bin under
      "exact" and to a bin of its own under "reference".

  Returns:
    A metric of (logits, labels, and groups if `by_group`) with value [A], or
    [G, A]; NaN without samples or with a NaN logit. Its state is a
    `Reliability` (by group, the last row is that of all samples); see
    `reliability_curve`.

  Raises:
    ValueError: If `bins` is below 1, or `norm` or `confidence` is unknown.
  """
  counting.check_convention(convention)
  _check(bins, norm)
  if confidence not in _OUTCOMES:
    raise ValueError(
      f"confidence must be one of {', '.join(_OUTCOMES)}, got {confidence!r}."
    )
  outcomes = _OUTCOMES[confidence]

  def update(state: reliability.Reliability, **batch):
    needs = ("logits", "labels") + ("groups",) * by_group
    read = counting.read(batch, *needs)

    def inside(weights):
      new, _ = reliability.measure(
        outcomes, read.logits, read.labels, weights, bins
      )
      return new

    if not by_group:
      return base.add(state, inside(read.rows))
    new = blocks.each_group(inside, read.weights, read.groups)
    return base.add(state, new)

  def compute(state: reliability.Reliability) -> Any:
    if not state.count.ndim:
      value, support = jnp.full((), jnp.nan), state.count
    else:
      support = jnp.sum(state.count, axis=-1)
      value = _error(state, bins, norm, convention)
      if by_group:
        invalid = jnp.broadcast_to(state.invalid[-1:] > 0, value.shape)
        value = jnp.where(invalid, jnp.nan, value)
    if not by_group:
      return Calibration(value, support) if details else value
    overall = value
    if value.ndim:
      overall, value, support = value[-1], value[:-1], support[:-1]
    return _by_group(value, support, overall) if details else value

  drawn = reliability.parts_of_bins(outcomes, bins, by_group=by_group)
  return base.Metric(reliability.empty(), update, base.add, compute, drawn)


def adaptive_calibration_error(
  probabilities: Any, labels: Any, bins: int = 10, norm: str = "l1"
) -> Array:
  """Returns the calibration error in bins of equal mass.

  In ascending order of probability, sample i of N belongs to bin floor(i B /
  N). Samples of equal probability all belong to the bin of the first of them,
  so the value does not depend on the order of the rows; a bin may be empty.
  Nguyen and O'Connor, "Posterior calibration and exploratory analysis for
  natural language processing models" (EMNLP 2015).

  Args:
    probabilities: [N] or [N, A].
    labels: Like `probabilities`, bool.
    bins: The number of bins B.
    norm: "l1", "l2" or "max", as in `calibration_error`.

  Returns:
    [] or [A] float32, NaN without samples or with a NaN probability.

  Raises:
    ValueError: If the shapes differ, or `bins` or `norm` is unusable.

  >>> import numpy as np
  >>> p = np.array([0.1, 0.2, 0.7, 0.9], np.float32)
  >>> round(float(adaptive_calibration_error(p, p > 0.5, bins=2)), 4)
  0.175
  """
  _check(bins, norm)
  p, y = jnp.asarray(probabilities), counting.positive(jnp.asarray(labels))
  columns.check("probabilities", p, y)
  if p.ndim == 2:
    return _adaptive(p, y, bins, norm)
  return _adaptive(p[:, None], y[:, None], bins, norm)[0]


@functools.partial(jax.jit, static_argnames=("bins", "norm"))
def _adaptive(p: Array, y: Array, bins: int, norm: str) -> Array:
  size = p.shape[0]
  if not size:
    return jnp.full(p.shape[1], jnp.nan)
  # Sample i enters bin b at the least i with i B >= b N, in whole numbers.
  edges = [-(-b * size // bins) for b in range(1, bins)]
  edges = jnp.asarray(edges, jnp.int32)

  def one(column):
    p, y = jax.lax.sort(column, num_keys=1)
    starts = jnp.concatenate([jnp.ones(1, bool), p[1:] != p[:-1]])
    order = jnp.arange(size, dtype=jnp.int32)
    first = jax.lax.cummax(jnp.where(starts, order, 0))
    index = jnp.searchsorted(edges, first, side="right")
    gaps = p - y.astype(jnp.float32)

    def inside(b):
      gap = counting.long_sum(jnp.where(index == b, gaps, 0.0))
      return jnp.sum(index == b, dtype=jnp.int32), jnp.abs(gap)

    count, gap = jax.lax.map(inside, jnp.arange(bins, dtype=index.dtype))
    value = _combine(count.astype(jnp.float32), gap, norm)
    return jnp.where(jnp.isnan(p[-1]), jnp.nan, value)

  # Adding 0 makes -0.0 and 0.0 one tie.
  return jax.lax.map(one, (p.T.astype(jnp.float32) + 0, y.T))


def _check(bins: int, norm: str) -> None:
  arguments.whole("bins", bins)
  if norm not in _NORMS:
    raise ValueError(f"norm must be one of {', '.join(_NORMS)}, got {norm!r}.")


def _error(
  state: reliability.Reliability, bins: int, norm: str, convention: str
) -> Array:
  """Returns the error from the counts, over the last axis."""
  if convention == "exact":
    state = reliability.close(state)
  count = state.count.astype(jnp.float32)
  gap = jnp.abs(
    count * reliability.middles(bins, count.shape)
    - state.positives.astype(jnp.float32)
    + state.offset
  )
  return jnp.where(state.invalid == 0, _combine(count, gap, norm), jnp.nan)


def _combine(count: Array, gap: Array, norm: str) -> Array:
  """Returns the norm of distances gap / count; NaN where all counts are 0."""
  distance = jnp.where(count > 0, gap / jnp.maximum(count, 1e-30), 0.0)
  total = jnp.sum(count, axis=-1)
  if norm == "l1":
    value = jnp.sum(gap, axis=-1) / total
  elif norm == "l2":
    value = jnp.sqrt(jnp.sum(gap * distance, axis=-1) / total)
  else:
    value = jnp.max(distance, axis=-1)
  return jnp.where(total > 0, value, jnp.nan)


def _by_group(value: Array, support: Array, overall: Array) -> GroupCalibration:
  if not value.ndim:
    return GroupCalibration(value, support, value, support, overall)
  defined = ~jnp.isnan(value)
  estimable = jnp.sum(defined, axis=0, dtype=jnp.int32)
  largest = jnp.max(jnp.where(defined, value, -jnp.inf), axis=0)
  smallest = jnp.min(jnp.where(defined, value, jnp.inf), axis=0)
  gap = jnp.where(estimable > 1, largest - smallest, jnp.nan)
  return GroupCalibration(value, support, gap, estimable, overall)
