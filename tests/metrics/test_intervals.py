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


def test_wilson_equals_scipy():
  count = np.array([0, 1, 3, 7, 10, 500, 1000])
  total = np.array([10, 10, 3, 9, 10, 1000, 1000])
  interval = metrics.wilson(count, total, level=0.9)
  for i, (k, n) in enumerate(zip(count, total, strict=True)):
    exact = scipy.stats.binomtest(int(k), int(n)).proportion_ci(
      0.9, method="wilson"
    )
    np.testing.assert_allclose(interval.estimate[i], k / n, rtol=1e-6)
    np.testing.assert_allclose(interval.low[i], exact.low, atol=1e-6)
    np.testing.assert_allclose(interval.high[i], exact.high, atol=1e-6)
  np.testing.assert_array_equal(interval.count, total)
  assert interval.low[0] == 0.0
  assert interval.high[4] == 1.0


def test_wilson_without_samples_and_by_group():
  interval = jax.jit(metrics.wilson)(
    np.array([[0, 2], [0, 0]]), np.array([4, 0])[:, None]
  )
  for end in interval[:3]:
    np.testing.assert_array_equal(np.isnan(end), [[False, False], [True, True]])
  np.testing.assert_array_equal(interval.count, [[4, 4], [0, 0]])


def test_percentiles_ignore_nan_and_interpolate():
  rng = np.random.default_rng(0)
  samples = rng.normal(size=(41, 2, 3)).astype(np.float32)
  samples[rng.random(samples.shape) < 0.3] = np.nan
  samples[:, 1, 2] = np.nan
  samples[1:, 0, 0] = np.nan
  tree = {"x": samples, "n": np.arange(41, dtype=np.int32)}
  zero = {"x": np.zeros((2, 3), np.float32), "n": np.int32(3)}
  interval = intervals.percentile(zero, tree, 0.8)
  count = np.sum(~np.isnan(samples), axis=0)
  np.testing.assert_array_equal(interval.count["x"], count)
  defined = count > 0
  for end, q in ((interval.low, 0.1), (interval.high, 0.9)):
    expected = np.full((2, 3), np.nan)
    expected[defined] = np.nanquantile(samples[:, defined], q, axis=0)
    np.testing.assert_allclose(end["x"], expected, rtol=1e-6)
    np.testing.assert_allclose(end["n"], q * 40, rtol=1e-6)


def test_infinite_resamples_stay_infinite():
  samples = np.array([1.0, np.inf, np.inf, np.inf], np.float32)
  interval = intervals.percentile(np.float32(1), samples, 0.5)
  assert np.isinf(interval.high)
  assert not np.isnan(interval.low)


def test_unusable_options():
  for level in (1.0, None, "0.9"):
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), got"):
      metrics.seed_interval([1.0, 2.0], level=level)
  with pytest.raises(ValueError, match="level must lie"):
    metrics.wilson(1, 2, level=95)
  with pytest.raises(ValueError, match="leading axis of seeds"):
    metrics.seed_interval(1.0)
  with pytest.raises(ValueError, match=r"values \[2\] and reference \[3\]"):
    metrics.seed_interval([1.0, 2.0], reference=[1.0, 2.0, 3.0])
