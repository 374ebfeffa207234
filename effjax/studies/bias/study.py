"""The bias study from data to report; it reads from top to bottom.

Stages, each a population that trains in one program and resumes by itself:

  tune   learning rates of every arm, judged on validation data (optional)
  base   dense models of fewer epochs, where post-training pruning starts
  main   dense models and models pruned from random initialisation
  pt     post-training pruning of the base models

Every stage leaves its logits in `predictions.npz`; measures, verdicts, figures
and the report are made of those.
"""

import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax import metrics, models
from effjax.io import files
from effjax.studies.bias import claims, measures, page, stages
from effjax.studies.bias.arms import Member, Trainer
from effjax.studies.bias.problems import Problem, load
from effjax.training import workdir as workdirs


class _Clock:
  """Wall and CPU seconds of a study, summed over interruptions.

  What a killed run spent since its last stage is lost to it.
  """

  def __init__(self, place: pathlib.Path):
    self.path = place / "seconds.json"
    try:
      self.before = json.loads(self.path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
      self.before = {"wall": 0.0, "cpu": 0.0}
    self.start = {"wall": time.monotonic(), "cpu": time.process_time()}

  def spent(self) -> dict[str, float]:
    """Return the seconds until now."""
    now = {"wall": time.monotonic(), "cpu": time.process_time()}
    return {k: self.before[k] + now[k] - self.start[k] for k in now}

  def save(self) -> None:
    """Write them down."""
    files.write_json(self.path, self.spent())


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/bias/fashion.py`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: If the configuration asks for something that does not exist.
    FileNotFoundError: If the data is not on this machine.
  """
  place = pathlib.Path(workdir)
  workdirs.start(place, config)
  clock = _Clock(place)
  problem = load(config.data)
  module = models.build(
    config.model.name,
    outputs=len(problem.attributes),
    **config.model.options,
  )
  trainer = Trainer(problem, module, config)
  rates = _learning_rates(trainer, place)
  clock.save()
  main = _main_members(config, rates)
  parts = [stages.run("main", main, trainer, place, epochs=_epochs(config))]
  clock.save()
  if any(config.sparsities):
    parts += _base_and_pt(trainer, place, rates)
    clock.save()
  outcomes = _measure(parts, problem)
  results = _results(trainer, outcomes, parts, rates, clock, place)
  files.write_json(place / "results.json", _without_nan(results))
  report = page.build(place, config, problem, outcomes, parts, results)
  print(f"report: {report}", flush=True)
  return results


def _without_nan(content: Any) -> Any:
  """Write what is undefined as null: JSON has no NaN."""
  if isinstance(content, dict):
    return {key: _without_nan(value) for key, value in content.items()}
  if isinstance(content, list | tuple):
    return [_without_nan(value) for value in content]
  undefined = isinstance(content, float) and not math.isfinite(content)
  return None if undefined else content


def _main_members(config: Any, rates: dict[str, float]) -> list[Member]:
  dense = [
    Member(arm="dense", sparsity=0.0, seed=s, learning_rate=rates["dense"])
    for s in config.seeds
  ]
  return dense + [
    Member(arm="ri", sparsity=p, seed=s, learning_rate=rates["ri"])
    for p in config.sparsities
    for s in config.seeds
  ]


def _base_and_pt(
  trainer: Trainer, place: pathlib.Path, rates: dict[str, float]
) -> list[stages.Stage]:
  """Train base models, then prune them to every sparsity.

  Every seed starts from a base model of its own, or all of them from one with
  the seed `training.base_seed`, where that is given.
  """
  config = trainer.config
  single = config.training.get("base_seed")
  seeds = config.seeds if single is None else (single,)
  base = stages.run(
    "base",
    [
      Member(arm="base", sparsity=0.0, seed=s, learning_rate=rates["base"])
      for s in seeds
    ],
    trainer,
    place,
    epochs=_epochs(config, "base"),
    keep=True,
  )
  starts = dict(zip(seeds, base.states, strict=True))
  members = [
    Member(arm="pt", sparsity=p, seed=s, learning_rate=rates["pt"])
    for p in config.sparsities
    for s in config.seeds
  ]
  pt = stages.run(
    "pt",
    members,
    trainer,
    place,
    epochs=_epochs(config, "pt"),
    starts=[starts[m.seed if single is None else single] for m in members],
  )
  return [base, pt]


def _epochs(config: Any, arm: str = "dense") -> int:
  """How long an arm trains; base and pt share the epochs unless told."""
  whole, pt = config.training.epochs, config.training.epochs_pt
  base = config.training.get("epochs_base")
  if base is None:
    if not 0 < pt < whole:
      raise ValueError(
        f"training.epochs_pt must lie between 0 and training.epochs, {whole},"
        f" not {pt}; or set training.epochs_base"
      )
    base = whole - pt
  return {"pt": pt, "base": base}.get(arm, whole)


def _learning_rates(trainer: Trainer, place: pathlib.Path) -> dict[str, float]:
  """Choose the learning rate of every arm by validation AUC."""
  config = trainer.config
  rates = dict(config.training.learning_rates)
  grid = tuple(config.tuning.learning_rates)
  if not grid or not any(config.sparsities):
    return rates
  seed, sparsity = config.tuning.seed, config.tuning.sparsity
  if seed in config.seeds:
    raise ValueError(
      f"tuning.seed {seed} is one of the seeds of the arms; choose another"
    )
  member = lambda arm, s, rate: Member(
    arm=arm, sparsity=s, seed=seed, learning_rate=rate
  )
  scores: dict[str, dict[str, float]] = {}

  def choose(stage: stages.Stage) -> None:
    labels = trainer.problem.labels["validation"]
    for m, logits in zip(stage.members, stage.validation, strict=True):
      value = float(np.nanmean(metrics.auc_exact(logits, labels)))
      scores.setdefault(m.arm, {})[str(m.learning_rate)] = value
    for arm in {m.arm for m in stage.members}:
      rates[arm] = float(max(scores[arm], key=scores[arm].__getitem__))

  def stage(arm: str, members: list[Member], **how: Any) -> stages.Stage:
    how["epochs"] = _epochs(config, arm)
    trained = stages.run(f"tune-{arm}", members, trainer, place, **how)
    choose(trained)
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
  return rates


def _measure(
  parts: Sequence[stages.Stage], problem: Problem
) -> measures.Outcomes:
  measure = measures.make_measure(problem)
  members, values = [], []
  for part in parts:
    members += part.members
    for validation, test in zip(part.validation, part.test, strict=True):
      values.append(measure(validation, test))
  return measures.Outcomes(members, values)


def _results(
  trainer: Trainer,
  outcomes: measures.Outcomes,
  parts: Sequence[stages.Stage],
  rates: dict[str, float],
  clock: "_Clock",
  place: pathlib.Path,
) -> dict[str, Any]:
  """Gather what the report and other programs need."""
  config, problem = trainer.config, trainer.problem
  achieved = [value for part in parts for value in part.achieved]
  runs = [
    {
      **dataclasses.asdict(member),
      "achieved_sparsity": reached,
      "mean": measures.mean(values),
      "by_attribute": {k: v.tolist() for k, v in values.items()},
    }
    for member, values, reached in zip(
      outcomes.members, outcomes.values, achieved, strict=True
    )
  ]
  arms = ("ri", "pt") if any(config.sparsities) else ()
  return {
    "study": "bias",
    "title": config.title,
    "attributes": list(problem.attributes),
    "groups": list(problem.groups),
    "marked": problem.marked,
    "sizes": {k: len(v) for k, v in problem.labels.items()},
    "positive_rates": problem.labels["test"].mean(0).tolist(),
    "parameters": trainer.parameters,
    "seeds": list(config.seeds),
    "learning_rates": rates,
    "epochs": {
      arm: _epochs(config, arm) for arm in ("dense", "base", "ri", "pt")
    },
    "table": measures.table(outcomes, ("dense", *arms)),
    "verdicts": [
      dataclasses.asdict(verdict)
      for arm in arms
      for verdict in claims.judge(outcomes, arm)
    ],
    "runs": runs,
    "data": problem.provenance,
    "environment": json.loads((place / "environment.json").read_text()),
    "cores": os.cpu_count(),
    "seconds": clock.spent(),
  }
