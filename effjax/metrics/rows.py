"""Values of a metric on resampled rows, as compiled programs.

A resample is the same batch with other weights, so nothing is gathered.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, counting

Array = jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def draw(update, compute, resamples, empty, batches, strata, key):
  """Returns the values of rows drawn with replacement, a tree of [R, ...].

  Args:
    update: Of the metric, like `compute` and `empty`.
    compute: See `update`.
    resamples: R, static.
    empty: See `update`.
    batches: One dict of named arrays, or two for their difference.
    strata: [N] integers or bools, or None.
    key: A random key.
  """
  rows = number(batches)
  live = counting.read_weights(batches[0].get("weights"), rows) != 0
  ids = jnp.zeros(rows, jnp.int32) if strata is None else jnp.asarray(strata)
  # Rows by stratum, dead ones last; each draws from the span of its stratum.
  order = jnp.lexsort((ids, ~live))
  place = jnp.arange(rows, dtype=jnp.int32)
  drawn, ids = live[order], ids[order]
  new = (ids[1:] != ids[:-1]) | (drawn[1:] != drawn[:-1])
  border = jnp.ones(min(rows, 1), bool)
  first, last = (jnp.concatenate(x) for x in ((border, new), (new, border)))
  start = jax.lax.cummax(jnp.where(first, place, 0))
  end = jax.lax.cummin(jnp.where(last, place + 1, rows), reverse=True)

  def one(resample):
    chosen = jax.random.randint(
      jax.random.fold_in(key, resample), (rows,), start, end
    )
    times = jnp.zeros(rows, jnp.int32)
    times = times.at[order[chosen]].add(drawn.astype(jnp.int32))
    return _weighted(update, compute, empty, batches, times)

  return jax.lax.map(one, jnp.arange(resamples, dtype=jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 1))
def given(update, compute, empty, batches, index):
  """Returns the values of the rows `index` [R, n], a tree of [R, ...]."""

  def one(chosen):
    times = jnp.zeros(number(batches), jnp.int32).at[chosen].add(1)
    return _weighted(update, compute, empty, batches, times)

  return jax.lax.map(one, index)


@functools.partial(jax.jit, static_argnums=(0, 1))
def without_each(update, compute, empty, batches):
  """Returns the values without one row each, a tree of [N, ...]."""
  place = jnp.arange(number(batches), dtype=jnp.int32)

  def one(row):
    times = (place != row).astype(jnp.int32)
    return _weighted(update, compute, empty, batches, times)

  return jax.lax.map(one, place)


def _weighted(update, compute, empty, batches, times):
  """Returns the value with row i repeated `times[i]` times."""
  values = []
  for batch in batches:
    weights = counting.read_weights(batch.get("weights"), len(times))
    weights = weights * times.astype(weights.dtype)
    state = update(empty, **{**batch, "weights": weights})
    values.append(compute(state))
  return difference(values)


def value(metric: base.Metric, batches: Sequence[Mapping[str, Any]]) -> Any:
  """Returns the value of one batch, or the difference of two."""
  return difference([base.compute(metric, **batch) for batch in batches])


def difference(values: Sequence[Any]) -> Any:
  """Returns the one value, or the first minus the second."""
  if len(values) == 1:
    return values[0]

  def minus(a, b):
    if a.dtype == jnp.bool_:
      a, b = a.astype(jnp.int32), b.astype(jnp.int32)
    return a - b

  return jax.tree.map(minus, *values)


def number(batches: Sequence[Mapping[str, Any]]) -> int:
  """Returns the number of rows of the first batch."""
  return np.shape(next(iter(batches[0].values())))[0]
