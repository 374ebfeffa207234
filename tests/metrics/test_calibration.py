import pathlib

import jax
import numpy as np
import pytest

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "bias"
NORMS = pytest.mark.parametrize("norm", ["l1", "l2", "max"])


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
@pytest.mark.parametrize(("bins", "rows"), [(1, 40), (7, 40), (10, 100_000)])
def test_equals_brute_force(norm, bins, rows):
  logits, labels = data(rows)
  value = metrics.compute(
    metrics.calibration_error(bins, norm), logits=logits, labels=labels
  )
  expected = [
    brute_force(logits[:, a], labels[:, a], bins, norm) for a in range(3)
  ]
  # Of many samples a few may fall on the other side of an edge in float32.
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


def norms(share, distance):
  """The three norms of distances in bins with shares of samples."""
  return {
    "l1": (share * distance).sum(),
    "l2": np.sqrt((share * distance**2).sum()),
    "max": distance.max(),
  }


def softmax(logits):
  z = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
  return z / z.sum(axis=1, keepdims=True)


@NORMS
def test_top_class_equals_golden_values(norm):
  golden = np.load(GOLDEN / "calibration.npz", allow_pickle=False)
  logits = golden["mc_logits"].astype(np.float32)
  value = metrics.compute(
    metrics.calibration_error(15, norm, confidence="top_class"),
    logits=logits,
    labels=metrics.one_hot(golden["mc_labels"].astype(np.int32), 6),
  )
  np.testing.assert_allclose(value, [golden[f"mc_{norm}_15"]], atol=1e-6)


@NORMS
def test_classes_equal_brute_force(norm):
  rng = np.random.default_rng(0)
  logits = (2 * rng.normal(size=(500, 4))).astype(np.float32)
  labels = np.eye(4, dtype=bool)[rng.integers(0, 4, 500)]
  p = softmax(logits)
  for confidence, probability, right in (
    ("classwise", p, labels),
    (
      "top_class",
      p.max(axis=1, keepdims=True),
      labels[np.arange(500), p.argmax(axis=1)][:, None],
    ),
  ):
    value = metrics.compute(
      metrics.calibration_error(5, norm, confidence=confidence),
      logits=logits,
      labels=labels,
    )
    z = np.log(probability / (1 - probability))
    expected = [
      brute_force(z[:, k], right[:, k], 5, norm) for k in range(z.shape[1])
    ]
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_top_of_equal_logits_is_the_first_class():
  labels = np.array([[True, False], [False, True]])
  metric = metrics.calibration_error(2, confidence="top_class")
  value = metrics.compute(
    metric, logits=np.zeros((2, 2), np.float32), labels=labels
  )
  assert value.tolist() == [0.0]  # confidence 1/2, right in 1 of 2


def test_groups_equal_their_own_rows():
  logits, labels = data(300)
  rng = np.random.default_rng(1)
  groups = rng.random((300, 4)) < [0.5, 0.05, 0.0, 1.0]
  found = metrics.compute(
    metrics.calibration_error(by_group=True, details=True),
    logits=logits,
    labels=labels,
    groups=groups,
  )
  expected = np.full((4, 3), np.nan)
  for g in (0, 1, 3):
    rows = groups[:, g]
    for a in range(3):
      expected[g, a] = brute_force(logits[rows, a], labels[rows, a], 10, "l1")
  np.testing.assert_allclose(found.value, expected, atol=1e-5)
  np.testing.assert_allclose(found.overall, expected[3], atol=1e-5)
  gap = np.nanmax(expected, axis=0) - np.nanmin(expected, axis=0)
  np.testing.assert_allclose(found.gap, gap, atol=2e-5)
  np.testing.assert_array_equal(found.estimable, [3, 3, 3])
  support = np.repeat(groups.sum(axis=0)[:, None], 3, axis=1)
  np.testing.assert_array_equal(found.support, support)


def test_one_estimable_group_has_no_gap():
  logits, labels = data(20)
  groups = np.zeros((20, 2), bool)
  groups[:, 0] = True
  found = metrics.compute(
    metrics.calibration_error(by_group=True, details=True),
    logits=logits,
    labels=labels,
    groups=groups,
  )
  assert np.isnan(found.gap).all()
  np.testing.assert_array_equal(found.estimable, [1, 1, 1])


def test_details_hold_the_support():
  logits, labels = data(20)
  weights = np.arange(20, dtype=np.int32)
  found = metrics.compute(
    metrics.calibration_error(details=True),
    logits=logits,
    labels=labels,
    weights=weights,
  )
  np.testing.assert_array_equal(found.support, [190] * 3)


