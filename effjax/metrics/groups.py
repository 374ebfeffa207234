"""Rates of decisions per group: one core of counts, exact or soft.

Groups are columns of membership: they may overlap, may leave samples out, and
may be empty. Products of partitions and levels of a control are columns too.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, cells, counting

Array = jax.Array


class Confusion(NamedTuple):
  """Counts of decisions per group, the state of what compares groups.

  Attributes:
    tp: [G + 1, A], true positives; row G counts everyone, in a group or not.
    fp: [G + 1, A], false positives.
    tn: [G + 1, A], true negatives.
    fn: [G + 1, A], false negatives.
    invalid: [A] or [], the number of NaN logits.
  """

  tp: Array
  fp: Array
  tn: Array
  fn: Array
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
    f1: [G, A], 2 TP / (2 TP + FP + FN).
    balanced_accuracy: [G, A], (TPR + TNR) / 2.
    error_ratio: [G, A], FN / FP, NaN where FP = 0.
    tp: [G, A], true positives.
    fp: [G, A], false positives.
    tn: [G, A], true negatives.
    fn: [G, A], false negatives.
    support: [G, A], n = TP + FP + TN + FN; 0 for an empty group.
    overall: `GroupRates` of [A] of everyone, in a group or not; None in itself.
  """

  tpr: Array
  fpr: Array
  tnr: Array
  fnr: Array
  precision: Array
  accuracy: Array
  selection_rate: Array
  base_rate: Array
  f1: Array
  balanced_accuracy: Array
  error_ratio: Array
  tp: Array
  fp: Array
  tn: Array
  fn: Array
  support: Array
  overall: Any = None


def group_rates(
  *, threshold: Any = 0.0, zero_division: float = math.nan
) -> base.Metric:
  """Makes the rates of decisions within each group.

  Args:
    threshold: Scalar or [A]; not used where the batch holds predictions.
    zero_division: The value of a precision or F1 that is 0/0 in a group with
      samples; NaN, or 0 as in scikit-learn. Other rates are NaN for 0/0.

  Returns:
    A metric of (predictions or logits, labels, groups) with value `GroupRates`
    of [G, A]. A rate whose denominator is 0 is NaN, never 0.

  >>> import numpy as np
  >>> rates = base.compute(
  ...   group_rates(),
  ...   predictions=np.array([[True], [False], [True]]),
  ...   labels=np.array([[True], [True], [False]]),
  ...   groups=counting.one_hot(np.array([0, 0, 1]), 2),
  ... )
  >>> rates.tpr.tolist(), rates.overall.tpr.tolist()
  ([[0.5], [nan]], [0.5])
  """

  def update(state: Confusion, **batch) -> Confusion:
    return base.add(state, confusion(batch, threshold))

  def compute(state: Confusion) -> GroupRates:
    return _rates(state, zero_division)

  return base.Metric(
    no_confusion(), update, base.add, compute, confusion_cells(threshold)
  )


def soft_group_rates(
  logits: Any,
  labels: Any,
  groups: Any,
  *,
  weights: Any = None,
  temperature: Any = 1.0,
) -> GroupRates:
  """Computes differentiable rates from probabilities in place of decisions.

  TP is the sum of p y, FP that of p (1 - y), and so on, with p =
  sigmoid(logits / temperature). A rate is undefined, with gradient 0, exactly
  where no sample could enter its denominator; `disparities` of these rates can
  be a term of a training loss. As the temperature goes to 0 the rates go to
  those of `group_rates`, apart from logits of 0.

  Args:
    logits: [N, A].
    labels: [N, A] bool; or targets in [0, 1].
    groups: [N, G] bool.
    weights: [N], or None for 1.
    temperature: Scalar or [A], above 0.

  Returns:
    `GroupRates` of [G, A] float32; so are the counts.

  Raises:
    ValueError: If the shapes disagree.

  >>> rates = soft_group_rates([[0.0], [0.0]], [[True], [False]], [[1], [1]])
  >>> rates.tpr.item(), rates.precision.item(), rates.tp.item()
  (0.5, 0.5, 0.5)
  """
  batch = {"logits": logits, "labels": labels, "groups": groups}
  if weights is not None:
    batch["weights"] = weights
  read = counting.read(batch, "logits", "labels", "groups")
  weights = read.weights.astype(jnp.float32)
  scale = jnp.asarray(temperature, jnp.float32)
  scale = jnp.broadcast_to(scale, (1, read.logits.shape[1]))
  # A row that does not count must not spoil a gradient either.
  live = (weights != 0)[:, None]
  p = jax.nn.sigmoid(jnp.where(live, read.logits, 0.0) / scale)
  labels = jnp.asarray(labels)
  if jnp.issubdtype(labels.dtype, jnp.floating):
    y = jnp.where(live, labels.astype(jnp.float32), 0.0)
  else:
    y = read.labels.astype(jnp.float32)
  cells = (
    counting.cooccurrence(weights, with_everyone(read.groups), x)
    for x in (p * y, p * (1 - y), (1 - p) * (1 - y), (1 - p) * y)
  )
  return _rates(Confusion(*cells, invalid=read.invalid), math.nan)


