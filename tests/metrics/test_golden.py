"""Values of published implementations; see tests/golden/bias/README.md."""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "bias"
TOLERANCES = {
  "predictions": 0.0,
  "thresholds": 0.0,
  "auc": 5e-6,
  "ece": 1e-5,
  "interdependence": 1e-5,
}


def load(name):
  return np.load(GOLDEN / f"{name}.npz", allow_pickle=False)


@functools.cache
def family(name):
  """Returns the metrics of a golden file, which are compiled once."""
  data = load(name)
  train = data["train_labels"]
  return metrics.collection(
    {
      "acc": metrics.accuracy(),
      "predpos": metrics.positive_rate(),
      "auc_binned": metrics.auc(details=True),
      "uncertainty": metrics.uncertainty(),
      "interdependence": metrics.interdependence(convention="reference"),
      "tcb": metrics.threshold_calibration_bias(train, convention="reference"),
      "ece": metrics.calibration_error(convention="reference"),
      "ba": metrics.bias_amplification(
        train, train[:, data["identity_ids"]], convention="reference"
      ),
    }
  )


@functools.cache
def joint(name, prefix):
  """Returns the golden arrays and ours under the same names."""
  data = load(name)
  logits = jnp.asarray(data["test_outputs"], jnp.float32)
  labels, train = data["test_labels"], data["train_labels"]
  identities = data["identity_ids"]
  threshold = jnp.zeros(labels.shape[1])
  if prefix == "adjusted_":
    threshold = metrics.adjust_thresholds(
      jnp.asarray(data["val_outputs"], jnp.float32),
      data["val_labels"],
      convention="reference",
    )
  predictions = metrics.decisions(logits, threshold)
  ours = metrics.compute(
    family(name),
    logits=logits,
    predictions=predictions,
    labels=labels,
    groups=labels[:, identities],
  )
  rates = metrics.compute(
    metrics.group_rates(),
    predictions=train,
    labels=train,
    groups=np.concatenate([train[:, identities], ~train[:, identities]], 1),
  )
  ours["pos_fracs"], ours["neg_fracs"] = np.split(rates.base_rate.T, 2, axis=1)
  ours["thresholds"] = threshold
  ours["predictions"] = predictions
  ours["auc"] = metrics.auc_exact(logits, labels)
  return data, ours


@pytest.mark.parametrize("name", ["joint_dense", "joint_ties"])
@pytest.mark.parametrize("prefix", ["default_", "adjusted_"])
@pytest.mark.parametrize(
  "array",
  [
    "pos_fracs",
    "neg_fracs",
    "thresholds",
    "predictions",
    "ba",
    "acc",
    "predpos",
    "auc",
    "uncertainty",
    "interdependence",
    "tcb",
    "ece",
  ],
)
def test_joint(name, prefix, array):
  data, ours = joint(name, prefix)
  np.testing.assert_allclose(
    np.asarray(ours[array], np.float64),
    data[prefix + array],
    rtol=0,
    atol=TOLERANCES.get(array, 1e-6),
  )


@pytest.mark.parametrize("name", ["joint_dense", "joint_ties"])
def test_every_expected_array_is_tested(name):
  data, ours = joint(name, "default_")
  expected = {n.split("_", 1)[1] for n in data if n.startswith("default_")}
  assert expected <= set(ours)


@pytest.mark.parametrize("name", ["joint_dense", "joint_ties"])
def test_binned_area_keeps_its_bound(name):
  data, ours = joint(name, "default_")
  area = ours["auc_binned"]
  error = np.abs(np.asarray(area.value, np.float64) - data["default_auc"])
  assert (error <= np.asarray(area.bound) + 1e-6).all()
  assert error.max() < 2e-5
  if name == "joint_ties":
    # Grid logits have bins of their own: ties are real, the value exact.
    assert error.max() < 5e-6


def test_thresholds_inside_metrics_equal_decisions():
  data, ours = joint("joint_ties", "adjusted_")
  batch = {
    "logits": jnp.asarray(data["test_outputs"], jnp.float32),
    "labels": data["test_labels"],
  }
  value = metrics.compute(metrics.accuracy(ours["thresholds"]), **batch)
  np.testing.assert_array_equal(value, ours["acc"])


@pytest.mark.parametrize("case", range(6))
def test_thresholds(case):
  data = load("thresholds")
  scores = jnp.asarray(data[f"c{case}_scores"], jnp.float32)
  threshold = metrics.adjust_thresholds(
    scores, data[f"c{case}_labels"], convention="reference"
  )
  assert float(threshold) == data[f"c{case}_threshold"]
  assert int((scores > threshold).sum()) == data[f"c{case}_n_pred_pos"]


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_calibration_error(norm, bins, convention):
  data = load("calibration")
  value = metrics.compute(
    metrics.calibration_error(bins, norm, convention=convention),
    logits=jnp.asarray(data["bin_logits"], jnp.float32)[:, None],
    labels=data["bin_labels"].astype(bool)[:, None],
  )
  np.testing.assert_allclose(value, [data[f"bin_{norm}_{bins}"]], atol=1e-5)


def test_group_rates():
  data = load("calibration")
  rates = metrics.compute(
    metrics.group_rates(),
    logits=jnp.asarray(data["bin_logits"], jnp.float32)[:, None],
    labels=data["bin_labels"].astype(bool)[:, None],
    groups=metrics.one_hot(data["bin_group"].astype(np.int32), 3),
  )
  counts = np.concatenate([rates.tp, rates.fp, rates.tn, rates.fn], axis=1)
  np.testing.assert_allclose(
    counts / counts.sum(axis=1, keepdims=True),
    data["bin_group_stat_rates"],
    atol=1e-6,
  )
