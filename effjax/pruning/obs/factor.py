"""The factor of a Gram matrix, H = R R^T with R upper triangular, in blocks.

The rows of R^T that belong to a block B of columns need only the rows after
them: H_B,: - R_B,later R_:,later^T, times R_BB^-1 from the left. On the CPU it
takes less time than a factorisation of the whole: products do the work, and
nothing large is turned round, copied or cut out. Accelerators factor large
matrices well, but start each small operation late.
"""

import jax
import jax.numpy as jnp
from jax import lax

_WRITTEN_OUT = 48  # blocks that may be written out: each takes time to compile
_EXACT = lax.Precision.HIGHEST


def factor_rows(
  gram: jax.Array, added: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Factor a Gram matrix with something added to its diagonal.

  Args:
    gram: H, [I, I].
    added: What is added to its diagonal, [I].
    size: Columns S of a block; there are K of them, the last one padded by
      columns of the identity.

  Returns:
    R^T, [K S, K S]; its diagonal blocks R_BB, [K, S, S], and their inverses.
    Not finite where the matrix cannot be factored.
  """
  many = -(-gram.shape[0] // size)
  if jax.default_backend() == "cpu" and many <= _WRITTEN_OUT:
    return _by_blocks(gram, added, size)
  return _as_a_whole(gram, added, size)


def inverted(corners: jax.Array) -> jax.Array:
  """Invert upper triangular matrices, [..., S, S]."""
  eye = jnp.eye(corners.shape[-1], dtype=corners.dtype)
  return lax.linalg.triangular_solve(
    corners, jnp.broadcast_to(eye, corners.shape), left_side=True, lower=False
  )


def upper_factor(matrix: jax.Array) -> jax.Array:
  """Return R of R R^T, upper triangular: of the matrix turned round, L."""
  # LAPACK reads columns. Transposed, the symmetric matrix need not be copied
  # into that order, nor what it is cut out of.
  turned = lax.linalg.cholesky(matrix.T[::-1, ::-1], symmetrize_input=False)
  return turned[::-1, ::-1]


def _by_blocks(gram, added, size):
  """Factor from the last block to the first."""
  columns = gram.shape[0]
  many = -(-columns // size)
  padding = many * size - columns
  added = jnp.pad(added, (0, padding), constant_values=1.0)
  whole = jnp.zeros((many * size, many * size), gram.dtype)
  corners, inverses = [], []
  for start in range((many - 1) * size, -1, -size):
    stop = start + size
    rows = gram[start:stop, :stop]
    if stop > columns:
      rows = jnp.pad(rows, ((0, padding), (0, padding)))
    if stop < many * size:
      rows -= jnp.matmul(
        whole[stop:, start:stop].T, whole[stop:, :stop], precision=_EXACT
      )
    corner = upper_factor(rows[:, start:] + jnp.diag(added[start:stop]))
    inverse = inverted(corner)
    before = jnp.matmul(inverse, rows[:, :start], precision=_EXACT)
    rows = jnp.concatenate([before, corner.T], axis=1)
    whole = lax.dynamic_update_slice(whole, rows, (start, 0))
    corners.append(corner)
    inverses.append(inverse)
  return whole, jnp.stack(corners[::-1]), jnp.stack(inverses[::-1])


def _as_a_whole(gram, added, size):
  """Factor the matrix at once, and cut the factor into blocks."""
  columns = gram.shape[0]
  many = -(-columns // size)
  padding = many * size - columns
  rows = upper_factor(gram + jnp.diag(added)).T
  rows = jnp.pad(rows, ((0, padding), (0, padding)))
  rows += jnp.diag((jnp.arange(many * size) >= columns).astype(rows.dtype))
  every = jnp.arange(many)
  corners = rows.reshape(many, size, many, size)[every, :, every, :]
  corners = corners.transpose(0, 2, 1)
  return rows, corners, inverted(corners)
