"""Facts that others depend on are edited: do these follow?

  python -m launch.run --config=configs/edit/nested.py \
      --workdir=runs/edit_nested

As `iid.py`, with nested objects.
"""

from configs.edit import common


def get_config(arg: str = ""):
  """Return the configuration; see `common.make`."""
  return common.make(
    arg,
    title="Edits in a nested world: do dependent facts follow?",
    world=dict(subjects=150, relations=2, objects=20, nested_objects=5),
    pretraining=dict(steps=1000, nested_copies=5),
    seeds=(0, 1, 2, 3, 4),
    edit=dict(kind="distinct", count=4, relation=0),
  )
