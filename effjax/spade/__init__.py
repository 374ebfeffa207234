"""Pruning a network for one example, so that it explains that example."""

from effjax.spade.augmentation import augment
from effjax.spade.functions import FunctionCapture, capture_function
from effjax.spade.last_layer import sparse_head
from effjax.spade.measuring import LayerGrams, layer_grams
from effjax.spade.scoring import explanation_score
from effjax.spade.solvers import SOLVERS
from effjax.spade.tracing import LayerReport, prune_layers, trace
from effjax.spade.tuning import GRID, Tuned, tune

__all__ = [
  "GRID",
  "SOLVERS",
  "FunctionCapture",
  "LayerGrams",
  "LayerReport",
  "Tuned",
  "augment",
  "capture_function",
  "explanation_score",
  "layer_grams",
  "prune_layers",
  "sparse_head",
  "trace",
  "tune",
]
