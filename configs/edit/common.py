"""What the configurations of the study of edits have in common."""

import ml_collections

from configs import common

ARMS = (
  "full",
  "full_everything",
  "full_attention",
  "full_mlp",
  "full_layer0",
  "full_layer1",
  "ft_l",
  "lora1",
  "lora4",
  "lora16",
  "lora64",
  "lora4_attention",
  "lora4_mlp",
)
# One program each, besides those of full fine-tuning and of LoRA.
OTHERS = ("dora4", "ia3", "sparse", "rosa4")
_FEW = ("full", "full_attention", "full_layer1", "lora1", "lora4")


def parse(arg: str, seeds: tuple[int, ...] = (0, 1, 2)):
  """Read the argument of a config.

  Args:
    arg: `seeds=0:1:2` for other pretrained models; `quick` for a study of two
      minutes, `miniature` for the smallest.
    seeds: Those of the whole study.

  Returns:
    The options, and whether the study is a small one.
  """
  options = common.parse_arg(arg, quick=False, miniature=False, seeds=())
  small = options.quick or options.miniature
  options.seeds = options.seeds or (seeds[:1] if small else seeds)
  return options, small


def make(arg: str, *, title: str, world: dict, pretraining: dict, **changes):
  """Make a configuration.

  Args:
    arg: See `parse`.
    title: Of the study.
    world: Options of the world.
    pretraining: Recipe of pretraining.
    **changes: Other keys.

  Returns:
    The configuration.
  """
  options, small = parse(arg, changes.pop("seeds", (0, 1, 2)))
  miniature = options.miniature
  if small:
    world = {**world, "subjects": 48 if miniature else 120}
    pretraining = {**pretraining, "steps": 300 if miniature else 500}
  config = dict(
    study="edit",
    title=title,
    # Of pretraining; each model has edits of its own.
    seeds=options.seeds,
    world=dict(seed=0, **world),
    model=dict(width=32, layers=2),
    pretraining=dict(
      **{
        "rows": 128,
        "rate": 1e-2,
        "warm_up": 100,
        "inverted": 0.0,
        "nested_copies": 1,
        "recall": 0.9 if miniature else 0.999,
        **pretraining,
      }
    ),
    edit=dict(kind="distinct", count=5, relation=0),
    mixes=("behemoth", "edit_only"),
    paraphrases=(),
    arms=_FEW if small else (*ARMS, *OTHERS),
    rates=(1e-3, 3e-3)
    if small
    else (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    # How often an arm whose best rate is its last is tried at one more.
    extensions=0 if small else 3,
    # Edits of each model: those that choose learning rates, those reported.
    tuning=1,
    reported=2,
    steps=16 if miniature else 48,
    # Of values that one down projection is changed to give, where keys are read
    # at the subject, or at the last token, of a layer.
    closed_forms=dict(
      methods=("memit",) if small else ("rome", "memit", "emmet", "alphaedit"),
      places=("last1",) if small else ("subject0", "last1"),
      rates=(0.1, 0.5) if small else (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
      weight_decay=0.1,
      kl=0.0625,
      clamp=4.0,
      damping=1e-2,
      lam=10.0,
      ridge=1e-2,
      threshold=5e-2,
    ),
    # Old facts are taught again to what these arms have edited.
    relearning=dict(
      arms=("full", "lora4") if small else (*ARMS, *OTHERS),
      rate=1e-3,
      steps=64,
    ),
    # Pruned and quantised before and after edits by these arms.
    interplay=dict(
      arms=("full", "lora4"),
      sparsities=(0.5, 0.9) if small else (0.5, 0.7, 0.9, 0.95),
      kinds=("nf4",) if small else ("int8", "nf4"),
      # Pruned step by step while the world is learned again, in so many steps.
      relearned=() if small else (0.9, 0.95),
      steps=500,
      rate=3e-3,
    ),
    every=8,
    batch=64,
    chunk=8,  # runs side by side
    most=100,
  )
  return ml_collections.ConfigDict(config | changes)
