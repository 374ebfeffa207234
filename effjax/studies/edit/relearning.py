"""Is the old value gone? Edited models are taught it again.

One recipe, the same for all, teaches the old facts to every edited model and
the new ones, which it has never seen, to the model before the edit. Where the
old ones come back much sooner, the edit has only hidden them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.data import edit_rows
from effjax.studies.edit import (
  arms,
  intervals,
  pretraining,
  runs,
  sweep,
  tasks,
  updates,
)

Tree = Any
LESSONS = ("old", "edited")  # sets of facts; the second has the new values
_RECIPE = arms.find("full")


class Relearning:
  """The programs of this stage; each is compiled once for all arms."""

  def __init__(self, runner: runs.Runner):
    """Take what edits.

    Args:
      runner: It; `relearning` of its configuration has the `arms`, and the
        `rate` and number of `steps` of the recipe.
    """
    self.runner, self.config = runner, runner.config
    self.options = self.config.relearning
    self._lessons = sweep.Sweep(runner.about.module, every=1)

  def __call__(
    self, base: Tree, own: tasks.Tasks, seed: int, rates: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Edit one model by every arm and teach it the old facts again.

    Args:
      base: Parameters of the model.
      own: Its edits; those for tuning are left out.
      seed: Of initial factors.
      rates: Learning rates of the arms of this stage [arms, mixes].

    Returns:
      `old`, recall of the old facts after each step of the recipe [arms,
      mixes, edits, steps]; `fresh`, of the new facts, by the model before the
      edit [edits, steps]; `edited`, recall of the new facts after the edit
      [arms, mixes, edits].
    """
    edits = range(self.config.tuning, len(own.made))
    numbers = [own.names.index(name) for name in LESSONS]
    data = lessons(self.runner.about, own, self.options.steps)
    shape = len(self.options.arms), len(self.config.mixes), len(edits)
    found = {
      "old": np.empty((*shape, self.options.steps)),
      "edited": np.empty(shape),
    }
    for a, name in enumerate(self.options.arms):
      wanted = [
        runs.Wanted(name, rates[a, mix], edit, mix)
        for mix in range(shape[1])
        for edit in edits
      ]
      method = arms.find(name).method
      made = self.runner.made(wanted, base, own, seed)
      outcome = self.runner.run(method, base, own, made, keep=True)
      models = self.runner.sweep.models(method, base, made, outcome.theta)
      last = outcome.history["accuracy"][:, -1, numbers[1]]
      found["edited"][a] = last.reshape(shape[1:])
      each = [
        jax.tree.map(lambda x, i=i: np.asarray(x[i]), models)
        for i in range(len(made))
      ]
      taught = self._teach(base, each, data, [w.edit for w in wanted], 0)
      recalled = taught[:, :, numbers[0]]
      found["old"][a] = recalled.reshape(*shape[1:], -1)
    start = jax.tree.map(np.asarray, base)
    taught = self._teach(base, [start] * len(edits), data, edits, 1)
    return found | {"fresh": taught[:, :, numbers[1]]}

  def _teach(self, base, models, data, edits, lesson) -> np.ndarray:
    """Train models on a lesson each; [models, steps, sets]."""
    made = [
      updates.make_run(
        _RECIPE,
        base,
        rate=self.options.rate,
        edit=edit,
        mix=lesson,
        theta=model,
        train=arms.trainable(_RECIPE, base),
      )
      for model, edit in zip(models, edits, strict=True)
    ]
    chunk = self.config.chunk
    outcome = self._lessons("full", base, data, made, chunk=chunk)
    return outcome.history["accuracy"]


def lessons(
  about: pretraining.Subject, own: tasks.Tasks, steps: int
) -> sweep.Data:
  """Write what is taught: in place of mixes, the facts before and after.

  Args:
    about: The world and the model.
    own: The edits.
    steps: How many steps.

  Returns:
    What a sweep takes. Every step sees all facts of a lesson.
  """
  rows = [
    _joined(
      [
        edit_rows.training_rows(
          dataclasses.replace(made, train={first: facts}),
          about.words,
          mix="edit_only",
        )
        for first in [next(iter(made.train))]
        for facts in (made.edit.old, made.edit.new)
      ]
    )
    for made in own.made
  ]
  stacked = edit_rows.stack_rows(rows)
  most = max(len(made.edit.old) for made in own.made)
  drawn = [
    [
      np.resize(np.flatnonzero(parts == lesson), most)
      for parts in stacked.parts
    ]
    for lesson in range(len(LESSONS))
  ]
  places, targets, counted = tasks.counted_places(
    stacked.tokens, stacked.counted
  )
  repeated = np.repeat(np.array(drawn, np.int32)[:, :, None], steps, axis=2)
  return sweep.Data(
    tokens=jnp.asarray(stacked.tokens[..., : places.max() + 1]),
    places=jnp.asarray(places),
    targets=jnp.asarray(targets),
    counted=jnp.asarray(counted),
    drawn=jnp.asarray(repeated),
    asked=_only(own),
  )


def _joined(lessons_of_edit: Sequence[edit_rows.Rows]) -> edit_rows.Rows:
  """Put lessons of one edit below each other, numbered as parts."""
  numbered = [
    rows._replace(parts=np.full_like(rows.parts, number))
    for number, rows in enumerate(lessons_of_edit)
  ]
  return edit_rows.Rows(
    *(np.concatenate(parts) for parts in zip(*numbered, strict=True))
  )


def _only(own: tasks.Tasks) -> Any:
  """Leave out the prompts of all sets but those of the lessons."""
  asked = own.data.asked
  numbers = [own.names.index(name) for name in LESSONS]
  there = np.isin(np.asarray(asked.sets), numbers).any(axis=0)
  cut = {k: getattr(asked, k)[:, there] for k in asked._fields[:4]}
  return asked._replace(**cut)


def table(
  config: Any, values: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
  """Sum up how soon old facts come back.

  Args:
    config: The configuration.
    values: What `Relearning` gives, with a leading axis of models.

  Returns:
    Rows by mix and arm: `steps` until the old facts are back, `fresh_steps`
    until new ones are learned, and their `ratio`, each with Student's
    interval over models; `edits`, how many had held and so count, and `never`,
    in how many of them the old facts did not come back.
  """
  steps = np.arange(1, config.relearning.steps + 1)
  rows = []
  for m, mix in enumerate(config.mixes):
    for a, name in enumerate(config.relearning.arms):
      found = metrics.relearning(steps, values["old"][:, a, m], values["fresh"])
      held = values["edited"][:, a, m] >= 1
      kept = lambda x, held=held: np.where(held, np.asarray(x), np.nan)
      ratio = kept(found.ratio)
      rows.append(
        {
          "mix": mix,
          "arm": name,
          "steps": intervals.over_models(kept(found.steps)),
          "fresh_steps": intervals.over_models(kept(found.fresh_steps)),
          "ratio": intervals.over_models(ratio),
          "edits": int(held.sum()),
          "never": int((held & np.isnan(np.asarray(found.steps))).sum()),
        }
      )
  return rows
