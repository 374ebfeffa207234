"""The inputs of the layers of any function, read from its jaxpr."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.attribution import jaxprs
from effjax.models.capturing import Layer

Tree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionCapture:
  """A function that also gives what its layers meet.

  Attributes:
    f: `(params, x) -> logits [N, A]`.
  """

  f: Callable

  def __call__(
    self, params: Tree, x: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Apply the function.

    Args:
      params: Any tree of arrays.
      x: Inputs [N, ...].

    Returns:
      The logits [N, A], and by the path of its kernel the inputs of each layer,
      channels last.
    """
    graph, found = self._find(params, x)
    values = jaxprs.run(graph, params, x)
    inputs = {
      path: jnp.transpose(values[number], order)
      for path, (number, order, _) in found.items()
    }
    return values[graph.output], inputs

  def layers(self, params: Tree, x: Any) -> dict[str, Layer]:
    """Say how the layers meet their inputs, without computing anything.

    Args:
      params: The parameters, or their shapes.
      x: Inputs [N, ...], or their shape.

    Returns:
      By the path of its kernel what is known of each layer.
    """
    _, found = self._find(params, x)
    return {path: layer for path, (_, _, layer) in found.items()}

  def _find(self, params, x):
    """Find the layers: the number of the input, its axes, what is known."""
    names = jax.tree.leaves(trees.names(params))
    graph = jaxprs.trace(self.f, names, params, x, stops=False, loops=True)
    by_number = dict(zip(graph.parameters, names, strict=True))
    makers = {node.outputs[0]: node for node in graph.nodes}
    found, several = {}, set()
    for node in graph.nodes:
      if node.kernel is None:
        continue
      number, axes = _origin(graph, makers, node.inputs[node.kernel])
      path, known = by_number.get(number), _read(node, len(axes))
      if path is None or known is None:
        continue
      if path in found:
        several.add(path)
      side = node.inputs[1 - node.kernel]
      order, layer = known
      # Of the parameter's own axes.
      layer = layer._replace(axes=tuple(axes[a] for a in layer.axes))
      found[path] = side, order(len(graph.values[side].shape)), layer
    # What meets several inputs is not described by one of them.
    return graph, {k: v for k, v in found.items() if k not in several}


def capture_function(f: Callable) -> FunctionCapture:
  """Make a function give the inputs of its layers too.

  Layers are products of x with one parameter of rank 2, and convolutions of
  images with one of rank 4, in any order of their axes. A layer that is spelled
  otherwise, hidden in a loop, or called twice is not captured; for linen models
  `models.capture` knows more. The first axis of x is that of copies.

  Args:
    f: `(params, x) -> logits [N, A]`, of any framework: parameters are an
      argument.

  Returns:
    A function `(params, x) -> (logits, {path of the kernel: inputs})`, whose
    method `layers` tells strides and padding.

  >>> f = lambda params, x: jax.nn.relu(x @ params["a"]) @ params["b"].T
  >>> params = {"a": jnp.ones((3, 4)), "b": jnp.ones((2, 4))}
  >>> _, inputs = capture_function(f)(params, jnp.ones((5, 3)))
  >>> {path: x.shape for path, x in inputs.items()}
  {'a': (5, 3), 'b': (5, 4)}
  """
  return FunctionCapture(f)


def _origin(
  graph: jaxprs.Graph, makers: dict[int, Any], number: int
) -> tuple[int, tuple[int, ...]]:
  """Find what a kernel is but for its type and the order of its axes.

  Args:
    graph: The function.
    makers: The operation that makes a value, by its number.
    number: That of the kernel.

  Returns:
    The number of the origin, and which of its axes each axis of the kernel is.
  """
  axes = tuple(range(len(graph.values[number].shape)))
  while number in makers:
    maker = makers[number]
    if maker.primitive == "transpose":
      axes = tuple(maker.params["permutation"][a] for a in axes)
    elif maker.primitive != "convert_element_type":
      break
    (number,) = maker.inputs
  return number, axes


def _read(node: Any, rank: int) -> tuple[Callable, Layer] | None:
  """Describe a layer by its operation.

  Args:
    node: The operation.
    rank: That of its kernel.

  Returns:
    From the rank of the inputs to the order of axes that puts channels last,
    and what is known of the layer; None for what is no plain layer.
  """
  if node.primitive == "dot_general" and rank == 2:
    contracted, batched = node.params["dimension_numbers"]
    if any(batched) or len(contracted[0]) != 1:
      return None
    (axis,) = contracted[node.kernel]
    (channel,) = contracted[1 - node.kernel]
    last = lambda rank: (*(a for a in range(rank) if a != channel), channel)
    return last, Layer((axis, 1 - axis))
  if node.primitive != "conv_general_dilated" or rank != 4:
    return None
  params = node.params
  spec = params["dimension_numbers"]
  if node.kernel != 1 or set(params["lhs_dilation"]) != {1}:
    return None
  if params["batch_group_count"] != 1:
    return None
  batch, channel, *places = spec.lhs_spec
  outputs, inputs, *taps = spec.rhs_spec
  layer = Layer(
    (*taps, inputs, outputs),
    tuple(params["window_strides"]),
    tuple(tuple(pads) for pads in params["padding"]),
    tuple(params["rhs_dilation"]),
    params["feature_group_count"],
  )
  return lambda _: (batch, *places, channel), layer
