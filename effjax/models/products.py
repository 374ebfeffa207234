"""Convolution as matrix products, for the CPU and for small images.

A convolution is a sum over the taps (i, j) of its window: a strided slice of
the padded image times `kernel[i, j]`. With the slices side by side in the
channels (patches), the convolution and both of its gradients are one matrix
product each. XLA on the CPU has fast convolutions, but

- only with the dimensions in the order of a forward convolution: others are up
  to a hundred times slower inside a loop, so gradients are spelled that way;
- where an image is smaller than the window it swaps the two and falls on a
  path that is a hundred times slower;
- images of one channel miss its fast path, and its kernel gradients of few
  channels or of windows of one pixel are slower than products.

So each of the three functions below takes XLA's convolution where it is the
faster one and products elsewhere; `launch/benchmarks/models.py` measures the
outcome. Depthwise convolutions are sums of shifted multiplications, and so are
their gradients.

An accelerator starts a kernel for each convolution, and for those of small
images that takes longer than the arithmetic; mapped over models, whose kernels
differ, they become convolutions in groups, which are slower still: on an H100
ten small CNNs train seven times faster by products of patches.

Shapes: x [N, H, W, I], kernel [h, w, I, O], dy and y [N, H', W', O]. Pads are
((top, bottom), (left, right)), strides (rows, columns).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

# Images of at most this many pixels go through products.
_FEW_PIXELS = 16
# From this many numbers in a window on, the kernel gradient of larger images is
# faster as a convolution of transposed images.
_MANY_TAPS = 64
# Images of at least this many pixels give their kernel gradient so many images
# at a time.
_MANY_PIXELS = 256
_FEW_IMAGES = 4
# Accelerators form the patches of an image of at most so many numbers.
_FEW_NUMBERS = 1 << 14
# Rows of images that are added up at a time.
_BLOCK = 16


def xla(x, kernel, strides: Pair, pads: Pads, groups: int = 1):
  """Convolve with XLA's operation, derivatives included."""
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    pads,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def pad(x, pads: Pads, value=0):
  """Surround images by a constant; negative pads crop."""
  config = ((0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0))
  return lax.pad(x, jnp.asarray(value, x.dtype), config)


def tap(x, axis: int, start: int, count: int, stride: int):
  """Return the `count` positions start, start + stride, ... of an axis."""
  stop = start + (count - 1) * stride + 1
  return lax.slice_in_dim(x, start, stop, stride, axis)


def positions(size: int, window: int, stride: int, pads: Pair) -> int:
  """Return how many windows fit into an axis."""
  return (size + sum(pads) - window) // stride + 1


def wide(dtype):
  """Return the dtype of sums: float32, or float64 for itself."""
  return dtype if jnp.finfo(dtype).bits > 32 else jnp.float32


def _dot(a, b, axes_a, axes_b):
  return lax.dot_general(
    a,
    b,
    ((axes_a, axes_b), ((), ())),
    preferred_element_type=wide(a.dtype),
  )


def _patches(x, window, strides, pads):
  """Return [N, H', W', h * w * I], ordered like a kernel."""
  rows, columns = (
    positions(x.shape[axis + 1], window[axis], strides[axis], pads[axis])
    for axis in range(2)
  )
  x = pad(x, pads)
  bands = [tap(x, 1, i, rows, strides[0]) for i in range(window[0])]
  taps = [
    tap(band, 2, j, columns, strides[1])
    for band in bands
    for j in range(window[1])
  ]
  return taps[0] if len(taps) == 1 else jnp.concatenate(taps, axis=-1)


def by_patches(x, kernel, strides: Pair, pads: Pads):
  """Convolve by one product of patches, derivatives included."""
  patches = _patches(x, kernel.shape[:2], strides, pads)
  flat = kernel.reshape(-1, kernel.shape[3])
  return _dot(patches, flat, (3,), (0,)).astype(x.dtype)


def has_small_patches(x, kernel, strides: Pair, pads: Pads) -> bool:
  """Tell whether the patches of an image are few numbers."""
  rows, columns = (
    positions(x.shape[axis + 1], kernel.shape[axis], strides[axis], pads[axis])
    for axis in range(2)
  )
  return rows * columns * math.prod(kernel.shape[:3]) <= _FEW_NUMBERS


def _few_pixels(x):
  return x.shape[1] * x.shape[2] <= _FEW_PIXELS


def _forward(x, kernel, strides, pads):
  if not _few_pixels(x) and x.shape[3] > 1:
    return xla(x, kernel, strides, pads)
  return by_patches(x, kernel, strides, pads)


