"""Variants of the arms: other masks, scores and losses, models of one label.

A variant is an arm of the study that differs from "ri" or "pt" in one thing.
Like every arm it has its own learning rate, as many epochs, and all seeds.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from effjax import models, tree
from effjax.studies.bias import stages
from effjax.studies.bias.arms import (
  Member,
  Recipe,
  Trainer,
  epochs,
  prune_schedule,
)
from effjax.studies.bias.losses import LOSSES
from effjax.studies.bias.problems import Problem, restrict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
  """One variant.

  Attributes:
    name: What it is called in tables and directories.
    like: The arm that it follows in all but what is named here, "ri" or "pt".
    sparsities: The sparsities it is run at; 0 for a dense model.
    score: Score of the weights; None takes that of the arm.
    mask: Kind of mask; None takes that of the arm.
    where: Which weights are pruned; None takes what the arm takes.
    loss: What is minimised, a name of `losses.LOSSES`.
    attributes: If there are any, a model is trained for each of these alone.
  """

  name: str
  like: str = "pt"
  sparsities: tuple[float, ...]
  score: str | None = None
  mask: str | None = None
  where: str | None = None
  loss: str = "plain"
  attributes: tuple[str, ...] = ()

  @property
  def recipe(self) -> Recipe:
    """What its models are trained by."""
    return Recipe(
      score=self.score, mask=self.mask, where=self.where, loss=self.loss
    )


def read(config: Any, problem: Problem) -> list[Variant]:
  """Read the variants of a configuration.

  Args:
    config: The whole configuration; `variants` is a list of dicts.
    problem: The data, for names of attributes.

  Returns:
    The variants.

  Raises:
    ValueError: If a key, a loss, an attribute or an arm does not exist, a name
      is taken, or something is missing.
  """
  fields = [field.name for field in dataclasses.fields(Variant)]
  taken, found = {"dense", "base", "ri", "pt"}, []
  for entry in config.get("variants") or ():
    entry = dict(entry)
    name = entry.get("name", "")
    for key in entry:
      _known(f"the variant {name!r}", key, fields)
    for key in ("name", "sparsities"):
      if not entry.get(key):
        raise ValueError(f"the variant {entry} has no {key}")
    for key in ("sparsities", "attributes"):
      entry[key] = tuple(entry.get(key) or ())
    variant = Variant(**entry)
    _known(f"variant {name!r}: like", variant.like, ("ri", "pt"))
    _known(f"variant {name!r}: loss", variant.loss, list(LOSSES))
    for attribute in variant.attributes:
      _known(f"variant {name!r}: attributes", attribute, problem.attributes)
    if name in taken:
      raise ValueError(f"the name {name!r} of a variant is taken")
    if variant.attributes and (variant.loss != "plain" or variant.like == "pt"):
      raise ValueError(
        f"variant {name!r}: models of one label start from scratch, like='ri',"
        " with the plain loss"
      )
    if 0.0 in variant.sparsities and variant.like == "pt":
      raise ValueError(f"variant {name!r}: like='pt' has no dense model")
    taken.add(name)
    found.append(variant)
  return found


def _known(where: str, name: str, known: Sequence[str]) -> None:
  if name not in known:
    near = ", ".join(tree.nearest(name, list(known), 3))
    raise ValueError(f"{where} has no {name!r}; the nearest are {near}")


def members(
  variant: Variant,
  sparsities: Sequence[float],
  seeds: Sequence[int],
  rates: Sequence[float],
) -> list[Member]:
  """List the models of a variant.

  Args:
    variant: The variant.
    sparsities: Their sparsities.
    seeds: Their seeds.
    rates: Their learning rates.

  Returns:
    A member for every combination; those of one label innermost.
  """
  return [
    Member(
      arm=variant.name,
      like=variant.like,
      sparsity=sparsity,
      seed=seed,
      learning_rate=rate,
      attribute=attribute,
    )
    for rate in rates
    for sparsity in sparsities
    for seed in seeds
    for attribute in variant.attributes or ("",)
  ]


def constants(
  variant: Variant,
  crew: Sequence[Member],
  problem: Problem,
  *,
  starts: Sequence[Any] | None,
  begin: int,
) -> list[dict[str, Any]] | None:
  """Gather what the losses of the members need.

  Args:
    variant: The variant.
    crew: Its members.
    problem: The data.
    starts: The dense states that they start from, one a member.
    begin: The update after which the masks stay as they are.

  Returns:
    A dict for each member, or None where the loss needs nothing.
  """
  if variant.attributes:
    index = problem.attributes.index
    return [{"column": jnp.int32(index(m.attribute))} for m in crew]
  if variant.loss in ("distillation", "performance_weighted"):
    assert starts is not None  # variants like "pt" have a dense model
    return [{"teacher": {"params": s.params, **s.model_state}} for s in starts]
  if variant.loss == "label_balanced":
    labels = problem.labels["train"]
    # A label without positives has no weight that could balance it.
    rates = np.clip(labels.mean(0), 1 / len(labels), 1 - 1 / len(labels))
    shared = {
      "rates": jnp.asarray(rates, jnp.float32),
      "begin": jnp.int32(begin),
      "step": jnp.int32(0),
    }
    return [shared] * len(crew)
  return None


def joined(logits: np.ndarray, attributes: Sequence[str]) -> np.ndarray:
  """Put the logits of models of one label side by side.

  Args:
    logits: [M A, N, 1], the models of a seed and sparsity beside each other.
    attributes: The A labels.

  Returns:
    [M, N, A].

  >>> joined(np.zeros((6, 5, 1)), ["a", "b"]).shape
  (3, 5, 2)
  """
  many, rows, _ = logits.shape
  whole = logits.reshape(many // len(attributes), len(attributes), rows)
  return whole.swapaxes(1, 2)


def problem_of(variant: Variant, problem: Problem) -> Problem:
  """Leave out what the models of a variant do not learn.

  Args:
    variant: The variant.
    problem: The problem.

  Returns:
    The problem with the labels of the variant.
  """
  if not variant.attributes:
    return problem
  return restrict(problem, variant.attributes)


def stage(
  name: str,
  variant: Variant,
  members: list[Member],
  trainer: Trainer,
  place: pathlib.Path,
  starts: Sequence[Any] | None,
) -> stages.Stage:
  """Run a stage of a variant; models of one label come out as one of all.

  Args:
    name: Name of the stage and of its directory.
    variant: The variant.
    members: Its models, as `members` lists them.
    trainer: What trains them.
    place: Directory of the study.
    starts: The dense states that they start from, one a member, or None.

  Returns:
    The stage.
  """
  config, problem = trainer.config, trainer.problem
  if variant.attributes:
    module = models.build(config.model.name, outputs=1, **config.model.options)
    trainer = Trainer(problem, module, config)
  per_epoch = problem.train(members[0].seed, config.training.batch_size)
  plan = prune_schedule(
    config.training.pruning, members[0], per_epoch.per_epoch
  )
  trained = stages.run(
    name,
    members,
    trainer,
    place,
    epochs=epochs(config, variant.like),
    starts=starts,
    constants=constants(
      variant, members, problem, starts=starts, begin=plan.steps[-1]
    ),
    recipe=variant.recipe,
  )
  if not variant.attributes:
    return trained
  labels = variant.attributes
  return stages.Stage(
    members=[
      dataclasses.replace(m, attribute="") for m in members[:: len(labels)]
    ],
    validation=joined(trained.validation, labels),
    test=joined(trained.test, labels),
    achieved=[
      float(x) for x in np.reshape(trained.achieved, (-1, len(labels))).mean(1)
    ],
    states=[],
    attributes=labels,
  )
