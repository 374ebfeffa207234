"""Measures of accuracy, calibration and bias that add up over batches.

Those of texts are plain functions of predictions and references: `panza_bleu`,
`rouge_l`, `mauve(key, p, q)` of two samples of features, `copied_runs`,
`exposure`, `fit_authorship`.

So are those of edited facts: `edit_success(logits[M, V], targets[M])`,
`slot_metrics`, `preservation({name: accuracy})`, `edit_level({name: Probe})`,
`counterfact`, `zsre`, and those of unlearned texts: `truth_ratio`,
`forget_quality`, `min_k`, `privacy_leakage`.
"""

from effjax.metrics.answers import (
  answer_nll,
  harmonic_mean,
)
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
from effjax.metrics.edits import (
  PRESERVED,
  EditLevel,
  ImplicitForgetting,
  Moments,
  Preservation,
  Probe,
  Propagation,
  Relearning,
  at_end_and_first_success,
  edit_level,
  implicit_forgetting,
  locality,
  preservation,
  propagation,
  relearning,
)
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
from effjax.metrics.knowledge import (
  CounterFact,
  Losses,
  Zsre,
  counterfact,
  token_accuracy,
  token_agreement,
  zsre,
)
from effjax.metrics.localization import (
  mass_accuracy,
  pixel_auc,
  pointing_game,
  rank_accuracy,
)
from effjax.metrics.memorization import (
  exact_memorization,
  extraction_strength,
  min_k,
  min_k_plus_plus,
  privacy_leakage,
  zlib_score,
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
from effjax.metrics.recall import (
  ByRelation,
  SlotMetrics,
  by_relation,
  edit_success,
  prediction_agreement,
  slot_metrics,
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
from effjax.metrics.unlearning import (
  KolmogorovSmirnov,
  answer_probability,
  forget_quality,
  kolmogorov_smirnov,
  model_utility,
  option_probability,
  truth_ratio,
  truth_ratio_score,
)

# One name a line would make this list half of the file.
# fmt: off
__all__ = [
  "CORRECTIONS", "PRESERVED", "REASONS", "Agreement", "Amplification", "Area",
  "AuthorClassifier", "Authorship", "Bleu", "BleuScores", "Brier", "ByRelation",
  "Calibration", "CevSde", "ClassSignificance", "CopiedRuns", "CounterFact",
  "Curve", "DenseCriteria", "DirectionalAmplification", "Disparities",
  "Divergence", "EditLevel", "ErrorChange", "Exemplars", "FlipArea",
  "FlipRates", "Flips", "Gap", "GroupAreas", "GroupCalibration", "GroupRates",
  "ImplicitForgetting", "InsertionDeletion", "Interval", "KolmogorovSmirnov",
  "LabelTable", "Losses", "Mals", "Mauve", "Metric", "Moments", "OverrideCurve",
  "PairChurn", "ParityRule", "Preservation", "Probe", "Propagation",
  "RankCorrelation", "Relearning", "RougeScores", "SelectiveRates",
  "SlotMetrics", "ThresholdCalibration", "Welch", "Zsre", "accuracy",
  "adaptive_calibration_error", "adjust_thresholds", "answer_nll",
  "answer_probability", "at_end_and_first_success", "auc", "auc_exact",
  "authorship_report", "average_precision", "backdoor_amplification",
  "baseline_churn", "benjamini_hochberg", "bias_amplification", "bleu",
  "bootstrap", "brier_score", "by_relation", "calibration_error", "cev_sde",
  "cev_sde_of_rates", "chrf", "churn", "class_divergence", "class_significance",
  "clean_text", "closing", "collection", "compute", "conditional",
  "copied_runs", "counterfact", "decisions", "dense_criteria",
  "directional_bias_amplification", "disparities", "divergence",
  "divergence_curve", "edit_level", "edit_success", "entropy", "error_change",
  "evaluate", "exact_memorization", "excess_error", "exemplars", "explained",
  "explicit_bootstrap", "exposure", "extraction_strength", "fit_authorship",
  "flip_auroc", "flips", "forget_quality", "frontier_integral", "gap",
  "gaussian_blur", "greeting", "group_auc", "group_auc_exact", "group_rates",
  "harmonic_mean", "hierarchical_bootstrap", "holm", "implicit_forgetting",
  "infidelity", "insertion_deletion", "interdependence", "intersection_names",
  "intersections", "kolmogorov_smirnov", "krichevsky_trofimov", "label_table",
  "length_ratio", "locality", "mals", "mass_accuracy", "mauve", "mauve_buckets",
  "mauve_counts", "mauve_from_histograms", "mean", "min_k", "min_k_plus_plus",
  "model_utility", "mutual_information", "negative_log_likelihood", "one_hot",
  "option_probability", "override", "override_curve", "panza_bleu",
  "parity_decisions", "parity_probability", "parity_thresholds", "pixel_auc",
  "pointing_game", "positive_rate", "precision_at_recall", "predict_authorship",
  "prediction_agreement", "preservation", "privacy_leakage", "propagation",
  "random_susceptible", "rank_accuracy", "rank_correlation", "reference_sets",
  "reject_option_classification", "relearning", "reliability_curve",
  "remove_identity", "rouge_l", "rouge_n", "salutation_agreement",
  "scale_temperature", "seed_interval", "selective_rates", "self_bleu",
  "sensitivity", "sentence_bleu", "sentence_chrf", "share", "slot_metrics",
  "soft_group_rates", "softmax_entropy", "start", "susceptible", "temperature",
  "threshold_calibration_bias", "token_accuracy", "token_agreement",
  "tokenize_13a", "truth_ratio", "truth_ratio_score", "uncertainty", "welch",
  "wilson", "without_closing", "zlib_score", "zsre",
]
# fmt: on
