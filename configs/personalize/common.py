"""What the configs of personalization share: arms, rates, small variants."""

import ml_collections

from configs import common

ARMS = (
  "pretrained",
  "pretrained_rag",
  "full",
  "full_rag",
  "lora",
  "lora_rag",
  "rosa",
  "rosa_rag",
)
RATES = {
  "full": (3e-5, 1e-4, 3e-4),
  "lora": (3e-4, 1e-3, 3e-3),
  "dora": (3e-4, 1e-3, 3e-3),
  "rosa": (3e-4, 1e-3, 3e-3),
}


EPOCHS = 2.0
NOTHING = dict(arm="rosa", sizes=(), ranks=(), densities=(), bases=())
# Mails to learn from, where there are more; all learn from as many tokens.
SIZES = dict(sizes=(25, 50, 75, 100))


def parse(arg: str, persons: tuple[str, ...], arms: tuple[str, ...] = ARMS):
  """Read the argument of a config.

  Args:
    arg: `persona=david` for one of the persons; `seeds=0:1` for other seeds;
      `arms=pretrained:lora` for other arms; `quick` for a small study,
      `miniature` for the smallest.
    persons: Those of the whole study.
    arms: Those of the whole study; small ones have the first and LoRA.

  Returns:
    The options, and the persons to study.

  Raises:
    ValueError: If there is no such person.
  """
  options = common.parse_arg(
    arg,
    quick=False,
    miniature=False,
    persona="",
    seeds=(0, 1, 2),
    arms=arms,
  )
  small = options.quick or options.miniature
  if small and options.arms == arms:
    with options.unlocked():
      options.arms = ("pretrained", "lora")
  chosen = persons[:1] if small else persons
  if options.persona:
    if options.persona not in persons:
      raise ValueError(
        f"there is no person {options.persona!r}"
        f"{common.meant(options.persona, persons)}; known are"
        f" {', '.join(persons)}"
      )
    chosen = (options.persona,)
  return options, chosen


def build(
  options,
  persons: tuple[str, ...],
  *,
  title: str,
  instructions: str,
  data,
  cross: tuple[str, ...] = (),
  panels: dict | None = None,
  planted: tuple[str, ...] = (),
) -> ml_collections.ConfigDict:
  """Return a configuration.

  Args:
    options: What `parse` returns.
    persons: The persons.
    title: Title of the report.
    instructions: What asks for mails: "given", "model" or "extracted".
    data: Keys of `data` that differ.
    cross: What is examined by the mails of all persons; nothing in small ones.
    panels: What is varied, for the first person and seed; as `cross`.
    planted: What learns from mails with secrets; as `cross`.
  """
  miniature, small = options.miniature, options.quick or options.miniature

  def pick(whole, quick, least):
    return least if miniature else quick if small else whole

  given = tuple(options.arms)
  panels = dict(NOTHING, **({} if small else panels or {}))
  cross = cross if not small and len(persons) > 1 else ()
  planted = () if small else planted
  used = {name.split("_")[0] for name in given} | {*cross, *planted}
  if any(panels[name] for name in ("sizes", "ranks", "densities", "bases")):
    used.add(panels["arm"])
  kinds = [kind for kind in RATES if kind in used]
  seeds = options.seeds[:1] if small else options.seeds
  return ml_collections.ConfigDict(
    dict(
      study="personalize",
      title=title,
      model="smollm2",
      # Where weights lie; "" for the places of data sources.
      directory="",
      encoder=not miniature,
      seeds=seeds,
      arms=given,
      # Tuned on mails of the first person that are held out of the others.
      rates={k: RATES[k][1:2] if small else RATES[k] for k in kinds},
      validation=0.15,
      rank=8,
      density=0.01,
      dropout=0.0,
      epochs=pick(EPOCHS, 3.0, 1.0),
      rows=1,
      length=512,
      # Steps of LoRA, and examples, before RoSA chooses its places.
      warm_up=pick(16, 8, 1),
      collected=pick(8, 4, 2),
      reduction="per_example",
      checkpoint_every=pick(25, 10, 10),
      base="float32",
      mauve_seeds=5,
      instructions=instructions,
      retrieval=dict(
        kind="bm25" if miniature else "minilm",
        # Probability of earlier mails in training, and how many there are.
        share=0.55,
        in_training=2,
        afterwards=3,
        false_hits=0.05,
      ),
      drafts=dict(
        max_tokens=pick(256, 128, 24),
        batch=pick(48, 16, 8),
        temperature=0.7,
        top_k=50,
        top_p=0.7,
        # How many are in the report, if texts may be shown.
        shown=3,
      ),
      cross=cross,
      panels=panels,
      # Secrets planted in mails of the first person: in how many each is.
      privacy=dict(
        arms=planted,
        repeats=(1, 2, 4) if planted else (1,),
        candidates=127 if planted else 0,
      ),
      data=dict(
        persons=persons,
        directory="",
        # The most mails of a person, and those to be judged by; 0 for all.
        mails=pick(0, 60, 24),
        test=pick(0, 12, 4),
        share=0.2,
        order="random",
        seed=41,
        # Whether texts of mails and drafts may be in results and reports.
        show_texts=False,
      )
      | data,
    )
  )
