"""Amplification of stereotypes, as a growth of P(group | positive).

Everything here follows from the counts of decisions within groups. Groups come
from labels, never from predictions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, counting
from effjax.metrics.groups import (
  Confusion,
  confusion,
  confusion_cells,
  no_confusion,
)

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

  def update(state: Confusion, **batch) -> Confusion:
    new = confusion(batch, threshold)
    rows, attributes = new.tp.shape
    check_columns(rows - 1, attributes, inside.shape)
    return base.add(state, new)

  def compute(state: Confusion) -> Any:
    size, attributes = inside.shape
    state = Confusion(
      *(jnp.broadcast_to(x, (size + 1, attributes)) for x in state[:4]),
      invalid=jnp.broadcast_to(state.invalid, (attributes,)),
    )
    joint = joint_counts(state)
    predicted, labelled = (
      jnp.where(inside, part, whole - part)
      for part, whole in (
        (joint.predicted_in, joint.predicted),
        (joint.labelled_in, joint.labelled),
      )
    )
    value = counting.ratio(predicted, joint.predicted) - counting.ratio(
      labelled, joint.labelled
    )
    support = jnp.minimum(joint.labelled_in, joint.labelled - joint.labelled_in)
    # Equal in training alone they are two things that were always met together.
    same = (verdict == 1) & (joint.labelled_in == joint.labelled)
    same &= joint.labelled_in == joint.members
    reason = jnp.select(
      [
        jnp.broadcast_to(state.invalid > 0, inside.shape),
        same,
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
      joint.predicted[0],
      labelled,
      joint.labelled[0],
      support,
      jnp.asarray(inside),
    )

  return base.Metric(
    no_confusion(), update, base.add, compute, confusion_cells(threshold)
  )


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

  def update(state: Confusion, **batch) -> Confusion:
    return base.add(state, confusion(batch, threshold))

  def compute(state: Confusion) -> Array:
    if not state.tp.ndim:
      return jnp.full((), jnp.nan)
    joint = joint_counts(state)
    value = counting.ratio(joint.predicted_in, joint.predicted)
    value = value - counting.ratio(joint.labelled_in, joint.labelled)
    undefined = (joint.members == 0) | (state.invalid > 0)[None, :]
    return jnp.where(undefined, jnp.nan, value)

  return base.Metric(
    no_confusion(), update, base.add, compute, confusion_cells(threshold)
  )


class Joint(NamedTuple):
  """Positives inside groups, [G, A], and of everyone, [1, A].

  Attributes:
    predicted_in: [G, A], positive decisions inside group g.
    predicted: [1, A], positive decisions.
    labelled_in: [G, A], positive labels inside group g.
    labelled: [1, A], positive labels.
    members: [G, A], samples inside group g.
  """

  predicted_in: Array
  predicted: Array
  labelled_in: Array
  labelled: Array
  members: Array


def joint_counts(state: Confusion) -> Joint:
  """Returns how often groups and positives occur together."""
  tp, fp, tn, fn, _ = state
  predicted, labelled, members = tp + fp, tp + fn, (tp + fp + tn + fn)[:-1]
  return Joint(
    predicted[:-1], predicted[-1:], labelled[:-1], labelled[-1:], members
  )


def check_columns(groups: int, attributes: int, train: tuple[int, ...]) -> None:
  """Raises a ValueError unless a batch has the columns of training, [G, A]."""
  if (groups, attributes) != train:
    raise ValueError(
      f"groups and labels have {groups} and {attributes} columns, but in"
      f" training {train[0]} and {train[1]}."
    )


def read_training(labels: Any, groups: Any) -> tuple[np.ndarray, np.ndarray]:
  """Returns training labels [M, A] and groups [M, G] as bools, checked."""
  labels, groups = np.asarray(labels) > 0, np.asarray(groups) > 0
  if labels.ndim != 2 or groups.ndim != 2 or len(labels) != len(groups):
    raise ValueError(
      "train_labels and train_groups must have shapes [M, A] and [M, G], got"
      f" {list(labels.shape)} and {list(groups.shape)}."
    )
  return labels, groups


def _stereotypes(
  train_labels: Any, train_groups: Any, min_gap: float, convention: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the side of each pair and the reason to leave it out, [G, A].

  The thresholds on rates decide about whole pairs, so they are taken once, in
  float64, on the host.
  """
  labels, groups = read_training(train_labels, train_groups)
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