def intersections(*groups: Any) -> Array:
  """Returns the cells of the product of several sets of groups.

  Args:
    *groups: [N, G_i] bool each; for partitions the cells are a partition.

  Returns:
    [N, prod G_i] bool, the last set varying fastest. The number of cells is
    static: one without samples keeps its column, where rates are NaN and
    supports 0.

  Raises:
    ValueError: If there is no set, or the numbers of rows differ.

  >>> cells = intersections([[True, False]], [[False, True]])
  >>> cells.tolist(), intersection_names("mf", ["young", "old"])
  ([[False, True, False, False]], ['m, young', 'm, old', 'f, young', 'f, old'])
  """
  columns = [counting.positive(jnp.asarray(x)) for x in groups]
  shapes = ", ".join(str(list(x.shape)) for x in columns)
  if not columns or any(x.ndim != 2 for x in columns):
    raise ValueError(
      "intersections takes one or more arrays of shape [N, G], got"
      f" {shapes or 'none'}."
    )
  if len({x.shape[0] for x in columns}) > 1:
    raise ValueError(f"The groups disagree in the number of rows: {shapes}.")
  cells = columns[0]
  for x in columns[1:]:
    cells = cells[:, :, None] & x[:, None, :]
    cells = cells.reshape(x.shape[0], -1)
  return cells


def intersection_names(
  *names: Sequence[str], separator: str = ", "
) -> list[str]:
  """Returns names of the cells of `intersections`, in its order.

  Args:
    *names: The names of each set of groups.
    separator: What stands between them.
  """
  return [separator.join(cell) for cell in itertools.product(*names)]


def conditional(metric: base.Metric) -> base.Metric:
  """Makes a metric that is taken inside each level of a control.

  Args:
    metric: Any metric. As with `group_rates`, a level is a column of membership
      in a further array of the batch: controls [N, C] bool.

  Returns:
    A metric whose state and value have a leading axis [C, ...]. `disparities`
    of conditional `group_rates` are those inside each level, [C, A], overall
    rates being those of the level (`control_features` of fairlearn).

  >>> import numpy as np
  >>> cross = np.array([[True], [False], [True], [True]])
  >>> rates = base.compute(
  ...   conditional(group_rates()),
  ...   predictions=cross,
  ...   labels=cross,
  ...   groups=counting.one_hot(np.array([0, 1, 0, 1]), 2),
  ...   controls=counting.one_hot(np.array([0, 0, 1, 1]), 2),
  ... )
  >>> rates.selection_rate[:, :, 0].tolist()
  [[1.0, 0.0], [1.0, 1.0]]
  """
  ranks = [leaf.ndim for leaf in jax.tree.leaves(metric.empty)]

  def is_empty(state):
    # States of levels have one more axis than the full shape of a leaf.
    return [leaf.ndim for leaf in jax.tree.leaves(state)] == ranks

  def update(state, **batch):
    controls = batch.pop("controls", None)
    if controls is None:
      raise ValueError(
        "The batch has no controls; a conditional metric reads the levels of"
        f" a control as [N, C], and the batch holds {', '.join(batch)}."
      )
    controls = counting.positive(jnp.asarray(controls))
    shapes = {name: np.shape(x) for name, x in batch.items() if x is not None}
    if controls.ndim != 2 or any(
      shape[:1] != controls.shape[:1] for shape in shapes.values()
    ):
      rows = ", ".join(f"{name} {list(s)}" for name, s in shapes.items())
      raise ValueError(
        "controls must have shape [N, C] with the rows of the batch, got"
        f" {list(controls.shape)} beside {rows}."
      )
    weights = batch.pop("weights", None)

    def level(member):
      inside = member
      if weights is not None:
        given = jnp.asarray(weights)
        inside = jnp.where(member, given, jnp.zeros((), given.dtype))
      return metric.update(metric.empty, **batch, weights=inside)

    return merge(state, jax.vmap(level, in_axes=1)(controls))

  def merge(a, b):
    if is_empty(a) or is_empty(b):
      return b if is_empty(a) else a
    return jax.vmap(metric.merge)(a, b)

  def compute(state):
    if is_empty(state):
      return metric.compute(state)
    return jax.vmap(metric.compute)(state)

  return base.Metric(metric.empty, update, merge, compute)


