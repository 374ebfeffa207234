"""Integers for exact selection: keys that order like scores, wide counts.

Counting entries of a large model overflows 32 bits, and 64-bit integers are off
by default: counts are pairs of int32 words instead.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Wide(NamedTuple):
  """Non-negative integers of up to 47 bits.

  Attributes:
    high: int32 multiples of 65536.
    low: int32 remainders, 0 to 65535.
  """

  high: jax.Array
  low: jax.Array


def wide(values: np.ndarray | Sequence[Any] | jax.Array) -> Wide:
  """Split integers into two words.

  Args:
    values: Non-negative integers, host integers of any size or traced int32.

  Returns:
    Their words, of the same shape.

  >>> wide([5 * 65536 + 7]).high.tolist()
  [5]
  """
  if isinstance(values, jax.Array):
    values = values.astype(jnp.int32)
    return Wide(values >> 16, values & 0xFFFF)
  high, low = np.divmod(np.asarray(values, np.int64), 65536)
  return Wide(jnp.asarray(high, jnp.int32), jnp.asarray(low, jnp.int32))


def minus(a: Wide, b: Wide | jax.Array) -> Wide:
  """Subtract a number that is not larger.

  Args:
    a: Numbers.
    b: Numbers to take away, wide or int32.

  Returns:
    The differences.

  >>> int(minus(Wide(jnp.int32(1), jnp.int32(0)), jnp.int32(1)).low)
  65535
  """
  b = b if isinstance(b, Wide) else Wide(b >> 16, b & 0xFFFF)
  low = a.low - b.low
  return Wide(a.high - b.high + (low >> 16), low & 0xFFFF)


def add(a: Wide, b: Wide) -> Wide:
  """Add.

  Args:
    a: Numbers.
    b: Others.

  Returns:
    Their sums.

  >>> int(add(wide([65535]), wide([1])).high[0])
  1
  """
  low = a.low + b.low
  return Wide(a.high + b.high + (low >> 16), low & 0xFFFF)


def difference(a: Wide, b: Wide) -> jax.Array:
  """Subtract numbers of which either may be the larger.

  Args:
    a: Numbers.
    b: Numbers to take away.

  Returns:
    The signed difference, int32; beyond 32767 * 65536 it stays there.

  >>> int(difference(wide([3]), wide([65536]))[0])
  -65533
  """
  high, low = a.high - b.high, a.low - b.low
  limit = jnp.int32(32767 * 65536)
  exact = jnp.clip(high, -32766, 32766) * 65536 + low
  return jnp.where(high > 32766, limit, jnp.where(high < -32766, -limit, exact))


def at_least(a: Wide, b: Wide) -> jax.Array:
  """Compare.

  Args:
    a: Numbers.
    b: Others.

  Returns:
    Whether a >= b, bool.

  >>> bool(at_least(wide([7]), wide([65536]))[0])
  False
  """
  return (a.high > b.high) | ((a.high == b.high) & (a.low >= b.low))


def as_float(a: Wide) -> jax.Array:
  """Round to float32.

  Args:
    a: Numbers.

  Returns:
    float32 numbers, off by one unit in the last place at most.

  >>> float(as_float(wide([65537]))[0])
  65537.0
  """
  return a.high.astype(jnp.float32) * 65536.0 + a.low.astype(jnp.float32)


def total(counts: jax.Array) -> Wide:
  """Add up counts along the last axis.

  Args:
    counts: int32 [..., L], not negative, L up to 32768.

  Returns:
    Their sums [...].

  >>> total(jnp.full(4, 2**30, jnp.int32)).high.tolist()
  65536
  """
  low = jnp.sum(counts & 0xFFFF, axis=-1, dtype=jnp.int32)
  high = jnp.sum(counts >> 16, axis=-1, dtype=jnp.int32)
  return Wide(high + (low >> 16), low & 0xFFFF)


def order_keys(scores: jax.Array, dtype: jnp.dtype = jnp.int32) -> jax.Array:
  """Map scores to signed integers of the same order.

  Only integer operations touch the values, so denormal numbers keep their
  order where the hardware would flush them. Zeros of both signs share a key; a
  NaN ranks beyond the infinity of its sign bit.

  Args:
    scores: Numbers [...].
    dtype: int32, or int64 for float64 scores.

  Returns:
    Integers [...].

  >>> order_keys(jnp.array([-1.0, -0.0, 0.0, 2.0])).tolist()
  [-1065353216, 0, 0, 1073741824]
  """
  bits = jax.lax.bitcast_convert_type(scores.astype(float_of(dtype)), dtype)
  sign = bits >> (jnp.iinfo(dtype).bits - 1)
  # Negating by two's complement: negative numbers count down from zero.
  return ((bits & jnp.iinfo(dtype).max) ^ sign) - sign


def key_dtype(leaves: Sequence[Any]) -> jnp.dtype:
  """Choose the key type for leaves that are compared with one another.

  Args:
    leaves: Scores, stored or deferred.

  Returns:
    int64 if one of them has 64-bit floats, else int32.

  >>> key_dtype([jnp.ones(2)]).__name__
  'int32'
  """
  double = any(leaf.dtype == jnp.float64 for leaf in leaves)
  return jnp.int64 if double else jnp.int32


def float_of(dtype: jnp.dtype) -> jnp.dtype:
  """Return the type of the scores that become keys of a type.

  Args:
    dtype: int32 or int64.

  Returns:
    float32 or float64.

  >>> float_of(jnp.int32).__name__
  'float32'
  """
  return jnp.float32 if dtype == jnp.int32 else jnp.float64
