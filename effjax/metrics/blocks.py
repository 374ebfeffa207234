"""Passes over the rows of a batch in blocks that stay in the cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from effjax.metrics import counting
from effjax.metrics.groups import with_everyone

Array = jax.Array
# Temporary arrays of whole batches cost more in page faults than their
# arithmetic does; blocks of this many rows reuse the same memory.
_ROWS = 16384


def fold(
  add: Callable[..., Any], state: Any, *arrays: Array, rows: int = _ROWS
) -> Any:
  """Returns the state after `state = add(state, *blocks)` over all rows.

  Args:
    add: `(state, *blocks) -> state` with the shapes and types of `state`.
    state: A tree of arrays.
    *arrays: [N, ...] each; a block holds the same rows of all of them.
    rows: The rows of a block; the last may be shorter.

  Returns:
    The final state; `state` itself where N is 0.

  >>> ones = jnp.ones(10)
  >>> float(fold(lambda total, x: total + x.sum(), jnp.zeros(()), ones, rows=4))
  10.0
  """
  if any(map(counting.is_sharded, arrays)):
    # The compiler splits one block among the devices and adds up their sums.
    everywhere = jax.tree.map(lambda _: jax.P(), state)
    return jax.sharding.auto_axes(add, out_sharding=everywhere)(state, *arrays)
  size = arrays[0].shape[0]
  whole = size // rows

  def body(i, state):
    parts = (jax.lax.dynamic_slice_in_dim(x, i * rows, rows) for x in arrays)
    return add(state, *parts)

  if whole:
    state = jax.lax.fori_loop(0, whole, body, state)
  if size % rows:
    state = add(state, *(x[whole * rows :] for x in arrays))
  return state


def each_group(
  measure: Callable[[Array], Any], weights: Array, groups: Array
) -> Any:
  """Applies a function of the weights to every group and to all rows.

  Args:
    measure: From weights [N] to a tree of arrays.
    weights: [N].
    groups: [N, G] bool.

  Returns:
    The tree with a leading axis G + 1; the last entry is that of all rows.
  """
  inside = jnp.where(
    with_everyone(groups).T, weights[None, :], jnp.zeros((), weights.dtype)
  )
  return jax.lax.map(measure, inside)
