"""Masks from scores: exact counts, ties by position, no sort and no gather.

A mask is boolean, True = kept; None stands for a leaf that is not pruned. The
functions work on whole trees, under jit, vmap and sharding. Scores are compared
as float32, or as float64 where one of them is. A NaN score is an error in eager
mode; under jit it takes the extreme place of its sign bit.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.pruning.counts import is_traced, kept_counts
from effjax.pruning.deferred import Deferred
from effjax.pruning.integers import Wide, key_dtype, order_keys
from effjax.pruning.scores import check_convention
from effjax.pruning.search import keep_largest

Tree = Any

_keep_stored = jax.jit(keep_largest, static_argnames="strict")


def _keep_largest(groups: list, keep: Wide, strict: bool) -> list:
  stored = all(map(_is_stored, groups))
  return (_keep_stored if stored else keep_largest)(groups, keep, strict=strict)


def _is_stored(leaves: list) -> bool:
  return not any(isinstance(leaf, Deferred) for leaf in leaves)


@jax.jit
def _holds_nan(leaves: list[jax.Array]) -> list[jax.Array]:
  # A maximum passes NaN on and needs no temporary array.
  return [jnp.isnan(jnp.max(leaf, initial=0)) for leaf in leaves]


def selected(scores: Tree, where: trees.Where) -> tuple[list, list, Any]:
  """Select the leaves that masks are made of, and check their values.

  Args:
    scores: Scores.
    where: A selector.

  Returns:
    Indices of the selected leaves, all leaves, and their structure.

  Raises:
    ValueError: If nothing is selected, or a selected leaf is complex or holds
      NaN.
  """
  leaves, treedef = jax.tree.flatten(scores)
  chosen = jax.tree.leaves(trees.select(scores, where))
  index = [i for i, c in enumerate(chosen) if c]
  picked = [leaves[i] for i in index]
  for i, leaf in zip(index, picked, strict=True):
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
      raise ValueError(
        f"the scores of {label(scores, i)} are {leaf.dtype}, which has no order"
      )
  if _is_stored(picked) and not any(map(is_traced, picked)):
    for i, bad in zip(index, _holds_nan(picked), strict=True):
      # While a function is traced, even this question has no answer.
      if not is_traced(bad) and bad:
        raise ValueError(f"the scores of {label(scores, i)} hold NaN")
  return index, leaves, treedef


def label(scores: Tree, i: int) -> str:
  """Name a leaf in an error.

  Args:
    scores: Scores.
    i: The number of the leaf.

  Returns:
    Its name in quotes.
  """
  name = jax.tree.leaves(trees.names(scores))[i]
  return repr(name) if name else "the array"


def _per_leaf(
  value: Any, scores: Tree, index: list[int], what: str
) -> list | None:
  """Spread a number over the selected leaves, or pick theirs from a tree."""
  if value is None:
    return None
  if isinstance(value, int | float) or trees.is_array(value):
    return [value] * len(index)
  values = trees.align(scores, value, what)
  missing = [i for i in index if values[i] is None]
  if missing:
    raise ValueError(
      f"the {what} has no number for the selected leaf"
      f" {label(scores, missing[0])}"
    )
  return [values[i] for i in index]


def has_axis(leaf: jax.Array, axis: int) -> bool:
  """Say whether an axis exists.

  Args:
    leaf: An array.
    axis: The axis, counted from the end if negative.

  Returns:
    True if it does.
  """
  return -leaf.ndim <= axis < leaf.ndim


def place(masks: list, index: list[int], count: int, treedef: Any) -> Tree:
  """Put the masks of the selected leaves into a tree.

  Args:
    masks: The masks.
    index: The numbers of their leaves.
    count: How many leaves there are.
    treedef: Structure of the tree.

  Returns:
    The tree, None for the other leaves.
  """
  placed: list = [None] * count
  for i, mask in zip(index, masks, strict=True):
    placed[i] = mask
  return treedef.unflatten(placed)


def topk(
  scores: Tree,
  sparsity: Any = None,
  *,
  keep: Any = None,
  axis: int | None = None,
  where: trees.Where = None,
  convention: str = "exact",
) -> Tree:
  """Keep the largest scores of every leaf.

  Args:
    scores: Scores, see `effjax.pruning.scores`.
    sparsity: Share to prune of each leaf: a number, static or traced, or a tree
      of them. Exactly floor(sparsity * n + 1/2) entries are pruned; among equal
      scores the lower index is kept. A traced number counts as the float32
      number it is, one outside [0, 1] as the nearer end and NaN as 0.
    keep: Instead, how many entries to keep, an integer or a tree of them.
    axis: Count and select within each slice along this axis instead.
    where: Selector of the leaves; by default floating ones of rank 2 or more.
    convention: "reference" keeps the scores strictly above the k-th largest,
      k = ceil(n (1 - sparsity)), as the 2023 study of bias in pruned vision
      models does.

  Returns:
    Masks, True = kept, None for leaves that are not selected.

  Raises:
    ValueError: If a number is out of range, nothing is selected, trees do not
      match or scores hold NaN.

  >>> topk(jnp.array([3.0, 1.0, 2.0, 2.0]), 0.5).tolist()
  [True, False, True, False]
  """
  check_convention(convention)
  index, leaves, treedef = selected(scores, where)
  picked = [leaves[i] for i in index]
  if axis is not None:
    for i in index:
      if not has_axis(leaves[i], axis):
        raise ValueError(
          f"axis {axis} does not exist in {label(scores, i)} of shape"
          f" {leaves[i].shape}"
        )
  sizes = [leaf.size if axis is None else leaf.shape[axis] for leaf in picked]
  counts = kept_counts(
    sizes,
    _per_leaf(sparsity, scores, index, "tree of sparsities"),
    _per_leaf(keep, scores, index, "tree of counts"),
    convention,
    [label(scores, i) for i in index],
  )
  strict = convention == "reference"
  if axis is None:
    masks = [m for (m,) in _keep_largest([[p] for p in picked], counts, strict)]
  else:
    small = counts.high * 65536 + counts.low
    masks = [
      _keep_along(leaf, small[i], axis=axis, strict=strict)
      for i, leaf in enumerate(picked)
    ]
  return place(masks, index, len(leaves), treedef)


def global_topk(
  scores: Tree,
  sparsity: Any = None,
  *,
  keep: Any = None,
  where: trees.Where = None,
  convention: str = "exact",
) -> Tree:
  """Keep the largest scores over all selected leaves together.

  The threshold is found by counting (`effjax.pruning.search`): no sort, no
  gather, the same mask whether the leaves are sharded or not.

  Args:
    scores: Scores that can be compared across leaves.
    sparsity: Share to prune, a number, static or traced. Exactly
      floor(sparsity * n + 1/2) of the n entries are pruned; among equal scores
      the earlier leaf in tree order and the lower index are kept.
    keep: Instead, how many entries to keep.
    where: Selector of the leaves; by default floating ones of rank 2 or more.
    convention: "reference" keeps the scores strictly above the k-th largest,
      k = ceil(n (1 - sparsity)).

  Returns:
    Masks, True = kept, None for leaves that are not selected.

  Raises:
    ValueError: If a number is out of range, nothing is selected or scores hold
      NaN.

  >>> scores = {"a": jnp.array([[3.0, 1.0]]), "b": jnp.array([[2.0, 1.0]])}
  >>> {k: v.tolist() for k, v in global_topk(scores, 0.25).items()}
  {'a': [[True, True]], 'b': [[True, False]]}
  """
  check_convention(convention)
  index, leaves, treedef = selected(scores, where)
  picked = [leaves[i] for i in index]
  counts = kept_counts(
    [sum(leaf.size for leaf in picked)],
    None if sparsity is None else [sparsity],
    None if keep is None else [keep],
    convention,
  )
  (masks,) = _keep_largest([picked], counts, convention == "reference")
  return place(masks, index, len(leaves), treedef)


@functools.partial(jax.jit, static_argnames=("axis", "strict"))
def _keep_along(
  leaf: jax.Array, keep: jax.Array, *, axis: int, strict: bool
) -> jax.Array:
  """Keep the `keep` largest of every slice along an axis, by bisection."""
  dtype = key_dtype([leaf])
  keys = order_keys(leaf, dtype)
  count = lambda chosen: jnp.sum(
    chosen, axis=axis, keepdims=True, dtype=jnp.int32
  )
  # One number for each slice, sharded like what is counted.
  zero = jnp.zeros_like(jnp.sum(keys, axis=axis, keepdims=True, dtype=dtype))
  limits = jnp.iinfo(dtype)

  def halve(_: int, bounds: tuple) -> tuple:
    low, high = bounds
    middle = (low & high) + ((low ^ high) >> 1)
    enough = count(keys >= middle) >= keep
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  bounds = zero + limits.min, zero + limits.max
  low, _ = jax.lax.fori_loop(0, limits.bits, halve, bounds)
  key = jnp.where(keep > 0, low, limits.max)
  above = keys > key
  if strict:
    return above
  equal = keys == key
  left = keep - count(above)
  position = jax.lax.broadcasted_iota(jnp.int32, leaf.shape, axis % leaf.ndim)

  def halve_positions(_: int, bounds: tuple) -> tuple:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = count(equal & (position < middle)) >= left
    return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

  size = leaf.shape[axis]
  first = zero.astype(jnp.int32)
  ends = first, first + size
  _, end = jax.lax.fori_loop(0, size.bit_length(), halve_positions, ends)
  return above | (equal & (position < end))


def apply_mask(params: Tree, masks: Tree) -> Tree:
  """Set pruned weights to zero.

  Args:
    params: Any pytree.
    masks: Masks, True = kept; None leaves a leaf as it is.

  Returns:
    Parameters of the same structure and types; a pruned NaN becomes 0 too.

  Raises:
    ValueError: If the masks do not fit the parameters.

  >>> apply_mask({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([True, False])})
  {'w': Array([1., 0.], dtype=float32)}
  """
  return _map_masked(_zero_pruned, params, masks)


def _zero_pruned(p: jax.Array, m: jax.Array) -> jax.Array:
  p = jnp.asarray(p)
  return jnp.where(m, p, jnp.zeros((), p.dtype))


def straight_through(params: Tree, masks: Tree) -> Tree:
  """Mask the weights and let gradients pass to all of them.

  Args:
    params: Dense parameters.
    masks: Masks, True = kept; None leaves a leaf as it is.

  Returns:
    The masked parameters, a pruned NaN or infinity being 0; their gradient is
    that of `params` (the straight-through estimator, Bengio et al. 2013, arXiv
    1308.3432).

  >>> loss = lambda w: jnp.sum(straight_through(w, jnp.array([True, False])))
  >>> jax.grad(loss)(jnp.array([1.0, 2.0])).tolist()
  [1.0, 1.0]
  """
  return _map_masked(_through, params, masks)


# The usual p + stop_gradient(masked - p) makes NaN of an infinite weight.
_through = jax.custom_jvp(_zero_pruned)


@_through.defjvp
def _through_jvp(
  primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
  return _through(*primals), tangents[0]


def _map_masked(function: Callable, params: Tree, masks: Tree) -> Tree:
  leaves, treedef = jax.tree.flatten(params)
  aligned = trees.align(params, masks, "mask tree")
  names = jax.tree.leaves(trees.names(params))
  for name, leaf, mask in zip(names, leaves, aligned, strict=True):
    if mask is None:
      continue
    if not (trees.is_array(mask) and trees.is_array(leaf)):
      raise ValueError(
        f"{name!r} is a {type(leaf).__name__} and its mask a"
        f" {type(mask).__name__}; two arrays are wanted, or None for no mask"
      )
    if mask.shape != leaf.shape:
      raise ValueError(
        f"the mask of {name!r} has shape {mask.shape}, the leaf {leaf.shape}"
      )
  return treedef.unflatten(
    [
      leaf if mask is None else function(leaf, mask)
      for leaf, mask in zip(leaves, aligned, strict=True)
    ]
  )
