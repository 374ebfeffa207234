"""A model as a list of primitive operations: the jaxpr of f, written flat.

Methods that replace the chain rule need every operation between x and the
logits. Calls (jit, remat, custom derivatives) are written out, with one
exception: a function with a derivative of its own that is linear in x and in
one parameter, such as a convolution spelled as matrix products, stays one
operation. Values that do not depend on x are computed but not followed.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as core
import jax.numpy as jnp
import numpy as np

from effjax.attribution.calls import (
  CALLS,
  CUSTOM,
  LAYERS,
  holds_jaxpr,
  inner,
  is_linear,
)

Array = jax.Array

# Operands of length 1 along an axis, or without axes, are repeated.
_REPEATING = {
  "add",
  "add_any",
  "atan2",
  "div",
  "eq",
  "ge",
  "gt",
  "le",
  "lt",
  "max",
  "min",
  "mul",
  "ne",
  "pow",
  "rem",
  "sub",
}
# Constants that are looked at: whether all entries are one number.
_SMALL = range(1, 1 << 16)
# What a constant stays through, though its shape may change.
_KEEPS_SCALARS = {
  "broadcast_in_dim",
  "convert_element_type",
  "copy",
  "expand_dims",
  "reshape",
  "squeeze",
}


class Value(NamedTuple):
  """What is known of an array before it is computed.

  Attributes:
    shape: Its shape.
    dtype: Its dtype.
    depends: Whether it depends on x.
    sources: Names of the parameters that it depends on, "" for an array that f
      closes over; followed for values that do not depend on x.
    scalar: The number that all entries are, None if that is not known.
    stopped: Whether it would depend on x but for `jax.lax.stop_gradient`.
  """

  shape: tuple[int, ...]
  dtype: Any
  depends: bool
  sources: tuple[str, ...] = ()
  scalar: Any = None
  stopped: bool = False


class Node(NamedTuple):
  """An operation.

  Attributes:
    primitive: Its name in jax.
    params: Its static parameters.
    inputs: The numbers of its operands.
    outputs: The numbers of its results.
    evaluate: From arrays to a list of arrays.
    kernel: Which operand is the kernel of a layer, None for other operations.
    again: Whether the results are computed by earlier nodes too; those are the
      inside of a function with a derivative of its own, and this is the whole.
  """

  primitive: str
  params: dict[str, Any]
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  evaluate: Callable[..., Sequence[Array]]
  kernel: int | None = None
  again: bool = False


@dataclasses.dataclass
class Graph:
  """The operations of a model in the order of their computation.

  Attributes:
    values: What is known of every array, by number.
    nodes: The operations.
    constants: Arrays that are neither parameters nor x, by number.
    parameters: The numbers of the parameters.
    x: The number of x.
    output: The number of the logits.
  """

  values: list[Value]
  nodes: list[Node]
  constants: dict[int, Any]
  parameters: list[int]
  x: int = -1
  output: int = -1

  def add(self, value: Value) -> int:
    """Notes a value and returns its number."""
    self.values.append(value)
    return len(self.values) - 1


class _Options(NamedTuple):
  """What `trace` is asked for."""

  stops: bool
  loops: bool


def trace(
  f: Callable,
  names: Sequence[str],
  params: Any,
  x: Any,
  *,
  stops: bool = True,
  loops: bool = False,
) -> Graph:
  """Writes a model as operations.

  Args:
    f: `(params, x) -> logits`.
    names: The names of the leaves of params.
    params: A tree of arrays and numbers.
    x: An array.
    stops: Whether `jax.lax.stop_gradient` makes a value independent of x.
    loops: Whether a loop or branch that x passes through is one operation
      instead of an error.

  Returns:
    The operations.

  Raises:
    ValueError: If the logits do not depend on x, or through a loop.

  >>> graph = trace(lambda w, x: jax.nn.relu(x @ w), [""], np.eye(2), np.eye(2))
  >>> [node.primitive for node in graph.nodes if not node.again]
  ['dot_general', 'max']
  """
  closed = jax.make_jaxpr(f)(params, x)
  graph = Graph([], [], {}, [])
  for name, var in zip(names, closed.jaxpr.invars[:-1], strict=True):
    value = Value(var.aval.shape, var.aval.dtype, False, (name,))
    graph.parameters.append(graph.add(value))
  var = closed.jaxpr.invars[-1]
  graph.x = graph.add(Value(var.aval.shape, var.aval.dtype, True))
  operands = [*graph.parameters, graph.x]
  options = _Options(stops, loops)
  outputs = _inline(graph, closed.jaxpr, closed.consts, operands, options)
  graph.output = outputs[0]
  if not graph.values[graph.output].depends:
    raise ValueError(
      "the logits of f do not depend on x; nothing explains them"
    )
  return graph


def run(graph: Graph, params: Any, x: Any) -> list[Array]:
  """Computes every value.

  Args:
    graph: A model.
    params: Its parameters.
    x: Its input.

  Returns:
    The arrays by number.
  """
  values: list = [None] * len(graph.values)
  for number, constant in graph.constants.items():
    values[number] = constant
  leaves = jax.tree.leaves(params)
  for number, leaf in zip(graph.parameters, leaves, strict=True):
    values[number] = jnp.asarray(leaf, graph.values[number].dtype)
  values[graph.x] = x
  for node in graph.nodes:
    if not node.again:
      results = node.evaluate(*[values[i] for i in node.inputs])
      for number, result in zip(node.outputs, results, strict=True):
        values[number] = result
  return values


def _inline(
  graph: Graph,
  jaxpr: Any,
  constants: Sequence,
  inputs: Sequence,
  options: _Options,
) -> list[int]:
  """Appends the operations of a jaxpr; returns the numbers of its results."""
  table = dict(zip(jaxpr.invars, inputs, strict=True))
  for var, constant in zip(jaxpr.constvars, constants, strict=True):
    table[var] = _constant(graph, constant, ("",))

  def read(atom):
    if isinstance(atom, core.Literal):
      return _constant(graph, atom.val, ())
    return table[atom]

  for eqn in jaxpr.eqns:
    numbers = tuple(read(atom) for atom in eqn.invars)
    results = _append(graph, eqn, numbers, options)
    table.update(zip(eqn.outvars, results, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _constant(graph: Graph, value: Any, sources: tuple[str, ...]) -> int:
  aval = jax.typeof(value)
  known = (
    not isinstance(value, jax.core.Tracer)
    and np.size(value) in _SMALL
    and not jnp.issubdtype(aval.dtype, jax.dtypes.extended)
  )
  entries = np.unique(np.asarray(value)) if known else ()
  scalar = entries[0] if len(entries) == 1 else None
  number = graph.add(Value(aval.shape, aval.dtype, False, sources, scalar))
  graph.constants[number] = value
  return number


def _append(
  graph: Graph, eqn: Any, inputs: tuple[int, ...], options: _Options
) -> Sequence[int]:
  """Appends an equation, written out if it is a call."""
  name = eqn.primitive.name
  if name in _REPEATING:
    inputs = tuple(_repeat(graph, i, eqn.outvars[0].aval.shape) for i in inputs)
  known = [graph.values[i] for i in inputs]
  depends = [value.depends for value in known]
  kernel = _kernel(eqn, known)
  evaluate = _evaluation(eqn, depends)
  if name in CALLS and kernel is None:
    jaxpr, constants = inner(eqn)
    outputs = _inline(graph, jaxpr, constants, inputs, options)
    if name in CUSTOM and any(depends):
      # What is handed through has a derivative of its own too.
      outputs = [_copy(graph, i) if i in inputs else i for i in outputs]
      graph.nodes.append(
        Node(name, eqn.params, inputs, tuple(outputs), evaluate, again=True)
      )
    return outputs
  opaque = any(depends) and holds_jaxpr(eqn) and kernel is None
  if opaque and not options.loops:
    raise ValueError(
      f"x passes through the primitive {name!r}, inside of which rules cannot"
      " be applied; write the loop or branch out in Python (unrolled, without"
      " jax.lax.scan, while_loop or cond), or use a method of gradients such as"
      " integrated_gradients"
    )
  follows = any(depends) and not (name == "stop_gradient" and options.stops)
  stopped = not follows and any(v.depends or v.stopped for v in known)
  sources = dict.fromkeys(s for value in known for s in value.sources)
  scalar = known[0].scalar if name in _KEEPS_SCALARS else None
  outputs = tuple(
    graph.add(
      Value(
        var.aval.shape,
        var.aval.dtype,
        follows,
        () if follows else tuple(sources),
        scalar,
        stopped,
      )
    )
    for var in eqn.outvars
  )
  node = Node(name, eqn.params, inputs, outputs, evaluate, kernel)
  graph.nodes.append(node)
  return outputs


def _repeat(graph: Graph, number: int, shape: tuple[int, ...]) -> int:
  """Broadcasts a value that depends on x by an operation of its own."""
  value = graph.values[number]
  if not value.depends or value.shape == shape:
    return number
  output = graph.add(value._replace(shape=shape))
  repeat = lambda x: [jnp.broadcast_to(x, shape)]
  node = Node("broadcast_in_dim", {}, (number,), (output,), repeat)
  graph.nodes.append(node)
  return output


def _copy(graph: Graph, number: int) -> int:
  output = graph.add(graph.values[number])
  graph.nodes.append(Node("copy", {}, (number,), (output,), lambda x: [x]))
  return output


def _kernel(eqn: Any, known: Sequence[Value]) -> int | None:
  """Returns which operand of a layer is its kernel, None for other equations.

  A layer is linear in one operand that depends on x and in one that depends on
  parameters. Constants that are made in f, such as the weights of a resize, are
  not kernels.
  """
  name = eqn.primitive.name
  if name not in LAYERS | CUSTOM - {"custom_jvp_call"}:
    return None
  moving = [k for k, value in enumerate(known) if value.depends]
  kernels = [
    k
    for k, value in enumerate(known)
    if value.sources and jnp.issubdtype(value.dtype, jnp.floating)
  ]
  if len(moving) != 1 or len(kernels) != 1:
    return None
  if name not in LAYERS:
    jaxpr, _ = inner(eqn)
    if len(jaxpr.outvars) != 1 or not all(
      is_linear(jaxpr, {k}) for k in (moving[0], kernels[0])
    ):
      return None
  return kernels[0]


def _evaluation(eqn: Any, depends: Sequence[bool]) -> Callable:
  """Returns how to compute an equation, with the derivative that rules need.

  The gradient of a maximum goes to the first of equal entries, and where one
  operand does not depend on x, to the other only if that is larger: that of a
  rectifier is 0 at 0.
  """
  name = eqn.primitive.name
  if name in ("max", "min") and any(depends):
    above = jnp.greater if name == "max" else jnp.less
    above_or_equal = jnp.greater_equal if name == "max" else jnp.less_equal
    first = above_or_equal if depends[1] else above
    # A NaN is passed on, as it would be without these rules.
    return lambda a, b: [jnp.where(first(a, b) | (a != a), a, b)]
  if name in ("reduce_max", "reduce_min") and any(depends):
    search = jnp.argmax if name == "reduce_max" else jnp.argmin
    axes = eqn.params["axes"]
    return lambda x: [_extreme(x, axes, search)]

  def evaluate(*arrays):
    params = eqn.primitive.get_bind_params(eqn.params)
    results = eqn.primitive.bind(*arrays, **params)
    return results if eqn.primitive.multiple_results else [results]

  return evaluate


def _extreme(x: Array, axes: tuple[int, ...], search: Callable) -> Array:
  """Reduces axes to one entry, which alone gets a gradient."""
  kept = [axis for axis in range(x.ndim) if axis not in axes]
  flat = x.transpose(*kept, *axes)
  flat = flat.reshape(*[x.shape[axis] for axis in kept], -1)
  index = search(flat, axis=-1, keepdims=True)
  return jnp.take_along_axis(flat, index, axis=-1)[..., 0]
