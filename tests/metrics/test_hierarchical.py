import jax
import numpy as np
import pytest

from effjax import metrics

ACCURACY = metrics.accuracy()
SEEDS, ROWS = 6, 120


def arms(spread=0.0, seed=0):
  """Decisions of several seeds, whose accuracy varies from seed to seed."""
  rng = np.random.default_rng(seed)
  labels = np.broadcast_to(rng.random((ROWS, 2)) < 0.5, (SEEDS, ROWS, 2))
  rate = 0.8 + spread * np.linspace(-1, 1, SEEDS)[:, None, None]
  right = rng.random(labels.shape) < rate
  return {"predictions": labels == right, "labels": labels}


def right(batches):
  return (batches["predictions"] == batches["labels"]).astype(float)


def width(interval):
  return np.asarray(interval.high - interval.low)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("cells", [True, False])
def test_spread_equals_a_loop(shared, cells):
  batches = arms(0.15)
  metric = ACCURACY if cells else ACCURACY._replace(cells=None)
  interval = metrics.hierarchical_bootstrap(
    jax.random.key(0), metric, batches, 2000, shared=shared, level=0.8
  )
  rng, hits = np.random.default_rng(1), right(batches)
  means = []
  for _ in range(4000):
    seeds = rng.integers(0, SEEDS, SEEDS)
    rows = rng.integers(0, ROWS, (1 if shared else SEEDS, ROWS))
    means.append(hits[seeds[:, None], rows].mean(axis=(0, 1)))
  low, high = np.quantile(means, [0.1, 0.9], axis=0)
  np.testing.assert_allclose(
    interval.estimate, hits.mean(axis=(0, 1)), rtol=1e-6
  )
  np.testing.assert_allclose(interval.low, low, atol=0.1 * (high - low).max())
  np.testing.assert_allclose(interval.high, high, atol=0.1 * (high - low).max())
  np.testing.assert_array_equal(interval.count, [2000, 2000])


def test_paired_arms_lose_what_they_share():
  batches = arms(0.15)
  key = jax.random.key(0)
  same = metrics.hierarchical_bootstrap(
    key, ACCURACY, batches, 50, reference=batches
  )
  np.testing.assert_array_equal(width(same), [0.0, 0.0])
  better = {**batches, "predictions": batches["predictions"].copy()}
  better["predictions"][:, :12] = batches["labels"][:, :12]
  paired = metrics.hierarchical_bootstrap(
    key, ACCURACY, better, 500, reference=batches
  )
  alone = metrics.hierarchical_bootstrap(key, ACCURACY, better, 500)
  assert (width(paired) < 0.6 * width(alone)).all()
  assert (np.asarray(paired.low) >= 0).all()


def test_a_seed_without_a_value_is_left_out():
  batches = arms()
  logits = np.where(batches["predictions"], 1, -1).astype(np.float32)
  logits[2, :, 1] = np.nan
  interval = metrics.hierarchical_bootstrap(
    jax.random.key(0),
    ACCURACY,
    {"logits": logits, "labels": batches["labels"]},
    100,
  )
  others = np.delete(right(batches), 2, axis=0)[..., 1].mean()
  np.testing.assert_allclose(interval.estimate[1], others, rtol=1e-6)
  np.testing.assert_array_equal(interval.count, [100, 100])


def test_unusable_arrays():
  key, batches = jax.random.key(0), arms()
  with pytest.raises(ValueError, match=r"same axes \[S, N\].*\[5, 120\]"):
    metrics.hierarchical_bootstrap(
      key, ACCURACY, {**batches, "labels": batches["labels"][:5]}
    )
  with pytest.raises(ValueError, match="got no array"):
    metrics.hierarchical_bootstrap(key, ACCURACY, {})
  with pytest.raises(ValueError, match="resamples must be a whole"):
    metrics.hierarchical_bootstrap(key, ACCURACY, batches, 0)
  with pytest.raises(ValueError, match="runs on the host"):
    jax.jit(lambda b: metrics.hierarchical_bootstrap(key, ACCURACY, b))(batches)
