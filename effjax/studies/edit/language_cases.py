"""One fact after the other: each edited from the base by a method, measured."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from effjax import editing
from effjax.studies import language
from effjax.studies.edit import (
  facts,
  language_edits,
  language_keys,
  language_prompts,
  language_records,
  language_tuning,
)

# How sentences begin and end that have nothing to do with any fact.
UNRELATED = (
  ("Bread is baked from flour,", "water, salt and yeast in a hot oven"),
  ("When it rains for a long time,", "the river rises and the fields flood"),
  ("She opened the window because", "the room was warm and the air was stale"),
  ("To repair a bicycle tire,", "first remove the wheel from the frame"),
  ("The sum of two even numbers", "is always an even number"),
  (
    "In autumn the leaves of many trees",
    "turn yellow and red before they fall",
  ),
)


def known(
  model: language.Language, candidates: Sequence[facts.Fact]
) -> tuple[list[facts.Fact], list[facts.Fact]]:
  """Part facts into those a model knows and others.

  Args:
    model: The model.
    candidates: The facts.

  Returns:
    The facts whose old object is what the model goes on with, and the others.
  """
  texts = language_records.continued(model, candidates, 5)
  found: tuple[list[facts.Fact], list[facts.Fact]] = ([], [])
  for fact, text in zip(candidates, texts, strict=True):
    found[not text.startswith(fact.true)].append(fact)
  return found


class Editor:
  """Edits one fact at a time; what methods share is computed once."""

  def __init__(self, model: language.Language, config: Any):
    """Take a model.

    Args:
      model: The model.
      config: The configuration: `layer`, `rank`, `steps`, `stop`,
        `evaluations`, `seed`.
    """
    self.model, self.config = model, config
    self.layer = language_records.check_layer(model, config.layer, 1)
    self._moments: dict[int, jax.Array] = {}
    self._before: tuple[str, ...] = ()
    self._target: tuple[Any, Any, float] = (None, None, 0.0)
    # Of a base that never changes: by fact, since facts come again.
    self._asked: dict[facts.Fact, dict[str, Any]] = {}
    self._unrelated = self._perplexity(model)

  def case(
    self, fact: facts.Fact, method: str, rate: float | None = None
  ) -> dict[str, Any]:
    """Edit a fact and measure what came of it.

    Args:
      fact: The fact.
      method: One of `language_records.METHODS`.
      rate: Learning rate of a method that trains.

    Returns:
      What was found, plain values; of an edit that diverged or could not be
      made, `failed` alone says why.
    """
    named = {"prompt": fact.prompt, "method": method, "rate": rate}
    if fact not in self._asked:
      self._asked[fact] = self._answers(self.model, fact)
    started = time.monotonic()
    try:
      delta, shared = self._edit(fact, method, rate)
    except ValueError as error:
      return {**named, "failed": str(error)}
    norm = float(editing.norm(delta))
    seconds = time.monotonic() - started + shared
    if not np.isfinite(norm):
      return {**named, "failed": "the change is not finite"}
    # Of many kernels the one that moved most: all of them take long.
    most = max(delta, key=lambda path: float(editing.norm({path: delta[path]})))
    spectrum = editing.spectra({most: delta[most]})[most]
    params, _ = editing.apply(self.model.params, delta)
    edited = self.model._replace(params=params)
    return {
      **named,
      **_judged(self._asked[fact], self._answers(edited, fact)),
      "perplexity": self._perplexity(edited) / self._unrelated,
      "norm": norm,
      "rank": int(spectrum.rank),
      "kernels": len(delta),
      "seconds": seconds,
    }

  def texts(
    self, fact: facts.Fact, method: str, rate: float | None, count: int
  ) -> dict[str, str]:
    """Let the edited model go on with the prompt of a fact.

    Args:
      fact: The fact.
      method: One of `language_records.METHODS`.
      rate: Learning rate of a method that trains.
      count: How many tokens.

    Returns:
      Texts by prompt: of the fact, in other words, of a neighbour.
    """
    delta, _ = self._edit(fact, method, rate)
    params, _ = editing.apply(self.model.params, delta)
    return self.written(fact, count, params)

  def written(
    self, fact: facts.Fact, count: int, params: Any = None
  ) -> dict[str, str]:
    """Let a model go on with what `texts` asks, by default the base."""
    prompts = [fact.prompt, *fact.paraphrases[:1], *fact.neighbours[:1]]
    model = self.model
    if params is not None:
      model = model._replace(params=params)
    wanted = [fact._replace(prompt=prompt) for prompt in prompts]
    found = language_records.continued(model, wanted, count)
    return dict(zip(prompts, found, strict=True))

  def _edit(self, fact, method, rate) -> tuple[language_edits.Delta, float]:
    """Return the delta, and seconds spent on it before, for all methods."""
    config = self.config
    if method in language_tuning.METHODS:
      how = language_tuning.Settings(
        layer=self.layer,
        rank=config.rank,
        steps=config.steps,
        learning_rate=rate,
        stop=config.stop,
        seed=config.seed,
      )
      delta = language_tuning.tune(self.model, method, [fact], how)
      return jax.block_until_ready(delta), 0.0
    how = language_edits.Settings(
      layer=self.layer, evaluations=config.evaluations
    )
    if not self._moments:
      self._moments = language_keys.kept_moments(self.model, [self.layer])
      key = jax.random.key(config.seed)
      self._before = language_keys.beginnings(key, self.model, 3)
    shared = self._target[2]
    if self._target[0] != fact:
      started = time.monotonic()
      target = language_edits.find_target(self.model, fact, self._before, how)
      jax.block_until_ready(target.change)
      self._target = (fact, target, time.monotonic() - started)
      shared = 0.0  # it is in the time of this call
    target = self._target[1]
    delta = language_edits.close(
      self.model, method, [target], self._moments, how
    )
    return jax.block_until_ready(delta), shared

  def _answers(self, model, fact) -> dict[str, Any]:
    asked = language_records.questions([fact])
    pairs = [(q.prompt, q.new) for q in asked]
    pairs += [(q.prompt, q.old) for q in asked]
    # Few shapes, so that few programs are compiled.
    rows = language_prompts.ask(
      model.tokenizer, pairs, questions=16, length=16, width=4
    )
    found = language_prompts.score(model.module, model.params, rows)
    count = len(asked)
    kinds = np.array([q.kind for q in asked])
    new, old = (
      language_prompts.Scores(*(x[i * count : (i + 1) * count] for x in found))
      for i in range(2)
    )
    return {"kinds": kinds, "new": new, "old": old}

  def _perplexity(self, model: language.Language) -> float:
    rows = language_prompts.ask(model.tokenizer, UNRELATED)
    found = language_prompts.score(model.module, model.params, rows)
    return float(np.exp(np.mean(found.nll)))


def _judged(
  before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, float | None]:
  """Compare answers; what there is no prompt for is None."""
  kinds, new, old = after["kinds"], after["new"], after["old"]
  better = new.nll < old.nll
  share = lambda where, hit: float(np.mean(hit[where])) if where.any() else None
  itself, others = kinds == "fact", kinds == "in other words"
  beside = kinds == "neighbour"
  right = beside & (before["old"].rank == 1)
  return {
    "efficacy": share(itself, better),
    "likeliest": share(itself, new.rank == 1),
    "paraphrases": share(others, better),
    "paraphrases_likeliest": share(others, new.rank == 1),
    "neighbours": share(beside, ~better),
    # Of those that were answered rightly before.
    "neighbours_kept": share(right, old.rank == 1),
    "probability": float(new.probability[itself][0]),
    "probability_before": float(before["new"].probability[itself][0]),
  }
