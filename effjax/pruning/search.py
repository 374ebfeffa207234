"""Exact selection of the largest entries without a sort or a gather.

Scores become integer keys that order like the values. The threshold that keeps
the wanted number of entries is found by counting how many keys reach a probe,
and by placing the next probes through interpolation between the counts. Equal
keys at the threshold are split by position. Only elementwise operations and
reductions are used, so a sharded array needs no gather; on a single CPU device
the counts run over slices that stay in the cache, since XLA would otherwise
store one integer for every entry.

A group is a set of leaves that share one threshold; G groups are searched at
once. Totals of a group may exceed 32 bits, so they are pairs of words.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_SLICE = 8192  # entries; small enough for the first cache level
_SMALL = 1 << 17  # leaves below this many entries are searched as one
_SAMPLE = 1 << 15  # entries that place the first probes
_PROBES = 4
# Half width of the bracket around an interpolated probe, in standard
# deviations of the count that a uniform density would give.
_DEVIATIONS = 1.7
_FEW = 8.0  # entries left in the bracket: then cut it into equal parts


class Wide(NamedTuple):
  """Non-negative integers of up to 47 bits.

  Attributes:
    high: int32 multiples of 65536.
    low: int32 remainders, 0 to 65535.
  """

  high: jax.Array
  low: jax.Array


def wide(values: np.ndarray | Sequence[int] | jax.Array) -> Wide:
  """Split integers into two words.

  Args:
    values: Non-negative integers, host integers of any size or traced int32.

  Returns:
    Their words, of the same shape.

  >>> wide([5 * 65536 + 7]).high.tolist()
  [5]
  """
  if isinstance(values, jax.Array):
    values = values.astype(jnp.int32)
    return Wide(values >> 16, values & 0xFFFF)
  high, low = np.divmod(np.asarray(values, np.int64), 65536)
  return Wide(jnp.asarray(high, jnp.int32), jnp.asarray(low, jnp.int32))


def _normal(high: jax.Array, low: jax.Array) -> Wide:
  return Wide(high + (low >> 16), low & 0xFFFF)


def _minus(a: Wide, b: Wide) -> jax.Array:
  """Subtract; the int32 result saturates at 32767 * 65536 either way."""
  high, low = a.high - b.high, a.low - b.low
  limit = jnp.int32(32767 * 65536)
  exact = jnp.clip(high, -32766, 32766) * 65536 + low
  return jnp.where(high > 32766, limit, jnp.where(high < -32766, -limit, exact))


def _at_least(a: Wide, b: Wide) -> jax.Array:
  return (a.high > b.high) | ((a.high == b.high) & (a.low >= b.low))


def _as_float(a: Wide) -> jax.Array:
  return a.high.astype(jnp.float32) * 65536.0 + a.low.astype(jnp.float32)


def order_keys(scores: jax.Array, dtype: jnp.dtype = jnp.int32) -> jax.Array:
  """Map scores to signed integers of the same order.

  Only integer operations touch the values, so denormal numbers keep their
  order where the hardware would flush them. Zeros of both signs share a key; a
  NaN ranks beyond the infinity of its sign bit.

  Args:
    scores: Numbers [...].
    dtype: int32, or int64 for float64 scores.

  Returns:
    Integers [...].

  >>> order_keys(jnp.array([-1.0, -0.0, 0.0, 2.0])).tolist()
  [-1065353216, 0, 0, 1073741824]
  """
  floating = jnp.float32 if dtype == jnp.int32 else jnp.float64
  bits = jax.lax.bitcast_convert_type(scores.astype(floating), dtype)
  sign = bits >> (jnp.iinfo(dtype).bits - 1)
  # Negating by two's complement: negative numbers count down from zero.
  return ((bits & jnp.iinfo(dtype).max) ^ sign) - sign


def key_dtype(leaves: Sequence[jax.Array]) -> jnp.dtype:
  """Choose the key type for leaves that are compared with one another.

  Args:
    leaves: Arrays of scores.

  Returns:
    int64 if one of them has 64-bit floats, else int32.

  >>> key_dtype([jnp.ones(2)]).__name__
  'int32'
  """
  double = any(leaf.dtype == jnp.float64 for leaf in leaves)
  return jnp.int64 if double else jnp.int32


def _slices_pay() -> bool:
  # With several devices an array may be sharded, and a slice would gather it.
  return jax.default_backend() == "cpu" and jax.device_count() == 1


class _Pool(NamedTuple):
  """The entries of one group, arranged for counting.

  Attributes:
    arrays: Arrays of scores that are counted as they are.
    keys: The keys of everything else in one flat array, None where unused.
  """

  arrays: list[jax.Array]
  keys: jax.Array | None


def _pool(leaves: Sequence[jax.Array], dtype: jnp.dtype, sliced: bool) -> _Pool:
  if not sliced:
    return _Pool(list(leaves), None)
  arrays, rest = [], []
  for leaf in leaves:
    flat = leaf.reshape(-1)
    whole = flat.size - flat.size % _SLICE if flat.size >= _SMALL else 0
    if whole:
      arrays.append(flat)
    if whole < flat.size:
      rest.append(order_keys(flat[whole:], dtype))
  if not rest:
    return _Pool(arrays, None)
  # The padding ranks below every probe.
  pad = -sum(part.size for part in rest) % _SLICE
  rest.append(jnp.full(pad, jnp.iinfo(dtype).min, dtype))
  return _Pool(arrays, jnp.concatenate(rest))


def _count(pool: _Pool, probes: jax.Array, sliced: bool) -> Wide:
  """Count the entries of a group whose key reaches each probe [P]."""
  dtype = probes.dtype
  if not sliced:
    each = [
      jnp.stack(
        [jnp.sum(order_keys(x, dtype) >= p, dtype=jnp.int32) for p in probes]
      )
      for x in pool.arrays
    ]
    return _total(jnp.stack(each, axis=1))
  total = jnp.zeros((probes.shape[0], _SLICE), jnp.int32)
  keyed = [(x, True) for x in pool.arrays]
  keyed += [] if pool.keys is None else [(pool.keys, False)]
  for flat, scores in keyed:

    def add(i: jax.Array, total: jax.Array, flat=flat, scores=scores):
      part = jax.lax.dynamic_slice(flat, (i * _SLICE,), (_SLICE,))
      keys = order_keys(part, dtype) if scores else part
      return total + (keys[None, :] >= probes[:, None]).astype(jnp.int32)

    total = jax.lax.fori_loop(0, flat.size // _SLICE, add, total)
  return _total(total)


def _total(counts: jax.Array) -> Wide:
  """Add int32 counts [P, L] along the last axis."""
  low = jnp.sum(counts & 0xFFFF, axis=-1, dtype=jnp.int32)
  high = jnp.sum(counts >> 16, axis=-1, dtype=jnp.int32)
  return Wide(high + (low >> 16), low & 0xFFFF)


class _Bracket(NamedTuple):
  """low <= threshold < high, all [G]; counts of the keys that reach each."""

  low: jax.Array
  high: jax.Array
  at_low: Wide
  at_high: Wide
  bisect: jax.Array


def _width(bracket: _Bracket) -> jax.Array:
  # The difference of two keys needs the unsigned range.
  unsigned = jnp.dtype(f"u{bracket.low.dtype}")
  return bracket.high.astype(unsigned) - bracket.low.astype(unsigned)


def _place(bracket: _Bracket, keep: Wide) -> jax.Array:
  """Choose the next probes [G, P] inside the bracket."""
  width = _width(bracket)[:, None]
  one = jnp.ones((), width.dtype)
  inside = jnp.maximum(
    _as_float(bracket.at_low) - _as_float(bracket.at_high), 1.0
  )
  fraction = (_as_float(bracket.at_low) - _as_float(keep) + 0.5) / inside
  spread = _DEVIATIONS * jnp.sqrt(fraction * (1.0 - fraction) / inside)
  sides = jnp.linspace(-1.0, 1.0, _PROBES, dtype=jnp.float32)
  interpolated = fraction[:, None] + spread[:, None] * sides
  even = jnp.arange(1, _PROBES + 1, dtype=jnp.float32) / (_PROBES + 1)
  equal_parts = bracket.bisect | (inside <= _FEW)
  where = jnp.where(equal_parts[:, None], even[None, :], interpolated)
  real = jnp.float32 if width.dtype == jnp.uint32 else jnp.float64
  offset = (jnp.clip(where, 0.0, 0.999999).astype(real) * width).astype(
    width.dtype
  )
  offset = jnp.clip(offset, one, jnp.maximum(width - one, one))
  return bracket.low[:, None] + offset.astype(bracket.low.dtype)


def _narrow(
  bracket: _Bracket, probes: jax.Array, counts: Wide, keep: Wide
) -> _Bracket:
  """Tighten the bracket by counts [G, P] at ascending probes [G, P]."""
  low, high, at_low, at_high, _ = bracket
  before = _width(bracket)
  for p in range(probes.shape[1]):
    probe = probes[:, p]
    count = Wide(counts.high[:, p], counts.low[:, p])
    enough = _at_least(count, keep)
    raise_low = enough & (probe > low)
    cut_high = ~enough & (probe < high)
    low = jnp.where(raise_low, probe, low)
    at_low = jax.tree.map(
      lambda a, b, m=raise_low: jnp.where(m, a, b), count, at_low
    )
    high = jnp.where(cut_high, probe, high)
    at_high = jax.tree.map(
      lambda a, b, m=cut_high: jnp.where(m, a, b), count, at_high
    )
  after = _width(_Bracket(low, high, at_low, at_high, before))
  # Clumps of equal keys defeat interpolation: fall back to equal parts.
  return _Bracket(low, high, at_low, at_high, after > before // 2)


def _first_probes(
  groups: Sequence[Sequence[jax.Array]],
  keep: Wide,
  sizes: Sequence[int],
  dtype: jnp.dtype,
) -> jax.Array:
  """Place the first probes [G, P] by the quantiles of a sorted sample."""
  size = max(1024, _SAMPLE // len(groups))
  samples, drawn = [], []
  for leaves, total in zip(groups, sizes, strict=True):
    # An odd stride does not fall in step with the rows of a kernel.
    stride = (total // size) | 1
    parts = [order_keys(leaf.reshape(-1)[::stride], dtype) for leaf in leaves]
    sample = jnp.concatenate(parts)[: 2 * size]
    drawn.append(sample.size)
    pad = jnp.full(2 * size - sample.size, jnp.iinfo(dtype).min, dtype)
    samples.append(jnp.concatenate([pad, sample]))
  ordered = jnp.sort(jnp.stack(samples), axis=1)
  share = _as_float(keep) / jnp.asarray(sizes, jnp.float32)
  many = jnp.asarray(drawn, jnp.float32)
  spread = 3.5 * jnp.sqrt(many * share * (1.0 - share)) + 1.0
  sides = jnp.linspace(1.0, -1.0, _PROBES, dtype=jnp.float32)
  rank = (many * share)[:, None] + spread[:, None] * sides
  rank = jnp.clip(rank, 1.0, many[:, None]).astype(jnp.int32)
  return jnp.take_along_axis(ordered, 2 * size - rank, axis=1)


class Threshold(NamedTuple):
  """What `find` returns for each of G groups.

  Attributes:
    key: The largest key that enough entries reach, or any lower one that
      exactly `keep` entries reach, [G].
    excess: How many entries reach the key beyond those wanted, int32 [G].
    above: How many entries exceed the key, Wide [G]; of use with an excess.
    passes: How often the data was read, int32.
  """

  key: jax.Array
  excess: jax.Array
  above: Wide
  passes: jax.Array


def find(
  groups: Sequence[Sequence[jax.Array]], keep: Wide, *, strict: bool = False
) -> Threshold:
  """Find the key at which `keep` entries of each group remain.

  Args:
    groups: G lists of arrays of scores, none of them empty.
    keep: How many entries of each group to keep, Wide [G].
    strict: Find the key of the `keep`-th largest entry itself.

  Returns:
    The thresholds; the highest key for a group of which nothing is kept.
  """
  dtype = key_dtype([leaf for leaves in groups for leaf in leaves])
  sliced = _slices_pay()
  pools = [_pool(leaves, dtype, sliced) for leaves in groups]
  sizes = [sum(leaf.size for leaf in leaves) for leaves in groups]
  limits = jnp.iinfo(dtype)
  wanted = (keep.high > 0) | (keep.low > 0)

  def done(bracket: _Bracket) -> jax.Array:
    closed = (_width(bracket) <= 1) | ~wanted
    if strict:
      return closed
    return closed | (_minus(bracket.at_low, keep) == 0)

  def body(carry: tuple) -> tuple:
    bracket, probes, passes = carry
    counts = [_count(*pair, sliced) for pair in zip(pools, probes, strict=True)]
    counts = jax.tree.map(lambda *words: jnp.stack(words), *counts)
    narrowed = _narrow(bracket, probes, counts, keep)
    finished = done(bracket)
    bracket = jax.tree.map(
      lambda new, old: jnp.where(finished, old, new), narrowed, bracket
    )
    return bracket, _place(bracket, keep), passes + 1

  bracket = _Bracket(
    jnp.full(len(groups), limits.min, dtype),
    jnp.full(len(groups), limits.max, dtype),
    wide(sizes),
    wide([0] * len(groups)),
    jnp.ones(len(groups), bool),
  )
  probes = (
    _first_probes(groups, keep, sizes, dtype)
    if sliced and max(sizes) > 4 * _SAMPLE
    else _place(bracket, keep)
  )
  bracket, _, passes = jax.lax.while_loop(
    lambda carry: jnp.any(~done(carry[0])),
    body,
    (bracket, probes, jnp.zeros((), jnp.int32)),
  )
  key = jnp.where(wanted, bracket.low, limits.max)
  excess = jnp.where(wanted, _minus(bracket.at_low, keep), 0)
  return Threshold(key, excess, bracket.at_high, passes)


def _positions(shape: tuple[int, ...]) -> jax.Array:
  """Number the entries of an array in C order, without a reshape."""
  index, stride = jnp.zeros(shape, jnp.int32), 1
  for axis in reversed(range(len(shape))):
    along = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    index += along * jnp.int32(stride)
    stride *= shape[axis]
  return index


def _ends_by_bisection(
  leaves: Sequence[jax.Array], key: jax.Array, ties: Wide
) -> list[jax.Array]:
  """Do what `_ends` does by reductions over whole arrays."""
  ends = []
  for leaf in leaves:
    equal = order_keys(leaf, key.dtype) == key
    positions = _positions(leaf.shape)
    total = jnp.sum(equal, dtype=jnp.int32)
    left = _at_most(ties, total)

    def halve(bounds: tuple, equal=equal, positions=positions, left=left):
      low, high = bounds
      middle = low + (high - low) // 2
      enough = jnp.sum(equal & (positions < middle), dtype=jnp.int32) >= left
      return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    size = jnp.int32(leaf.size)
    # Only the leaf that keeps some of its ties and not others must search.
    start = jnp.where(left < total, 0, size)
    end = jax.lax.while_loop(lambda b: b[0] < b[1], halve, (start, size))[1]
    ends.append(jnp.where(left > 0, end, 0))
    ties = _less(ties, left)
  return ends


def _ends_by_slices(
  leaves: Sequence[jax.Array], key: jax.Array, ties: Wide
) -> list[jax.Array]:
  """Do what `_ends` does in one pass over slices and a look at one of them."""
  widths = [min(leaf.size, _SLICE) for leaf in leaves]
  slices = [-(-leaf.size // w) for leaf, w in zip(leaves, widths, strict=True)]
  first = np.cumsum([0, *slices])
  # A row of counts stays within 32 bits.
  rows = -(-int(first[-1]) // 65536)
  counts = jnp.zeros(rows * 65536 if rows > 1 else int(first[-1]), jnp.int32)

  def equal(leaf: jax.Array, width: int, i: jax.Array) -> jax.Array:
    # The last slice starts early enough to be whole.
    start = jnp.minimum(i * width, leaf.size - width)
    part = jax.lax.dynamic_slice(leaf.reshape(-1), (start,), (width,))
    fresh = start + jnp.arange(width, dtype=jnp.int32) >= i * width
    return (order_keys(part, key.dtype) == key) & fresh

  for leaf, width, many, offset in zip(
    leaves, widths, slices, first, strict=False
  ):

    def step(i, counts, leaf=leaf, width=width, offset=int(offset)):
      count = jnp.sum(equal(leaf, width, i), dtype=jnp.int32)
      return jax.lax.dynamic_update_slice(counts, count[None], (offset + i,))

    counts = jax.lax.fori_loop(0, many, step, counts)

  cut, needed = jnp.int32(first[-1]), jnp.int32(0)
  for r, row in enumerate(counts.reshape(rows, -1)):
    running = jnp.cumsum(row, dtype=jnp.int32)
    left = _at_most(ties, jnp.int32(2**31 - 1))
    i = jnp.argmax(running >= left).astype(jnp.int32)
    hit = (running[-1] >= left) & (left > 0)
    cut = jnp.where(hit, r * row.size + i, cut)
    needed = jnp.where(hit, left - running[i] + row[i], needed)
    ties = _less(ties, jnp.minimum(left, running[-1]))

  def look(leaf: jax.Array, width: int, offset: int) -> jax.Array:
    return jnp.pad(equal(leaf, width, cut - offset), (0, _SLICE - width))

  owner = jnp.sum(cut >= jnp.asarray(first[1:-1], jnp.int32), dtype=jnp.int32)
  entries = jax.lax.switch(
    owner,
    [
      functools.partial(look, leaf, width, int(offset))
      for leaf, width, offset in zip(leaves, widths, first, strict=False)
    ],
  )
  rank = jnp.cumsum(entries, dtype=jnp.int32)
  inside = jnp.argmax(rank >= needed).astype(jnp.int32) + 1
  ends = []
  for leaf, width, offset, after in zip(
    leaves, widths, first, first[1:], strict=False
  ):
    start = jnp.minimum((cut - int(offset)) * width, leaf.size - width)
    end = jnp.where(cut >= int(after), leaf.size, start + inside)
    ends.append(jnp.where(cut < int(offset), 0, end))
  return ends


def _at_most(a: Wide, limit: jax.Array) -> jax.Array:
  """Return the smaller of a wide number and an int32."""
  return jnp.minimum(_minus(a, Wide(jnp.int32(0), jnp.int32(0))), limit)


def _ends(
  leaves: Sequence[jax.Array], key: jax.Array, ties: Wide
) -> list[jax.Array]:
  """Find up to which position equal entries are kept in each leaf.

  Args:
    leaves: The arrays of one group.
    key: Its threshold.
    ties: How many entries equal to the threshold to keep, in order.

  Returns:
    One number of leading positions for each leaf, int32.
  """
  search = _ends_by_slices if _slices_pay() else _ends_by_bisection
  return search(leaves, key, ties)


def keep_largest(
  groups: Sequence[Sequence[jax.Array]], keep: Wide, *, strict: bool = False
) -> list[list[jax.Array]]:
  """Mask the largest entries of every group.

  Args:
    groups: G lists of arrays of scores of any shapes.
    keep: How many entries of each group to keep, Wide [G].
    strict: Keep the entries strictly above the `keep`-th largest instead of
      exactly `keep` with ties going to the lower position.

  Returns:
    G lists of boolean masks, True = kept.

  Raises:
    ValueError: If an array has 2**31 or more entries.
  """
  largest = max((leaf.size for leaves in groups for leaf in leaves), default=0)
  if largest >= 2**31:
    raise ValueError(
      f"an array of {largest} entries is too large: fewer than 2**31 can be"
      " selected from; split the array"
    )
  filled = [[leaf for leaf in leaves if leaf.size] for leaves in groups]
  alive = [g for g, leaves in enumerate(filled) if leaves]
  masks = [
    [jnp.zeros(leaf.shape, bool) for leaf in leaves] for leaves in groups
  ]
  if not alive:
    return masks
  rows = jnp.asarray(alive, jnp.int32)
  keep = Wide(keep.high[rows], keep.low[rows])
  found = find([filled[g] for g in alive], keep, strict=strict)
  for row, g in enumerate(alive):
    key = found.key[row]
    above = Wide(found.above.high[row], found.above.low[row])
    wanted = Wide(keep.high[row], keep.low[row])
    if strict:
      chosen = [order_keys(leaf, key.dtype) > key for leaf in filled[g]]
    else:
      all_equal = lambda g=g: [jnp.int32(leaf.size) for leaf in filled[g]]
      some = lambda g=g, key=key, ties=_less(wanted, above): _ends(
        filled[g], key, ties
      )
      ends = jax.lax.cond(found.excess[row] > 0, some, all_equal)
      chosen = [
        _choose(leaf, key, end)
        for leaf, end in zip(filled[g], ends, strict=True)
      ]
    kept = iter(chosen)
    masks[g] = [
      next(kept) if leaf.size else mask
      for leaf, mask in zip(groups[g], masks[g], strict=True)
    ]
  return masks


def _less(a: Wide, b: Wide | jax.Array) -> Wide:
  """Subtract a smaller number, word by word."""
  b = b if isinstance(b, Wide) else Wide(b >> 16, b & 0xFFFF)
  low = a.low - b.low
  return Wide(a.high - b.high + (low >> 16), low & 0xFFFF)


def _choose(leaf: jax.Array, key: jax.Array, end: jax.Array) -> jax.Array:
  entries = order_keys(leaf, key.dtype)
  return (entries > key) | ((entries == key) & (_positions(leaf.shape) < end))
