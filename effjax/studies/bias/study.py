"""The bias study from data to report; it reads from top to bottom.

Stages, each a population that trains in one program and resumes by itself:

  tune   learning rates of every arm, judged on validation data (optional)
  base   dense models of fewer epochs, where post-training pruning starts
  main   dense models and models pruned from random initialisation
  pt     post-training pruning of the base models
  ...    variants of ri and pt, a stage for each (optional)

Every stage leaves its logits in `predictions.npz`; measures, verdicts, figures
and the report are made of those.
"""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from effjax import models
from effjax.io import files
from effjax.studies.bias import (
  checks,
  claims,
  findings,
  measures,
  page,
  problems,
  stages,
  tuning,
  variants,
)
from effjax.studies.bias.arms import Member, Trainer, epochs
from effjax.studies.bias.problems import Problem
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
  checks.check(config)
  workdirs.start(place, config)
  clock = _Clock(place)
  problem = problems.load(config.data)
  module = models.build(
    config.model.name,
    outputs=len(problem.attributes),
    **config.model.options,
  )
  trainer = Trainer(problem, module, config)
  others = variants.read(config, problem)
  print(trainer.describe(), flush=True)
  rates = tuning.learning_rates(trainer, place, others)
  clock.save()
  main = _main_members(config, rates)
  parts = [stages.run("main", main, trainer, place, epochs=epochs(config))]
  clock.save()
  if any(config.sparsities):
    parts += _base_and_pt(trainer, place, rates)
    clock.save()
  for variant in others:
    parts.append(_variant(variant, trainer, place, rates, parts))
    clock.save()
  outcomes = _measure(parts, problem)
  found = findings.gather(config, problem, outcomes, parts, others)
  results = _results(trainer, outcomes, parts, found, rates, clock, place)
  files.write_json(place / "results.json", files.without_nan(results))
  report = page.build(place, config, problem, outcomes, parts, results)
  print(f"report: {report}", flush=True)
  return results


def _main_members(config: Any, rates: tuning.Rates) -> list[Member]:
  dense = [_member("dense", 0.0, s, rates) for s in config.seeds]
  return dense + [
    _member("ri", p, s, rates) for p in config.sparsities for s in config.seeds
  ]


def _member(
  arm: str, sparsity: float, seed: int, rates: tuning.Rates
) -> Member:
  return Member(
    arm=arm,
    sparsity=sparsity,
    seed=seed,
    learning_rate=tuning.rate_at(rates, arm, sparsity),
  )


def _base_and_pt(
  trainer: Trainer, place: pathlib.Path, rates: tuning.Rates
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
    [_member("base", 0.0, s, rates) for s in seeds],
    trainer,
    place,
    epochs=epochs(config, "base"),
    keep=True,
  )
  starts = dict(zip(seeds, base.states, strict=True))
  members = [
    _member("pt", p, s, rates) for p in config.sparsities for s in config.seeds
  ]
  pt = stages.run(
    "pt",
    members,
    trainer,
    place,
    epochs=epochs(config, "pt"),
    starts=[starts[m.seed if single is None else single] for m in members],
  )
  return [base, pt]


def _variant(
  variant: variants.Variant,
  trainer: Trainer,
  place: pathlib.Path,
  rates: tuning.Rates,
  parts: Sequence[stages.Stage],
) -> stages.Stage:
  """Train a variant, from the base models if it is like post-training."""
  config, starts = trainer.config, None
  members = variants.members(
    variant,
    variant.sparsities,
    config.seeds,
    (tuning.rate_at(rates, variant.name, max(variant.sparsities)),),
  )
  if variant.like == "pt":
    base = next(part for part in parts if part.members[0].arm == "base")
    seeds = {m.seed: s for m, s in zip(base.members, base.states, strict=True)}
    single = config.training.get("base_seed")
    starts = [seeds[m.seed if single is None else single] for m in members]
  return variants.stage(variant.name, variant, members, trainer, place, starts)


def _measure(
  parts: Sequence[stages.Stage], problem: Problem
) -> measures.Outcomes:
  everything = measures.make_measure(problem)
  members, values = [], []
  for part in parts:
    measure = everything
    if part.attributes:
      some = problems.restrict(problem, part.attributes)
      measure = measures.make_measure(some)
    members += part.members
    for validation, test in zip(part.validation, part.test, strict=True):
      values.append(measure(validation, test))
  return measures.Outcomes(members, values)


def _names_of_variants(outcomes: measures.Outcomes) -> list[str]:
  return list(dict.fromkeys(m.arm for m in outcomes.members if m.like))


def _results(
  trainer: Trainer,
  outcomes: measures.Outcomes,
  parts: Sequence[stages.Stage],
  found: dict[str, Any],
  rates: tuning.Rates,
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
      arm: epochs(config, arm) for arm in ("dense", "base", "ri", "pt")
    },
    "table": measures.table(outcomes, ("dense", *arms)),
    "variants": measures.table(outcomes, _names_of_variants(outcomes)),
    **found,
    "verdicts": [
      dataclasses.asdict(verdict)
      for arm in arms
      for verdict in claims.judge(outcomes, arm)
    ]
    + found["verdicts"],
    "runs": runs,
    "data": problem.provenance,
    "environment": json.loads((place / "environment.json").read_text()),
    "cores": os.cpu_count(),
    "seconds": clock.spent(),
  }
