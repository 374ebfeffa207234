"""Degenerate data, situation by situation, under both conventions."""

import numpy as np
import pytest

from effjax import metrics

CONVENTIONS = pytest.mark.parametrize("convention", ["exact", "reference"])
NAN, INF = np.nan, np.inf


def column(*values):
  return np.array(values)[:, None]


def compute(metric, **batch):
  return np.asarray(metrics.compute(metric, **batch), np.float64)


def tcb(train, convention, **batch):
  metric = metrics.threshold_calibration_bias(train, convention=convention)
  return compute(metric, **batch).item()


def interdependence(predictions, convention):
  return compute(
    metrics.interdependence(convention=convention),
    predictions=np.asarray(predictions, bool),
  )


RARE = column(True, False, False)
COMMON = column(True, True, False)


@CONVENTIONS
def test_logit_at_the_threshold_is_negative(convention):
  logits = np.array([[0.0], [-0.0], [1e-30], [2.0]], np.float32)
  np.testing.assert_array_equal(
    metrics.decisions(logits), column(False, False, True, True)
  )
  np.testing.assert_array_equal(
    metrics.decisions(logits, [2.0]), column(False, False, False, False)
  )
  assert tcb(RARE, convention, logits=logits, labels=logits > 1) == 2.0


def test_inclusive_decisions_accept_the_threshold():
  logits = np.array([[0.0, 1.0]], np.float32)
  np.testing.assert_array_equal(
    metrics.decisions(logits, [0.0, 1.5], inclusive=True), [[True, False]]
  )


def test_group_rates_compare_logits_not_probabilities():
  # float32 sigmoid(1e-9) is exactly one half.
  batch = {
    "logits": column(np.float32(1e-9)),
    "labels": column(True),
    "groups": column(True),
  }
  assert metrics.compute(metrics.group_rates(), **batch).tpr.item() == 1.0


def amplification(
  train=None, test=None, predictions=None, convention="exact", **options
):
  """Bias amplification of cells [inside positive, inside negative, outside...].

  Each of the three is four counts: label positive and negative inside the
  group, then outside it. Predictions default to the labels.
  """

  def expand(cells):
    labels = np.repeat([True, False, True, False], cells)
    groups = np.repeat([True, True, False, False], cells)
    return labels[:, None], groups[:, None]

  train_labels, train_groups = expand(train or (30, 20, 10, 40))
  labels, groups = expand(test or (30, 20, 10, 40))
  if predictions is None:
    predictions = labels
  metric = metrics.bias_amplification(
    train_labels, train_groups, convention=convention, details=True, **options
  )
  value = metrics.compute(
    metric,
    predictions=np.broadcast_to(predictions, labels.shape),
    labels=labels,
    groups=groups,
  )
  return value.value.item(), metrics.REASONS[value.reason.item()], value


@CONVENTIONS
def test_nothing_predicted_positive(convention):
  value, reason, _ = amplification(predictions=False, convention=convention)
  assert np.isnan(value)
  assert reason == "no positive at all"
  nothing, labels = column(False, False, False), RARE
  assert tcb(RARE, convention, predictions=nothing, labels=labels) == 0.0
  # Where "negative" is the rarer value it is over-predicted instead.
  assert tcb(COMMON, convention, predictions=nothing, labels=COMMON) == 3.0


@CONVENTIONS
@pytest.mark.parametrize("constant", [False, True])
def test_interdependence_of_a_constant_column(convention, constant):
  predictions = [
    [constant, False, False],
    [constant, False, True],
    [constant, True, False],
    [constant, True, True],
  ]
  expected = 1.0 if convention == "reference" else NAN
  np.testing.assert_array_equal(
    interdependence(predictions, convention), [expected, 0.0, 0.0]
  )


@CONVENTIONS
def test_everything_predicted_positive(convention):
  value, reason, details = amplification(
    predictions=True, convention=convention
  )
  assert value == pytest.approx(50 / 100 - 30 / 40)
  assert reason == "defined"
  assert details.predicted.item() == 50
  assert details.labelled.item() == 30
  assert details.support.item() == 10


@CONVENTIONS
def test_no_positives_in_test(convention):
  labels = column(False, False, False)
  some, none = column(True, False, False), labels
  logits = np.where(some, 1, -1).astype(np.float32)
  area = metrics.compute(
    metrics.auc(details=True), logits=logits, labels=labels
  )
  assert np.isnan(area.value.item())
  assert area.positives.item() == 0
  assert area.negatives.item() == 3
  assert np.isnan(metrics.auc_exact(logits, labels)).all()
  expected = INF if convention == "reference" else NAN
  np.testing.assert_equal(
    tcb(RARE, convention, predictions=some, labels=labels), expected
  )
  np.testing.assert_equal(
    tcb(RARE, convention, predictions=none, labels=labels), NAN
  )
  value, reason, details = amplification(
    test=(0, 50, 0, 50), convention=convention
  )
  assert np.isnan(value)
  assert "too few" in reason
  assert details.support.item() == 0


@CONVENTIONS
def test_all_positive_in_test(convention):
  labels = column(True, True, True)
  logits = np.array([[1.0], [1.0], [-1.0]], np.float32)
  assert np.isnan(metrics.auc_exact(logits, labels)).all()
  assert np.isnan(metrics.compute(metrics.auc(), logits=logits, labels=labels))
  expected = INF if convention == "reference" else NAN
  np.testing.assert_equal(
    tcb(COMMON, convention, logits=logits, labels=labels), expected
  )
  np.testing.assert_equal(
    tcb(COMMON, convention, predictions=labels, labels=labels), NAN
  )
  assert tcb(RARE, convention, logits=logits, labels=labels) == pytest.approx(
    2 / 3
  )


