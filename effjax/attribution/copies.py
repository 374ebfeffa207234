"""Evaluates a model on many copies of its examples, some at a time.

A copy is a batch [B, ...] that differs from the examples by noise, a point of a
path or a mask. Copies are numbered; what is drawn for copy i of example b
depends on (key, i, b) alone, so neither the size of the batch nor that of a
chunk changes a result by more than rounding.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax import tree as trees

Array = jax.Array
Model = Callable[[Any, Array], Array]


def read(
  f: Model, params: Any, x: Any, target: Any
) -> tuple[Model, Any, Array, Array]:
  """Checks what every method takes, before anything is computed.

  Args:
    f: `(params, x) -> logits [B, A]`, hashable.
    params: Any tree; leaves that are no arrays, such as numbers or functions,
      are kept as they are, and programs compiled for them.
    x: [B, ...] floating.
    target: [B] integers, or one for all. Where the values are concrete, they
      must lie in [0, A).

  Returns:
    The model, its arrays (the two may be a repacked pair), x, and target [B]
    int32.

  Raises:
    ValueError: If a shape or a type is another, or a target is out of range.
  """
  x = arguments.floating("x", x, "a batch [B, ...]")
  # NumPy looks at concrete values even while something else is being traced,
  # and holds those that are too large for the integers of jax.
  traced = isinstance(target, jax.core.Tracer)
  ids = target if traced else np.asarray(target)
  if not jnp.issubdtype(ids.dtype, jnp.integer) or (
    ids.ndim and ids.shape != x.shape[:1]
  ):
    raise ValueError(
      f"target must be an integer or {x.shape[0]} of them, one for each row of"
      f" x {list(x.shape)}; got {ids.dtype}{list(ids.shape)}."
    )
  f, params = _bind(f, params)
  logits = jax.eval_shape(f, params, x)
  shape = getattr(logits, "shape", None)
  if shape is None or len(shape) != 2 or shape[0] != x.shape[0]:
    got = type(logits).__name__ if shape is None else list(shape)
    raise ValueError(
      f"f must return logits [{x.shape[0]}, A] for x {list(x.shape)}, got"
      f" {got}."
    )
  if not traced and ids.size:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= shape[1]:
      raise ValueError(
        f"target runs from {low} to {high}, but the {shape[1]} logits allow 0"
        f" to {shape[1] - 1}."
      )
  target = jnp.asarray(target).astype(jnp.int32)
  return f, params, x, jnp.broadcast_to(target, x.shape[:1])


def read_baseline(x: Array, baseline: Any, name: str = "baseline") -> Array:
  """Returns what stands for absent input, in the shape and type of x.

  Args:
    x: [B, ...].
    baseline: None for 0, a number, an array [...], or one of the rank of x
      whose axes have the length of those of x or 1.
    name: What to call the array in an error.

  Returns:
    [B, ...].

  Raises:
    ValueError: If the shape does not fit.
  """
  array = jnp.asarray(0 if baseline is None else baseline, x.dtype)
  if not array.ndim:
    return jnp.full(x.shape, array)
  full = of_rank(array, x)
  if full is None:
    raise ValueError(
      f"{name} must be a number or have a shape that fits x {list(x.shape)},"
      f" got {list(array.shape)}."
    )
  return jnp.broadcast_to(full, x.shape)


def of_rank(array: Any, x: Array) -> Any:
  """Gives an array the rank of x.

  Args:
    array: Of the shape of an example, or of the rank of x.
    x: [B, ...].

  Returns:
    The array, with a leading axis of length 1 if it had none for examples; None
    if it does not broadcast to x.
  """
  full = array[None] if array.ndim == x.ndim - 1 else array
  fits = full.ndim == x.ndim and all(
    a in (1, b) for a, b in zip(full.shape, x.shape, strict=True)
  )
  return full if fits else None


def target_logits(f: Model, params: Any, x: Array, target: Array) -> Array:
  """Returns the logits [B] of the targets."""
  logits = f(params, x)
  return jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]


def gradient(f: Model, params: Any, x: Array, target: Array) -> Array:
  """Returns the gradient [B, ...] of each target's logit in its own example."""
  total = lambda x: jnp.sum(target_logits(f, params, x, target))
  return jax.grad(total)(x)


def wide(dtype: Any) -> Any:
  """Returns the type of sums: float32, or float64 for itself."""
  return dtype if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def widen(x: Array) -> Array:
  """Returns x as float32, or as float64 if it is."""
  return x.astype(wide(x.dtype))


