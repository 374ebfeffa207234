"""The three persons whose mails the study Panza has published; research only.

  python -m launch.run --config=configs/personalize/panza.py:quick \
    --config.data.directory=WHERE_THEY_LIE --workdir=runs/panza

The user brings the files. Instructions are made by the model, in the small
variants by rules. Four arms for three seeds, the matrix of persons, and what
few mails do; `ablations.py` has retrieval and the rest for one person. No text
of mails or drafts is in results or reports, unless
`--config.data.show_texts=true`. `:persona=isabel` is one person alone.
"""

from configs.personalize import common

ARMS = ("pretrained", "full", "lora", "rosa")


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: See `common.parse`.
  """
  options, persons = common.parse(arg, ("david", "isabel", "marcus"), ARMS)
  small = options.quick or options.miniature
  return common.build(
    options,
    persons,
    title="Personalization: three published persons",
    instructions="extracted" if small else "model",
    data=dict(kind="panza"),
    cross=("lora", "rosa"),
    panels=common.SIZES,
  )
