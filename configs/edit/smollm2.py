"""Facts that SmolLM2 knows are changed, one at a time, by seven methods.

  python -m launch.fetch smollm2
  python -m launch.run --config=configs/edit/smollm2.py \
    --workdir=runs/edit_smollm2

Learning rates are chosen on six other facts. `:quick` changes four facts by
three methods in minutes; `:miniature` one, to see that everything works.
"""

import ml_collections

from configs import common

METHODS = ("rome", "memit", "emmet", "alphaedit", "ft", "ft-l", "lora")
RATES = {
  "ft": (3e-5, 1e-4, 3e-4),
  "ft-l": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
  "lora": (1e-3, 3e-3, 1e-2),
}


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `facts=24` for how many are reported, `tuning=6` for how many choose
      learning rates; `quick` for a small study, `miniature` for the smallest.
  """
  options = common.parse_arg(
    arg, quick=False, miniature=False, facts=24, tuning=6
  )
  small = options.quick or options.miniature

  def pick(whole, quick, least):
    return least if options.miniature else quick if small else whole

  return ml_collections.ConfigDict(
    dict(
      study="edit_language",
      title="Edits of SmolLM2: which method changes a fact and nothing else?",
      model="smollm2",
      directory="",
      # (prompt, subject, old, new, paraphrases, neighbours); none: all known.
      wanted=(),
      methods=("rome", "ft", "lora") if small else METHODS,
      facts=pick(options.facts, 4, 1),
      tuning=pick(options.tuning, 1, 1),
      rates={m: RATES[m][1:2] if small else RATES[m] for m in RATES},
      layer=None,
      rank=1,
      steps=pick(25, 25, 2),
      stop=1e-2,
      evaluations=pick(20, 20, 2),
      seed=0,
      examples=pick(3, 1, 1),
      shown_tokens=pick(10, 10, 2),
    )
  )
