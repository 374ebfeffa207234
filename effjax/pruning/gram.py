"""Gram matrices of layer inputs, for solvers that correct what they prune.

A Gram matrix is the plain sum of outer products of the inputs that a weight
matrix [O, I] meets. It is additive: batches, chunks and devices are merged by
adding. A convolution is the matrix [O, I kh kw] whose columns are ordered by
input channel, then row, then column of the kernel.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from effjax import arguments

Padding = str | int | Sequence[tuple[int, int]]

_EXACT = lax.Precision.HIGHEST
_POSITIONS = 512  # of images, that are multiplied at a time on the CPU


def input_gram(x: jax.Array) -> jax.Array:
  """Sum the outer products of the inputs of a dense layer.

  Args:
    x: Inputs [..., I].

  Returns:
    The sum over all but the last axis, float32 or wider [I, I].

  Raises:
    ValueError: If there is no axis.

  >>> input_gram(jnp.array([[1.0, 2.0], [0.0, 1.0]])).tolist()
  [[1.0, 2.0], [2.0, 5.0]]
  """
  x = jnp.asarray(x)
  if not x.ndim:
    raise ValueError("input_gram needs inputs [..., I], got a single number")
  flat = _wide(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
  return jnp.matmul(flat.T, flat, precision=_EXACT)


def conv_input_gram(
  x: jax.Array,
  kernel_size: int | tuple[int, int] | jax.Array,
  *,
  strides: int | tuple[int, int] = 1,
  padding: Padding = "SAME",
  dilation: int | tuple[int, int] = 1,
  groups: int = 1,
) -> jax.Array:
  """Sum the outer products of the patches that a convolution meets.

  Zeros of the padding count as inputs. Where the window moves down by single
  rows, patches of neighbouring rows are not multiplied anew: two rows of taps
  depend on their distance only, but for a few rows at the rim. For a square
  kernel of size k that takes 1 / k of the arithmetic, and little memory.

  Args:
    x: Images [N, H, W, C].
    kernel_size: Window, one number or (kh, kw), or the kernel itself
      [kh, kw, I, O].
    strides: Step of the window.
    padding: "SAME", "VALID", the number of zeros on every side, or a pair
      (before, after) for rows and one for columns.
    dilation: Distance of the taps of the kernel.
    groups: Number of independent blocks of channels.

  Returns:
    The sum over images and positions, float32 or wider [I kh kw, I kh kw] with
    I = C; with G > 1 groups [G, I kh kw, I kh kw] with I = C / G.

  Raises:
    ValueError: If the images or the numbers do not fit.

  >>> conv_input_gram(jnp.ones((1, 2, 2, 1)), 1).tolist()
  [[4.0]]
  """
  x, sizes, window, strides, dilation = _padded(
    _wide(jnp.asarray(x)),
    kernel_size,
    strides,
    padding,
    dilation,
    groups,
    "conv_input_gram",
  )
  if groups == 1 and _rows_pay(x.shape, sizes, window, strides, dilation):
    return _gram_of_rows(x, sizes, window, strides[1], dilation)
  taps = _taps(x, sizes, window, strides, dilation)
  patches = _by_group(taps, groups)
  grams = jnp.einsum("gpi,gpj->gij", patches, patches, precision=_EXACT)
  grams = _channels_first(grams, taps.shape[0])
  return grams[0] if groups == 1 else grams


def conv_patches(
  x: jax.Array,
  kernel_size: int | tuple[int, int],
  *,
  strides: int | tuple[int, int] = 1,
  padding: Padding = "SAME",
  dilation: int | tuple[int, int] = 1,
) -> jax.Array:
  """List the patches that a convolution meets, zeros of the padding included.

  Args:
    x: Images [N, H, W, C].
    kernel_size: Window, one number or (kh, kw).
    strides: As in `conv_input_gram`, like those that follow.
    padding: Zeros around the images.
    dilation: Distance of the taps of the kernel.

  Returns:
    A row for each image and position, in the type of x [N H' W', C kh kw].

  Raises:
    ValueError: If the images or the numbers do not fit.

  >>> conv_patches(jnp.ones((2, 3, 3, 4)), 2, padding="VALID").shape
  (8, 16)
  """
  x, sizes, window, strides, dilation = _padded(
    jnp.asarray(x), kernel_size, strides, padding, dilation, 1, "conv_patches"
  )
  taps = _taps(x, sizes, window, strides, dilation)
  taps = jnp.moveaxis(taps, 0, -1)
  return taps.reshape(math.prod(taps.shape[:3]), -1)


def kernel_to_matrix(kernel: jax.Array) -> jax.Array:
  """Write a kernel as the matrix that its Gram matrix belongs to.

  Args:
    kernel: [kh, kw, I, O] of a convolution, or [I, O] of a dense layer.

  Returns:
    The matrix [O, I kh kw], or [O, I].

  Raises:
    ValueError: If the kernel has another rank.

  >>> kernel_to_matrix(jnp.ones((3, 3, 2, 4))).shape
  (4, 18)
  """
  if kernel.ndim == 2:
    return kernel.T
  if kernel.ndim != 4:
    raise ValueError(
      f"a kernel is [kh, kw, I, O] or [I, O], got shape {kernel.shape}"
    )
  return jnp.transpose(kernel, (3, 2, 0, 1)).reshape(kernel.shape[3], -1)


def matrix_to_kernel(matrix: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Write a matrix as the kernel that it came from.

  Args:
    matrix: [O, I kh kw], or [O, I].
    shape: Shape of the kernel.

  Returns:
    The kernel.

  >>> matrix_to_kernel(jnp.ones((4, 18)), (3, 3, 2, 4)).shape
  (3, 3, 2, 4)
  """
  if len(shape) == 2:
    return matrix.T
  kh, kw, inputs, outputs = shape
  return jnp.transpose(matrix.reshape(outputs, inputs, kh, kw), (2, 3, 1, 0))


