"""Who is hurt: amplification of stereotypes and rates per group.

Everything here follows from counts of groups x attributes, which are products
of binary matrices. Groups come from labels, never from predictions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, counting

Array = jax.Array

# Why an amplification is NaN, by the code in `Amplification.reason`.
REASONS = (
  "defined",
  "the attribute is the group itself",
  "too few labelled positives in a group",
  "the group or the attribute is absent from training",
  "no stereotype in training",
  "no positive at all",
  "NaN logits",
)


class Joint(NamedTuple):
  """Positives inside groups, the state of both amplifications.

  Attributes:
    predicted_in: [G, A], positive decisions inside group g.
    labelled_in: [G, A], positive labels inside group g.
    predicted: [A], positive decisions.
    labelled: [A], positive labels.
    members: [G], samples inside group g.
    invalid: [A] or [], the number of NaN logits.
  """

  predicted_in: Array
  labelled_in: Array
  predicted: Array
  labelled: Array
  members: Array
  invalid: Array


class Amplification(NamedTuple):
  """Bias amplification with what it rests on.

  Attributes:
    value: [G, A], NaN where undefined.
    reason: [G, A] int8, an index into `REASONS`; 0 where defined.
    predicted: [G, A], positive decisions inside the stereotyped group.
    predicted_total: [A], all positive decisions.
    labelled: [G, A], positive labels inside the stereotyped group.
    labelled_total: [A], all positive labels.
    support: [G, A], positive labels in the smaller of the two sides of g.
    inside: [G, A] bool, whether the stereotyped group is g (else its
      complement).
  """

  value: Array
  reason: Array
  predicted: Array
  predicted_total: Array
  labelled: Array
  labelled_total: Array
  support: Array
  inside: Array


def bias_amplification(
  train_labels: Any,
  train_groups: Any,
  *,
  min_positives: float = 10,
  min_gap: float = 0.1,
  threshold: Any = 0.0,
  details: bool = False,
  convention: str = "exact",
) -> base.Metric:
  """Makes the growth of a stereotype between labels and decisions.

  From training labels, P1 and P0 are the rates of attribute a inside and
  outside group g; the stereotyped side g* is g if P1 > P0, else its complement.
  On the data, the value is P(g* | decision positive) - P(g* | label positive):
  positive where decisions strengthen the stereotype.
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023), after
  Zhao et al., "Men Also Like Shopping" (EMNLP 2017).

  A pair is undefined (NaN) if in training a is g itself; if fewer than
  `min_positives` labels are positive on either side of g; if abs(P1 - P0) /
  min(P1, P0) < `min_gap`; or if no decision or no label is positive.

  Args:
    train_labels: [M, A] bool, concrete.
    train_groups: [M, G] bool, concrete.
    min_positives: The least number of positive labels on each side.
    min_gap: The least relative gap of the training rates.
    threshold: Scalar or [A]; not used where the batch holds predictions.
    details: Return an `Amplification` with counts and reasons.
    convention: Under "exact" a pair is undefined as well if g or its
      complement is empty in training, or if P1 = P0 = 0; "reference" keeps it
      with the complement of g as the stereotyped side.

  Returns:
    A metric of (predictions or logits, labels, groups) with value [G, A], or an
    `Amplification`. Take the mean over defined pairs to aggregate.

  Raises:
    ValueError: If the training arrays are not matrices of equal length.
  """
  counting.check_convention(convention)
  inside, verdict = _stereotypes(
    train_labels, train_groups, min_gap, convention
  )

  def update(state: Joint, **batch) -> Joint:
    new = _joint(batch, threshold)
    if new.labelled_in.shape != inside.shape:
      raise ValueError(
        "groups and labels have"
        f" {new.labelled_in.shape[0]} and {new.labelled_in.shape[1]} columns,"
        f" but in training {inside.shape[0]} and {inside.shape[1]}."
      )
    return base.add(state, new)

  def compute(state: Joint) -> Any:
    state = _broadcast(state, *inside.shape)
    predicted, labelled = (
      jnp.where(inside, part, whole[None, :] - part)
      for part, whole in (
        (state.predicted_in, state.predicted),
        (state.labelled_in, state.labelled),
      )
    )
    value = counting.ratio(
      predicted, state.predicted[None, :]
    ) - counting.ratio(labelled, state.labelled[None, :])
    support = jnp.minimum(
      state.labelled_in, state.labelled[None, :] - state.labelled_in
    )
    reason = jnp.select(
      [
        jnp.broadcast_to(state.invalid > 0, inside.shape),
        verdict == 1,
        support < min_positives,
        verdict > 1,
        jnp.isnan(value),
      ],
      [jnp.full(inside.shape, c, jnp.int8) for c in (6, 1, 2)]
      + [jnp.asarray(verdict), jnp.full(inside.shape, 5, jnp.int8)],
      jnp.zeros(inside.shape, jnp.int8),
    )
    value = jnp.where(reason > 0, jnp.nan, value)
    if not details:
      return value
    return Amplification(
      value,
      reason,
      predicted,
      state.predicted,
      labelled,
      state.labelled,
      support,
      jnp.asarray(inside),
    )

  return base.Metric(_empty(), update, base.add, compute)


def backdoor_amplification(*, threshold: Any = 0.0) -> base.Metric:
  """Makes P(mark | decision positive) - P(mark | label positive).

  For marks that carry no information on these data (as planted marks in test
  images): positive where the model has learned to follow the mark.
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023).

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.

  Returns:
    A metric of (predictions or logits, labels, groups = marks [N, G]) with
    value [G, A]; NaN for a mark that no sample bears and where no decision or
    no label is positive.
  """

  def update(state: Joint, **batch) -> Joint:
    return base.add(state, _joint(batch, threshold))

  def compute(state: Joint) -> Array:
    if not state.members.ndim:
      return jnp.full((), jnp.nan)
    value = counting.ratio(state.predicted_in, state.predicted[None, :])
    value = value - counting.ratio(state.labelled_in, state.labelled[None, :])
    undefined = (state.members == 0)[:, None] | (state.invalid > 0)[None, :]
    return jnp.where(undefined, jnp.nan, value)

  return base.Metric(_empty(), update, base.add, compute)


class Confusion(NamedTuple):
  """Counts of decisions per group and attribute, the state of `group_rates`.

  Attributes:
    both: [G, A], positive decisions on positive labels.
    predicted: [G, A], positive decisions.
    labelled: [G, A], positive labels.
    members: [G], samples.
    invalid: [A] or [], the number of NaN logits.
  """

  both: Array
  predicted: Array
  labelled: Array
  members: Array
  invalid: Array


class GroupRates(NamedTuple):
  """Rates per group and attribute, NaN for 0/0, and the counts behind them.

  Attributes:
    tpr: [G, A], TP / (TP + FN).
    fpr: [G, A], FP / (FP + TN).
    tnr: [G, A], TN / (FP + TN).
    fnr: [G, A], FN / (TP + FN).
    precision: [G, A], TP / (TP + FP).
    accuracy: [G, A], (TP + TN) / n.
    selection_rate: [G, A], (TP + FP) / n.
    base_rate: [G, A], (TP + FN) / n.
    tp: [G, A], true positives.
    fp: [G, A], false positives.
    tn: [G, A], true negatives.
    fn: [G, A], false negatives.
  """

  tpr: Array
  fpr: Array
  tnr: Array
  fnr: Array
  precision: Array
  accuracy: Array
  selection_rate: Array
  base_rate: Array
  tp: Array
  fp: Array
  tn: Array
  fn: Array


def group_rates(*, threshold: Any = 0.0) -> base.Metric:
  """Makes the rates of decisions within each group.

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.

  Returns:
    A metric of (predictions or logits, labels, groups) with value `GroupRates`
    of [G, A]. A rate whose denominator is 0 is NaN, never 0.
  """

  def update(state: Confusion, **batch) -> Confusion:
    read = counting.read(
      batch, "predictions", "labels", "groups", threshold=threshold
    )
    both, predicted, labelled = jnp.split(
      counting.cooccurrence(
        read.weights,
        read.groups,
        jnp.concatenate(
          [read.predictions & read.labels, read.predictions, read.labels], 1
        ),
      ),
      3,
      axis=1,
    )
    members = counting.count(read.weights, read.groups)
    new = Confusion(both, predicted, labelled, members, read.invalid)
    return base.add(state, new)

  def compute(state: Confusion) -> GroupRates:
    members = state.members[..., None] if state.members.ndim else state.members
    tp, fp = state.both, state.predicted - state.both
    fn = state.labelled - state.both
    tn = members - tp - fp - fn

    valid = jnp.broadcast_to(state.invalid == 0, tp.shape)

    def rate(part, whole):
      return jnp.where(valid, counting.ratio(part, whole), jnp.nan)

    return GroupRates(
      tpr=rate(tp, tp + fn),
      fpr=rate(fp, fp + tn),
      tnr=rate(tn, fp + tn),
      fnr=rate(fn, tp + fn),
      precision=rate(tp, tp + fp),
      accuracy=rate(tp + tn, members),
      selection_rate=rate(tp + fp, members),
      base_rate=rate(tp + fn, members),
      tp=tp,
      fp=fp,
      tn=tn,
      fn=fn,
    )

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(Confusion(*[zero] * 5), update, base.add, compute)


def _joint(batch: dict[str, Any], threshold: Any) -> Joint:
  read = counting.read(
    batch, "predictions", "labels", "groups", threshold=threshold
  )
  columns = jnp.concatenate([read.predictions, read.labels], axis=1)
  width = read.labels.shape[1]
  parts = counting.cooccurrence(read.weights, read.groups, columns)
  wholes = counting.count(read.weights, columns)
  return Joint(
    parts[:, :width],
    parts[:, width:],
    wholes[:width],
    wholes[width:],
    counting.count(read.weights, read.groups),
    read.invalid,
  )


def _empty() -> Joint:
  return Joint(*[jnp.zeros((), jnp.int32)] * 6)


def _broadcast(state: Joint, groups: int, attributes: int) -> Joint:
  """Gives the scalars of the empty state their shapes."""
  pairs, wide = (groups, attributes), (attributes,)
  shapes = (pairs, pairs, wide, wide, (groups,), wide)
  return Joint(*map(jnp.broadcast_to, state, shapes))


def _stereotypes(
  train_labels: Any, train_groups: Any, min_gap: float, convention: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the side of each pair and the reason to leave it out, [G, A].

  The thresholds on rates decide about whole pairs, so they are taken once, in
  float64, on the host.
  """
  labels, groups = np.asarray(train_labels) > 0, np.asarray(train_groups) > 0
  if labels.ndim != 2 or groups.ndim != 2 or len(labels) != len(groups):
    raise ValueError(
      "train_labels and train_groups must have shapes [M, A] and [M, G], got"
      f" {list(labels.shape)} and {list(groups.shape)}."
    )
  members = groups.sum(axis=0)[:, None]
  inside = groups.T.astype(np.float64) @ labels
  outside = labels.sum(axis=0)[None, :] - inside
  with np.errstate(divide="ignore", invalid="ignore"):
    p1, p0 = inside / members, outside / (len(labels) - members)
    gap = np.abs(p1 - p0) / np.minimum(p1, p0)
  reason = np.where(gap < min_gap, np.int8(4), np.int8(0))
  if convention == "exact":
    reason = np.where(np.isnan(gap), np.int8(3), reason)
  reason = np.where((p1 == 1) & (p0 == 0), np.int8(1), reason)
  return p1 > p0, reason
