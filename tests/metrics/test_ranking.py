import fractions

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from effjax import metrics


def data(rows, decimals, attributes=5, scale=3.0, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, attributes)) < rng.uniform(0.05, 0.95, attributes)
  logits = scale * rng.normal(size=labels.shape) + scale * labels
  return logits.round(decimals).astype(np.float32), labels


def peer(logits, labels):
  pairs = zip(logits.T.astype(np.float64), labels.T, strict=True)
  return np.array([roc_auc_score(y, z) for z, y in pairs])


@pytest.mark.parametrize("rows", [50, 3000, 40_000])
@pytest.mark.parametrize("decimals", [6, 1, 0])
def test_exact_area_equals_scikit_learn(rows, decimals):
  logits, labels = data(rows, decimals)
  np.testing.assert_allclose(
    metrics.auc_exact(logits, labels), peer(logits, labels), rtol=0, atol=1e-6
  )


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("bins", [256, 4096])
def test_binned_area_keeps_its_bound(scale, bins):
  logits, labels = data(2000, 6, scale=scale)
  area = metrics.compute(
    metrics.auc(bins, details=True), logits=logits, labels=labels
  )
  error = np.abs(np.asarray(area.value) - peer(logits, labels))
  assert (error <= np.asarray(area.bound) + 1e-6).all()
  np.testing.assert_array_equal(area.positives, labels.sum(axis=0))


def test_bound_is_half_the_share_of_pairs_in_one_bin():
  logits = np.array([[1.0], [1.5], [-2.0], [40.0]], np.float32)
  labels = np.array([[True], [False], [False], [True]])
  area = metrics.compute(
    metrics.auc(16, details=True), logits=logits, labels=labels
  )
  # One of the four pairs, (1.0, 1.5), shares the octave 2 <= abs(z) + 1 < 4.
  assert area.bound.item() == 1 / 8
  assert area.value.item() == 7 / 8


def test_binned_area_of_many_samples_is_close():
  logits, labels = data(200_000, 6, attributes=2)
  value = metrics.compute(metrics.auc(), logits=logits, labels=labels)
  np.testing.assert_allclose(value, peer(logits, labels), rtol=0, atol=5e-6)


def test_grid_logits_are_exact():
  logits, labels = data(3000, 1, scale=2.0)
  logits = (logits * 16).round() / 16
  area = metrics.compute(
    metrics.auc(details=True), logits=logits, labels=labels
  )
  small = np.abs(logits).max() < 15
  assert small
  np.testing.assert_allclose(area.value, peer(logits, labels), atol=1e-6)


def test_orders_infinities_and_zeros():
  scores = np.array([-np.inf, -0.0, 0.0, np.inf], np.float32)
  labels = np.array([False, False, True, True])
  assert metrics.auc_exact(scores, labels) == 1 - 0.5 / 4
  value = metrics.compute(
    metrics.auc(), logits=scores[:, None], labels=labels[:, None]
  )
  assert value.item() == 1 - 0.5 / 4


def test_exact_area_is_a_ratio_of_counts():
  scores = np.array([3, 1, 2, 2, 5, 2], np.float32)
  labels = np.array([1, 0, 1, 0, 0, 0], bool)
  wins = sum(
    fractions.Fraction(1 + (p > n) - (p < n), 2)
    for p in scores[labels].tolist()
    for n in scores[~labels].tolist()
  )
  assert float(metrics.auc_exact(scores, labels)) == float(wins / 8)


def test_nan_scores_are_undefined():
  scores = np.array([1.0, np.nan, 0.0], np.float32)
  assert np.isnan(metrics.auc_exact(scores, np.array([True, False, False])))


def test_exact_area_under_jit_and_vmap():
  logits, labels = data(100, 1)
  eager = metrics.auc_exact(logits, labels)
  np.testing.assert_allclose(
    jax.jit(metrics.auc_exact)(logits, labels), eager, rtol=1e-6
  )
  both = jax.vmap(metrics.auc_exact)(
    np.stack([logits, -logits]), np.stack([labels, labels])
  )
  np.testing.assert_allclose(both[0], eager, rtol=1e-6)
  np.testing.assert_allclose(both[1], 1 - eager, rtol=1e-5)


@pytest.mark.parametrize("bins", [0, 8, 100, 48, 2**21])
def test_unusable_bins(bins):
  with pytest.raises(ValueError, match="bins must be"):
    metrics.auc(bins)


def test_shapes_that_differ():
  with pytest.raises(ValueError, match=r"\[3\] and \[4\]"):
    metrics.auc_exact(np.zeros(3, np.float32), np.zeros(4, bool))
