"""Flips and errors of one model beside another, against plain loops."""

import jax
import numpy as np
import pytest

from effjax import metrics

FAMILY = metrics.collection(
  {
    "flips": metrics.flips(),
    "errors": metrics.error_change(),
    "excess": metrics.excess_error(),
  }
)


def batch(rows=300, attributes=3, groups=4, seed=0):
  """Two models that are right in 4 of 5 samples; the last group is empty."""
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, attributes)) < 0.4
  member = rng.random((rows, groups)) < 0.3
  member[:, -1] = False
  return {
    "predictions": labels ^ (rng.random(labels.shape) < 0.2),
    "reference_predictions": labels ^ (rng.random(labels.shape) < 0.2),
    "labels": labels,
    "groups": member,
  }


def brute(data, member, a, weights):
  """Counts, one sample at a time, what happens in one group to attribute a."""
  names = ("lost", "gained", "broken", "mended", "wrong", "reference_wrong")
  counts = dict.fromkeys((*names, "reference_positives", "support"), 0)
  for i in np.flatnonzero(member):
    now, before = data["predictions"][i, a], data["reference_predictions"][i, a]
    label, w = data["labels"][i, a], weights[i]
    counts["support"] += w
    counts["lost"] += w * (before and not now)
    counts["gained"] += w * (now and not before)
    counts["broken"] += w * (before == label and now != label)
    counts["mended"] += w * (before != label and now == label)
    counts["wrong"] += w * (now != label)
    counts["reference_wrong"] += w * (before != label)
    counts["reference_positives"] += w * before
  return counts


SHARES = {
  "positive_to_negative": "lost",
  "negative_to_positive": "gained",
  "right_to_wrong": "broken",
  "wrong_to_right": "mended",
}


def check(value, data, weights):
  flips, errors = value["flips"], value["errors"]
  rows, groups = data["groups"].shape

  def compare(rates, index, counts):
    n = counts["support"]
    for name, key in SHARES.items():
      expected = counts[key] / n if n else np.nan
      np.testing.assert_allclose(
        getattr(rates, name)[index], expected, atol=1e-6
      )
      np.testing.assert_allclose(getattr(rates, key)[index], counts[key])
    rate = (counts["lost"] + counts["gained"]) / n if n else np.nan
    np.testing.assert_allclose(rates.rate[index], rate, atol=1e-6)
    right = n - counts["reference_wrong"]
    np.testing.assert_allclose(rates.reference_right[index], right)
    np.testing.assert_allclose(rates.support[index], n)
    np.testing.assert_allclose(
      rates.reference_positives[index], counts["reference_positives"]
    )

  for a in range(data["labels"].shape[1]):
    whole = brute(data, np.ones(rows, bool), a, weights)
    compare(flips.overall, a, whole)
    overall = (whole["wrong"] - whole["reference_wrong"]) / whole["support"]
    np.testing.assert_allclose(errors.overall_change[a], overall, atol=1e-6)
    ratio = whole["wrong"] / whole["reference_wrong"]
    np.testing.assert_allclose(errors.overall_ratio[a], ratio, rtol=1e-6)
    for g in range(groups):
      part = brute(data, data["groups"][:, g], a, weights)
      compare(flips.by_group, (g, a), part)
      n, more = part["support"], part["wrong"] - part["reference_wrong"]
      change = more / n if n else np.nan
      ratio = part["wrong"] / part["reference_wrong"] if n else np.nan
      for name, expected in (
        ("change", change),
        ("excess", change - overall),
        ("ratio", ratio),
        ("wrong", part["wrong"]),
        ("reference_wrong", part["reference_wrong"]),
        ("support", n),
      ):
        np.testing.assert_allclose(
          getattr(errors, name)[g, a], expected, rtol=1e-6, atol=1e-6
        )
  np.testing.assert_array_equal(value["excess"], errors.excess)


@pytest.mark.parametrize("kind", [None, np.bool_, np.int32, np.float32])
def test_equals_plain_loops(kind):
  data = batch()
  weights = np.ones(300)
  if kind is not None:
    weights = np.random.default_rng(1).integers(0, 3, 300).astype(kind)
    if kind == np.float32:
      weights = weights / np.float32(4)
    data["weights"] = weights
  check(metrics.compute(FAMILY, **data), data, weights.astype(np.float64))


