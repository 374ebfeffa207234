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

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.pruning import slices, whole
from effjax.pruning.deferred import Deferred, Groups, as_deferred
from effjax.pruning.integers import (
  Wide,
  as_float,
  at_least,
  difference,
  float_of,
  key_dtype,
  minus,
  order_keys,
  wide,
)

_PROBES = 4
# Half width of the bracket around an interpolated probe, in standard
# deviations of the count that a uniform density would give.
_DEVIATIONS = 1.7
_FEW = 8.0  # entries left in the bracket: then cut it into equal parts


def _slices_pay() -> bool:
  # With several devices an array may be sharded, and a slice would gather it.
  return jax.default_backend() == "cpu" and jax.device_count() == 1


class _Bracket(NamedTuple):
  """Bounds of the thresholds: low <= threshold < high, all [G].

  Attributes:
    low: Keys that enough entries reach.
    high: Keys that too few entries reach.
    at_low: How many entries reach the low key.
    at_high: How many reach the high one.
    bisect: Whether to cut into equal parts next instead of interpolating.
  """

  low: jax.Array
  high: jax.Array
  at_low: Wide
  at_high: Wide
  bisect: jax.Array


def _widest(sizes: Sequence[int], dtype: jnp.dtype) -> _Bracket:
  """Return the bracket that holds every key."""
  limits, groups = jnp.iinfo(dtype), len(sizes)
  return _Bracket(
    low=jnp.full(groups, limits.min, dtype),
    high=jnp.full(groups, limits.max, dtype),
    at_low=wide(sizes),
    at_high=wide([0] * groups),
    bisect=jnp.ones(groups, bool),
  )


def _width(bracket: _Bracket) -> jax.Array:
  # The difference of two keys needs the unsigned range.
  unsigned = jnp.dtype(f"u{bracket.low.dtype}")
  return bracket.high.astype(unsigned) - bracket.low.astype(unsigned)


def _place(bracket: _Bracket, keep: Wide) -> jax.Array:
  """Choose the next probes [G, P] inside the bracket."""
  width = _width(bracket)[:, None]
  one = jnp.ones((), width.dtype)
  inside = jnp.maximum(
    as_float(bracket.at_low) - as_float(bracket.at_high), 1.0
  )
  fraction = (as_float(bracket.at_low) - as_float(keep) + 0.5) / inside
  spread = _DEVIATIONS * jnp.sqrt(fraction * (1.0 - fraction) / inside)
  sides = jnp.linspace(-1.0, 1.0, _PROBES, dtype=jnp.float32)
  interpolated = fraction[:, None] + spread[:, None] * sides[None, :]
  even = jnp.arange(1, _PROBES + 1, dtype=jnp.float32) / (_PROBES + 1)
  equal_parts = bracket.bisect | (inside <= _FEW)
  where = jnp.where(equal_parts[:, None], even[None, :], interpolated)
  real = float_of(bracket.low.dtype)
  offset = jnp.clip(where, 0.0, 0.999999).astype(real) * width.astype(real)
  offset = offset.astype(width.dtype)
  offset = jnp.clip(offset, one, jnp.maximum(width - one, one))
  return bracket.low[:, None] + offset.astype(bracket.low.dtype)


