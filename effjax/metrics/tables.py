"""Draws resamples of a batch as counts of cells, on the host.

A resample of n rows gives each cell a multinomial count, so that the counts are
drawn instead of the rows: 64 numbers instead of 200,000, with the same
distribution. The numbers of the kinds are drawn once for all attributes, so
that every attribute sees groups of the same size; between attributes the counts
are independent otherwise. NumPy draws them: its binomials take a tenth of the
time of compiled ones.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics.cells import Cells, alike

# The most cells of an attribute that are drawn rather than rows.
_CELLS = 2**12
# So many are few enough; more are joined where a metric has coarser ones.
_FEW = 2**10 + 2**7
# The number of cells in use is a multiple of this.
_PAD = 2**7
# The most columns of a product that counts the cells of drawn rows.
_COLUMNS = 2**10
# The most numbers of one block of resamples.
_BLOCK = 2**23
# Rows that become floats at a time, so that they stay in the cache.
_ROWS = 2**13


class Table(NamedTuple):
  """The counts of a batch, on the host.

  Attributes:
    cells: How states follow; coarser than asked for where those are too many.
    codes: [U] int32, the cells of the last axis; None for all K in order.
    counts: [A, P, U] int64.
    kinds: The tree of `Cells.index`, [P, C].
    means: A tree of [A, P, U] float32, the mean value of each cell, or None.
    strata: [P] int64, the stratum of each kind, below P.
    kind: [N] int64, the kind of each row; P for a row that does not count.
    cell: [N, A] int32, the place in the last axis.
  """

  cells: Cells
  codes: np.ndarray | None
  counts: np.ndarray
  kinds: Any
  means: np.ndarray | None
  strata: np.ndarray
  kind: np.ndarray
  cell: np.ndarray


def tabulate(
  cells: Cells, batches: Sequence[Mapping[str, Any]], strata: Any = None
) -> Table | None:
  """Counts the cells of a batch.

  Args:
    cells: Those of `join` where there are several batches.
    batches: Concrete named arrays, one dict for each part of `cells`.
    strata: [N] integers or bools, or None.

  Returns:
    A `Table`, or None where rows are the better choice: because there are too
    many cells, or two models that are alike, or weights that are not 0 or 1 and
    the same in all batches.
  """
  weights = [batch.get("weights") for batch in batches]
  rows = len(next(x for x in batches[0].values() if x is not None))
  counted = [np.ones(rows) if w is None else np.asarray(w) for w in weights]
  live = counted[0] != 0
  if not live.any() or any((w != live).any() for w in counted):
    return None
  kinds, cell, values = _read(cells, batches)
  leaves, structure = jax.tree.flatten(kinds)
  columns = [np.zeros(rows, int) if strata is None else np.asarray(strata)]
  columns += [x[:, i] for x in leaves for i in range(x.shape[1])]
  first, kind = _distinct(columns, live)
  number, width, codes = len(first), cell.shape[1], None
  if number * cells.size > _FEW:
    cells, codes, cell = _in_use(cells, cell, live, _FEW // number)
  size = cells.size if codes is None else len(codes)
  if number * size > _CELLS:
    return None
  code = kind * size
  shape = (number + 1, size)

  def sums(amounts=None):
    found = [
      np.bincount(
        code + cell[:, a],
        None if amounts is None else amounts[:, a],
        minlength=math.prod(shape),
      )
      for a in range(width)
    ]
    return np.stack(found).reshape(width, *shape)[:, :number]

  counts, means = sums(), None
  if len(batches) > 1 and alike(cells, counts, codes):
    return None
  if values is not None:
    means = jax.tree.map(
      lambda x: (sums(x) / np.maximum(counts, 1)).astype(np.float32), values
    )
  return Table(
    cells,
    codes,
    counts,
    structure.unflatten([x[first] for x in leaves]),
    means,
    np.unique(columns[0][first], return_inverse=True)[1],
    kind,
    cell,
  )


def _in_use(
  cells: Cells, cell: np.ndarray, live: np.ndarray, few: int
) -> tuple[Cells, np.ndarray | None, np.ndarray]:
  """Leaves out cells that no row is in, and joins cells while they are many.

  Two models mostly agree, so that few of their joint cells are in use.

  Args:
    cells: What to begin with.
    cell: [N, A], the cell of each row and attribute.
    live: [N] bool, the rows that count.
    few: How many cells are few enough.

  Returns:
    The cells, their codes (None for all of them) and [N, A] places in these.
  """
  used = np.zeros(cells.size, bool)
  used[cell[live]] = True
  codes = np.flatnonzero(used)
  place = (np.cumsum(used) - 1).clip(0)[cell]
  while len(codes) > few and cells.coarser is not None:
    cells, coarsen = cells.coarser
    codes, joined = np.unique(coarsen(codes), return_inverse=True)
    place = joined[place]
  # Padded, so that batches alike share a program.
  padding = -len(codes) % _PAD
  if len(codes) + padding >= cells.size:
    return cells, None, codes[place].astype(np.int32)
  codes = np.pad(codes, (0, padding), mode="edge")
  return cells, codes.astype(np.int32), place.astype(np.int32)


def draw(
  generator: np.random.Generator, table: Table, resamples: int
) -> Iterator[np.ndarray]:
  """Draws the counts of resamples, independently for each attribute.

  Strata keep their sizes, kinds are drawn inside strata and cells inside kinds.

  Args:
    generator: A generator of random numbers.
    table: The counts to draw from.
    resamples: R, how many.

  Yields:
    [B, A, P, K] int32; blocks of equal size, R resamples or a few more in all.
  """
  number = table.counts.shape[1]
  in_kind = table.counts[0].sum(axis=-1)
  in_stratum = np.zeros((number, number), np.int64)
  in_stratum[table.strata, np.arange(number)] = in_kind
  for block in _blocks(resamples, table.counts.size):
    size = (block, number)
    sizes = np.broadcast_to(in_stratum.sum(axis=1), size)
    kinds = _multinomial(generator, sizes, in_stratum).sum(axis=1)
    yield _multinomial(generator, kinds[:, None, :], table.counts)


def can_draw_rows(table: Table) -> bool:
  """Returns whether the cells are few enough for `draw_rows`."""
  return int(np.count_nonzero(table.counts.any(axis=1))) <= _COLUMNS


def draw_rows(
  generator: np.random.Generator, table: Table, resamples: int
) -> Iterator[np.ndarray]:
  """Draws rows with replacement, the same for all attributes, and counts them.

  The counts are a product of the numbers [B, N], how often a resample has each
  row, and the binary columns [N, A K], kind by kind.

  Args:
    generator: A generator of random numbers.
    table: The counts to draw from.
    resamples: R, how many.

  Returns:
    An iterator like `draw`.
  """
  counts = table.counts
  attribute, cell = np.nonzero(counts.any(axis=1))
  live = np.flatnonzero(table.kind < counts.shape[1])
  order = live[np.argsort(table.kind[live], kind="stable")]
  # Pieces of equal length, each of one kind; the gaps are never drawn.
  sizes = counts[0].sum(axis=-1)
  length = int(np.clip(sizes.mean(), 1, _ROWS))
  pieces = -(-sizes // length)
  shift = np.cumsum(pieces * length - sizes) - (pieces * length - sizes)
  place = np.empty(len(table.kind), np.int64)
  place[order] = np.arange(len(order)) + np.repeat(shift, sizes)
  columns = np.zeros((pieces.sum() * length, len(cell)), bool)
  for u, (a, k) in enumerate(zip(attribute, cell, strict=True)):
    columns[place[live], u] = table.cell[live, a] == k
  columns = jnp.asarray(columns.reshape(-1, length, len(cell)))
  kinds = jnp.asarray(np.repeat(np.arange(len(sizes)), pieces), jnp.int32)
  # In the order of the samples, so that models with other kinds share draws.
  stratum = table.strata[table.kind[live]]
  strata = [
    place[live[stratum == s]] for s in range(stratum.max(initial=-1) + 1)
  ]

  def blocks():
    for block in _blocks(
      resamples, max(columns.size // len(cell), counts.size)
    ):
      drawn = np.zeros((block, len(kinds) * length), np.float32)
      for row in drawn:
        for rows in strata:
          chosen = generator.integers(0, len(rows), len(rows))
          row[rows] = np.bincount(chosen, minlength=len(rows))
      found = np.asarray(_product(drawn, columns, kinds, len(sizes)))
      sums = np.zeros((block, *counts.shape), np.int32)
      sums[:, attribute, :, cell] = found.T
      yield sums

  return blocks()


@functools.partial(jax.jit, static_argnums=3)
def _product(drawn, columns, kinds, number):
  """Returns [P, B, U]: how often a resample has each column, by kind."""
  pieces, length, width = columns.shape
  drawn = drawn.reshape(len(drawn), pieces, length).swapaxes(0, 1)

  def step(sums, piece):
    times, column, kind = piece
    # Whole numbers below 2^24: exact in float32.
    found = jnp.matmul(
      times, column.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    return sums.at[kind].add(found.astype(jnp.int32)), None

  sums = jnp.zeros((number, drawn.shape[1], width), jnp.int32)
  return jax.lax.scan(step, sums, (drawn, columns, kinds))[0]


class LeftOut(NamedTuple):
  """The counts without one sample each, for a jackknife.

  Attributes:
    blocks: An iterator of [B, A, P, K] int32, J of them or a few more.
    weights: [J, A] or [J, 1], how many samples leave these counts.
    strata: [J], the stratum of the sample.
  """

  blocks: Iterator[np.ndarray]
  weights: np.ndarray
  strata: np.ndarray


def leave_out(table: Table, *, joint: bool) -> LeftOut:
  """Leaves out one sample of each cell, or each sample where `joint`.

  Args:
    table: The counts.
    joint: Whether the attributes of a value belong together.

  Returns:
    What is left, and how often.
  """
  counts = table.counts.astype(np.int32)
  if joint:
    rows = np.flatnonzero(table.kind < counts.shape[1])
    kind, cell = table.kind[rows][:, None], table.cell[rows]
    attribute = np.broadcast_to(np.arange(counts.shape[0]), cell.shape)
    kind = np.broadcast_to(kind, cell.shape)
    weights = np.ones((len(rows), 1), np.int32)
  else:
    # Also where an attribute has none: its weight is 0, and the sizes of the
    # kinds have to agree between attributes.
    kind, cell = np.nonzero(counts.any(axis=0))
    weights = counts[:, kind, cell].T
    shape = (len(cell), counts.shape[0])
    kind, cell = (np.broadcast_to(x[:, None], shape) for x in (kind, cell))
    attribute = np.broadcast_to(np.arange(counts.shape[0]), shape)
  strata = table.strata[kind[:, 0]]

  def blocks():
    start = 0
    for block in _blocks(len(cell), counts.size):
      part = np.arange(start, start + block).clip(max=len(cell) - 1)
      left = np.repeat(counts[None], block, axis=0)
      step = np.arange(block)[:, None]
      left[step, attribute[part], kind[part], cell[part]] -= 1
      start += block
      yield left

  return LeftOut(blocks(), weights, strata)


def _blocks(number: int, size: int) -> list[int]:
  """Splits a number of resamples into equal blocks of bounded size."""
  blocks = -(-number // max(1, _BLOCK // max(size, 1)))
  return [-(-number // blocks)] * blocks


def _multinomial(
  generator: np.random.Generator, number: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """Draws [..., K] counts; `number` [...] is broadcast against weights."""
  weights = np.asarray(weights, np.float64)
  share = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1.0)
  # The last cell gets what is left, rounding included: let it be the largest,
  # so that no empty cell is ever drawn.
  largest = np.argmax(share, axis=-1, keepdims=True)
  last = np.take(share, [-1], axis=-1)
  top = np.take_along_axis(share, largest, axis=-1)
  np.put_along_axis(share, largest, last, axis=-1)
  share[..., -1:] = top
  drawn = generator.multinomial(number, share).astype(np.int32)
  largest = np.broadcast_to(largest, (*drawn.shape[:-1], 1))
  rest = drawn[..., -1:].copy()
  drawn[..., -1:] = np.take_along_axis(drawn, largest, axis=-1)
  np.put_along_axis(drawn, largest, rest, axis=-1)
  return drawn


def _distinct(
  columns: Sequence[np.ndarray], live: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns a row of each distinct kind, and the kind of each live row."""
  code, size = np.zeros(len(live), np.int64), 1
  for column in columns:
    if column.dtype != bool:
      column = np.unique(column, return_inverse=True)[1]
    width = int(column.max(initial=0)) + 1
    if size * width > 2**62:
      code = np.unique(code, return_inverse=True)[1]
      size = int(code.max(initial=0)) + 1
    code, size = code * width + column, size * width
  rows = np.flatnonzero(live)
  _, first, kind = np.unique(code[rows], return_index=True, return_inverse=True)
  whole = np.full(len(live), len(first))
  whole[rows] = kind
  return rows[first], whole


def _read(cells: Cells, batches: Sequence[Mapping[str, Any]]) -> Any:
  """Returns kinds, cells and values of the rows, as NumPy arrays."""
  batches = [dict(batch) for batch in batches]
  values = _index(cells.index, cells.values, batches)
  return jax.tree.map(np.asarray, values)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _index(index, values, batches):
  if len(batches) > 1:
    return *index(*batches), None if values is None else values(*batches)
  kinds, cells = index(**batches[0])
  return kinds, cells, None if values is None else values(**batches[0])
