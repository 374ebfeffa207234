"""Made-up persons, whose mails may be shown: for tests and to begin with.

  python -m launch.fetch smollm2 minilm
  python -m launch.run --config=configs/personalize/synthetic.py:quick \
    --workdir=runs/personalize

Three persons with 120 mails each, who say the same in their own ways. `:quick`
takes one person, the model as it is and LoRA, 60 mails, three epochs, twelve
drafts: about twenty minutes of CPU time; `:miniature` is to see that everything
works. `:persona=kim` is another person, `arms=lora:rosa` other arms.
"""

from configs.personalize import common


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: See `common.parse`.
  """
  options, persons = common.parse(arg, ("robin", "sunny", "kim"))
  small = options.quick or options.miniature
  count = 24 if options.miniature else 60 if small else 120
  return common.build(
    options,
    persons,
    title="Personalization: how much has to be trained to write like a person?",
    instructions="given",
    data=dict(kind="synthetic", mails=count, show_texts=True),
    cross=("lora", "rosa"),
    panels=common.SIZES,
    planted=("full", "lora", "rosa"),
  )