def _input_gradient(dy, x, kernel, strides, pads):
  h, w, inputs, features = kernel.shape
  if not _few_pixels(x):
    # What `jax.linear_transpose` gives, with the dimensions in the order of a
    # forward convolution: only those does XLA's CPU compiler run fast inside a
    # loop, and a population of models is trained in one.
    edges = tuple(
      (window - 1 - before, size - (count - 1) * stride - 1 + before)
      for window, size, count, stride, (before, _) in zip(
        (h, w), x.shape[1:3], dy.shape[1:3], strides, pads, strict=True
      )
    )
    return lax.conv_general_dilated(
      dy,
      kernel[::-1, ::-1].swapaxes(2, 3),
      (1, 1),
      edges,
      lhs_dilation=strides,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
  # The transpose of `_patches`: every tap goes back to where it came from.
  taps = _dot(dy, kernel.reshape(-1, features), (3,), (1,))
  taps = taps.reshape(*dy.shape[:3], h, w, inputs)
  zero = jnp.zeros((), taps.dtype)

  def spread(size, count, start, stride, pads):
    after = size + sum(pads) - start - (count - 1) * stride - 1
    return start - pads[0], after - pads[1], stride - 1

  dx = jnp.zeros(x.shape, taps.dtype)
  for i in range(h):
    rows = spread(x.shape[1], dy.shape[1], i, strides[0], pads[0])
    for j in range(w):
      columns = spread(x.shape[2], dy.shape[2], j, strides[1], pads[1])
      dx += lax.pad(
        taps[:, :, :, i, j], zero, ((0, 0, 0), rows, columns, (0, 0, 0))
      )
  return dx.astype(x.dtype)


def _kernel_gradient(dy, x, kernel, strides, pads):
  h, w, inputs, _ = kernel.shape
  # dy is the window here, and may not be larger than the image either.
  fits = dy.shape[1] <= x.shape[1] and dy.shape[2] <= x.shape[2]
  many = (h, w) != (1, 1) and h * w * inputs >= _MANY_TAPS
  if many and fits and not _few_pixels(x):
    dk = _kernel_gradient_in_parts(dy, x, kernel, strides, pads)
    return dk.astype(kernel.dtype)
  patches = _patches(x, (h, w), strides, pads)
  dk = _dot(patches, dy, (0, 1, 2), (0, 1, 2))
  return dk.reshape(kernel.shape).astype(kernel.dtype)


def _kernel_gradient_convolved(dy, x, kernel, strides, pads):
  # A convolution of the channels of x, whose windows are dy and whose channels
  # are the images. Transposing `lax.conv` gives the same with dimensions out of
  # order, which is a hundred times slower inside a loop.
  x, dy = lax.optimization_barrier(
    (x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3))
  )
  edges = tuple(
    (before, (count - 1) * stride + window - size - before)
    for window, size, count, stride, (before, _) in zip(
      kernel.shape[:2], x.shape[1:3], dy.shape[:2], strides, pads, strict=True
    )
  )
  dk = lax.conv_general_dilated(
    x,
    dy,
    (1, 1),
    edges,
    rhs_dilation=strides,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    preferred_element_type=wide(x.dtype),
  )
  return dk.transpose(1, 2, 0, 3)