def _narrow(
  bracket: _Bracket, probes: jax.Array, counts: Wide, keep: Wide
) -> _Bracket:
  """Tighten the bracket by counts [G, P] at ascending probes [G, P]."""
  ladder = _between(bracket.low, probes, bracket.high)
  reached = jax.tree.map(_between, bracket.at_low, counts, bracket.at_high)
  # Counts fall along the ladder: the last rung with enough is the new low.
  enough = at_least(counts, jax.tree.map(lambda x: x[:, None], keep))
  rung = jnp.sum(enough, axis=1, keepdims=True, dtype=jnp.int32)
  pick = lambda x, i: jnp.take_along_axis(x, i, axis=1)[:, 0]
  narrow = _Bracket(
    low=pick(ladder, rung),
    high=pick(ladder, rung + 1),
    at_low=jax.tree.map(lambda x: pick(x, rung), reached),
    at_high=jax.tree.map(lambda x: pick(x, rung + 1), reached),
    bisect=bracket.bisect,
  )
  # Clumps of equal keys defeat interpolation: fall back to equal parts.
  return narrow._replace(bisect=_width(narrow) > _width(bracket) // 2)


def _between(first: jax.Array, rest: jax.Array, last: jax.Array) -> jax.Array:
  return jnp.concatenate([first[:, None], rest, last[:, None]], axis=1)


class Threshold(NamedTuple):
  """What `find` returns for each of G groups.

  Attributes:
    key: The largest key that enough entries reach, or any lower one that
      exactly `keep` entries reach, [G].
    excess: How many entries reach the key beyond those wanted, int32 [G].
    above: How many entries exceed the key, Wide [G]; of use with an excess.
    passes: How often the data was read, int32 [].
  """

  key: jax.Array
  excess: jax.Array
  above: Wide
  passes: jax.Array


def find(groups: Any, keep: Wide, *, strict: bool = False) -> Threshold:
  """Find the key at which `keep` entries of each group remain.

  Args:
    groups: G lists of scores, stored or deferred, none of them empty.
    keep: How many entries of each group to keep, Wide [G].
    strict: Find the key of the `keep`-th largest entry itself.

  Returns:
    The thresholds; the highest key for a group of which nothing is kept.
  """
  groups = as_deferred(groups)
  dtype = key_dtype([leaf for leaves in groups for leaf in leaves])
  count = (slices if _slices_pay() else whole).counter(groups, dtype)
  sizes = [sum(leaf.size for leaf in leaves) for leaves in groups]
  wanted = (keep.high > 0) | (keep.low > 0)

  def done(bracket: _Bracket) -> jax.Array:
    closed = (_width(bracket) <= 1) | ~wanted
    if strict:
      return closed
    return closed | (difference(bracket.at_low, keep) == 0)

  def body(carry: tuple) -> tuple:
    bracket, probes, passes = carry
    narrowed = _narrow(bracket, probes, count(probes), keep)
    finished = done(bracket)
    bracket = jax.tree.map(
      lambda new, old: jnp.where(finished, old, new), narrowed, bracket
    )
    return bracket, _place(bracket, keep), passes + 1

  bracket = _widest(sizes, dtype)
  probes = None
  if _slices_pay():
    probes = slices.first_probes(groups, keep, dtype, _PROBES)
  if probes is None:
    probes = _place(bracket, keep)
  bracket, _, passes = jax.lax.while_loop(
    lambda carry: jnp.any(~done(carry[0])),
    body,
    (bracket, probes, jnp.zeros((), jnp.int32)),
  )
  key = jnp.where(wanted, bracket.low, jnp.iinfo(dtype).max)
  excess = jnp.where(wanted, difference(bracket.at_low, keep), 0)
  return Threshold(key, excess, bracket.at_high, passes)


def keep_largest(
  groups: Sequence[Sequence[jax.Array | Deferred]],
  keep: Wide,
  *,
  strict: bool = False,
) -> list[list[jax.Array]]:
  """Mask the largest entries of every group.

  Args:
    groups: G lists of scores of any shapes, stored or to be computed.
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
  filled = as_deferred([[x for x in leaves if x.size] for leaves in groups])
  alive = [g for g, leaves in enumerate(filled) if leaves]
  masks = iter(())
  if alive:
    rows = np.asarray(alive)
    keep = Wide(keep.high[rows], keep.low[rows])
    masks = iter(_mark([filled[g] for g in alive], keep, strict))
  # Empty arrays have empty masks.
  return [
    [next(masks) if x.size else jnp.zeros(x.shape, bool) for x in leaves]
    for leaves in groups
  ]


def _mark(groups: Groups, keep: Wide, strict: bool) -> list[jax.Array]:
  """Mask the leaves of all groups, none of them empty."""
  found = find(groups, keep, strict=strict)
  leaves = [leaf for group in groups for leaf in group]
  owners = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
  ends = [None] * len(leaves) if strict else _ends(groups, owners, keep, found)
  return [
    _chosen(leaf, found.key[g], end)
    for leaf, g, end in zip(leaves, owners, ends, strict=True)
  ]


def _ends(
  groups: Groups,
  owners: np.ndarray,
  keep: Wide,
  found: Threshold,
) -> jax.Array:
  """Find up to which position each leaf [L] keeps what equals the key."""
  first_ties = (slices if _slices_pay() else whole).first_ties
  everywhere = jnp.asarray([x.size for g in groups for x in g], jnp.int32)
  tied = found.excess > 0
  ties = jax.tree.map(lambda n: jnp.where(tied, n, 0), minus(keep, found.above))
  return jax.lax.cond(
    jnp.any(tied),
    lambda: jnp.where(
      tied[owners], first_ties(groups, found.key, ties), everywhere
    ),
    lambda: everywhere,
  )


def _chosen(leaf: Deferred, key: jax.Array, end: jax.Array | None) -> jax.Array:
  """Mark what lies above the key, and what equals it before the end."""
  keys = order_keys(leaf.whole(), key.dtype)
  if end is None:
    return keys > key
  return (keys > key) | ((keys == key) & (whole.positions(leaf.shape) < end))
