"""Amplification with a direction, and its undirected ancestor.

Groups are the protected attributes of the papers (A), the attributes [A] of a
batch their tasks (T).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, bias, counting
from effjax.metrics.groups import (
  Confusion,
  confusion,
  confusion_cells,
  no_confusion,
)

Array = jax.Array

DIRECTIONS = ("group_to_attribute", "attribute_to_group")


class Pairs(NamedTuple):
  """Counts of groups with attributes, the state of directional amplification.

  Attributes:
    predicted: [G, A], samples in g decided positive in a; in the other
      direction samples decided to be in g and labelled positive in a.
    labelled: [G, A], samples in g labelled positive in a.
    members: [G], samples in g.
    positives: [A], samples labelled positive in a.
    rows: [], samples in a group or with a positive label.
    invalid: [A] or [], the number of NaN logits.
  """

  predicted: Array
  labelled: Array
  members: Array
  positives: Array
  rows: Array
  invalid: Array


class DirectionalAmplification(NamedTuple):
  """Directional bias amplification with what it rests on.

  Attributes:
    value: [], the mean over defined pairs.
    pairs: [G, A], sign * (rate of decisions - rate of labels); NaN where the
      rates are undefined.
    sign: [G, A] int8, 1 where g and a go along with each other, -1 where they
      avoid each other, 0 where they are independent.
    estimable: [] int32, the number of defined pairs.
    predicted: [G, A], the numerator of the rate of decisions.
    labelled: [G, A], the numerator of the rate of labels.
    support: [G, A], the denominator of both.
  """

  value: Array
  pairs: Array
  sign: Array
  estimable: Array
  predicted: Array
  labelled: Array
  support: Array


def directional_bias_amplification(
  train_labels: Any = None,
  train_groups: Any = None,
  *,
  direction: str = "group_to_attribute",
  threshold: Any = 0.0,
  details: bool = False,
) -> base.Metric:
  """Makes the growth of a correlation, in one direction of its causes.

  For "group_to_attribute" (A -> T) a pair has the difference P(decided positive
  in a | g) - P(labelled positive in a | g): does membership sway the decisions
  on attributes? For "attribute_to_group" (T -> A) it is P(decided to be in g |
  a) - P(in g | a), given labels of a. Its sign is that of P(g, a) - P(g) P(a),
  over samples in at least one group or with at least one positive label,
  decided exactly. The value is the mean of sign * difference over pairs.
  Wang, Russakovsky, "Directional Bias Amplification" (ICML 2021), equation 3.

  A pair is undefined (NaN) if its condition, the group or the attribute, is
  absent from the data; a pair of sign 0 counts as 0.

  Args:
    train_labels: [M, A] bool, concrete, to take the signs from; None takes them
      from the labels of the data.
    train_groups: [M, G] bool, concrete, or None with `train_labels`.
    direction: Of `DIRECTIONS`.
    threshold: Scalar or [A]; not used where the batch holds predictions.
    details: Return a `DirectionalAmplification` with pairs and counts.

  Returns:
    A metric with value [] or a `DirectionalAmplification`, NaN without defined
    pairs; of (predictions or logits, labels, groups), or in the other direction
    of (group_predictions [N, G] bool, labels, groups).

  Raises:
    ValueError: If the direction is another, or the training arrays are not two
      matrices of equal length.

  >>> groups = counting.one_hot(np.array([0, 0, 1, 1]), 2)
  >>> labels = np.array([[True], [False], [False], [False]])
  >>> metric = directional_bias_amplification(labels, groups)
  >>> decided = groups[:, :1]
  >>> base.compute(metric, predictions=decided, labels=labels, groups=groups)
  Array(0.25, dtype=float32)
  """
  if direction not in DIRECTIONS:
    raise ValueError(
      f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}."
    )
  from_groups = direction == DIRECTIONS[0]
  train = None
  if train_labels is not None or train_groups is not None:
    train = _train_sign(train_labels, train_groups)

  def update(state: Pairs, **batch) -> Pairs:
    made = "predictions" if from_groups else "group_predictions"
    read = counting.read(batch, made, "labels", "groups", threshold=threshold)
    y, g, rows = read.labels, read.groups, read.rows
    if train is not None:
      bias.check_columns(g.shape[1], y.shape[1], train.shape)
    if from_groups:
      predicted, labelled = counting.tally(
        rows, g, lambda p, y: (p, y), read.predictions, y
      )
    else:
      predicted = counting.cooccurrence(rows, read.group_predictions, y)
      labelled = counting.cooccurrence(rows, g, y)
    some = jnp.any(g, axis=1) | jnp.any(y, axis=1)
    new = Pairs(
      predicted,
      labelled,
      counting.count(rows, g),
      counting.count(rows, y),
      counting.count(rows, some),
      read.invalid,
    )
    return base.add(state, new)

  def compute(state: Pairs) -> Any:
    if not state.members.ndim:
      state = _spread(state, (1, 1) if train is None else train.shape)
    members, positives = state.members[:, None], state.positives[None, :]
    sign = train
    if train is None:
      sign = _order(state.labelled, state.rows, members, positives)
    support = members if from_groups else positives
    change = counting.ratio(state.predicted, support) - counting.ratio(
      state.labelled, support
    )
    pairs = jnp.where(state.invalid > 0, jnp.nan, jnp.float32(sign) * change)
    defined = ~jnp.isnan(pairs)
    estimable = jnp.sum(defined, dtype=jnp.int32)
    total = jnp.sum(jnp.where(defined, pairs, 0.0))
    value = counting.ratio(total, estimable)
    value = jnp.where(jnp.any(state.invalid > 0), jnp.nan, value)
    if not details:
      return value
    return DirectionalAmplification(
      value,
      pairs,
      jnp.asarray(sign),
      estimable,
      state.predicted,
      state.labelled,
      jnp.broadcast_to(support, pairs.shape),
    )

  empty = Pairs(*[jnp.zeros((), jnp.int32)] * 6)
  return base.Metric(empty, update, base.add, compute)


class Mals(NamedTuple):
  """Mean amplification with what it rests on.

  Attributes:
    value: [], the mean over attributes of the sums of their pairs.
    pairs: [G, A], share of decisions - share of labels for stereotyped pairs, 0
      for others; NaN where either share is undefined.
    stereotyped: [G, A] bool, whether the share of labels is above 1 / G.
    estimable: [] int32, the number of attributes with both shares.
  """

  value: Array
  pairs: Array
  stereotyped: Array
  estimable: Array


def mals(
  train_labels: Any = None,
  train_groups: Any = None,
  *,
  threshold: Any = 0.0,
  details: bool = False,
  convention: str = "exact",
) -> base.Metric:
  """Makes the mean growth of those shares of groups that are above 1 / G.

  The share of group g among the positives of attribute a is the number of
  positives in g over its sum over groups. The value is the sum of (share of
  decisions - share of labels) over pairs whose share of labels is above 1 / G,
  divided by the number of attributes.
  Zhao et al., "Men Also Like Shopping" (EMNLP 2017), section 3.

  Args:
    train_labels: [M, A] bool, concrete, to take the shares of labels from, as
      in the paper; None takes them from the labels of the data.
    train_groups: [M, G] bool, concrete, or None with `train_labels`.
    threshold: Scalar or [A]; not used where the batch holds predictions.
    details: Return a `Mals`.
    convention: An attribute with no positive label or decision in any group is
      left out under "exact", a change of 0 under "reference".

  Returns:
    A metric of (predictions or logits, labels, groups = a partition) with value
    [], NaN where no attribute is defined; or a `Mals`.

  Raises:
    ValueError: If the training arrays are not two matrices of equal length.

  >>> groups = np.array([[True, False], [True, False], [False, True]])
  >>> predictions = np.array([[True], [True], [False]])
  >>> labels = np.ones((3, 1), bool)
  >>> value = base.compute(
  ...   mals(), predictions=predictions, labels=labels, groups=groups
  ... )
  >>> round(value.item(), 6)
  0.333333
  """
  counting.check_convention(convention)
  train = None
  if train_labels is not None or train_groups is not None:
    train = _train_counts(train_labels, train_groups)[0]
    # Only quotients of these counts matter, and int32 suffices for them.
    train = jnp.asarray(train, jnp.int32)

  def update(state: Confusion, **batch) -> Confusion:
    new = confusion(batch, threshold)
    if train is not None:
      rows, attributes = new.tp.shape
      bias.check_columns(rows - 1, attributes, train.shape)
    return base.add(state, new)

  def compute(state: Confusion) -> Any:
    if not state.tp.ndim:
      groups, attributes = (1, 1) if train is None else train.shape
      state = _spread(state, (groups + 1, attributes))
    joint = bias.joint_counts(state)
    labelled = joint.labelled_in if train is None else train
    whole = jnp.sum(labelled, axis=0, keepdims=True)
    groups = jnp.full((1, 1), labelled.shape[0], labelled.dtype)
    stereotyped = _order(labelled, groups, whole, jnp.ones_like(whole)) > 0
    predicted = jnp.sum(joint.predicted_in, axis=0, keepdims=True)
    change = counting.ratio(joint.predicted_in, predicted)
    change = change - counting.ratio(labelled, whole)
    pairs = jnp.where(stereotyped | jnp.isnan(change), change, 0.0)
    pairs = jnp.where(state.invalid > 0, jnp.nan, pairs)
    defined = ~jnp.any(jnp.isnan(pairs), axis=0)
    estimable = jnp.sum(defined, dtype=jnp.int32)
    number = estimable
    if convention == "reference":
      number = jnp.full((), defined.shape[0], jnp.int32)
    value = counting.ratio(jnp.sum(jnp.where(defined, pairs, 0.0)), number)
    samples = state.tp + state.fp + state.tn + state.fn
    undefined = jnp.any(state.invalid > 0) | ~jnp.any(samples)
    value = jnp.where(undefined, jnp.nan, value)
    if not details:
      return value
    return Mals(value, pairs, stereotyped, estimable)

  return base.Metric(
    no_confusion(), update, base.add, compute, confusion_cells(threshold)
  )


def _spread(state: Any, shape: tuple[int, int]) -> Any:
  """Gives the scalars of an empty state the shapes of [rows, columns]."""
  vectors = {"members": shape[:1], "rows": ()}
  vectors |= {"positives": shape[1:], "invalid": shape[1:]}
  return type(state)(
    *(
      jnp.broadcast_to(leaf, vectors.get(name, shape))
      for name, leaf in state._asdict().items()
    )
  )


def _train_counts(labels: Any, groups: Any) -> tuple[Any, ...]:
  """Returns joint counts [G, A], members, positives and rows, as int64."""
  if labels is None or groups is None:
    raise ValueError(
      "train_labels and train_groups are given together or not at all."
    )
  labels, groups = bias.read_training(labels, groups)
  joint = groups.T.astype(np.float64) @ labels
  return (
    joint.astype(np.int64),
    groups.sum(axis=0)[:, None],
    labels.sum(axis=0)[None, :],
    np.sum(groups.any(axis=1) | labels.any(axis=1)),
  )


def _train_sign(labels: Any, groups: Any) -> np.ndarray:
  joint, members, positives, rows = _train_counts(labels, groups)
  return np.sign(joint * rows - members * positives).astype(np.int8)


def _order(a: Array, b: Array, c: Array, d: Array) -> Array:
  """Returns the sign of a b - c d as int8, exactly for counts in int32.

  Sums of floating weights are rounded: within 1e-5 of each other they count as
  equal, so that the scale of the weights does not decide.
  """
  if a.dtype == jnp.float32:
    left, right = a * b, c * d
    near = jnp.abs(left - right) <= 1e-5 * jnp.maximum(left, right)
    return jnp.where(near, 0.0, jnp.sign(left - right)).astype(jnp.int8)
  (high, low), (high2, low2) = _product(a, b), _product(c, d)
  above = (high > high2) | ((high == high2) & (low > low2))
  below = (high < high2) | ((high == high2) & (low < low2))
  return above.astype(jnp.int8) - below.astype(jnp.int8)


def _product(a: Array, b: Array) -> tuple[Array, Array]:
  """Multiplies counts in two words of 32 bits: (high, low)."""
  a, b = a.astype(jnp.uint32), b.astype(jnp.uint32)
  half, mask = jnp.uint32(16), jnp.uint32(0xFFFF)
  a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
  first = a1 * b0 + ((a0 * b0) >> half)
  second = a0 * b1 + (first & mask)
  return a1 * b1 + (first >> half) + (second >> half), a * b
