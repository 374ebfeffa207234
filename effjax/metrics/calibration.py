"""Do probabilities and rates mean what they say?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, counting

Array = jax.Array
_NORMS = ("l1", "l2", "max")


class Reliability(NamedTuple):
  """What falls into each bin of probability; the last column holds p = 1.

  Attributes:
    count: [A, B + 1], the number of samples.
    positives: [A, B + 1], those with a positive label.
    offset: [A, B + 1] float32, the sum of p minus the middle of the bin. It
      stays near 0, where a float32 sum of p itself would lose digits.
    invalid: [A] or [], the number of NaN logits.
  """

  count: Array
  positives: Array
  offset: Array
  invalid: Array


class Curve(NamedTuple):
  """A reliability diagram.

  Attributes:
    confidence: [A, B], the mean probability in a bin, NaN if empty.
    frequency: [A, B], the share of positive labels in a bin, NaN if empty.
    count: [A, B], the number of samples in a bin.
  """

  confidence: Array
  frequency: Array
  count: Array


def calibration_error(
  bins: int = 10, norm: str = "l1", *, convention: str = "exact"
) -> base.Metric:
  """Makes the calibration error of the positive-class probability.

  With equal-width bins b of p = sigmoid(z), shares w_b = n_b / n and
  distances d_b = abs(mean p - mean y): l1 = sum w_b d_b (ECE), l2 =
  sqrt(sum w_b d_b^2) (RMS), max = max d_b (MCE) over the bins in use.
  Naeini et al., "Obtaining Well Calibrated Probabilities" (AAAI 2015).

  Args:
    bins: The number of bins.
    norm: "l1", "l2" or "max".
    convention: A probability of exactly 1 belongs to the last bin under
      "exact" and to a bin of its own under "reference".

  Returns:
    A metric of (logits, labels) with value [A], NaN without samples or with a
    NaN logit. Its state is a `Reliability`; see `reliability_curve`.

  Raises:
    ValueError: If `bins` is below 1 or `norm` is none of the three.
  """
  counting.check_convention(convention)
  if bins < 1:
    raise ValueError(f"bins must be at least 1, got {bins}.")
  if norm not in _NORMS:
    raise ValueError(f"norm must be one of {', '.join(_NORMS)}, got {norm!r}.")

  def compute(state: Reliability) -> Array:
    if not state.count.ndim:
      return jnp.full((), jnp.nan)
    if convention == "exact":
      state = _close(state)
    count = state.count.astype(jnp.float32)
    gap = jnp.abs(
      count * _middles(bins, state.count.shape[1])
      - state.positives.astype(jnp.float32)
      + state.offset
    )
    distance = jnp.where(count > 0, gap / jnp.maximum(count, 1e-30), 0.0)
    total = jnp.sum(count, axis=1)
    if norm == "l1":
      value = jnp.sum(gap, axis=1) / total
    elif norm == "l2":
      value = jnp.sqrt(jnp.sum(gap * distance, axis=1) / total)
    else:
      value = jnp.max(distance, axis=1)
    usable = (total > 0) & (state.invalid == 0)
    return jnp.where(usable, value, jnp.nan)

  zero = jnp.zeros((), jnp.int32)
  empty = Reliability(zero, zero, jnp.zeros((), jnp.float32), zero)
  return base.Metric(empty, _update(bins), base.add, compute)


def reliability_curve(state: Reliability) -> Curve:
  """Returns the reliability diagram of a state of `calibration_error`.

  Args:
    state: The state after at least one batch.

  Returns:
    A `Curve` over the B bins; p = 1 counts into the last.
  """
  bins = state.count.shape[1] - 1
  state = _close(state)
  mean = counting.ratio(state.offset, state.count) + _middles(bins, bins)
  frequency = counting.ratio(state.positives, state.count)
  return Curve(mean, frequency, state.count)


class Rates(NamedTuple):
  """Predicted and labelled positives per attribute.

  Attributes:
    predicted: [A], the number of positive decisions.
    labelled: [A], the number of positive labels.
    total: [], the number of samples.
    invalid: [A] or [], the number of NaN logits.
  """

  predicted: Array
  labelled: Array
  total: Array
  invalid: Array


def threshold_calibration_bias(
  train_labels: Any, *, threshold: Any = 0.0, convention: str = "exact"
) -> base.Metric:
  """Makes the ratio of predicted to labelled rate of the rarer value.

  The rarer value of an attribute is "negative" where more than half of the
  training labels are positive, and "positive" elsewhere. 1 is calibrated; below
  1 the rarer value is predicted too rarely.
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023); the
  published code calls it `rare_val_underpredict`.

  Args:
    train_labels: [M, A] bool, concrete.
    threshold: Scalar or [A]; not used where the batch holds predictions.
    convention: What an attribute gets whose rarer value is absent from the
      labels: NaN under "exact", x/0 (infinite, or NaN for 0/0) under
      "reference".

  Returns:
    A metric of (predictions or logits, labels) with value [A]. Its state, a
    `Rates`, holds the supports.
  """
  counting.check_convention(convention)
  train = np.asarray(train_labels)
  if train.ndim != 2:
    raise ValueError(
      f"train_labels must have shape [M, A], got {list(train.shape)}."
    )
  negative_is_rare = 2 * np.sum(train > 0, axis=0) > train.shape[0]

  def update(state: Rates, **batch) -> Rates:
    read = counting.read(batch, "predictions", "labels", threshold=threshold)
    if read.labels.shape[1] != train.shape[1]:
      raise ValueError(
        f"labels {list(read.labels.shape)} and train_labels"
        f" {list(train.shape)} disagree in the number of attributes."
      )
    new = Rates(
      counting.count(read.weights, read.predictions),
      counting.count(read.weights, read.labels),
      jnp.sum(read.weights),
      read.invalid,
    )
    return base.add(state, new)

  def compute(state: Rates) -> Array:
    predicted, labelled = (
      jnp.where(negative_is_rare, state.total - x, x)
      for x in (state.predicted, state.labelled)
    )
    value = counting.ratio(predicted, labelled)
    if convention == "exact":
      value = jnp.where(labelled > 0, value, jnp.nan)
    return jnp.where(state.invalid > 0, jnp.nan, value)

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(Rates(zero, zero, zero, zero), update, base.add, compute)


def _update(bins: int):
  def update(state: Reliability, **batch) -> Reliability:
    read = counting.read(batch, "logits", "labels")
    attributes = read.logits.shape[1]
    live = (read.weights != 0)[:, None] & ~jnp.isnan(read.logits)
    probability = jnp.where(live, jax.nn.sigmoid(read.logits), 0.0)
    index = jnp.floor(probability * bins)
    middle = jnp.where(probability == 1.0, 1.0, (index + 0.5) / bins)
    column = jnp.arange(attributes, dtype=jnp.int32)[None, :]
    cell = 2 * column + read.labels.astype(jnp.int32)
    cell = cell * (bins + 1) + index.astype(jnp.int32)
    weights = jnp.broadcast_to(read.weights[:, None], cell.shape)

    def total(values):
      sums = jnp.zeros(attributes * 2 * (bins + 1), values.dtype)
      sums = sums.at[cell].add(values, mode="promise_in_bounds")
      return sums.reshape(attributes, 2, bins + 1)

    count = total(weights)
    offset = total((probability - middle) * weights.astype(jnp.float32))
    new = Reliability(
      count.sum(axis=1), count[:, 1], offset.sum(axis=1), read.invalid
    )
    return base.add(state, new)

  return update


def _middles(bins: int, width: int) -> Array:
  """Returns the [1, width] middles of the bins; that of p = 1 is 1."""
  middles = (np.arange(bins) + 0.5) / bins
  return jnp.asarray([*middles, 1.0][:width], jnp.float32)[None, :]


def _close(state: Reliability) -> Reliability:
  """Adds the samples with p = 1 to the last bin."""
  bins = state.count.shape[1] - 1
  # Their offset is counted from 1, the bin's from its own middle.
  shift = state.count[:, -1].astype(jnp.float32) * (0.5 / bins)

  def fold(x, extra):
    return x[:, :-1].at[:, -1].add(extra)

  return Reliability(
    fold(state.count, state.count[:, -1]),
    fold(state.positives, state.positives[:, -1]),
    fold(state.offset, state.offset[:, -1] + shift),
    state.invalid,
  )
