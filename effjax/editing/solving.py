"""Factors and products that the closed forms share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax import arguments

Array = jax.Array


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
  """Compile a function that factors matrices, safe under the caller's vmap.

  Args:
    function: Of arrays and numbers.

  Returns:
    The compiled function. Under `vmap` on the CPU examples are taken one after
    another, unless it is differentiated: factorisations of a batch may wait for
    each other for ever there.

  >>> root = compiled(jnp.linalg.cholesky)
  >>> jax.vmap(root)(4 * jnp.ones((3, 1, 1))).ravel().tolist()
  [2.0, 2.0, 2.0]
  """
  # What is sequential has no derivative of its own.
  sequential = jax.custom_jvp(jax.custom_batching.sequential_vmap(function))
  sequential.defjvp(
    lambda primals, tangents: jax.jvp(function, primals, tangents)
  )

  @functools.wraps(function)
  def chosen(*operands):
    cpu = jax.default_backend() == "cpu"
    return (sequential if cpu else function)(*operands)

  return jax.jit(chosen)


def operands(w: Any, c: Any, keys: Any, values: Any) -> tuple[Array, ...]:
  """Check what an edit gets.

  Args:
    w: Weights [O, I].
    c: A matrix [I, I].
    keys: Keys as columns [I, n], or one [I].
    values: Values as columns [O, n], or one [O].

  Returns:
    All four as float32, or float64 where w or c is that, with columns.

  Raises:
    ValueError: If shapes do not fit, or a number is not finite (which a traced
      one may).
  """
  w, c, keys, values = map(jnp.asarray, (w, c, keys, values))
  if keys.ndim == 1 and values.ndim == 1:
    keys, values = keys[:, None], values[:, None]
  if (
    w.ndim != 2
    or c.shape != (w.shape[1],) * 2
    or keys.ndim != 2
    or keys.shape[0] != w.shape[1]
    or values.shape != (w.shape[0], keys.shape[1])
    or not keys.size
  ):
    raise ValueError(
      "an edit takes weights [O, I], a matrix [I, I], keys [I, n] and values"
      f" [O, n] as columns, got shapes {w.shape}, {c.shape}, {keys.shape} and"
      f" {values.shape}"
    )
  double = jnp.float64 in (w.dtype, c.dtype)
  dtype = jnp.float64 if double else jnp.float32
  names = ("weights", "matrix", "keys", "values")
  found = tuple(x.astype(dtype) for x in (w, c, keys, values))
  if not any(isinstance(x, jax.core.Tracer) for x in found):
    for name, good in zip(names, _finite(*found), strict=True):
      demand(good, f"the {name} of an edit must be finite: NaN or infinity")
  return found


def not_negative(name: str, value: Any, dtype: Any) -> Array:
  """Return a number of that type, which must not be negative unless traced."""
  return jnp.asarray(arguments.finite(name, value, 0)).astype(dtype)


def demand(good: Array, message: str) -> None:
  """Raise unless something holds, or is not known yet.

  Args:
    good: bool [], traced or not.
    message: What to say.

  Raises:
    ValueError: If it is known not to hold.

  >>> demand(jnp.array(True), "never said")
  """
  if not isinstance(good, jax.core.Tracer) and not good:
    raise ValueError(message)


def singular(c: Array) -> str:
  """Say that a covariance is singular, and what helps.

  Args:
    c: The matrix [I, I].

  Returns:
    A sentence.

  >>> singular(jnp.zeros((2, 2))).partition(" to")[0]
  'the covariance [2, 2] is singular'
  """
  return (
    f"the covariance {list(c.shape)} is singular to the precision of"
    f" {c.dtype}; estimate it from many more than {c.shape[0]} keys, or add"
    " damping=1e-4, a share of the mean of its diagonal"
  )


def damped(c: Array, damping: Array) -> Array:
  """Add a share of the mean of the diagonal to the diagonal.

  Args:
    c: [I, I].
    damping: The share, [].

  Returns:
    The matrix [I, I].
  """
  eye = jnp.eye(c.shape[0], dtype=c.dtype)
  return c + eye * (damping * jnp.mean(jnp.diagonal(c)))


@jax.jit
def factor(c: Array) -> tuple[Array, Array]:
  """Factor a matrix, and say whether it is regular to its precision.

  Args:
    c: Symmetric [M, M].

  Returns:
    The lower factor [M, M], NaN where the matrix is singular or not positive,
    and whether it is regular, bool [].
  """
  size = jnp.sqrt(jnp.diagonal(c))
  lower = lax.linalg.cholesky(c / (size[:, None] * size[None, :]))
  # With ones on the diagonal rounding alone makes eigenvalues of this size; the
  # smallest one is what inverse iteration finds.
  least = 2 * jnp.finfo(c.dtype).eps * c.shape[0] ** 0.5
  x = jnp.cos(jnp.arange(c.shape[0], dtype=c.dtype))
  round_ = lambda _, x: solve(lower, x / jnp.linalg.norm(x))
  x = lax.fori_loop(0, 3, round_, x)
  regular = 1 / jnp.linalg.norm(x) > least
  return jnp.where(regular, size[:, None] * lower, jnp.nan), regular


def solve(lower: Array, b: Array) -> Array:
  """Solve with a factored matrix.

  Args:
    lower: Lower factor [M, M].
    b: [M] or [M, N].

  Returns:
    The solution, like b.
  """
  columns = b[:, None] if b.ndim == 1 else b
  half = lax.linalg.triangular_solve(lower, columns, left_side=True, lower=True)
  whole = lax.linalg.triangular_solve(
    lower, half, left_side=True, lower=True, transpose_a=True
  )
  return whole.reshape(b.shape)


def product(a: Array, b: Array) -> Array:
  """Multiply matrices at the highest precision.

  Args:
    a: [..., M].
    b: [M, ...].

  Returns:
    The product.
  """
  return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


@jax.jit
def _finite(*arrays):
  return tuple(jnp.all(jnp.isfinite(x)) for x in arrays)
