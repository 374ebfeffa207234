"""Every arm at every learning rate, and beyond them where the last is best."""

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from effjax.io import safetensors
from effjax.studies import learning_rates
from effjax.studies.edit import (
  examiner,
  findings,
  pretraining,
  runs,
  tasks,
)


class Swept(NamedTuple):
  """What came of all runs.

  Attributes:
    rates: learning rates, ascending: those of the configuration, and those that
      some arms were tried at in addition.
    values: what `runs.Runner.all` returns, with a leading axis of models; NaN
      where an arm was not tried at a rate.
  """

  rates: tuple[float, ...]
  values: dict[str, np.ndarray]


def swept(
  runner: runs.Runner,
  models: Sequence[pretraining.Pretrained],
  edited: Sequence[tasks.Tasks],
  place: pathlib.Path,
) -> Swept:
  """Run all arms on all models, or read what they gave before.

  An arm whose best learning rate is the lowest or the highest that it was tried
  at is tried at the next one too, `extensions` times at most.

  Args:
    runner: The runner.
    models: The models.
    edited: Their edits.
    place: What they give is kept in `place / "sweep"`.

  Returns:
    The outcome.
  """
  config, place = runner.config, place / "sweep"
  names = list(config.arms)
  several = list(zip(config.seeds, models, edited, strict=True))
  found = Swept(
    tuple(config.rates),
    _stack([_grid(runner, *one, place) for one in several]),
  )
  for _ in range(config.extensions):
    wanted = _beyond(found, names, edited, config.tuning)
    if not wanted:
      break
    for rate, own in wanted.items():
      added = _stack([_few(runner, *one, place, rate, own) for one in several])
      found = _joined(found, rate, [names.index(name) for name in own], added)
  return found


def summed_up(
  values: Mapping[str, np.ndarray], edited: Sequence[tasks.Tasks]
) -> dict[str, np.ndarray]:
  """Sum sets up to what is compared, see `examiner.summary`.

  Args:
    values: By measure [models, arms, rates, edits, ..., sets].
    edited: The edits of each model.

  Returns:
    By measure [models, arms, rates, edits, ...].
  """
  asked = [own.data.asked for own in edited]
  return examiner.summary(edited[0].names, values, examiner.counts(asked))


def count(values: Mapping[str, np.ndarray]) -> int:
  """Count the runs.

  Args:
    values: Of `Swept`.

  Returns:
    How many there were.
  """
  return int((~np.isnan(values["accuracy"]).all(axis=(-2, -1))).sum())


def _stack(several: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  return {k: np.stack([own[k] for own in several]) for k in several[0]}


def _grid(runner, seed, model, own, place) -> dict[str, np.ndarray]:
  """Run all arms on one model at the rates of the configuration.

  Each learning rate has a file of its own.
  """
  rates = runner.config.rates
  paths = [place / f"seed{seed}_rate{rate:g}.safetensors" for rate in rates]
  missing = [i for i, path in enumerate(paths) if not path.is_file()]
  if missing:
    found = _timed(
      runner, model, own, seed, [rates[i] for i in missing], None, place
    )
    for i, number in enumerate(missing):
      safetensors.write(paths[number], {k: v[:, i] for k, v in found.items()})
  stored = [safetensors.read(path) for path in paths]
  return {k: np.stack([s[k] for s in stored], axis=1) for k in stored[0]}


def _few(runner, seed, model, own, place, rate, names) -> dict[str, np.ndarray]:
  """Run some arms on one model at one more rate; each has a file of its own."""
  path = lambda name: place / f"seed{seed}_rate{rate:g}_{name}.safetensors"
  missing = [name for name in names if not path(name).is_file()]
  if missing:
    found = _timed(runner, model, own, seed, [rate], missing, place)
    for i, name in enumerate(missing):
      safetensors.write(path(name), {k: v[i, 0] for k, v in found.items()})
  return _stack([safetensors.read(path(name)) for name in names])


def _timed(runner, model, own, seed, rates, names, place):
  place.mkdir(parents=True, exist_ok=True)
  started = time.process_time()
  found = runner.all(model.params, own, seed, rates, names)
  spent = time.process_time() - started
  beyond = f" of {', '.join(names)} at {rates[0]:g}" if names else ""
  print(
    f"seed {seed}: {found['failed'].size} runs{beyond}, {spent:.0f} CPU s",
    flush=True,
  )
  return found


def _beyond(
  found: Swept,
  names: Sequence[str],
  edited: Sequence[tasks.Tasks],
  tuning: int,
) -> dict[float, list[str]]:
  """List the rates that arms are to be tried at next."""
  measures = summed_up(found.values, edited)
  edges, there = findings.at_edges(measures, tuning), findings.tried(measures)
  wanted: dict[float, list[str]] = {}
  for a, name in enumerate(names):
    rates = [r for r, yes in zip(found.rates, there[a], strict=True) if yes]
    for side in (-1, 1):
      if len(rates) > 1 and side in edges[a]:
        rate = learning_rates.following(rates, side)
        wanted.setdefault(rate, []).append(name)
  return wanted


def _joined(found: Swept, rate, numbers, added) -> Swept:
  """Add what some arms gave at one more rate."""
  rates = sorted({*found.rates, rate})
  at = rates.index(rate)
  values = {}
  for name, value in found.values.items():
    if rate not in found.rates:
      nothing = False if value.dtype == bool else np.nan
      value = np.insert(value, at, nothing, axis=2)
    value[:, numbers, at] = added[name]
    values[name] = value
  return Swept(tuple(rates), values)
