"""What compression changes: one model beside another on the same samples.

A batch holds two models: `predictions` or `logits` of the compressed one,
`reference_predictions` or `reference_logits` [N, A] of the dense one. Flips and
errors follow from one set of counts, kept for every group and for everyone; a
group of which nothing can be said is NaN and has a support of 0.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax.metrics import base, cells, counting
from effjax.metrics.groups import with_everyone

Array = jax.Array


class Changes(NamedTuple):
  """Counts of changed decisions; the last row of [G + 1] is everyone.

  Attributes:
    lost_right: [G + 1, A], positive in the reference and negative now, where
      the label is positive.
    lost_wrong: [G + 1, A], the same where the label is negative.
    gained_right: [G + 1, A], negative in the reference and positive now, where
      the label is positive.
    gained_wrong: [G + 1, A], the same where the label is negative.
    reference_positives: [G + 1, A], positive decisions of the reference.
    reference_wrong: [G + 1, A], wrong decisions of the reference.
    members: [G + 1], samples.
    invalid: [A] or [], the number of NaN logits.
  """

  lost_right: Array
  lost_wrong: Array
  gained_right: Array
  gained_wrong: Array
  reference_positives: Array
  reference_wrong: Array
  members: Array
  invalid: Array


class FlipRates(NamedTuple):
  """Shares of samples whose decision changed, and the counts behind them.

  The rate is the sum of the two shares by decision, and also the sum of the two
  shares by correctness. All are [G, A], or [A] over everyone.

  Attributes:
    rate: Share of samples with another decision than the reference's.
    positive_to_negative: Share lost: positive in the reference, negative now.
    negative_to_positive: Share gained.
    right_to_wrong: Share broken: right in the reference, wrong now.
    wrong_to_right: Share mended.
    lost: Number of samples that went from positive to negative.
    gained: Number that went from negative to positive.
    broken: Number that went from right to wrong.
    mended: Number that went from wrong to right.
    reference_positives: Number positive in the reference, of which `lost` are.
    reference_right: Number right in the reference, of which `broken` are.
    support: Number of samples, the denominator of every share.
  """

  rate: Array
  positive_to_negative: Array
  negative_to_positive: Array
  right_to_wrong: Array
  wrong_to_right: Array
  lost: Array
  gained: Array
  broken: Array
  mended: Array
  reference_positives: Array
  reference_right: Array
  support: Array


class Flips(NamedTuple):
  """Changed decisions within each group and over all samples.

  Attributes:
    by_group: `FlipRates` of [G, A].
    overall: `FlipRates` of [A].
  """

  by_group: FlipRates
  overall: FlipRates


def flips(
  *, threshold: Any = 0.0, reference_threshold: Any = None
) -> base.Metric:
  """Makes the rates at which compression changes decisions.

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.
    reference_threshold: The same for the reference; None means `threshold`.

  Returns:
    A metric of (predictions or logits, reference_predictions or
    reference_logits, labels, groups) with value `Flips`; NaN in an empty group.

  >>> import numpy as np
  >>> from effjax import metrics
  >>> dense = np.array([[True], [True], [False], [False]])
  >>> pruned = np.array([[True], [False], [False], [True]])
  >>> value = metrics.compute(
  ...   metrics.flips(), predictions=pruned, reference_predictions=dense,
  ...   labels=dense, groups=metrics.one_hot([0, 0, 0, 1], 2)
  ... )
  >>> float(value.overall.rate[0]), float(value.by_group.rate[1, 0])
  (0.5, 1.0)
  """

  def compute(state: Changes) -> Flips:
    rates = _flip_rates(_table(state))
    return Flips(jax.tree.map(_by_group, rates), jax.tree.map(_overall, rates))

  return _comparison(compute, threshold, reference_threshold)


class ErrorChange(NamedTuple):
  """How compression moves the error rates.

  Attributes:
    excess: [G, A], `change` minus `overall_change`: above 0 where a group pays
      more than everyone does.
    change: [G, A], error rate minus that of the reference.
    ratio: [G, A], error rate over that of the reference; NaN where the
      reference makes no error.
    overall_change: [A], the change over all samples.
    overall_ratio: [A], the ratio over all samples.
    wrong: [G, A], the number of wrong decisions.
    reference_wrong: [G, A], that of the reference.
    support: [G, A], the number of samples.
  """

  excess: Array
  change: Array
  ratio: Array
  overall_change: Array
  overall_ratio: Array
  wrong: Array
  reference_wrong: Array
  support: Array


def error_change(
  *, threshold: Any = 0.0, reference_threshold: Any = None
) -> base.Metric:
  """Makes the change of error rates by group, against everyone's change.

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.
    reference_threshold: The same for the reference; None means `threshold`.

  Returns:
    A metric of (predictions or logits, reference_predictions or
    reference_logits, labels, groups) with value `ErrorChange`. Differences are
    taken of counts, so they are exact before the one division.
  """

  def compute(state: Changes) -> ErrorChange:
    table = _table(state)
    rates = _flip_rates(table)
    more = rates.broken - rates.mended
    wrong = table.reference_wrong + more
    change = _rate(more, table.members, table)
    ratio = _rate(wrong, table.reference_wrong, table)
    ratio = jnp.where(table.reference_wrong > 0, ratio, jnp.nan)
    return ErrorChange(
      _by_group(change - change[..., -1:, :]),
      _by_group(change),
      _by_group(ratio),
      _overall(change),
      _overall(ratio),
      *map(_by_group, (wrong, table.reference_wrong, rates.support)),
    )

  return _comparison(compute, threshold, reference_threshold)


def excess_error(
  *, threshold: Any = 0.0, reference_threshold: Any = None
) -> base.Metric:
  """Makes the excess error (err_G - ref_G) - (err - ref) of each group.

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.
    reference_threshold: The same for the reference; None means `threshold`.

  Returns:
    A metric like `error_change`, which has the supports, with value [G, A].
  """
  metric = error_change(
    threshold=threshold, reference_threshold=reference_threshold
  )
  return metric._replace(compute=lambda state: metric.compute(state).excess)


def _comparison(
  compute: Any, threshold: Any, reference_threshold: Any
) -> base.Metric:
  """Makes a metric with state `Changes`."""

  def read_both(batch):
    return counting.read(
      batch,
      "predictions",
      "reference_predictions",
      "labels",
      "groups",
      threshold=threshold,
      reference_threshold=reference_threshold,
    )

  def update(state: Changes, **batch) -> Changes:
    read = read_both(batch)
    groups = with_everyone(read.groups)
    counts = counting.tally(
      read.rows,
      groups,
      _changes,
      read.predictions,
      read.reference_predictions,
      read.labels,
    )
    members = counting.count(read.rows, groups)
    new = Changes._make((*counts, members, read.invalid))
    return base.add(state, new)

  def columns(**batch):
    read = read_both(batch)
    invalid = cells.invalid(read.logits, read.labels)
    invalid |= cells.invalid(read.reference_logits, read.labels)
    both = read.predictions, read.reference_predictions
    return with_everyone(read.groups), (*both, read.labels, invalid)

  def from_counts(counts, groups, now, before, label, invalid):
    inside = functools.partial(cells.total, counts, groups)
    return Changes(
      *map(inside, _changes(now, before, label)),
      members=inside(now | ~now)[:, 0],
      invalid=cells.total(counts, (), invalid),
    )

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(
    Changes(*[zero] * 8),
    update,
    base.add,
    compute,
    cells.of_columns(4, columns, from_counts),
  )


def _changes(now: Array, before: Array, label: Array) -> tuple[Array, ...]:
  return (
    before & ~now & label,
    before & ~now & ~label,
    now & ~before & label,
    now & ~before & ~label,
    before,
    before ^ label,
  )


def _table(state: Changes) -> Changes:
  """Aligns the counts: all [..., G + 1, A], members and invalid broadcast.

  The scalars of the empty state become one group and one attribute.
  """
  if not state.members.ndim:
    shapes = [(2, 1)] * 6 + [(2,), (1,)]
    state = Changes(*map(jnp.broadcast_to, state, shapes))
  return state._replace(
    members=state.members[..., None], invalid=state.invalid[..., None, :]
  )


def _rate(part: Array, whole: Array, table: Changes) -> Array:
  return jnp.where(table.invalid == 0, counting.ratio(part, whole), jnp.nan)


def _by_group(x: Array) -> Array:
  return x[..., :-1, :]


def _overall(x: Array) -> Array:
  return x[..., -1, :]


def _flip_rates(table: Changes) -> FlipRates:
  lost = table.lost_right + table.lost_wrong
  gained = table.gained_right + table.gained_wrong
  broken = table.lost_right + table.gained_wrong
  mended = table.gained_right + table.lost_wrong

  def rate(part):
    return _rate(part, table.members, table)

  return FlipRates(
    rate=rate(lost + gained),
    positive_to_negative=rate(lost),
    negative_to_positive=rate(gained),
    right_to_wrong=rate(broken),
    wrong_to_right=rate(mended),
    lost=lost,
    gained=gained,
    broken=broken,
    mended=mended,
    reference_positives=table.reference_positives,
    reference_right=table.members - table.reference_wrong,
    support=jnp.broadcast_to(table.members, lost.shape),
  )
