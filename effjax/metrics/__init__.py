"""Measures of accuracy, calibration and bias that add up over batches."""

from effjax.metrics.base import (
  Metric,
  collection,
  compute,
  evaluate,
  start,
)
from effjax.metrics.bias import (
  REASONS,
  Amplification,
  GroupRates,
  backdoor_amplification,
  bias_amplification,
  group_rates,
)
from effjax.metrics.calibration import (
  calibration_error,
  reliability_curve,
  threshold_calibration_bias,
)
from effjax.metrics.classification import (
  accuracy,
  positive_rate,
  share,
  uncertainty,
)
from effjax.metrics.counting import decisions, one_hot
from effjax.metrics.dependence import explained, interdependence
from effjax.metrics.ranking import Area, auc, auc_exact
from effjax.metrics.resampling import (
  Interval,
  bootstrap,
  seed_interval,
)
from effjax.metrics.thresholds import adjust_thresholds

__all__ = [
  "REASONS",
  "Amplification",
  "Area",
  "GroupRates",
  "Interval",
  "Metric",
  "accuracy",
  "adjust_thresholds",
  "auc",
  "auc_exact",
  "backdoor_amplification",
  "bias_amplification",
  "bootstrap",
  "calibration_error",
  "collection",
  "compute",
  "decisions",
  "evaluate",
  "explained",
  "group_rates",
  "interdependence",
  "one_hot",
  "positive_rate",
  "reliability_curve",
  "seed_interval",
  "share",
  "start",
  "threshold_calibration_bias",
  "uncertainty",
]
