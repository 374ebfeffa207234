"""Trains and examines the points of the study; what is done is read."""

import functools
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from effjax import adapters
from effjax.data import batches
from effjax.io import files
from effjax.models import bert, sampling
from effjax.studies import language
from effjax.studies.adapters import finetuning, plans
from effjax.studies.personalize import (
  examiner,
  letters,
  people,
  privacy,
  scoring,
  tuning,
)
from effjax.studies.personalize.points import BASES, Point


class Runner:
  """Trains and examines points; each leaves files that are read the next time.

  Attributes:
    config: The configuration.
    people: The persons by name.
    letters: Their letters.
    instructions: How their instructions came about, by name.
  """

  def __init__(self, config: Any, place: pathlib.Path):
    """Load the model, find the persons and what asks for their mails.

    Args:
      config: The configuration.
      place: The directory of the study.
    """
    self.config, self.place = config, place
    self.people = {each.name: each for each in people.find(config.data)}
    if config.base not in BASES:
      raise ValueError(
        f"base must be one of {', '.join(BASES)}, got {config.base!r}"
      )
    model = language.load(config.model, directory=config.directory or None)
    self.model, self.encode = model, None
    if config.encoder:
      encoder = language.load_encoder(directory=config.directory or None)
      self.encode = functools.partial(bert.encode, *encoder)
    made = {
      name: people.instructed(person, config, model, place / "private")
      for name, person in self.people.items()
    }
    self.instructions = {name: counts for name, (_, counts) in made.items()}
    self._said = {name: said for name, (said, _) in made.items()}
    self.letters = {
      name: self._letters(name, None, None) for name in self.people
    }
    self.tuner = finetuning.Tuner(model.module, model.params, [])
    self._bases: dict[str, Any] = {}
    chosen = config.drafts
    self.examiner = examiner.Examiner(
      model,
      encode=self.encode,
      recognizer=self._recognizer(),
      max_tokens=chosen.max_tokens,
      batch=chosen.batch,
      length=config.length,
      sampled=sampling.Sampling(
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
      ),
      mauve_seeds=config.mauve_seeds,
    )

  def examine(
    self, point: Point, asked: Sequence[tuple[str, int]] = ()
  ) -> dict[str, Any]:
    """Train a point, unless that is done, and examine it.

    Args:
      point: The point.
      asked: Pairs of a person, by whose test part it is examined, and the most
        earlier mails in a prompt; none for a point of validation or with
        canaries, which has an examination of its own.

    Returns:
      `facts` of the training, and by `TESTED_retrieveK` what was found;
      "validation" or "exposure" of such points.
    """
    place = self.place / "points" / point.name
    paths = {
      f"{tested}_retrieve{count}": (tested, count) for tested, count in asked
    }
    if point.validation:
      paths = {"validation": ("", 0)}
    elif point.planted:
      paths = {"exposure": ("", 0)}
    found = {name: _read(place / f"{name}.json") for name in paths}
    facts = _read(place / "facts.json")
    if facts is None or any(value is None for value in found.values()):
      place.mkdir(parents=True, exist_ok=True)
      own, canaries = self._of_point(point)
      params, facts = self._train(point, own, place, facts)
      for name, (tested, count) in paths.items():
        if found[name] is None:
          if point.validation:
            value = self._validation(params, own)
          elif canaries is not None:
            value = privacy.examine(self.model, params, own, canaries)
          else:
            value = self._examination(point, params, own, tested, count)
          files.write_json(place / f"{name}.json", value)
          found[name] = value
          print(f"{point.name}, {name}: {_brief(value)}", flush=True)
    # What is left of a run is large, and nothing will ask for it again.
    shutil.rmtree(place / "run", ignore_errors=True)
    return {"facts": facts, **found}

  def _train(
    self,
    point: Point,
    own: letters.Letters,
    place: pathlib.Path,
    facts: dict[str, Any] | None,
  ) -> tuple[Any, dict[str, Any]]:
    """Return the parameters of a point, and facts of its training."""
    base = self._base(point.base)
    if point.trained is None:
      facts = {"arm": None, "trained": 0, "mails": len(own.train)}
      files.write_json(place / "facts.json", facts)
      return base, facts
    trained = tuning.tune(
      self.tuner.on([], base),
      own,
      self.model.tokenizer,
      point.recipe(self.config),
      place / "run",
      checkpoint_every=self.config.checkpoint_every,
    )
    if facts is None:
      facts = trained.facts
      files.write_json(place / "facts.json", facts)
    return jax.jit(trained.tuned.chosen.arm.merge)(
      trained.tuned.trained, trained.tuned.frozen
    ), facts

  def _examination(
    self,
    point: Point,
    params: Any,
    own: letters.Letters,
    tested: str,
    count: int,
  ) -> dict[str, Any]:
    """Examine parameters by the mails of a person."""
    # A person's earlier mails are those that were learned from.
    judged = own if tested == point.person else self.letters[tested]
    most = min(len(each.test) for each in self.letters.values())
    found = self.examiner.examine(
      params,
      judged,
      seed=point.seed,
      retrieve=count,
      learned=[mail.text for mail in own.train],
      # Whoever's mails are asked for, one writes as whom one has learned.
      author=point.person,
      buckets=max(2, round(most / 10)),
    )
    measures = dict(found.measures)
    if self.config.data.show_texts:
      measures["texts"] = found.texts[: self.config.drafts.shown]
    return measures

  def _validation(self, params: Any, own: letters.Letters) -> dict[str, Any]:
    held = letters.held_out(
      own, self.model.tokenizer, length=self.config.length
    )
    loss = self.examiner.loss(params, held.examples)
    return {"loss": loss, "mails": len(held.examples)}

  def _of_point(
    self, point: Point
  ) -> tuple[letters.Letters, privacy.Canaries | None]:
    """Return the letters that a point learns from and is judged by."""
    train = self.people[point.person].split.train
    # Nested subsets: the same order for all sizes.
    order = batches.generator(self.config.data.seed, 7).permutation(len(train))
    test = None
    if point.validation:
      count = max(round(self.config.validation * len(train)), 1)
      test = [train[i] for i in np.sort(order[:count])]
      train = [train[i] for i in np.sort(order[count:])]
    elif point.size:
      train = [train[i] for i in np.sort(order[: point.size])]
    elif not point.planted:
      return self.letters[point.person], None
    own = self._letters(point.person, train, test)
    if not point.planted:
      return own, None
    chosen = self.config.privacy
    return privacy.plant(
      jax.random.key(self.config.data.seed),
      own,
      repeats=chosen.repeats,
      candidates=chosen.candidates,
    )

  def _letters(self, name: str, train: Any, test: Any) -> letters.Letters:
    return people.letters_of(
      self.people[name],
      self._said[name],
      self.config,
      self.encode,
      train,
      test,
    )

  def _base(self, kind: str) -> Any:
    """Return the weights of the model, rounded to what a base would keep."""
    if kind == "float32":
      return self.model.params
    if kind not in self._bases:
      params = self.model.params
      few = adapters.quantize(params, kind, where=plans.KERNELS)
      self._bases[kind] = adapters.dequantize(few)
    return self._bases[kind]

  def _recognizer(self) -> scoring.Recognizer | None:
    if len(self.people) < 2:
      return None
    return scoring.Recognizer(
      {
        name: [mail.text for mail in person.split.train]
        for name, person in self.people.items()
      },
      [person.signature for person in self.people.values() if person.signature],
    )


def _brief(value: dict[str, Any]) -> str:
  """Say in a few words what was found."""
  shown = ("loss", "bleu", "rouge_l", "copied", "exposure")
  parts = []
  for name in shown:
    if name in value:
      numbers = np.atleast_1d(np.asarray(value[name], float))
      parts.append(f"{name} {' '.join(f'{x:.3f}' for x in numbers)}")
  return ", ".join(parts)


def _read(path: pathlib.Path) -> dict[str, Any] | None:
  """Read what was found before, if that is complete."""
  try:
    return json.loads(path.read_text("utf-8"))
  except (FileNotFoundError, ValueError):
    return None
