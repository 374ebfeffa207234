"""What the second-order solvers return, and what they share."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from effjax import arguments
from effjax.pruning.allocation import check_sparsity
from effjax.pruning.counts import is_traced, static_kept

_TRIES = 5  # factorisations, each with ten times the damping


class Solution(NamedTuple):
  """A pruned weight matrix.

  Attributes:
    weights: [O, I], exact zeros where pruned.
    mask: bool [O, I], True = kept; False in columns that no input reaches.
    loss: [], half the squared distance of the outputs, tr(D H D^T) / 2 for the
      change D of the weights and the Gram matrix H with its damping; NaN where
      the Gram matrix could not be used.
    damping: [], the damping that was needed; infinite where the Gram matrix
      could not be used and magnitudes decided.
  """

  weights: jax.Array
  mask: jax.Array
  loss: jax.Array
  damping: jax.Array


def check_operands(
  w: Any, gram: Any, *, transposed: bool = False
) -> tuple[jax.Array, jax.Array]:
  """Reject a matrix and a Gram matrix that do not fit.

  Args:
    w: The weights [O, I].
    gram: Their Gram matrix.
    transposed: Whether the weights are [I, O].

  Returns:
    Both in float32, or float64 where one of them is.

  Raises:
    ValueError: If a shape is wrong, or one of them holds NaN or infinities
      (which a traced one may).
  """
  w, gram = jnp.asarray(w), jnp.asarray(gram)
  if w.ndim != 2 or gram.shape != (w.shape[0 if transposed else 1],) * 2:
    order = "[I, O]" if transposed else "[O, I]"
    raise ValueError(
      f"the weights must be {order} and the Gram matrix [I, I], got shapes"
      f" {w.shape} and {gram.shape}"
    )
  if any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in (w, gram)):
    raise ValueError("weights and Gram matrices must be real")
  check_finite(w, "the weights hold", "weights")
  check_finite(gram, "the Gram matrix holds", "inputs")
  double = jnp.float64 in (w.dtype, gram.dtype)
  dtype = jnp.float64 if double else jnp.float32
  return w.astype(dtype), gram.astype(dtype)


def check_finite(x: jax.Array, what: str, where: str) -> None:
  """Reject NaN and infinities, unless the values are traced.

  Args:
    x: An array.
    what: How the message begins.
    where: What of the layer one should look at.

  Raises:
    ValueError: If an element is not finite.
  """
  if is_traced(x):
    return
  # Also inside a function that is traced: these values are known.
  with jax.ensure_compile_time_eval():
    finite = bool(_is_finite(x))
  if not finite:
    raise ValueError(
      f"{what} NaN or infinities: look at the {where} of this layer"
    )


@jax.jit
def _is_finite(x: jax.Array) -> jax.Array:
  # Sums are faster than a search: 0 times what is not finite is NaN.
  return jnp.isfinite(jnp.sum(x * 0))


def check_damping(damping: Any) -> None:
  """Reject a damping that is no number of at least 0; a traced one may be.

  Args:
    damping: What is added to the diagonal, as a share of its mean.

  Raises:
    ValueError: If it is an array, negative or not finite.
  """
  arguments.finite("damping", damping, 0)
  if np.ndim(damping):
    raise ValueError(
      f"damping must be one number, got an array of shape {np.shape(damping)}"
    )


def check_share(sparsity: jax.Array) -> jax.Array:
  """Reject a traced sparsity that is no number.

  Args:
    sparsity: The share to prune.

  Returns:
    The share from 0 to 1, float32 [].

  Raises:
    ValueError: If it has axes.
  """
  if sparsity.ndim:
    raise ValueError(
      f"a traced sparsity must be one number, got shape {sparsity.shape}"
    )
  return jnp.clip(sparsity.astype(jnp.float32), 0.0, 1.0)


def check_n_m(n_m: tuple[int, int], inputs: int) -> tuple[int, int]:
  """Reject an N:M pattern that does not fit.

  Args:
    n_m: (kept, of).
    inputs: Number of columns.

  Returns:
    The pattern.

  Raises:
    ValueError: If it is none or does not divide the columns.
  """
  if not isinstance(n_m, list | tuple) or len(n_m) != 2:
    raise ValueError(f"n_m must be (kept, of), two whole numbers, got {n_m!r}")
  kept = arguments.whole("the first number of n_m", n_m[0], 0)
  of = arguments.whole("the second number of n_m", n_m[1])
  if kept > of:
    raise ValueError(f"n_m={n_m} does not keep 0 to {of} of every {of}")
  if inputs % of:
    raise ValueError(f"{inputs} inputs cannot be divided into groups of {of}")
  return kept, of


def kept_entries(size: int, sparsity: Any, convention: str) -> Any:
  """Count how many of a block's entries remain.

  Args:
    size: Number of entries of the block.
    sparsity: Share to prune, a number or traced, which is float32: its product
      with the size may round to one weight more or less than a number's.
    convention: "exact" prunes floor(sparsity * size + 1/2); "reference" prunes
      what is at most the (floor(sparsity * size) + 1)-th smallest score and
      returns the rank, from the largest, of that score.

  Returns:
    The count, int or int32 [].

  >>> kept_entries(100, 0.29, "exact"), kept_entries(100, 0.29, "reference")
  (71, 72)
  """
  if not is_traced(sparsity):
    if convention == "exact":
      return static_kept(size, sparsity, "exact")
    check_sparsity(sparsity)
    return size - min(math.floor(size * float(sparsity)), size - 1)
  share = check_share(sparsity)
  half = 0.5 if convention == "exact" else 0.0
  pruned = jnp.floor(share * np.float32(size) + np.float32(half))
  pruned = pruned.astype(jnp.int32)
  if convention == "reference":
    pruned = jnp.minimum(pruned, size - 1)
  return size - pruned


def factored(
  attempt: Callable[[jax.Array], tuple[jax.Array, Any]],
  damping: jax.Array,
  least: float | jax.Array,
) -> tuple[Any, jax.Array]:
  """Factor a matrix with ever more damping, until it can be done.

  Args:
    attempt: From a damping [] to whether the factor could be made, bool [], and
      the factor or what comes of it, any pytree.
    damping: The first damping, [].
    least: What follows a damping of 0, and the least of all later ones.

  Returns:
    What the last attempt gave, and the damping that it needed; infinity where
    ten times as much, four times over, does not help.
  """

  def again(carry: tuple) -> tuple:
    tried, damping, _, _ = carry
    more = jnp.maximum(damping * 10.0, least)
    damping = jnp.where(tried == 0, damping, more)
    good, factor = attempt(damping)
    return tried + 1, damping, good, factor

  # Begins with what counts as failed, so that `attempt` is compiled once.
  _, shapes = jax.eval_shape(attempt, damping)
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  _, damping, good, factor = lax.while_loop(
    lambda carry: ~carry[2] & (carry[0] < _TRIES),
    again,
    (jnp.int32(0), damping, jnp.zeros((), bool), nothing),
  )
  return factor, jnp.where(good, damping, jnp.inf)


def usable(pivots: jax.Array) -> jax.Array:
  """Tell whether all pivots of a factor are finite and positive, bool []."""
  return jnp.all(jnp.isfinite(pivots) & (pivots > 0.0))


def mean_pivot(
  diagonal: jax.Array, dead: jax.Array, convention: str
) -> jax.Array:
  """Average the diagonal of a Gram matrix: what a damping of 1 adds.

  Args:
    diagonal: [I].
    dead: Which inputs are zero throughout, [I].
    convention: "exact" averages live columns; "reference" counts dead ones as
      1.

  Returns:
    The mean, [].
  """
  if convention == "reference":
    return jnp.mean(jnp.where(dead, 1.0, diagonal))
  live = jnp.sum(~dead, dtype=diagonal.dtype)
  mean = jnp.sum(diagonal) / jnp.maximum(live, 1.0)
  # Without any live column there is nothing to damp, and 1 does no harm.
  return jnp.where(live > 0, mean, 1.0)
