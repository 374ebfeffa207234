"""One adapter for one mailbox.

tuner = finetuning.Tuner(model.module, model.params, [])
trained = tune(tuner, letters, model.tokenizer, Recipe(), "runs/me")
trained.tuned.merged  # the parameters of the model afterwards
"""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from effjax.data import packing
from effjax.studies.adapters import finetuning, plans
from effjax.studies.personalize import costs, prompts
from effjax.studies.personalize import letters as lettering


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """How to learn from the mails of a person.

  The budget is counted in epochs: every arm learns from the same tokens of
  mails, as often.

  Attributes:
    arm: A key of `plans.TITLES`.
    rank: Of low-rank adapters.
    density: Share of the weights in the sparse part of RoSA.
    learning_rate: The highest; by default that of `plans.RATES`.
    epochs: How often every mail is learned from.
    rows: Rows of a batch; fewer if the mails do not fill so many.
    length: Tokens of a row, which holds several mails.
    raft: How earlier mails come into prompts; None for prompts without.
    dropout: Share of the inputs that low-rank paths drop.
    warm_up: Steps of LoRA before RoSA chooses its places.
    collected: Examples whose gradients choose them.
    reduction: Of the loss, see `packing.packed`; Panza averages over mails.
    seed: Of the initial values, the order of the mails, and the draws.
  """

  arm: str = "lora"
  rank: int = 8
  density: float = 0.01
  learning_rate: float | None = None
  epochs: float = 5.0
  rows: int = 1
  length: int = prompts.LENGTH
  raft: lettering.Raft | None = None
  dropout: float = 0.0
  warm_up: int = 16
  collected: int = 8
  reduction: str = "per_example"
  seed: int = 0


class Trained(NamedTuple):
  """What came of the training.

  Attributes:
    tuned: What was trained.
    learned: What it was trained on.
    facts: Plain values: `arm`, `rate`, `steps`, `rows`, `trained` and `weights`
      (how many numbers), `learned_tokens` and `read_tokens` (over all epochs,
      padding included in the latter), `mails`, `too_long`, `retrieved`, `cost`
      (see `costs.measured`), `reduction`.
  """

  tuned: finetuning.Tuned
  learned: lettering.Learned
  facts: dict[str, Any]


def plan(recipe: Recipe, learned: lettering.Learned) -> tuple[plans.Plan, int]:
  """Say how many steps a recipe takes.

  Args:
    recipe: The recipe.
    learned: What is learned from.

  Returns:
    The plan, and the rows of a batch.

  Raises:
    ValueError: If the epochs are not above 0 or a mail is longer than a row.
  """
  if not 0 < recipe.epochs < math.inf:
    raise ValueError(f"epochs must be above 0, got {recipe.epochs}")
  found = packing.packed(
    learned.examples,
    1,
    recipe.length,
    seed=recipe.seed,
    beginning=learned.beginning,
  )
  rows = max(min(recipe.rows, found.per_epoch), 1)
  steps = math.ceil(recipe.epochs * found.per_epoch / rows)
  made = plans.Plan(
    arm=recipe.arm,
    rank=recipe.rank,
    density=recipe.density,
    steps=steps,
    learning_rate=recipe.learning_rate,
    dropout=recipe.dropout,
    warm_up=recipe.warm_up,
    collected=recipe.collected,
    seed=recipe.seed,
  )
  return made, rows


def tune(
  tuner: finetuning.Tuner,
  letters: lettering.Letters,
  tokenizer: Any,
  recipe: Recipe,
  workdir: str | os.PathLike,
  *,
  checkpoint_every: int = 25,
  started: Callable[[plans.Chosen, Any], None] | None = None,
) -> Trained:
  """Teach a model the mails of a person, or go on where it was interrupted.

  Args:
    tuner: Of the model; what it has compiled for another mailbox serves here.
    letters: The letters; those to be judged by are not looked at.
    tokenizer: A `models.tokenizers.Tokenizer`.
    recipe: How.
    workdir: Where checkpoints and metrics are written.
    checkpoint_every: Steps between checkpoints.
    started: As in `finetuning.Tuner.tune`.

  Returns:
    What came of it; the cost is that of this call.

  Raises:
    ValueError: If the recipe or the letters make no sense.
  """
  learned = lettering.examples(
    letters,
    tokenizer,
    raft=recipe.raft,
    length=recipe.length,
    seed=recipe.seed,
  )
  made, rows = plan(recipe, learned)
  with costs.measured() as cost:
    tuned = tuner.on(
      learned.examples,
      variants=learned.variants,
      beginning=learned.beginning,
    ).tune(
      made,
      workdir,
      rows=rows,
      length=recipe.length,
      checkpoint_every=checkpoint_every,
      started=started,
      reduction=recipe.reduction,
    )
  counts = plans.summary(tuner.params, tuned.trained, tuned.chosen.adapter)
  facts = {
    "arm": recipe.arm,
    "rate": made.rate,
    "steps": made.steps,
    "rows": rows,
    "trained": counts.trained,
    "weights": counts.weights,
    "mails": len(learned.examples),
    "too_long": learned.too_long,
    "retrieved": learned.retrieved,
    "learned_tokens": round(recipe.epochs * learned.tokens),
    "read_tokens": made.steps * rows * recipe.length,
    "reduction": recipe.reduction,
    "cost": cost,
  }
  return Trained(tuned, learned, facts)
