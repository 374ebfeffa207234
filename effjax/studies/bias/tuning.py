"""Learning rates, chosen for every arm and variant on validation data."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax import metrics
from effjax.io import files
from effjax.studies.bias import stages, variants
from effjax.studies.bias.arms import Member, Trainer, epochs
from effjax.studies.bias.problems import Problem


def learning_rates(
  trainer: Trainer, place: pathlib.Path, others: Sequence[variants.Variant] = ()
) -> dict[str, float]:
  """Choose the learning rate of every arm and variant by validation AUC.

  Args:
    trainer: What trains them.
    place: Directory of the study.
    others: The variants.

  Returns:
    A rate by the name of the arm or variant; those of the configuration where
    it names none to choose from.

  Raises:
    ValueError: If the seed of the tuning is one of the arms'.
  """
  rates, start = _of_arms(trainer, place)
  return rates | _of_variants(trainer, place, others, rates, start)


def _of_arms(
  trainer: Trainer, place: pathlib.Path
) -> tuple[dict[str, float], Any]:
  """Choose the learning rate of every arm by validation AUC.

  Returns:
    The rates, and the base model that was best, None where nothing is tuned.
  """
  config = trainer.config
  rates = dict(config.training.learning_rates)
  grid = tuple(config.tuning.learning_rates)
  if not grid or not any(config.sparsities):
    return rates, None
  seed, sparsity = config.tuning.seed, config.tuning.sparsity
  if seed in config.seeds:
    raise ValueError(
      f"tuning.seed {seed} is one of the seeds of the arms; choose another"
    )
  member = lambda arm, s, rate: Member(
    arm=arm, sparsity=s, seed=seed, learning_rate=rate
  )
  scores: dict[str, dict[str, float]] = {}

  def stage(arm: str, members: list[Member], **how: Any) -> stages.Stage:
    how["epochs"] = epochs(config, arm)
    trained = stages.run(f"tune-{arm}", members, trainer, place, **how)
    _choose(trained, trainer.problem, scores, rates)
    return trained

  main = [member("dense", 0.0, rate) for rate in grid]
  main += [member("ri", sparsity, rate) for rate in grid]
  stage("main", main)
  base = [member("base", 0.0, rate) for rate in grid]
  started = stage("base", base, keep=True)
  best = started.states[grid.index(rates["base"])]
  pt = [member("pt", sparsity, rate) for rate in grid]
  stage("pt", pt, starts=[best] * len(grid))
  files.write_json(place / "tuning.json", {"scores": scores, "chosen": rates})
  return rates, best


def _choose(
  stage: stages.Stage,
  problem: Problem,
  scores: dict[str, dict[str, float]],
  rates: dict[str, float],
) -> None:
  """Note the mean AUC of every learning rate, and take the best of each arm."""
  labels = problem.labels["validation"]
  for m, logits in zip(stage.members, stage.validation, strict=True):
    value = float(np.nanmean(metrics.auc_exact(logits, labels)))
    scores.setdefault(m.arm, {})[str(m.learning_rate)] = value
  for arm in {m.arm for m in stage.members}:
    rates[arm] = float(max(scores[arm], key=scores[arm].__getitem__))


def _of_variants(
  trainer: Trainer,
  place: pathlib.Path,
  others: Sequence[variants.Variant],
  rates: dict[str, float],
  start: Any,
) -> dict[str, float]:
  """Choose the learning rate of every variant at its highest sparsity."""
  config, scores = trainer.config, {}
  chosen = {variant.name: rates[variant.like] for variant in others}
  if start is None:
    return chosen
  grid = tuple(config.tuning.learning_rates)
  for variant in others:
    members = variants.members(
      variant, variant.sparsities[-1:], (config.tuning.seed,), grid
    )
    starts = [start] * len(members) if variant.like == "pt" else None
    trained = variants.stage(
      f"tune-{variant.name}", variant, members, trainer, place, starts
    )
    _choose(
      trained, variants.problem_of(variant, trainer.problem), scores, chosen
    )
  tuned = {"scores": scores, "chosen": chosen}
  files.write_json(place / "tuning_variants.json", tuned)
  return chosen
