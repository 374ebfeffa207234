"""Depthwise convolution on the CPU: sums of shifted multiplications.

So are its gradients. XLA's own, by groups, is five to six times slower there.

Shapes: x [N, H, W, C], kernel [h, w, 1, C], dy and y [N, H', W', C]. Pads are
((top, bottom), (left, right)), strides (rows, columns).
"""

import functools

import jax.numpy as jnp
from jax import lax

from effjax.models import products

# Rows of images that are added up at a time.
_BLOCK = 16


def _sum(terms, like):
  return functools.reduce(jnp.add, terms) if terms else jnp.zeros_like(like)


def _forward(x, kernel, strides, pads):
  h, w, _, channels = kernel.shape
  rows = products.positions(x.shape[1], h, strides[0], pads[0])
  columns = products.positions(x.shape[2], w, strides[1], pads[1])
  padded = products.pad(x, pads).astype(products.wide(x.dtype))
  kernel = kernel.astype(padded.dtype).reshape(h, w, 1, 1, 1, channels)
  terms = [
    products.tap(
      products.tap(padded, 1, i, rows, strides[0]), 2, j, columns, strides[1]
    )
    * kernel[i, j]
    for i in range(h)
    for j in range(w)
  ]
  return functools.reduce(jnp.add, terms).astype(x.dtype)


def _input_gradient(dy, x, kernel, strides, pads):
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
  dy = products.pad(dy, edges).astype(products.wide(dy.dtype))
  kernel = kernel.astype(dy.dtype).reshape(h, w, 1, 1, 1, channels)
  bands = [products.tap(dy, 1, above - m, rows, 1) for m in range(steps[0])]
  shifted = [
    [products.tap(band, 2, before - m, columns, 1) for m in range(steps[1])]
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
  return products.pad(dx, crop).astype(x.dtype)


def _divisor(number: int, limit: int) -> int:
  """Return the largest divisor up to a limit."""
  return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)


def _kernel_gradient(dy, x, kernel, strides, pads):
  h, w, _, channels = kernel.shape
  count, rows, columns, _ = dy.shape
  x = products.pad(x, pads)
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
      window = products.tap(
        products.tap(part, 1, i, band, strides[0]), 2, j, columns, strides[1]
      )
      terms = (window * slopes).reshape(-1, columns, channels)
      return functools.reduce(jnp.add, list(terms))

    return sums + jnp.stack([added(i, j) for i in range(h) for j in range(w)])

  sums = jnp.zeros((h * w, columns, channels), products.wide(x.dtype))
  sums = lax.fori_loop(0, count // images * bands, step, sums)
  return jnp.sum(sums, axis=1).reshape(kernel.shape).astype(kernel.dtype)


# Convolves x [N, H, W, C] with kernel [h, w, 1, C], channel by channel.
convolution = products.differentiable(
  _forward, _input_gradient, _kernel_gradient
)
