"""Gradients with another rule at rectifiers.

A rectifier is 0 below 0 and x above it, up to a cap, and is recognised where it
is written as a maximum, a choice or a product with a comparison: `jax.nn.relu`,
`relu6`, `jnp.maximum(x, 0)`, `jnp.clip(x, 0, 6)`, `where(x > 0, x, 0)`,
`x * (x > 0)`. Not recognised are sums of both signs, such as
`(x + abs(x)) / 2`. Not meant are maxima that only keep rounding from making a
variance negative, as normalisation has them, and hard sigmoids,
`relu6(x + 3) / 6`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree as trees
from effjax.attribution import copies as repeated
from effjax.attribution import jaxprs, propagation
from effjax.attribution.units import Unit, Units, group

Array = jax.Array
Model = repeated.Model

_ADDING = {"reduce_sum", "reduce_window_sum"}
# A sum of squares, or squares in another place, are squares again.
_KEEPING = {
  "broadcast_in_dim",
  "convert_element_type",
  "reshape",
  "squeeze",
  "transpose",
  *_ADDING,
}
_PROBES = np.array([-1e4, -7.0, -1.5, -0.25, 0.0, 0.25, 0.75])


def guided_backprop(f: Model, params: Any, x: Any, target: Any) -> Array:
  """Returns the gradient without its negative parts at rectifiers.

  At a rectifier the gradient g becomes max(g, 0) where x > 0, else 0.
  Springenberg et al. 2015, arXiv:1412.6806.

  Args:
    f: `(params, x) -> logits [B, A]`, see `saliency`; its jaxpr is read, and
      functions with a derivative of their own are differentiated like others
      unless they are elementwise or convolutions.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `saliency`, or if x passes through a loop of jax.

  >>> f = lambda w, x: jax.nn.relu(x @ w) @ np.float32([[1.0], [-1.0]])
  >>> guided_backprop(f, jnp.eye(2), jnp.array([[1.0, 1.0]]), 0).tolist()
  [[1.0, 0.0]]
  """
  f, params, x, target, names = read(f, params, x, target)
  return _modified(f, names, "guided", params, x, target)


def deconvolution(f: Model, params: Any, x: Any, target: Any) -> Array:
  """Returns the gradient with rectifiers applied to it instead of to x.

  At a rectifier the gradient g becomes max(g, 0), whatever x is. Zeiler and
  Fergus 2014, arXiv:1311.2901.

  Args:
    f: `(params, x) -> logits [B, A]`, see `guided_backprop`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `guided_backprop`.

  >>> f = lambda w, x: jax.nn.relu(x @ w) @ np.float32([[1.0], [-1.0]])
  >>> deconvolution(f, jnp.eye(2), jnp.array([[-1.0, 1.0]]), 0).tolist()
  [[1.0, 0.0]]
  """
  f, params, x, target, names = read(f, params, x, target)
  return _modified(f, names, "deconvolution", params, x, target)


def read(f: Model, params: Any, x: Any, target: Any) -> tuple:
  """Checks the arguments of a method that reads the jaxpr of f.

  Args:
    f: `(params, x) -> logits [B, A]`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.

  Returns:
    What `copies.read` returns, and the names of the leaves that are traced.

  Raises:
    ValueError: As for `saliency`.
  """
  leaves = jax.tree.leaves(params)
  every = jax.tree.leaves(trees.names(params))
  names = tuple(
    name
    for name, leaf in zip(every, leaves, strict=True)
    if trees.is_array(leaf)
  )
  return *repeated.read(f, params, x, target), names


def one_hot(units: Units, target: Array) -> Array:
  """Returns [B, A] with 1 at the targets, float32 at least."""
  value = units.graph.values[units.graph.output]
  return jax.nn.one_hot(
    target, value.shape[1], dtype=repeated.wide(value.dtype)
  )


def is_rectifier(units: Units, unit: Unit) -> bool:
  """Says whether a unit is 0 below 0 and x above it, up to a cap.

  Args:
    units: The model.
    unit: One of its units.

  Returns:
    Whether it is, as far as a few numbers show.
  """
  if unit.kind != "elementwise":
    return False
  values = units.graph.values
  (source,), (output,) = unit.inputs, unit.outputs
  if not jnp.issubdtype(values[output].dtype, jnp.floating):
    return False
  nodes = unit.inside or unit.nodes
  # Constants in the shape of the probes, which may be any.
  known = {source: _PROBES.astype(values[source].dtype)}
  made = {source, *(i for node in nodes for i in node.outputs)}
  for number in {i for node in nodes for i in node.inputs} - made:
    value = values[number]
    if value.scalar is None:
      return False
    known[number] = np.full(_PROBES.shape, value.scalar, value.dtype)
  with jax.ensure_compile_time_eval():
    known = {i: jnp.asarray(array) for i, array in known.items()}
    (result,) = propagation.evaluate(unit._replace(nodes=nodes), [], known)
    expected = jnp.maximum(known[source], 0)
    alike = bool(jnp.all(result == expected))
  return alike and not (
    _is_square(units, source) or _is_hard_sigmoid(units, unit)
  )


def _is_square(units: Units, number: int, summed: bool = False) -> bool:
  """Says whether a value is of squares: negative by rounding only.

  Sums and means of squares are, and the variance E[x^2] - E[x]^2.

  Args:
    units: The model.
    number: The value.
    summed: Whether squares count only once they are summed up.

  Returns:
    Whether it is, as far as its operations show.
  """
  maker = units.makers.get(number)
  node = maker.nodes[-1] if maker is not None else None
  if node is None or node.outputs != (number,):
    return False
  name, (first, *others) = node.primitive, node.inputs
  if name in ("add", "sub"):
    # The difference of two squares may well be negative, unless one is a mean.
    return _is_square(units, others[0]) and _is_square(
      units, first, summed or name == "sub"
    )
  values = units.graph.values
  moving = [i for i in node.inputs if values[i].depends]
  # Means are quotients by a count, and those of a part choose between it and 0.
  mean = name == "div" and moving == [first]
  part = name == "select_n" and len(moving) == 1
  part = part and any(values[i].scalar == 0 for i in others)
  if mean or part or name in _KEEPING:
    return _is_square(units, moving[0], summed and name not in _ADDING)
  even = name == "integer_pow" and node.params["y"] % 2 == 0
  square = name == "square" or even or (name == "mul" and others == [first])
  return square and not summed


def _is_hard_sigmoid(units: Units, unit: Unit) -> bool:
  """Says whether a capped rectifier has half its cap added before it."""
  maker = units.makers.get(unit.inputs[0])
  if maker is None or maker.primitive != "add":
    return False
  numbers = lambda node: [
    units.graph.values[i].scalar
    for i in node.inputs
    if units.graph.values[i].scalar is not None
  ]
  caps = [c for node in unit.inside or unit.nodes for c in numbers(node)]
  return any(s > 0 and 2 * s in caps for s in numbers(maker.nodes[-1]))


def gradient_rule(
  values: Sequence[Array], replaced: Callable | None = None
) -> propagation.Rule:
  """Returns the chain rule, with another one for some units.

  Args:
    values: All values.
    replaced: From a unit and what its results got to what its inputs get, or
      None where the chain rule holds.

  Returns:
    A rule.
  """

  def rule(unit, got):
    if unit.kind == "stop":
      return [None]
    passed = replaced(unit, got) if replaced is not None else None
    if passed is None:
      passed = propagation.pull_back(unit, values, got)
    return passed

  return rule


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _modified(f, names, method, params, x, target):
  units = group(jaxprs.trace(f, names, params, x))
  values = jaxprs.run(units.graph, params, x)

  def replaced(unit, got):
    if not is_rectifier(units, unit):
      return None
    positive = jnp.maximum(got[0], 0)
    if method == "deconvolution":
      return [positive]
    return propagation.pull_back(unit, values, [positive])

  start = one_hot(units, target)
  got = propagation.walk(units, start, gradient_rule(values, replaced))
  return propagation.map_of(units, got, x)
