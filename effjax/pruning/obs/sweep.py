"""SparseGPT: prune column after column, and let the later ones compensate.

With the Gram matrix H = R R^T, R upper triangular, the weights W0 and what has
been taken away so far, D = W0 - Q, the columns B of a super-block stand at

  W0_B + (sum_{i before B} D_i R_iB) R_BB^-1,

and one after the other is pruned there: what is lost at column j, times
-(R_BB^-1)_jk R_jj, moves column k; the score of an entry is (w_j R_jj)^2. So
one Cholesky factor does, and only its small diagonal blocks are inverted
(Frantar and Alistarh 2023, arXiv 2301.00774, in another arrangement).
Everything is transposed: a column of the weights is a row that lies in one
piece.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax import arguments
from effjax.pruning.obs.choice import largest, largest_of_few
from effjax.pruning.obs.factor import factor_rows
from effjax.pruning.obs.solution import (
  Solution,
  check_damping,
  check_n_m,
  check_operands,
  factored,
  kept_entries,
  mean_pivot,
  usable,
)
from effjax.pruning.scores import check_convention

_SUPER = 128  # columns of a super-block, about
_TILE = 16  # columns that are swept before others are told, at most
_EXACT = lax.Precision.HIGHEST


def sparsegpt(
  w: jax.Array,
  gram: jax.Array,
  sparsity: Any = None,
  *,
  n_m: tuple[int, int] | None = None,
  mask_block: int = 128,
  damping: float = 0.01,
  convention: str = "exact",
  transposed: bool = False,
) -> Solution:
  """Prune a layer so that its outputs change little, in one sweep.

  Args:
    w: Weights [O, I].
    gram: Gram matrix of their inputs [I, I], see `pruning.input_gram`.
    sparsity: Share to prune in every block of columns, a number or traced.
    n_m: Instead, (kept, of): so many of every `of` neighbours of a row.
    mask_block: Columns whose entries are chosen together, in all rows; the last
      block may be smaller.
    damping: What is added to the diagonal, as a share of its mean; ten times as
      much, and so on, where the factorisation fails.
    convention: "exact" prunes floor(sparsity * n + 1/2) of the n entries of a
      block and averages the diagonal over live columns; "reference" prunes
      floor(sparsity * n) + 1 and counts columns without inputs as 1, as the
      published code does.
    transposed: Whether the weights are [I, O], as JAX keeps them, and so the
      solution: to turn a large matrix round takes a while.

  Returns:
    The solution.

  Raises:
    ValueError: If shapes do not fit, neither or both of sparsity and n_m are
      given, or a number is out of range.

  >>> w, x = jnp.array([[1.0, 0.1]]), jnp.array([[1.0, 1.0], [1.0, 1.1]])
  >>> solution = sparsegpt(w, x.T @ x, 0.5)
  >>> solution.mask.tolist()
  [[True, False]]
  """
  check_convention(convention)
  check_damping(damping)
  w, gram = check_operands(w, gram, transposed=transposed)
  shape = w.shape[::-1] if transposed else w.shape
  counts, block = plan(shape, sparsity, n_m, mask_block, convention)
  if not w.size:
    return nothing_to_do(w, damping)
  solve = compiled(_solve, block, n_m is not None, convention, transposed)
  return Solution(*solve(w, gram, counts, jnp.asarray(damping, w.dtype)))


def plan(
  shape: tuple[int, ...],
  sparsity: Any,
  n_m: tuple[int, int] | None,
  mask_block: int,
  convention: str,
) -> tuple[jax.Array, int]:
  """Count what every block of columns keeps.

  Args:
    shape: (O, I) of the weights.
    sparsity: See `sparsegpt`.
    n_m: See `sparsegpt`.
    mask_block: See `sparsegpt`.
    convention: See `sparsegpt`.

  Returns:
    The counts, int32 [B], of rows for n_m and else of all rows together, and
    the columns of a block.

  Raises:
    ValueError: As in `sparsegpt`.
  """
  if (sparsity is None) == (n_m is None):
    raise ValueError("give either a sparsity or n_m, (kept, of)")
  mask_block = arguments.whole("mask_block", mask_block)
  rows, columns = shape
  if n_m is not None:
    kept, block = check_n_m(n_m, columns)
    counts = [kept] * (columns // block)
  else:
    block = max(1, min(mask_block, columns))
    sizes = [
      rows * min(block, columns - start) for start in range(0, columns, block)
    ]
    by_size = {
      n: kept_entries(n, sparsity, convention) if n else 0 for n in set(sizes)
    }
    counts = [by_size[n] for n in sizes]
  return jnp.asarray(counts, jnp.int32), block


def nothing_to_do(w: jax.Array, damping: float) -> Solution:
  """Return the solution for a matrix without entries."""
  zero = jnp.zeros((), w.dtype)
  return Solution(w, jnp.zeros(w.shape, bool), zero, zero + damping)


@functools.cache
def compiled(
  solve: Callable,
  block: int,
  in_rows: bool,
  convention: str,
  transposed: bool,
) -> Callable:
  """Compile a solver of one kind.

  Args:
    solve: From weights, what tells of their inputs, counts of kept entries [B]
      and damping [] to the fields of a solution.
    block: Columns whose entries are chosen together.
    in_rows: Whether each row keeps so many, else all rows together.
    convention: See `sparsegpt`.
    transposed: See `sparsegpt`.

  Returns:
    The function of the four arrays.
  """
  solve = functools.partial(
    solve,
    block=block,
    in_rows=in_rows,
    convention=convention,
    transposed=transposed,
  )
  if jax.default_backend() == "cpu":
    # Factorisations of a batch may wait for each other for ever on the CPU.
    solve = jax.custom_batching.sequential_vmap(solve)
  return jax.jit(solve)


def _solve(w, gram, counts, damping, *, block, in_rows, convention, transposed):
  """Solve; weights [O, I] or transposed, counts [B], damping []."""
  wt = w if transposed else w.T
  pivots = jnp.diagonal(gram)
  dead = pivots == 0.0
  mean = mean_pivot(pivots, dead, convention)
  wt = jnp.where(dead[:, None], 0.0, wt)
  columns = wt.shape[0]
  many, size = super_blocks(columns, block)
  # Columns of the padding have no weights and no neighbours.
  pad = many * size - columns
  split = lambda x: x.reshape(many, size, *x.shape[1:])
  wt = jnp.pad(wt, ((0, pad), (0, 0)))
  real = split(jnp.arange(columns + pad) < columns)
  counts = split_counts(counts, many, size // block)
  sweep = functools.partial(
    sweep_super_block, block=block, in_rows=in_rows, convention=convention
  )

  def attempt(damping: jax.Array) -> tuple:
    # Columns without inputs have pivots, too.
    added = damping * mean + dead.astype(w.dtype)
    factor, corners, inverses = factor_rows(gram, added, size)
    good = usable(jnp.diagonal(corners, axis1=1, axis2=2))
    # With the identity scores are squares, and nothing is compensated.
    eye = jnp.eye(size, dtype=w.dtype)[None]
    corners = jnp.where(good, corners, eye)
    inverses = jnp.where(good, inverses, eye)
    couplings, diagonals = coupled(corners, inverses)

    def step(taken: jax.Array, part: tuple) -> tuple:
      k, w0, inverse, coupling, diagonal, kept, real = part
      # Cut out here, since the rows of a scan would be a copy of the factor.
      panel = lax.dynamic_slice_in_dim(factor, k * size, size)
      reached = jnp.matmul(panel, taken, precision=_EXACT)
      reached = jnp.where(good, reached, 0.0)
      entry = w0 + jnp.matmul(inverse.T, reached, precision=_EXACT)
      weights, lost, mask = sweep(entry, coupling, diagonal, kept, real)
      delta = w0 - weights
      taken = lax.dynamic_update_slice_in_dim(taken, delta, k * size, axis=0)
      return taken, (weights, mask, squared_loss(lost, diagonal))

    every = jnp.arange(many)
    parts = (every, split(wt), inverses, couplings, diagonals)
    _, swept = lax.scan(step, jnp.zeros_like(wt), (*parts, counts, real))
    return good, swept

  # The factor stays inside: to hand a large array on would be to copy it.
  (weights, mask, losses), damping = factored(attempt, damping, 1e-6)
  return finished(weights, mask, losses, dead, damping, transposed=transposed)


def super_blocks(columns: int, block: int) -> tuple[int, int]:
  """Return how many super-blocks there are, and their columns."""
  size = block * max(1, _SUPER // block)
  size = min(size, -(-columns // block) * block)
  return -(-columns // size), size


def coupled(
  corners: jax.Array, inverses: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """See how the columns of a super-block are coupled.

  Args:
    corners: Diagonal blocks of the factor, upper triangular [K, S, S].
    inverses: Their inverses.

  Returns:
    How much of what is lost at a column each later one takes over, [K, S, S],
    and the diagonals [K, S].
  """
  diagonals = jnp.diagonal(corners, axis1=1, axis2=2)
  return jnp.triu(inverses * -diagonals[:, :, None], 1), diagonals


def split_counts(counts: jax.Array, many: int, blocks: int) -> jax.Array:
  """Give every super-block the counts of its blocks, [many, blocks]."""
  return jnp.pad(counts, (0, many * blocks - counts.size)).reshape(many, blocks)


def squared_loss(lost: jax.Array, diagonal: jax.Array) -> jax.Array:
  """Sum up what the outputs of a super-block change by, squared, [].

  Args:
    lost: What is lost at each column when its turn comes, [S, O].
    diagonal: Roots of the pivots [S].

  Returns:
    Twice the loss.
  """
  return jnp.sum(jnp.square(lost * diagonal[:, None]))


def finished(weights, mask, losses, dead, damping, *, transposed):
  """Put the super-blocks together.

  Args:
    weights: What stays [K, S, O].
    mask: What is kept [K, S, O].
    losses: Twice the loss of each [K].
    dead: Which inputs are zero throughout, [I].
    damping: What was needed, [].
    transposed: Whether weights and mask are wanted as [I, O].

  Returns:
    The fields of the solution.
  """
  loss = jnp.where(jnp.isfinite(damping), 0.5 * jnp.sum(losses), jnp.nan)
  join = lambda x: x.reshape(-1, x.shape[-1])[: dead.size]
  # A column without inputs has weights of 0 that may have been kept.
  weights, mask = join(weights), join(mask) & ~dead[:, None]
  if not transposed:
    weights, mask = weights.T, mask.T
  return weights, mask, loss, damping


def sweep_super_block(
  entry, coupling, diagonal, counts, real, *, block, in_rows, convention
):
  """Sweep the columns of a super-block.

  Args:
    entry: The columns as those before the super-block left them, [S, O].
    coupling: How much of what is lost at a column each later one takes over,
      strictly upper triangular [S, S].
    diagonal: Roots of the pivots, [S].
    counts: How many entries each block of columns keeps, int32 [B].
    real: Which columns are not padding [S].
    block: Columns of a block.
    in_rows: Whether each row keeps so many, else all rows together.
    convention: See `sparsegpt`.

  Returns:
    What stays, what is lost when its turn comes, and what is kept, [S, O].
  """

  def choose(now, diagonal, real, kept):
    scores = jnp.square(now * diagonal[:, None])
    scores = jnp.where(real[:, None], scores, -1.0)
    if in_rows:
      return largest_of_few(scores, kept, convention)
    return largest(scores, kept, strict=convention == "reference")

  def sweep_block(now, tile, diagonal, real, kept):
    mask = choose(now, diagonal, real, kept)
    width = block
    if block > _TILE:
      width = max(u for u in range(1, _TILE + 1) if block % u == 0)
    by_tile = mask.reshape(-1, width, mask.shape[1])
    now, _ = _in_parts(_sweep_tile, now, tile, [by_tile], width)
    return now, mask

  columns = [diagonal.reshape(-1, block), real.reshape(-1, block), counts]
  now, mask = _in_parts(sweep_block, entry, coupling, columns, block)
  return jnp.where(mask, now, 0.0), jnp.where(mask, 0.0, now), mask


def _in_parts(sweep, now, coupling, operands, width):
  """Sweep part after part; what was lost in earlier ones moves each.

  Args:
    sweep: From the columns of a part [U, O], their coupling [U, U] and a part
      of the operands to the columns as their turn came, and what is kept.
    now: Columns [S, O].
    coupling: Strictly upper triangular [S, S].
    operands: What belongs to each part, [S / U, ...].
    width: Columns U of a part.

  Returns:
    The columns, and what is kept, [S, O].
  """
  size = now.shape[0]
  parts = size // width
  if parts == 1:
    return sweep(now, coupling, *(x[0] for x in operands))

  def step(lost, part):
    start, mine, panel, operands = part
    tile = lax.dynamic_slice_in_dim(panel, start, width, axis=1).T
    mine += jnp.matmul(panel, lost, precision=_EXACT)
    mine, mask = sweep(mine, tile, *operands)
    lost_here = jnp.where(mask, 0.0, mine)
    lost = lax.dynamic_update_slice_in_dim(lost, lost_here, start, axis=0)
    return lost, (mine, mask)

  by_part = lambda x: x.reshape(parts, width, -1)
  starts = jnp.arange(parts) * width
  _, (now, mask) = lax.scan(
    step,
    jnp.zeros_like(now),
    (starts, by_part(now), by_part(coupling.T), operands),
  )
  return now.reshape(size, -1), mask.reshape(size, -1)


def _sweep_tile(now, tile, mask):
  """Sweep few columns, [U, O], one by one."""

  def step(j, now):
    lost = jnp.where(mask[j], 0.0, now[j])
    return now + tile[j][:, None] * lost[None, :]

  if jax.default_backend() == "cpu":
    return lax.fori_loop(0, now.shape[0], step, now), mask
  # An accelerator would start several kernels for each turn of a loop; written
  # out, the steps become one, and compile in a fifth of the time.
  for j in range(now.shape[0]):
    now = step(j, now)
  return now, mask
