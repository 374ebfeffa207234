"""What else makes a difference for one published person.

  python -m launch.run --config=configs/personalize/ablations.py \
    --config.data.directory=WHERE_THEY_LIE --workdir=runs/ablations

RAFT beside plain fine-tuning, each with and without retrieval, and DoRA, for
three seeds; rank, density and a quantised base; secrets planted in mails. The
files and the rest are those of `panza.py`. `:persona=isabel` is another person.
"""

from configs.personalize import common

ARMS = (
  "pretrained",
  "pretrained_rag",
  "lora",
  "lora_rag",
  "lora_raft",
  "lora_raft_rag",
  "dora",
  "rosa",
  "rosa_rag",
  "rosa_raft",
  "rosa_raft_rag",
)


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: See `common.parse`.
  """
  options, persons = common.parse(arg, ("david", "isabel", "marcus"), ARMS)
  small = options.quick or options.miniature
  return common.build(
    options,
    persons[:1],
    title="Personalization: RAFT, DoRA, rank, density, quantisation, secrets",
    instructions="extracted" if small else "model",
    data=dict(kind="panza"),
    panels=dict(ranks=(2, 32), densities=(0.001, 0.03), bases=("int8", "nf4")),
    planted=("full", "lora", "dora", "rosa"),
  )
