"""Bootstrap over seeds and, within them, over samples."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import base, intervals, resampling

Array = jax.Array


def hierarchical_bootstrap(
  key: Array,
  metric: base.Metric,
  batches: Mapping[str, Any],
  resamples: int = 1000,
  *,
  reference: Mapping[str, Any] | None = None,
  shared: bool = True,
  level: float = 0.95,
) -> intervals.Interval:
  """Returns the percentile interval of the mean of a metric over seeds.

  A resample draws S of the S seeds with replacement and, for each of them, N of
  the N samples: it varies as a new training and a new test set would. With few
  seeds it is too narrow, as any bootstrap is; see `seed_interval`.
  Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section
  3.8.

  Args:
    key: A random key.
    metric: The metric; its value may be any tree of arrays.
    batches: Named arrays with a leading axis of seeds, [S, N, ...]; concrete.
    resamples: The number of resamples.
    reference: Arrays of another arm, with the same seeds and samples in the
      same order, or None. Then the interval is that of the mean paired
      difference; seeds and samples are drawn for both arms together.
    shared: Whether the seeds were tested on the same samples: then a resample
      has one draw of samples for all its seeds, otherwise one for each.
    level: The coverage.

  Returns:
    An `Interval` of trees like the value. A mean is that over the seeds in
    which the value is defined; `count` tells how many resamples had one.

  Raises:
    ValueError: If `level` is outside (0, 1), `resamples` below 1, the arrays
      differ in their seeds or samples, or are traced.
  """
  intervals.check_level(level)
  resampling.check_resamples(resamples)
  seeds = _seeds(batches, reference or {})
  generator = resampling.generator(jax.random.fold_in(key, 0))
  chosen = generator.integers(0, seeds, (resamples, seeds))
  plans = [
    resampling.prepare(
      metric,
      _one(batches, s),
      None if reference is None else _one(reference, s),
      joint=True if shared else None,
    )
    for s in range(seeds)
  ]
  if shared:
    # The same key gives all seeds the same rows, drawn in the same way.
    if any(plan.counted is None for plan in plans):
      plans = [plan._replace(counted=None) for plan in plans]
    samples = [
      resampling.draw(jax.random.fold_in(key, 1), plan, resamples)
      for plan in plans
    ]
    place = np.broadcast_to(np.arange(resamples)[:, None], chosen.shape)
  else:
    # As many draws as the seed that is chosen most often needs: one program.
    place = np.empty(chosen.shape, np.int64)
    for s in range(seeds):
      place[chosen == s] = np.arange((chosen == s).sum())
    samples = [
      resampling.draw(
        jax.random.fold_in(key, 1 + s), plan, int(place.max()) + 1
      )
      for s, plan in enumerate(plans)
    ]

  def means(*draws):
    return _mean(jnp.stack(draws)[chosen, place], axis=1)

  estimates = [plan.estimate for plan in plans]
  return intervals.percentile(
    jax.tree.map(lambda *x: _mean(jnp.stack(x), axis=0), *estimates),
    jax.tree.map(means, *samples),
    level,
  )


def _one(batches: Mapping[str, Any], seed: int) -> dict[str, Any]:
  return {n: x[seed] for n, x in batches.items() if x is not None}


def _seeds(*arms: Mapping[str, Any]) -> int:
  """Returns the number of seeds, which all arrays have."""
  arrays = [x for arm in arms for x in arm.values() if x is not None]
  shapes = {np.shape(x)[:2] for x in arrays}
  if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or not shape[0]:
    found = sorted(str(list(np.shape(x)[:2])) for x in arrays)
    raise ValueError(
      "Every array must begin with the same axes [S, N] of seeds and samples,"
      f" got {', '.join(found) or 'no array'}."
    )
  if any(isinstance(x, jax.core.Tracer) for x in arrays):
    raise ValueError(
      "hierarchical_bootstrap runs on the host: call it outside of jit and"
      " vmap, or use bootstrap."
    )
  return shape[0]


def _mean(values: Array, axis: int) -> Array:
  """Returns the mean of the values that are not NaN, NaN where none is."""
  values = values.astype(jnp.float32)
  defined = ~jnp.isnan(values)
  count = jnp.sum(defined, axis=axis, dtype=jnp.int32).astype(jnp.float32)
  return jnp.sum(jnp.where(defined, values, 0.0), axis=axis) / count
