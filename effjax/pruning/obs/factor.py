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
_ON_ONE_THREAD = 64  # side of matrices that are factored together with unity
_LARGE = 1024  # side from which on that costs less than many small products
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


def lower_factor(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Factor a symmetric matrix, and invert the factor.

  Args:
    matrix: H, [M, M].

  Returns:
    L of H = L L^T, lower triangular, and its inverse; not finite where the
    matrix cannot be factored.
  """
  side = matrix.shape[0]
  if jax.default_backend() != "cpu" or side > _LARGE:
    lower = lax.linalg.cholesky(matrix, symmetrize_input=False)
    return lower, _solved(lower)
  # On the CPU all but small factorisations, and all solves, occupy the threads
  # of another library. They turn in circles for a while when they are done, and
  # what comes next shares the cores with them.
  if side <= _ON_ONE_THREAD:
    return _factored_with_unity(matrix)
  half = side // 2
  first, first_inverse = lower_factor(matrix[:half, :half])
  below = jnp.matmul(matrix[half:, :half], first_inverse.T, precision=_EXACT)
  rest = matrix[half:, half:] - jnp.matmul(below, below.T, precision=_EXACT)
  last, last_inverse = lower_factor(rest)
  coupling = jnp.matmul(below, first_inverse, precision=_EXACT)
  coupling = -jnp.matmul(last_inverse, coupling, precision=_EXACT)
  nothing = jnp.zeros(below.shape[::-1], below.dtype)
  return (
    jnp.block([[first, nothing], [below, last]]),
    jnp.block([[first_inverse, nothing], [coupling, last_inverse]]),
  )


def _factored_with_unity(matrix):
  """Factor [[H, 1], [1, c 1]]: under L stands the transpose of its inverse."""
  side = matrix.shape[0]
  eye = jnp.eye(side, dtype=matrix.dtype)
  large = jnp.finfo(matrix.dtype).max / 4
  # What is above the diagonal is not read.
  both = jnp.block([[matrix, eye], [eye, large * eye]])
  lower = lax.linalg.cholesky(both, symmetrize_input=False)
  return lower[:side, :side], lower[side:, :side].T


def upper_factor(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return R of R R^T, upper triangular, and its inverse."""
  # L of the matrix turned round. LAPACK reads columns: transposed, the
  # symmetric matrix need not be copied into that order, nor what it is cut of.
  lower, inverse = lower_factor(matrix.T[::-1, ::-1])
  return lower[::-1, ::-1], inverse[::-1, ::-1]


def _solved(lower):
  """Invert lower triangular matrices, [..., M, M]."""
  eye = jnp.eye(lower.shape[-1], dtype=lower.dtype)
  eye = jnp.broadcast_to(eye, lower.shape)
  return lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True)


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
    corner, inverse = upper_factor(
      rows[:, start:] + jnp.diag(added[start:stop])
    )
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
  turned = (gram + jnp.diag(added)).T[::-1, ::-1]
  rows = lax.linalg.cholesky(turned, symmetrize_input=False)[::-1, ::-1].T
  rows = jnp.pad(rows, ((0, padding), (0, padding)))
  rows += jnp.diag((jnp.arange(many * size) >= columns).astype(rows.dtype))
  every = jnp.arange(many)
  corners = rows.reshape(many, size, many, size)[every, :, every, :]
  upper = lambda blocks: blocks.transpose(0, 2, 1)
  return rows, upper(corners), upper(_solved(corners))
