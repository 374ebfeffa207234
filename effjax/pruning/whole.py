"""Counting keys and splitting ties by reductions over whole arrays.

Nothing is reshaped, sliced or gathered, so it does not matter whether and how
the arrays are sharded; accelerators fuse the comparison into the sum.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from effjax.pruning.deferred import Deferred, Groups
from effjax.pruning.integers import Wide, difference, minus, order_keys, total


def counter(groups: Groups, dtype: jnp.dtype) -> Callable[[jax.Array], Wide]:
  """Make the function that counts the entries beyond probes.

  Args:
    groups: G lists of scores, none of them empty.
    dtype: Type of the keys.

  Returns:
    A function of probes [G, P] that returns how many entries of each group
    reach them, Wide [G, P].

  >>> from effjax.pruning.deferred import as_deferred
  >>> groups = as_deferred([[jnp.array([1.0, 2.0])], [jnp.zeros(3)]])
  >>> count = counter(groups, jnp.int32)
  >>> count(order_keys(jnp.array([[2.0], [0.0]]))).low.tolist()
  [[1], [3]]
  """

  def reach(leaf: Deferred, probes: jax.Array) -> jax.Array:
    keys = order_keys(leaf.whole(), dtype)
    return jnp.stack([jnp.sum(keys >= p, dtype=jnp.int32) for p in probes])

  def of_group(leaves: Sequence[Deferred], probes: jax.Array) -> Wide:
    return total(jnp.stack([reach(leaf, probes) for leaf in leaves], axis=1))

  def count(probes: jax.Array) -> Wide:
    each = [of_group(*pair) for pair in zip(groups, probes, strict=True)]
    return jax.tree.map(lambda *x: jnp.stack(x), *each)

  return count


def first_ties(groups: Groups, keys: jax.Array, ties: Wide) -> jax.Array:
  """Find up to which position equal entries are kept in each leaf.

  The leaves that keep some of their ties but not all are bisected together.

  Args:
    groups: G lists of scores, none of them empty.
    keys: The threshold of each group [G].
    ties: How many entries equal to it to keep, Wide [G].

  Returns:
    Numbers of leading positions, int32 [L] for the leaves of all groups. Those
    of a group with no ties to keep mean nothing.

  >>> from effjax.pruning.deferred import as_deferred
  >>> groups = as_deferred([[jnp.zeros(3), jnp.zeros(2)]])
  >>> ties = Wide(jnp.zeros(1, jnp.int32), jnp.full(1, 4, jnp.int32))
  >>> first_ties(groups, jnp.zeros(1, jnp.int32), ties).tolist()
  [3, 1]
  """
  owners = [g for g, leaves in enumerate(groups) for _ in leaves]
  leaves = [leaf for group in groups for leaf in group]

  def count(ends: jax.Array) -> jax.Array:
    """Count the equal entries before a position of each leaf [L]."""
    counts = []
    for leaf, g, end in zip(leaves, owners, ends, strict=True):
      equal = order_keys(leaf.whole(), keys.dtype) == keys[g]
      before = positions(leaf.shape) < end
      counts.append(jnp.sum(equal & before, dtype=jnp.int32))
    return jnp.stack(counts)

  sizes = jnp.asarray([leaf.size for leaf in leaves], jnp.int32)
  found = count(sizes)
  wanted, left, none = [], ties, jax.tree.map(jnp.zeros_like, ties)
  for i, g in enumerate(owners):
    take = jnp.minimum(difference(left, none)[g], found[i])
    wanted.append(take)
    left = minus(left, jnp.zeros_like(left.low).at[g].set(take))
  wanted = jnp.stack(wanted)

  def halve(bounds: tuple) -> tuple:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = count(middle) >= wanted
    return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

  start = jnp.where((wanted > 0) & (wanted < found), 0, sizes)
  _, ends = jax.lax.while_loop(
    lambda bounds: jnp.any(bounds[0] < bounds[1]), halve, (start, sizes)
  )
  return jnp.where(wanted > 0, ends, 0)


def positions(shape: tuple[int, ...]) -> jax.Array:
  """Number the entries of an array in C order, without a reshape.

  Args:
    shape: Its shape.

  Returns:
    The numbers, int32 of that shape.

  >>> positions((2, 2)).tolist()
  [[0, 1], [2, 3]]
  """
  index, stride = jnp.zeros(shape, jnp.int32), 1
  for axis in reversed(range(len(shape))):
    along = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    index += along * jnp.int32(stride)
    stride *= shape[axis]
  return index
