"""Facts are edited in models that are nearly full of them.

  python -m launch.run --config=configs/edit/dense.py --workdir=runs/edit_dense

As `iid.py`, with three pretrained models and half a bit of facts for each
parameter of the blocks.
"""

from configs.edit import common


def get_config(arg: str = ""):
  """Return the configuration; see `common.make`."""
  return common.make(
    arg,
    title="Edits of models that are nearly full",
    world=dict(subjects=750, relations=4, objects=20),
    pretraining=dict(steps=1600, rows=256),
  )
