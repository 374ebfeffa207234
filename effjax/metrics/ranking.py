"""Area under the ROC curve: streaming with a proven bound, and exact.

The area is the Mann-Whitney statistic with mid-ranks: the probability that a
random positive scores above a random negative, ties counting one half. The
sigmoid keeps order, so logits serve as scores.

Within a population, positives and negatives can come from different groups:
*subgroup* compares those of one group; *BPSN* (background positive, subgroup
negative) compares the positives outside the group with the negatives inside,
and is low where the group scores too high; *BNSP* is the reverse. Borkan et
al., "Nuanced Metrics for Measuring Unintended Bias" (WWW 2019).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, blocks, columns, counting, histograms
from effjax.metrics.histograms import Histogram

Array = jax.Array


class Area(NamedTuple):
  """An area under the ROC curve with what it rests on.

  Attributes:
    value: [A] or [G, A], NaN where one class is absent.
    bound: Likewise, the exact area differs from `value` by at most this: half
      of the share of (positive, negative) pairs that fall into the same bin.
    positives: Likewise, the number of positive labels.
    negatives: Likewise, the number of negative labels.
  """

  value: Array
  bound: Array
  positives: Array
  negatives: Array


class GroupAreas(NamedTuple):
  """Areas under the ROC curve of a group and of it against the background.

  Attributes:
    subgroup: [G, A] or an `Area`, positives and negatives of the group.
    bpsn: Likewise, background positives and subgroup negatives.
    bnsp: Likewise, background negatives and subgroup positives.
  """

  subgroup: Any
  bpsn: Any
  bnsp: Any


def auc(bins: int = 4096, *, details: bool = False) -> base.Metric:
  """Makes the area under the ROC curve per attribute, from binned logits.

  A bin is 16/bins wide at 0 and widens in proportion to abs(z) + 1 by octaves;
  beyond 255 logits share a bin. Equal logits share a bin, so real ties count
  exactly one half. Pairs of different bins count exactly; a pair inside one
  bin counts one half instead of 0 or 1, hence the error is at most half the
  share of such pairs (`Area.bound`). It is about 3e-6 for 200,000 logits of
  unit size and some 1e-5 for few rows; for logits that hardly vary, or lie far
  from 0, it is so much more that the bound has to be looked at, and `auc_exact`
  is the better choice. The counts take 8 bytes x bins x A.

  Args:
    bins: 16 times a power of two.
    details: Return an `Area` with the bound and the supports.

  Returns:
    A metric of (logits, labels) with value [A], or an `Area` of [A].

  Raises:
    ValueError: If `bins` is not 16 times a power of two, or above 2^20.
  """
  histograms.check_bins(bins)

  def update(state: Histogram, **batch) -> Histogram:
    read = counting.read(batch, "logits", "labels")
    new = histograms.histogram(read.logits, read.labels, read.weights, bins)
    return base.add(state, new)

  def compute(state: Histogram) -> Any:
    area = _area(state)
    return area if details else area.value

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(
    Histogram(zero, zero, zero),
    update,
    base.add,
    compute,
    histograms.masses(bins, by_group=False),
  )


def group_auc(bins: int = 4096, *, details: bool = False) -> base.Metric:
  """Makes the subgroup, BPSN and BNSP areas per group, from binned logits.

  Bins, errors and bounds are those of `auc`. The counts take 8 bytes x bins x
  A x (G + 1).

  Args:
    bins: 16 times a power of two.
    details: Return `Area`s with the bounds and the supports.

  Returns:
    A metric of (logits, labels, groups) with value `GroupAreas` of [G, A]. A
    NaN logit makes all areas of its attribute NaN.

  Raises:
    ValueError: If `bins` is not 16 times a power of two, or above 2^20.
  """
  histograms.check_bins(bins)

  def update(state: Histogram, **batch) -> Histogram:
    read = counting.read(batch, "logits", "labels", "groups")

    def inside(weights):
      return histograms.histogram(read.logits, read.labels, weights, bins)

    new = blocks.each_group(inside, read.weights, read.groups)
    return base.add(state, new)

  def compute(state: Histogram) -> Any:
    invalid = state.invalid
    pair = (state.negatives, state.positives)
    outside = pair
    if invalid.ndim:
      pair, outside = (
        tuple(x[:-1] for x in pair),
        tuple(x[-1:] - x[:-1] for x in pair),
      )
      invalid = jnp.broadcast_to(invalid[-1:], invalid[:-1].shape)
    (negatives, positives), (others, rivals) = pair, outside
    areas = GroupAreas(
      subgroup=_area(Histogram(negatives, positives, invalid)),
      bpsn=_area(Histogram(negatives, rivals, invalid)),
      bnsp=_area(Histogram(others, positives, invalid)),
    )
    return areas if details else GroupAreas(*[x.value for x in areas])

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(
    Histogram(zero, zero, zero),
    update,
    base.add,
    compute,
    histograms.masses(bins, by_group=True),
  )


def auc_exact(scores: Any, labels: Any) -> Array:
  """Returns the exact area under the ROC curve.

  Concrete arrays are sorted by NumPy, several times as fast as XLA sorts on a
  CPU; traced arrays are sorted by XLA.

  Args:
    scores: [N] or [N, A].
    labels: Like `scores`, bool.

  Returns:
    [] or [A], NaN where one class is absent or a score is NaN; float32, or
    float64 where jax has it and scores are.

  Raises:
    ValueError: If the shapes differ or have another rank.

  >>> import numpy as np
  >>> labels = np.array([False, True, False, True])
  >>> float(auc_exact(np.array([0.1, 0.4, 0.4, 0.8], np.float32), labels))
  0.875
  """
  scores, labels = _read_scores(scores, labels)
  return _between(scores, labels, ~labels)


def group_auc_exact(scores: Any, labels: Any, groups: Any) -> GroupAreas:
  """Returns the exact subgroup, BPSN and BNSP areas of each group.

  Args:
    scores: [N] or [N, A].
    labels: Like `scores`, bool.
    groups: [N, G] bool; column g = membership in group g.

  Returns:
    `GroupAreas` of `Area`s with arrays [G] or [G, A]; every bound is 0.

  Raises:
    ValueError: If the shapes disagree.
  """
  scores, labels = _read_scores(scores, labels)
  groups = counting.positive(columns.on_host(groups))
  columns.check_groups(groups, scores.shape[0])
  if isinstance(scores, np.ndarray) and isinstance(groups, jax.Array):
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
  # [N, G] or [N, G, A]
  inside = groups if labels.ndim == 1 else groups[:, :, None]
  positive, every = labels[:, None], scores[:, None]

  def area(positives, negatives):
    shape = positives.shape[:2] + scores.shape[1:]
    value = _between(every, positives, negatives)
    return Area(
      value,
      jnp.where(jnp.isnan(value), jnp.nan, 0.0),
      jnp.asarray(positives.reshape(shape).sum(0, dtype=np.int32)),
      jnp.asarray(negatives.reshape(shape).sum(0, dtype=np.int32)),
    )

  return GroupAreas(
    subgroup=area(inside & positive, inside & ~positive),
    bpsn=area(~inside & positive, inside & ~positive),
    bnsp=area(inside & positive, ~inside & ~positive),
  )


def _read_scores(scores: Any, labels: Any) -> tuple[Any, Any]:
  scores, labels = (
    columns.on_host(scores),
    counting.positive(columns.on_host(labels)),
  )
  columns.check("scores", scores, labels)
  if isinstance(scores, np.ndarray) and isinstance(labels, np.ndarray):
    return scores, labels
  return jnp.asarray(scores), jnp.asarray(labels)


def _between(scores: Any, positives: Any, negatives: Any) -> Array:
  """Returns the area between two sets of rows, for each further index.

  Args:
    scores: [N, ...], of size 1 where it is the same for all.
    positives: [N, ...] bool.
    negatives: [N, ...] bool, disjoint from `positives`.

  Returns:
    [...], see `auc_exact`.
  """
  shape = np.broadcast_shapes(scores.shape, positives.shape)
  if isinstance(scores, np.ndarray):
    arrays = [np.broadcast_to(x, shape) for x in (scores, positives, negatives)]
    value = np.empty(shape[1:], _wide(scores.dtype))
    for index in np.ndindex(shape[1:]):
      value[index] = _between_host(*(x[(slice(None), *index)] for x in arrays))
    return jnp.asarray(value)
  function = _between_traced
  for _ in shape[1:]:
    function = jax.vmap(function, in_axes=-1, out_axes=-1)
  return function(
    *(jnp.broadcast_to(x, shape) for x in (scores, positives, negatives))
  )


def _wide(dtype: Any) -> Any:
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


def _between_host(
  scores: np.ndarray, positives: np.ndarray, negatives: np.ndarray
) -> float:
  if np.isnan(scores).any():
    return np.nan
  scores = scores.astype(np.promote_types(scores.dtype, np.float32))
  few, many = np.sort(scores[positives]), np.sort(scores[negatives])
  pairs = few.size * many.size
  if not pairs:
    return np.nan
  swap = few.size > many.size
  if swap:
    few, many = many, few
  # Sorted needles fall into neighbouring places, which the search exploits.
  below = np.searchsorted(many, few, "left").sum()
  upto = np.searchsorted(many, few, "right").sum()
  wins = int(below) + int(upto)
  return (2 * pairs - wins if swap else wins) / (2 * pairs)


@jax.jit
def _between_traced(scores: Array, positives: Array, negatives: Array) -> Array:
  # Adding 0 makes -0.0 and 0.0 one tie for the comparison of neighbours.
  scores, positives, negatives = jax.lax.sort(
    (scores + 0, positives, negatives), num_keys=1
  )
  first = jnp.concatenate([jnp.ones(1, bool), scores[1:] != scores[:-1]])
  last = jnp.concatenate([first[1:], jnp.ones(1, bool)])
  through = jnp.cumsum(negatives, dtype=jnp.int32)
  before = through - negatives.astype(jnp.int32)
  # Both are non-decreasing, so a running extreme spreads the value of a tie's
  # first (last) member over the whole tie.
  below = jax.lax.cummax(jnp.where(first, before, 0))
  upto = jax.lax.cummin(
    jnp.where(last, through, through.shape[0]), reverse=True
  )
  dtype = _wide(scores.dtype)
  twice = jnp.where(positives, (below + upto).astype(dtype), 0.0)
  value = counting.long_sum(twice) / (
    2.0
    * jnp.sum(positives, dtype=jnp.int32).astype(dtype)
    * jnp.sum(negatives, dtype=jnp.int32).astype(dtype)
  )
  return jnp.where(jnp.any(jnp.isnan(scores)), jnp.nan, value)


def _area(state: Histogram) -> Area:
  if not state.positives.ndim:
    nan = jnp.full((), jnp.nan)
    return Area(nan, nan, state.positives, state.negatives)
  positives = jnp.sum(state.positives, axis=-1)
  negatives = jnp.sum(state.negatives, axis=-1)
  pairs = positives.astype(jnp.float32) * negatives.astype(jnp.float32)
  above = state.positives.astype(jnp.float32)
  beside = state.negatives.astype(jnp.float32)
  below = jnp.cumsum(state.negatives, axis=-1) - state.negatives
  wins = counting.long_sum(
    above * (below.astype(jnp.float32) + 0.5 * beside), 64
  )
  shared = counting.long_sum(above * beside, 64)
  valid = (pairs > 0) & jnp.broadcast_to(state.invalid == 0, pairs.shape)
  value, bound = (
    jnp.where(valid, part / pairs, jnp.nan) for part in (wins, 0.5 * shared)
  )
  return Area(value, bound, positives, negatives)