def test_counting_by_bits_equals_counting_by_products():
  data, metric = batch(rows=5000, seed=2), metrics.flips()
  ones = {**data, "weights": np.ones(5000, np.int32)}
  counts = (
    jax.jit(lambda data: metric.update(metric.empty, **data))(data)
    for data in (data, ones)
  )
  for x, y in zip(*counts, strict=True):
    np.testing.assert_array_equal(x, y)


def test_the_splits_add_up_and_swapping_the_models_mirrors_them():
  data = batch(seed=3)
  back = {
    **data,
    "predictions": data["reference_predictions"],
    "reference_predictions": data["predictions"],
  }
  there, back = (
    metrics.compute(FAMILY, **x)["flips"].by_group for x in (data, back)
  )
  for value in (there, back):
    for pair in (
      (value.positive_to_negative, value.negative_to_positive),
      (value.right_to_wrong, value.wrong_to_right),
    ):
      np.testing.assert_allclose(sum(pair), value.rate, atol=1e-6)
    assert (value.lost <= value.reference_positives).all()
    assert (value.broken <= value.reference_right).all()
  np.testing.assert_array_equal(there.rate, back.rate)
  np.testing.assert_array_equal(there.lost, back.gained)
  np.testing.assert_array_equal(there.broken, back.mended)


def test_a_model_beside_itself_changes_nothing():
  data = batch(seed=4)
  data["predictions"] = data["reference_predictions"]
  value = metrics.compute(FAMILY, **data)
  occupied = np.s_[:-1]
  np.testing.assert_array_equal(value["flips"].by_group.rate[occupied], 0.0)
  np.testing.assert_array_equal(value["excess"][occupied], 0.0)
  np.testing.assert_array_equal(value["errors"].ratio[occupied], 1.0)
  assert np.isnan(value["excess"][-1]).all()


def test_ratio_to_a_reference_without_errors_is_undefined():
  data = batch(seed=5)
  data["reference_predictions"] = data["labels"]
  errors = metrics.compute(FAMILY, **data)["errors"]
  assert np.isnan(errors.ratio).all()
  assert np.isnan(errors.overall_ratio).all()
  np.testing.assert_array_equal(errors.reference_wrong, 0)
  assert (errors.change[:-1] > 0).all()


def test_each_model_has_its_threshold():
  logits = np.array([[0.5], [1.5], [2.5]], np.float32)
  data = {
    "logits": logits,
    "reference_logits": logits,
    "labels": logits > 0,
    "groups": np.ones((3, 1), bool),
  }
  one = metrics.compute(metrics.flips(threshold=1.0), **data)
  assert one.overall.rate.item() == 0.0
  two = metrics.compute(
    metrics.flips(threshold=2.0, reference_threshold=[1.0]), **data
  )
  assert two.overall.lost.item() == 1
  assert two.overall.gained.item() == 0


@pytest.mark.parametrize("spoilt", ["logits", "reference_logits"])
def test_a_nan_in_either_model_spoils_its_attribute(spoilt):
  rng = np.random.default_rng(6)
  data = {
    "logits": rng.normal(size=(20, 3)).astype(np.float32),
    "reference_logits": rng.normal(size=(20, 3)).astype(np.float32),
    "labels": rng.random((20, 3)) < 0.5,
    "groups": np.ones((20, 2), bool),
  }
  data[spoilt][4, 1] = np.nan
  value = metrics.compute(FAMILY, **data)
  for x in jax.tree.leaves(value):
    if x.dtype == np.float32:
      assert np.isnan(x[..., 1]).all()
      assert not np.isnan(x[..., [0, 2]]).any()


def test_a_batch_without_the_reference_is_refused():
  data = batch()
  del data["reference_predictions"]
  with pytest.raises(ValueError, match="no reference_logits"):
    metrics.compute(metrics.flips(), **data)
  data["reference_predictions"] = data["predictions"][:, :2]
  with pytest.raises(ValueError, match="number of attributes"):
    metrics.compute(metrics.flips(), **data)
