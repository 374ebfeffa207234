"""Second-order pruning of single layers: the optimal brain surgeon."""

from effjax.pruning.obs.dual import sparsegpt_from_inputs
from effjax.pruning.obs.greedy import exact_obs
from effjax.pruning.obs.layers import prune_tree
from effjax.pruning.obs.solution import Solution
from effjax.pruning.obs.sweep import sparsegpt

__all__ = [
  "Solution",
  "exact_obs",
  "prune_tree",
  "sparsegpt",
  "sparsegpt_from_inputs",
]
