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
import numpy as np
from jax import lax

from effjax import arguments
from effjax.pruning.allocation import check_sparsity
from effjax.pruning.counts import is_traced
from effjax.pruning.obs.factor import lower_factor
from effjax.pruning.obs.solution import (
  Solution,
  check_damping,
  check_n_m,
  check_operands,
  check_share,
  factored,
  kept_entries,
  mean_pivot,
  usable,
)
from effjax.pruning.scores import check_convention

_EXACT = lax.Precision.HIGHEST
# Numbers that the rows solved at once may hold, 64 MB of float32.
_NUMBERS = 1 << 24
_SCOPES = ("matrix", "rows", "columns")


def exact_obs(
  w: jax.Array,
  gram: jax.Array,
  sparsity: Any = None,
  *,
  n_m: tuple[int, int] | None = None,
  scope: str = "matrix",
  block: int = 1,
  damping: float = 0.0,
  convention: str = "exact",
) -> Solution:
  """Prune a layer by the greedy optimal brain surgeon.

  All rows are followed to the end; the cheapest steps of all rows together are
  then taken. The cost grows with O I^3: for layers of up to 512 inputs or so.
  Weights that are zero from the start cost nothing and go first.

  Args:
    w: Weights [O, I].
    gram: Gram matrix of their inputs [I, I], see `pruning.input_gram`.
    sparsity: Share to prune, a number or traced.
    n_m: Instead, (kept, of): so many of every `of` neighbours of a row.
    scope: Where the share holds: "matrix", the rows compete; "rows", as many go
      in every row; "columns", whole columns go, at the cost of one row.
    block: Neighbours of a row that go together; divides I.
    damping: What is added to the diagonal, as a share of its mean; where the
      matrix cannot be factored, at least 0.01 and then ten times as much and so
      on.
    convention: "exact" removes floor(sparsity * n + 1/2) of the n blocks of the
      matrix or the row, or of the n columns, and averages the diagonal over
      live columns; "reference" removes ceil(sparsity * n), of columns one more,
      counts columns without inputs as 1, and adds at least 1 itself where the
      matrix cannot be factored, so that its scale matters there.

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
  check_damping(damping)
  w, gram = check_operands(w, gram)
  rows, columns = w.shape
  if (sparsity is None) == (n_m is None):
    raise ValueError("give either a sparsity or n_m, (kept, of)")
  if scope not in _SCOPES:
    raise ValueError(f"there is no scope {scope!r}: choose from {_SCOPES}")
  block = arguments.whole("block", block)
  if columns % block:
    raise ValueError(
      f"{columns} inputs cannot be divided into blocks of {block}"
    )
  if n_m is not None and (block != 1 or scope != "matrix"):
    raise ValueError("n_m and block or scope cannot be combined")
  if not w.size:
    nothing = jnp.zeros((), w.dtype)
    return Solution(w, jnp.zeros(w.shape, bool), nothing, nothing + damping)
  if n_m is not None:
    kept, of = check_n_m(n_m, columns)
    solve = _solver(block, columns // of * (of - kept), "groups", convention)
    limits = [of, of - kept]
  else:
    blocks = columns // block
    size = rows * blocks if scope == "matrix" else blocks
    removed = _removed(size, sparsity, scope, convention)
    one = "columns" if scope == "columns" else "rows"
    solve = _solver(block, blocks, one, convention)
    limits = [removed, -1] if scope == "matrix" else [-1, removed]
  limits = jnp.stack([jnp.asarray(limit, jnp.int32) for limit in limits])
  return Solution(*solve(w, gram, limits, jnp.asarray(damping, w.dtype)))


def _removed(size: int, sparsity: Any, scope: str, convention: str) -> Any:
  """Count the blocks that go, int or int32 []."""
  if convention == "exact":
    return size - kept_entries(size, sparsity, "exact")
  more = int(scope == "columns")
  if not is_traced(sparsity):
    return min(math.ceil(size * check_sparsity(sparsity)) + more, size)
  share = check_share(sparsity)
  removed = jnp.ceil(share * np.float32(size)).astype(jnp.int32) + more
  return jnp.minimum(removed, size)


@functools.cache
def _solver(block, steps, kind, convention):
  """Make the compiled solver of one kind."""
  solve = functools.partial(
    _solve, block=block, steps=steps, kind=kind, convention=convention
  )
  if jax.default_backend() == "cpu":
    # Factorisations of a batch may wait for each other for ever on the CPU.
    solve = jax.custom_batching.sequential_vmap(solve)
  return jax.jit(solve)


def _solve(w, gram, limits, damping, *, block, steps, kind, convention):
  """Solve for one kind of choice.

  Args:
    w: Weights [O, I].
    gram: Gram matrix [I, I].
    limits: For "groups" the columns of a group and how many of them go; else
      how many blocks go in all and, unless it is negative, in each row. int32
      [2].
    damping: The first damping, [].
    block: Columns of a block.
    steps: How many blocks of a row are followed.
    kind: "rows", "columns" or "groups".
    convention: See `exact_obs`.

  Returns:
    The fields of the solution.
  """
  pivots = jnp.diagonal(gram)
  dead = pivots == 0.0
  mean = mean_pivot(pivots, dead, convention)
  # Columns without inputs have pivots, too.
  gram += jnp.diag(dead.astype(gram.dtype))
  start = jnp.where(dead[None, :], 0.0, w)
  # What the published code adds where a matrix cannot be factored is 1.
  least = 1.0 / mean if convention == "reference" else 0.01
  solve = functools.partial(
    _solve_damped,
    start,
    gram,
    dead,
    limits,
    block=block,
    steps=steps,
    kind=kind,
  )

  def attempt(damping):
    inverse, damping = _inverse(gram, mean, damping, least)
    found = solve(inverse, damping * mean)
    return jnp.all(jnp.isfinite(found[0])), (*found, damping)

  # A matrix that can just be inverted may have parts that, by rounding, cannot.
  (weights, mask, loss, damping), _ = factored(attempt, damping, least)
  loss = jnp.where(jnp.isfinite(damping), loss, jnp.nan)
  return weights, mask, loss, damping


def _solve_damped(
  start, gram, dead, limits, inverse, ridge, *, block, steps, kind
):
  """Solve with the inverse of a damped Gram matrix.

  Args:
    start: Weights [O, I], 0 in dead columns.
    gram: Gram matrix [I, I].
    dead: Which columns have no inputs, bool [I].
    limits: See `_solve`.
    inverse: The inverse [I, I].
    ridge: What was added to the diagonal, []; infinite where nothing helped.
    block: See `_solve`.
    steps: See `_solve`.
    kind: See `_solve`.

  Returns:
    Weights, mask and loss.
  """
  rows, columns = start.shape
  follow = functools.partial(
    _follow,
    inverse,
    block=block,
    steps=steps,
    limits=limits if kind == "groups" else None,
  )
  # Rows that are followed at once, each with its own inverse.
  chunk = min(max(1, _NUMBERS // (columns * columns)), rows)
  losses = jnp.zeros((rows, steps), start.dtype)
  if not steps:
    order = jnp.zeros((rows, 0), jnp.int32)
  elif kind == "columns":
    order = jnp.broadcast_to(follow(start)[0], (rows, steps))
  else:
    order, losses = lax.map(follow, start[:, None], batch_size=chunk)
  if kind == "groups":
    taken = jnp.full(rows, steps, jnp.int32)
  elif kind == "columns":
    taken = jnp.full(rows, limits[1])
  else:
    taken = jnp.where(
      limits[1] < 0, _cheapest(losses, limits[0]), jnp.full(rows, limits[1])
    )
  rank = jnp.full((rows, columns // block), steps, jnp.int32)
  rank = jax.vmap(lambda r, o: r.at[o].set(jnp.arange(steps, dtype=jnp.int32)))(
    rank, order
  )
  mask = jnp.repeat(rank >= taken[:, None], block, axis=1) & ~dead[None, :]
  eye = jnp.eye(columns, dtype=start.dtype)
  damped = gram + eye * jnp.where(jnp.isfinite(ridge), ridge, 0.0)
  damped = jnp.where(jnp.isfinite(ridge), damped, eye)
  settle = functools.partial(_settle, damped)
  if kind == "columns":
    weights = settle(start, mask[0])
  else:
    weights = lax.map(
      lambda pair: settle(*pair), (start[:, None], mask), batch_size=chunk
    )[:, 0]
  change = start - weights
  bent = jnp.matmul(change, damped, precision=_EXACT)
  return weights, mask, 0.5 * jnp.sum(change * bent)


def _inverse(gram, mean, damping, least):
  """Invert a damped Gram matrix, damping more until it can be done."""
  eye = jnp.eye(gram.shape[0], dtype=gram.dtype)

  def attempt(damping):
    whole = gram + eye * (damping * mean)
    _, half = lower_factor(whole)
    inverse = jnp.matmul(half.T, half, precision=_EXACT)
    return usable(jnp.diagonal(inverse)), inverse

  inverse, damping = factored(attempt, damping, least)
  # With the identity scores are squares, and nothing is compensated.
  return jnp.where(jnp.isfinite(damping), inverse, eye), damping


def _follow(inverse, w, *, block, steps, limits):
  """Remove the blocks of rows one after the other, the same in all of them.

  Args:
    inverse: Inverse of the Gram matrix [I, I].
    w: The rows [R, I].
    block: Columns of a block.
    steps: How many blocks go.
    limits: The columns of a group and how many of them may go, int32 [2]; None
      if any may go.

  Returns:
    The order of the blocks, int32 [T], and the loss of each step [T].
  """
  rows, columns = w.shape
  blocks = columns // block
  every = jnp.arange(blocks, dtype=jnp.int32)
  tiles = inverse.reshape(blocks, block, blocks, block)[every, :, every, :]

  def step(carry, t):
    w, tiles, gone, units = carry
    parts = jnp.transpose(w.reshape(rows, blocks, block), (1, 2, 0))
    if block == 1:
      scores = jnp.sum(jnp.square(parts[:, 0]), axis=1) / tiles[:, 0, 0]
    else:
      scores = jnp.sum(parts * jnp.linalg.solve(tiles, parts), axis=(1, 2))
    # What is too large for a number may still go, what is barred may not.
    scores = jnp.minimum(scores, jnp.finfo(scores.dtype).max)
    barred = gone
    if limits is not None:
      group = every * block // limits[0]
      full = jnp.zeros(blocks, jnp.int32).at[group].add(gone.astype(jnp.int32))
      barred = gone | (full >= limits[1])[group]
    p = jnp.argmin(jnp.where(barred, jnp.inf, scores)).astype(jnp.int32)
    start = p * block
    mine = lambda x: lax.dynamic_slice_in_dim(x, start, block, axis=-1)
    # What is left of the columns of this block.
    panel = mine(inverse) - jnp.matmul(units.T, mine(units), precision=_EXACT)
    tile = lax.dynamic_index_in_dim(tiles, p, keepdims=False)
    if block == 1:
      unit = panel.T / jnp.sqrt(tile)
      w = w - mine(w) / tile * panel.T
    else:
      lower = lax.linalg.cholesky(tile, symmetrize_input=False)
      unit = lax.linalg.triangular_solve(
        lower, panel.T, left_side=True, lower=True
      )
      shares = jnp.linalg.solve(tile, mine(w).T)
      w = w - jnp.matmul(panel, shares, precision=_EXACT).T
    units = lax.dynamic_update_slice_in_dim(units, unit, t * block, axis=0)
    cut = unit.reshape(block, blocks, block)
    tiles = tiles - jnp.einsum("kba,kbc->bac", cut, cut, precision=_EXACT)
    gone = gone.at[p].set(True)
    # What is gone stays zero and must not divide by zero.
    w = jnp.where(jnp.repeat(gone, block)[None, :], 0.0, w)
    eye = jnp.eye(block, dtype=w.dtype)
    tiles = jnp.where(gone[:, None, None], eye, tiles)
    return (w, tiles, gone, units), (p, 0.5 * scores[p])

  units = jnp.zeros((steps * block, columns), w.dtype)
  carry = w, tiles, jnp.zeros(blocks, bool), units
  _, (order, losses) = lax.scan(step, carry, jnp.arange(steps))
  return order, losses


def _cheapest(losses: jax.Array, removed: jax.Array) -> jax.Array:
  """Count how many of the cheapest steps belong to each row, int32 [O]."""
  flat = losses.reshape(-1)
  cheap = jnp.arange(flat.size, dtype=jnp.int32) < removed
  chosen = jnp.zeros(flat.size, bool).at[jnp.argsort(flat)].set(cheap)
  return jnp.sum(chosen.reshape(losses.shape), axis=1, dtype=jnp.int32)


def _settle(gram: jax.Array, w: jax.Array, mask: jax.Array) -> jax.Array:
  """Find the weights that stay: the least change of the outputs of some rows.

  Args:
    gram: Gram matrix [I, I].
    w: The rows [R, I].
    mask: What stays in all of them [I].

  Returns:
    The rows.
  """
  both = mask[:, None] & mask[None, :]
  eye = jnp.eye(mask.size, dtype=w.dtype)
  lost = jnp.where(mask[None, :], 0.0, w)
  wanted = jnp.matmul(gram, lost.T, precision=_EXACT)
  lower = lax.linalg.cholesky(
    jnp.where(both, gram, eye), symmetrize_input=False
  )
  half = lax.linalg.triangular_solve(
    lower,
    jnp.where(mask[:, None], wanted, 0.0),
    left_side=True,
    lower=True,
  )
  more = lax.linalg.triangular_solve(
    lower, half, left_side=True, lower=True, transpose_a=True
  )
  return jnp.where(mask[None, :], w + more.T, 0.0)
