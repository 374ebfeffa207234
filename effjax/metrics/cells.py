"""Counts of cells: all that the state of many metrics depends on.

Such a state is a linear function of counts of a few cells per attribute, say
(label, decision). What a row carries for all its attributes together, its
groups, is its kind; the counts [A, P, K] are those of P kinds and K cells.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Cells(NamedTuple):
  """How the state of a metric follows from counts of cells.

  Attributes:
    size: K, the number of cells of an attribute.
    index: `(**batch) -> (kinds, cells [N, A] int32)`: what tells the kinds of
      rows apart, a tree of [N, C] bool or integers, and the cell of each row
      and attribute, in [0, K).
    state: `(counts [A, P, K] int32, kinds, sums) -> state` of the rows counted,
      `kinds` being a tree of [P, C]. A kind may occur more than once.
    values: `(**batch) -> [N, A]` float32, or None. In place of the single
      values, `sums` [A, P, K] holds count times mean of each cell.
    exact: Whether the state of a batch's own counts has the value of the batch.
      Otherwise a bootstrap moves the value of its resamples by the difference.
  """

  size: int
  index: Callable[..., Any]
  state: Callable[..., Any]
  values: Callable[..., Any] | None = None
  exact: bool = True


def of_columns(
  number: int, columns: Callable[..., Any], state: Callable[..., Any]
) -> Cells:
  """Makes cells that are the combinations of binary columns.

  Args:
    number: How many columns.
    columns: `(**batch) -> (groups, columns)`: [N, G] bool or None, and the
      given number of [N, A] bool.
    state: `(counts [A, P, K], groups [P, G], *columns [K] bool) -> state`; see
      `total` for the sums that it needs.

  Returns:
    Exact `Cells`.
  """
  bits = np.arange(2**number) >> np.arange(number)[::-1, None]

  def index(**batch):
    groups, parts = columns(**batch)
    cells = jnp.zeros(parts[0].shape, jnp.int32)
    for part in parts:
      cells = 2 * cells + part.astype(jnp.int32)
    return () if groups is None else groups, cells

  def from_counts(counts, groups, sums):
    del sums
    return state(counts, groups, *(bits % 2 == 1))

  return Cells(2**number, index, from_counts)


def of_bins(
  bins: int,
  place: Callable[..., Any],
  state: Callable[..., Any],
  *,
  values: Callable[..., Any] | None = None,
  exact: bool = True,
) -> Cells:
  """Makes cells that are the bins of a histogram for each label.

  Args:
    bins: B, the number of bins.
    place: `(**batch) -> (bins [N, A] int32, labels [N, A], invalid [N, A])`,
      where `invalid` rows belong to no bin.
    state: `(counts [A, 2, B], sums [A, 2, B] or None, invalid [A]) -> state`,
      first of the negatives, then of the positives.
    values: As in `Cells`; 0 where invalid.
    exact: As in `Cells`.

  Returns:
    `Cells` without kinds.
  """

  def index(**batch):
    cells, labels, invalid = place(**batch)
    cells = cells + jnp.where(labels, bins, 0)
    return (), jnp.where(invalid, 2 * bins, cells)

  def from_counts(counts, kinds, sums):
    del kinds

    def by_label(x):
      return jnp.sum(x, axis=1)[:, :-1].reshape(len(x), 2, bins)

    return state(
      by_label(counts),
      None if sums is None else by_label(sums),
      jnp.sum(counts[..., -1], axis=1),
    )

  return Cells(2 * bins + 1, index, from_counts, values, exact)


def invalid(logits: Any, like: Array) -> Array:
  """Returns where logits are NaN; nowhere if they are None."""
  return jnp.zeros(like.shape, bool) if logits is None else jnp.isnan(logits)


def total(counts: Array, groups: Any, chosen: Any) -> Array:
  """Sums the counts of the chosen cells, inside each group or in all.

  Args:
    counts: [A, P, K] int32.
    groups: [P, G] bool, or () for all rows.
    chosen: [K] bool, static.

  Returns:
    [G, A] or [A], int32.
  """
  inside = jnp.sum(counts[..., np.flatnonzero(chosen)], axis=-1)
  if isinstance(groups, tuple):
    return jnp.sum(inside, axis=-1)
  # A product of integers is exact whatever the matrix unit is.
  return jnp.matmul(groups.astype(jnp.int32).T, inside.T)


@functools.lru_cache(maxsize=64)
def join(*parts: Cells) -> Cells | None:
  """Returns the cells of several metrics on the same rows.

  Args:
    *parts: The cells of each.

  Returns:
    `Cells` whose `index` takes one batch (a dict) for each part, whose `state`
    is the tuple of their states; None if a part needs values.
  """
  if any(part.values is not None for part in parts):
    return None
  sizes = [part.size for part in parts]

  def index(*batches):
    kinds, cells = [], 0
    for part, batch in zip(parts, batches, strict=True):
      kind, cell = part.index(**batch)
      kinds.append(kind)
      cells = cells * part.size + cell
    return tuple(kinds), cells

  def state(counts, kinds, sums):
    del sums
    counts = counts.reshape(*counts.shape[:2], *sizes)
    axes = range(2, 2 + len(parts))
    return tuple(
      part.state(jnp.sum(counts, axis=[j for j in axes if j != i]), kind, None)
      for i, part, kind in zip(axes, parts, kinds, strict=True)
    )

  exact = all(part.exact for part in parts)
  return Cells(math.prod(sizes), index, state, None, exact)
