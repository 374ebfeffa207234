"""Measures of accuracy, calibration and bias that add up over batches.

Those of texts are plain functions of predictions and references: `panza_bleu`,
`rouge_l`, `mauve(key, p, q)` of two samples of features, `copied_runs`,
`exposure`, `fit_authorship`.
"""

from effjax.metrics.authorship import (
  AuthorClassifier,
  Authorship,
  authorship_report,
  fit_authorship,
  predict_authorship,
)
from effjax.metrics.base import (
  Metric,
  collection,
  compute,
  evaluate,
  start,
)
from effjax.metrics.base_rates import (
  ThresholdCalibration,
  threshold_calibration_bias,
)
from effjax.metrics.bias import (
  REASONS,
  Amplification,
  backdoor_amplification,
  bias_amplification,
)
from effjax.metrics.calibration import (
  Calibration,
  GroupCalibration,
  adaptive_calibration_error,
  calibration_error,
)
from effjax.metrics.classes import (
  CevSde,
  ClassSignificance,
  cev_sde,
  cev_sde_of_rates,
  class_significance,
)
from effjax.metrics.classification import (
  accuracy,
  positive_rate,
  share,
  uncertainty,
)
from effjax.metrics.compression import (
  ErrorChange,
  FlipRates,
  Flips,
  error_change,
  excess_error,
  flips,
)
from effjax.metrics.copying import CopiedRuns, copied_runs, exposure
from effjax.metrics.counting import decisions, one_hot
from effjax.metrics.criteria import (
  DenseCriteria,
  FlipArea,
  RankCorrelation,
  dense_criteria,
  flip_auroc,
  rank_correlation,
)
from effjax.metrics.dependence import (
  explained,
  interdependence,
  mutual_information,
)
from effjax.metrics.directional import (
  DirectionalAmplification,
  Mals,
  directional_bias_amplification,
  mals,
)
from effjax.metrics.disagreement import PairChurn, baseline_churn, churn
from effjax.metrics.faithfulness import (
  InsertionDeletion,
  gaussian_blur,
  infidelity,
  insertion_deletion,
  sensitivity,
)
from effjax.metrics.frontiers import (
  Mauve,
  divergence_curve,
  frontier_integral,
  krichevsky_trofimov,
  mauve,
  mauve_buckets,
  mauve_counts,
  mauve_from_histograms,
)
from effjax.metrics.gaps import Disparities, Gap, disparities, gap
from effjax.metrics.groups import (
  GroupRates,
  conditional,
  group_rates,
  intersection_names,
  intersections,
  soft_group_rates,
)
from effjax.metrics.hierarchical import hierarchical_bootstrap
from effjax.metrics.identity import remove_identity
from effjax.metrics.intervals import Interval, seed_interval, wilson
from effjax.metrics.localization import (
  mass_accuracy,
  pixel_auc,
  pointing_game,
  rank_accuracy,
)
from effjax.metrics.mitigation import (
  OverrideCurve,
  override,
  override_curve,
  random_susceptible,
  susceptible,
)
from effjax.metrics.overlap import (
  BleuScores,
  RougeScores,
  panza_bleu,
  rouge_l,
  rouge_n,
  self_bleu,
)
from effjax.metrics.parity import (
  ParityRule,
  parity_decisions,
  parity_probability,
  parity_thresholds,
)
from effjax.metrics.pie import Exemplars, exemplars
from effjax.metrics.precision import (
  LabelTable,
  average_precision,
  label_table,
  precision_at_recall,
)
from effjax.metrics.ranking import (
  Area,
  GroupAreas,
  auc,
  auc_exact,
  group_auc,
  group_auc_exact,
)
from effjax.metrics.rejection import (
  SelectiveRates,
  reject_option_classification,
  selective_rates,
)
from effjax.metrics.relative_entropy import (
  Divergence,
  class_divergence,
  divergence,
)
from effjax.metrics.reliability import Curve, reliability_curve
from effjax.metrics.resampling import bootstrap, explicit_bootstrap
from effjax.metrics.salutations import (
  Agreement,
  closing,
  greeting,
  salutation_agreement,
  without_closing,
)
from effjax.metrics.scaling import scale_temperature, temperature
from effjax.metrics.scoring import (
  Brier,
  brier_score,
  entropy,
  mean,
  negative_log_likelihood,
  softmax_entropy,
)
from effjax.metrics.significance import (
  CORRECTIONS,
  Welch,
  benjamini_hochberg,
  holm,
  welch,
)
from effjax.metrics.texts import clean_text, length_ratio, reference_sets
from effjax.metrics.thresholds import adjust_thresholds
from effjax.metrics.translation import (
  Bleu,
  bleu,
  chrf,
  sentence_bleu,
  sentence_chrf,
  tokenize_13a,
)

