"""Learning rates, chosen for every arm and variant on validation data."""

import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from effjax import metrics
from effjax.io import files
from effjax.studies.bias import stages, variants
from effjax.studies.bias.arms import Member, Trainer, epochs
from effjax.studies.bias.problems import Problem

# By the name of an arm or variant: one rate, or one by the sparsity at which it
# was chosen, which JSON writes as text.
Rates = dict[str, float | dict[str, float]]


def rate_at(rates: Rates, arm: str, sparsity: float) -> float:
  """Look up the learning rate of a model.

  Args:
    rates: What `learning_rates` returned.
    arm: Its arm.
    sparsity: Its sparsity.

  Returns:
    The rate that was chosen at the sparsity whose share of kept weights is
    nearest, as a ratio.

  >>> rates = {"ri": {"0.9": 0.01, "0.99": 0.002}}
  >>> rate_at(rates, "ri", 0.5), rate_at(rates, "ri", 0.98)
  (0.01, 0.002)
  """
  found = rates[arm]
  if not isinstance(found, dict):
    return found
  kept = lambda level: math.log(max(1.0 - level, 1e-9))
  distance = lambda level: abs(kept(float(level)) - kept(sparsity))
  return found[min(found, key=distance)]


def learning_rates(
  trainer: Trainer, place: pathlib.Path, others: Sequence[variants.Variant] = ()
) -> Rates:
  """Choose the learning rates of every arm and variant by validation AUC.

  Args:
    trainer: What trains them.
    place: Directory of the study.
    others: The variants.

  Returns:
    The rates: of "ri" and "pt" one for each of `tuning.sparsities`, of a
    variant one; those of the configuration where it names none to choose from.

  Raises:
    ValueError: If the seed of the tuning is one of the arms', or there is no
      sparsity to tune at.
  """
  rates, start = _of_arms(trainer, place)
  return rates | _of_variants(trainer, place, others, rates, start)


def _of_arms(trainer: Trainer, place: pathlib.Path) -> tuple[Rates, Any]:
  """Choose the learning rates of every arm by validation AUC.

  Returns:
    The rates, and the base model that was best, None where nothing is tuned.
  """
  config = trainer.config
  rates: Rates = dict(config.training.learning_rates)
  grid = tuple(config.tuning.learning_rates)
  if not grid or not any(config.sparsities):
    return rates, None
  seed, sparsities = config.tuning.seed, tuple(config.tuning.sparsities)
  if seed in config.seeds:
    raise ValueError(
      f"tuning.seed {seed} is one of the seeds of the arms; choose another"
    )
  if not sparsities:
    raise ValueError("tuning.sparsities is empty; name one at least")
  scores: dict[str, Any] = {}

  def members(arm: str) -> list[Member]:
    levels = sparsities if arm in ("ri", "pt") else (0.0,)
    return [
      Member(arm=arm, sparsity=level, seed=seed, learning_rate=rate)
      for level in levels
      for rate in grid
    ]

  def stage(arm: str, crew: list[Member], **how: Any) -> stages.Stage:
    how["epochs"] = epochs(config, arm)
    trained = stages.run(f"tune-{arm}", crew, trainer, place, **how)
    for m, value in _values(trained, trainer.problem):
      by_rate = scores.setdefault(m.arm, {})
      if m.arm in ("ri", "pt"):
        by_rate = by_rate.setdefault(str(m.sparsity), {})
      by_rate[str(m.learning_rate)] = value
    for name in {m.arm for m in crew}:
      rates[name] = (
        {level: _best(scores[name][level]) for level in scores[name]}
        if name in ("ri", "pt")
        else _best(scores[name])
      )
    return trained

  stage("main", members("dense") + members("ri"))
  started = stage("base", members("base"), keep=True)
  best = started.states[grid.index(rates["base"])]
  crew = members("pt")
  stage("pt", crew, starts=[best] * len(crew))
  files.write_json(place / "tuning.json", {"scores": scores, "chosen": rates})
  return rates, best


def _values(
  stage: stages.Stage, problem: Problem
) -> Iterator[tuple[Member, float]]:
  """Compute the mean validation AUC of every model."""
  labels = problem.labels["validation"]
  for m, logits in zip(stage.members, stage.validation, strict=True):
    yield m, float(np.nanmean(metrics.auc_exact(logits, labels)))


def _best(scores: dict[str, float]) -> float:
  return float(max(scores, key=scores.__getitem__))


def _of_variants(
  trainer: Trainer,
  place: pathlib.Path,
  others: Sequence[variants.Variant],
  rates: Rates,
  start: Any,
) -> Rates:
  """Choose the learning rate of every variant at its highest sparsity."""
  config = trainer.config
  if start is None:
    return {variant.name: rates[variant.like] for variant in others}
  scores: dict[str, dict[str, float]] = {}
  grid = tuple(config.tuning.learning_rates)
  for variant in others:
    members = variants.members(
      variant, variant.sparsities[-1:], (config.tuning.seed,), grid
    )
    starts = [start] * len(members) if variant.like == "pt" else None
    trained = variants.stage(
      f"tune-{variant.name}", variant, members, trainer, place, starts
    )
    problem = variants.problem_of(variant, trainer.problem)
    scores[variant.name] = {
      str(m.learning_rate): value for m, value in _values(trained, problem)
    }
  chosen: Rates = {name: _best(by_rate) for name, by_rate in scores.items()}
  tuned = {"scores": scores, "chosen": chosen}
  files.write_json(place / "tuning_variants.json", tuned)
  return chosen
