"""Second-order pruning of single layers: the optimal brain surgeon."""

from effjax.pruning.obs.solution import Solution
from effjax.pruning.obs.sweep import sparsegpt

__all__ = ["Solution", "sparsegpt"]
