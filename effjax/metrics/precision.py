"""Precision and recall: average precision, and the table of each label.

These functions need concrete arrays: they sort and count with NumPy, in
float64, where a point of the curve is chosen by comparing recalls.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import columns, counting, ranking

Array = jax.Array
RECALLS = (0.50, 0.75, 0.90, 0.95)
_DISTANCE = 0.05


class LabelTable(NamedTuple):
  """The evaluation of each label; NaN for 0/0.

  Attributes:
    accuracy: [A], (TP + TN) / n.
    recall: [A], TP / P.
    precision: [A], TP / (TP + FP).
    fpr: [A], FP / N.
    fnr: [A], FN / P.
    f1: [A], 2 precision recall / (precision + recall).
    auc: [A], NaN where one class is absent.
    average_precision: [A], NaN where one class is absent.
    positive_rate: [A], P / n.
    predicted_positive_rate: [A], (TP + FP) / n.
    precision_at_recall: [R, A], NaN where one class is absent.
    tp: [A] int32, true positives.
    fp: [A] int32, false positives.
    tn: [A] int32, true negatives.
    fn: [A] int32, false negatives.
  """

  accuracy: Array
  recall: Array
  precision: Array
  fpr: Array
  fnr: Array
  f1: Array
  auc: Array
  average_precision: Array
  positive_rate: Array
  predicted_positive_rate: Array
  precision_at_recall: Array
  tp: Array
  fp: Array
  tn: Array
  fn: Array


def average_precision(scores: Any, labels: Any) -> Array:
  """Returns the average precision, sum (R_k - R_{k-1}) P_k.

  P_k and R_k are precision and recall of "score >= the k-th largest distinct
  score": the area under a step function, without interpolation.

  Args:
    scores: [N] or [N, A], concrete.
    labels: Like `scores`, bool.

  Returns:
    [] or [A] float32, NaN without positive labels or with a NaN score.

  Raises:
    ValueError: If the shapes differ or have another rank.

  >>> import numpy as np
  >>> labels = np.array([False, True, False, True])
  >>> scores = np.array([0.1, 0.4, 0.4, 0.8], np.float32)
  >>> round(float(average_precision(scores, labels)), 4)
  0.8333
  """

  def one(scores, labels):
    predicted, true = _curve(scores, labels)
    if not predicted.size or not true[-1]:
      return np.nan
    return np.sum(np.diff(true, prepend=0) * (true / predicted)) / true[-1]

  return _each(one, scores, labels)


def precision_at_recall(
  scores: Any, labels: Any, recalls: Sequence[float] = RECALLS
) -> Array:
  """Returns the precision where the recall is nearest to the ones given.

  The points are those of scikit-learn's `precision_recall_curve`: one for each
  distinct threshold "score >= t", and precision 1 at recall 0. Of points
  equally near the one with the largest recall counts, of equal recalls the one
  with the lowest threshold. Recalls are compared in float64.

  Args:
    scores: [N] or [N, A], concrete.
    labels: Like `scores`, bool.
    recalls: R numbers in [0, 1].

  Returns:
    [R] or [R, A] float32; NaN if the nearest recall is 0.05 or more away, if a
    class is absent, or with a NaN score.

  Raises:
    ValueError: If the shapes differ or have another rank, or a recall is
      outside [0, 1].

  >>> import numpy as np
  >>> labels = np.array([True, False, True, False])
  >>> scores = np.array([0.9, 0.7, 0.6, 0.1], np.float32)
  >>> precision_at_recall(scores, labels, (0.5, 0.75, 0.98)).tolist()
  [0.5, nan, 0.5]
  """
  wanted = np.asarray(arguments.finite("recalls", recalls, 0), np.float64)
  if wanted.ndim != 1 or np.any(wanted > 1):
    raise ValueError(
      f"recalls must be numbers between 0 and 1, got {recalls!r}."
    )

  def one(scores, labels):
    predicted, true = _curve(scores, labels)
    if not predicted.size or true[-1] in (0, predicted[-1]):
      return np.full(wanted.size, np.nan)
    # In order of ascending threshold, hence of descending recall.
    recall = np.append((true / true[-1])[::-1], 0.0)
    precision = np.append((true / predicted)[::-1], 1.0)
    distance = np.abs(recall[None, :] - wanted[:, None])
    nearest = np.argmin(distance, axis=1)
    near = distance[np.arange(wanted.size), nearest] < _DISTANCE
    return np.where(near, precision[nearest], np.nan)

  return _each(one, scores, labels)


def label_table(
  logits: Any,
  labels: Any,
  *,
  recalls: Sequence[float] = RECALLS,
  zero_division: float = np.nan,
  convention: str = "exact",
) -> LabelTable:
  """Returns the evaluation of each label at the threshold 0 of the logit.

  Args:
    logits: [N, A], concrete.
    labels: [N, A] bool.
    recalls: The recalls of `precision_at_recall`.
    zero_division: What precision, recall and F1 get for 0/0.
    convention: Under "reference" decisions and ranks come from the float32
      sigmoid p: "p > 0.5" is false for logits below about 1e-7, and large
      logits tie. Under "exact" they come from the logits.

  Returns:
    A `LabelTable`. A NaN logit makes the rates, but not the counts, of its
    label NaN.

  Raises:
    ValueError: If the shapes are not [N, A] both, or a recall lies outside
      [0, 1].
  """
  counting.check_convention(convention)
  logits, labels = _concrete("logits", logits), _labels(labels)
  if logits.ndim != 2 or logits.shape != labels.shape:
    raise ValueError(
      "logits and labels must both have shape [N, A], got"
      f" {list(logits.shape)} and {list(labels.shape)}."
    )
  scores = logits.astype(np.promote_types(logits.dtype, np.float32))
  threshold = 0.0
  if convention == "reference":
    scores = np.asarray(jax.nn.sigmoid(scores.astype(np.float32)))
    threshold = 0.5
  decided = scores > threshold
  invalid = np.isnan(scores).any(axis=0)
  counts = {
    name: np.sum(cell, axis=0)
    for name, cell in (
      ("tp", decided & labels),
      ("fp", decided & ~labels),
      ("tn", ~decided & ~labels),
      ("fn", ~decided & labels),
    )
  }
  tp, fp, tn, fn = counts.values()
  everyone = tp + fp + tn + fn

  def rate(part, whole, otherwise=np.nan):
    with np.errstate(invalid="ignore"):
      value = np.where(whole == 0, otherwise, np.divide(part, whole))
    return np.where(invalid, np.nan, value)

  recall = rate(tp, tp + fn, zero_division)
  precision = rate(tp, tp + fp, zero_division)
  rates = {
    "accuracy": rate(tp + tn, everyone),
    "recall": recall,
    "precision": precision,
    "fpr": rate(fp, fp + tn),
    "fnr": rate(fn, tp + fn),
    "f1": rate(2 * precision * recall, precision + recall, zero_division),
    "positive_rate": rate(tp + fn, everyone),
    "predicted_positive_rate": rate(tp + fp, everyone),
  }
  single = (tp + fn == 0) | (fp + tn == 0)
  average = average_precision(scores, labels)
  area = ranking.auc_exact(_places(scores), labels)
  as_array = lambda x: jnp.asarray(x.astype(np.float32))
  return LabelTable(
    **{name: as_array(x) for name, x in rates.items()},
    auc=jnp.where(invalid, jnp.nan, area),
    average_precision=jnp.where(single, jnp.nan, average),
    precision_at_recall=precision_at_recall(scores, labels, recalls),
    **{name: jnp.asarray(x.astype(np.int32)) for name, x in counts.items()},
  )


def _concrete(name: str, x: Any) -> np.ndarray:
  if isinstance(x, jax.core.Tracer):
    raise ValueError(
      f"{name} must be concrete: this function runs on the host, outside jit."
    )
  return np.asarray(x)


def _labels(x: Any) -> np.ndarray:
  x = _concrete("labels", x)
  return x if x.dtype == np.bool_ else x > 0


def _places(scores: np.ndarray) -> np.ndarray:
  """Returns the place of each score in its column [N, A], the same for equals.

  Scores of float64 would tie in the float32 that jax may make of them.
  """
  places = np.empty(scores.shape, np.int32)
  for a, column in enumerate(scores.T):
    places[:, a] = np.unique(column, return_inverse=True)[1]
  return places


def _each(function, scores: Any, labels: Any) -> Array:
  """Applies a function of NumPy vectors to each column."""
  scores, labels = _concrete("scores", scores), _labels(labels)
  columns.check("scores", scores, labels)
  if scores.ndim == 1:
    value = np.asarray(function(scores, labels))
  else:
    # Of no column at all, the shape is that of an empty one.
    blank = np.shape(function(np.zeros(0), np.zeros(0, bool)))
    value = np.empty((*blank, scores.shape[1]))
    for a, (s, y) in enumerate(zip(scores.T, labels.T, strict=True)):
      value[..., a] = function(s, y)
  return jnp.asarray(value.astype(np.float32))


def _curve(
  scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the points of the curve, from the highest threshold down.

  Returns:
    At each distinct score the numbers of samples and of positives at or above
    it. No point at all with a NaN score.
  """
  if np.isnan(scores).any():
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
  order = np.argsort(scores, kind="stable")[::-1]
  scores = scores[order]
  ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], scores.size > 0))
  true = np.cumsum(labels[order], dtype=np.int64)[ends]
  return ends + 1, true
