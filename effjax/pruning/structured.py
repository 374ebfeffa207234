"""Masks with a structure: N of every M weights, whole channels."""

import functools
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.pruning.integers import key_dtype, order_keys
from effjax.pruning.masks import (
  global_topk,
  has_axis,
  label,
  place,
  selected,
  topk,
)

Tree = Any


def n_m(
  scores: Tree, n: int, m: int, *, axis: int = -2, where: trees.Where = None
) -> Tree:
  """Keep the n largest of every m consecutive scores along an axis.

  Args:
    scores: Scores.
    n: How many of each group to keep; the sparsity is 1 - n/m.
    m: Size of a group.
    axis: The axis of the groups; -2 is the input axis of kernels [..., I, O].
    where: Selector of the leaves; by default floating ones of rank 2 or more.

  Returns:
    Masks, True = kept; among equal scores the lower index is kept.

  Raises:
    ValueError: If 0 <= n <= m does not hold or m does not divide the axis.

  >>> n_m(jnp.array([[4.0, 1.0, 3.0, 2.0]]), 2, 4, axis=-1).tolist()
  [[True, False, True, False]]
  """
  whole = all(isinstance(x, numbers.Integral) for x in (n, m))
  if not (whole and 0 <= n <= m and m > 0):
    raise ValueError(f"n:m must be whole numbers with 0 <= n <= m, not {n}:{m}")
  index, leaves, treedef = selected(scores, where)
  masks = []
  for i in index:
    leaf = leaves[i]
    length = leaf.shape[axis] if has_axis(leaf, axis) else None
    if length is None or length % m:
      fit = [d for d in (16, 8, 4, 2) if length is not None and length % d == 0]
      advice = (
        f"groups of {fit[0]} would fit" if fit else "deselect it by where="
      )
      raise ValueError(
        f"{label(scores, i)} of shape {leaf.shape} cannot be cut into groups"
        f" of {m} along axis {axis}; {advice}"
      )
    masks.append(_n_m(leaf, n=int(n), m=int(m), axis=axis % leaf.ndim))
  return place(masks, index, len(leaves), treedef)


@functools.partial(jax.jit, static_argnames=("n", "m", "axis"))
def _n_m(leaf: jax.Array, *, n: int, m: int, axis: int) -> jax.Array:
  shape = (
    *leaf.shape[:axis],
    leaf.shape[axis] // m,
    m,
    *leaf.shape[axis + 1 :],
  )
  keys = order_keys(leaf, key_dtype([leaf])).reshape(shape)
  position = jax.lax.broadcasted_iota(jnp.int32, shape, axis + 1)
  rank = jnp.zeros(shape, jnp.int32)
  for j in range(m):
    other = jax.lax.slice_in_dim(keys, j, j + 1, axis=axis + 1)
    beats = (other > keys) | ((other == keys) & (j < position))
    rank += beats.astype(jnp.int32)
  return (rank < n).reshape(leaf.shape)


def channels(
  scores: Tree,
  sparsity: Any = None,
  *,
  keep: Any = None,
  axis: int = -1,
  where: trees.Where = None,
) -> Tree:
  """Keep the channels of every leaf with the largest sums of scores.

  A layer without its pruned output channels is a smaller dense layer; leave the
  last layer out by `where`, whose outputs are the answer.

  Args:
    scores: Scores, see `effjax.pruning.scores`; with magnitudes the sum is the
      L1 norm of a filter (Li et al. 2017, arXiv 1608.08710).
    sparsity: Share of channels to prune of each leaf: a number, static or
      traced, or a tree of them. Exactly floor(sparsity * C + 1/2) of C channels
      go; among equal sums the lower index is kept.
    keep: Instead, how many channels to keep, an integer or a tree of them.
    axis: The axis of the channels; -1 is the output axis of kernels
      [..., I, O].
    where: Selector of the leaves; by default floating ones of rank 2 or more.

  Returns:
    Masks of the shape of the leaves, True = kept, None for leaves that are not
    selected.

  Raises:
    ValueError: If a number is out of range, nothing is selected, the axis does
      not exist or scores hold NaN.

  >>> channels(jnp.array([[3.0, 1.0], [0.0, 1.0]]), 0.5).tolist()
  [[True, False], [True, False]]
  """
  chosen = trees.select(scores, where)
  names = trees.names(scores)

  def total(leaf: jax.Array, picked: bool, name: str) -> jax.Array | None:
    if not picked:
      return None
    if not has_axis(leaf, axis):
      raise ValueError(
        f"axis {axis} does not exist in {name!r} of shape {leaf.shape}"
      )
    others = tuple(i for i in range(leaf.ndim) if i != axis % leaf.ndim)
    wide = jnp.promote_types(leaf.dtype, jnp.float32)
    return jnp.sum(leaf.astype(wide), others)

  def spread(leaf: jax.Array, mask: jax.Array | None) -> jax.Array | None:
    if mask is None:
      return None
    shape = [1] * leaf.ndim
    shape[axis] = mask.size
    return jnp.broadcast_to(mask.reshape(shape), leaf.shape)

  def numbers(value: Any, what: str) -> Any:
    if value is None or isinstance(value, int | float) or trees.is_array(value):
      return value
    leaves, treedef = jax.tree.flatten(chosen)
    given = trees.align(chosen, value, what)
    return treedef.unflatten(
      [v if c else None for v, c in zip(given, leaves, strict=True)]
    )

  sums = jax.tree.map(total, scores, chosen, names)
  masks = topk(
    sums,
    numbers(sparsity, "tree of sparsities"),
    keep=numbers(keep, "tree of counts"),
    where=jax.tree.map(lambda _: True, sums),
  )
  return jax.tree.map(spread, scores, masks)


# Ways to turn scores into masks by name, for configurations.
MASKS: dict[str, Callable] = {
  "global": global_topk,
  "layer": topk,
  "channels": channels,
  "2:4": functools.partial(n_m, n=2, m=4),
  "1:4": functools.partial(n_m, n=1, m=4),
  "4:8": functools.partial(n_m, n=4, m=8),
  "2:8": functools.partial(n_m, n=2, m=8),
}
