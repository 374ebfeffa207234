"""What the pruning transformations do to the updates of an optax chain."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

Tree = Any


def gradients_of(updates: Tree, params: Tree, grads: Tree | None) -> Tree:
  """Return what weights are scored by: the gradients, or else the updates.

  Args:
    updates: Updates.
    params: Parameters, of which optax may have masked some.
    grads: Gradients, which it leaves whole; None for the updates.

  Returns:
    The gradients, masked where the parameters are.
  """
  if grads is None:
    return updates
  masked = lambda x: isinstance(x, optax.MaskedNode)
  return jax.tree.map(
    lambda p, g: p if masked(p) else g, params, grads, is_leaf=masked
  )


def prune_updates(updates: Tree, params: Tree, masks: Tree) -> Tree:
  """Replace the updates of pruned weights by minus the weight.

  `optax.apply_updates` then yields an exact zero there, in any type.

  Args:
    updates: Updates.
    params: Parameters.
    masks: Masks, True = kept, None for leaves that are not pruned.

  Returns:
    The updates, of the common type of update and parameter where pruned.

  >>> params, mask = jnp.array([1.0, 2.0]), jnp.array([True, False])
  >>> prune_updates(jnp.array([0.5, 0.5]), params, mask).tolist()
  [0.5, -2.0]
  """
  return jax.tree.map(
    lambda u, p, m: (
      u if m is None else jnp.where(m, promote(u, p), -promote(p, u))
    ),
    updates,
    params,
    masks,
  )


def promote(u: jax.Array, p: jax.Array) -> jax.Array:
  """Widen an update to the common type of update and parameter.

  Args:
    u: Update.
    p: Parameter.

  Returns:
    The update.

  >>> promote(jnp.ones((), jnp.bfloat16), jnp.ones(())).dtype.name
  'float32'
  """
  # Narrow updates would round -p and leave weights that are not exactly zero.
  with jax.numpy_dtype_promotion("standard"):
    common = jnp.promote_types(u.dtype, p.dtype)
  return u.astype(common)


def is_placeholder(params: Tree) -> bool:
  """Say whether optax only asks where the parameters are in a state.

  `optax.tree.map_params` initialises a transformation with an object of its
  own. Masks have None where the parameters have leaves, so they are not like
  the parameters: the state is to be left alone.

  Args:
    params: What `init` is given.

  Returns:
    True for that object.

  >>> is_placeholder({"w": jnp.ones(2)})
  False
  """
  return type(params).__module__.partition(".")[0] == "optax"


def mask_moments(
  optimizer: optax.GradientTransformation, state: Any, masks: Tree
) -> Any:
  """Set the moments of pruned weights to zero, whatever the optimizer.

  Call it after masks have changed when regrown weights should start afresh.

  Args:
    optimizer: The transformation that made the state.
    state: Its state.
    masks: Masks, True = kept, None for leaves that are not pruned.

  Returns:
    The state with momentum and the like masked.

  >>> optimizer = optax.sgd(0.1, momentum=0.9)
  >>> params = {"w": jnp.ones((1, 2))}
  >>> _, state = optimizer.update(params, optimizer.init(params))
  >>> masks = {"w": jnp.array([[True, False]])}
  >>> optax.tree.get(mask_moments(optimizer, state, masks), "trace")["w"]
  Array([[1., 0.]], dtype=float32)
  """

  def clear(moment: jax.Array, mask: jax.Array | None) -> jax.Array:
    # Statistics of another shape, as Adafactor keeps, have no mask.
    if mask is None or getattr(moment, "shape", None) != mask.shape:
      return moment
    if not jnp.issubdtype(moment.dtype, jnp.floating):
      return moment
    return jnp.where(mask, moment, jnp.zeros((), moment.dtype))

  # It has the `init` that optax asks for.
  # pyrefly: ignore[bad-argument-type]
  return optax.tree.map_params(optimizer, clear, state, masks)