__all__ = [
  "CORRECTIONS",
  "REASONS",
  "Agreement",
  "Amplification",
  "Area",
  "AuthorClassifier",
  "Authorship",
  "Bleu",
  "BleuScores",
  "Brier",
  "Calibration",
  "CevSde",
  "ClassSignificance",
  "CopiedRuns",
  "Curve",
  "DenseCriteria",
  "DirectionalAmplification",
  "Disparities",
  "Divergence",
  "ErrorChange",
  "Exemplars",
  "FlipArea",
  "FlipRates",
  "Flips",
  "Gap",
  "GroupAreas",
  "GroupCalibration",
  "GroupRates",
  "InsertionDeletion",
  "Interval",
  "LabelTable",
  "Mals",
  "Mauve",
  "Metric",
  "OverrideCurve",
  "PairChurn",
  "ParityRule",
  "RankCorrelation",
  "RougeScores",
  "SelectiveRates",
  "ThresholdCalibration",
  "Welch",
  "accuracy",
  "adaptive_calibration_error",
  "adjust_thresholds",
  "auc",
  "auc_exact",
  "authorship_report",
  "average_precision",
  "backdoor_amplification",
  "baseline_churn",
  "benjamini_hochberg",
  "bias_amplification",
  "bleu",
  "bootstrap",
  "brier_score",
  "calibration_error",
  "cev_sde",
  "cev_sde_of_rates",
  "chrf",
  "churn",
  "class_divergence",
  "class_significance",
  "clean_text",
  "closing",
  "collection",
  "compute",
  "conditional",
  "copied_runs",
  "decisions",
  "dense_criteria",
  "directional_bias_amplification",
  "disparities",
  "divergence",
  "divergence_curve",
  "entropy",
  "error_change",
  "evaluate",
  "excess_error",
  "exemplars",
  "explained",
  "explicit_bootstrap",
  "exposure",
  "fit_authorship",
  "flip_auroc",
  "flips",
  "frontier_integral",
  "gap",
  "gaussian_blur",
  "greeting",
  "group_auc",
  "group_auc_exact",
  "group_rates",
  "hierarchical_bootstrap",
  "holm",
  "infidelity",
  "insertion_deletion",
  "interdependence",
  "intersection_names",
  "intersections",
  "krichevsky_trofimov",
  "label_table",
  "length_ratio",
  "mals",
  "mass_accuracy",
  "mauve",
  "mauve_buckets",
  "mauve_counts",
  "mauve_from_histograms",
  "mean",
  "mutual_information",
  "negative_log_likelihood",
  "one_hot",
  "override",
  "override_curve",
  "panza_bleu",
  "parity_decisions",
  "parity_probability",
  "parity_thresholds",
  "pixel_auc",
  "pointing_game",
  "positive_rate",
  "precision_at_recall",
  "predict_authorship",
  "random_susceptible",
  "rank_accuracy",
  "rank_correlation",
  "reference_sets",
  "reject_option_classification",
  "reliability_curve",
  "remove_identity",
  "rouge_l",
  "rouge_n",
  "salutation_agreement",
  "scale_temperature",
  "seed_interval",
  "selective_rates",
  "self_bleu",
  "sensitivity",
  "sentence_bleu",
  "sentence_chrf",
  "share",
  "soft_group_rates",
  "softmax_entropy",
  "start",
  "susceptible",
  "temperature",
  "threshold_calibration_bias",
  "tokenize_13a",
  "uncertainty",
  "welch",
  "wilson",
  "without_closing",
]
