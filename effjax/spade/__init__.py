"""Pruning a network for one example, so that it explains that example."""

from effjax.spade.augmentation import augment
from effjax.spade.functions import FunctionCapture, capture_function
from effjax.spade.solvers import SOLVERS
from effjax.spade.tracing import LayerReport, trace

__all__ = [
  "SOLVERS",
  "FunctionCapture",
  "LayerReport",
  "augment",
  "capture_function",
  "trace",
]
