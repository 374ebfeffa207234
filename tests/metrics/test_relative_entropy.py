import jax
import numpy as np
import pytest
import scipy.special

from effjax import metrics


def bernoulli(dense, pruned):
  """KL in float64, from log-sigmoids; the logits keep off its cancellation."""
  dense, pruned = np.float64(dense), np.float64(pruned)
  total = 0.0
  for sign in (1, -1):
    p = scipy.special.expit(sign * dense)
    logs = [-np.logaddexp(0.0, -sign * logit) for logit in (dense, pruned)]
    total = total + p * (logs[0] - logs[1])
  return total


@jax.jit
def divergence(dense, pruned):
  """Returns the divergence of single outputs [A]."""
  return metrics.compute(
    metrics.divergence(),
    logits=pruned[None],
    reference_logits=dense[None],
    groups=np.ones((1, 1), bool),
  ).overall


def test_single_outputs_equal_float64():
  rng = np.random.default_rng(0)
  dense = rng.uniform(-25, 25, 4000).astype(np.float32)
  step = rng.choice([-1, 1], 4000) * 10 ** rng.uniform(-2.5, 1.3, 4000)
  pruned = (dense + step).astype(np.float32)
  expected = bernoulli(dense, pruned)
  kept = expected > 1e-12  # where float64 itself has digits
  assert kept.mean() > 0.8
  value = np.asarray(divergence(dense, pruned), np.float64)
  np.testing.assert_allclose(value[kept], expected[kept], rtol=3e-4)
  assert (value >= 0).all()


def test_close_logits_keep_their_digits():
  dense = np.linspace(-4, 4, 41, dtype=np.float32)
  for step in (1e-3, 0.02, 0.09, 0.11):
    pruned = (dense + np.float32(step)).astype(np.float32)
    value = divergence(dense, pruned)
    np.testing.assert_allclose(value, bernoulli(dense, pruned), rtol=2e-4)
  np.testing.assert_array_equal(divergence(dense, dense), 0.0)


def test_sure_outputs():
  inf = np.inf
  dense = np.array([inf, inf, -inf, inf, 0.0, 200.0, -200.0, 0.0], np.float32)
  pruned = np.array([inf, 0.0, 0.0, -inf, inf, -200.0, -199.0, 1e4], np.float32)
  expected = [0.0, np.log(2), np.log(2), inf, inf, 200.0, 0.0, 5000 - np.log(2)]
  np.testing.assert_allclose(divergence(dense, pruned), expected, rtol=1e-6)


def test_swapped_labels_change_nothing():
  rng = np.random.default_rng(1)
  dense, pruned = rng.normal(0, 5, (2, 4000)).astype(np.float32)
  np.testing.assert_allclose(
    divergence(dense, pruned), divergence(-dense, -pruned), rtol=1e-5
  )


def batch(rows=200, attributes=3, seed=0):
  rng = np.random.default_rng(seed)
  groups = rng.random((rows, 3)) < 0.4
  groups[:, 2] = False
  return {
    "logits": rng.normal(0, 3, (rows, attributes)).astype(np.float32),
    "reference_logits": rng.normal(0, 3, (rows, attributes)).astype(np.float32),
    "groups": groups,
    "weights": rng.integers(0, 3, rows).astype(np.int32),
  }


def brute(each, data):
  """Weighted means of [N, A] by group and over all."""
  w = data["weights"][:, None].astype(np.float64)
  with np.errstate(invalid="ignore"):
    by_group = [
      (each * w * g[:, None]).sum(axis=0) / (w[:, 0] * g).sum()
      for g in data["groups"].T
    ]
  return np.stack(by_group), (each * w).sum(axis=0) / w.sum()


def test_means_by_group():
  data = batch()
  value = metrics.compute(metrics.divergence(), **data)
  each = bernoulli(data["reference_logits"], data["logits"])
  by_group, overall = brute(each, data)
  np.testing.assert_allclose(value.by_group, by_group, rtol=1e-5)
  np.testing.assert_allclose(value.overall, overall, rtol=1e-5)
  support = data["weights"] @ data["groups"]
  np.testing.assert_array_equal(value.support, np.stack([support] * 3, axis=1))
  assert np.isnan(value.by_group[2]).all()


def test_an_infinite_divergence_stays_in_its_groups():
  data = batch()
  data["weights"][:2] = 1
  data["groups"][:2] = [[True, False, False], [False, True, False]]
  data["reference_logits"][0, 1], data["logits"][0, 1] = np.inf, -np.inf
  value = metrics.compute(metrics.divergence(), **data)
  assert np.isposinf(value.by_group[0, 1])
  assert np.isposinf(value.overall[1])
  assert np.isfinite(value.by_group[1]).all()
  assert np.isfinite(value.by_group[0, [0, 2]]).all()


def test_classes_equal_float64():
  data = batch(attributes=6)
  logs = [
    scipy.special.log_softmax(data[n].astype(np.float64), axis=1)
    for n in ("reference_logits", "logits")
  ]
  each = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1, keepdims=True)
  by_group, overall = brute(each, data)
  value = metrics.class_divergence(**data)
  np.testing.assert_allclose(value.by_group, by_group[:, 0], rtol=1e-5)
  np.testing.assert_allclose(value.overall, overall[0], rtol=1e-5)
  np.testing.assert_array_equal(value.support, data["weights"] @ data["groups"])


def test_two_classes_are_one_binary_output():
  data = batch(attributes=1)
  binary = metrics.compute(metrics.divergence(), **data)
  for name in ("logits", "reference_logits"):
    data[name] = np.concatenate([data[name], np.zeros_like(data[name])], 1)
  classes = metrics.class_divergence(**data)
  np.testing.assert_allclose(classes.by_group, binary.by_group[:, 0], rtol=1e-5)


def test_excluded_classes_and_nan_logits():
  inf = np.inf
  dense = np.array([[0.0, 0.0, -inf], [1.0, 2.0, -inf]], np.float32)
  ones = np.ones((2, 1), bool)
  same = metrics.class_divergence(dense, dense, ones)
  assert same.overall == 0.0
  pruned = dense.copy()
  pruned[0, 1] = -inf
  assert np.isposinf(metrics.class_divergence(pruned, dense, ones).overall)
  pruned[0, 1] = np.nan
  spoilt = metrics.class_divergence(pruned, dense, ones)
  assert np.isnan(spoilt.overall)
  assert np.isnan(spoilt.by_group).all()
  weights = np.array([0, 1], np.int32)
  kept = metrics.class_divergence(pruned, dense, ones, weights=weights)
  assert kept.overall == 0.0


def test_shapes_are_checked():
  data = batch()
  data["reference_logits"] = data["reference_logits"][:, :2]
  with pytest.raises(ValueError, match="number of attributes"):
    metrics.class_divergence(**data)
