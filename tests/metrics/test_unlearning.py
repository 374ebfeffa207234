"""TOFU's measures against brute force, and the test of Kolmogorov, Smirnov."""

import math

import jax
import numpy as np
import pytest
import scipy.stats

from effjax import metrics

RNG = np.random.default_rng(0)
RIGHT, WRONG = RNG.exponential(size=6), RNG.exponential(size=(6, 3))


@jax.jit
def measure(right, wrong, where, there):
  masks = {"where": where, "wrong_where": there}
  score = lambda name: metrics.truth_ratio_score(
    right, wrong, aggregate=name, **masks
  )
  found = [
    metrics.answer_probability(right, where=where),
    metrics.option_probability(right, wrong, **masks),
    *map(score, ("forget", "retain", "prob_mean")),
  ]
  return found, metrics.truth_ratio(right, wrong, wrong_where=there)


def test_values():
  with jax.enable_x64(True):
    everything = np.ones(6, bool), np.ones((6, 3), bool)
    found, ratios = measure(RIGHT, WRONG, *everything)
  c, w = np.exp(-RIGHT), np.exp(-WRONG.mean(1))
  ratio = w / (c + 1e-10)
  np.testing.assert_allclose(ratios, ratio, rtol=1e-12)
  expected = [
    c.mean(),
    (c / (c + np.exp(-WRONG).sum(1) + 1e-10)).mean(),
    np.minimum(ratio, 1 / (ratio + 1e-10)).mean(),
    np.maximum(0, 1 - ratio).mean(),
    (c / (c + w + 1e-10)).mean(),
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_absent_answers():
  where, there = np.arange(6) < 5, np.ones((6, 3), bool)
  there[0, 1:], there[5] = False, False
  wrong, right = np.where(there, WRONG, np.nan), RIGHT.copy()
  right[1] = 1e4  # an answer that is impossible
  with jax.enable_x64(True):
    found, ratio = measure(right, wrong, where, there)
  expected = np.exp(-WRONG[0, 0]) / (np.exp(-RIGHT[0]) + 1e-10)
  np.testing.assert_allclose(ratio[0], expected, rtol=1e-10)
  np.testing.assert_allclose(ratio[1], np.exp(-WRONG[1].mean()) / 1e-10, 1e-10)
  assert np.isnan(ratio[5])
  kept = np.maximum(0, 1 - np.asarray(ratio))[:5].mean()
  np.testing.assert_allclose(found[3], kept, rtol=1e-12)
  assert np.isfinite(found).all()
  with pytest.raises(ValueError, match="'forget'"):
    metrics.truth_ratio_score(RIGHT, WRONG, aggregate="median")
  with pytest.raises(ValueError, match=r"\[N, J\]"):
    metrics.truth_ratio(RIGHT, WRONG[0])


def test_model_utility():
  values = np.linspace(0.1, 0.9, 9)
  np.testing.assert_allclose(
    jax.jit(metrics.model_utility)(values), scipy.stats.hmean(values), rtol=1e-6
  )


@pytest.mark.parametrize(
  ("n", "m", "shift"),
  [
    (1, 1, 0.0),
    (5, 5, 0.0),
    (7, 4, 0.5),
    (40, 40, 1.5),
    (30, 50, 0.0),
    (3, 80, 2),
  ],
)
def test_kolmogorov_smirnov(n, m, shift):
  a, b = RNG.normal(size=n), RNG.normal(size=m) + shift
  for first, second in ((a, b), (np.round(a), np.round(b))):
    found = metrics.kolmogorov_smirnov(first, second)
    expected = scipy.stats.ks_2samp(first, second, method="exact")
    np.testing.assert_allclose(found.statistic, expected.statistic, 1e-12)
    np.testing.assert_allclose(found.p_value, expected.pvalue, rtol=1e-8)
    assert metrics.forget_quality(first, second) == found.p_value


def test_kolmogorov_smirnov_at_its_ends():
  a = np.arange(400.0)
  assert metrics.kolmogorov_smirnov(a, a) == (0.0, 1.0)
  apart = metrics.kolmogorov_smirnov(a, a + 1000)
  # Two paths of all, which no double of one minus a probability would show.
  logs = math.log(2) + 2 * math.lgamma(401) - math.lgamma(801)
  np.testing.assert_allclose(math.log(apart.p_value), logs, rtol=1e-10)
  assert np.isnan(metrics.kolmogorov_smirnov([], a)).all()
  assert np.isnan(metrics.kolmogorov_smirnov([np.nan], a)).all()
  with pytest.raises(ValueError, match="vectors"):
    metrics.kolmogorov_smirnov(a[None], a)
