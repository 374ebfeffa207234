"""Orders of very many things, of which single places can be asked for."""

import math

import jax
import jax.numpy as jnp

_ROUNDS = 8


def permute(
  key: jax.Array, numbers: jax.Array, places: jax.Array, count: int
) -> jax.Array:
  """Say which of `count` things stand at some places of an order.

  Nothing is stored: a network of Feistel rounds on pairs of digits, which add a
  hash of one digit to the other, permutes the squares up to the next square
  number, and is applied again to what is not below `count` (Black and Rogaway
  2002, "Ciphers with arbitrary finite domains"). It looks random; it is no
  cipher.

  Args:
    key: A typed random key.
    numbers: Which order, one for each place: whole numbers of any shape.
    places: Places from 0 on, below `count`, of the same shape.
    count: Number of things, below 2 ** 32.

  Returns:
    Things, uint32 of that shape; over all places of an order each once.

  >>> places = jnp.arange(5)
  >>> order = permute(jax.random.key(0), jnp.zeros_like(places), places, 5)
  >>> sorted(order.tolist())
  [0, 1, 2, 3, 4]
  """
  side, count = jnp.uint32(math.isqrt(count - 1) + 1), jnp.uint32(count)
  rounds = jax.random.bits(key, (_ROUNDS,), jnp.uint32)
  numbers = _mix(numbers.astype(jnp.uint32) * jnp.uint32(0x9E3779B1))

  def mixed(digits, bits):
    left, right = digits
    hashed = _mix(right ^ _mix(numbers ^ bits))
    return (right, (left + hashed % side) % side), None

  def outside(state):
    return jnp.any(~state[1])

  def again(state):
    value, inside = state
    (left, right), _ = jax.lax.scan(
      mixed, (value // side, value % side), rounds
    )
    value = jnp.where(inside, value, left * side + right)
    return value, value < count

  start = places.astype(jnp.uint32)
  start = start, jnp.zeros(start.shape, bool)
  return jax.lax.while_loop(outside, again, start)[0]


def _mix(x: jax.Array) -> jax.Array:
  """Hash 32 bits: the last steps of MurmurHash3, which lose nothing."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
