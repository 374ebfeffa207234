import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from effjax import metrics


def population(models=4, rows=60, attributes=3, kind=bool, seed=0):
  rng = np.random.default_rng(seed)
  values = rng.integers(0, 2 if kind is bool else 5, (models, rows, attributes))
  return values.astype(kind)


@pytest.mark.parametrize("kind", [bool, np.int32])
@pytest.mark.parametrize("weights", [None, "integers", "floats"])
def test_all_pairs_equal_churn_of_each(kind, weights):
  predictions = population(kind=kind)
  if weights is not None:
    weights = np.random.default_rng(1).integers(0, 3, 60) / np.float32(2)
    if kind is bool:
      weights = (2 * weights).astype(np.int32)
  value = metrics.baseline_churn(predictions, weights=weights)
  total = np.ones(60) if weights is None else np.asarray(weights, np.float64)
  pairs = list(itertools.combinations(range(4), 2))
  assert value.pairs.shape == (len(pairs), 3)
  for (i, j), ours in zip(pairs, value.pairs, strict=True):
    differ = predictions[i] != predictions[j]
    expected = (differ * total[:, None]).sum(axis=0) / total.sum()
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    one = metrics.churn(predictions[i], predictions[j], weights=weights)
    np.testing.assert_allclose(one, expected, atol=1e-6)
  np.testing.assert_allclose(value.mean, value.pairs.mean(axis=0), rtol=1e-6)
  assert float(value.support) == total.sum()


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_churn_is_a_distance(seed):
  a, b, c = population(3, 40, 1, np.int32, seed)[..., 0]
  ab, bc, ac = metrics.churn(a, b), metrics.churn(b, c), metrics.churn(a, c)
  assert ab == metrics.churn(b, a)
  assert metrics.churn(a, a) == 0.0
  assert ac <= ab + bc + 1e-6


def test_churn_is_the_flip_rate():
  a, b = population(2)
  flips = metrics.compute(
    metrics.flips(),
    predictions=a,
    reference_predictions=b,
    labels=a,
    groups=np.ones((60, 1), bool),
  )
  np.testing.assert_allclose(flips.overall.rate, metrics.churn(a, b), rtol=1e-6)


def test_class_ids_need_no_attribute_axis():
  predictions = population(3, 50, 1, np.int32)[..., 0]
  value = metrics.baseline_churn(predictions)
  assert value.pairs.shape == (3,)
  expected = (predictions[0] != predictions[2]).mean()
  np.testing.assert_allclose(value.pairs[1], expected, rtol=1e-6)
  binary = metrics.baseline_churn(predictions > 2)
  assert binary.pairs.shape == (3,)
  expected = ((predictions[0] > 2) != (predictions[2] > 2)).mean()
  np.testing.assert_allclose(binary.pairs[1], expected, rtol=1e-6)


def test_what_has_no_pair_or_sample_is_undefined():
  alone = metrics.baseline_churn(population(1))
  assert alone.pairs.shape == (0, 3)
  assert np.isnan(alone.mean).all()
  nothing = metrics.baseline_churn(population(2), weights=np.zeros(60, bool))
  assert np.isnan(nothing.mean).all()
  assert int(nothing.support) == 0
  assert np.isnan(metrics.churn(np.zeros(0, int), np.zeros(0, int)))


def test_jit_and_vmap_change_nothing():
  stacked = np.stack([population(seed=s) for s in (3, 4)])
  mapped = jax.jit(jax.vmap(metrics.baseline_churn))(stacked)
  for i, one in enumerate(stacked):
    np.testing.assert_allclose(
      mapped.pairs[i], metrics.baseline_churn(one).pairs, rtol=1e-6
    )


@pytest.mark.parametrize(
  ("first", "second", "message"),
  [
    (np.zeros(3), np.zeros(3), "make decisions of logits"),
    (np.zeros(3, int), np.zeros(4, int), "one shape and kind"),
    (np.zeros(3, int), np.zeros(3, bool), "one shape and kind"),
    (np.zeros((1, 1, 1), int), np.zeros((1, 1, 1), int), "[N, A]"),
  ],
)
def test_errors(first, second, message):
  with pytest.raises(ValueError) as error:
    metrics.churn(first, second)
  assert message in str(error.value)


def test_errors_of_a_population():
  with pytest.raises(ValueError, match="of a population"):
    metrics.baseline_churn(np.zeros(3, bool))
  with pytest.raises(ValueError, match="weights must have shape"):
    metrics.baseline_churn(np.zeros((2, 3), bool), weights=np.ones(2))
