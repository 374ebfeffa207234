"""SparseGPT: prune column after column, and let the later ones compensate.

With the Gram matrix H = R R^T, R upper triangular, the weights W0 and what has
been taken away so far, D = W0 - Q, column k stands at

  w_k = W0_k + (sum_{i<k} D_i R_ik) / R_kk,   with the score (w_k R_kk)^2,

so that one Cholesky factor does and no inverse is formed (Frantar and Alistarh
2023, arXiv 2301.00774, in another arrangement). Columns are swept in super-
blocks, so that most of the work is matrix products. Inside, everything is
transposed: a column of the weights is a row that lies in one piece.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax.pruning.integers import order_keys
from effjax.pruning.obs.solution import (
  Solution,
  check_n_m,
  check_operands,
  factored,
  kept_entries,
  prepared,
)
from effjax.pruning.scores import check_convention

_SUPER = 128  # columns of a super-block, about
_UNROLLED = 9  # columns swept without a loop: the taps of a 3x3 kernel
_SORTED = 1 << 12  # entries up to which a sort beats counting
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
  w, gram = check_operands(w, gram)
  if (sparsity is None) == (n_m is None):
    raise ValueError("give either a sparsity or n_m, (kept, of)")
  if not (isinstance(mask_block, int) and mask_block >= 1):
    raise ValueError(f"mask_block must be at least 1, not {mask_block!r}")
  rows, columns = w.shape
  if not w.size:
    nothing = jnp.zeros((), w.dtype)
    return Solution(w, jnp.zeros(w.shape, bool), nothing, nothing + damping)
  if n_m is not None:
    kept, block = check_n_m(n_m, columns)
    counts = [kept] * (columns // block)
  else:
    block = min(mask_block, columns)
    sizes = [
      rows * min(block, columns - start) for start in range(0, columns, block)
    ]
    by_size = {n: kept_entries(n, sparsity, convention) for n in set(sizes)}
    counts = [by_size[n] for n in sizes]
  solve = _solver(block, n_m is not None, convention)
  return Solution(
    *solve(
      w, gram, jnp.asarray(counts, jnp.int32), jnp.asarray(damping, w.dtype)
    )
  )


@functools.cache
def _solver(block: int, in_rows: bool, convention: str):
  """Make the compiled solver of one kind."""
  solve = functools.partial(
    _solve, block=block, in_rows=in_rows, convention=convention
  )
  if jax.default_backend() == "cpu":
    # Factorisations of a batch may wait for each other for ever on the CPU.
    solve = jax.custom_batching.sequential_vmap(solve)
  return jax.jit(solve)


def _solve(w, gram, counts, damping, *, block, in_rows, convention):
  """Solve; weights [O, I], counts of kept entries [B], damping []."""
  dead = jnp.diagonal(gram) == 0.0
  gram, mean = prepared(gram, dead, convention)
  w = jnp.where(dead[None, :], 0.0, w)
  factor, damping = _factor(gram, mean, damping)
  rows, columns = w.shape
  super_block = block * max(1, _SUPER // block)
  super_block = min(super_block, -(-columns // block) * block)
  many = -(-columns // super_block)
  pad = many * super_block - columns
  # Columns of the padding have no weights and no neighbours.
  wt = jnp.pad(w.T, ((0, pad), (0, 0)))
  factor = jnp.pad(factor, ((0, pad), (0, pad)))
  eye = jnp.eye(columns + pad, dtype=bool)
  beyond = jnp.arange(columns + pad) >= columns
  factor = jnp.where(eye & beyond[:, None], 1.0, factor)
  blocks = super_block // block
  counts = jnp.pad(counts, (0, many * blocks - counts.size))
  sweep = functools.partial(
    _super_block, block=block, in_rows=in_rows, convention=convention
  )

  def step(carry: tuple, part: tuple) -> tuple:
    reached, loss = carry
    start, panel, w0, kept, real = part
    mine = lax.dynamic_slice_in_dim(reached, start, super_block)
    corner = lax.dynamic_slice_in_dim(panel, start, super_block, axis=1)
    delta, mask, more = sweep(w0, mine, corner, kept, real)
    reached += jnp.matmul(panel.T, delta, precision=_EXACT)
    return (reached, loss + more), (delta, mask)

  split = lambda x: x.reshape(many, super_block, *x.shape[1:])
  parts = (
    jnp.arange(many) * super_block,
    split(factor),
    split(wt),
    counts.reshape(many, blocks),
    split(~beyond),
  )
  start = jnp.zeros_like(wt), jnp.zeros((), w.dtype)
  (_, loss), (delta, mask) = lax.scan(step, start, parts)
  join = lambda x: x.reshape(-1, rows)[:columns].T
  mask = join(mask) & ~dead[None, :]
  weights = jnp.where(mask, w - join(delta), 0.0)
  loss = jnp.where(jnp.isfinite(damping), loss, jnp.nan)
  return weights, mask, loss, damping


def _factor(gram, mean, damping):
  """Factor R R^T with R upper, damping more until it can be done."""
  eye = jnp.eye(gram.shape[0], dtype=gram.dtype)

  def attempt(damping):
    whole = gram + eye * (damping * mean)
    # The upper factor is the lower one of the matrix turned round.
    lower = lax.linalg.cholesky(whole[::-1, ::-1], symmetrize_input=False)
    return jnp.tril(lower)[::-1, ::-1]

  return factored(attempt, damping, 1e-6)


def _super_block(
  w0, reached, corner, counts, real, *, block, in_rows, convention
):
  """Sweep the columns of a super-block.

  Args:
    w0: Weights [S, O].
    reached: What the super-blocks before add to R_kk w_k, [S, O].
    corner: The part of R on its diagonal [S, S].
    counts: How many entries each block of columns keeps [B].
    real: Which columns are not padding [S].
    block: Columns of a block.
    in_rows: Whether each row keeps so many, else all rows together.
    convention: See `sparsegpt`.

  Returns:
    What is taken away and what is kept, [S, O], and the loss [].
  """
  size, rows = w0.shape
  if size == block:
    return _block(w0, reached, corner, counts[0], real, in_rows, convention)

  def step(carry, part):
    reached, loss = carry
    start, panel, w0, kept, real = part
    mine = lax.dynamic_slice_in_dim(reached, start, block)
    tile = lax.dynamic_slice_in_dim(panel, start, block, axis=1)
    delta, mask, more = _block(w0, mine, tile, kept, real, in_rows, convention)
    reached += jnp.matmul(panel.T, delta, precision=_EXACT)
    return (reached, loss + more), (delta, mask)

  split = lambda x: x.reshape(-1, block, *x.shape[1:])
  parts = (
    jnp.arange(size // block) * block,
    split(corner),
    split(w0),
    counts,
    split(real),
  )
  start = reached, jnp.zeros((), w0.dtype)
  (_, loss), (delta, mask) = lax.scan(step, start, parts)
  return delta.reshape(size, rows), mask.reshape(size, rows), loss


def _block(w0, reached, tile, kept, real, in_rows, convention):
  """Choose what a block of columns keeps, and sweep them."""
  size = w0.shape[0]
  # What the columns would be if nothing in this block were pruned before them.
  entry = w0 + lax.linalg.triangular_solve(
    tile, reached, left_side=True, lower=False, transpose_a=True
  )
  scores = jnp.square(entry * jnp.diagonal(tile)[:, None])
  scores = jnp.where(real[:, None], scores, -1.0)
  if in_rows:
    mask = _largest_of_few(scores, kept, convention)
  else:
    mask = _largest(scores, kept, strict=convention == "reference")
  width = max(u for u in range(1, min(size, _UNROLLED) + 1) if size % u == 0)
  if width == size:
    delta, loss = _columns(w0, reached, tile, mask)
    return delta, mask, loss

  def step(carry, part):
    reached, loss = carry
    start, panel, w0, mask = part
    mine = lax.dynamic_slice_in_dim(reached, start, width)
    small = lax.dynamic_slice_in_dim(panel, start, width, axis=1)
    delta, more = _columns(w0, mine, small, mask)
    reached += jnp.matmul(panel.T, delta, precision=_EXACT)
    return (reached, loss + more), delta

  split = lambda x: x.reshape(-1, width, *x.shape[1:])
  starts = jnp.arange(size // width) * width
  start = reached, jnp.zeros((), w0.dtype)
  (_, loss), delta = lax.scan(
    step, start, (starts, split(tile), split(w0), split(mask))
  )
  return delta.reshape(w0.shape), mask, loss


def _columns(w0, reached, tile, mask):
  """Sweep few columns, [U, O]; return what is taken away, and the loss []."""
  taken, loss = [], jnp.zeros((), w0.dtype)
  for j in range(w0.shape[0]):
    before = reached[j]
    for i, delta in enumerate(taken):
      before = before + delta * tile[i, j]
    now = w0[j] + before / tile[j, j]
    taken.append(w0[j] - jnp.where(mask[j], now, 0.0))
    error = jnp.where(mask[j], 0.0, now * tile[j, j])
    loss = loss + 0.5 * jnp.sum(jnp.square(error))
  return jnp.stack(taken), loss


def _largest(scores: jax.Array, keep: jax.Array, *, strict: bool) -> jax.Array:
  """Keep the largest of all entries, ties by column and row.

  Args:
    scores: [S, O], not negative but for padding.
    keep: How many, int32 [].
    strict: Keep what is strictly above the `keep`-th largest.

  Returns:
    The mask [S, O].
  """
  keys = order_keys(scores, _key_type(scores))
  count = lambda chosen: jnp.sum(chosen, dtype=jnp.int32)
  highest = jnp.iinfo(keys.dtype).max
  key = jnp.where(keep > 0, _ranked(keys, keep), highest)
  above = keys > key
  if strict:
    return above
  equal, left = keys == key, keep - count(above)

  def split_ties() -> jax.Array:
    order = jnp.cumsum(equal.reshape(-1), dtype=jnp.int32).reshape(equal.shape)
    return above | (equal & (order <= left))

  return lax.cond(count(equal) > left, split_ties, lambda: above | equal)


def _ranked(keys: jax.Array, rank: jax.Array) -> jax.Array:
  """Find the `rank`-th largest of the keys, of which padding is negative."""
  if keys.size <= _SORTED:
    ordered = lax.sort(keys.reshape(-1))
    return ordered[jnp.clip(keys.size - rank, 0, keys.size - 1)]

  def halve(_: int, bounds: tuple) -> tuple:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = jnp.sum(keys >= middle, dtype=jnp.int32) >= rank
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  limits = jnp.iinfo(keys.dtype)
  # Scores are not negative, so that half of the keys will do.
  first = jnp.asarray(0, keys.dtype), jnp.asarray(limits.max, keys.dtype)
  return lax.fori_loop(0, limits.bits - 1, halve, first)[0]


def _largest_of_few(
  scores: jax.Array, keep: jax.Array, convention: str
) -> jax.Array:
  """Keep the largest of every row's few entries.

  Args:
    scores: [S, O].
    keep: How many of S, int32 [].
    convention: Among ties "exact" keeps the lower column, "reference" prunes
      it.

  Returns:
    The mask [S, O].
  """
  column = jnp.arange(scores.shape[0])
  lower = column[:, None] < column[None, :]
  earlier = lower if convention == "exact" else lower.T
  # [other, own, O]: how many others come before.
  ahead = scores[:, None] > scores[None, :]
  ties = scores[:, None] == scores[None, :]
  rank = jnp.sum(ahead | (ties & earlier[:, :, None]), 0, dtype=jnp.int32)
  return rank < keep


def _key_type(scores: jax.Array) -> Any:
  return jnp.int64 if scores.dtype == jnp.float64 else jnp.int32
