import jax
import numpy as np
import pytest
import scipy.optimize
from sklearn.metrics import brier_score_loss, log_loss

from effjax import metrics

BRIER = metrics.brier_score(details=True)


def data(rows, seed=0, scale=3.0):
  rng = np.random.default_rng(seed)
  logits = (scale * rng.normal(size=(rows, 3))).astype(np.float32)
  return logits, rng.random((rows, 3)) < sigmoid(0.6 * logits)


def sigmoid(z):
  return 1 / (1 + np.exp(-z.astype(np.float64)))


def peer(function, logits, labels):
  p = sigmoid(logits)
  columns = range(logits.shape[1])
  return [function(labels[:, a], p[:, a], labels=[0, 1]) for a in columns]


@pytest.mark.parametrize("rows", [1, 5000])
def test_brier_score_equals_scikit_learn(rows):
  logits, labels = data(rows)
  np.testing.assert_allclose(
    metrics.compute(metrics.brier_score(), logits=logits, labels=labels),
    [
      brier_score_loss(y, p, pos_label=1)
      for y, p in zip(labels.T.astype(int), sigmoid(logits).T, strict=True)
    ],
    rtol=0,
    atol=1e-6,
  )


@pytest.mark.parametrize("rows", [1, 5000])
def test_likelihood_equals_scikit_learn(rows):
  logits, labels = data(rows)
  value = metrics.compute(
    metrics.negative_log_likelihood(), logits=logits, labels=labels
  )
  expected = peer(log_loss, logits, labels)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("bins", [1, 10])
def test_parts_of_the_brier_score(bins, scale):
  logits, labels = data(900, scale=scale)
  found = metrics.compute(
    metrics.brier_score(bins, details=True), logits=logits, labels=labels
  )
  p = sigmoid(logits)
  index = np.minimum(np.floor(p * bins), bins - 1)
  reliability, resolution, within = np.zeros((3, 3))
  for a in range(3):
    for b in np.unique(index[:, a]):
      rows = index[:, a] == b
      x, y = p[rows, a], labels[rows, a].astype(float)
      share = rows.mean()
      reliability[a] += share * (x.mean() - y.mean()) ** 2
      resolution[a] += share * (y.mean() - labels[:, a].mean()) ** 2
      covariance = ((x - x.mean()) * (y - y.mean())).mean()
      within[a] += share * (x.var() - 2 * covariance)
  uncertainty = labels.mean(axis=0) * (1 - labels.mean(axis=0))
  for part, expected in (
    (found.reliability, reliability),
    (found.resolution, resolution),
    (found.uncertainty, uncertainty),
    (found.within, within),
    (found.value, reliability - resolution + uncertainty + within),
    (found.value, ((p - labels) ** 2).mean(axis=0)),
  ):
    np.testing.assert_allclose(part, expected, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(found.support, [900] * 3)


def test_brier_score_of_single_probabilities_has_nothing_within():
  logits = np.array([[-2.0], [-2.0], [2.0], [2.0]], np.float32)
  labels = np.array([[False], [True], [True], [True]])
  found = metrics.compute(BRIER, logits=logits, labels=labels)
  assert found.within.item() == pytest.approx(0, abs=1e-7)
  p = sigmoid(logits[2, 0])
  reliability = ((1 - p - 0.5) ** 2 + (p - 1) ** 2) / 2
  assert found.reliability.item() == pytest.approx(reliability, abs=1e-6)


def test_probabilities_of_zero_and_one():
  # float32 sigmoid is exactly 1 here; the last two are as wrong as can be.
  logits = np.array([[np.inf, 200.0, -200.0, 200.0, -np.inf]], np.float32)
  labels = np.array([[True, True, False, False, True]])
  found = metrics.compute(BRIER, logits=logits, labels=labels)
  np.testing.assert_allclose(found.value, [0, 0, 0, 1, 1], atol=1e-6)
  loss = metrics.compute(
    metrics.negative_log_likelihood(), logits=logits, labels=labels
  )
  np.testing.assert_allclose(loss, [0, 0, 0, 200, np.inf])
  doubt = metrics.compute(metrics.entropy(), logits=logits)
  np.testing.assert_array_equal(doubt, np.zeros(5))


@pytest.mark.parametrize("scale", [0.01, 3.0, 40.0])
def test_entropy_equals_its_definition(scale):
  logits, _ = data(400, scale=scale)
  p = sigmoid(-np.abs(logits))
  expected = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean(axis=0)
  value = metrics.compute(metrics.entropy(), logits=logits)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_softmax_entropy():
  logits = np.random.default_rng(0).normal(size=(2, 5, 7)) * 4
  z = np.exp(logits - logits.max(axis=-1, keepdims=True))
  p = z / z.sum(axis=-1, keepdims=True)
  value = metrics.softmax_entropy(logits.astype(np.float32))
  np.testing.assert_allclose(value, -(p * np.log(p)).sum(-1), rtol=1e-5)
  even = metrics.softmax_entropy(np.array([1.0, 1.0, -np.inf], np.float32))
  assert float(even) == pytest.approx(np.log(2))


def best(logits, labels):
  """The temperature by a scalar minimisation in float64."""
  wrong = np.where(labels, -1, 1) * logits.astype(np.float64)
  loss = lambda t: np.logaddexp(0, wrong * np.exp(-t)).mean()
  return np.exp(scipy.optimize.minimize_scalar(loss, (-3, 3), tol=1e-12).x)


@pytest.mark.parametrize("scale", [0.001, 1.0, 300.0])
def test_temperature_minimises_the_likelihood_loss(scale):
  logits, labels = data(500)
  expected = [scale * best(logits[:, a], labels[:, a]) for a in range(3)]
  logits = logits * np.float32(scale)
  value = metrics.temperature(logits, labels)
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  shared = metrics.temperature(logits, labels, shared=True)
  scaled = best(logits.ravel() / scale, labels.ravel())
  assert float(shared) == pytest.approx(scale * scaled, rel=1e-4)
  np.testing.assert_allclose(
    metrics.temperature(logits[:, 0], labels[:, 0]), value[0], rtol=1e-5
  )


def test_temperature_of_groups():
  logits, labels = data(500)
  groups = np.random.default_rng(1).random((500, 3)) < [0.3, 0.9, 0.0]
  found = metrics.temperature(logits, labels, groups=groups)
  assert found.shape == (3, 3)
  for g in range(2):
    rows = groups[:, g]
    expected = [best(logits[rows, a], labels[rows, a]) for a in range(3)]
    np.testing.assert_allclose(found[g], expected, rtol=1e-4)
  assert np.isnan(found[2]).all()
  shared = metrics.temperature(logits, labels, groups=groups, shared=True)
  assert shared.shape == (3,)


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
  ("logits", "labels"),
  [
    ([], []),
    ([2.0, -1.0], [1, 0]),  # separable: T = 0
    ([2.0, -1.0], [0, 1]),  # worse than chance: T infinite
    ([2.0, 2.0], [1, 0]),  # chance
    ([0.0, 0.0], [1, 0]),
    ([2.0, 2.0, 2.0, NAN], [1, 1, 0, 1]),
    ([2.0, 2.0, 2.0, INF], [1, 1, 0, 0]),
  ],
)
def test_undefined_temperature(logits, labels):
  z, y = np.array(logits, np.float32), np.array(labels, bool)
  assert np.isnan(metrics.temperature(z, y))


