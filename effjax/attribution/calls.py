"""Equations of jaxprs that hold jaxprs: what is inside, and if it is linear."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as core
import jax.numpy as jnp

CALLS = {
  "call",
  "checkpoint",
  "closed_call",
  "core_call",
  "custom_jvp_call",
  "custom_vjp_call",
  "custom_vjp_call_jaxpr",
  "jit",
  "pjit",
  "remat",
  "remat2",
}
CUSTOM = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
LAYERS = {"conv_general_dilated", "dot_general"}
# Linear in each operand that depends on x, whatever the others are.
_SUMS = {"add", "add_any", "concatenate", "sub"}
_LINEAR = {
  "broadcast_in_dim",
  "copy",
  "cumsum",
  "expand_dims",
  "neg",
  "optimization_barrier",
  "reduce_sum",
  "reduce_window_sum",
  "reshape",
  "rev",
  "slice",
  "split",
  "squeeze",
  "tile",
  "transpose",
}


def inner(eqn: Any) -> tuple[Any, Sequence]:
  """Returns the jaxpr of a call and its constants.

  Args:
    eqn: An equation whose primitive is one of `CALLS`.

  Returns:
    An open jaxpr, and the values of its constants.
  """
  held = next(eqn.params[key] for key in _INNER if key in eqn.params)
  # A closed jaxpr holds an open one and its constants; jax 0.12 has one kind.
  return getattr(held, "jaxpr", held), getattr(held, "consts", ())


def holds_jaxpr(eqn: Any) -> bool:
  """Says whether an equation is a loop, a branch or a call.

  Args:
    eqn: An equation.

  Returns:
    Whether operations are hidden in it.
  """
  kinds = (core.Jaxpr, core.ClosedJaxpr)
  held = jax.tree.leaves(
    list(eqn.params.values()), is_leaf=lambda leaf: isinstance(leaf, kinds)
  )
  # The one of a scatter or a reduction says how two numbers are joined.
  simple = eqn.primitive.name.startswith(("scatter", "reduce"))
  return not simple and any(isinstance(leaf, kinds) for leaf in held)


def is_linear(jaxpr: Any, positions: set[int]) -> bool:
  """Says whether a function is seen to be linear in some operands together.

  Args:
    jaxpr: An open jaxpr.
    positions: Which operands.

  Returns:
    True if every operation on the way is linear; False proves nothing.
  """
  linear = {jaxpr.invars[k] for k in positions}
  for eqn in jaxpr.eqns:
    own = [
      not isinstance(atom, core.Literal) and atom in linear
      for atom in eqn.invars
    ]
    if not any(own):
      continue
    if not _is_linear_eqn(eqn, own):
      return False
    linear.update(eqn.outvars)
  return all(
    not isinstance(atom, core.Literal) and atom in linear
    for atom in jaxpr.outvars
  )


def _is_linear_eqn(eqn: Any, own: list[bool]) -> bool:
  name = eqn.primitive.name
  if name in CALLS:
    return is_linear(inner(eqn)[0], {k for k, o in enumerate(own) if o})
  if name in _SUMS:
    return all(own)
  if name in LAYERS | {"mul"}:
    return sum(own) == 1
  if name == "div":
    return own == [True, False]
  if name == "pad":
    filling = eqn.invars[1]
    return own[0] and isinstance(filling, core.Literal) and filling.val == 0
  if name == "convert_element_type":
    return jnp.issubdtype(eqn.params["new_dtype"], jnp.floating)
  return name in _LINEAR
