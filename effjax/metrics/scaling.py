"""Temperature scaling: one number that makes logits mean what they say."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from effjax.metrics import columns, counting

Array = jax.Array
# The search covers factors exp(-16) to exp(16) of the largest logit's inverse.
_REACH = 16.0
_STEPS = 60
_CLOSE = 1e-6


def temperature(
  logits: Any, labels: Any, *, groups: Any = None, shared: bool = False
) -> Array:
  """Returns the temperatures that minimise the likelihood loss of logits / T.

  The mean of -log p(label) is convex in b = 1/T, so its minimum is where the
  derivative sum z (sigmoid(b z) - y) vanishes: Newton's method on log b, kept
  inside a bracket by bisection. Guo et al., "On Calibration of Modern Neural
  Networks" (ICML 2017), for binary labels. Fit it on validation data.

  Args:
    logits: [N] or [N, A].
    labels: Like `logits`, bool.
    groups: [N, G] bool; fits one temperature for the members of each group.
    shared: Fit one temperature for all attributes together.

  Returns:
    [A] float32, or [] if `shared` or for logits [N]; with groups a leading G.
    NaN where no finite positive temperature is best: without samples, if the
    logits are no better than chance (T is infinite), if every logit has the
    sign of its label (T is 0), or with a NaN or an infinite wrong logit.

  Raises:
    ValueError: If the shapes disagree.

  >>> import numpy as np
  >>> z = np.array([3.0, 3.0, 3.0, -3.0], np.float32)  # right 3 times in 4
  >>> y = np.array([True, True, False, False])
  >>> round(float(temperature(z, y)), 4)  # sigmoid(3 / T) = 3/4
  2.7307
  """
  z, y = jnp.asarray(logits), counting.positive(jnp.asarray(labels))
  columns.check("logits", z, y)
  single = z.ndim == 1
  if single:
    z, y = z[:, None], y[:, None]
  if groups is None:
    members = jnp.ones((1, z.shape[0]), jnp.bool_)
  else:
    members = _members(groups, z.shape[0]).T
  value = _fit_groups(z.astype(jnp.float32), y, members, shared)
  if shared or single:
    value = value[:, 0]
  return value[0] if groups is None else value


def scale_temperature(
  logits: Any, temperatures: Any, *, groups: Any = None
) -> Array:
  """Divides logits by their temperature.

  Args:
    logits: [N] or [N, A].
    temperatures: [] or [A]; with groups [G] or [G, A].
    groups: [N, G] bool, a partition. A row of no or several groups gets NaN.

  Returns:
    Like `logits`; NaN where the temperature is NaN.

  Raises:
    ValueError: If the shapes disagree.

  >>> scale_temperature(jnp.array([[2.0, 3.0]]), jnp.array([2.0, 1.0])).tolist()
  [[1.0, 3.0]]
  """
  z = jnp.asarray(logits)
  t = jnp.asarray(temperatures).astype(z.dtype)
  wide, given, members = z.shape[1:], t.shape, None
  if groups is not None:
    members = _members(groups, z.shape[0])
    if t.ndim and t.shape[0] != members.shape[1]:
      raise ValueError(
        f"temperatures {list(given)} must have one row for each of the"
        f" {members.shape[1]} groups."
      )
    given = t.shape[1:]
  if (
    z.ndim not in (1, 2)
    or given not in ((), wide)
    or (groups is not None and not t.ndim)
  ):
    raise ValueError(
      f"temperatures {list(t.shape)} do not fit logits {list(z.shape)}: give"
      " one number or one per attribute, for each group if there are groups."
    )
  if members is not None:
    single = jnp.sum(members, axis=1, dtype=jnp.int32) == 1
    t = t[jnp.argmax(members, axis=1)]
    single = single.reshape((-1,) + (1,) * (t.ndim - 1))
    t = jnp.where(single, t, jnp.nan)
    t = t.reshape(t.shape + (1,) * (z.ndim - t.ndim))
  else:
    t = t.reshape((1,) * (z.ndim - t.ndim) + t.shape)
  return z / jnp.broadcast_to(t, z.shape)


def _members(groups: Any, rows: int) -> Array:
  groups = counting.positive(jnp.asarray(groups))
  columns.check_groups(groups, rows)
  return groups


@functools.partial(jax.jit, static_argnames="shared")
def _fit_groups(z: Array, y: Array, members: Array, shared: bool) -> Array:
  return jax.lax.map(lambda member: _fit(z, y, member, shared), members)


def _fit(z: Array, y: Array, member: Array, shared: bool) -> Array:
  """Returns [A], or [1] if `shared`, from the rows that are members."""
  live = jnp.broadcast_to(member[:, None], z.shape)
  invalid = live & (jnp.isnan(z) | (jnp.isinf(z) & ((z > 0) != y)))
  # An infinite right logit is right at every temperature.
  z = jnp.where(live & jnp.isfinite(z), z, 0.0)

  def over(reduce, x):
    x = reduce(x.T)
    return reduce(x[None, :]) if shared else x

  total = lambda x: over(counting.long_sum, x)
  largest = over(lambda x: jnp.max(x, axis=-1, initial=0.0), jnp.abs(z))
  z = z / jnp.where(largest > 0, largest, 1.0)[None, :]

  def slopes(log_factor):
    # First and second derivative of the loss in the logarithm of b.
    bz = jnp.exp(log_factor)[None, :] * z
    p = jax.nn.sigmoid(bz)
    # 1 - p of a right positive would lose its digits.
    error = jnp.where(y, -jax.nn.sigmoid(-bz), p)
    first = total(bz * error)
    return first, first + total(bz * bz * p * jax.nn.sigmoid(-bz))

  end = jnp.full(largest.shape, _REACH)
  bad = over(lambda x: jnp.any(x, axis=-1), invalid)
  defined = (slopes(-end)[0] < 0) & (slopes(end)[0] > 0) & ~bad

  def unfinished(carry):
    steps, _, _, x, last = carry
    return (steps < _STEPS) & jnp.any(defined & (jnp.abs(x - last) > _CLOSE))

  def step(carry):
    steps, low, high, x, _ = carry
    first, second = slopes(x)
    low, high = jnp.where(first < 0, x, low), jnp.where(first < 0, high, x)
    newton = x - first / jnp.where(second > 0, second, jnp.inf)
    inside = (second > 0) & (newton > low) & (newton < high)
    new = jnp.where(inside, newton, 0.5 * (low + high))
    return steps + 1, low, high, jnp.where(first == 0, x, new), x

  carry = (jnp.int32(0), -end, end, jnp.zeros_like(end), end)
  _, _, _, x, _ = jax.lax.while_loop(unfinished, step, carry)
  return jnp.where(defined, largest / jnp.exp(x), jnp.nan)
