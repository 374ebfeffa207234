"""Deltas: what an edit adds to parameters, as a flat dict by path.

    delta = editing.to_delta("block_1/mlp/down/kernel", editing.rome(...))
    edited, record = editing.apply(params, delta)
    params = editing.undo(edited, record)

Sums are made in float32 or wider and rounded once to the type of the
parameters, so subtracting a delta restores them only nearly; `apply` keeps the
leaves that it replaces, and `undo` puts these very arrays back.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.adapters import layouts

Array = jax.Array
Tree = Any
Delta = dict[str, Array]


class Record(NamedTuple):
  """What undoes an edit.

  Attributes:
    before: Leaves by path, as they were.
    after: The same, as the edit left them.
  """

  before: Delta
  after: Delta


def to_delta(
  path: str,
  matrix: Array,
  *,
  shape: Sequence[int] | None = None,
  layout: layouts.Layout = None,
) -> Delta:
  """Name a change of a matrix, and write it as the kernel of that path.

  Args:
    path: Path of the kernel.
    matrix: [O, I]; of a convolution [O, I kh kw], by input channel, then row,
      then column, as `pruning.conv_input_gram` has them; of stacked kernels
      [..., O, I].
    shape: Shape of the kernel; without it the kernel is [I, O], or [O, I] where
      the path ends in "weight".
    layout: How the axes of the kernel form a matrix, a word or rules; see
      `effjax.adapters.layouts`.

  Returns:
    The delta.

  Raises:
    ValueError: If the matrix does not fit the shape.

  >>> to_delta("dense/kernel", jnp.ones((2, 3)))["dense/kernel"].shape
  (3, 2)
  """
  matrix = jnp.asarray(matrix)
  if matrix.ndim < 2:
    raise ValueError(f"a matrix [O, I] is wanted, got shape {matrix.shape}")
  if shape is None:
    word = layouts.resolve(layout, path, matrix.shape)
    if word not in ("io", "oi"):
      raise ValueError(
        f"the layout {word!r} of {path!r} needs the shape of its kernel"
      )
    return {path: matrix if word == "oi" else matrix.T}
  word = layouts.resolve(layout, path, shape)
  batch, inputs, outputs = layouts.sizes(word, shape)
  if matrix.shape != (*batch, outputs, inputs):
    raise ValueError(
      f"{path!r} of shape {tuple(shape)} takes a matrix"
      f" {(*batch, outputs, inputs)}, got {matrix.shape}"
    )
  if word.replace("b", "") in ("iiio", "iiiio"):
    # Input channels are the slowest in the matrix, the fastest in the kernel.
    stacked, (*space, channel), out = (
      [axis for axis, letter in enumerate(word) if letter == group]
      for group in "bio"
    )
    order = (*stacked, *out, channel, *space)
    torch = matrix.reshape([shape[axis] for axis in order])
    return {path: jnp.moveaxis(torch, range(len(order)), order)}
  kernel = layouts.from_matrix(jnp.swapaxes(matrix, -1, -2), word, shape)
  return {path: kernel}


def task_vector(base: Tree, tuned: Tree, *, where: trees.Where = None) -> Delta:
  """Subtract parameters from what training made of them.

  Ilharco et al., "Editing Models with Task Arithmetic" (arXiv 2212.04089): add
  it to learn the task, add it with a negative scale to forget it.

  Args:
    base: Parameters before.
    tuned: Parameters after, of the same structure.
    where: Which leaves; by default all that are floating.

  Returns:
    The delta, float32 or wider.

  Raises:
    ValueError: If the trees do not match.

  >>> vector = task_vector({"b": jnp.zeros(2)}, {"b": jnp.ones(2)})
  >>> vector["b"].tolist()
  [1.0, 1.0]
  """
  if where is None:
    where = lambda _, leaf: trees.is_floating(leaf)
  chosen = jax.tree.leaves(trees.select(base, where))
  after = trees.align(base, tuned, "tuned tree")
  delta = {}
  for (name, x), y, c in zip(_named(base), after, chosen, strict=True):
    if not c:
      continue
    if not trees.is_array(y) or x.shape != y.shape:
      raise ValueError(
        f"{name!r} has shape {x.shape} in the base, {getattr(y, 'shape', None)}"
        " in the tuned tree"
      )
    wide = _wide(x, y)
    delta[name] = y.astype(wide) - x.astype(wide)
  return delta


def add(params: Tree, delta: Mapping[str, Array], scale: Any = 1.0) -> Tree:
  """Add a delta to parameters.

  Args:
    params: Parameters, any pytree.
    delta: The delta.
    scale: What it is multiplied by, a number or traced.

  Returns:
    Parameters of the same structure and types.

  Raises:
    ValueError: If a path is not one of the parameters, a shape another, or the
      scale no number.

  >>> add({"b": jnp.ones(1)}, {"b": jnp.ones(1)}, -1.0)["b"].tolist()
  [0.0]
  """
  return apply(params, delta, scale)[0]


def apply(
  params: Tree, delta: Mapping[str, Array], scale: Any = 1.0
) -> tuple[Tree, Record]:
  """Add a delta to parameters, and keep what undoes it bit by bit.

  Args:
    params: Parameters, any pytree.
    delta: The delta.
    scale: What it is multiplied by, a number or traced.

  Returns:
    The parameters, and the record for `undo`, which holds the old leaves
    without copying them.

  Raises:
    ValueError: If a path is not one of the parameters, a shape another, or the
      scale no number.
  """
  scale = _number("scale", scale)
  named = _named(params)
  _check_paths(delta, [name for name, _ in named])
  before = {name: leaf for name, leaf in named if name in delta}
  after = {}
  for name, leaf in before.items():
    change = jnp.asarray(delta[name])
    if not trees.is_floating(leaf) or leaf.shape != change.shape:
      raise ValueError(
        f"the delta of {name!r} has shape {change.shape}, the leaf is"
        f" {getattr(leaf, 'dtype', type(leaf).__name__)}"
        f" {getattr(leaf, 'shape', '')}"
      )
    wide = _wide(leaf, change)
    step = scale.astype(wide) * change.astype(wide)
    after[name] = (leaf.astype(wide) + step).astype(leaf.dtype)
  return _with(params, after), Record(before, after)


def undo(params: Tree, record: Record) -> Tree:
  """Take an edit back, bit by bit.

  Args:
    params: Parameters in which the leaves are as the edit left them: later
      edits of the same leaves are undone first.
    record: What `apply` returned.

  Returns:
    Parameters with the leaves from before.

  Raises:
    ValueError: If a leaf is not as the edit left it (which is not looked at
      under jit).

  >>> params = {"b": jnp.array([0.1])}
  >>> edited, record = apply(params, {"b": jnp.array([1e-9])})
  >>> undo(edited, record)["b"] is params["b"]
  True
  """
  named = dict(_named(params))
  _check_paths(record.before, list(named))
  for name, after in record.after.items():
    leaf = named[name]
    if leaf is after or any(
      isinstance(x, jax.core.Tracer) for x in (leaf, after)
    ):
      continue
    if not jnp.array_equal(leaf, after, equal_nan=True):
      raise ValueError(
        f"{name!r} has changed since the edit that is to be undone: undo later"
        " edits first"
      )
  return _with(params, record.before)


def scaled(delta: Mapping[str, Array], factor: Any) -> Delta:
  """Multiply a delta by a number.

  Args:
    delta: The delta.
    factor: A number or traced.

  Returns:
    The delta, of the same types; each number is rounded once.

  Raises:
    ValueError: If the factor is no number, or a leaf is not floating.

  >>> scaled({"b": jnp.ones(1)}, -2.0)["b"].tolist()
  [-2.0]
  """
  factor = _number("factor", factor)
  found: Delta = {}
  for path, x in delta.items():
    if not trees.is_floating(x):
      raise ValueError(
        f"the delta of {path!r} must be floating to be scaled, got"
        f" {getattr(x, 'dtype', type(x).__name__)}"
      )
    x = jnp.asarray(x)
    wide = _wide(x)
    found[path] = (factor.astype(wide) * x.astype(wide)).astype(x.dtype)
  return found


def total(*deltas: Mapping[str, Array]) -> Delta:
  """Add deltas up.

  Args:
    *deltas: Deltas; a path that one lacks is unchanged by it.

  Returns:
    The delta of all of them, each leaf of the type that its parts promote to;
    each number is rounded once.

  Raises:
    ValueError: If deltas of one path have different shapes.

  >>> total({"b": jnp.ones(1)}, {"a": jnp.ones(1)}, {"b": jnp.ones(1)})
  {'b': Array([2.], dtype=float32), 'a': Array([1.], dtype=float32)}
  """
  parts: dict[str, list[Array]] = {}
  for delta in deltas:
    for path, x in delta.items():
      others = parts.setdefault(path, [])
      if others and others[0].shape != x.shape:
        raise ValueError(
          f"the deltas of {path!r} have shapes {others[0].shape} and {x.shape}"
        )
      others.append(jnp.asarray(x))
  return {path: _sum(changes) for path, changes in parts.items()}


def _sum(changes: Sequence[Array]) -> Array:
  if len(changes) == 1:
    return changes[0]
  wide = _wide(*changes)
  summed = sum((x.astype(wide) for x in changes[1:]), changes[0].astype(wide))
  return summed.astype(jnp.result_type(*changes))


def _number(name: str, value: Any) -> Array:
  """Check that a scale is one number, which no leaf is broadcast with."""
  try:
    number = jnp.asarray(value)
  except (TypeError, ValueError):
    number = None
  if number is None or number.ndim:
    given = repr(value) if number is None else f"shape {number.shape}"
    raise ValueError(f"{name} must be a number, got {given}")
  return number


def _named(params: Tree) -> list[tuple[str, Any]]:
  names = jax.tree.leaves(trees.names(params))
  return list(zip(names, jax.tree.leaves(params), strict=True))


def _with(params: Tree, leaves: Mapping[str, Any]) -> Tree:
  return jax.tree.map(
    lambda name, leaf: leaves.get(name, leaf), trees.names(params), params
  )


def _check_paths(delta: Mapping[str, Any], known: list[str]) -> None:
  for path in delta:
    if path not in known:
      near = ", ".join(trees.nearest(path, known, 3)) or "none"
      raise ValueError(
        f"the delta changes {path!r}, which the parameters do not have; the"
        f" nearest are {near}"
      )


def _wide(*arrays: Any) -> Any:
  double = any(x.dtype == jnp.float64 for x in arrays)
  return jnp.float64 if double else jnp.float32
