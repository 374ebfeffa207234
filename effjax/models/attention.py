"""Attention with rotated positions, groups of queries, masks and a cache.

Axes are B sequences, S tokens that ask, T tokens that are asked, H heads of
queries, K heads of keys and values, D numbers of a head; query head h uses key
head h K // H.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from effjax.models import products

IMPLEMENTATIONS = ("auto", "rows", "xla", "cudnn")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shared:
  """What all layers of a model have in common.

  Attributes:
    rotation: cosines and sines, see `rotation`.
    mask: which of the S tokens see each other [B, S, S]; None where they see
      what comes before them.
    held_mask: which of the T slots of a cache they see [B, S, T]; None where
      there is no cache, or nothing in it.
    start: first slot of the cache to write; None without a cache.
    implementation: see `attend`.
  """

  rotation: tuple[jax.Array, jax.Array]
  mask: jax.Array | None
  held_mask: jax.Array | None
  start: jax.Array | None
  implementation: str = dataclasses.field(metadata={"static": True})


def rotation(
  positions: jax.Array, size: int, base: float
) -> tuple[jax.Array, jax.Array]:
  """Return the rotations of positions, Su et al. 2021 (arXiv:2104.09864).

  Args:
    positions: Whole numbers [B, S].
    size: Size of a head D.
    base: Pair i turns by base ** (-2 i / D) a position.

  Returns:
    Cosines and sines, float32 [B, S, D / 2].

  >>> cosines, _ = rotation(jnp.array([[0, 1]]), 4, 1e4)
  >>> [round(float(x), 3) for x in cosines[0, 1]]
  [0.54, 1.0]
  """
  powers = jnp.arange(0, size, 2, dtype=jnp.float32) / size
  speeds = (1 / base**powers).reshape(1, 1, -1)
  angles = positions.astype(jnp.float32)[..., None] * speeds
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotate the pairs (x[i], x[i + D / 2]) of heads by their positions.

  Args:
    x: Queries or keys [B, S, H, D].
    rotation: Cosines and sines [B, S, D / 2].

  Returns:
    The same, of the dtype of x.
  """
  wide = x.astype(products.wide(x.dtype))
  first, second = jnp.split(wide, 2, axis=-1)
  cos, sin = (r[:, :, None].astype(wide.dtype) for r in rotation)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def visible(positions: jax.Array, held: jax.Array) -> jax.Array:
  """Say which other tokens some tokens see: those not after them.

  Args:
    positions: Position of each token that asks [B, S].
    held: Position of each that is asked [B, T], -1 if there is none.

  Returns:
    Bools [B, S, T].
  """
  held = held[:, None]
  return (held >= 0) & (held <= positions[:, :, None])


def same_segment(segments: jax.Array) -> jax.Array:
  """Say which tokens see each other in rows that hold several texts.

  Args:
    segments: Number of the text of each token [B, S], 0 for padding, below 0
      for what all texts of the row begin with.

  Returns:
    Bools [B, S, S], true for a token of the same text that is not later, and
    for one that all texts begin with.
  """
  size = segments.shape[1]
  causal = jnp.tril(jnp.ones((1, size, size), bool))
  asks, asked = segments[:, :, None], segments[:, None]
  return causal & ((asks == asked) | ((asked < 0) & (asks > 0)))


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  stored: Any,
  shared: Shared,
) -> tuple[jax.Array, Any]:
  """Attend to tokens, and to those that a cache holds.

  Args:
    query: Rotated queries [B, S, H, D].
    key: Rotated keys [B, S, K, D].
    value: Values [B, S, K, D].
    stored: Keys and values [B, K, T, D] of the cache, or None.
    shared: Masks, slot and implementation. Where nothing is read from a cache,
      "rows" multiplies the queries that share a key as rows of one matrix,
      "xla" and "cudnn" are those of `jax.nn.dot_product_attention`; "auto" is
      "rows" on the CPU, "cudnn" for 16 bits on a GPU, else "xla".

  Returns:
    Values [B, S, H D], and the cache's keys and values with the new ones.

  Raises:
    ValueError: If there is no such implementation.
  """
  if shared.implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got"
      f" {shared.implementation!r}."
    )
  keys, values = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
  chosen = _chosen(shared.implementation, query.dtype)
  if shared.held_mask is None and chosen != "rows":
    y = jax.nn.dot_product_attention(
      query,
      key,
      value,
      mask=None if shared.mask is None else shared.mask[:, None],
      is_causal=shared.mask is None,
      implementation=chosen,
    )
    y = y.reshape(*y.shape[:2], -1)
  else:
    mask, length = shared.mask, query.shape[1]
    if mask is None:
      mask = jnp.tril(jnp.ones((1, length, length), bool))
    asked = [(keys, values, mask)]
    if shared.held_mask is not None:
      asked.append((*stored, shared.held_mask))
    y = _rows(query, asked)
  if stored is None or shared.start is None:
    return y, None
  # Only written here, and not read again: the slots change in place.
  zero = jnp.int32(0)
  place = (zero, zero, shared.start, zero)
  return y, (
    jax.lax.dynamic_update_slice(stored[0], keys, place),
    jax.lax.dynamic_update_slice(stored[1], values, place),
  )


def _chosen(implementation: str, dtype: Any) -> Any:
  if implementation != "auto":
    return implementation
  backend = jax.default_backend()
  if backend == "gpu" and jnp.dtype(dtype).itemsize == 2:
    return "cudnn"
  return "rows" if backend == "cpu" else "xla"


def _rows(query: jax.Array, asked: Any) -> jax.Array:
  """Attend with all queries of a key as rows of one matrix.

  Args:
    query: Queries [B, S, H, D].
    asked: Keys and values [B, K, T, D] with their mask [B, S, T], once or more.

  Returns:
    Values [B, S, H D].
  """
  batch, length, heads, size = query.shape
  key_heads = asked[0][0].shape[1]
  rows = query.reshape(batch, length, key_heads, -1, size)
  rows = rows.transpose(0, 2, 3, 1, 4).reshape(batch, key_heads, -1, size)
  wide = products.wide(query.dtype)

  def scores(keys, mask):
    found = jnp.einsum(
      "bkrd,bktd->bkrt", rows, keys, preferred_element_type=wide
    )
    found = found.reshape(batch, key_heads, -1, *mask.shape[1:]) * size**-0.5
    # A row without anything to see, of padding, stays finite.
    found = jnp.where(mask[:, None, None], found, jnp.finfo(wide).min)
    return found.reshape(batch, key_heads, -1, mask.shape[2])

  weights = [scores(keys, mask) for keys, _, mask in asked]
  weights = jax.nn.softmax(jnp.concatenate(weights, axis=-1), axis=-1)
  weights = weights.astype(query.dtype)
  y, start = jnp.zeros((), query.dtype), 0
  for _, values, mask in asked:
    part = weights[..., start : start + mask.shape[2]]
    start += mask.shape[2]
    y = y + jnp.einsum("bkrt,bktd->bkrd", part, values)
  y = y.reshape(batch, key_heads, heads // key_heads, length, size)
  return y.transpose(0, 3, 1, 2, 4).reshape(batch, length, -1)
