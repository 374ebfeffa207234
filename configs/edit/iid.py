"""Facts that have nothing to do with each other are edited.

  python -m launch.run --config=configs/edit/iid.py --workdir=runs/edit_iid

Five pretrained models of 25 thousand block parameters, 900 facts; seventeen
arms, eight learning rates, two mixes, three edits of five facts for each model,
by eight closed forms too; each model is pruned and quantised before and after
two of the arms; about half an hour of CPU time. `:quick` takes two minutes,
`:miniature` less.
"""

from configs.edit import common


def get_config(arg: str = ""):
  """Return the configuration; see `common.make`."""
  return common.make(
    arg,
    title="Edits: which update changes a fact best, and what else moves?",
    world=dict(subjects=300, relations=3, objects=20),
    pretraining=dict(steps=1000, inverted=0.2),
    seeds=(0, 1, 2, 3, 4),
    paraphrases=("rso",),
  )
