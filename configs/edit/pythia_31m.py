"""Facts are edited in models of the size of Pythia-31M; for an accelerator.

  python -m launch.run --config=configs/edit/pythia_31m.py \
      --workdir=runs/edit_pythia

The world has 600 thousand facts, which fill the blocks with 1.1 bits for each
parameter; three models learn it from 100 statements of each fact, in bfloat16.
Nobody has run it whole yet: no time or result is known. If a model recalls too
little, the study says how much and stops: give `pretraining.steps` more.
"""

from configs.edit import common

ARMS = (
  "full",
  "full_attention",
  "full_mlp",
  "full_layer0",
  "full_layer1",
  "full_layer2",
  "full_layer3",
  "full_layer4",
  "full_layer5",
  "lora1",
  "lora4",
  "lora16",
  "lora64",
)


def get_config(arg: str = ""):
  """Return the configuration; see `common.make`."""
  _, small = common.parse(arg)
  config = common.make(
    arg,
    title="Edits of models of the size of Pythia-31M",
    world=dict(subjects=100_000, relations=6, objects=400),
    pretraining=dict(steps=15_000, rows=4096, rate=1e-3, warm_up=500),
    edit=dict(kind="distinct", count=20, relation=0),
  )
  config.model = dict(size="pythia_31m", dtype="bfloat16", layers=6)
  if not small:
    config.arms = config.relearning.arms = ARMS
    config.rates = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    config.closed_forms.places = ("subject1", "subject3", "last5")
  else:
    config.closed_forms.places = ("last5",)
  return config
