"""The study of personalization, from mails to report; read it from the top.

What is trained of a language model learns the mails of a person, by every arm
as often. Learning rates are tuned on mails of the first person that are held
out of those to learn from. All points are on disk once they are done.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

from effjax.studies import learning_rates
from effjax.studies.personalize import arms, findings, page, points
from effjax.studies.personalize.points import Point
from effjax.studies.personalize.runner import Runner
from effjax.studies.results import publish
from effjax.training import workdir as workdirs

_BEYOND = 2  # learning rates behind a grid


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/personalize`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: If the configuration asks for something that does not exist.
    FileNotFoundError: If the mails or the weights are not on this machine.
  """
  place = pathlib.Path(workdir)
  chosen = [arms.find(name) for name in config.arms]
  workdirs.start(place, config)
  runner = Runner(config, place)
  rates, tried = tune_rates(runner, chosen)
  done = main_points(runner, chosen, rates)
  feature = runner.examiner.feature
  results = {
    "study": "personalize",
    "title": config.title,
    "model": config.model,
    "feature": feature,
    "persons": list(config.data.persons),
    "seeds": list(config.seeds),
    "epochs": config.epochs,
    "tried": tried,
    **summed_up(chosen, done, feature),
    "cross": crossed(runner, rates, feature),
    "panels": panels(runner, rates, feature),
    "privacy": exposed(runner, rates),
    "mails": recognized(runner),
    "shown": shown(runner, chosen, done),
    "cores": os.cpu_count(),
    "data": described(runner),
    "environment": json.loads((place / "environment.json").read_text()),
  }
  return publish(place, results, page, config)


def tune_rates(
  runner: Runner, chosen: list[arms.Arm]
) -> tuple[dict[str, float], dict[str, list]]:
  """Find the learning rate of what is trained, on the first person.

  Where the best is the lowest or the highest that was tried, the next one is
  tried too, twice at most.

  Args:
    runner: The runner.
    chosen: The arms.

  Returns:
    The rates by what is trained, and the losses of those that were tried.
  """
  config = runner.config
  kinds = [arm.trained for arm in chosen if arm.trained]
  if config.privacy.candidates:
    kinds += config.privacy.arms
  kinds += [*config.cross, *[config.panels.arm] * any_panel(config)]
  rates, tried = {}, {}
  for kind in dict.fromkeys(kinds):
    grid = config.rates[kind]
    rates[kind], tried[kind] = grid[0], []
    if len(grid) == 1:
      continue
    losses = {rate: _validated(runner, kind, rate) for rate in grid}
    for _ in range(_BEYOND):
      known, best = sorted(losses), min(losses, key=losses.__getitem__)
      if best not in (known[0], known[-1]):
        break
      rate = learning_rates.following(known, 1 if best == known[-1] else -1)
      losses[rate] = _validated(runner, kind, rate)
    tried[kind] = [{"rate": r, "loss": losses[r]} for r in sorted(losses)]
    rates[kind] = min(losses, key=losses.__getitem__)
  return rates, tried


def _validated(runner: Runner, kind: str, rate: float) -> float:
  """Return the loss on mails of the first person that were held out."""
  config = runner.config
  point = points.of_arm(
    config,
    config.data.persons[0],
    arms.find(kind),
    {kind: rate},
    config.seeds[0],
  )
  point = dataclasses.replace(point, validation=True)
  return runner.examine(point)["validation"]["loss"]


