import jax
import numpy as np
import pytest
import scipy.stats

from effjax import metrics
from effjax.metrics import intervals


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 101])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.975, 0.9995])
def test_student_quantile(freedom, probability):
  np.testing.assert_allclose(
    intervals.student_quantile(probability, freedom),
    scipy.stats.t.ppf(probability, freedom),
    rtol=1e-9,
    atol=1e-12,
  )


def test_seed_interval_equals_scipy():
  values = np.random.default_rng(0).normal(size=(5, 2, 3))
  interval = metrics.seed_interval(values, level=0.9)
  low, high = scipy.stats.t.interval(
    0.9, 4, values.mean(axis=0), scipy.stats.sem(values, axis=0)
  )
  np.testing.assert_allclose(interval.estimate, values.mean(axis=0))
  np.testing.assert_allclose(interval.low, low)
  np.testing.assert_allclose(interval.high, high)
  np.testing.assert_array_equal(interval.count, np.full((2, 3), 5))


def test_paired_interval_removes_what_seeds_share():
  rng = np.random.default_rng(1)
  seeds = 10 * rng.normal(size=(6, 1))
  reference = seeds + rng.normal(size=(6, 4))
  interval = metrics.seed_interval(reference + 0.5, reference=reference)
  np.testing.assert_allclose(interval.estimate, 0.5)
  np.testing.assert_allclose(interval.low, 0.5)
  np.testing.assert_allclose(interval.high, 0.5)


def test_undefined_seeds_are_left_out_and_counted():
  values = np.array(
    [[1.0, 1.0, np.nan], [3.0, np.nan, np.nan], [np.nan, np.nan, np.nan]]
  )
  interval = metrics.seed_interval(values)
  np.testing.assert_array_equal(interval.count, [2, 1, 0])
  np.testing.assert_array_equal(interval.estimate, [2.0, 1.0, np.nan])
  np.testing.assert_array_equal(np.isnan(interval.low), [False, True, True])
  np.testing.assert_allclose(
    interval.high[0], 2 + scipy.stats.t.ppf(0.975, 1) * 1.0
  )


def test_one_seed_has_no_interval():
  interval = metrics.seed_interval([[0.5]])
  assert interval.estimate == [0.5]
  assert np.isnan(interval.low).all()
  assert np.isnan(interval.high).all()


def data(rows=400, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, 2)) < [[0.3, 0.6]]
  logits = rng.normal(size=(rows, 2)) + 2 * labels
  return {"logits": logits.astype(np.float32), "labels": labels}


def test_bootstrap_agrees_with_the_normal_interval_of_a_rate():
  batch = data()
  metric = metrics.accuracy()
  interval = metrics.bootstrap(jax.random.key(0), metric, batch, 2000)
  rate = np.asarray(metrics.compute(metric, **batch))
  half = 1.96 * np.sqrt(rate * (1 - rate) / 400)
  np.testing.assert_allclose(interval.estimate, rate, rtol=1e-6)
  np.testing.assert_allclose(interval.low, rate - half, atol=0.006)
  np.testing.assert_allclose(interval.high, rate + half, atol=0.006)
  np.testing.assert_array_equal(interval.count, [2000, 2000])


def test_bootstrap_of_trees_and_of_undefined_values():
  batch = data(60)
  batch["groups"] = np.zeros((60, 2), bool)
  batch["groups"][0, 0] = True  # a group of one sample, and one of none
  interval = metrics.bootstrap(
    jax.random.key(1), metrics.group_rates(), batch, 200
  )
  counts = np.asarray(interval.count.accuracy)
  # A resample misses one given sample with probability 1/e.
  assert (np.abs(counts[0] / 200 - 0.63) < 0.12).all()
  np.testing.assert_array_equal(counts[1], [0, 0])
  assert np.isnan(interval.low.accuracy[1]).all()
  assert np.isfinite(interval.low.accuracy[0]).all()


def test_paired_bootstrap_draws_the_same_rows():
  batch = data()
  better = {**batch, "logits": batch["logits"].copy()}
  wrong = (batch["logits"] > 0) != batch["labels"]
  better["logits"][wrong] *= np.where(np.arange(wrong.sum()) < 8, -1, 1)
  metric = metrics.accuracy()
  same = metrics.bootstrap(jax.random.key(2), metric, batch, 100, paired=batch)
  np.testing.assert_array_equal(same.low, [0.0, 0.0])
  np.testing.assert_array_equal(same.high, [0.0, 0.0])
  interval = metrics.bootstrap(
    jax.random.key(2), metric, better, 500, paired=batch
  )
  # Only gains are resampled, so no lower end is below 0.
  assert (np.asarray(interval.low) >= 0).all()
  assert (np.asarray(interval.high) < 0.06).all()
  np.testing.assert_allclose(
    interval.estimate,
    metrics.compute(metric, **better) - metrics.compute(metric, **batch),
    atol=1e-6,
  )


def test_rows_of_weight_zero_are_never_drawn():
  batch = data(80)
  padded = {
    name: np.concatenate(
      [x, np.full_like(x[:40], np.nan if x.dtype == np.float32 else True)]
    )
    for name, x in batch.items()
  }
  padded["weights"] = np.arange(120) < 80
  key, metric = jax.random.key(3), metrics.accuracy()
  plain = metrics.bootstrap(key, metric, batch, 50)
  other = metrics.bootstrap(key, metric, padded, 50)
  for name in ("estimate", "low", "high"):
    np.testing.assert_allclose(
      getattr(plain, name), getattr(other, name), rtol=1e-6
    )


def test_same_key_same_interval():
  batch = data(50)
  first, again, other = (
    metrics.bootstrap(jax.random.key(seed), metrics.auc(64), batch, 50)
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first.low, again.low)
  assert (np.asarray(first.low) != np.asarray(other.low)).any()


def test_unusable_options():
  with pytest.raises(ValueError, match="level must lie"):
    metrics.seed_interval([1.0, 2.0], level=1.0)
  with pytest.raises(ValueError, match="leading axis of seeds"):
    metrics.seed_interval(1.0)
  with pytest.raises(ValueError, match=r"values \[2\] and reference \[3\]"):
    metrics.seed_interval([1.0, 2.0], reference=[1.0, 2.0, 3.0])
  with pytest.raises(ValueError, match="resamples must be at least 1"):
    metrics.bootstrap(jax.random.key(0), metrics.accuracy(), data(), 0)
  with pytest.raises(ValueError, match=r"same number of rows, got \[3, 4\]"):
    metrics.bootstrap(
      jax.random.key(0),
      metrics.accuracy(),
      {"logits": np.zeros((3, 1)), "labels": np.zeros((4, 1))},
    )
