"""The greedy optimal brain surgeon: in every row the cheapest weight goes next.

Each row w of the weights has the inverse G of its Gram matrix to itself. The
weight p with the least w_p^2 / G_pp goes, the others of the row move by
-G_:p w_p / G_pp, and G loses what depends on p (Hassibi and Stork 1992; Frantar
and Alistarh 2022, arXiv 2208.11580). What is removed is remembered as vectors u
with G_t = G_0 - sum_s u_s u_s^T, so that all rows share G_0. With the order of
removals known, any number of them is applied at once, by solving for the
weights that stay.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax.pruning.allocation import check_sparsity
from effjax.pruning.counts import static_kept
from effjax.pruning.obs.solution import (
  Solution,
  check_n_m,
  check_operands,
  factored,
  prepared,
)
from effjax.pruning.scores import check_convention

_EXACT = lax.Precision.HIGHEST
# Numbers that the rows solved at once may hold, 64 MB of float32.
_NUMBERS = 1 << 24


def exact_obs(
  w: jax.Array,
  gram: jax.Array,
  sparsity: float | None = None,
  *,
  n_m: tuple[int, int] | None = None,
  block: int = 1,
  damping: float = 0.0,
  convention: str = "exact",
) -> Solution:
  """Prune a layer by the greedy optimal brain surgeon.

  All rows are followed to the end; the cheapest steps of all rows together are
  then taken. The cost grows with O I^3: for layers of up to 512 inputs or so.

  Args:
    w: Weights [O, I].
    gram: Gram matrix of their inputs [I, I], see `pruning.input_gram`.
    sparsity: Share to prune of the whole matrix.
    n_m: Instead, (kept, of): so many of every `of` neighbours of a row.
    block: Neighbours of a row that go together; divides I.
    damping: What is added to the diagonal, as a share of its mean; where the
      matrix cannot be factored, 0.01 and then ten times as much and so on.
    convention: "exact" removes floor(sparsity * n + 1/2) of the n blocks and
      averages the diagonal over live columns; "reference" removes
      ceil(sparsity * n) and counts columns without inputs as 1.

  Returns:
    The solution.

  Raises:
    ValueError: If shapes do not fit, neither or both of sparsity and n_m are
      given, or a number is out of range.

  >>> w, x = jnp.array([[1.0, 0.1]]), jnp.array([[1.0, 1.0], [1.0, 1.1]])
  >>> exact_obs(w, x.T @ x, 0.5).mask.tolist()
  [[True, False]]
  """
  check_convention(convention)
  w, gram = check_operands(w, gram)
  rows, columns = w.shape
  if (sparsity is None) == (n_m is None):
    raise ValueError("give either a sparsity or n_m, (kept, of)")
  if block < 1 or columns % block:
    raise ValueError(
      f"{columns} inputs cannot be divided into blocks of {block}"
    )
  if n_m is not None and block != 1:
    raise ValueError("n_m and block cannot be combined")
  if not w.size:
    nothing = jnp.zeros((), w.dtype)
    return Solution(w, jnp.zeros(w.shape, bool), nothing, nothing + damping)
  kept, of = check_n_m(n_m, columns) if n_m is not None else (0, columns)
  blocks = columns // block
  if n_m is not None:
    removed = None
    steps = columns // of * (of - kept)
  else:
    removed = _removed(rows * blocks, sparsity, convention)
    steps = blocks if removed else 0
  solve = _solver(block, of, of - kept, steps, removed, convention)
  return Solution(*solve(w, gram, jnp.asarray(damping, w.dtype)))


def _removed(size: int, sparsity: Any, convention: str) -> int:
  """Count the blocks that go."""
  if convention == "exact":
    return size - static_kept(size, sparsity, "exact")
  return min(math.ceil(size * check_sparsity(sparsity)), size)


@functools.cache
def _solver(block, of, most, steps, removed, convention):
  solve = functools.partial(
    _solve,
    block=block,
    of=of,
    most=most,
    steps=steps,
    removed=removed,
    convention=convention,
  )
  if jax.default_backend() == "cpu":
    # Factorisations of a batch may wait for each other for ever on the CPU.
    solve = jax.custom_batching.sequential_vmap(solve)
  return jax.jit(solve)


def _solve(w, gram, damping, *, block, of, most, steps, removed, convention):
  """Solve; see `exact_obs`."""
  dead = jnp.diagonal(gram) == 0.0
  gram, mean = prepared(gram, dead, convention)
  start = jnp.where(dead[None, :], 0.0, w)
  inverse, damping = _inverse(gram, mean, damping)
  columns = w.shape[1]
  chunk = max(1, _NUMBERS // (columns * columns))
  follow = functools.partial(
    _follow, inverse, block=block, of=of, most=most, steps=steps
  )
  if steps:
    order, losses = lax.map(follow, start, batch_size=min(chunk, w.shape[0]))
  else:
    order = jnp.zeros((w.shape[0], 0), jnp.int32)
    losses = order.astype(w.dtype)
  if removed is None:
    taken = jnp.full(w.shape[0], steps, jnp.int32)
  else:
    taken = _cheapest(losses, removed)
  rank = jnp.zeros((w.shape[0], columns // block), jnp.int32) + steps
  rank = jax.vmap(lambda r, o: r.at[o].set(jnp.arange(steps, dtype=jnp.int32)))(
    rank, order
  )
  mask = jnp.repeat(rank >= taken[:, None], block, axis=1) & ~dead[None, :]
  eye = jnp.eye(columns, dtype=w.dtype)
  damped = gram + eye * (jnp.where(jnp.isfinite(damping), damping, 0.0) * mean)
  damped = jnp.where(jnp.isfinite(damping), damped, eye)
  settle = functools.partial(_settle, damped)
  weights = lax.map(
    lambda pair: settle(*pair),
    (start, mask),
    batch_size=min(chunk, w.shape[0]),
  )
  change = start - weights
  bent = jnp.matmul(change, damped, precision=_EXACT)
  loss = 0.5 * jnp.sum(change * bent)
  loss = jnp.where(jnp.isfinite(damping), loss, jnp.nan)
  return weights, mask, loss, damping


def _inverse(gram, mean, damping):
  """Invert a damped Gram matrix, damping more until it can be done."""
  eye = jnp.eye(gram.shape[0], dtype=gram.dtype)

  def attempt(damping):
    whole = gram + eye * (damping * mean)
    lower = lax.linalg.cholesky(whole, symmetrize_input=False)
    half = lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True)
    return jnp.matmul(half.T, half, precision=_EXACT)

  return factored(attempt, damping, 0.01)


def _follow(inverse, w, *, block, of, most, steps):
  """Remove the blocks of a row one after the other.

  Args:
    inverse: Inverse of the Gram matrix [I, I].
    w: The row [I].
    block: Columns of a block.
    of: Columns of a group.
    most: How many of a group may go.
    steps: How many blocks go.

  Returns:
    The order of the blocks, int32 [T], and the loss of each step [T].
  """
  columns = w.size
  blocks = columns // block
  tiles = inverse.reshape(blocks, block, blocks, block)
  tiles = tiles[jnp.arange(blocks), :, jnp.arange(blocks), :]
  group = jnp.arange(blocks) * block // of

  def step(carry, t):
    w, tiles, gone, units = carry
    parts = w.reshape(blocks, block)
    if block == 1:
      scores = jnp.square(parts[:, 0]) / tiles[:, 0, 0]
    else:
      solved = jnp.linalg.solve(tiles, parts[:, :, None])[..., 0]
      scores = jnp.sum(parts * solved, axis=1)
    full = jax.ops.segment_sum(
      gone.astype(jnp.int32), group, num_segments=columns // of
    )
    barred = gone | ((full >= most)[group] if of < columns else False)
    p = jnp.argmin(jnp.where(barred, jnp.inf, scores)).astype(jnp.int32)
    start = p * block
    mine = lambda x: lax.dynamic_slice_in_dim(x, start, block, axis=-1)
    # What is left of the columns of this block.
    panel = mine(inverse) - jnp.matmul(units.T, mine(units), precision=_EXACT)
    tile = lax.dynamic_index_in_dim(tiles, p, keepdims=False)
    removed = lax.dynamic_slice_in_dim(w, start, block)
    if block == 1:
      unit = panel[:, 0] / jnp.sqrt(tile[0, 0])
      unit = unit[None, :]
      w = w - panel[:, 0] * (removed[0] / tile[0, 0])
    else:
      lower = lax.linalg.cholesky(tile, symmetrize_input=False)
      unit = lax.linalg.triangular_solve(
        lower, panel.T, left_side=True, lower=True
      )
      w = w - panel @ jnp.linalg.solve(tile, removed)
    units = lax.dynamic_update_slice_in_dim(units, unit, t * block, axis=0)
    cut = unit.reshape(block, blocks, block)
    tiles = tiles - jnp.einsum("kba,kbc->bac", cut, cut, precision=_EXACT)
    gone = gone.at[p].set(True)
    # What is gone stays zero and must not divide by zero.
    dead = jnp.repeat(gone, block)
    w = jnp.where(dead, 0.0, w)
    eye = jnp.eye(block, dtype=w.dtype)
    tiles = jnp.where(gone[:, None, None], eye, tiles)
    return (w, tiles, gone, units), (p, 0.5 * scores[p])

  units = jnp.zeros((max(steps, 1) * block, columns), w.dtype)
  carry = w, tiles, jnp.zeros(blocks, bool), units
  _, (order, losses) = lax.scan(step, carry, jnp.arange(steps))
  return order, losses


def _cheapest(losses: jax.Array, removed: int) -> jax.Array:
  """Count how many of the cheapest steps belong to each row, int32 [O]."""
  if not removed:
    return jnp.zeros(losses.shape[0], jnp.int32)
  flat = losses.reshape(-1)
  chosen = jnp.zeros(flat.size, bool).at[jnp.argsort(flat)[:removed]].set(True)
  return jnp.sum(chosen.reshape(losses.shape), axis=1, dtype=jnp.int32)


def _settle(gram: jax.Array, w: jax.Array, mask: jax.Array) -> jax.Array:
  """Find the weights that stay: the least change of the outputs of a row."""
  both = mask[:, None] & mask[None, :]
  eye = jnp.eye(w.size, dtype=w.dtype)
  wanted = jnp.where(mask, jnp.matmul(gram, w, precision=_EXACT), 0.0)
  lower = lax.linalg.cholesky(
    jnp.where(both, gram, eye), symmetrize_input=False
  )
  half = lax.linalg.triangular_solve(
    lower, wanted[:, None], left_side=True, lower=True
  )
  found = lax.linalg.triangular_solve(
    lower, half, left_side=True, lower=True, transpose_a=True
  )
  return jnp.where(mask, found[:, 0], 0.0)
