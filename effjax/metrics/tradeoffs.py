"""Which rates the thresholds of a score can reach, and mixtures of two."""

from typing import NamedTuple

import numpy as np

# Rates of decisions from counts or shares; rounding depends on the order of
# operations, and with it which of two equal rules is taken.
RATES = {
  "selection_rate": lambda tp, fp, tn, fn: (tp + fp) / (tp + tn + fp + fn),
  "true_positive_rate": lambda tp, fp, tn, fn: tp / (tp + fn),
  "true_negative_rate": lambda tp, fp, tn, fn: tn / (tn + fp),
  "false_positive_rate": lambda tp, fp, tn, fn: fp / (tn + fp),
  "false_negative_rate": lambda tp, fp, tn, fn: fn / (tp + fn),
  "accuracy": lambda tp, fp, tn, fn: (tp + tn) / (tp + tn + fp + fn),
  "balanced_accuracy": lambda tp, fp, tn, fn: (
    0.5 * tp / (tp + fn) + 0.5 * tn / (tn + fp)
  ),
}


class Counts(NamedTuple):
  """Decisions of one group at each threshold, from the highest down.

  Attributes:
    thresholds: [T], from inf to -inf.
    tp: [T], true positives.
    fp: [T], false positives.
    positives: Positive labels.
    negatives: Negative labels.
  """

  thresholds: np.ndarray
  tp: np.ndarray
  fp: np.ndarray
  positives: int
  negatives: int


class Curve(NamedTuple):
  """A hull at each of the S steps: its value, and the mixture that has it."""

  y: np.ndarray
  p0: np.ndarray
  left: np.ndarray
  right: np.ndarray


def curve(
  counts: Counts, rate: str, objective: str, steps: np.ndarray
) -> Curve:
  """Returns the upper hull of (rate, objective), interpolated at the steps."""
  cells = (
    counts.tp,
    counts.fp,
    counts.negatives - counts.fp,
    counts.positives - counts.tp,
  )
  x, y = RATES[rate](*cells), RATES[objective](*cells)
  order = np.lexsort((y, x))
  hull = order[_hull(x[order].tolist(), y[order].tolist())]
  x, y, thresholds = x[hull], y[hull], counts.thresholds[hull]
  index = np.searchsorted(x, steps, side="right") - 1
  # The left neighbour lies strictly below its step, but for the first step.
  index[1:] -= steps[1:] == x[index[1:]]
  p0 = (x[index + 1] - steps) / (x[index + 1] - x[index])
  return Curve(
    p0 * y[index] + (1 - p0) * y[index + 1],
    p0,
    thresholds[index],
    thresholds[index + 1],
  )


def _hull(x: list[float], y: list[float]) -> list[int]:
  """Returns the points of the upper hull; those on a chord are dropped.

  The monotone chain of Andrew (1979) over points sorted by (x, y).
  """
  kept: list[int] = []
  for i in range(len(x)):
    while len(kept) > 1:
      a, b = kept[-2], kept[-1]
      if (y[b] - y[a]) * (x[i] - x[a]) > (y[i] - y[a]) * (x[b] - x[a]):
        break
      kept.pop()
    kept.append(i)
  return kept


def counts_by_group(
  scores: np.ndarray, labels: np.ndarray, members: np.ndarray, attribute: tuple
) -> list[Counts | None]:
  """Counts decisions in each group; None for a group without samples."""
  counts: list[Counts | None] = []
  for g, inside in enumerate(members.T):
    size, positives = int(inside.sum()), int(labels[inside].sum())
    if not size:
      counts.append(None)
      continue
    if positives in (0, size):
      where = f" of attribute {attribute[0]}" if attribute else ""
      raise ValueError(
        f"Group {g} has only {'positive' if positives else 'negative'} labels"
        f"{where}: a threshold needs samples of both classes; merge the group"
        " with another or leave it out."
      )
    values, place = np.unique(-scores[inside], return_inverse=True)
    tp, fp = (
      np.concatenate(
        [[0], np.cumsum(np.bincount(place[part], minlength=len(values)))]
      )
      for part in (labels[inside], ~labels[inside])
    )
    between = (-values[:-1] - values[1:]) / 2
    thresholds = np.concatenate([[np.inf], between, [-np.inf]])
    counts.append(Counts(thresholds, tp, fp, positives, size - positives))
  return counts
