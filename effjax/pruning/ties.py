"""Ties at a threshold: which of the equal entries are kept.

Equal entries are kept in order: earlier leaves first, lower indices first. So
each leaf keeps a leading stretch of its equal entries, and a single leaf of a
group is cut somewhere inside. As in `effjax.pruning.search`, nothing is sorted
or gathered; on a single CPU device slices are read one after the other until
the cut is found.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from effjax.pruning.integers import (
  Wide,
  at_least,
  difference,
  float_of,
  minus,
  order_keys,
  wide,
)

_SLICE = 8192  # entries; small enough for the first cache level
_SMALL = 1 << 17  # neighbours below this many entries are joined


def keep_first(
  leaves: Sequence[jax.Array], key: jax.Array, ties: Wide, *, sliced: bool
) -> jax.Array:
  """Find up to which position equal entries are kept in each leaf.

  Args:
    leaves: The arrays of one group, none of them empty.
    key: Its threshold.
    ties: How many entries equal to the threshold to keep, at least one.
    sliced: Whether to read slices, which suits a single CPU device.

  Returns:
    Numbers of leading positions, int32 [leaves].

  >>> ties = Wide(jnp.int32(0), jnp.int32(2))
  >>> leaves = [jnp.zeros(3), jnp.zeros(2)]
  >>> keep_first(leaves, jnp.int32(0), ties, sliced=False).tolist()
  [2, 0]
  """
  search = _by_slices if sliced else _by_bisection
  return search(leaves, key, ties)


def chosen(leaf: jax.Array, key: jax.Array, end: jax.Array) -> jax.Array:
  """Mark the entries above a threshold and the first of those equal to it.

  Args:
    leaf: Scores [...].
    key: The threshold.
    end: How many leading positions may keep an equal entry.

  Returns:
    A boolean mask [...].

  >>> chosen(jnp.array([0.0, 1.0, 0.0]), jnp.int32(0), jnp.int32(1)).tolist()
  [True, True, False]
  """
  keys = order_keys(leaf, key.dtype)
  return (keys > key) | ((keys == key) & (_positions(leaf.shape) < end))


def _positions(shape: tuple[int, ...]) -> jax.Array:
  """Number the entries of an array in C order, without a reshape."""
  index, stride = jnp.zeros(shape, jnp.int32), 1
  for axis in reversed(range(len(shape))):
    along = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    index += along * jnp.int32(stride)
    stride *= shape[axis]
  return index


def _cut(
  equal: jax.Array, positions: jax.Array, wanted: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Find a leading stretch that holds just so many of the equal entries.

  Returns:
    Its length, all of it if there are no more than wanted, and the number of
    all equal entries.
  """

  def halve(bounds: tuple) -> tuple:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = jnp.sum(equal & (positions < middle), dtype=jnp.int32) >= wanted
    return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

  found = jnp.sum(equal, dtype=jnp.int32)
  size = jnp.int32(equal.size)
  # With nothing to cut there is nothing to search.
  start = jnp.where((wanted < found) & (wanted > 0), 0, size)
  _, end = jax.lax.while_loop(lambda b: b[0] < b[1], halve, (start, size))
  return jnp.where(wanted > 0, end, 0), found


def _by_bisection(
  leaves: Sequence[jax.Array], key: jax.Array, ties: Wide
) -> jax.Array:
  """Do what `keep_first` does by reductions over whole arrays."""
  none = Wide(jnp.int32(0), jnp.int32(0))
  ends = []
  for leaf in leaves:
    equal = order_keys(leaf, key.dtype) == key
    wanted = jnp.minimum(difference(ties, none), jnp.int32(leaf.size))
    end, found = _cut(equal, _positions(leaf.shape), wanted)
    ends.append(end)
    ties = minus(ties, jnp.minimum(wanted, found))
  return jnp.stack(ends)


def _by_slices(
  leaves: Sequence[jax.Array], key: jax.Array, ties: Wide
) -> jax.Array:
  """Do what `keep_first` does by reading slices until the ties are used up."""
  real = float_of(key.dtype)
  pieces, homes = _join(leaves, real)
  sizes = np.asarray([piece.size for piece in pieces])
  first = np.cumsum([0, *-(-sizes // _SLICE)], dtype=np.int32)
  lanes = jnp.arange(_SLICE, dtype=jnp.int32)

  def place(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the piece of a slice, its start, and that of what is new in it."""
    owner = jnp.sum(number >= first[1:-1], dtype=jnp.int32)
    fresh = (number - jnp.asarray(first)[owner]) * _SLICE
    # The last slice of a piece starts early enough to be whole.
    latest = jnp.asarray(sizes - _SLICE, jnp.int32)[owner]
    return owner, jnp.minimum(fresh, latest), fresh

  def reader(piece: jax.Array) -> Callable[[jax.Array], jax.Array]:
    def read(start: jax.Array) -> jax.Array:
      part = jax.lax.dynamic_slice(piece, (start,), (_SLICE,))
      return part.astype(real)

    return read

  readers = [reader(piece) for piece in pieces]

  def body(carry: tuple) -> tuple:
    number, left, found, _ = carry
    owner, start, fresh = place(number + 1)
    part = jax.lax.switch(owner, readers, start)
    equal = (order_keys(part, key.dtype) == key) & (lanes >= fresh - start)
    left = minus(left, found)
    return number + 1, left, jnp.sum(equal, dtype=jnp.int32), equal

  def more(carry: tuple) -> jax.Array:
    number, left, found, _ = carry
    return ~at_least(wide(found), left) & (number < first[-1] - 1)

  start = jnp.int32(-1), ties, jnp.int32(0), jnp.zeros(_SLICE, bool)
  number, left, _, equal = jax.lax.while_loop(more, body, start)
  owner, start, _ = place(number)
  none = Wide(jnp.int32(0), jnp.int32(0))
  end = start + _cut(equal, lanes, difference(left, none))[0]
  piece, offset = jnp.asarray(homes, jnp.int32).T
  lengths = jnp.asarray([leaf.size for leaf in leaves], jnp.int32)
  within = jnp.clip(end - offset, 0, lengths)
  before = jnp.where(piece < owner, lengths, 0)
  return jnp.where(piece == owner, within, before)


def _join(
  leaves: Sequence[jax.Array], real: jnp.dtype
) -> tuple[list[jax.Array], list[tuple[int, int]]]:
  """Flatten large leaves and join small neighbours; each piece fills a slice.

  Returns:
    Arrays of scores, and for each leaf the number of its piece and its
    position there.
  """
  pieces, homes, run = [], [], []

  def close() -> None:
    if run:
      # The padding ranks below every number.
      pad = max(0, _SLICE - sum(part.size for part in run))
      pieces.append(jnp.concatenate([*run, jnp.full(pad, -jnp.nan, real)]))
      run.clear()

  for leaf in leaves:
    if leaf.size >= _SMALL:
      close()
      homes.append((len(pieces), 0))
      pieces.append(leaf.reshape(-1))
    else:
      homes.append((len(pieces), sum(part.size for part in run)))
      run.append(leaf.reshape(-1).astype(real))
  close()
  return pieces, homes
