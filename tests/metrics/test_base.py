import jax
import numpy as np
import pytest

from effjax import metrics

LOGITS = np.array([[1.0, -1.0], [2.0, 3.0], [-1.0, 0.5]], np.float32)
LABELS = np.array([[True, False], [True, True], [True, False]])
GROUPS = np.array([[True], [False], [True]])
FAMILY = metrics.collection(
  {
    "accuracy": metrics.accuracy(),
    "rates": metrics.group_rates(),
    "error": metrics.calibration_error(),
  }
)


def test_values_of_shares():
  family = metrics.collection(
    {
      "accuracy": metrics.accuracy([0.0, 0.75]),
      "positive_rate": metrics.positive_rate(),
      "uncertainty": metrics.uncertainty(0.2),
    }
  )
  value = metrics.compute(family, logits=LOGITS, labels=LABELS)
  np.testing.assert_allclose(value["accuracy"], [2 / 3, 1.0])
  np.testing.assert_allclose(value["positive_rate"], [2 / 3, 2 / 3])
  # abs(p - 1/2) < 0.2 is abs(z) < 0.8473.
  np.testing.assert_allclose(value["uncertainty"], [0.0, 1 / 3])


def test_predictions_go_before_logits():
  value = metrics.compute(
    metrics.accuracy(), logits=LOGITS, predictions=LABELS, labels=LABELS
  )
  np.testing.assert_array_equal(value, [1.0, 1.0])


def test_numbers_above_zero_are_positive():
  signs = np.where(LABELS, 1, -1)
  value = metrics.compute(metrics.accuracy(), logits=LOGITS, labels=signs)
  np.testing.assert_allclose(value, [2 / 3, 2 / 3])


def test_boolean_weights_select_rows():
  value = metrics.compute(
    metrics.accuracy(),
    logits=LOGITS,
    labels=LABELS,
    weights=np.array([True, True, False]),
  )
  np.testing.assert_array_equal(value, [1.0, 1.0])


def test_floating_weights_weigh():
  metric = metrics.accuracy()
  weights = np.array([0.5, 0.25, 0.25], np.float32)
  state = metric.update(
    metric.empty, logits=LOGITS, labels=LABELS, weights=weights
  )
  np.testing.assert_array_equal(metric.compute(state), [0.75, 0.75])
  # Whole and floating weights may meet in one state.
  state = metric.update(state, logits=LOGITS, labels=LABELS)
  np.testing.assert_allclose(metric.compute(state), [2.75 / 4, 2.75 / 4])


def test_evaluate_compiles_its_update_once():
  traces = []
  accuracy = metrics.accuracy()

  def update(state, **batch):
    traces.append(batch)
    return accuracy.update(state, **batch)

  metric = accuracy._replace(update=update)
  batch = {"logits": LOGITS, "labels": LABELS}
  metrics.evaluate(metric, [batch] * 4)
  assert len(traces) == 2  # the shapes of the state, and the compilation


def test_one_hot_keeps_empty_groups():
  np.testing.assert_array_equal(
    metrics.one_hot(np.array([2, 0]), 4),
    [[False, False, True, False], [True, False, False, False]],
  )


def test_traced_ids_outside_belong_nowhere():
  assert not jax.jit(lambda ids: metrics.one_hot(ids, 2))(
    np.array([2, -1])
  ).any()


@pytest.mark.parametrize("ids", [[0, 3], [-1, 0], [0, 2**40]])
def test_ids_outside_are_named(ids):
  with pytest.raises(ValueError, match=r"groups=3 allows 0 to 2"):
    metrics.one_hot(np.array(ids), 3)


