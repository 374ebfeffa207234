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
import zipfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from effjax import metrics, models, pruning, training, tree
from effjax.io import files
from effjax.studies.bias import claims, measures, page
from effjax.studies.bias.arms import Member, predict, train
from effjax.studies.bias.problems import Problem, load
from effjax.training import mesh as meshes
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


@dataclasses.dataclass(frozen=True)
class _Stage:
  """A trained population with its logits."""

  members: list[Member]
  states: list[training.TrainState]
  validation: np.ndarray
  test: np.ndarray
  achieved: list[float]


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
  rates = _learning_rates(problem, module, config, place)
  clock.save()
  arguments = problem, module, config, place
  parts = [_stage("main", _main_members(config, rates), *arguments)]
  clock.save()
  if any(config.sparsities):
    base = _stage("base", _base_members(config, rates), *arguments)
    parts += [base, _pt(base, *arguments, rates)]
    clock.save()
  outcomes = _measure(parts, problem)
  results = _results(config, problem, outcomes, parts, rates, clock, place)
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


def _base_members(config: Any, rates: dict[str, float]) -> list[Member]:
  return [
    Member(arm="base", sparsity=0.0, seed=s, learning_rate=rates["base"])
    for s in config.seeds
  ]


def _pt(
  base: _Stage,
  problem: Problem,
  module: Any,
  config: Any,
  place: pathlib.Path,
  rates: dict[str, float],
) -> _Stage:
  """Prune every base model to every sparsity."""
  starts = dict(zip(config.seeds, base.states, strict=True))
  members = [
    Member(arm="pt", sparsity=p, seed=s, learning_rate=rates["pt"])
    for p in config.sparsities
    for s in config.seeds
  ]
  return _stage(
    "pt",
    members,
    problem,
    module,
    config,
    place,
    starts=[starts[m.seed] for m in members],
  )


def _epochs(name: str, config: Any) -> int:
  pt = config.training.epochs_pt
  if not 0 < pt < config.training.epochs:
    raise ValueError(
      f"training.epochs_pt must lie between 0 and training.epochs,"
      f" {config.training.epochs}, not {pt}"
    )
  return {"pt": pt, "base": config.training.epochs - pt}.get(
    name, config.training.epochs
  )


def _stage(
  name: str,
  members: Sequence[Member],
  problem: Problem,
  module: Any,
  config: Any,
  place: pathlib.Path,
  *,
  starts: Sequence[Any] | None = None,
) -> _Stage:
  """Train the members of a stage, or load them, and predict."""
  here = place / name
  axes = config.mesh
  states = train(
    members,
    problem,
    module,
    config,
    epochs=_epochs(name.rpartition("-")[2], config),
    workdir=here,
    name=name,
    starts=starts,
    mesh=meshes.from_config(axes) if axes and len(members) == 1 else None,
  )
  logits = _logits(here / "predictions.npz", states, problem, module, config)
  masks = [optax.tree.get(state.opt_state, "mask") for state in states]
  achieved = [float(pruning.sparsity(mask)) for mask in masks]
  return _Stage(list(members), states, *logits, achieved)


def _logits(
  path: pathlib.Path,
  states: Sequence[training.TrainState],
  problem: Problem,
  module: Any,
  config: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Read the logits of a stage, or compute and save them."""
  try:
    with np.load(path) as saved:
      return saved["validation"], saved["test"]
  except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
    pass
  validation, test = (
    predict(states, problem, module, config, split)
    for split in ("validation", "test")
  )
  with files.explained("save the predictions", path):
    temporary = path.with_name("predictions.tmp.npz")
    np.savez(temporary, validation=validation, test=test)
    temporary.replace(path)
  return validation, test


def _learning_rates(
  problem: Problem, module: Any, config: Any, place: pathlib.Path
) -> dict[str, float]:
  """Choose the learning rate of every arm by validation AUC."""
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

  def choose(stage: _Stage) -> None:
    labels = problem.labels["validation"]
    for m, logits in zip(stage.members, stage.validation, strict=True):
      value = float(np.nanmean(metrics.auc_exact(logits, labels)))
      scores.setdefault(m.arm, {})[str(m.learning_rate)] = value
    for arm in {m.arm for m in stage.members}:
      rates[arm] = float(max(scores[arm], key=scores[arm].__getitem__))

  arguments = problem, module, config, place
  main = [member("dense", 0.0, rate) for rate in grid]
  main += [member("ri", sparsity, rate) for rate in grid]
  choose(_stage("tune-main", main, *arguments))
  base = [member("base", 0.0, rate) for rate in grid]
  started = _stage("tune-base", base, *arguments)
  choose(started)
  best = started.states[grid.index(rates["base"])]
  pt = [member("pt", sparsity, rate) for rate in grid]
  choose(_stage("tune-pt", pt, *arguments, starts=[best] * len(grid)))
  files.write_json(place / "tuning.json", {"scores": scores, "chosen": rates})
  return rates


def _measure(parts: Sequence[_Stage], problem: Problem) -> measures.Outcomes:
  measure = measures.make_measure(problem)
  members, values = [], []
  for part in parts:
    members += part.members
    for validation, test in zip(part.validation, part.test, strict=True):
      values.append(measure(validation, test))
  return measures.Outcomes(members, values)


def _results(
  config: Any,
  problem: Problem,
  outcomes: measures.Outcomes,
  parts: Sequence[_Stage],
  rates: dict[str, float],
  clock: "_Clock",
  place: pathlib.Path,
) -> dict[str, Any]:
  """Gather what the report and other programs need."""
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
  weights = {
    name: leaf.size
    for name, leaf in zip(
      jax.tree.leaves(tree.names(parts[0].states[0].params)),
      jax.tree.leaves(parts[0].states[0].params),
      strict=True,
    )
  }
  return {
    "study": "bias",
    "title": config.title,
    "attributes": list(problem.attributes),
    "groups": list(problem.groups),
    "marked": problem.marked,
    "sizes": {k: len(v) for k, v in problem.labels.items()},
    "positive_rates": problem.labels["test"].mean(0).tolist(),
    "parameters": sum(weights.values()),
    "seeds": list(config.seeds),
    "learning_rates": rates,
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
