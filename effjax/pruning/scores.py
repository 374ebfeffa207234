"""Saliency scores: how much each weight matters; the largest are kept.

Every function returns a tree like the parameters with float32 scores (float64
for float64 parameters). Leaves that are not floating arrays get None.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree as trees
from effjax.pruning.deferred import Deferred

Tree = Any

_OFFSET = 1e-4


def _wide(x: jax.Array) -> jax.Array:
  return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _map(
  function: Callable,
  params: Tree,
  others: Tree = None,
  what: str = "",
  shape: Callable[[tuple], tuple] = lambda shape: shape,
) -> Tree:
  """Apply a function to the floating leaves, with their partners if given."""
  leaves, treedef = jax.tree.flatten(params)
  if not what:
    return treedef.unflatten(
      [function(_wide(x)) if trees.is_floating(x) else None for x in leaves]
    )
  names = jax.tree.leaves(trees.names(params))
  scores = []
  for name, leaf, other in zip(
    names, leaves, trees.align(params, others, what), strict=True
  ):
    if other is None or not trees.is_floating(leaf):
      scores.append(None)
      continue
    if np.shape(other) != shape(leaf.shape):
      raise ValueError(
        f"the {what} has shape {np.shape(other)} at {name!r};"
        f" {shape(leaf.shape)} is wanted for a leaf of shape {leaf.shape}"
      )
    scores.append(function(_wide(leaf), _wide(jnp.asarray(other))))
  return treedef.unflatten(scores)


def magnitude(
  params: Tree, *, masks: Tree = None, convention: str = "exact"
) -> Tree:
  """Score weights by their absolute value.

  Args:
    params: Any pytree.
    masks: Masks, True = kept, that hold the pruned weights down: their score is
      -inf (exact) or 0 (reference).
    convention: "reference" adds 1e-4 to every live weight, as the 2023 study
      of bias in pruned vision models does, so that a live zero ranks above a
      pruned one.

  Returns:
    Scores.

  Raises:
    ValueError: If the convention is unknown or the masks do not fit.

  >>> magnitude({"w": jnp.array([-2.0, 1.0])})["w"].tolist()
  [2.0, 1.0]
  """
  check_convention(convention)
  offset = _OFFSET if convention == "reference" else 0.0
  scores = _map(lambda w: jnp.abs(w) + offset if offset else jnp.abs(w), params)
  if masks is None:
    return scores
  floor = 0.0 if convention == "reference" else -jnp.inf
  return hold_down(scores, masks, floor)


def hold_down(scores: Tree, masks: Tree, floor: float = -jnp.inf) -> Tree:
  """Give pruned weights the lowest score, so that they stay pruned.

  Args:
    scores: Scores, stored or deferred.
    masks: Masks, True = kept; None leaves the scores of a leaf alone.
    floor: The score of a pruned weight.

  Returns:
    Scores.

  >>> hold_down(jnp.ones(2), jnp.array([True, False])).tolist()
  [1.0, -inf]
  """
  leaves, treedef = jax.tree.flatten(scores)

  def hold(score: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, score, jnp.asarray(floor, score.dtype))

  held = []
  for score, mask in zip(
    leaves, trees.align(scores, masks, "mask"), strict=True
  ):
    if mask is None:
      held.append(score)
    elif isinstance(score, Deferred):
      held.append(score.then(hold, mask))
    else:
      held.append(hold(score, mask))
  return treedef.unflatten(held)


def random(key: jax.Array, params: Tree) -> Tree:
  """Score weights at random.

  Args:
    key: A typed random key; each leaf draws from a key derived from its name.
    params: Any pytree.

  Returns:
    Scores, uniform in [0, 1).

  >>> scores = random(jax.random.key(0), {"w": jnp.ones((2, 3))})
  >>> scores["w"].shape
  (2, 3)
  """

  def draw(leaf: jax.Array, own: jax.Array) -> jax.Array | None:
    if not trees.is_floating(leaf):
      return None
    drawn = jax.random.uniform(own, leaf.shape, jnp.float32)
    # They take over how the leaf is sharded.
    return drawn + jnp.zeros_like(leaf, dtype=jnp.float32)

  return jax.tree.map(draw, params, trees.keys(key, params))


def taylor(params: Tree, grads: Tree) -> Tree:
  """Score weights by the first-order change of the loss when removed.

  Args:
    params: Any pytree.
    grads: Gradients of the loss.

  Returns:
    Scores |w g| (Molchanov et al. 2017, arXiv 1611.06440).

  >>> taylor({"w": jnp.array([2.0])}, {"w": jnp.array([-3.0])})["w"].tolist()
  [6.0]
  """
  return _map(lambda w, g: jnp.abs(w * g), params, grads, "gradient tree")


def fisher(params: Tree, squared_grads: Tree) -> Tree:
  """Score weights by the second-order change of the loss when removed.

  Args:
    params: Any pytree.
    squared_grads: Squared gradients, averaged over examples: the diagonal of
      the empirical Fisher information.

  Returns:
    Scores w^2 F / 2 (Theis et al. 2018, arXiv 1801.05787).

  >>> fisher({"w": jnp.array([2.0])}, {"w": jnp.array([3.0])})["w"].tolist()
  [6.0]
  """
  half = lambda w, f: jnp.square(w) * f * 0.5
  return _map(half, params, squared_grads, "tree of squared gradients")


def wanda(params: Tree, input_norms: Tree) -> Tree:
  """Score weights by their magnitude times the norm of their input.

  Args:
    params: Any pytree; kernels end in [..., I, O].
    input_norms: For each kernel the Euclidean norms [I] of its inputs, None
      elsewhere.

  Returns:
    Scores |w| ||x|| (Sun et al. 2023, arXiv 2306.11695); None without norms.

  Raises:
    ValueError: If norms do not fit a kernel.

  >>> kernel, norms = jnp.ones((2, 1)), jnp.array([3.0, 4.0])
  >>> wanda({"kernel": kernel}, {"kernel": norms})["kernel"].ravel().tolist()
  [3.0, 4.0]
  """
  scale = lambda w, norm: (
    jnp.abs(w) * norm[:, None].reshape((1,) * (w.ndim - 2) + (-1, 1))
  )
  # A leaf of rank 1 has no inputs, and no norms fit it.
  inputs = lambda shape: shape[-2:-1] or ("no kernel",)
  return _map(scale, params, input_norms, "tree of input norms", inputs)


def check_convention(convention: str) -> None:
  """Reject anything but the two conventions.

  Args:
    convention: "exact" or "reference".

  Raises:
    ValueError: If it is neither.

  >>> check_convention("exact")
  """
  if convention not in ("exact", "reference"):
    raise ValueError(
      f"convention {convention!r} is unknown; choose 'exact' or 'reference'"
    )


# Scores by name, for configurations: a function of (params, grads).
SCORES: dict[str, Callable[[Tree, Tree], Tree]] = {
  "magnitude": lambda params, grads: magnitude(params),
  "taylor": taylor,
  "fisher": lambda params, grads: fisher(
    params, jax.tree.map(lambda g: jnp.square(_wide(g)), grads)
  ),
}


def deferred(score: Callable, params: Tree, others: Tree) -> Tree:
  """Score weights without storing the scores.

  Args:
    score: A function of `SCORES`, all of which are elementwise, or another
      elementwise function of (params, others).
    params: Any pytree.
    others: The tree that it takes beside the parameters.

  Returns:
    Scores that `topk` and `global_topk` compute where they read them.

  Raises:
    ValueError: If the trees do not match.

  >>> scores = deferred(taylor, jnp.array([2.0]), jnp.array([-3.0]))
  >>> scores.whole().tolist()
  [6.0]
  """
  # What is wrong with whole trees is told by the names of their leaves.
  outcome = trees.align(params, jax.eval_shape(score, params, others), "scores")
  leaves, treedef = jax.tree.flatten(params)
  alone = score is SCORES["magnitude"]
  partners = leaves if alone else trees.align(params, others)
  return treedef.unflatten(
    [
      None if result is None else Deferred(score, (leaf, partner))
      for result, leaf, partner in zip(outcome, leaves, partners, strict=True)
    ]
  )