def confusion(batch: dict[str, Any], threshold: Any = 0.0) -> Confusion:
  """Counts decisions of one batch (predictions or logits, labels, groups)."""
  read = counting.read(
    batch, "predictions", "labels", "groups", threshold=threshold
  )
  left = with_everyone(read.groups)
  columns = read.predictions, read.labels
  if read.weights.dtype == jnp.float32:
    # A difference of rounded sums may miss 0, and 0 decides what is defined.
    sums = counting.tally(read.rows, left, _cells, *columns)
    return Confusion(*sums, invalid=read.invalid)
  both, predicted, labelled = counting.tally(
    read.rows, left, lambda p, y: (p & y, p, y), *columns
  )
  members = counting.count(read.rows, left)[:, None]
  fp, fn = predicted - both, labelled - both
  return Confusion(both, fp, members - labelled - fp, fn, read.invalid)


def confusion_cells(threshold: Any = 0.0) -> cells.Cells:
  """Makes the cells of `confusion`: decision, label and NaN logit."""

  def columns(**batch):
    read = counting.read(
      batch, "predictions", "labels", "groups", threshold=threshold
    )
    invalid = cells.invalid(read.logits, read.labels)
    left = with_everyone(read.groups)
    return left, (read.predictions, read.labels, invalid)

  def state(counts, groups, predicted, labelled, invalid):
    return Confusion(
      *(cells.total(counts, groups, x) for x in _cells(predicted, labelled)),
      invalid=cells.total(counts, (), invalid),
    )

  return cells.of_columns(3, columns, state)


def with_everyone(groups: Array) -> Array:
  """Adds to [N, G] groups the column of all samples."""
  # Made of the groups, so that its rows lie on the same devices.
  everyone = jnp.any(groups, axis=1, keepdims=True) | True
  return jnp.concatenate([groups, everyone], axis=1)


def no_confusion() -> Confusion:
  """Returns the counts of no samples, scalars that take any shape."""
  return Confusion(*[jnp.zeros((), jnp.int32)] * 5)


def _cells(p: Array, y: Array) -> tuple[Array, ...]:
  return p & y, p & ~y, ~p & ~y, ~p & y


def _rates(state: Confusion, zero_division: float) -> GroupRates:
  if not state.tp.ndim:
    return _of_counts(state, zero_division, _of_counts(state, zero_division))
  groups, everyone = (
    Confusion(*(leaf[part] for leaf in state[:4]), invalid=state.invalid)
    for part in (slice(-1), -1)
  )
  overall = _of_counts(everyone, zero_division)
  return _of_counts(groups, zero_division, overall)


def _of_counts(
  state: Confusion, zero_division: float, overall: GroupRates | None = None
) -> GroupRates:
  tp, fp, tn, fn, invalid = state
  support = tp + fp + tn + fn
  valid = jnp.broadcast_to(invalid == 0, tp.shape) & (support != 0)

  def rate(part, whole, undefined=math.nan):
    # The denominator is replaced before the division, so that an undefined rate
    # has the gradient 0, not NaN.
    some = whole != 0
    value = counting.ratio(part, jnp.where(some, whole, jnp.ones_like(whole)))
    value = jnp.where(some, value, jnp.float32(undefined))
    return jnp.where(valid, value, jnp.nan)

  tpr, tnr = rate(tp, tp + fn), rate(tn, fp + tn)
  hits = 2.0 * tp.astype(jnp.float32)
  return GroupRates(
    tpr=tpr,
    fpr=rate(fp, fp + tn),
    tnr=tnr,
    fnr=rate(fn, tp + fn),
    precision=rate(tp, tp + fp, zero_division),
    accuracy=rate(tp + tn, support),
    selection_rate=rate(tp + fp, support),
    base_rate=rate(tp + fn, support),
    f1=rate(hits, hits + (fp + fn).astype(jnp.float32), zero_division),
    balanced_accuracy=(tpr + tnr) / 2,
    error_ratio=rate(fn, fp),
    tp=tp,
    fp=fp,
    tn=tn,
    fn=fn,
    support=support,
    overall=overall,
  )