def main_points(
  runner: Runner, chosen: list[arms.Arm], rates: dict[str, float]
) -> dict[str, dict]:
  """Train and examine every arm for every person and seed.

  Args:
    runner: The runner.
    chosen: The arms.
    rates: The learning rates.

  Returns:
    By arm, person and seed `facts` and `measures`.
  """
  config = runner.config
  afterwards = config.retrieval.afterwards
  done: dict[str, dict] = {arm.name: {} for arm in chosen}
  for person in config.data.persons:
    for seed in config.seeds:
      made = {
        arm.name: points.of_arm(config, person, arm, rates, seed)
        for arm in chosen
      }
      for point in dict.fromkeys(made.values()):
        own = [arm for arm in chosen if made[arm.name] == point]
        asked = [(person, afterwards * arm.rag) for arm in own]
        if point.trained in config.cross and not point.raft:
          asked += crossing(config, point)
        found = runner.examine(point, list(dict.fromkeys(asked)))
        for arm in own:
          measures = found[f"{person}_retrieve{afterwards * arm.rag}"]
          value = {"facts": found["facts"], "measures": measures}
          done[arm.name].setdefault(person, {})[seed] = value
  return done


def crossing(config: Any, point: Point) -> list[tuple[str, int]]:
  """List the examinations of a point for the matrix of persons."""
  if point.seed != config.seeds[0]:
    return []
  return [(person, 0) for person in config.data.persons]


def summed_up(
  chosen: list[arms.Arm], done: dict[str, dict], feature: str
) -> dict[str, Any]:
  """Sum arms up, and compare them.

  Args:
    chosen: The arms.
    done: What was found of them.
    feature: The source of the features of MAUVE.

  Returns:
    `table`, `differences` and `runs`.
  """
  measured = {
    name: {
      person: {seed: each["measures"] for seed, each in own.items()}
      for person, own in found.items()
    }
    for name, found in done.items()
  }
  table = [
    findings.row(
      arm,
      measured[arm.name],
      [e["facts"] for own in done[arm.name].values() for e in own.values()],
      feature,
    )
    for arm in chosen
  ]
  pairs = [(arm.name, "pretrained") for arm in chosen if arm.trained]
  pairs += [
    ("pretrained_rag", "pretrained"),
    ("rosa", "lora"),
    ("dora", "lora"),
    ("full", "lora"),
    ("rosa", "full"),
    ("lora_raft", "lora"),
    ("rosa_raft", "rosa"),
    ("lora_rag", "lora"),
    ("rosa_rag", "rosa"),
    ("lora_raft_rag", "lora_rag"),
    ("rosa_raft_rag", "rosa_rag"),
  ]
  differences = [
    {
      "arm": one,
      "than": two,
      **findings.difference(measured[one], measured[two], feature),
    }
    for one, two in pairs
    if one in measured and two in measured
  ]
  runs = [
    {
      "arm": name,
      "person": person,
      "seed": seed,
      "facts": each["facts"],
      **{
        k: v
        for k, v in each["measures"].items()
        if k not in ("scores", "texts", "seeds")
      },
    }
    for name, found in done.items()
    for person, own in found.items()
    for seed, each in own.items()
  ]
  return {"table": table, "differences": differences, "runs": runs}


def crossed(
  runner: Runner, rates: dict[str, float], feature: str
) -> dict[str, Any]:
  """Examine what has learned from each person by the mails of all others."""
  config = runner.config
  names, seed = config.data.persons, config.seeds[0]
  found = {}
  for kind in config.cross if len(names) > 1 else ():
    matrix = {}
    for person in names:
      arm = arms.find(kind)
      point = points.of_arm(config, person, arm, rates, seed)
      own = runner.examine(point, crossing(config, point))
      matrix[person] = {other: own[f"{other}_retrieve0"] for other in names}
    found[kind] = findings.cross(matrix, feature)
  return found


def any_panel(config: Any) -> bool:
  """Say whether anything is varied."""
  chosen = config.panels
  return any((chosen.sizes, chosen.ranks, chosen.densities, chosen.bases))


