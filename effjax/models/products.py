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
outcome.

An accelerator starts a kernel for each convolution, and for those of small
images that takes longer than the arithmetic; mapped over models, whose kernels
differ, they become convolutions in groups, which are slower still: on an H100
ten small CNNs train seven times faster by products of patches.

Shapes: x [N, H, W, I], kernel [h, w, I, O], dy and y [N, H', W', O]. Pads are
((top, bottom), (left, right)), strides (rows, columns).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Convolve = Callable[[jax.Array, jax.Array, Pair, Pads], jax.Array]
Gradient = Callable[[jax.Array, jax.Array, jax.Array, Pair, Pads], jax.Array]

# Images of at most this many pixels go through products.
_FEW_PIXELS = 16
# From this many numbers in a window on, the kernel gradient of larger images is
# faster as a convolution of transposed images.
_MANY_TAPS = 64
# Images of at least this many pixels give their kernel gradient so many images
# at a time.
_MANY_PIXELS = 256
_FEW_IMAGES = 4
# Images of at most so many channels have an input gradient of their own.
_FEW_CHANNELS = 4
# Accelerators form the patches of an image of at most so many numbers.
_FEW_NUMBERS = 1 << 14
# Before 0.11 jax convolves on one core of the CPU where a kernel joins more
# pairs of channels than this and has fewer numbers than that, unless the result
# is larger than the image.
_ONE_CORE_PAIRS = 1 << 8
_ONE_CORE_NUMBERS = 1 << 17 if jax.__version_info__ < (0, 11) else 0
# Images of fewer rows do not get one more.
_MANY_ROWS = 8


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


def _on_all_cores(x, kernel, pads):
  """Convolve by steps of one pixel; a row too many lets all cores work."""
  rows, pairs = x.shape[1], math.prod(kernel.shape[2:])
  few = pairs > _ONE_CORE_PAIRS and kernel.size < _ONE_CORE_NUMBERS
  same = positions(rows, kernel.shape[0], 1, pads[0]) == rows >= _MANY_ROWS
  if not (few and same and kernel.shape[0] > 1):
    return xla(x, kernel, (1, 1), pads)
  (top, bottom), columns = pads
  return xla(x, kernel, (1, 1), ((top, bottom + 1), columns))[:, :rows]


def _forward(x, kernel, strides, pads):
  if _few_pixels(x) or x.shape[3] == 1:
    return by_patches(x, kernel, strides, pads)
  if strides == (1, 1):
    return _on_all_cores(x, kernel, pads)
  return xla(x, kernel, strides, pads)


def _input_gradient(dy, x, kernel, strides, pads):
  if _few_pixels(x):
    dx = _input_gradient_by_products(dy, x, kernel, strides, pads)
  elif x.shape[3] <= _FEW_CHANNELS:
    dx = _input_gradient_of_few_channels(dy, x, kernel, strides, pads)
  else:
    dx = _input_gradient_convolved(dy, x, kernel, strides, pads)
  return dx.astype(x.dtype)


def _input_gradient_convolved(dy, x, kernel, strides, pads):
  # What `jax.linear_transpose` gives, with the dimensions in the order of a
  # forward convolution: only those does XLA's CPU compiler run fast inside a
  # loop, and a population of models is trained in one.
  edges = tuple(
    (window - 1 - before, size - (count - 1) * stride - 1 + before)
    for window, size, count, stride, (before, _) in zip(
      kernel.shape[:2], x.shape[1:3], dy.shape[1:3], strides, pads, strict=True
    )
  )
  kernel = kernel[::-1, ::-1].swapaxes(2, 3)
  if strides == (1, 1):
    return _on_all_cores(dy, kernel, edges)
  return lax.conv_general_dilated(
    dy,
    kernel,
    (1, 1),
    edges,
    lhs_dilation=strides,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _spread(values, axis, size, start, stride, pads):
  """Put what `tap` took from a padded axis of `size` back to its place."""
  count = values.shape[axis]
  after = size + sum(pads) - start - (count - 1) * stride - 1
  config = [(0, 0, 0)] * values.ndim
  config[axis] = (start - pads[0], after - pads[1], stride - 1)
  return lax.pad(values, jnp.zeros((), values.dtype), config)


def _input_gradient_by_products(dy, x, kernel, strides, pads):
  # The transpose of `_patches`: every tap goes back to where it came from.
  h, w, inputs, features = kernel.shape
  taps = _dot(dy, kernel.reshape(-1, features), (3,), (1,))
  taps = taps.reshape(*dy.shape[:3], h, w, inputs)
  dx = jnp.zeros(x.shape, taps.dtype)
  for i in range(h):
    for j in range(w):
      band = _spread(taps[:, :, :, i, j], 1, x.shape[1], i, strides[0], pads[0])
      dx += _spread(band, 2, x.shape[2], j, strides[1], pads[1])
  return dx


def _input_gradient_of_few_channels(dy, x, kernel, strides, pads):
  # A convolution with few results per pixel wastes most of each vector, and one
  # of strided windows meets zeros. So the columns of the window, and the rows
  # that a stride passes over, become channels of a convolution along rows.
  h, w, inputs, features = kernel.shape
  stride, (top, _) = strides[0], pads[0]
  steps, rows = -(-h // stride), -(-(x.shape[1] + top) // stride)
  kernel = jnp.pad(kernel, ((0, steps * stride - h), *[(0, 0)] * 3))
  kernel = kernel.reshape(steps, stride, w, inputs, features)[::-1]
  kernel = kernel.transpose(0, 4, 1, 2, 3).reshape(steps, 1, features, -1)
  edges = (steps - 1, rows - dy.shape[1]), (0, 0)
  taps = _on_all_cores(dy, kernel, edges).astype(wide(dy.dtype))
  taps = taps.reshape(*taps.shape[:3], stride, w, inputs).swapaxes(2, 3)
  taps = taps.reshape(taps.shape[0], rows * stride, -1, w, inputs)
  dx = jnp.zeros((*taps.shape[:2], *x.shape[2:]), taps.dtype)
  for j in range(w):
    dx += _spread(taps[:, :, :, j], 2, x.shape[2], j, strides[1], pads[1])
  return pad(dx, ((-top, x.shape[1] + top - rows * stride), (0, 0)))


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


def differentiable(
  forward: Convolve, input_gradient: Gradient, kernel_gradient: Gradient
) -> Convolve:
  """Make one function of a convolution and its two gradients.

  Args:
    forward: (x, kernel, strides, pads) -> y.
    input_gradient: (dy, x, kernel, strides, pads) -> dx.
    kernel_gradient: (dy, x, kernel, strides, pads) -> dk.

  Returns:
    `forward`, differentiable in reverse.
  """

  @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
  def convolution(x, kernel, strides, pads):
    return forward(x, kernel, strides, pads)

  def keep(x, kernel, strides, pads):
    return forward(x, kernel, strides, pads), (x, kernel)

  def pull_back(strides, pads, kept, dy):
    x, kernel = kept
    return (
      input_gradient(dy, x, kernel, strides, pads),
      kernel_gradient(dy, x, kernel, strides, pads),
    )

  convolution.defvjp(keep, pull_back)
  return convolution


# Convolves x [N, H, W, I] with kernel [h, w, I, O].
convolution = differentiable(_forward, _input_gradient, _kernel_gradient)
