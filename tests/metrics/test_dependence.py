import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mutual_info_score

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
  [
    (300, 6, 3.0),
    (300, 6, 1.0),
    (300, 6, 0.1),
    pytest.param(2000, 40, 0.3, marks=pytest.mark.slow),
  ],
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


@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_ridge_equals_scikit_learn(alpha):
  predictions = correlated(400, 6, 6)
  predictions[:, 1] = predictions[:, 0]
  predictions[:, 2] = True
  x = predictions.astype(np.float64)
  expected = []
  for a in range(6):
    others = np.delete(x, a, axis=1)
    fit = Ridge(alpha=alpha).fit(others, x[:, a])
    expected.append(fit.score(others, x[:, a]))
  np.testing.assert_allclose(
    ours(predictions, ridge=alpha / 400), expected, rtol=0, atol=1e-5
  )


def adjusted_peer(predictions):
  x = predictions.astype(np.float64)
  rows = len(x)
  values = []
  for a, share in enumerate(peer(predictions)):
    others = np.delete(x, a, axis=1)
    rank = np.linalg.matrix_rank(others - others.mean(axis=0))
    left = rows - rank - 1
    values.append(1 - (1 - share) * (rows - 1) / left if left > 0 else np.nan)
  return np.array(values)


@pytest.mark.parametrize("kind", ["independent", "repeated", "partition"])
def test_adjusted_share_counts_the_rank_of_the_others(kind):
  predictions = np.random.default_rng(7).random((40, 6)) < 0.4
  if kind == "repeated":
    predictions[:, 1] = predictions[:, 0]
    predictions[:, 2] = ~predictions[:, 0]
    predictions[:, 3] = False
  if kind == "partition":
    columns = np.random.default_rng(8).integers(0, 3, 40)
    predictions[:, 3:] = np.eye(3, dtype=bool)[columns]
  np.testing.assert_allclose(
    ours(predictions, adjusted=True),
    adjusted_peer(predictions),
    rtol=0,
    atol=2e-5,
  )


def test_adjusted_share_of_too_few_samples_is_undefined():
  predictions = np.random.default_rng(9).random((4, 9)) < 0.5
  predictions[0], predictions[1] = True, False
  assert np.isnan(ours(predictions, adjusted=True)).all()


def test_mutual_information_equals_scikit_learn():
  predictions = correlated(500, 5, 10)
  predictions[:, 1] = ~predictions[:, 0]
  pairs = np.array(
    [[mutual_info_score(x, y) for x in predictions.T] for y in predictions.T]
  )
  others = ~np.eye(5, dtype=bool)
  for reduce, expected in (
    ("none", pairs),
    ("mean", pairs.mean(axis=1, where=others)),
    ("max", pairs.max(axis=1, where=others, initial=0)),
  ):
    value = metrics.compute(
      metrics.mutual_information(reduce=reduce), predictions=predictions
    )
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)


def test_mutual_information_leaves_out_constant_columns():
  predictions = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
  for reduce in ("mean", "max"):
    value = metrics.compute(
      metrics.mutual_information(reduce=reduce), predictions=predictions
    )
    np.testing.assert_allclose(value, [0.0, np.nan, 0.0], atol=1e-7)
  alone = metrics.compute(
    metrics.mutual_information(), predictions=predictions[:, :2]
  )
  assert np.isnan(alone).all()


@pytest.mark.parametrize(
  "options",
  [
    {"ridge": -1.0},
    {"ridge": np.inf},
    {"ridge": None},
    {"ridge": 1.0, "adjusted": True},
  ],
)
def test_unusable_ridge(options):
  with pytest.raises(ValueError, match="ridge"):
    metrics.interdependence(**options)


def test_unusable_reduction():
  with pytest.raises(ValueError, match="mean, max or none"):
    metrics.mutual_information(reduce="sum")