def test_infinite_right_logits_do_not_move_the_temperature():
  z = np.array([3.0, 3.0, 3.0, INF, -INF], np.float32)
  y = np.array([True, True, False, True, False])
  expected = 3 / np.log(2)  # sigmoid(3 / T) = 2/3
  assert float(metrics.temperature(z, y)) == pytest.approx(expected, rel=1e-5)


def test_temperature_under_jit_and_vmap():
  logits, labels = data(60)
  eager = metrics.temperature(logits, labels)
  np.testing.assert_allclose(
    jax.jit(metrics.temperature)(logits, labels), eager, rtol=1e-5
  )
  columns = jax.vmap(metrics.temperature, in_axes=1)(logits, labels)
  np.testing.assert_allclose(columns, eager, rtol=1e-5)


def test_scaling_by_a_temperature():
  z = np.array([[2.0, 3.0], [4.0, 6.0]], np.float32)
  groups = np.array([[True, False], [False, True]])
  scale = metrics.scale_temperature
  np.testing.assert_allclose(scale(z, 2.0), z / 2)
  np.testing.assert_allclose(scale(z, [2.0, 3.0]), z / [2, 3])
  np.testing.assert_allclose(scale(z[:, 0], 2.0), z[:, 0] / 2)
  np.testing.assert_allclose(
    scale(z, [[1.0, 2.0], [4.0, 3.0]], groups=groups), [[2, 1.5], [1, 2]]
  )
  np.testing.assert_allclose(
    scale(z, [1.0, 2.0], groups=groups), [[2, 3], [2, 3]]
  )
  np.testing.assert_allclose(
    scale(z[:, 0], [1.0, 2.0], groups=groups), [2.0, 2.0]
  )
  np.testing.assert_array_equal(
    scale(z, [1.0, 2.0], groups=np.array([[True, True], [False, False]])),
    np.full((2, 2), NAN),
  )


def test_shapes_that_differ():
  z = np.zeros((4, 2), np.float32)
  with pytest.raises(ValueError, match=r"\[4, 2\] and \[4\]"):
    metrics.temperature(z, np.zeros(4, bool))
  with pytest.raises(ValueError, match=r"\[4, G\]"):
    metrics.temperature(z, z > 0, groups=np.zeros((3, 2), bool))
  with pytest.raises(ValueError, match="one number or one per attribute"):
    metrics.scale_temperature(z, np.ones(3, np.float32))
  with pytest.raises(ValueError, match="2 groups"):
    metrics.scale_temperature(z, np.ones(3), groups=np.ones((4, 2), bool))
  for bins in (0, 2.5, None):
    with pytest.raises(ValueError, match="bins must be a whole number of at l"):
      metrics.brier_score(bins)