def keys(key: Array, copy: Array, examples: int) -> Array:
  """Returns one key for each example of a copy."""
  key = jax.random.fold_in(key, copy)
  return jax.vmap(lambda b: jax.random.fold_in(key, b))(jnp.arange(examples))


def normal(key: Array, copy: Array, x: Array) -> Array:
  """Returns the standard normal noise of a copy, like x but wide."""
  draw = lambda k: jax.random.normal(k, x.shape[1:], wide(x.dtype))
  return jax.vmap(draw)(keys(key, copy, x.shape[0]))


def each(
  function: Callable[[Array], Any], count: int, chunk_size: int | None = None
) -> Any:
  """Stacks the results of a function of the number of a copy.

  Args:
    function: From an int32 scalar to a tree of arrays.
    count: The number of copies.
    chunk_size: How many are evaluated together at most; None for all.

  Returns:
    The tree with a leading axis `count`.

  >>> each(lambda i: 2 * i, 5, chunk_size=2).tolist()
  [0, 2, 4, 6, 8]
  """
  count, chunks, size = _split(count, chunk_size)
  if chunks == 1:
    return jax.vmap(function)(jnp.arange(count))
  some = lambda c: jax.vmap(function)(_numbers(c, size, count))
  stacked = jax.lax.map(some, jnp.arange(chunks))
  return jax.tree.map(
    lambda a: a.reshape(chunks * size, *a.shape[2:])[:count], stacked
  )


def add(
  function: Callable[[Array], Any], count: int, chunk_size: int | None = None
) -> Any:
  """Sums the results of a function of the number of a copy.

  Args:
    function: From an int32 scalar to a tree of arrays.
    count: The number of copies.
    chunk_size: How many are evaluated together at most; None for all.

  Returns:
    The tree of sums.

  >>> int(add(lambda i: i, 5, chunk_size=2))
  10
  """
  count, chunks, size = _split(count, chunk_size)

  def some(c):
    numbers = c * size + jnp.arange(size)
    terms = jax.vmap(function)(_numbers(c, size, count))
    if chunks * size == count:
      return jax.tree.map(lambda a: jnp.sum(a, axis=0), terms)
    live = lambda a: (numbers < count).reshape(-1, *(1,) * (a.ndim - 1))
    return jax.tree.map(
      lambda a: jnp.sum(a, axis=0, where=live(a)),
      terms,
    )

  if chunks == 1:
    return some(0)
  zero = jnp.zeros((), jnp.int32)
  start = jax.tree.map(
    lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(some, zero)
  )
  step = lambda c, total: jax.tree.map(jnp.add, total, some(c))
  return jax.lax.fori_loop(0, chunks, step, start)


def _split(count: int, chunk_size: int | None) -> tuple[int, int, int]:
  """Returns the count, how many chunks make it up, and their even size."""
  count = size = arguments.whole("the number of copies", count)
  if chunk_size is not None:
    size = min(count, arguments.whole("chunk_size", chunk_size))
  chunks = -(-count // size)
  return count, chunks, -(-count // chunks)


def _numbers(c: Any, size: int, count: int) -> Array:
  # The last chunk repeats its last copy where the others hold one more.
  return jnp.minimum(c * size + jnp.arange(size), count - 1)


def _bind(f: Model, params: Any) -> tuple[Model, Any]:
  """Moves leaves that are no arrays, such as functions, into the model."""
  leaves, treedef = jax.tree.flatten(params)
  traced = [trees.is_array(x) for x in leaves]
  if all(traced):
    return f, params
  rest = tuple(
    None if t else leaf for leaf, t in zip(leaves, traced, strict=True)
  )
  arrays = [leaf if t else None for leaf, t in zip(leaves, traced, strict=True)]
  return _Bound(f, treedef, rest, tuple(map(type, rest))), arrays


@dataclasses.dataclass(frozen=True)
class _Bound:
  """A model of the array leaves alone; equal parts make equal models."""

  f: Model
  treedef: Any
  rest: tuple
  types: tuple  # 1, 1.0 and True are equal

  def __call__(self, arrays: list, x: Array) -> Array:
    leaves = [
      r if a is None else a for a, r in zip(arrays, self.rest, strict=True)
    ]
    return self.f(self.treedef.unflatten(leaves), x)