@pytest.mark.parametrize("ids", [np.zeros((2, 2), int), np.zeros(3)])
def test_ids_of_another_kind(ids):
  with pytest.raises(ValueError, match="vector of integers"):
    metrics.one_hot(ids, 3)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"labels": None}, r"no 'labels'.*|no labels"),
    ({"groups": None}, "no groups; this metric reads logits, labels, groups"),
    ({"labels": LABELS[:2]}, r"number of rows: .*labels \[2, 2\]"),
    ({"labels": LABELS[:, :1]}, r"number of attributes: .*labels \[3, 1\]"),
    ({"labels": LABELS[:, 0]}, r"labels must have shape \[N, A\]"),
    ({"groups": GROUPS[:, 0]}, r"groups must have shape \[N, G\]"),
    ({"weights": GROUPS}, r"weights must have shape \[N\]"),
    ({"weights": np.ones(4)}, r"weights \[4\]"),
  ],
)
def test_batches_that_do_not_fit(change, message):
  batch = {"logits": LOGITS, "labels": LABELS, "groups": GROUPS}
  with pytest.raises(ValueError, match=message):
    metrics.compute(FAMILY, **(batch | change))


def test_threshold_of_another_width():
  with pytest.raises(ValueError, match=r"threshold has shape \[3\]"):
    metrics.compute(metrics.accuracy([0, 0, 0]), logits=LOGITS, labels=LABELS)


@pytest.mark.parametrize("cut", [0.0, -1.0, 0.6, None, "0.4"])
def test_unusable_cut(cut):
  with pytest.raises(ValueError, match="cut must lie in"):
    metrics.uncertainty(cut)


def test_a_full_cut_holds_every_output():
  value = metrics.compute(metrics.uncertainty(0.5), logits=LOGITS)
  np.testing.assert_array_equal(value, [1.0, 1.0])


@pytest.mark.parametrize(
  "make",
  [
    metrics.calibration_error,
    metrics.interdependence,
    lambda convention: metrics.threshold_calibration_bias(
      LABELS, convention=convention
    ),
    lambda convention: metrics.bias_amplification(
      LABELS, GROUPS, convention=convention
    ),
    lambda convention: metrics.adjust_thresholds(
      LOGITS, LABELS, convention=convention
    ),
  ],
)
def test_unknown_convention(make):
  with pytest.raises(ValueError, match='"exact" or "reference", got \'strict'):
    make(convention="strict")


def test_training_arrays_that_do_not_fit():
  with pytest.raises(ValueError, match=r"\[3, 2\] and \[2, 1\]"):
    metrics.bias_amplification(LABELS, GROUPS[:2])
  with pytest.raises(ValueError, match=r"train_labels must have shape"):
    metrics.threshold_calibration_bias(LABELS[:, 0])
  batch = {"logits": LOGITS[:, :1], "labels": LABELS[:, :1], "groups": GROUPS}
  with pytest.raises(ValueError, match="number of attributes"):
    metrics.compute(metrics.threshold_calibration_bias(LABELS), **batch)
  with pytest.raises(ValueError, match="1 and 1 columns, but in training 1 a"):
    metrics.compute(metrics.bias_amplification(LABELS, GROUPS), **batch)


@pytest.mark.parametrize(
  ("options", "message"),
  [({"bins": 0}, "bins must be"), ({"norm": "l3"}, "norm must be one of l1")],
)
def test_unusable_calibration_error(options, message):
  with pytest.raises(ValueError, match=message):
    metrics.calibration_error(**options)


def test_thresholds_that_do_not_fit():
  with pytest.raises(ValueError, match=r"\[3, 2\] and \[3\]"):
    metrics.adjust_thresholds(LOGITS, LABELS[:, 0])
  with pytest.raises(ValueError, match="without any sample"):
    metrics.adjust_thresholds(LOGITS[:0], LABELS[:0])


def test_thresholds_of_nan_logits_are_undefined():
  logits = LOGITS.copy()
  logits[1, 0] = np.nan
  threshold = metrics.adjust_thresholds(logits, LABELS)
  assert np.isnan(threshold[0])
  assert threshold[1] == 3.0
