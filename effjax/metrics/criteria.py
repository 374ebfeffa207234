"""What the dense model alone tells about the bias of its compressed versions.

Criteria rank attributes (or samples) before anything is pruned; how well they
do so is measured against what pruning then did.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import base, bias, classification, counting, ranking

Array = jax.Array
# Permutations that are drawn and evaluated at once.
_BLOCK = 256
_LAST = np.uint32(1 << 31)  # above every shifted draw


class DenseCriteria(NamedTuple):
  """Criteria per attribute, NaN where undefined.

  Attributes:
    uncertainty: [A], the share of undecided outputs.
    amplification: [G, A], the size of bias amplification, abs(BA).
    skew: [A], abs(2 rate - 1) of the positive labels: 0 where both values are
      equally frequent, 1 where only one occurs.
  """

  uncertainty: Array
  amplification: Array
  skew: Array


def dense_criteria(
  train_labels: Any,
  train_groups: Any,
  *,
  cut: float = 0.4,
  min_positives: float = 10,
  min_gap: float = 0.1,
  threshold: Any = 0.0,
) -> base.Metric:
  """Makes the criteria that need the uncompressed model only.

  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023), find
  that such criteria tell where bias will grow; this choice of them is ours.

  Args:
    train_labels: [M, A] bool, concrete, as in `bias_amplification`.
    train_groups: [M, G] bool, concrete.
    cut: Half the width of the undecided interval, as in `uncertainty`.
    min_positives: As in `bias_amplification`.
    min_gap: As in `bias_amplification`.
    threshold: Scalar or [A]; not used where the batch holds predictions.

  Returns:
    A metric of (logits, labels, groups, and predictions if given) of the dense
    model with value `DenseCriteria`.
  """
  parts = base.collection(
    {
      "uncertainty": classification.uncertainty(cut),
      "amplification": bias.bias_amplification(
        train_labels,
        train_groups,
        min_positives=min_positives,
        min_gap=min_gap,
        threshold=threshold,
      ),
      "skew": classification.share(
        lambda batch: batch.labels, "logits", "labels"
      ),
    }
  )

  def compute(state: Any) -> DenseCriteria:
    values = parts.compute(state)
    return DenseCriteria(
      values["uncertainty"],
      jnp.abs(values["amplification"]),
      jnp.abs(2.0 * values["skew"] - 1.0),
    )

  return base.Metric(parts.empty, parts.update, parts.merge, compute)


class RankCorrelation(NamedTuple):
  """A rank correlation with what it rests on.

  Attributes:
    value: [...], Spearman's correlation; NaN below two pairs, and where one
      side is constant.
    p_value: [...], of the two-sided permutation test; NaN without a key.
    count: [...] int32, the number of pairs that are defined.
    dropped: [...] int32, the number of pairs with a NaN.
  """

  value: Array
  p_value: Array
  count: Array
  dropped: Array


def rank_correlation(
  key: Array | None, criterion: Any, gain: Any, *, permutations: int = 9999
) -> RankCorrelation:
  """Returns Spearman's correlation of a criterion with a gain of bias.

  Equal values share their mid-rank. Pairs in which either side is NaN are left
  out. The p-value is (1 + k) / (1 + `permutations`), k the number of random
  orders with a correlation of at least the same size.
  Spearman (1904); Phipson and Smyth (2010) for the p-value.

  Args:
    key: A random key for the test, or None for no test.
    criterion: [..., A], or [A] for all leading axes of `gain`.
    gain: [..., A], say BA(sparse) - BA(dense); ranked along the last axis.
    permutations: The number of random orders.

  Returns:
    A `RankCorrelation` of [...].

  Raises:
    ValueError: If the shapes disagree or `permutations` is below 1.

  >>> import numpy as np
  >>> uncertainty = np.array([0.1, 0.4, 0.2, 0.3], np.float32)
  >>> gain = np.array([0.0, 0.2, np.nan, 0.1], np.float32)
  >>> found = rank_correlation(None, uncertainty, gain)
  >>> float(found.value), int(found.count)
  (1.0, 3)
  """
  criterion, gain = (
    jnp.asarray(x).astype(jnp.float32) for x in (criterion, gain)
  )
  if not gain.ndim or criterion.shape not in (gain.shape, gain.shape[-1:]):
    raise ValueError(
      "criterion must have the shape of gain or of its last axis, got"
      f" {list(criterion.shape)} and {list(gain.shape)}."
    )
  permutations = arguments.whole("permutations", permutations)
  leading = gain.shape[:-1]
  rows = (math.prod(leading), gain.shape[-1])
  found = _rank_correlations(
    permutations,
    key,
    jnp.broadcast_to(criterion, gain.shape).reshape(rows),
    gain.reshape(rows),
  )
  return RankCorrelation(*(x.reshape(leading) for x in found))


class FlipArea(NamedTuple):
  """How well low confidence of the dense model tells which decisions flip.

  Attributes:
    value: [A], area under the ROC curve; NaN where all or no decisions flip.
    pooled: [], the same over all (sample, attribute) pairs.
    flips: [A] int32, the number of decisions that flip.
    total: [] int32, the number of samples.
  """

  value: Array
  pooled: Array
  flips: Array
  total: Array


def flip_auroc(dense_logits: Any, flips: Any) -> FlipArea:
  """Returns the AUROC of low dense confidence for "the decision flips".

  The probability that a flipped decision had a smaller abs(z) under the dense
  model than one that stayed, ties counting one half.

  Args:
    dense_logits: [N, A].
    flips: [N, A] bool, whether the compressed model decides differently.

  Returns:
    A `FlipArea`. A NaN logit makes its attribute and the pooled area NaN.

  Raises:
    ValueError: If the shapes differ or are not [N, A].

  >>> import numpy as np
  >>> logits = np.array([[3.0], [-0.1], [0.2], [-2.0]], np.float32)
  >>> flips = np.array([[False], [True], [False], [False]])
  >>> float(flip_auroc(logits, flips).pooled)
  1.0
  """
  logits, flips = jnp.asarray(dense_logits), jnp.asarray(flips)
  if logits.shape != flips.shape or logits.ndim != 2:
    raise ValueError(
      "dense_logits and flips must both have shape [N, A], got"
      f" {list(logits.shape)} and {list(flips.shape)}."
    )
  flips = counting.positive(flips)
  doubt = -jnp.abs(logits)
  return FlipArea(
    ranking.auc_exact(doubt, flips),
    ranking.auc_exact(doubt.ravel(), flips.ravel()),
    jnp.sum(flips, axis=0, dtype=jnp.int32),
    jnp.full((), logits.shape[0], jnp.int32),
  )


@functools.partial(jax.jit, static_argnums=0)
def _rank_correlations(permutations, key, criterion, gain):
  """Correlates the rows of two [L, A] matrices."""

  def one(row):
    line, x, y = row
    defined = ~(jnp.isnan(x) | jnp.isnan(y))
    count = jnp.sum(defined, dtype=jnp.int32)
    first = jnp.argsort(~defined, stable=True)
    x, y = (_centred_ranks(values, defined)[first] for values in (x, y))
    product = jnp.sum(x * y)
    scale = jnp.sqrt(jnp.sum(x * x) * jnp.sum(y * y))
    varies = scale > 0
    value = jnp.where(varies, jnp.clip(product / scale, -1.0, 1.0), jnp.nan)
    p_value = jnp.full((), jnp.nan, x.dtype)
    if key is not None:
      inside = jnp.arange(x.shape[0], dtype=jnp.int32) < count

      def reaches(draw):
        mixed = jax.random.bits(jax.random.fold_in(own, draw), x.shape)
        order = jnp.argsort(jnp.where(inside, mixed >> 1, mixed | _LAST))
        return jnp.abs(jnp.sum(x * y[order])) >= jnp.abs(product)

      own = jax.random.fold_in(key, line)
      draws = jnp.arange(permutations, dtype=jnp.int32)
      reached = jax.lax.map(reaches, draws, batch_size=_BLOCK)
      share = (1 + jnp.sum(reached, dtype=jnp.int32)) / (1 + permutations)
      p_value = jnp.where(varies, share.astype(x.dtype), jnp.nan)
    return value, p_value, count, x.shape[0] - count

  lines = jnp.arange(gain.shape[0], dtype=jnp.int32)
  return jax.lax.map(one, (lines, criterion, gain))


def _centred_ranks(values: Array, defined: Array) -> Array:
  """Returns mid-ranks minus their mean, times a constant; 0 if undefined.

  Twice a mid-rank is a whole number, and the constant a power of 2, so that
  sums of products are exact for some hundred values.
  """
  values = jnp.where(defined, values + 0, jnp.nan)  # -0.0 ties with 0.0
  ordered = jnp.sort(values)
  less, upto = (
    jnp.searchsorted(ordered, values, side=side) for side in ("left", "right")
  )
  twice = (less + upto).astype(jnp.int32) - jnp.sum(defined, dtype=jnp.int32)
  scale = 0.5 ** values.shape[0].bit_length()
  return jnp.where(defined, twice.astype(jnp.float32) * scale, 0.0)
