import numpy as np
import pytest

from effjax import metrics


def brute_force(logits, labels, bins, norm):
  """Calibration error of one attribute in float64; p = 1 in the last bin."""
  p = 1 / (1 + np.exp(-logits.astype(np.float64)))
  index = np.minimum(np.floor(p * bins).astype(int), bins - 1)
  used = np.unique(index)
  share = np.array([(index == b).mean() for b in used])
  distance = np.array(
    [abs(p[index == b].mean() - labels[index == b].mean()) for b in used]
  )
  return {
    "l1": (share * distance).sum(),
    "l2": np.sqrt((share * distance**2).sum()),
    "max": distance.max(),
  }[norm]


def data(rows, seed=0):
  rng = np.random.default_rng(seed)
  logits = (3 * rng.normal(size=(rows, 3))).astype(np.float32)
  return logits, rng.random((rows, 3)) < 1 / (1 + np.exp(-0.7 * logits))


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [1, 7, 10])
@pytest.mark.parametrize("rows", [40, 200_000])
def test_equals_brute_force(norm, bins, rows):
  logits, labels = data(rows)
  value = metrics.compute(
    metrics.calibration_error(bins, norm), logits=logits, labels=labels
  )
  expected = [
    brute_force(logits[:, a], labels[:, a], bins, norm) for a in range(3)
  ]
  # At 200,000 a few samples may fall on the other side of an edge in float32.
  np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5)


def test_reliability_curve():
  logits = np.array([[-3.0], [3.0], [3.0], [40.0]], np.float32)
  labels = np.array([[False], [True], [False], [True]])
  metric = metrics.calibration_error(2)
  state = metric.update(metric.empty, logits=logits, labels=labels)
  curve = metrics.reliability_curve(state)
  p = 1 / (1 + np.exp(-3.0))
  np.testing.assert_allclose(
    curve.confidence, [[1 - p, (2 * p + 1) / 3]], rtol=1e-5
  )
  np.testing.assert_allclose(curve.frequency, [[0.0, 2 / 3]], rtol=1e-6)
  np.testing.assert_array_equal(curve.count, [[1, 3]])


def test_empty_bins_of_a_curve_are_undefined():
  metric = metrics.calibration_error(4)
  state = metric.update(
    metric.empty,
    logits=np.full((3, 1), -9, np.float32),
    labels=np.zeros((3, 1)),
  )
  curve = metrics.reliability_curve(state)
  assert np.isnan(curve.confidence[0, 1:]).all()
  assert np.isnan(curve.frequency[0, 1:]).all()
