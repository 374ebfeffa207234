"""Authors of public lists, as SpamAssassin's corpus has them, by number.

  python -m launch.fetch spam_assassin smollm2 minilm
  python -m launch.run --config=configs/personalize/spam_assassin.py:quick \
    --workdir=runs/authors

They are real persons: nothing names them, and no text of theirs, nor what was
made of it, is in results or reports. The model as it is and LoRA; author_1
wrote most. `:persona=author_2` is another one.
"""

from configs.personalize import common


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: See `common.parse`.
  """
  options, persons = common.parse(
    arg, ("author_1", "author_2"), ("pretrained", "lora")
  )
  # Some wrote hundreds: the first of them are enough.
  small = options.quick or options.miniature
  most = {} if small else {"mails": 150}
  return common.build(
    options,
    persons,
    title="Personalization: authors of public lists",
    instructions="extracted",
    data=dict(kind="spam_assassin", **most),
    cross=("lora",),
  )