@CONVENTIONS
def test_group_empty_in_test(convention):
  value, reason, _ = amplification(test=(0, 0, 40, 60), convention=convention)
  assert np.isnan(value)
  assert "too few" in reason


@CONVENTIONS
@pytest.mark.parametrize("train", [(0, 0, 10, 40), (30, 20, 0, 0)])
def test_group_empty_in_training(convention, train):
  value, reason, details = amplification(
    train=train, predictions=True, convention=convention
  )
  if convention == "exact":
    assert np.isnan(value)
    assert "absent from training" in reason
  else:
    assert not details.inside.item()
    assert value == pytest.approx(50 / 100 - 10 / 40)


@CONVENTIONS
@pytest.mark.parametrize(
  ("train", "expected"),
  [((30, 20, 0, 50), 0.5 - 0.75), ((0, 50, 30, 20), 0.5 - 0.25)],
)
def test_attribute_absent_from_one_side_in_training(
  convention, train, expected
):
  value, reason, _ = amplification(
    train=train, predictions=True, convention=convention
  )
  assert reason == "defined"
  assert value == pytest.approx(expected)


@CONVENTIONS
def test_attribute_absent_from_training(convention):
  value, reason, details = amplification(
    train=(0, 50, 0, 50), predictions=True, convention=convention
  )
  if convention == "exact":
    assert np.isnan(value)
    assert "absent from training" in reason
  else:
    assert not details.inside.item()
    assert value == pytest.approx(50 / 100 - 10 / 40)


@CONVENTIONS
def test_support_and_gap_exclude_a_pair(convention):
  few = amplification(test=(30, 20, 9, 40), convention=convention)
  assert np.isnan(few[0])
  assert "too few" in few[1]
  enough = amplification(
    test=(30, 20, 9, 40), convention=convention, min_positives=9
  )
  assert enough[0] == 0.0
  even = amplification(train=(22, 78, 21, 79), convention=convention)
  assert np.isnan(even[0])
  assert "no stereotype" in even[1]
  steep = amplification(
    train=(22, 78, 21, 79), convention=convention, min_gap=0.01
  )
  assert steep[0] == 0.0


@CONVENTIONS
def test_an_attribute_is_no_stereotype_of_itself(convention):
  same = (50, 0, 0, 50)
  value, reason, _ = amplification(
    train=same, test=same, convention=convention, min_positives=0
  )
  assert np.isnan(value)
  assert "itself" in reason


def test_validation_without_positives():
  logits = np.array([0.5, -2.0, 3.0], np.float32)
  labels = np.zeros(3, bool)
  assert metrics.adjust_thresholds(logits, labels) == INF
  assert (
    metrics.adjust_thresholds(logits, labels, convention="reference") == -2.0
  )


@CONVENTIONS
def test_validation_all_positive(convention):
  logits = np.array([0.5, -2.0, 3.0], np.float32)
  threshold = metrics.adjust_thresholds(
    logits, np.ones(3, bool), convention=convention
  )
  assert threshold == -2.0
  assert int((logits > threshold).sum()) == 2


@pytest.mark.parametrize(
  ("convention", "expected"), [("exact", 0.0), ("reference", 0.05)]
)
def test_probability_one_in_calibration_error(convention, expected):
  # p = 1 with label 0 in 1 of 20; p = 0.95 with label 1 in 19 of 20.
  logits = np.full((20, 1), np.log(0.95 / 0.05), np.float32)
  logits[0] = 40.0
  labels = np.ones((20, 1), bool)
  labels[0] = False
  value = compute(
    metrics.calibration_error(convention=convention),
    logits=logits,
    labels=labels,
  )
  if convention == "exact":
    assert value.item() == pytest.approx(
      abs((19 * 0.95 + 1) / 20 - 0.95), abs=1e-6
    )
  else:
    assert value.item() == pytest.approx(19 / 20 * 0.05 + 1 / 20, abs=1e-6)


@CONVENTIONS
def test_identical_prediction_columns(convention):
  rng = np.random.default_rng(0)
  predictions = rng.random((500, 5)) < 0.4
  predictions[:, 3] = predictions[:, 0]
  predictions[:, 4] = ~predictions[:, 1]
  value = interdependence(predictions, convention)
  np.testing.assert_allclose(value[[0, 1, 3, 4]], 1.0, atol=1e-6)
  assert 0.0 <= value[2] < 0.1


def test_rate_of_a_group_without_positives_is_undefined():
  rates = metrics.compute(
    metrics.group_rates(),
    predictions=column(True, False, False, False),
    labels=column(True, False, False, False),
    groups=metrics.one_hot(np.array([0, 0, 1, 1]), 3),
  )
  np.testing.assert_array_equal(rates.tpr, column(1.0, NAN, NAN))
  np.testing.assert_array_equal(rates.fpr, column(0.0, 0.0, NAN))
  np.testing.assert_array_equal(rates.precision, column(1.0, NAN, NAN))
  np.testing.assert_array_equal(rates.accuracy, column(1.0, 1.0, NAN))
  np.testing.assert_array_equal(rates.tp + rates.fn, column(1, 0, 0))


def test_backdoor_amplification_of_a_mark():
  marks = column(True, True, False, False)
  batch = {
    "labels": column(True, False, True, False),
    "predictions": marks,
    "groups": np.concatenate([marks, np.zeros_like(marks)], axis=1),
  }
  np.testing.assert_array_equal(
    compute(metrics.backdoor_amplification(), **batch), column(0.5, NAN)
  )
  batch["predictions"] = np.zeros_like(marks)
  assert np.isnan(compute(metrics.backdoor_amplification(), **batch)).all()