def _kernel_gradient_in_parts(dy, x, kernel, strides, pads):
  # Transposing many large images misses the cache at every number, and costs
  # more than the convolution; those of a few images stay in it.
  count = x.shape[0]
  large = x.shape[1] * x.shape[2] >= _MANY_PIXELS
  if not large or count % _FEW_IMAGES or count <= _FEW_IMAGES:
    return _kernel_gradient_convolved(dy, x, kernel, strides, pads)

  def step(k, sums):
    part, slopes = (
      lax.dynamic_slice_in_dim(a, k * _FEW_IMAGES, _FEW_IMAGES) for a in (x, dy)
    )
    return sums + _kernel_gradient_convolved(
      slopes, part, kernel, strides, pads
    )

  sums = jnp.zeros(kernel.shape, wide(x.dtype))
  return lax.fori_loop(0, count // _FEW_IMAGES, step, sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x, kernel, strides: Pair, pads: Pads):
  """Convolve x [N, H, W, I] with kernel [h, w, I, O]."""
  return _forward(x, kernel, strides, pads)


def _convolution_fwd(x, kernel, strides, pads):
  return _forward(x, kernel, strides, pads), (x, kernel)


def _convolution_bwd(strides, pads, residuals, dy):
  x, kernel = residuals
  return (
    _input_gradient(dy, x, kernel, strides, pads),
    _kernel_gradient(dy, x, kernel, strides, pads),
  )


convolution.defvjp(_convolution_fwd, _convolution_bwd)


def _sum(terms, like):
  return functools.reduce(jnp.add, terms) if terms else jnp.zeros_like(like)


def _depthwise(x, kernel, strides, pads):
  h, w, _, channels = kernel.shape
  rows = positions(x.shape[1], h, strides[0], pads[0])
  columns = positions(x.shape[2], w, strides[1], pads[1])
  padded = pad(x, pads).astype(wide(x.dtype))
  kernel = kernel.astype(padded.dtype).reshape(h, w, 1, 1, 1, channels)
  terms = [
    tap(tap(padded, 1, i, rows, strides[0]), 2, j, columns, strides[1])
    * kernel[i, j]
    for i in range(h)
    for j in range(w)
  ]
  return functools.reduce(jnp.add, terms).astype(x.dtype)


def _depthwise_input_gradient(dy, x, kernel, strides, pads):
  h, w, _, channels = kernel.shape
  # Position stride * q + p of the padded image meets tap p + stride * m of the
  # window at q - m: a sum of shifted dy for each p, interleaved afterwards.
  steps = -(-h // strides[0]), -(-w // strides[1])
  rows, columns = (
    -(-(size + first) // stride)
    for size, (first, _), stride in zip(
      x.shape[1:3], pads, strides, strict=True
    )
  )
  above, before = steps[0] - 1, steps[1] - 1
  edges = (above, rows - dy.shape[1]), (before, columns - dy.shape[2])
  dy = pad(dy, edges).astype(wide(dy.dtype))
  kernel = kernel.astype(dy.dtype).reshape(h, w, 1, 1, 1, channels)
  bands = [tap(dy, 1, above - m, rows, 1) for m in range(steps[0])]
  shifted = [
    [tap(band, 2, before - m, columns, 1) for m in range(steps[1])]
    for band in bands
  ]
  phases = [
    [
      _sum(
        [
          shifted[i // strides[0]][j // strides[1]] * kernel[i, j]
          for i in range(p, h, strides[0])
          for j in range(q, w, strides[1])
        ],
        shifted[0][0],
      )
      for q in range(strides[1])
    ]
    for p in range(strides[0])
  ]
  dx = jnp.stack([jnp.stack(across, axis=3) for across in phases], axis=2)
  full = rows * strides[0], columns * strides[1]
  dx = dx.reshape(x.shape[0], *full, channels)
  top, left = pads[0][0], pads[1][0]
  crop = (
    (-top, x.shape[1] + top - full[0]),
    (-left, x.shape[2] + left - full[1]),
  )
  return pad(dx, crop).astype(x.dtype)


def _divisor(number: int, limit: int) -> int:
  """Return the largest divisor up to a limit."""
  return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)


def _depthwise_kernel_gradient(dy, x, kernel, strides, pads):
  h, w, _, channels = kernel.shape
  count, rows, columns, _ = dy.shape
  x = pad(x, pads)
  # XLA reduces all but the last axis with one stride per number. Whole rows
  # are added up instead, in blocks that stay in the cache.
  band = _divisor(rows, _BLOCK)
  images = _divisor(count, _BLOCK // rows) if rows <= _BLOCK // 2 else 1
  bands = rows // band
  block = images, (band - 1) * strides[0] + h, x.shape[2], channels

  def step(k, sums):
    n, r = k // bands * images, k % bands * band
    part = lax.dynamic_slice(x, (n, r * strides[0], 0, 0), block)
    slopes = lax.dynamic_slice(
      dy, (n, r, 0, 0), (images, band, columns, channels)
    ).astype(sums.dtype)
    part = part.astype(sums.dtype)

    def added(i, j):
      window = tap(tap(part, 1, i, band, strides[0]), 2, j, columns, strides[1])
      products = (window * slopes).reshape(-1, columns, channels)
      return functools.reduce(jnp.add, list(products))

    return sums + jnp.stack([added(i, j) for i in range(h) for j in range(w)])

  sums = jnp.zeros((h * w, columns, channels), wide(x.dtype))
  sums = lax.fori_loop(0, count // images * bands, step, sums)
  return jnp.sum(sums, axis=1).reshape(kernel.shape).astype(kernel.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x, kernel, strides: Pair, pads: Pads):
  """Convolve x [N, H, W, C] with kernel [h, w, 1, C], channel by channel."""
  return _depthwise(x, kernel, strides, pads)


def _depthwise_fwd(x, kernel, strides, pads):
  return _depthwise(x, kernel, strides, pads), (x, kernel)


def _depthwise_bwd(strides, pads, residuals, dy):
  x, kernel = residuals
  return (
    _depthwise_input_gradient(dy, x, kernel, strides, pads),
    _depthwise_kernel_gradient(dy, x, kernel, strides, pads),
  )


depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)
