"""Which entries of a block of columns stay: those of the largest scores.

Columns are rows here: scores are [S, O] for S columns of O rows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax.pruning.integers import order_keys


def largest(scores: jax.Array, keep: jax.Array, *, strict: bool) -> jax.Array:
  """Keep the largest of all entries, ties by column and row.

  Args:
    scores: [S, O], not negative but for padding.
    keep: How many, int32 [].
    strict: Keep what is strictly above the `keep`-th largest.

  Returns:
    The mask [S, O].
  """
  keys = order_keys(scores, _key_type(scores))
  highest = jnp.iinfo(keys.dtype).max
  key = jnp.where(keep > 0, _ranked(keys, keep), highest)
  above = keys > key
  if strict:
    return above
  equal, left = keys == key, keep - _count(above)

  def split_ties() -> jax.Array:
    order = jnp.cumsum(equal.reshape(-1), dtype=jnp.int32).reshape(equal.shape)
    return above | (equal & (order <= left))

  return lax.cond(_count(equal) > left, split_ties, lambda: above | equal)


def _ranked(keys: jax.Array, rank: jax.Array) -> jax.Array:
  """Find the `rank`-th largest of the keys, of which padding is negative."""

  def halve(_: int, bounds: tuple) -> tuple:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = _count(keys >= middle) >= rank
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  limits = jnp.iinfo(keys.dtype)
  # Scores are not negative, so that half of the keys will do.
  first = jnp.asarray(0, keys.dtype), jnp.asarray(limits.max, keys.dtype)
  return lax.fori_loop(0, limits.bits - 1, halve, first)[0]


def _count(chosen: jax.Array) -> jax.Array:
  """Count what is chosen, [S, O], first by bytes, of which many fit a word."""
  most = jnp.iinfo(jnp.uint8).max
  parts = [chosen[i : i + most] for i in range(0, chosen.shape[0], most)]
  counts = [jnp.sum(part, axis=0, dtype=jnp.uint8) for part in parts]
  sums = [jnp.sum(count, dtype=jnp.int32) for count in counts]
  return functools.reduce(jnp.add, sums)


def largest_of_few(
  scores: jax.Array, keep: jax.Array, convention: str
) -> jax.Array:
  """Keep the largest of every row's few entries.

  Args:
    scores: [S, O].
    keep: How many of S, int32 [].
    convention: Among ties "exact" keeps the lower column, "reference" prunes
      it.

  Returns:
    The mask [S, O].
  """
  column = jnp.arange(scores.shape[0])
  lower = column[:, None] < column[None, :]
  earlier = lower if convention == "exact" else lower.T
  # [other, own, O]: how many others come before.
  ahead = scores[:, None] > scores[None, :]
  ties = scores[:, None] == scores[None, :]
  rank = jnp.sum(ahead | (ties & earlier[:, :, None]), 0, dtype=jnp.int32)
  return rank < keep


def _key_type(scores: jax.Array) -> Any:
  return jnp.int64 if scores.dtype == jnp.float64 else jnp.int32
