"""Intervals over pretrained models and their edits."""

import numpy as np

from effjax import metrics

_RESAMPLES = 2000


class Resampled:
  """Intervals of means, by resampled models and, in each, resampled edits."""

  def __init__(self, models: int, edits: int, seed: int = 0):
    """Draw the models and edits of every resample.

    Args:
      models: Number of models K.
      edits: Number of reported edits of each, E.
      seed: Of the draws.
    """
    shape = _RESAMPLES, models, edits
    rng = np.random.default_rng(seed)
    self._edits = rng.integers(0, edits, shape)
    self._models = rng.integers(0, models, (*shape[:2], 1))

  def draws(self, values: np.ndarray) -> np.ndarray:
    """Average over the edits of each resample.

    Args:
      values: [K, E].

    Returns:
      [resamples, K].
    """
    chosen = values[self._models, self._edits]
    there = ~np.isnan(chosen)
    total = np.where(there, chosen, 0.0).sum(axis=2)
    count = there.sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

  def interval(self, values: np.ndarray) -> dict[str, float]:
    """Average, with the percentile interval of 95 %.

    Args:
      values: [K, E]; NaN is left out.

    Returns:
      `estimate`, `low`, `high`; NaN where nothing is defined.
    """
    if np.isnan(values).all():
      return dict.fromkeys(("estimate", "low", "high"), float("nan"))
    chosen = values[self._models, self._edits]
    return ends(
      float(np.nanmean(values)), _means(chosen.reshape(_RESAMPLES, -1))
    )


def over_models(values: np.ndarray) -> dict[str, float]:
  """Average over models, with Student's interval of 95 %.

  Args:
    values: [models, edits]; NaN is left out.

  Returns:
    `estimate`, `low`, `high`; NaN where undefined.
  """
  there = ~np.isnan(values)
  total = np.where(there, values, 0.0).sum(axis=1)
  count = there.sum(axis=1)
  means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
  found = metrics.seed_interval(means)
  return {
    end: float(getattr(found, end)) for end in ("estimate", "low", "high")
  }


def ends(estimate: float, drawn: np.ndarray) -> dict[str, float]:
  """Return an estimate with the percentiles of its resamples.

  Args:
    estimate: The estimate.
    drawn: Its resamples; NaN is left out.

  Returns:
    `estimate`, `low`, `high`.
  """
  drawn = drawn[~np.isnan(drawn)]
  low, high = np.percentile(drawn, [2.5, 97.5]) if drawn.size else [np.nan] * 2
  return {"estimate": float(estimate), "low": float(low), "high": float(high)}


def _means(values: np.ndarray) -> np.ndarray:
  there = ~np.isnan(values)
  total = np.where(there, values, 0.0).sum(axis=-1)
  count = there.sum(axis=-1)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)