def _wide(x: jax.Array) -> jax.Array:
  return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _padded(x, kernel_size, strides, padding, dilation, groups, name):
  """Read the geometry of a convolution and put the padding around images.

  Returns:
    The images, rows and columns of the outputs, and of the window, its step and
    its dilation.
  """
  groups = arguments.whole("groups", groups)
  if x.ndim != 4 or not x.shape[0] or x.shape[3] % groups:
    raise ValueError(
      f"{name} needs one or more images [N, H, W, C] with C divisible by"
      f" groups={groups}, got shape {x.shape}"
    )
  if getattr(kernel_size, "ndim", 0) == 4:
    if kernel_size.shape[2] * groups != x.shape[3]:
      raise ValueError(
        f"a kernel of shape {kernel_size.shape} does not meet images of"
        f" {x.shape[3]} channels in groups={groups}"
      )
    kernel_size = kernel_size.shape[:2]
  window, strides, dilation = map(_pair, (kernel_size, strides, dilation))
  pads = _pads(x.shape[1:3], padding, window, strides, dilation)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  sizes = [
    (x.shape[1 + a] - (window[a] - 1) * dilation[a] - 1) // strides[a] + 1
    for a in (0, 1)
  ]
  if min(sizes) < 1:
    raise ValueError(
      f"a window of {window} does not fit images of shape {x.shape}"
    )
  return x, sizes, window, strides, dilation


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
  pair = np.asarray(value)
  if pair.shape not in ((), (2,)) or not _whole(pair) or pair.min() < 1:
    raise ValueError(f"{value!r} is not a positive number or two of them")
  first, second = np.broadcast_to(pair, (2,)).tolist()
  return first, second


def _pads(sizes, padding, window, strides, dilation):
  """Return (before, after) for rows and for columns."""
  if not isinstance(padding, str):
    # A number, one for rows and columns, or (before, after) of both.
    pads = np.asarray(padding)
    pads = pads[:, None] if pads.ndim == 1 else pads
    if pads.shape not in ((), (2, 1), (2, 2)) or not _whole(pads):
      raise ValueError(
        "padding must be 'SAME', 'VALID', a number from 0 on, one for rows and"
        f" columns, or a pair (before, after) for each; got {padding!r}"
      )
    return tuple(map(tuple, np.broadcast_to(pads, (2, 2)).tolist()))
  if padding.upper() not in ("SAME", "VALID"):
    raise ValueError(f"padding must be 'SAME' or 'VALID', got {padding!r}")
  spread = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
  return tuple(lax.padtype_to_pads(sizes, spread, strides, padding.upper()))


def _whole(numbers: np.ndarray) -> bool:
  return np.issubdtype(numbers.dtype, np.integer) and numbers.min() >= 0


