"""Areas under ROC curves and calibration errors of many attributes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from launch.benchmarks import harness

ATTRIBUTES, BINS = 40, 10


def _data(quick: bool) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  labels = rng.random((2_000 if quick else 200_000, ATTRIBUTES))
  labels = labels < rng.uniform(0.05, 0.95, ATTRIBUTES)
  logits = 2 * rng.normal(size=labels.shape) + 2 * labels - 1
  return logits.astype(np.float32), labels


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons of ranking and calibration.

  Args:
    quick: Use a hundredth of the samples.

  Returns:
    The binned area, the exact area and the calibration error. A unit of work
    is all attributes, for every candidate.
  """
  logits, labels = _data(quick)
  batch = {"logits": jnp.asarray(logits), "labels": jnp.asarray(labels)}
  size = f"{len(labels)} x {ATTRIBUTES} attributes"
  megabytes = (logits.nbytes + labels.nbytes) / 1e6
  sorting = lambda: _by_sorting(logits, labels)

  def run(metric: metrics.Metric):
    return lambda: jax.block_until_ready(metrics.compute(metric, **batch))

  binned = metrics.compute(metrics.auc(details=True), **batch)
  exact = metrics.auc_exact(logits, labels)
  counted = _by_counting(logits, labels)
  error = metrics.compute(metrics.calibration_error(BINS), **batch)
  return [
    harness.Case(
      name=f"auc in 4096 bins, {size}",
      ours=run(metrics.auc()),
      peers={**_scikit_learn(logits, labels), "numpy argsort": sorting},
      limit=f"reading {megabytes:.0f} MB once",
      note=f"largest error {_largest(binned.value, exact):.1e}, largest bound"
      f" {float(binned.bound.max()):.1e}",
    ),
    harness.Case(
      name=f"auc_exact, {size}",
      ours=lambda: jax.block_until_ready(metrics.auc_exact(logits, labels)),
      peers={"numpy argsort": sorting},
      note=f"largest difference {_largest(exact, sorting()):.1e}",
    ),
    harness.Case(
      name=f"calibration_error, {BINS} bins, {size}",
      ours=run(metrics.calibration_error(BINS)),
      peers={
        "numpy bincount": lambda: _by_counting(logits, labels),
        "numpy masks": lambda: _by_masks(logits, labels),
      },
      limit=f"reading {megabytes:.0f} MB once",
      note=f"largest difference {_largest(error, counted):.1e}",
    ),
  ]


def _largest(x: Any, y: Any) -> float:
  return float(np.abs(np.asarray(x, np.float64) - y).max())


def _scikit_learn(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
  try:
    from sklearn.metrics import roc_auc_score
  except ModuleNotFoundError:
    return {}
  columns = range(ATTRIBUTES)
  return {
    "scikit-learn": lambda: [
      roc_auc_score(labels[:, a], logits[:, a]) for a in columns
    ]
  }


def _by_sorting(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Areas from mid-ranks, one argsort an attribute."""
  areas = []
  for scores, positive in zip(logits.T, labels.T, strict=True):
    order = np.argsort(scores, kind="stable")
    scores, positive = scores[order], positive[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    sizes = np.diff(np.r_[starts, scores.size])
    ranks = np.repeat(starts + (sizes + 1) / 2, sizes)
    positives = int(positive.sum())
    wins = ranks[positive].sum() - positives * (positives + 1) / 2
    areas.append(wins / (positives * (scores.size - positives)))
  return np.array(areas)


def _by_counting(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Calibration errors, three counts an attribute."""
  errors = []
  for scores, positive in zip(logits.T, labels.T, strict=True):
    p = 1 / (1 + np.exp(-scores))
    index = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    confidence = np.bincount(index, p, BINS)
    frequency = np.bincount(index, positive, BINS)
    # The third count, of samples, would only be divided out again here; the
    # error needs it in other norms, and so does a diagram.
    np.bincount(index, minlength=BINS)
    errors.append(np.abs(confidence - frequency).sum() / scores.size)
  return np.array(errors)


def _by_masks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Calibration errors, one mask a bin, as most published code does."""
  errors = np.zeros(ATTRIBUTES)
  for a in range(ATTRIBUTES):
    p = 1 / (1 + np.exp(-logits[:, a]))
    index = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    for b in range(BINS):
      rows = index == b
      if rows.any():
        gap = p[rows].mean(dtype=np.float64) - labels[rows, a].mean()
        errors[a] += rows.mean() * abs(gap)
  return errors
