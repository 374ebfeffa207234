"""What is asked of a model before and after an edit, and how answers count."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.data import edit_rows, edits, sentences, worlds
from effjax.data.edit_sets import Sets
from effjax.metrics import recall
from effjax.studies.edit import pretraining

Tree = Any
MEASURES = ("accuracy", "agreement", "kl")


class Asked(NamedTuple):
  """Prompts of all sets, one behind the other, with a leading axis of edits.

  Attributes:
    tokens: prompts, padded behind, int32 [E, M, P].
    lengths: tokens of each [E, M].
    targets: the answers, one token each [E, M].
    sets: number of the set of each; that of no set where it is filled up [E,
      M].
    names: bool [E, sets], only its length counts: how many sets there are.
  """

  tokens: jax.Array
  lengths: jax.Array
  targets: jax.Array
  sets: jax.Array
  names: jax.Array


def ask(
  about: pretraining.Subject, made: Sequence[Sets], most: int
) -> tuple[tuple[str, ...], Asked]:
  """Write the prompts of several edits side by side.

  In a nested world the sets "stay" and "follow" ask for the nested object of
  edited subjects, where the old and the new one differ.

  Args:
    about: The world and the model.
    made: The sets of each edit, of equal names.
    most: Facts of a set that are asked for, the first ones.

  Returns:
    The names of the sets, and the prompts.
  """
  prompts = []
  for sets in made:
    chosen = {k: v[:most] for k, v in sets.held_out.items()}
    chosen |= _propagated(about.world, sets)
    prompts.append(
      {
        name: sentences.prompts(
          about.words,
          facts,
          _up_to_object(sets.forms.get(name, "sro")),
          leading_end=True,
        )
        for name, facts in chosen.items()
      }
    )
  stacked = edit_rows.stack_prompts(prompts)
  names = tuple(stacked)
  width = max(found.tokens.shape[2] for found, _ in stacked.values())
  columns: dict[str, list] = {k: [] for k in Asked._fields[:4]}
  for number, (found, there) in enumerate(stacked.values()):
    short = width - found.tokens.shape[2]
    columns["tokens"].append(np.pad(found.tokens, ((0, 0), (0, 0), (0, short))))
    columns["lengths"].append(found.lengths)
    columns["targets"].append(found.targets[..., 0])
    columns["sets"].append(np.where(there, number, len(names)))
  joined = {k: np.concatenate(v, axis=1) for k, v in columns.items()}
  return names, Asked(
    **{k: jnp.asarray(v.astype(np.int32)) for k, v in joined.items()},
    names=jnp.ones((len(made), len(names)), bool),
  )


def _up_to_object(form: str) -> str:
  """Put what precedes the object of an answer into the prompt."""
  pattern = sentences.pattern_of(form)
  before, _, behind = pattern.partition("|")
  *given, last = behind.split() or [""]
  return " ".join([before, *given, "| o"]) if last == "o" else form


def _propagated(world: worlds.World, sets: Sets) -> dict[str, np.ndarray]:
  """List nested facts of edited subjects whose value an edit should change."""
  edit: edits.Edit = sets.edit
  if world.nest is None or edit.family != "S-O":
    return {}
  nest = worlds.nest_of(world)[edit.relation]
  old, new = nest[edit.old[:, 3]], nest[edit.new[:, 3]]
  differs = old != new
  found = {}
  for name, value in (("stay", old), ("follow", new)):
    facts = edit.old.copy()
    facts[:, 0], facts[:, 3] = worlds.FAMILIES.index("S-NO"), value
    found[name] = facts[differs]
  return found


def logits(module: Any, params: Tree, asked: Asked) -> jax.Array:
  """Answer the prompts of one edit.

  Args:
    module: The model.
    params: Its parameters.
    asked: Prompts, without the axis of edits.

  Returns:
    Logits [M, V].
  """
  places = asked.lengths[:, None] - 1
  return pretraining.at_places(module, params, asked.tokens, places)[:, 0]


def measure(
  now: jax.Array, before: jax.Array, asked: Asked
) -> dict[str, jax.Array]:
  """Average over the prompts of each set.

  Args:
    now: Logits after [M, V].
    before: Logits before [M, V].
    asked: Prompts, without the axis of edits.

  Returns:
    By measure float32 [sets], NaN for a set without prompts.
  """
  right = (jnp.argmax(now, axis=1) == asked.targets).astype(now.dtype)
  p, q = jax.nn.log_softmax(before), jax.nn.log_softmax(now)
  each = {
    "accuracy": right,
    "agreement": recall.agreement(now, before),
    "kl": jnp.sum(jnp.where(p > -1e4, jnp.exp(p) * (p - q), 0.0), axis=1),
  }
  count = asked.names.shape[0]
  mean = lambda x: recall.by_relation(x, asked.sets, count).mean
  return {name: mean(x) for name, x in each.items()}


@functools.partial(jax.jit, static_argnames="module")
def examine(
  module: Any, before: Tree, after: Tree, asked: Asked
) -> dict[str, jax.Array]:
  """Measure a model after an edit.

  Args:
    module: The model.
    before: Parameters before.
    after: Parameters after.
    asked: Prompts, without the axis of edits.

  Returns:
    See `measure`.
  """
  return measure(
    logits(module, after, asked), logits(module, before, asked), asked
  )


def counts(many: Sequence[Asked]) -> np.ndarray:
  """Count the prompts of each set.

  Args:
    many: Prompts of the edits of each model.

  Returns:
    Whole numbers [models, edits, sets].
  """
  numbers = [np.asarray(asked.sets) for asked in many]
  size = many[0].names.shape[1]
  return np.stack(
    [(own[..., None] == np.arange(size)).sum(axis=1) for own in numbers]
  )


def summary(
  names: Sequence[str], measured: Mapping[str, Any], count: np.ndarray
) -> dict[str, np.ndarray]:
  """Sum sets up to what is compared.

  Args:
    names: The sets.
    measured: By measure [models, arms, rates, edits, ..., sets].
    count: Prompts of each set, see `counts`.

  Returns:
    `efficacy`, `preservation`, the mean over sets that should stay, and
    `preservation_min`; `locality`, the share of all their prompts that are
    answered as before; `old_recall`; `generalization`, the mean over forms of
    paraphrases; `score`, the harmonic mean of efficacy and preservation;
    `harmonic_egl` and `harmonic_el`, that of efficacy, generalization, which
    the second leaves out, and locality, each [...] and NaN where it is not
    measured; and the accuracy of every set as `set/NAME`.
  """
  accuracy = np.asarray(measured["accuracy"], np.float64)
  agreed = np.asarray(measured["agreement"], np.float64)
  of = {name: accuracy[..., i] for i, name in enumerate(names)}
  stays = metrics.preservation({n: of[n] for n in metrics.PRESERVED if n in of})
  kept = [i for i, n in enumerate(names) if n in metrics.PRESERVED]
  nothing = np.full(accuracy.shape[:-1], np.nan)
  weights = _beside(count, agreed.ndim)[..., kept]
  weights = np.where(np.isnan(agreed[..., kept]), 0, weights)
  agreements = np.where(weights > 0, agreed[..., kept] * weights, 0).sum(-1)
  e, p = of["edited"], np.asarray(stays.mean, np.float64)
  with np.errstate(invalid="ignore", divide="ignore"):
    score = np.where(e * p > 0, 2 * e * p / (e + p), 0.0)
    local = agreements / weights.sum(axis=-1)
  others = [of[name] for name in names if name.startswith("paraphrase")]
  g = np.mean(others, axis=0) if others else nothing
  harmonic = lambda *terms: np.asarray(
    metrics.harmonic_mean(np.stack(terms, -1))
  )
  return {
    "efficacy": e,
    "preservation": p,
    "preservation_min": np.asarray(stays.minimum, np.float64),
    "locality": local,
    "old_recall": of.get("old", nothing),
    "generalization": g,
    "score": np.where(np.isnan(e) | np.isnan(p), np.nan, score),
    "harmonic_egl": harmonic(e, g, local),
    "harmonic_el": harmonic(e, local),
  } | {f"set/{name}": value for name, value in of.items()}


def _beside(count: np.ndarray, axes: int) -> np.ndarray:
  """Give counts [models, edits, sets] the axes of measures beside them."""
  models, edits, sets = count.shape
  return count.reshape(models, 1, 1, edits, *(1,) * (axes - 5), sets)
