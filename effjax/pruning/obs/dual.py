"""SparseGPT where a layer meets fewer inputs than it has columns.

The damped Gram matrix H = l 1 + A A^T of inputs A [I, M] has a factor whose
part on a super-block B needs but the M x M matrix C = l 1 + sum_{i > B} a_i
a_i^T of the columns after it: by Woodbury's identity the pivots are those of
K = 1 + A_B C^-1 A_B^T, times l, and what is lost at column j moves later
columns k by p_j a_k with p = diag(R) Z, Z = R^-1 A_B C^-1, K = R R^T. One pass
backward finds K and p, one forward sweeps; neither H nor its factor is formed.
From block to block C^-1 falls by Z^T Z, so that it is never formed anew.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax.pruning.counts import is_traced
from effjax.pruning.gram import input_gram
from effjax.pruning.obs.factor import upper_factor
from effjax.pruning.obs.solution import (
  Solution,
  check_damping,
  check_finite,
  factored,
  mean_pivot,
  usable,
)
from effjax.pruning.obs.sweep import (
  compiled,
  coupled,
  finished,
  nothing_to_do,
  plan,
  sparsegpt,
  split_counts,
  squared_loss,
  super_blocks,
  sweep_super_block,
)
from effjax.pruning.scores import check_convention

_EXACT = lax.Precision.HIGHEST
# In float32 what C^-1 loses to rounding grows with 1 / damping; from here on
# masks and losses are those of float64 as nearly as those of `sparsegpt`.
_LEAST_DAMPING = 1e-3


def sparsegpt_from_inputs(
  w: jax.Array,
  inputs: jax.Array,
  sparsity: Any = None,
  *,
  n_m: tuple[int, int] | None = None,
  mask_block: int = 128,
  damping: float = 0.01,
  convention: str = "exact",
  transposed: bool = False,
) -> Solution:
  """Prune a layer by `sparsegpt`, from its inputs, not their Gram matrix.

  With no more inputs than a third of the columns the Gram matrix is never
  formed: that costs about I M^2 + O I M instead of I^3 / 3 + O I^2. Otherwise,
  and in float32 with a damping that is traced or below 1e-3, this is
  `sparsegpt` of `pruning.input_gram`. Both find the same solution.

  Args:
    w: Weights [O, I].
    inputs: What the layer meets, [M, I].
    sparsity: Share to prune in every block of columns, a number or traced.
    n_m: Instead, (kept, of): so many of every `of` neighbours of a row.
    mask_block: Columns whose entries are chosen together, in all rows.
    damping: As in `sparsegpt`; fewer inputs than columns need some.
    convention: As in `sparsegpt`.
    transposed: Whether the weights are [I, O], and so the solution.

  Returns:
    The solution.

  Raises:
    ValueError: As `sparsegpt` does.

  >>> w, x = jnp.array([[1.0, 0.1, 0.5, 2.0]]), jnp.ones((1, 4))
  >>> sparsegpt_from_inputs(w, x, 0.5).mask.tolist()
  [[True, False, False, True]]
  """
  check_convention(convention)
  check_damping(damping)
  w, inputs = jnp.asarray(w), jnp.asarray(inputs)
  shape = w.shape[::-1] if transposed else w.shape
  if w.ndim != 2 or inputs.ndim != 2 or inputs.shape[1] != shape[1]:
    order = "[I, O]" if transposed else "[O, I]"
    raise ValueError(
      f"the weights must be {order} and the inputs [M, I], got shapes"
      f" {w.shape} and {inputs.shape}"
    )
  check_finite(w, "the weights hold", "weights")
  check_finite(inputs, "the inputs hold", "inputs")
  double = jnp.float64 in (w.dtype, inputs.dtype)
  dtype = jnp.float64 if double else jnp.float32
  w, inputs = w.astype(dtype), inputs.astype(dtype)
  known = not is_traced(damping)
  precise = double or (known and float(damping) >= _LEAST_DAMPING)
  if not (precise and 0 < 3 * inputs.shape[0] <= shape[1]):
    return sparsegpt(
      w,
      input_gram(inputs),
      sparsity,
      n_m=n_m,
      mask_block=mask_block,
      damping=damping,
      convention=convention,
      transposed=transposed,
    )
  counts, block = plan(shape, sparsity, n_m, mask_block, convention)
  if not w.size:
    return nothing_to_do(w, damping)
  solve = compiled(_solve, block, n_m is not None, convention, transposed)
  return Solution(*solve(w, inputs, counts, jnp.asarray(damping, dtype)))


def _solve(
  w, inputs, counts, damping, *, block, in_rows, convention, transposed
):
  """Solve; weights [O, I] or transposed, inputs [M, I], counts [B]."""
  wt = w if transposed else w.T
  squares = jnp.sum(jnp.square(inputs), axis=0)
  # As in the Gram matrix: squares may vanish where the inputs do not.
  dead = squares == 0.0
  mean = mean_pivot(squares, dead, convention)
  wt = jnp.where(dead[:, None], 0.0, wt)
  columns = wt.shape[0]
  many, size = super_blocks(columns, block)
  pad = many * size - columns
  split = lambda x: jnp.pad(x, ((0, pad), (0, 0))).reshape(many, size, -1)
  met = split(jnp.where(dead[:, None], 0.0, inputs.T))
  real = (jnp.arange(columns + pad) < columns).reshape(many, size)
  factor = functools.partial(_backward, met)
  (corners, inverses, moves), damping = factored(
    lambda damping: factor(damping * mean), damping, 1e-6
  )
  # Where nothing helps, scores are squares, and nothing is compensated.
  good, eye = jnp.isfinite(damping), jnp.eye(size, dtype=w.dtype)
  corners = jnp.where(good, corners, eye)
  inverses = jnp.where(good, inverses, eye)
  moves = jnp.where(good, moves, 0.0)
  met = jnp.where(good, met, 0.0)
  couplings, diagonals = coupled(corners, inverses)
  sweep = functools.partial(
    sweep_super_block, block=block, in_rows=in_rows, convention=convention
  )

  def step(moved: jax.Array, part: tuple) -> tuple:
    w0, met, move, coupling, diagonal, kept, real = part
    entry = w0 + jnp.matmul(met, moved, precision=_EXACT)
    weights, lost, mask = sweep(entry, coupling, diagonal, kept, real)
    moved += jnp.matmul(move.T, lost, precision=_EXACT)
    return moved, (weights, mask, squared_loss(lost, diagonal))

  parts = (
    split(wt),
    met,
    moves,
    couplings,
    diagonals,
    split_counts(counts, many, size // block),
    real,
  )
  start = jnp.zeros((inputs.shape[0], wt.shape[1]), w.dtype)
  _, (weights, mask, losses) = lax.scan(step, start, parts)
  return finished(weights, mask, losses, dead, damping, transposed=transposed)


def _backward(met, ridge):
  """Factor from the last super-block to the first.

  Args:
    met: Inputs of the columns [K, S, M].
    ridge: What is added to the diagonal of the Gram matrix, [].

  Returns:
    Whether it could be done, [], and the corners of the factor [K, S, S], their
    inverses, and what moves later columns, [K, S, M].
  """
  eye = jnp.eye(met.shape[1], dtype=met.dtype)
  product = functools.partial(jnp.matmul, precision=_EXACT)

  def step(inverse, part):
    reached = product(part, inverse)
    corner, corner_inverse = upper_factor(eye + product(reached, part.T))
    move = product(corner_inverse, reached)
    inverse -= product(move.T, move)
    move = move * jnp.diagonal(corner)[:, None]
    root = jnp.sqrt(ridge)
    return inverse, (corner * root, corner_inverse / root, move)

  start = jnp.eye(met.shape[2], dtype=met.dtype) / ridge
  _, (corners, inverses, moves) = lax.scan(step, start, met, reverse=True)
  pivots = jnp.diagonal(corners, axis1=1, axis2=2)
  return usable(pivots), (corners, inverses, moves)
