import itertools

import jax
import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from effjax import metrics


@pytest.mark.parametrize("decimals", [6, 0])
def test_correlation_equals_scipy(decimals):
  rng = np.random.default_rng(0)
  for seed in range(8):
    x, y = rng.normal(size=(2, 40)).round(decimals)
    y = (y + seed * x / 4).round(decimals)
    found = metrics.rank_correlation(None, x, y)
    expected = scipy.stats.spearmanr(x, y).statistic
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=2e-7)
    assert np.isnan(found.p_value)
    assert int(found.count) == 40


def test_undefined_pairs_are_dropped_and_counted():
  rng = np.random.default_rng(1)
  gain = rng.normal(size=(3, 40))
  criterion = rng.normal(size=40)
  gain[1, :10] = np.nan
  gain[2] = np.nan
  criterion[5:15] = np.nan
  found = metrics.rank_correlation(None, criterion, gain)
  assert found.count.tolist() == [30, 25, 0]
  assert found.dropped.tolist() == [10, 15, 40]
  for g in range(2):
    defined = ~np.isnan(criterion + gain[g])
    expected = scipy.stats.spearmanr(criterion[defined], gain[g][defined])
    np.testing.assert_allclose(found.value[g], expected.statistic, atol=2e-7)
  assert np.isnan(found.value[2])


def test_infinities_and_zeros_are_ranked():
  x = np.array([-np.inf, -0.0, 0.0, 3.0, np.inf, np.inf], np.float32)
  y = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], np.float32)
  ranks = [1, 2.5, 2.5, 4, 5.5, 5.5]
  np.testing.assert_allclose(
    metrics.rank_correlation(None, x, y).value,
    np.corrcoef(ranks, y)[0, 1],
    atol=1e-7,
  )


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
def test_perfect_order_is_exactly_one(rows):
  x = np.random.default_rng(2).permutation(rows).astype(np.float32)
  expected = np.nan if rows < 2 else 1.0
  for sign in (1, -1):
    value = metrics.rank_correlation(None, x, sign * np.exp(x / 1000)).value
    np.testing.assert_array_equal(value, sign * expected)


def test_constant_and_short_sides_are_undefined():
  key = jax.random.key(0)
  y = np.arange(8, dtype=np.float32)
  one = np.where(y == 1, y, np.nan).astype(np.float32)
  for x in (np.ones(8, np.float32), one):
    found = metrics.rank_correlation(key, x, y)
    assert np.isnan(found.value)
    assert np.isnan(found.p_value)


def exact_p_value(x, y):
  """Over all orders of y."""
  rx, ry = (scipy.stats.rankdata(v) - (len(v) + 1) / 2 for v in (x, y))
  size = abs(rx @ ry)
  reached = [
    abs(rx @ np.array(order)) >= size - 1e-9
    for order in itertools.permutations(ry)
  ]
  return np.mean(reached)


@pytest.mark.parametrize("ties", [False, True])
def test_permutation_test_is_exact_in_expectation(ties):
  x = np.array([1, 2, 3, 4, 5, 6, 7], np.float32)
  y = np.array([2, 1, 4, 3, 7, 5, 6], np.float32)
  y = np.array([1, 1, 2, 1, 2, 2, 1], np.float32) if ties else y
  # An undefined pair takes no part in the orders.
  found = metrics.rank_correlation(
    jax.random.key(3), np.append(x, np.nan), np.append(y, 9)
  )
  expected = exact_p_value(x, y)
  deviation = np.sqrt(expected * (1 - expected) / 9999)
  assert abs(float(found.p_value) - expected) < 4 * deviation + 1e-4


def test_permutation_test_sees_an_effect_and_none():
  rng = np.random.default_rng(4)
  x = rng.normal(size=40).astype(np.float32)
  gain = np.stack([x + rng.normal(size=40), rng.normal(size=40)])
  key = jax.random.key(1)
  found = metrics.rank_correlation(key, x, gain, permutations=1999)
  for p, y in zip(found.p_value, gain, strict=True):
    expected = scipy.stats.spearmanr(x, y).pvalue
    assert abs(float(p) - expected) < 0.02
  assert float(found.p_value[0]) < 0.001
  again = metrics.rank_correlation(key, x, gain, permutations=1999)
  np.testing.assert_array_equal(found.p_value, again.p_value)


