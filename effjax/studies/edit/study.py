"""The study of edits from worlds to report; it reads from top to bottom.

Models learn a world; then facts are changed in each of them by every arm, at
every learning rate, in every mix. What is chosen is chosen on other edits than
those that are reported.
"""

import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from effjax.data import worlds
from effjax.io import safetensors
from effjax.studies.edit import (
  arms,
  closed_forms,
  closed_forms_page,
  findings,
  grid,
  interplay,
  interplay_page,
  nesting,
  page,
  pretraining,
  relearning,
  runs,
  tasks,
)
from effjax.studies.results import publish
from effjax.training import workdir as workdirs


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/edit`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: If the configuration asks for something that does not exist, or
      a model does not know its world.
  """
  place = pathlib.Path(workdir)
  workdirs.start(place, config)
  started, worked = time.monotonic(), time.process_time()
  given = outline(config)
  _check_stages(config)
  forms = closed_forms.forms(config.closed_forms, config.model.layers)
  about, models, edited = learned(config, place)
  runner = runs.Runner(about, config)
  rates, values = grid.swept(runner, models, edited, place)
  names = edited[0].names
  measures = grid.summed_up(values, edited)
  closed = (
    grid.summed_up(
      _closed(about, config, models, edited, place / "closed_forms"), edited
    )
    if forms
    else {}
  )
  # By arm and mix.
  chosen = np.asarray(rates)[findings.chosen_rates(measures, config.tuning)]
  taught = _taught(runner, models, edited, chosen, place / "relearning")
  compressed = _compressed(
    about, config, models, edited, chosen, place / "interplay"
  )
  results = {
    **given,
    "rates": list(rates),
    "density": about.density,
    "block_parameters": about.module.config.block_parameters,
    "pretrained": [model.report for model in models],
    **_found(config, measures),
    "closed_forms": closed_forms_page.table(config, forms, closed, measures),
    "relearning": relearning.table(config, taught) if taught else [],
    "interplay": interplay_page.table(
      config, names, pretraining.families(about.world), compressed
    ),
    "failed": int(values["failed"].sum()),
    "count": grid.count(values),
    "programs": runner.sweep.compiled,
    "seconds": {
      "wall": time.monotonic() - started,
      "cpu": time.process_time() - worked,
    },
    "cores": os.cpu_count(),
    "data": _described(about, edited),
    "environment": json.loads((place / "environment.json").read_text()),
  }
  return publish(place, results, page, config)


def _found(config: Any, measures: dict[str, np.ndarray]) -> dict[str, Any]:
  names, mixes, tuning = list(config.arms), config.mixes, config.tuning
  return {
    "table": findings.table(names, mixes, measures, tuning),
    "matched": findings.matched(names, mixes, measures, tuning),
    "claims": findings.claims(names, mixes, measures, tuning),
    "side_effects": findings.side_effects(mixes, measures, tuning),
    "nested": nesting.table(names, mixes, measures, tuning),
  }


def outline(config: Any) -> dict[str, Any]:
  """Say what a study was to do.

  Args:
    config: See `configs/edit`.

  Returns:
    The first entries of `results.json`.

  Raises:
    ValueError: If an arm does not exist.
  """
  return {
    "study": config.study,
    "title": config.title,
    "seeds": list(config.seeds),
    "mixes": list(config.mixes),
    "rates": list(config.rates),
    "grid": list(config.rates),
    "arms": [{"name": n, "title": arms.find(n).title} for n in config.arms],
    "tuning": config.tuning,
    "reported": config.reported,
    "facts_edited": config.edit.count,
    "steps": config.steps,
  }


def learned(
  config: Any, place: pathlib.Path
) -> tuple[
  pretraining.Subject, list[pretraining.Pretrained], list[tasks.Tasks]
]:
  """Have models learn a world, and draw the edits of each.

  Args:
    config: See `configs/edit`.
    place: Where the models are kept.

  Returns:
    The world, the models by seed, and their edits, aligned.

  Raises:
    ValueError: If a model does not know its world.
  """
  about = pretraining.subject(config)
  models = [
    pretraining.pretrain(about, config, seed, place / "pretrained")
    for seed in config.seeds
  ]
  count = config.tuning + config.reported
  edited = [
    tasks.make(jax.random.key(1000 + seed), about, config, count)
    for seed in config.seeds
  ]
  return about, models, tasks.aligned(edited)


def _check_stages(config: Any) -> None:
  """Refuse options of the last stages before the first one begins."""
  interplay.levels(config.interplay)
  for stage in ("interplay", "relearning"):
    absent = [n for n in config[stage].arms if n not in config.arms]
    if absent:
      raise ValueError(
        f"{stage}.arms holds {absent[0]!r}, which is not among the arms of the"
        " study, so that no learning rate is chosen for it"
      )


def _closed(
  about: pretraining.Subject,
  config: Any,
  models: list[pretraining.Pretrained],
  edited: list[tasks.Tasks],
  place: pathlib.Path,
) -> dict[str, np.ndarray]:
  """Edit every model by closed forms."""
  make = lambda seed, base, own: closed_forms.run(about, config, base, own)
  return _each(config.seeds, models, edited, place, "closed forms", make)


def _taught(
  runner: runs.Runner,
  models: list[pretraining.Pretrained],
  edited: list[tasks.Tasks],
  chosen: np.ndarray,
  place: pathlib.Path,
) -> dict[str, np.ndarray]:
  """Teach old facts to edited models, if any arm is asked for."""
  config = runner.config
  if not config.relearning.arms:
    return {}
  stage = relearning.Relearning(runner)
  rates = chosen[[list(config.arms).index(n) for n in config.relearning.arms]]
  make = lambda seed, base, own: stage(base, own, seed, rates)
  return _each(config.seeds, models, edited, place, "taught again", make)


def _compressed(
  about: pretraining.Subject,
  config: Any,
  models: list[pretraining.Pretrained],
  edited: list[tasks.Tasks],
  chosen: np.ndarray,
  place: pathlib.Path,
) -> dict[str, np.ndarray]:
  """Compress and edit every model."""
  rates = chosen[[list(config.arms).index(n) for n in config.interplay.arms]]
  programs = interplay.Interplay(about, config)
  make = lambda seed, base, own: programs(base, own, seed, rates, place)
  told = "compressed and edited"
  return _each(config.seeds, models, edited, place, told, make)


def _each(
  seeds: Sequence[int],
  models: list[pretraining.Pretrained],
  edited: list[tasks.Tasks],
  place: pathlib.Path,
  told: str,
  make: Callable[[int, Any, tasks.Tasks], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  """Do something with every model, or read what that gave before."""
  found = []
  for seed, model, own in zip(seeds, models, edited, strict=True):
    path = place / f"seed{seed}.safetensors"
    if not path.is_file():
      place.mkdir(parents=True, exist_ok=True)
      started = time.process_time()
      safetensors.write(path, make(seed, model.params, own))
      spent = time.process_time() - started
      print(f"seed {seed}: {told}, {spent:.0f} CPU s", flush=True)
    found.append(safetensors.read(path))
  return {k: np.stack([own[k] for own in found]) for k in found[0]}


def _described(
  about: pretraining.Subject, edited: list[tasks.Tasks]
) -> dict[str, Any]:
  """Say how large the world and the evaluation sets are."""
  world, first = about.world, edited[0]
  asked = np.asarray(first.data.asked.sets)
  return {
    "name": "synthetic world",
    "subjects": world.subjects,
    "relations": world.relations,
    "objects": world.objects,
    "nested_objects": world.nested_objects,
    "facts": {
      family: len(worlds.facts(world, family))
      for family in pretraining.families(world)
    },
    "vocabulary": about.words.size,
    "sets": {
      name: float((asked == i).sum(axis=1).mean())
      for i, name in enumerate(first.names)
    },
    "notes": sorted({note for sets in first.made for note in sets.notes}),
  }
