"""Which way of choosing the weights to prune does least harm?

  python -m launch.sweep configs/sweeps/bias_fashion.py --workdir=runs/masks

Six small runs of the bias study at 95 % sparsity, about a minute each on two
cores: every score with one threshold for the whole network, and with one for
each layer.
"""

from configs import common

CONFIG = "configs/bias/fashion.py:quick,sparsity=0.95"


def get_sweep() -> common.Sweep:
  """Return the points: configs, and the keys that differ."""
  return common.product(
    common.axis("config", (CONFIG,)),
    common.axis("training.pruning.mask", ("global", "layer")),
    common.axis("training.pruning.score", ("magnitude", "taylor", "fisher")),
  )
