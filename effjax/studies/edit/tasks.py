"""The edits of a study: what each changes, is trained on and measured with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.data import edit_rows, edit_sets, edits
from effjax.studies.edit import examiner, pretraining, sweep


class Tasks(NamedTuple):
  """Edits side by side.

  Attributes:
    made: the sets of each edit.
    names: the evaluation sets.
    data: what the sweep takes.
  """

  made: list[edit_sets.Sets]
  names: tuple[str, ...]
  data: sweep.Data


def make(
  key: jax.Array, about: pretraining.Subject, config: Any, count: int
) -> Tasks:
  """Draw edits.

  Args:
    key: A typed random key; edit number i depends on it and on i alone.
    about: The world and the model.
    config: The configuration: `edit`, options of `edits.make_edit`; `mixes`,
      `steps`, `batch`, `most` facts of an evaluation set, `paraphrases`.
    count: How many edits E.

  Returns:
    The edits. Their draws are the same for all arms.
  """
  made, rows = [], []
  for number in range(count):
    own = jax.random.fold_in(key, number)
    edit = edits.make_edit(
      jax.random.fold_in(own, 0), about.world, **dict(config.edit)
    )
    sets = edit_sets.make_sets(
      jax.random.fold_in(own, 1),
      about.world,
      edit,
      paraphrases=tuple(config.paraphrases),
      disjoint=True,
    )
    made.append(sets)
    rows.append(edit_rows.training_rows(sets, about.words))
  names, asked = examiner.ask(about, made, config.most)
  stacked = edit_rows.stack_rows(rows)
  places, targets, counted = counted_places(stacked.tokens, stacked.counted)
  shape = config.steps, config.batch
  drawn = []
  for mix, name in enumerate(config.mixes):
    weights = _weights(stacked, name)
    drawn.append(
      [
        edit_rows.draw_rows(
          jax.random.fold_in(jax.random.fold_in(key, number), 2 + mix),
          jnp.asarray(weights[number]),
          shape,
        )
        for number in range(count)
      ]
    )
  data = sweep.Data(
    # What comes after the last token that counts is never seen.
    tokens=jnp.asarray(stacked.tokens[..., : places.max() + 1]),
    places=jnp.asarray(places),
    targets=jnp.asarray(targets),
    counted=jnp.asarray(counted),
    drawn=jnp.stack([jnp.stack(own) for own in drawn]),
    asked=asked,
  )
  return Tasks(made, names, data)


def _weights(stacked: edit_rows.Rows, mix: str) -> np.ndarray:
  """Weigh the rows of all parts as a mix does."""
  if mix not in edit_rows.MIXES:
    raise ValueError(
      f"mix must be one of {', '.join(edit_rows.MIXES)}, got {mix!r}"
    )
  if mix == "behemoth":
    return stacked.weights
  return np.where(stacked.parts == 0, stacked.weights, 0.0)


def counted_places(
  tokens: np.ndarray, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Find where losses count.

  Args:
    tokens: Rows [..., L].
    counted: Which tokens count, given those before them, bool [..., L].

  Returns:
    Places before these tokens, the tokens, and which of them there are, each
    [..., K].
  """
  most = int(counted.sum(axis=-1).max())
  # Places that count stand first, in their order.
  order = np.argsort(~counted, axis=-1, kind="stable")[..., :most]
  there = np.take_along_axis(counted, order, axis=-1)
  targets = np.take_along_axis(tokens, order, axis=-1)
  places = np.where(there, order - 1, 0)
  return places.astype(np.int32), targets.astype(np.int32), there


def aligned(many: Sequence[Tasks]) -> list[Tasks]:
  """Fill the edits of several models up to one shape, to share programs.

  Args:
    many: The edits of each model, of equal evaluation sets.

  Returns:
    The same edits. What is filled up is never drawn, and belongs to no set.
  """
  trees = [own.data._replace(drawn=None) for own in many]
  leaves = [jax.tree.leaves(own) for own in trees]
  shapes = [
    np.max([x.shape for x in own], axis=0) for own in zip(*leaves, strict=True)
  ]
  nowhere = len(many[0].names)

  def fill(own):
    sized = jax.tree.unflatten(jax.tree.structure(own), shapes)
    pad = lambda x, shape, value=0: jnp.pad(
      x,
      [(0, int(m - n)) for m, n in zip(shape, x.shape, strict=True)],
      constant_values=value,
    )
    filled = jax.tree.map(pad, own, sized)
    asked = filled.asked._replace(
      sets=pad(own.asked.sets, sized.asked.sets, nowhere),
      lengths=pad(own.asked.lengths, sized.asked.lengths, 1),
    )
    return filled._replace(asked=asked)

  return [
    own._replace(data=fill(data)._replace(drawn=own.data.drawn))
    for own, data in zip(many, trees, strict=True)
  ]