def panels(
  runner: Runner, rates: dict[str, float], feature: str
) -> dict[str, Any]:
  """Vary the number of mails, rank, density and base, for the first person.

  Args:
    runner: The runner.
    rates: The learning rates.
    feature: The source of the features of MAUVE.

  Returns:
    `person`, `arm`, `seed`, and rows for each of `sizes`, `ranks`, `densities`
    and `bases`.
  """
  config, chosen = runner.config, runner.config.panels
  if not any_panel(config):
    return {}
  person, seed = config.data.persons[0], config.seeds[0]
  arm = arms.find(chosen.arm)
  point = points.of_arm(config, person, arm, rates, seed)
  change = dataclasses.replace
  total = len(runner.letters[person].train)

  def beside(field: str, values: Any) -> list:
    """Put what the arm has anyway beside the other values."""
    return sorted({getattr(point, field), *values}) if values else []

  sizes = {}
  if chosen.sizes:
    sizes[0] = Point(person=person, seed=seed)
    for size in chosen.sizes:
      if size < total:
        # Few mails are learned from as often as it takes to learn as much.
        epochs = round(config.epochs * total / size, 2)
        sizes[size] = change(point, size=size, epochs=epochs)
    sizes[total] = point
  varied = {
    "sizes": sizes,
    "ranks": {r: change(point, rank=r) for r in beside("rank", chosen.ranks)},
    "densities": {
      d: change(point, density=d) for d in beside("density", chosen.densities)
    },
    "bases": {b: change(point, base=b) for b in beside("base", chosen.bases)},
  }
  found: dict[str, Any] = {"person": person, "arm": arm.title, "seed": seed}
  for name, own in varied.items():
    outcomes = {}
    for value, each in own.items():
      made = runner.examine(each, [(person, 0)])
      measures = made[f"{person}_retrieve0"]
      outcomes[value] = {"facts": made["facts"], "measures": measures}
    found[name] = findings.panel(outcomes, feature)
  return found


def exposed(runner: Runner, rates: dict[str, float]) -> dict[str, Any]:
  """Plant secrets in the mails of the first person, and look for them."""
  config, chosen = runner.config, runner.config.privacy
  if not chosen.candidates:
    return {}
  person, seed = config.data.persons[0], config.seeds[0]
  rows = []
  for name in ("pretrained", *chosen.arms):
    arm = arms.find(name)
    point = points.of_arm(config, person, arm, rates, seed)
    found = runner.examine(dataclasses.replace(point, planted=True))
    rows.append({"arm": name, "title": arm.title, **found["exposure"]})
  return {"person": person, "seed": seed, "rows": rows}


def recognized(runner: Runner) -> dict[str, Any]:
  """Say whom the mails to be judged by are given to: how far one can get."""
  judge = runner.examiner.recognizer
  if judge is None:
    return {}
  return {
    name: judge.recognize([mail.text for mail in own.test], name)
    for name, own in runner.letters.items()
  }


def shown(
  runner: Runner, chosen: list[arms.Arm], done: dict[str, dict]
) -> list[dict[str, Any]]:
  """Gather drafts of the first seed side by side, if they may be shown."""
  config = runner.config
  if not config.data.show_texts:
    return []
  rows = []
  for person, own in runner.letters.items():
    for place, mail in enumerate(own.test[: config.drafts.shown]):
      drafts = {}
      for arm in chosen:
        measures = done[arm.name][person][config.seeds[0]]["measures"]
        drafts[arm.title] = measures["texts"][place]
      rows.append(
        {
          "person": person,
          "instruction": own.instructions[mail.id],
          "mail": mail.text,
          "drafts": drafts,
        }
      )
  return rows


def described(runner: Runner) -> dict[str, Any]:
  """Describe the mails in numbers."""
  chosen = runner.config.data
  people = {}
  for name, own in runner.letters.items():
    index = own.index
    people[name] = {
      "mails": runner.people[name].found,
      "train": len(own.train),
      "test": len(own.test),
      "words": sum(len(m.text.split()) for m in own.train) / len(own.train),
      "instructions": runner.instructions[name],
      "threshold": None if index is None else index.threshold,
      "recall": None if own.tuned is None else own.tuned.recall,
      "false_hits": None if own.tuned is None else own.tuned.false_hits,
    }
  return {
    "name": chosen.kind,
    "people": people,
    "order": chosen.order,
    "share": chosen.share,
    "shown": chosen.show_texts,
  }
