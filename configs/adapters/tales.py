"""SmolLM2 learns to go on with tales, by adapters and by its own weights.

  python -m launch.fetch smollm2 tales
  python -m launch.run --config=configs/adapters/tales.py --workdir=runs/tales

Five arms, four learning rates and three seeds of 50 steps each; about two hours
of CPU time. `:quick` takes one seed, one rate and ten steps;
`:miniature` LoRA and RoSA in three steps, to see that everything works.
"""

import ml_collections

from configs import common

ARMS = ("full", "blocks", "lora", "dora", "rosa")
RATES = {
  "full": (1e-5, 3e-5, 1e-4, 3e-4),
  "blocks": (3e-5, 1e-4, 3e-4, 1e-3),
  "lora": (3e-4, 1e-3, 3e-3, 1e-2),
  "dora": (3e-4, 1e-3, 3e-3, 1e-2),
  "rosa": (3e-4, 1e-3, 3e-3, 1e-2),
}


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `seeds=0:1:2` for other seeds; `quick` for a small study, `miniature`
      for the smallest.
  """
  options = common.parse_arg(arg, quick=False, miniature=False, seeds=(0, 1, 2))
  miniature, small = options.miniature, options.quick or options.miniature

  def pick(whole, quick, least):
    return least if miniature else quick if small else whole

  arms = ("lora", "rosa") if miniature else ARMS
  return ml_collections.ConfigDict(
    dict(
      study="adapters",
      title="Adapters: what has to be trained for a model to tell tales?",
      model="smollm2",
      directory="",
      seeds=options.seeds[:1] if small else options.seeds,
      arms=arms,
      rates={arm: RATES[arm][1:2] if small else RATES[arm] for arm in arms},
      rank=8,
      density=0.01,
      steps=pick(50, 10, 3),
      # Steps of LoRA, and examples, before RoSA chooses its places.
      warm_up=pick(16, 4, 1),
      collected=pick(8, 4, 2),
      rows=2,
      length=128,
      shown_tokens=pick(48, 32, 8),
      data=dict(
        directory="",
        seed=0,
        # How many tales, the most dialogues of each part, the fewest words of
        # a passage and of what comes after it.
        tales=dict(train=36, validation=8, test=10),
        most=dict(
          train=10000,
          validation=pick(12, 8, 4),
          test=pick(24, 16, 4),
        ),
        asked=15,
        answered=25,
      ),
    )
  )