def test_blocks_of_rows_and_the_rest_are_all_counted():
  rows = 2 * 16384 + 5
  logits = np.full((rows, 1), 9.0, np.float32)
  logits[-1] = np.nan
  metric = metrics.calibration_error(details=True)
  found = metrics.compute(metric, logits=logits, labels=np.ones((rows, 1)))
  assert np.isnan(found.value).all()
  assert found.support.tolist() == [rows - 1]


def adaptive(p, y, bins, norm):
  """Equal mass by a loop; ties follow the first of them in sorted order."""
  order = np.sort(p)
  index = np.array([np.searchsorted(order, v) * bins // len(p) for v in p])
  used = np.unique(index)
  share = np.array([(index == b).mean() for b in used])
  distance = np.array(
    [abs(p[index == b].mean() - y[index == b].mean()) for b in used]
  )
  return norms(share, distance)[norm]


@NORMS
@pytest.mark.parametrize("decimals", [7, 1])
def test_adaptive_error_equals_brute_force(norm, decimals):
  rng = np.random.default_rng(2)
  p = rng.random((203, 2)).round(decimals).astype(np.float32)
  y = rng.random((203, 2)) < p**2
  value = metrics.adaptive_calibration_error(p, y, 7, norm)
  expected = [
    adaptive(p[:, a].astype(np.float64), y[:, a], 7, norm) for a in range(2)
  ]
  np.testing.assert_allclose(value, expected, atol=1e-6)
  shuffled = rng.permutation(203)
  np.testing.assert_allclose(
    metrics.adaptive_calibration_error(p[shuffled], y[shuffled], 7, norm),
    value,
    atol=1e-6,
  )


def test_adaptive_bins_hold_equal_numbers_of_distinct_probabilities():
  # Bins {0.1, 0.2} and {0.3, 0.9}; with equal widths 0.3 would join the first.
  p = np.array([0.9, 0.1, 0.3, 0.2], np.float32)
  y = np.array([True, False, True, False])
  value = metrics.adaptive_calibration_error(p, y, 2, "max")
  assert float(value) == pytest.approx(0.4)


@pytest.mark.parametrize("p", [[], [0.5, np.nan]])
def test_adaptive_error_is_undefined(p):
  p = np.array(p, np.float32)
  assert np.isnan(metrics.adaptive_calibration_error(p, np.ones(p.shape, bool)))


def test_adaptive_error_under_jit():
  p = np.linspace(0, 1, 30, dtype=np.float32)
  eager = metrics.adaptive_calibration_error(p, p > 0.6)
  compiled = jax.jit(metrics.adaptive_calibration_error)(p, p > 0.6)
  np.testing.assert_allclose(compiled, eager, rtol=1e-6)


def bias(train=None, **options):
  labels = np.array([[True, True], [False, True], [False, False], [False] * 2])
  decided = np.array([[False, True], [False] * 2, [False] * 2, [False] * 2])
  metric = metrics.threshold_calibration_bias(train, **options)
  return metrics.compute(metric, predictions=decided, labels=labels)


def test_log_form_of_threshold_calibration_bias():
  train = np.array([[False, False], [False, True]])
  np.testing.assert_allclose(bias(train), [0.0, 0.5])
  np.testing.assert_allclose(bias(train, form="log"), [-np.inf, np.log(0.5)])


def test_explicit_side_of_threshold_calibration_bias():
  found = bias(positive_is_rarer=np.array([True, False]), details=True)
  np.testing.assert_allclose(found.value, [0.0, 1.5])
  np.testing.assert_array_equal(found.predicted, [0, 3])
  np.testing.assert_array_equal(found.labelled, [1, 2])
  assert found.total == 4


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({}, "either"),
    ({"train": np.ones((2, 2)), "positive_is_rarer": [True] * 2}, "either"),
    ({"positive_is_rarer": [0, 1]}, "bools"),
    ({"positive_is_rarer": [True]}, "disagree"),
    ({"train": np.ones((2, 2)), "form": "odds"}, "ratio, log"),
  ],
)
def test_unusable_options_of_threshold_calibration_bias(options, message):
  with pytest.raises(ValueError, match=message):
    bias(**options)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"bins": 0}, "at least 1"),
    ({"bins": None}, "bins must be a whole number"),
    ({"bins": 2.5}, "bins must be a whole number"),
    ({"norm": "l3"}, "l1, l2, max"),
    ({"confidence": "top"}, "top_class"),
  ],
)
def test_unusable_options(options, message):
  with pytest.raises(ValueError, match=message):
    metrics.calibration_error(**options)
