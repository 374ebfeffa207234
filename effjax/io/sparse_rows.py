"""Sparse matrices by rows of (out, in), as files of RoSA have them."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from effjax.adapters import layouts


def to_rows(
  values: np.ndarray, indices: np.ndarray, outputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Write values at flat indices of [I, O] by rows of (O, I).

  Args:
    values: The values [K].
    indices: Their places in C order [K], in any order.
    outputs: Number of outputs O.

  Returns:
    Values [K], offset of every row int32 [O + 1], columns int32 [K], ascending
    within a row.

  >>> rows = to_rows(np.array([1.0, 2.0]), np.array([1, 2]), 2)
  >>> [x.tolist() for x in rows]
  [[2.0, 1.0], [0, 1, 2], [1, 0]]
  """
  rows, columns = indices % outputs, indices // outputs
  order = np.lexsort((columns, rows))
  offsets = np.searchsorted(rows[order], np.arange(outputs + 1))
  return (
    values[order],
    offsets.astype(np.int32),
    columns[order].astype(np.int32),
  )


def from_rows(
  values: np.ndarray,
  offsets: np.ndarray,
  columns: np.ndarray,
  *,
  word: str,
  shape: Sequence[int],
  what: str,
) -> tuple[np.ndarray, np.ndarray]:
  """Read values by rows of (O, I) as those at flat indices of a kernel.

  Args:
    values: The values [K].
    offsets: Offset of every row [O + 1].
    columns: Columns [K], of any type of integers.
    word: Layout of the kernel.
    shape: Its shape.
    what: What is read, for the error.

  Returns:
    Values [K], and int32 indices into the kernel in C order [K], ascending; of
    one kernel where several are stacked.

  Raises:
    ValueError: If this is no such matrix.
  """
  _, inputs, outputs = layouts.sizes(word, shape)
  offsets, columns = offsets.astype(np.int64), columns.astype(np.int64)
  sound = (
    offsets.shape == (outputs + 1,)
    and columns.shape == values.shape == (int(offsets[-1]),)
    and offsets[0] == 0
    and np.all(np.diff(offsets) >= 0)
  )
  if not sound or np.any(columns < 0) or np.any(columns >= inputs):
    raise ValueError(
      f"{what}: the sparse part is no matrix of {outputs} rows and {inputs}"
      " columns (columns beyond 32767 do not fit the int16 of old files)"
    )
  rows = np.repeat(np.arange(outputs), np.diff(offsets))
  inner = word.replace("b", "")
  flat = columns * outputs + rows
  if inner != "io":
    letters = zip(word, shape, strict=True)
    one = tuple(n for letter, n in letters if letter != "b")
    places = jnp.arange(math.prod(one), dtype=jnp.int32).reshape(one)
    flat = np.asarray(layouts.to_matrix(places, inner))[columns, rows]
  order = np.argsort(flat)
  if np.any(np.diff(flat[order]) == 0):
    raise ValueError(f"{what}: a place of the sparse part occurs twice")
  return values[order], flat[order].astype(np.int32)
