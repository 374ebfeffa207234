"""Counting keys and splitting ties by reading slices, on a single CPU device.

XLA's CPU compiler would store one integer for every entry that is compared and
counted. Slices that stay in the first cache level avoid that. Every loop costs
compile time: small leaves are joined, and ties of all groups share one loop.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.pruning.deferred import Deferred, Groups, as_deferred
from effjax.pruning.integers import (
  Wide,
  add,
  as_float,
  at_least,
  float_of,
  minus,
  order_keys,
  total,
  wide,
)

_SLICE = 8192  # entries; small enough for the first cache level
_SMALL = 1 << 17  # leaves below this many entries are joined
_SAMPLE = 1 << 15  # entries that place the first probes


def counter(groups: Groups, dtype: jnp.dtype) -> Callable[[jax.Array], Wide]:
  """Make the function that counts the entries beyond probes.

  Args:
    groups: G lists of scores, none of them empty.
    dtype: Type of the keys.

  Returns:
    A function of probes [G, P] that returns how many entries of each group
    reach them, Wide [G, P].

  >>> groups = as_deferred([[jnp.array([1.0, 2.0])], [jnp.zeros(3)]])
  >>> count = counter(groups, jnp.int32)
  >>> count(order_keys(jnp.array([[2.0], [0.0]]))).low.tolist()
  [[1], [3]]
  """
  large = [[x.flat() for x in g if x.size >= _SMALL] for g in groups]
  rests = [[_rest(x) for x in leaves] for leaves in groups]
  joined, owners = _join_in_slices(rests, float_of(dtype))

  def count(probes: jax.Array) -> Wide:
    counts = _count_joined(joined, owners, probes)
    each = [_count_large(*pair) for pair in zip(large, probes, strict=True)]
    return add(counts, jax.tree.map(lambda *x: jnp.stack(x), *each))

  return count


def _rest(leaf: Deferred) -> jax.Array:
  """Return what does not fill a slice of a large leaf, or a small leaf."""
  begin = 0 if leaf.size < _SMALL else leaf.size // _SLICE * _SLICE
  return leaf.part(slice(begin, None))


def _join_in_slices(
  parts: Sequence[Sequence[jax.Array]], real: jnp.dtype
) -> tuple[jax.Array, np.ndarray]:
  """Join arrays so that no slice is shared, and list the owners of slices."""
  joined, owners = [], []
  for g, leaves in enumerate(parts):
    size = sum(leaf.size for leaf in leaves)
    # The padding ranks below every probe.
    pad = jnp.full(-size % _SLICE, -jnp.nan, real)
    joined += [*(leaf.astype(real) for leaf in leaves), pad]
    owners += [g] * -(-size // _SLICE)
  return jnp.concatenate(joined), np.asarray(owners, np.int32)


def _count_joined(
  joined: jax.Array, owners: np.ndarray, probes: jax.Array
) -> Wide:
  """Count in slices of which each belongs to one group."""
  if not owners.size:
    return wide(np.zeros(probes.shape, int))

  def step(i: jax.Array, counts: jax.Array) -> jax.Array:
    owner = jnp.asarray(owners)[i]
    part = jax.lax.dynamic_slice(joined, (i * _SLICE,), (_SLICE,))
    keys = order_keys(part, probes.dtype)
    reached = jnp.sum(
      keys[None, :] >= probes[owner][:, None], axis=1, dtype=jnp.int32
    )
    row = counts[owner] + reached
    return jax.lax.dynamic_update_index_in_dim(counts, row, owner, axis=0)

  counts = jnp.zeros(probes.shape, jnp.int32)
  return wide(jax.lax.fori_loop(0, owners.size, step, counts))


def _count_large(leaves: Sequence[Deferred], probes: jax.Array) -> Wide:
  """Count in the whole slices of the large leaves of one group."""
  if not leaves:
    return wide(np.zeros(probes.shape, int))
  counts = jnp.zeros((probes.size, _SLICE), jnp.int32)
  for leaf in leaves:

    def step(i: jax.Array, counts: jax.Array, leaf=leaf) -> jax.Array:
      keys = order_keys(leaf.read(i * _SLICE, _SLICE), probes.dtype)
      return counts + (keys[None, :] >= probes[:, None]).astype(jnp.int32)

    counts = jax.lax.fori_loop(0, leaf.size // _SLICE, step, counts)
  return total(counts)


def first_probes(
  groups: Groups, keep: Wide, dtype: jnp.dtype, probes: int
) -> jax.Array | None:
  """Place probes by the quantiles of a sample.

  Args:
    groups: G lists of scores.
    keep: How many entries of each group to keep, Wide [G].
    dtype: Type of the keys.
    probes: How many to place, P.

  Returns:
    Ascending keys [G, P]; None where a sample would not pay.
  """
  sizes = [sum(leaf.size for leaf in leaves) for leaves in groups]
  if max(sizes) <= 4 * _SAMPLE:
    return None
  real, size = float_of(dtype), max(1024, _SAMPLE // len(groups))
  samples, drawn = [], []
  for leaves, entries in zip(groups, sizes, strict=True):
    # An odd stride does not fall in step with the rows of a kernel.
    stride = (entries // size) | 1
    parts = [
      leaf.part(slice(None, None, stride)).astype(real) for leaf in leaves
    ]
    sample = jnp.concatenate(parts)[: 2 * size]
    drawn.append(sample.size)
    pad = jnp.full(2 * size - sample.size, -jnp.nan, real)
    samples.append(jnp.concatenate([pad, sample]))
  ordered = jnp.sort(order_keys(jnp.stack(samples), dtype), axis=1)
  share = as_float(keep) / jnp.asarray(sizes, jnp.float32)
  many = jnp.asarray(drawn, jnp.float32)
  spread = 3.5 * jnp.sqrt(many * share * (1.0 - share)) + 1.0
  sides = jnp.linspace(1.0, -1.0, probes, dtype=jnp.float32)
  rank = (many * share)[:, None] + spread[:, None] * sides[None, :]
  rank = jnp.clip(rank, 1.0, many[:, None]).astype(jnp.int32)
  return jnp.take_along_axis(ordered, 2 * size - rank, axis=1)


def first_ties(groups: Groups, keys: jax.Array, ties: Wide) -> jax.Array:
  """Find up to which position equal entries are kept in each leaf.

  Slices are read one after the other until the ties of a group are used up.

  Args:
    groups: G lists of scores, none of them empty.
    keys: The threshold of each group [G].
    ties: How many entries equal to it to keep, Wide [G].

  Returns:
    Numbers of leading positions, int32 [L] for the leaves of all groups. Those
    of a group with no ties to keep mean nothing.

  >>> groups = as_deferred([[jnp.zeros(3), jnp.zeros(2)]])
  >>> first_ties(groups, jnp.zeros(1, jnp.int32), wide([4])).tolist()
  [3, 1]
  """
  real = float_of(keys.dtype)
  layout = _lay_out(groups, real)
  piece, start, fresh, first = map(
    jnp.asarray, (layout.piece, layout.start, layout.fresh, layout.first)
  )
  lanes = jnp.arange(_SLICE, dtype=jnp.int32)
  readers = [
    lambda at, x=x: x.read(at, _SLICE).astype(real) for x in layout.pieces
  ]

  def cut(group: tuple) -> tuple[jax.Array, jax.Array]:
    """Return the piece and the position where a group runs out of ties."""
    key, ties, before, last = group

    def more(carry: tuple) -> jax.Array:
      number, left, found, _ = carry
      return ~at_least(wide(found), left) & (number < last)

    def step(carry: tuple) -> tuple:
      number, left, found, _ = carry
      number, left = number + 1, minus(left, found)
      part = jax.lax.switch(piece[number], readers, start[number])
      equal = (order_keys(part, key.dtype) == key) & (lanes >= fresh[number])
      return number, left, jnp.sum(equal, dtype=jnp.int32), equal

    carry = before, ties, jnp.int32(0), jnp.zeros(_SLICE, bool)
    number, left, _, equal = jax.lax.while_loop(more, step, carry)
    wanted = (left.high << 16) + left.low
    return piece[number], start[number] + _stretch(equal, lanes, wanted)

  cuts = jax.lax.map(cut, (keys, ties, first[:-1] - 1, first[1:] - 1))
  owner = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
  cut_piece, cut_end = (x[owner] for x in cuts)
  home, offset = jnp.asarray(layout.homes.T)
  sizes = jnp.asarray([x.size for g in groups for x in g], jnp.int32)
  inside = jnp.clip(cut_end - offset, 0, sizes)
  whole = jnp.where(home < cut_piece, sizes, 0)
  return jnp.where(home == cut_piece, inside, whole)


def _stretch(
  equal: jax.Array, lanes: jax.Array, wanted: jax.Array
) -> jax.Array:
  """Find the shortest leading stretch with so many equal entries."""

  def halve(_: int, bounds: tuple) -> tuple:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = jnp.sum(equal & (lanes < middle), dtype=jnp.int32) >= wanted
    return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

  bounds = jnp.int32(0), jnp.int32(_SLICE)
  return jax.lax.fori_loop(0, _SLICE.bit_length(), halve, bounds)[1]


class _Layout(NamedTuple):
  """Where slices begin and leaves lie; host tables.

  Attributes:
    pieces: Scores of at least one slice: large leaves, joined small ones.
    piece: The piece of each slice [S].
    start: Where it is read, [S].
    fresh: How many of its leading entries the slice before has read, [S].
    first: The first slice of each group, and S, [G + 1].
    homes: Piece and offset of each leaf [L, 2].
  """

  pieces: list[Deferred]
  piece: np.ndarray
  start: np.ndarray
  fresh: np.ndarray
  first: np.ndarray
  homes: np.ndarray


def _lay_out(groups: Groups, real: jnp.dtype) -> _Layout:
  pieces, homes, heads, run = [], [], [], []
  length = lambda: sum(part.size for part in run)

  def pad() -> None:
    # Groups share no slice; the padding ranks below every number.
    if length() % _SLICE:
      run.append(jnp.full(-length() % _SLICE, -jnp.nan, real))

  def close() -> None:
    pad()
    if run:
      pieces.append(as_deferred(jnp.concatenate(run)))
      run.clear()

  for leaves in groups:
    heads.append(len(homes))
    for leaf in leaves:
      if leaf.size >= _SMALL:
        close()
      homes.append((len(pieces), length()))
      if leaf.size >= _SMALL:
        pieces.append(leaf.flat())
      else:
        run.append(leaf.part(slice(None)).astype(real))
    pad()
  close()
  slices = []
  for number, piece in enumerate(pieces):
    # The last slice starts early enough to be whole.
    begin = np.arange(0, piece.size, _SLICE)
    start = np.minimum(begin, piece.size - _SLICE)
    slices.append(np.stack([np.full_like(begin, number), start, begin - start]))
  piece, start, fresh = np.concatenate(slices, axis=1).astype(np.int32)
  homes = np.asarray(homes, np.int32)
  at_head = [
    np.flatnonzero((piece == p) & (start + fresh == offset))[0]
    for p, offset in homes[heads]
  ]
  first = np.asarray([*at_head, piece.size], np.int32)
  return _Layout(pieces, piece, start, fresh, first, homes)
