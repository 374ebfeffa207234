"""How well maps find the part of an example that is known to matter.

The ground truth is a boolean mask of the pixels of an example. A map without
channels [B, ...] goes with masks of its shape; `attribution.reduce_channels`
removes channels. A map that holds NaN has no value, nor, but for the mass, has
an empty mask: NaN.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from effjax.metrics import counting

Array = jax.Array
# Up to so many pixels, the product of any two parts of them is an int32.
_EXACT_PIXELS = 92681


@functools.partial(jax.jit, static_argnames="abs")
def pixel_auc(maps: Any, masks: Any, *, abs: bool = False) -> Array:
  """Returns the area under the ROC curve of the map as a detector of the mask.

  The probability that a pixel of the mask ranks above one outside, ties
  counting one half: a constant map has 1/2.

  Args:
    maps: [B, ...].
    masks: [B, ...] bool.
    abs: Whether to rank by absolute value.

  Returns:
    [B] float32, or float64 for such maps; NaN where the mask is empty or full.

  Raises:
    ValueError: If the shapes differ.

  >>> import numpy as np
  >>> maps = np.array([[3.0, -4.0, 1.0, 1.0]], np.float32)
  >>> masks = np.array([[True, False, True, False]])
  >>> pixel_auc(maps, masks).tolist(), pixel_auc(maps, masks, abs=True).tolist()
  ([0.875], [0.375])
  """
  maps, masks = _read(maps, masks, abs=abs)
  inside = jnp.sum(masks, axis=1, dtype=jnp.int32).astype(maps.dtype)
  pairs = inside * (maps.shape[1] - inside)
  excess = _rank_excess(maps, masks) / (2 * jnp.maximum(pairs, 1))
  return _defined(0.5 + excess, maps, pairs > 0)


@functools.partial(jax.jit, static_argnames="abs")
def pointing_game(maps: Any, masks: Any, *, abs: bool = False) -> Array:
  """Returns whether the largest value of the map lies in the mask.

  Zhang et al. 2016, arXiv:1608.00507, without a margin. Among equal values the
  first one counts.

  Args:
    maps: [B, ...].
    masks: [B, ...] bool.
    abs: Whether to compare absolute values.

  Returns:
    [B], 1 for a hit and 0 for a miss, NaN where the mask is empty.

  Raises:
    ValueError: If the shapes differ.

  >>> import numpy as np
  >>> masks = np.array([[True, False], [False, False]])
  >>> pointing_game(np.ones((2, 2), np.float32), masks).tolist()
  [1.0, nan]
  """
  maps, masks = _read(maps, masks, abs=abs)
  first = jnp.argmax(maps, axis=1)[:, None]
  hit = jnp.take_along_axis(masks, first, axis=1)[:, 0]
  return _defined(hit.astype(maps.dtype), maps, jnp.any(masks, axis=1))


@functools.partial(jax.jit, static_argnames="abs")
def rank_accuracy(maps: Any, masks: Any, *, abs: bool = False) -> Array:
  """Returns the share of the mask among the top pixels, as many as it has.

  Arras et al. 2022, arXiv:2003.07258. Among equal values the first rank higher.

  Args:
    maps: [B, ...].
    masks: [B, ...] bool.
    abs: Whether to rank by absolute value.

  Returns:
    [B], NaN where the mask is empty.

  Raises:
    ValueError: If the shapes differ.

  >>> import numpy as np
  >>> maps = np.array([[3.0, 2.0, 1.0, 0.0]], np.float32)
  >>> rank_accuracy(maps, np.array([[True, False, True, False]])).tolist()
  [0.5]
  """
  maps, masks = _read(maps, masks, abs=abs)
  size = jnp.sum(masks, axis=1, dtype=jnp.int32)
  top = descending_ranks(maps) < size[:, None]
  hits = jnp.sum(top & masks, axis=1, dtype=jnp.int32)
  share = hits.astype(maps.dtype) / jnp.maximum(size, 1).astype(maps.dtype)
  return _defined(share, maps, size > 0)


@jax.jit
def mass_accuracy(maps: Any, masks: Any) -> Array:
  """Returns the share of the absolute map that lies in the mask.

  Arras et al. 2022, arXiv:2003.07258, of absolute values.

  Args:
    maps: [B, ...].
    masks: [B, ...] bool.

  Returns:
    [B]; 0 where the map is 0 everywhere or the mask is empty.

  Raises:
    ValueError: If the shapes differ.

  >>> import numpy as np
  >>> maps = np.array([[3.0, -1.0], [0.0, 0.0]], np.float32)
  >>> mass_accuracy(maps, np.array([[True, False]] * 2)).tolist()
  [0.75, 0.0]
  """
  maps, masks = _read(maps, masks, abs=True)
  # Sums of very large and very small maps would leave the range of float32.
  large = jnp.max(maps, axis=1, keepdims=True, initial=0) > 1
  maps = maps * jnp.where(large, 2.0**-64, 2.0**64).astype(maps.dtype)
  inside = counting.long_sum(jnp.where(masks, maps, 0))
  whole = counting.long_sum(maps)
  share = inside / jnp.where(whole > 0, whole, 1)
  return _defined(share, maps, jnp.bool_(True))


def descending_ranks(maps: Array) -> Array:
  """Returns the rank of each pixel: 0 for the largest, ties in order.

  Args:
    maps: [B, P] without NaN.

  Returns:
    [B, P] int32.

  >>> descending_ranks(jnp.array([[1.0, 3.0, 3.0]])).tolist()
  [[2, 0, 1]]
  """
  # Adding 0 makes -0.0 and 0.0 one tie.
  order = jnp.argsort(-(maps + 0), axis=1, stable=True)
  return jnp.argsort(order, axis=1).astype(jnp.int32)


def _rank_excess(maps: Array, masks: Array) -> Array:
  """Returns by how much twice the mid-ranks in the mask exceed their mean.

  A pixel with l smaller and P - u larger ones contributes l + u - P, a whole
  number; the sum is 2 (area - 1/2) times the number of pairs.

  Args:
    maps: [B, P].
    masks: [B, P] bool.

  Returns:
    [B] of the type of `maps`.
  """
  pixels = maps.shape[1]
  scores, masks = jax.lax.sort((maps + 0, masks), dimension=1, num_keys=1)
  step = scores[:, 1:] != scores[:, :-1]
  end = jnp.ones_like(masks[:, :1])
  place = jnp.broadcast_to(jnp.arange(pixels, dtype=jnp.int32), maps.shape)
  first = jnp.where(jnp.concatenate([end, step], axis=1), place, 0)
  last = jnp.concatenate([step, end], axis=1)
  last = jnp.where(last, place + 1, pixels)
  # Both are non-decreasing, so a running extreme spreads the value of a tie's
  # first (last) member over the whole tie.
  lower = jax.lax.cummax(first, axis=1)
  upper = jax.lax.cummin(last, axis=1, reverse=True)
  terms = jnp.where(masks, lower + upper - pixels, 0)
  if pixels > _EXACT_PIXELS:
    return counting.long_sum(terms.astype(maps.dtype))
  # Partial sums may wrap around, the whole one does not.
  return jnp.sum(terms, axis=1, dtype=jnp.int32).astype(maps.dtype)


def _read(maps: Any, masks: Any, *, abs: bool) -> tuple[Array, Array]:
  """Returns maps [B, P] of float32 at least, and masks [B, P] bool."""
  maps, masks = jnp.asarray(maps), counting.positive(jnp.asarray(masks))
  if maps.shape != masks.shape or maps.ndim < 2 or not maps.size:
    raise ValueError(
      "maps and masks must have the same shape [B, ...] and hold pixels, got"
      f" {list(maps.shape)} and {list(masks.shape)};"
      " attribution.reduce_channels removes the channels of maps."
    )
  if maps.dtype != jnp.float64:
    maps = maps.astype(jnp.float32)
  maps = jnp.abs(maps) if abs else maps
  return maps.reshape(len(maps), -1), masks.reshape(len(masks), -1)


def _defined(values: Array, maps: Array, valid: Array) -> Array:
  valid = valid & ~jnp.any(jnp.isnan(maps), axis=1)
  return jnp.where(valid, values, jnp.nan)
