"""What rounded weights, narrow types and perfect training data leave alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics


def measure(metric, **batch):
  return np.asarray(metric.compute(metric.update(metric.empty, **batch)))


@pytest.mark.parametrize("seed", range(6))
def test_an_absent_value_stays_absent_with_floating_weights(seed):
  rng = np.random.default_rng(seed)
  weights = rng.random(500).astype(np.float32)
  true = np.ones((500, 3), bool)
  mixed = rng.random((500, 3)) < 0.5
  calibration = metrics.threshold_calibration_bias(np.ones((4, 3), bool))
  found = measure(calibration, predictions=mixed, labels=true, weights=weights)
  assert np.isnan(found).all()
  calibration = metrics.threshold_calibration_bias(
    np.ones((4, 3), bool), form="log"
  )
  found = measure(calibration, predictions=true, labels=mixed, weights=weights)
  assert (found == -np.inf).all()
  mixed[:, 0] = True
  batch = {"predictions": mixed, "weights": weights}
  assert np.isnan(measure(metrics.interdependence(), **batch)[0])
  found = measure(metrics.interdependence(convention="reference"), **batch)
  assert found[0] == 1.0
  found = measure(metrics.mutual_information(reduce="none"), **batch)
  assert np.isnan(found[0]).all()
  assert not np.isnan(found[1:, 1:]).any()


def test_what_always_went_together_in_training_may_differ():
  group = np.repeat([True, False], 50)[:, None]
  metric = metrics.bias_amplification(
    group, group, min_positives=0, details=True
  )
  rng = np.random.default_rng(0)
  labels, predictions = (rng.random((100, 1)) < 0.5 for _ in range(2))
  batch = {"predictions": predictions, "groups": group}
  found = metric.compute(metric.update(metric.empty, labels=labels, **batch))
  assert int(found.reason[0, 0]) == 0
  wanted = (predictions & group).sum() / predictions.sum()
  wanted -= (labels & group).sum() / labels.sum()
  np.testing.assert_allclose(found.value, wanted, rtol=1e-6)
  # The group itself is no attribute that it could amplify.
  found = metric.compute(metric.update(metric.empty, labels=group, **batch))
  assert int(found.reason[0, 0]) == 1


def test_narrow_ids_number_many_groups():
  found = metrics.one_hot(np.uint8([5, 255]), 300)
  assert np.argwhere(found).tolist() == [[0, 5], [1, 255]]


def test_a_threshold_is_not_rounded():
  labels = np.ones((1, 1), bool)
  for logits, threshold in (
    (np.array([[0]]), -0.5),
    (jnp.array([[1.0]], jnp.bfloat16), 0.999),
  ):
    metric = metrics.group_rates(threshold=threshold)
    found = metric.compute(
      metric.update(
        metric.empty,
        logits=jnp.asarray(logits, jnp.float32),
        labels=labels,
        groups=labels,
      )
    )
    same = metrics.decisions(logits, threshold)
    assert bool(same[0, 0])
    assert float(found.tpr[0, 0]) == 1.0
