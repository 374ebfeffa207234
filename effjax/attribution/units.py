"""Operations grouped into the units that rules of attribution speak of.

A layer with its bias, an elementwise function (`where(x > 0, x, 0.1 * x)` is
four operations and one function), a max-pool (in the models here a chain of
maxima of slices), an affine map of each entry such as batch normalisation.
Methods walk the units from the logits to x with one rule for each kind.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from effjax.attribution.jaxprs import Graph, Node

_MOVES = {
  "broadcast_in_dim",
  "concatenate",
  "copy",
  "dynamic_slice",
  "dynamic_update_slice",
  "expand_dims",
  "gather",
  "name",
  "optimization_barrier",
  "pad",
  "reduce_precision",
  "reshape",
  "rev",
  "scatter",
  "select_n",
  "sharding_constraint",
  "slice",
  "split",
  "squeeze",
  "tile",
  "transpose",
}
_SUMS = {
  "add",
  "add_any",
  "conv_general_dilated",
  "cumsum",
  "dot_general",
  "reduce_sum",
  "reduce_window_sum",
  "scatter-add",
  "sub",
}
_AFFINE = {
  "add",
  "add_any",
  "convert_element_type",
  "copy",
  "div",
  "mul",
  "neg",
  "sub",
}
_MAXIMA = {"max", "reduce_max", "reduce_window_max"}
_MINIMA = {"min", "reduce_min", "reduce_window_min"}
_PRODUCTS = {"conv_general_dilated", "dot_general", "mul"}
_COMPARISONS = {"and", "eq", "ge", "gt", "is_finite", "le", "lt", "ne", "not"}
_ELEMENTWISE = {
  "abs",
  "acos",
  "acosh",
  "asin",
  "asinh",
  "atan",
  "atan2",
  "atanh",
  "cbrt",
  "ceil",
  "clamp",
  "cos",
  "cosh",
  "erf",
  "erf_inv",
  "erfc",
  "exp",
  "exp2",
  "expm1",
  "floor",
  "integer_pow",
  "lgamma",
  "log",
  "log1p",
  "logistic",
  "pow",
  "round",
  "rsqrt",
  "select_n",
  "sign",
  "sin",
  "sinh",
  "sqrt",
  "square",
  "tan",
  "tanh",
  *_AFFINE,
  *_COMPARISONS,
  "max",
  "min",
  "or",
  "rem",
  "xor",
}


class Layer(NamedTuple):
  """What is known of a layer.

  Attributes:
    names: The parameters that its kernel is computed from.
    kernel: The number of its kernel.
    bias: The number of its bias, None without one.
    convolution: Whether it is a convolution.
    channel_axis: The axis of the channels in its result.
    index: How many layers come before it.
  """

  names: tuple[str, ...]
  kernel: int
  bias: int | None
  convolution: bool
  channel_axis: int
  index: int


class Unit(NamedTuple):
  """Operations that one rule treats together.

  Attributes:
    kind: "layer", "affine" (of each entry), "elementwise", "maximum" or
      "minimum" (pools), "move" (entries change their places), "sum",
      "product", "quotient", "stop" or "other".
    inputs: Numbers of the values that depend on x.
    outputs: Numbers of its results.
    nodes: Its operations.
    shifts: Whether an affine unit adds something that has no part of x.
    layer: What is known of a layer.
    inside: The operations in a function with a derivative of its own, which is
      one of the nodes.
  """

  kind: str
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  nodes: tuple[Node, ...]
  shifts: bool = False
  layer: Layer | None = None
  inside: tuple[Node, ...] = ()

  @property
  def primitive(self) -> str:
    """The name in jax of its last operation."""
    return self.nodes[-1].primitive


class Units(NamedTuple):
  """A model as units.

  Attributes:
    graph: Its operations.
    makers: The unit that computes a value, by the number of its first result.
  """

  graph: Graph
  makers: dict[int, Unit]

  def layers(self) -> list[tuple[Unit, Layer]]:
    """Lists the layers, each once and with its bias."""
    found = {}
    for unit in self.makers.values():
      if unit.layer is not None:
        found[unit.layer.index] = unit, unit.layer
    return list(found.values())


def group(graph: Graph) -> Units:
  """Groups the operations of a model.

  Args:
    graph: The operations.

  Returns:
    The units. An operation may be in several of them: a convolution is a unit
    itself, and again a part of the unit of its sum with the bias; which one is
    used depends on what comes later.
  """
  units = Units(graph, {})
  by_output = {}
  for node in graph.nodes:
    inputs = tuple(
      dict.fromkeys(i for i in node.inputs if graph.values[i].depends)
    )
    if not inputs:
      continue
    if node.again:
      _keep_whole(units, node, inputs, by_output)
      continue
    by_output.update(dict.fromkeys(node.outputs, node))
    units.makers[node.outputs[0]] = _unit(units, node, inputs, by_output)
  return units


def _unit(
  units: Units, node: Node, inputs: tuple[int, ...], by_output: dict
) -> Unit:
  values, name = units.graph.values, node.primitive
  plain = lambda kind, **more: Unit(kind, inputs, node.outputs, (node,), **more)
  if node.kernel is not None:
    return plain("layer", layer=_layer(units, node, node.inputs[node.kernel]))
  if name == "stop_gradient":
    return plain("stop")
  if _is_elementwise(units, node, inputs):
    if len(inputs) == 1:
      return _entrywise(units, node, inputs[0], by_output)
    root = _ancestor(units, inputs, ("affine", "elementwise"), True)
    if root is not None:
      nodes = _between(node, root, by_output)
      return Unit("elementwise", (root,), node.outputs, nodes)
  if name in _MAXIMA | _MINIMA:
    return _pool(units, node, inputs, by_output)
  if name in _MOVES and all(_is_floating(units, i) for i in inputs):
    return plain("move")
  if name in _PRODUCTS and all(values[i].depends for i in node.inputs):
    return plain("product")
  if name in _SUMS:
    return plain("sum")
  return plain("quotient" if name == "div" else "other")


def _layer(units: Units, node: Node, kernel: int) -> Layer:
  values = units.graph.values
  convolution = (
    node.primitive != "dot_general" and len(values[kernel].shape) > 2
  )
  axis = len(values[node.outputs[0]].shape) - 1
  if node.primitive == "conv_general_dilated":
    axis = node.params["dimension_numbers"].out_spec[1]
  index = len(units.layers())
  return Layer(values[kernel].sources, kernel, None, convolution, axis, index)


def _is_elementwise(units: Units, node: Node, inputs: tuple[int, ...]) -> bool:
  if node.primitive not in _ELEMENTWISE or len(node.outputs) != 1:
    return False
  values = units.graph.values
  shape = values[node.outputs[0]].shape
  return all(values[i].shape == shape for i in inputs)


def _is_floating(units: Units, number: int) -> bool:
  return jnp.issubdtype(units.graph.values[number].dtype, jnp.floating)


def _entrywise(units: Units, node: Node, source: int, by_output: dict) -> Unit:
  """Returns the unit of an elementwise operation on one value."""
  name, maker = node.primitive, units.makers.get(source)
  if not _is_floating(units, source):
    # A step function: of the numbers that were compared.
    known = _ancestors(units, source, ("affine", "elementwise"), True)
    root = next((i for i in known if _is_floating(units, i)), source)
    nodes = _between(node, root, by_output)
    return Unit("elementwise", (root,), node.outputs, nodes)
  repeated = node.inputs.count(source) > 1
  if name == "select_n" and node.inputs[0] != source and not repeated:
    return Unit("move", (source,), node.outputs, (node,))
  denominator = name == "div" and node.inputs[1] == source
  affine = name in _AFFINE and _is_floating(units, node.outputs[0])
  if not affine or repeated or denominator:
    if (
      maker is not None
      and {name, maker.primitive} == {"max", "min"}
      and maker.kind == "elementwise"
      and not maker.inside
    ):
      # Cut off on both sides: one function.
      nodes = (*maker.nodes, node)
      return Unit("elementwise", maker.inputs, node.outputs, nodes)
    return Unit("elementwise", (source,), node.outputs, (node,))
  # What is stopped is no bias, such as the maximum that log_softmax subtracts.
  stopped = any(units.graph.values[i].stopped for i in node.inputs)
  shifts = name in ("add", "add_any", "sub") and not stopped
  if maker is not None and maker.kind == "affine":
    nodes, shifts = (*maker.nodes, node), shifts or maker.shifts
    return Unit("affine", maker.inputs, node.outputs, nodes, shifts)
  layer = maker.layer if maker is not None else None
  if maker and layer and layer.bias is None and name == "add":
    (bias,) = (i for i in node.inputs if i != source)
    nodes, layer = (*maker.nodes, node), layer._replace(bias=bias)
    return Unit("layer", maker.inputs, node.outputs, nodes, layer=layer)
  return Unit("affine", (source,), node.outputs, (node,), shifts)


def _pool(
  units: Units, node: Node, inputs: tuple[int, ...], by_output: dict
) -> Unit:
  kind = "maximum" if node.primitive in _MAXIMA else "minimum"
  root = None
  if len(inputs) > 1:
    root = _ancestor(units, inputs, ("move", kind), False)
  if root is None:
    return Unit(kind, inputs, node.outputs, (node,))
  # The largest of each column, then of each row, is one pool.
  maker = units.makers.get(root)
  if maker is not None and maker.kind == kind and len(maker.inputs) == 1:
    root = maker.inputs[0] if maker.primitive == node.primitive else root
  return Unit(kind, (root,), node.outputs, _between(node, root, by_output))


def _ancestors(
  units: Units, number: int, kinds: Sequence[str], same_shape: bool
) -> list[int]:
  """Lists a value and those it is computed from, one by one."""
  values, found = units.graph.values, [number]
  while True:
    maker = units.makers.get(found[-1])
    if maker is None or maker.kind not in kinds or len(maker.inputs) != 1:
      return found
    if same_shape and values[maker.inputs[0]].shape != values[number].shape:
      return found
    found.append(maker.inputs[0])


def _ancestor(
  units: Units, numbers: Sequence[int], kinds: Sequence[str], same_shape: bool
) -> int | None:
  """Returns the last value that all are computed from, None without one."""
  first, *rest = [_ancestors(units, i, kinds, same_shape) for i in numbers]
  shared = (i for i in first if all(i in others for others in rest))
  return next(shared, None)


def _between(last: Node, root: int, by_output: dict) -> tuple[Node, ...]:
  """Lists the operations from a value to a result, in their order."""
  found, waiting = {}, [last]
  while waiting:
    node = waiting.pop()
    if node.outputs[0] in found:
      continue
    found[node.outputs[0]] = node
    waiting += [
      by_output[i] for i in node.inputs if i != root and i in by_output
    ]
  return tuple(found[i] for i in sorted(found))


def _keep_whole(
  units: Units, node: Node, inputs: tuple[int, ...], by_output: dict
) -> None:
  """Gives an elementwise function the derivative that it was given."""
  if len(inputs) != 1 or len(node.outputs) != 1:
    return
  (output,) = node.outputs
  known = _ancestors(units, output, ("affine", "elementwise"), True)
  if output != inputs[0] and inputs[0] in known:
    inside = _between(by_output[output], inputs[0], by_output)
    units.makers[output] = Unit(
      "elementwise", inputs, node.outputs, (node,), inside=inside
    )
