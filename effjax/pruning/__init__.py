"""Pruning: scores, exact masks, schedules, and transforms for training."""

from effjax.pruning import obs
from effjax.pruning.allocation import erk, uniform
from effjax.pruning.gram import (
  conv_input_gram,
  conv_patches,
  input_gram,
  kernel_to_matrix,
  matrix_to_kernel,
)
from effjax.pruning.inspection import Summary, pack, sparsity, summary, unpack
from effjax.pruning.masks import (
  apply_mask,
  global_topk,
  straight_through,
  topk,
)
from effjax.pruning.moving import dynamic
from effjax.pruning.schedules import (
  SCHEDULES,
  Schedule,
  alternating,
  constant,
  cubic,
  from_table,
  one_shot,
  polynomial,
)
from effjax.pruning.scores import (
  SCORES,
  fisher,
  magnitude,
  random,
  taylor,
  wanda,
)
from effjax.pruning.structured import MASKS, channels, n_m
from effjax.pruning.transform import prune
from effjax.pruning.updates import mask_moments

__all__ = [
  "MASKS",
  "SCHEDULES",
  "SCORES",
  "Schedule",
  "Summary",
  "alternating",
  "apply_mask",
  "channels",
  "constant",
  "conv_input_gram",
  "conv_patches",
  "cubic",
  "dynamic",
  "erk",
  "fisher",
  "from_table",
  "global_topk",
  "input_gram",
  "kernel_to_matrix",
  "magnitude",
  "mask_moments",
  "matrix_to_kernel",
  "n_m",
  "obs",
  "one_shot",
  "pack",
  "polynomial",
  "prune",
  "random",
  "sparsity",
  "straight_through",
  "summary",
  "taylor",
  "topk",
  "uniform",
  "unpack",
  "wanda",
]
