"""What each sample adds to the mean of a measure, for cheap resamples.

Accuracy and the Brier score are means over samples. The AUC and the calibration
error are not, but to first order they change with the samples as the means of
their influence functions do; a resample then costs one sum.
"""

from collections.abc import Mapping

import numpy as np

from effjax.metrics import classification

BINS = 10


def terms(
  outputs: np.ndarray, labels: np.ndarray | None
) -> Mapping[str, np.ndarray]:
  """Returns the terms whose means are the measures of a model.

  Args:
    outputs: [N, A], float32 logits or bool decisions.
    labels: [N, A] bool, or None.

  Returns:
    From measure to [N, A] float32; an attribute with a NaN logit is NaN, and
    so is the AUC of one with one class alone.
  """
  decided = outputs > 0 if outputs.dtype != bool else outputs
  found = {"positive_rate": decided}
  if labels is not None:
    found["accuracy"] = decided == labels
  if outputs.dtype != bool:
    edge = classification.undecided_below(0.4)
    found["uncertainty"] = np.abs(outputs) < edge
    if labels is not None:
      probability = 0.5 * (1.0 + np.tanh(0.5 * outputs))
      found["brier"] = (probability - labels) ** 2
      found["ece"] = _calibration(probability, labels)
      columns = [_area(z, y) for z, y in zip(outputs.T, labels.T, strict=True)]
      found["auc"] = np.stack(columns, axis=1)
  invalid = np.zeros(outputs.shape[1], bool)
  if outputs.dtype != bool:
    invalid = np.isnan(outputs).any(axis=0)
  return {
    name: np.where(invalid, np.nan, x).astype(np.float32)
    for name, x in found.items()
  }


def _calibration(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns (p - y) times the sign that its bin has over all samples.

  The mean is the calibration error; the signs are held fixed, as its derivative
  does wherever no bin is calibrated exactly.
  """
  width = probability.shape[1]
  known = np.nan_to_num(probability)
  bins = np.minimum((known * BINS).astype(int), BINS - 1)
  place = bins + BINS * np.arange(width)
  gap = known - labels
  sums = np.bincount(place.ravel(), gap.ravel(), minlength=BINS * width)
  return gap * np.sign(sums)[place]


def _area(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the AUC plus its influence function, [N].

  A positive adds the share of negatives below it, a negative that of positives
  above it, ties counting one half; the components of DeLong, DeLong,
  Clarke-Pearson, "Comparing the Areas under Two or More Correlated ROC Curves"
  (Biometrics, 1988).
  """
  share = labels.mean()
  if share in (0.0, 1.0) or np.isnan(scores).any():
    return np.full(len(scores), np.nan)
  positives, negatives = scores[labels], scores[~labels]
  below = _below(positives, negatives)
  above = 1.0 - _below(negatives, positives)
  area = below.mean()
  found = np.empty(len(scores))
  found[labels] = area + (below - area) / share
  found[~labels] = area + (above - area) / (1.0 - share)
  return found


def _below(few: np.ndarray, many: np.ndarray) -> np.ndarray:
  """Returns for each of `few` the share of `many` below it, ties one half."""
  order = np.argsort(few)
  ordered = np.sort(many)
  ranks = np.searchsorted(ordered, few[order], "left")
  ranks = ranks + np.searchsorted(ordered, few[order], "right")
  found = np.empty(len(few))
  found[order] = ranks / (2.0 * len(many))
  return found
