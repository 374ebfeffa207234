"""Gram matrices of layer inputs, for solvers that correct what they prune.

A Gram matrix is the plain sum of outer products of the inputs that a weight
matrix [O, I] meets. It is additive: batches, chunks and devices are merged by
adding. A convolution is the matrix [O, I kh kw] whose columns are ordered by
input channel, then row, then column of the kernel.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

Padding = str | int | Sequence[tuple[int, int]]

_EXACT = lax.Precision.HIGHEST


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
  if not x.ndim:
    raise ValueError("input_gram needs inputs [..., I], got a single number")
  flat = _wide(x).reshape(-1, x.shape[-1])
  return jnp.matmul(flat.T, flat, precision=_EXACT)


def conv_input_gram(
  x: jax.Array,
  kernel_size: int | tuple[int, int],
  *,
  strides: int | tuple[int, int] = 1,
  padding: Padding = "SAME",
  dilation: int | tuple[int, int] = 1,
  groups: int = 1,
) -> jax.Array:
  """Sum the outer products of the patches that a convolution meets.

  Zeros of the padding count as inputs.

  Args:
    x: Images [N, H, W, C].
    kernel_size: Window, one number or (kh, kw).
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
  if x.ndim != 4 or x.shape[3] % groups:
    raise ValueError(
      f"conv_input_gram needs images [N, H, W, C] with C divisible by groups="
      f"{groups}, got shape {x.shape}"
    )
  window, strides, dilation = map(_pair, (kernel_size, strides, dilation))
  pads = _pads(x.shape[1:3], padding, window, strides, dilation)
  taps = _taps(_wide(x), window, strides, pads, dilation)
  # [T, N, H', W', C] to [G, P, I, T]: channels before taps.
  taps = taps.reshape(*taps.shape[:4], groups, -1)
  patches = jnp.transpose(taps, (4, 1, 2, 3, 5, 0))
  many = patches.shape[1] * patches.shape[2] * patches.shape[3]
  patches = patches.reshape(groups, many, -1)
  grams = jnp.einsum("gpi,gpj->gij", patches, patches, precision=_EXACT)
  return grams[0] if groups == 1 else grams


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


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
  pair = (value, value) if isinstance(value, int) else tuple(value)
  if len(pair) != 2 or min(pair) < 1:
    raise ValueError(f"{value!r} is not a positive number or two of them")
  return pair


def _pads(sizes, padding, window, strides, dilation):
  """Return (before, after) for rows and for columns."""
  if isinstance(padding, int):
    return ((padding, padding),) * 2
  if not isinstance(padding, str):
    return tuple(tuple(pair) for pair in padding)
  spread = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
  return tuple(lax.padtype_to_pads(sizes, spread, strides, padding.upper()))


def _taps(x, window, strides, pads, dilation):
  """Stack what every tap of the kernel meets, [kh kw, N, H', W', C]."""
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  sizes = [
    (x.shape[1 + a] - (window[a] - 1) * dilation[a] - 1) // strides[a] + 1
    for a in (0, 1)
  ]
  if min(sizes) < 1:
    raise ValueError(
      f"a window of {window} does not fit images of shape {x.shape}"
    )
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
