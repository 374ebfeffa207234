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
    state: `(counts [A, P, U] int32, kinds, sums, codes [U]) -> state` of the
      rows counted, `kinds` being a tree of [P, C]. A kind may occur more than
      once. `codes` are the cells in use, None for all K in order.
    values: `(**batch) -> tree of [N, A]` float32, or None. In place of the
      single values, `sums`, a tree of [A, P, U], holds count times mean of each
      cell.
    exact: Whether the state of a batch's own counts has the value of the batch.
      Otherwise a bootstrap moves the value of its resamples by the difference.
    coarser: `Cells` for where these are too many, and the function from the
      codes of these to those; or None.
    paired: `Cells` for where two models are compared, whose difference is
      smaller than the spread of either; None for these.
    scale: The number of bins per label where only their order matters, or 0.
    parts: What these were joined of.
  """

  size: int
  index: Callable[..., Any]
  state: Callable[..., Any]
  values: Callable[..., Any] | None = None
  exact: bool = True
  coarser: tuple["Cells", Callable[[Any], Any]] | None = None
  paired: "Cells | None" = None
  scale: int = 0
  parts: tuple["Cells", ...] = ()


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

  def from_counts(counts, groups, sums, codes):
    del sums
    counts = _grid(counts, codes, 2**number)
    return state(counts, groups, *(bits % 2 == 1))

  return Cells(2**number, index, from_counts)


def of_bins(
  bins: int,
  place: Callable[..., Any],
  state: Callable[..., Any],
  *,
  least: int,
  values: Callable[..., Any] | None = None,
  ordered: bool = False,
) -> Cells:
  """Makes cells that are the bins of a histogram for each label.

  Args:
    bins: B, the number of bins.
    place: `(**batch) -> (groups, bins [N, A] int32, labels [N, A], invalid
      [N, A])`, where groups are [N, G] bool or None, and `invalid` rows belong
      to no bin.
    state: `(counts [..., A, 2, B], sums [..., A, 2, B] or None, invalid [...,
      A]) -> state`, first of the negatives, then of the positives. With groups
      they have a leading axis G. It must do as well for bins joined by twos.
    least: How many bins remain where they have to be joined; B is that times a
      power of two.
    values: As in `Cells`; 0 where invalid.
    ordered: Whether only the order of the bins matters.

  Returns:
    `Cells`, not exact.
  """

  def index(**batch):
    groups, cells, labels, invalid = place(**batch)
    cells = cells + jnp.where(labels, bins, 0)
    kinds = () if groups is None else groups
    return kinds, jnp.where(invalid, 2 * bins, cells)

  def from_counts(counts, groups, sums, codes):
    def by_label(x):
      x = _inside(_grid(x, codes, 2 * bins + 1), groups)
      return x[..., :-1].reshape(*x.shape[:-1], 2, bins), x[..., -1]

    counts, invalid = by_label(counts)
    return state(counts, None if sums is None else by_label(sums)[0], invalid)

  coarser = None
  if bins > least:
    half = of_bins(
      bins // 2, place, state, least=least, values=values, ordered=ordered
    )
    coarser = half, lambda codes: codes // 2
  return Cells(
    2 * bins + 1,
    index,
    from_counts,
    values,
    exact=False,
    coarser=coarser,
    scale=bins if ordered else 0,
  )


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


def _grid(x: Array, codes: Any, size: int) -> Array:
  """Returns the sums [A, P, K] of [A, P, U] over the cells of equal code."""
  if codes is None:
    return x
  # Whole numbers below 2^24 are exact in float32.
  chosen = (codes[:, None] == jnp.arange(size)[None, :]).astype(jnp.float32)
  return _product(x, chosen)


def _inside(x: Array, groups: Any) -> Array:
  """Returns the sums over kinds: [A, K], or inside groups [G, A, K]."""
  if isinstance(groups, tuple):
    return jnp.sum(x, axis=1)
  chosen = groups.astype(jnp.float32)
  return jnp.moveaxis(_product(jnp.swapaxes(x, 1, 2), chosen), 2, 0)


def _product(x: Array, chosen: Array) -> Array:
  sums = jnp.matmul(
    x.astype(jnp.float32), chosen, precision=jax.lax.Precision.HIGHEST
  )
  return sums.astype(x.dtype)


@functools.lru_cache(maxsize=64)
def join(*parts: Cells) -> Cells | None:
  """Returns the cells of several metrics on the same rows.

  Args:
    *parts: The cells of each.

  Returns:
    `Cells` whose `index` and `values` take one batch (a dict) for each part,
    whose `state` is the tuple of their states; None if their combinations
    cannot be numbered.
  """
  sizes = [part.size for part in parts]
  if math.prod(sizes) > 2**24:
    return None

  def index(*batches):
    kinds, cells = [], 0
    for part, batch in zip(parts, batches, strict=True):
      kind, cell = part.index(**batch)
      kinds.append(kind)
      cells = cells * part.size + cell
    return tuple(kinds), cells

  def values(*batches):
    return tuple(
      None if part.values is None else part.values(**batch)
      for part, batch in zip(parts, batches, strict=True)
    )

  def state(counts, kinds, sums, codes):
    codes = jnp.arange(math.prod(sizes)) if codes is None else codes
    sums = [None] * len(parts) if sums is None else sums
    return tuple(
      part.state(counts, kind, part_sums, code)
      for part, kind, part_sums, code in zip(
        parts, kinds, sums, _split(parts, codes), strict=True
      )
    )

  coarser = None
  if any(part.coarser for part in parts):
    steps = [part.coarser or (part, lambda codes: codes) for part in parts]

    def coarsen(codes):
      joined = 0
      for (part, step), code in zip(steps, _split(parts, codes), strict=True):
        joined = joined * part.size + step(code)
      return joined

    fewer = join(*(part for part, _ in steps))
    coarser = None if fewer is None else (fewer, coarsen)
  return Cells(
    math.prod(sizes),
    index,
    state,
    values if any(part.values for part in parts) else None,
    all(part.exact for part in parts),
    coarser,
    parts=parts,
  )


def alike(cells: Cells, counts: Any, codes: Any) -> bool:
  """Returns whether two models differ by less than bins of scores resolve.

  A score that crosses an edge moves by a whole bin, which would add a sixth of
  a squared bin to the variance of a difference.

  Args:
    cells: Those of both models.
    counts: [A, P, U].
    codes: [U], or None for all cells.
  """
  if not _ordered(cells):
    return False
  if not all(part.scale for part in cells.parts):
    return True  # inside of a collection, where the bins are wide
  codes = np.arange(cells.size) if codes is None else codes
  bins = [
    code % part.scale
    for part, code in zip(cells.parts, _split(cells.parts, codes), strict=True)
  ]
  share = counts.sum(axis=1) / counts.sum(axis=(1, 2))[:, None]
  return bool((share @ (bins[0] - bins[1]) ** 2).min() < 2.0)


def _ordered(cells: Cells) -> bool:
  return cells.scale > 0 or any(map(_ordered, cells.parts))


def _split(parts: tuple[Cells, ...], codes: Any) -> list[Any]:
  """Returns the code of each part; the last varies fastest."""
  found = []
  for part in reversed(parts):
    found.append(codes % part.size)
    codes = codes // part.size
  return found[::-1]
