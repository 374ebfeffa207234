"""Published networks of gender and age, pruned, on 100 real faces.

  python -m launch.fetch age_gender lfw_subset
  python -m launch.run --config=configs/bias/faces.py --workdir=runs/faces

Nothing is trained; seconds on a CPU. The faces bear no labels: what is measured
is whose decision changes, not who is right.
"""

import ml_collections

from configs import common


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `sparsities=0.5:0.9` for others; `quick` for two of them.
  """
  options = common.parse_arg(
    arg, quick=False, sparsities=(0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
  )
  sparsities = (0.5, 0.8) if options.quick else options.sparsities
  return ml_collections.ConfigDict(
    dict(
      study="faces",
      title="Bias in pruned models: networks of face attributes",
      sparsities=sparsities,
      masks=("global", "layer"),
      data=dict(directory=""),
    )
  )
