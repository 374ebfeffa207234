"""(IA)^3: one trained factor for each output, or input, of a kernel."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.adapters import layouts
from effjax.adapters.base import (
  Adapter,
  Flat,
  Plan,
  Recipe,
  Tree,
  key_of,
  make,
  selected,
  taken,
  wide_type,
)
from effjax.adapters.factored import Part
from effjax.adapters.low_rank import ruled

_SIDES = ("outputs", "inputs")


def ia3(
  scaled: str | Sequence[tuple[str, str]] = "outputs",
  *,
  where: trees.Where = None,
  layout: layouts.Layout = None,
) -> Adapter:
  """Multiply the outputs or inputs of kernels with trained factors.

  (IA)^3 (Liu et al. 2022, arXiv 2205.05638, section 3.3) scales keys, values
  and the inner activations of feed-forward layers: outputs of the kernels of
  keys and values, inputs of the kernel that follows the activations. The
  factors begin as 1, and kernels unchanged bit for bit. A bias is not scaled.

  Args:
    scaled: "outputs" or "inputs"; or rules (regular expression, one of them).
    where: Selector of the kernels; by default floating leaves of rank 2 or
      more.
    layout: Which axes of a kernel are inputs and outputs, see
      `adapters.layouts`.

  Returns:
    The adapter; its theta has the role "gains" [..., O] or [..., I].

  Raises:
    ValueError: If a name is neither.

  >>> adapter = ia3([("down", "inputs"), (".*", "outputs")])
  >>> params = {"down": jnp.ones((3, 2)), "value": jnp.ones((2, 4))}
  >>> {key: x.shape for key, x in adapter.init(None, params)[0].items()}
  {'down/gains': (3,), 'value/gains': (4,)}
  """
  rules = scaled if isinstance(scaled, list | tuple) else [(".*", scaled)]
  for pattern, side in rules:
    if side not in _SIDES:
      raise ValueError(
        f"{side!r} of {pattern!r} is neither 'outputs' nor 'inputs'"
      )

  def sides(leaves: dict[str, Any]) -> dict[str, tuple[str, str, tuple]]:
    """Find side, layout and shape of the factors of every kernel."""
    found = {}
    side = ruled(rules, list(leaves), "scaled")
    for path, leaf in leaves.items():
      word = layouts.resolve(layout, path, leaf.shape)
      batch, inputs, outputs = layouts.sizes(word, leaf.shape)
      last = outputs if side[path] == "outputs" else inputs
      found[path] = side[path], word, (*batch, last)
    return found

  def start(key: jax.Array, leaves: dict[str, Any]) -> tuple[Flat, Flat]:
    del key  # nothing is drawn
    return {
      key_of(path, "gains"): jnp.ones(shape, wide_type(leaves[path]))
      for path, (_, _, shape) in sides(leaves).items()
    }, {}

  def parts(
    kernels: dict[str, Any], theta: Flat, fixed: Flat
  ) -> dict[str, Part]:
    del fixed
    found = {}
    for path, (side, _, shape) in sides(kernels).items():
      (gains,) = taken(theta, path, ("gains",), "theta")
      if gains.shape != shape:
        raise ValueError(
          f"{key_of(path, 'gains')!r} has shape {gains.shape}; {shape} is"
          f" wanted for a kernel of shape {tuple(kernels[path].shape)}"
        )
      found[path] = Part(**{side: gains})
    return found

  def rewrite(kernels: Flat, theta: Flat, fixed: Flat) -> Flat:
    found = {}
    known = sides(kernels)
    for path, part in parts(kernels, theta, fixed).items():
      kernel, word = kernels[path], known[path][1]
      matrix = layouts.to_matrix(kernel, word)
      if part.outputs is not None:
        matrix = matrix * part.outputs[..., None, :].astype(kernel.dtype)
      else:
        assert part.inputs is not None
        matrix = matrix * part.inputs[..., :, None].astype(kernel.dtype)
      found[path] = layouts.from_matrix(matrix, word, kernel.shape)
    return found

  def plan(params: Tree) -> Plan:
    kernels = selected(params, where)
    return Plan(
      kernels=kernels,
      start=start,
      rewrite=rewrite,
      parts=functools.partial(parts, kernels),
    )

  return make(
    Recipe(roles=frozenset({"gains"}), fixed_roles=frozenset(), plan=plan)
  )
