"""The rows that change facts in a model, and their weights in a mix."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.data import sentences, vocabulary
from effjax.data.edit_sets import Sets
from effjax.data.sentences import Prompts
from effjax.data.vocabulary import Vocabulary

MIXES = ("edit_only", "behemoth")
LOSSES = ("answer", "all")


class Rows(NamedTuple):
  """Sentences to train on, each once.

  Attributes:
    tokens: sentences, padded behind, int32 [N, L].
    counted: tokens whose loss counts, given those before them, bool [N, L].
    weights: probability of each row in the mix, float32 [N].
    parts: number of the part that each row is of, in the order of `Sets.train`.
  """

  tokens: np.ndarray
  counted: np.ndarray
  weights: np.ndarray
  parts: np.ndarray


def training_rows(
  sets: Sets,
  words: Vocabulary,
  *,
  mix: str | Mapping[str, float] = "behemoth",
  loss_on: str = "answer",
  forms: Mapping[str, str] | None = None,
  leading_end: bool = True,
  length: int | None = None,
  key: jax.Array | None = None,
) -> Rows:
  """Write the rows of a training mix.

  Args:
    sets: What is trained on.
    words: The vocabulary.
    mix: "edit_only" for the edited facts alone, "behemoth" for all parts in
      proportion to their rows, or the weight of each part.
    loss_on: "answer" counts the tokens behind the prompt, without period and
      end, "all" counts every token but the first.
    forms: Forms of sentences by part; SRO where none is named here or by the
      edit.
    leading_end: Whether an end of text stands before each sentence.
    length: Pad to so many tokens, so that several edits have one shape.
    key: Draws the fillers of forms that have some.

  Returns:
    The rows, of parts that have a weight.

  Raises:
    ValueError: If a part or option is unknown, a part that has a weight is
      empty, or a row is too long.
  """
  if loss_on not in LOSSES:
    raise ValueError(
      f"loss_on must be one of {', '.join(LOSSES)}, got {loss_on!r}"
    )
  masses = _masses(sets, mix)
  chosen = sets.forms | dict(forms or {})
  _known(chosen, [*sets.train, *sets.held_out])
  written = []
  for number, name in enumerate(sets.train):
    if not masses.get(name):
      continue
    facts, form = sets.train[name], chosen.get(name, "sro")
    draw = None if key is None else jax.random.fold_in(key, number)
    tokens, lengths = sentences.render(
      words, facts, form, key=draw, leading_end=leading_end
    )
    place = np.arange(tokens.shape[1])[None]
    first, last = 1, lengths
    if loss_on == "answer":
      asked = sentences.prompts(
        words, facts, form, key=draw, leading_end=leading_end
      )
      first, last = asked.lengths[:, None], asked.lengths + asked.target_lengths
    counted = (place >= first) & (place < last[:, None])
    share = np.full(len(facts), masses[name] / len(facts))
    written.append((tokens, counted, share, np.full(len(facts), number)))
  size = max(part[0].shape[1] for part in written)
  if length is not None and length < size:
    raise ValueError(f"length={length}, but the longest row has {size} tokens")
  weights = np.concatenate([part[2] for part in written])
  widen = lambda i, value: np.concatenate(
    [
      _stack([part[i]], (len(part[i]), length or size), value)[0]
      for part in written
    ]
  )
  return Rows(
    widen(0, vocabulary.PADDING),
    widen(1, False),
    (weights / weights.sum()).astype(np.float32),
    np.concatenate([part[3] for part in written]).astype(np.int32),
  )


def draw_rows(
  key: jax.Array, weights: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """Draw rows of a mix, with replacement.

  Args:
    key: A typed random key.
    weights: Their weights [N], of any sum; rows of weight 0 are never drawn.
    shape: How many, (steps, batch) for example.

  Returns:
    Numbers of rows, int32 of that shape.

  >>> draw_rows(jax.random.key(0), jnp.array([0.0, 2.0]), (2, 2)).tolist()
  [[1, 1], [1, 1]]
  """
  ends = jnp.cumsum(jnp.asarray(weights, jnp.float32))
  total = ends[-1]
  # Rounding must not lead beyond the last row that has a weight.
  chosen = jnp.minimum(
    jax.random.uniform(key, shape) * total, jnp.nextafter(total, 0 * total)
  )
  return jnp.searchsorted(ends, chosen, side="right").astype(jnp.int32)


def evaluation_prompts(
  sets: Sets,
  words: Vocabulary,
  *,
  leading_end: bool = True,
  key: jax.Array | None = None,
) -> dict[str, Prompts]:
  """Ask for every fact that is held out.

  Args:
    sets: The sets.
    words: The vocabulary.
    leading_end: Whether an end of text stands before each prompt, as in the
      rows that a model was trained on.
    key: Draws the fillers of forms that have some.

  Returns:
    Prompts and answers by the name of the set.
  """
  return {
    name: sentences.prompts(
      words,
      facts,
      sets.forms.get(name, "sro"),
      key=None if key is None else jax.random.fold_in(key, number),
      leading_end=leading_end,
    )
    for number, (name, facts) in enumerate(sets.held_out.items())
  }


def stack_rows(edits: Sequence[Rows]) -> Rows:
  """Put the rows of E edits side by side, to train them in one program.

  Args:
    edits: Rows of each.

  Returns:
    Rows with a leading axis E; what is filled up has weight 0 and part -1.
  """
  shape = tuple(max(x.tokens.shape[i] for x in edits) for i in (0, 1))
  stack = lambda field, size, value: _stack(
    [getattr(x, field) for x in edits], size, value
  )
  return Rows(
    stack("tokens", shape, vocabulary.PADDING),
    stack("counted", shape, False),
    stack("weights", shape[:1], 0.0),
    stack("parts", shape[:1], -1),
  )


def stack_prompts(
  edits: Sequence[Mapping[str, Prompts]],
) -> dict[str, tuple[Prompts, np.ndarray]]:
  """Put the prompts of E edits side by side, set by set.

  Args:
    edits: Prompts of each by the name of the set, which have equal names.

  Returns:
    For each set prompts with a leading axis E, and which are there, bool [E,
    M]; what is filled up has lengths of 1.

  Raises:
    ValueError: If the edits have other sets.
  """
  names = list(edits[0])
  for number, sets in enumerate(edits):
    if set(sets) != set(names):
      other = ", ".join(sorted(set(sets) ^ set(names)))
      raise ValueError(
        f"edits 0 and {number} have different sets, which cannot be put side by"
        f" side: {other}"
      )
  stacked = {}
  for name in names:
    own = [sets[name] for sets in edits]
    count = max(len(x.tokens) for x in own)
    filled = []
    for field, value in zip(
      Prompts._fields, (vocabulary.PADDING, 1) * 2, strict=True
    ):
      arrays = [getattr(x, field) for x in own]
      width = [max(x.shape[1] for x in arrays)] if arrays[0].ndim > 1 else []
      filled.append(_stack(arrays, (count, *width), value))
    there = _stack([np.ones(len(x.tokens), bool) for x in own], (count,), False)
    stacked[name] = Prompts(*filled), there
  return stacked


def _stack(arrays: list, shape: tuple[int, ...], value: Any) -> np.ndarray:
  """Stack arrays that are filled up to one shape."""
  found = np.full((len(arrays), *shape), value, arrays[0].dtype)
  for i, array in enumerate(arrays):
    found[(i, *map(slice, array.shape))] = array
  return found


def _masses(sets: Sets, mix: Any) -> dict[str, float]:
  """Return the weight of each part in a mix."""
  edited = next(iter(sets.train))  # "edited" or "censored"
  if mix == "edit_only":
    return {edited: 1.0}
  if mix == "behemoth":
    return {
      name: float(sets.copies[name] * len(facts))
      for name, facts in sets.train.items()
    }
  if isinstance(mix, str):
    raise ValueError(
      f"mix must be one of {', '.join(MIXES)} or weights by part, got {mix!r}"
    )
  _known(mix, list(sets.train))
  masses = {name: float(weight) for name, weight in mix.items()}
  for name, weight in masses.items():
    if not 0 <= weight < np.inf or (weight and not len(sets.train[name])):
      raise ValueError(
        f"the weight of part {name!r}, which has {len(sets.train[name])} rows,"
        f" cannot be {weight}"
      )
  if not any(masses.values()):
    raise ValueError("one part of the mix at least must have a weight above 0")
  return masses


def _known(names: Mapping[str, Any], known: list[str]) -> None:
  for name in names:
    if name not in known:
      raise ValueError(
        f"there is no part {name!r}; the nearest names are"
        f" {', '.join(tree.nearest(name, known, 3))}"
      )
