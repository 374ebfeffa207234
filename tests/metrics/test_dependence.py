import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from effjax import metrics


def peer(predictions):
  """R^2 of scikit-learn's least squares, column by column."""
  x = predictions.astype(np.float64)
  values = []
  for a in range(x.shape[1]):
    others = np.delete(x, a, axis=1)
    values.append(
      LinearRegression().fit(others, x[:, a]).score(others, x[:, a])
    )
  return np.array(values)


def correlated(rows, attributes, seed, noise=1.0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, attributes))
  offset = rng.uniform(-2, 2, attributes)
  return common + noise * rng.normal(size=(rows, attributes)) + offset > 0


def ours(predictions, **options):
  return np.asarray(
    metrics.compute(
      metrics.interdependence(convention="reference", **options),
      predictions=predictions,
    )
  )


@pytest.mark.parametrize(
  ("rows", "attributes", "noise"),
  [(300, 6, 3.0), (300, 6, 1.0), (300, 6, 0.1), (2000, 40, 0.3)],
)
def test_equals_scikit_learn(rows, attributes, noise):
  predictions = correlated(rows, attributes, 0, noise)
  np.testing.assert_allclose(
    ours(predictions), peer(predictions), rtol=0, atol=1e-5
  )


def test_equals_scikit_learn_for_rare_and_common_columns():
  rng = np.random.default_rng(1)
  rates = np.array([0.001, 0.999, 0.5, 0.01, 0.99, 0.3])
  predictions = rng.random((20_000, 6)) < rates
  predictions[:, 1] |= predictions[:, 0]
  np.testing.assert_allclose(
    ours(predictions), peer(predictions), rtol=0, atol=1e-5
  )


def test_equals_scikit_learn_with_dependent_columns():
  predictions = correlated(800, 9, 2)
  # A partition: each column is one minus the three others.
  predictions[:, 5:9] = np.eye(4, dtype=bool)[
    np.random.default_rng(3).integers(0, 4, 800)
  ]
  predictions[:, 1] = predictions[:, 0]
  predictions[:, 2] = True
  np.testing.assert_allclose(
    ours(predictions), peer(predictions), rtol=0, atol=1e-5
  )


def test_fewer_samples_than_attributes():
  predictions = np.random.default_rng(4).random((6, 10)) < 0.5
  np.testing.assert_allclose(
    ours(predictions), peer(predictions), rtol=0, atol=1e-5
  )


def test_a_single_attribute_depends_on_nothing():
  predictions = np.array([[True], [False], [True]])
  np.testing.assert_array_equal(ours(predictions), [0.0])


def test_explained_shares_of_a_covariance():
  rng = np.random.default_rng(5)
  x = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
  covariance = np.cov(x.T)
  expected = 1 - 1 / (np.diag(covariance) * np.diag(np.linalg.inv(covariance)))
  value = metrics.explained(covariance.astype(np.float32))
  np.testing.assert_allclose(value, expected, atol=1e-4)