def _rows_pay(shape, sizes, window, strides, dilation):
  """Decide whether rows of taps are cheaper than patches: only if possible.

  The bounds are measured: with fewer patches than inputs, putting the Gram
  matrix together costs more than is saved; so it does for single channels.
  """
  row = window[1] * shape[3]
  return (
    window[0] > 1
    and strides[0] == 1
    and sizes[0] > (window[0] - 1) * dilation[0]
    and shape[0] * sizes[0] * sizes[1] >= row * window[0]
    and row >= 8
  )


def _taps(x, sizes, window, strides, dilation):
  """Stack what every tap of the kernel meets, [kh kw, N, H', W', C]."""
  taps = []
  for i in range(window[0]):
    for j in range(window[1]):
      start = i * dilation[0], j * dilation[1]
      stop = [start[a] + (sizes[a] - 1) * strides[a] + 1 for a in (0, 1)]
      taps.append(
        x[
          :,
          start[0] : stop[0] : strides[0],
          start[1] : stop[1] : strides[1],
        ]
      )
  return jnp.stack(taps)


def _by_group(taps, groups):
  """Turn [T, N, H', W', C] to [G, N H' W', T I], taps before channels."""
  taps = taps.reshape(*taps.shape[:4], groups, -1)
  rows = jnp.transpose(taps, (4, 1, 2, 3, 0, 5))
  return rows.reshape(groups, math.prod(rows.shape[1:4]), -1)


def _channels_first(grams, taps):
  """Turn [G, T I, T I] to [G, I T, I T]."""
  groups, side, _ = grams.shape
  grams = grams.reshape(groups, taps, side // taps, taps, side // taps)
  return jnp.transpose(grams, (0, 2, 1, 4, 3)).reshape(groups, side, side)


def _gram_of_rows(x, sizes, window, stride, dilation):
  """Sum outer products of patches by the distance of their rows.

  Of two rows of taps, i and i + D, the products are those of the images' rows
  r and r + D summed over r from i to i + H'. The sum over what all i share is
  formed once, and those at the rim are added: nothing is subtracted, so that
  inputs that are zero throughout stay so exactly.

  Args:
    x: Padded images [N, H, W, C].
    sizes: Rows and columns of the outputs, H' and W'.
    window: Rows and columns of the kernel, kh and kw.
    stride: Step of the window from column to column; from row to row it is 1.
    dilation: Distance of the taps, rows and columns.

  Returns:
    The Gram matrix [C kh kw, C kh kw].
  """
  (height, width), (count, columns), (step, gap) = sizes, window, dilation
  side = columns * x.shape[3]
  rim = (count - 1) * step

  def row(start, rows):
    part = lax.dynamic_slice_in_dim(x, start, rows, axis=1)
    last = (width - 1) * stride + 1
    taps = [
      part[:, :, j * gap : j * gap + last : stride] for j in range(columns)
    ]
    return jnp.concatenate(taps, axis=3).reshape(-1, side)

  def products(start, rows, distances=count):
    own = row(start, rows).T
    return jnp.stack(
      [
        jnp.matmul(own, row(start + d * step, rows), precision=_EXACT)
        for d in range(distances)
      ]
    )

  # On the CPU a few rows at a time, which stay in the cache.
  together = height - rim
  if jax.default_backend() == "cpu":
    together = min(together, max(1, _POSITIONS // (x.shape[0] * width)))
  many, rest = divmod(height - rim, together)
  shared = lax.fori_loop(
    0,
    many,
    lambda k, total: total + products(rim + k * together, together),
    jnp.zeros((count, side, side), x.dtype),
  )
  if rest:
    shared += products(height - rest, rest)
  strips = range(count - 1)
  above = [products(i * step, step) for i in strips]
  below = [products(height + i * step, step, count - 1 - i) for i in strips]
  grid: list[list] = [[None] * count for _ in range(count)]
  for apart in range(count):
    for i in range(count - apart):
      rims = [*above[i:], *below[:i]]
      gram = sum([part[apart] for part in rims], shared[apart])
      grid[i + apart][i] = gram.T
      grid[i][i + apart] = gram
  # [kh, kh, kw C, kw C] to [kh kw C, kh kw C].
  grams = jnp.stack([jnp.stack(row) for row in grid])
  grams = jnp.transpose(grams, (0, 2, 1, 3)).reshape(1, count * side, -1)
  return _channels_first(grams, count * columns)[0]
