"""When does low rank edit better? Worlds of several sizes in one kind of model.

  python -m launch.run --config=configs/edit/load.py --workdir=runs/edit_load

Models of 25 thousand block parameters learn from 0.05 to 0.5 bits of facts for
each of them; each is edited at full rank, at low rank and in some blocks only.
Three models a load; about 25 minutes of CPU time. `:quick` takes two minutes.
"""

from configs.edit import common

ARMS = (
  "full",
  "full_attention",
  "full_mlp",
  "full_layer0",
  "full_layer1",
  "lora1",
  "lora2",
  "lora4",
  # Trained at full rank, then cut: is it the rank, or training at that rank?
  "full_cut1",
  "full_cut4",
)


def get_config(arg: str = ""):
  """Return the configuration; see `common.make`."""
  _, small = common.parse(arg)
  config = common.make(
    arg,
    title="Edits of models that are more and more full",
    world=dict(subjects=750, relations=4, objects=20),
    pretraining=dict(steps=1600, rows=256),
  )
  config.study = "edit_load"
  # Of the world, from the emptiest model to the fullest.
  config.subjects = (60, 120) if small else (75, 250, 500, 750)
  if not small:
    config.arms = ARMS
    config.rates = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
  for unread in ("interplay", "closed_forms", "relearning"):
    del config[unread]
  return config
