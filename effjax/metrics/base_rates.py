"""Do decisions occur as often as labels do?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, cells, counting

Array = jax.Array
_FORMS = ("ratio", "log")


class Rates(NamedTuple):
  """How often the rarer value is predicted and labelled per attribute.

  Attributes:
    predicted: [A], the number of decisions for the rarer value.
    labelled: [A], the number of labels of the rarer value.
    total: [], the number of samples.
    invalid: [A] or [], the number of NaN logits.
  """

  predicted: Array
  labelled: Array
  total: Array
  invalid: Array


class ThresholdCalibration(NamedTuple):
  """Threshold calibration bias with what it rests on.

  Attributes:
    value: [A], NaN where undefined.
    predicted: [A], the number of decisions for the rarer value.
    labelled: [A], the number of labels of the rarer value.
    total: [], the number of samples.
  """

  value: Array
  predicted: Array
  labelled: Array
  total: Array


def threshold_calibration_bias(
  train_labels: Any = None,
  *,
  positive_is_rarer: Any = None,
  form: str = "ratio",
  threshold: Any = 0.0,
  details: bool = False,
  convention: str = "exact",
) -> base.Metric:
  """Makes the ratio of predicted to labelled rate of the rarer value.

  The rarer value of an attribute is "negative" where more than half of the
  training labels are positive, and "positive" elsewhere. 1 is calibrated; below
  1 the rarer value is predicted too rarely.
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023); the
  published code calls it `rare_val_underpredict`.

  Args:
    train_labels: [M, A] bool, concrete.
    positive_is_rarer: [A] bool, concrete; says which value is the rarer one
      instead of the training labels.
    form: "ratio", or "log" for its natural logarithm: 0 is calibrated, and
      minus infinity is a rarer value that is never predicted.
    threshold: Scalar or [A]; not used where the batch holds predictions.
    details: Return a `ThresholdCalibration` with the counts.
    convention: What an attribute gets whose rarer value is absent from the
      labels: NaN under "exact", x/0 (infinite, or NaN for 0/0) under
      "reference".

  Returns:
    A metric of (predictions or logits, labels) with value [A]. Its state, a
    `Rates`, holds the supports.

  Raises:
    ValueError: If not exactly one of `train_labels` and `positive_is_rarer` is
      given, its rank is wrong or `form` is unknown.
  """
  counting.check_convention(convention)
  if form not in _FORMS:
    raise ValueError(f"form must be one of {', '.join(_FORMS)}, got {form!r}.")
  negative_is_rare, source = _rarer(train_labels, positive_is_rarer)

  def update(state: Rates, **batch) -> Rates:
    read = counting.read(batch, "predictions", "labels", threshold=threshold)
    if read.labels.shape[1] != negative_is_rare.shape[0]:
      raise ValueError(
        f"labels {list(read.labels.shape)} and {source} disagree in the number"
        " of attributes."
      )
    # Counted themselves: a difference of rounded sums may miss 0.
    new = Rates(
      counting.count(read.rows, read.predictions ^ negative_is_rare[None, :]),
      counting.count(read.rows, read.labels ^ negative_is_rare[None, :]),
      jnp.sum(read.weights),
      read.invalid,
    )
    return base.add(state, new)

  def compute(state: Rates) -> Any:
    value = counting.ratio(state.predicted, state.labelled)
    if convention == "exact":
      value = jnp.where(state.labelled > 0, value, jnp.nan)
    value = jnp.where(state.invalid > 0, jnp.nan, value)
    if form == "log":
      value = jnp.log(value)
    if not details:
      return value
    return ThresholdCalibration(value, *state[:3])

  def columns(**batch):
    read = counting.read(batch, "predictions", "labels", threshold=threshold)
    invalid = cells.invalid(read.logits, read.labels)
    rare = (
      x ^ negative_is_rare[None, :] for x in (read.predictions, read.labels)
    )
    return None, (*rare, invalid)

  def from_counts(counts, groups, predicted, labelled, invalid):
    predicted, labelled, invalid = (
      cells.total(counts, groups, x) for x in (predicted, labelled, invalid)
    )
    return Rates(predicted, labelled, jnp.sum(counts[0]), invalid)

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(
    Rates(zero, zero, zero, zero),
    update,
    base.add,
    compute,
    cells.of_columns(3, columns, from_counts),
  )


def _rarer(train_labels: Any, positive_is_rarer: Any) -> tuple[np.ndarray, str]:
  """Returns where "negative" is the rarer value, and what says so."""
  if (train_labels is None) == (positive_is_rarer is None):
    raise ValueError("Give either train_labels or positive_is_rarer.")
  if positive_is_rarer is not None:
    rarer = np.asarray(positive_is_rarer)
    if rarer.ndim != 1 or rarer.dtype != bool:
      raise ValueError(
        "positive_is_rarer must be a vector of bools, got"
        f" {rarer.dtype}{list(rarer.shape)}."
      )
    return ~rarer, f"positive_is_rarer {list(rarer.shape)}"
  train = np.asarray(train_labels)
  if train.ndim != 2:
    raise ValueError(
      f"train_labels must have shape [M, A], got {list(train.shape)}."
    )
  rate_above_half = 2 * np.sum(train > 0, axis=0) > train.shape[0]
  return rate_above_half, f"train_labels {list(train.shape)}"