def example(rows=400, seed=5):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, 3)) < [[0.1, 0.5, 0.7]]
  logits = rng.normal(0, [1, 3, 9], labels.shape) + labels
  return {
    "logits": logits.astype(np.float32),
    "labels": labels,
    "groups": rng.random((rows, 2)) < 0.5,
  }


def test_dense_criteria_are_those_of_their_parts():
  batch = example()
  train = batch["labels"][::2], batch["groups"][::2]
  options = {"min_positives": 1, "min_gap": 0.0}
  value = metrics.compute(metrics.dense_criteria(*train, **options), **batch)
  np.testing.assert_array_equal(
    value.uncertainty, metrics.compute(metrics.uncertainty(), **batch)
  )
  amplification = metrics.compute(
    metrics.bias_amplification(*train, **options), **batch
  )
  assert (np.asarray(amplification) < 0).any()
  np.testing.assert_array_equal(value.amplification, np.abs(amplification))
  np.testing.assert_allclose(
    value.skew, abs(2 * batch["labels"].mean(axis=0) - 1), atol=1e-6
  )


@pytest.mark.parametrize("decimals", [6, 0])
def test_flip_area_equals_scikit_learn(decimals):
  batch = example()
  logits = batch["logits"].round(decimals)
  rng = np.random.default_rng(6)
  flips = (logits > 0) != (logits + rng.normal(size=logits.shape) > 0)
  found = metrics.flip_auroc(logits, flips)
  expected = [
    roc_auc_score(f, -abs(z)) for f, z in zip(flips.T, logits.T, strict=True)
  ]
  np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-6)
  np.testing.assert_allclose(
    found.pooled, roc_auc_score(flips.ravel(), -abs(logits).ravel()), atol=1e-6
  )
  assert found.flips.tolist() == flips.sum(axis=0).tolist()
  assert int(found.total) == 400


def test_flip_area_without_flips_or_with_nan():
  logits = np.array([[1, 2], [3, 4], [-5, np.nan]], np.float32)
  flips = np.array([[0, 1], [0, 0], [0, 0]], bool)
  found = metrics.flip_auroc(logits, flips)
  assert np.isnan(found.value).all()
  assert np.isnan(found.pooled)
  assert found.flips.tolist() == [0, 1]
  found = metrics.flip_auroc(logits[:2], flips[:2])
  np.testing.assert_array_equal(found.value, [np.nan, 1.0])
  assert float(found.pooled) == pytest.approx(2 / 3)


def test_under_jit_and_vmap():
  rng = np.random.default_rng(7)
  x, y = rng.normal(size=(2, 3, 12)).astype(np.float32)
  loop = [
    metrics.rank_correlation(None, a, b) for a, b in zip(x, y, strict=True)
  ]
  mapped = jax.jit(jax.vmap(lambda a, b: metrics.rank_correlation(None, a, b)))(
    x, y
  )
  rows = metrics.rank_correlation(None, x, y)
  for i, one in enumerate(loop):
    for found in (mapped, rows):
      np.testing.assert_allclose(found.value[i], one.value, atol=1e-7)


def test_unusable_input():
  x = np.arange(4, dtype=np.float32)
  with pytest.raises(ValueError, match=r"last axis, got \[3\] and \[4\]"):
    metrics.rank_correlation(None, x[:3], x)
  with pytest.raises(ValueError, match=r"got \[\] and \[\]"):
    metrics.rank_correlation(None, 1.0, 1.0)
  for number in (0, 2.5, None):
    with pytest.raises(ValueError, match="permutations must be a whole"):
      metrics.rank_correlation(jax.random.key(0), x, x, permutations=number)
  with pytest.raises(ValueError, match=r"\[N, A\], got \[4\] and \[4\]"):
    metrics.flip_auroc(x, x > 0)
  with pytest.raises(ValueError, match="cut must lie in"):
    metrics.dense_criteria(np.ones((4, 1)), np.ones((4, 1)), cut=0.0)
