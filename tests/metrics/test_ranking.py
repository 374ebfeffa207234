import fractions

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from effjax import metrics


def data(rows, decimals, attributes=5, scale=3.0, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, attributes)) < rng.uniform(0.05, 0.95, attributes)
  logits = scale * rng.normal(size=labels.shape) + scale * labels
  return logits.round(decimals).astype(np.float32), labels


def peer(logits, labels):
  pairs = zip(logits.T.astype(np.float64), labels.T, strict=True)
  return np.array([roc_auc_score(y, z) for z, y in pairs])


@pytest.mark.parametrize("rows", [50, 3000, 40_000])
@pytest.mark.parametrize("decimals", [6, 1, 0])
def test_exact_area_equals_scikit_learn(rows, decimals):
  logits, labels = data(rows, decimals)
  np.testing.assert_allclose(
    metrics.auc_exact(logits, labels), peer(logits, labels), rtol=0, atol=1e-6
  )


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("bins", [256, 4096])
def test_binned_area_keeps_its_bound(scale, bins):
  logits, labels = data(2000, 6, scale=scale)
  area = metrics.compute(
    metrics.auc(bins, details=True), logits=logits, labels=labels
  )
  error = np.abs(np.asarray(area.value) - peer(logits, labels))
  assert (error <= np.asarray(area.bound) + 1e-6).all()
  np.testing.assert_array_equal(area.positives, labels.sum(axis=0))


def test_bound_is_half_the_share_of_pairs_in_one_bin():
  logits = np.array([[1.0], [1.5], [-2.0], [40.0]], np.float32)
  labels = np.array([[True], [False], [False], [True]])
  area = metrics.compute(
    metrics.auc(16, details=True), logits=logits, labels=labels
  )
  # One of the four pairs, (1.0, 1.5), shares the octave 2 <= abs(z) + 1 < 4.
  assert area.bound.item() == 1 / 8
  assert area.value.item() == 7 / 8


def test_binned_area_of_many_samples_is_close():
  logits, labels = data(200_000, 6, attributes=2)
  value = metrics.compute(metrics.auc(), logits=logits, labels=labels)
  np.testing.assert_allclose(value, peer(logits, labels), rtol=0, atol=5e-6)


def test_grid_logits_are_exact():
  logits, labels = data(3000, 1, scale=2.0)
  logits = (logits * 16).round() / 16
  area = metrics.compute(
    metrics.auc(details=True), logits=logits, labels=labels
  )
  small = np.abs(logits).max() < 15
  assert small
  np.testing.assert_allclose(area.value, peer(logits, labels), atol=1e-6)


def test_orders_infinities_and_zeros():
  scores = np.array([-np.inf, -0.0, 0.0, np.inf], np.float32)
  labels = np.array([False, False, True, True])
  assert metrics.auc_exact(scores, labels) == 1 - 0.5 / 4
  value = metrics.compute(
    metrics.auc(), logits=scores[:, None], labels=labels[:, None]
  )
  assert value.item() == 1 - 0.5 / 4


def test_exact_area_is_a_ratio_of_counts():
  scores = np.array([3, 1, 2, 2, 5, 2], np.float32)
  labels = np.array([1, 0, 1, 0, 0, 0], bool)
  wins = sum(
    fractions.Fraction(1 + (p > n) - (p < n), 2)
    for p in scores[labels].tolist()
    for n in scores[~labels].tolist()
  )
  assert float(metrics.auc_exact(scores, labels)) == float(wins / 8)


def test_nan_scores_are_undefined():
  scores = np.array([1.0, np.nan, 0.0], np.float32)
  assert np.isnan(metrics.auc_exact(scores, np.array([True, False, False])))


def test_exact_area_under_jit_and_vmap():
  logits, labels = data(100, 1)
  eager = metrics.auc_exact(logits, labels)
  np.testing.assert_allclose(
    jax.jit(metrics.auc_exact)(logits, labels), eager, rtol=1e-6
  )
  both = jax.vmap(metrics.auc_exact)(
    np.stack([logits, -logits]), np.stack([labels, labels])
  )
  np.testing.assert_allclose(both[0], eager, rtol=1e-6)
  np.testing.assert_allclose(both[1], 1 - eager, rtol=1e-5)


@pytest.mark.parametrize("bins", [0, 8, 100, 48, 2**21, 64.0, None, "64"])
def test_unusable_bins(bins):
  with pytest.raises(ValueError, match="bins must be"):
    metrics.auc(bins)


def test_shapes_that_differ():
  with pytest.raises(ValueError, match=r"\[3\] and \[4\]"):
    metrics.auc_exact(np.zeros(3, np.float32), np.zeros(4, bool))


GROUP_AUC = metrics.group_auc(256, details=True)
KINDS = ("subgroup", "bpsn", "bnsp")


def subsets(labels, groups):
  """The rows that each kind of area compares, for group and attribute."""
  inside, y = groups[:, :, None], labels[:, None, :]
  return {
    "subgroup": (inside & y, inside & ~y),
    "bpsn": (~inside & y, inside & ~y),
    "bnsp": (inside & y, ~inside & ~y),
  }


def pairs(scores, positives, negatives):
  """The area by scikit-learn on two sets of rows; NaN if one is empty."""
  if not positives.any() or not negatives.any():
    return np.nan
  rows = positives | negatives
  return roc_auc_score(positives[rows], scores[rows].astype(np.float64))


def group_peer(logits, labels, groups):
  return {
    kind: np.array(
      [
        [
          pairs(logits[:, a], p[:, g, a], n[:, g, a])
          for a in range(logits.shape[1])
        ]
        for g in range(groups.shape[1])
      ]
    )
    for kind, (p, n) in subsets(labels, groups).items()
  }


def with_groups(rows, decimals, seed=0, scale=3.0):
  logits, labels = data(rows, decimals, 3, scale, seed)
  rng = np.random.default_rng(seed + 1)
  # Overlapping, rare, empty and complete.
  groups = rng.random((rows, 4)) < [0.4, 0.05, 0.0, 1.0]
  return logits, labels, groups


@pytest.mark.parametrize("decimals", [6, 0])
def test_exact_areas_of_groups_equal_scikit_learn(decimals):
  logits, labels, groups = with_groups(400, decimals)
  found = metrics.group_auc_exact(logits, labels, groups)
  expected = group_peer(logits, labels, groups)
  for kind, sets in subsets(labels, groups).items():
    area = getattr(found, kind)
    np.testing.assert_allclose(area.value, expected[kind], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(area.positives, sets[0].sum(axis=0))
    np.testing.assert_array_equal(area.negatives, sets[1].sum(axis=0))
  assert np.isnan(found.bpsn.value[2]).all()  # no subgroup
  assert np.isnan(found.bnsp.value[3]).all()  # no background
  one = metrics.group_auc_exact(logits[:, 0], labels[:, 0], groups)
  np.testing.assert_array_equal(one.bpsn.value, found.bpsn.value[:, 0])


def test_exact_areas_of_groups_under_jit():
  logits, labels, groups = with_groups(60, 1)
  eager = metrics.group_auc_exact(logits, labels, groups)
  compiled = jax.jit(metrics.group_auc_exact)(logits, labels, groups)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), compiled, eager
  )


few = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


@few
@hypothesis.given(
  seed=st.integers(0, 2**31),
  decimals=st.integers(0, 6),
  scale=st.sampled_from([0.01, 0.3, 3.0, 40.0, 1e4]),
)
def test_binned_areas_keep_their_bound(seed, decimals, scale):
  logits, labels, groups = with_groups(64, decimals, seed, scale)
  batch = {"logits": logits, "labels": labels, "groups": groups}
  found = metrics.compute(GROUP_AUC, **batch)
  exact = metrics.group_auc_exact(logits, labels, groups)
  for kind in KINDS:
    area, expected = getattr(found, kind), getattr(exact, kind)
    np.testing.assert_array_equal(area.positives, expected.positives)
    np.testing.assert_array_equal(area.negatives, expected.negatives)
    undefined = np.isnan(expected.value)
    np.testing.assert_array_equal(np.isnan(area.value), undefined)
    error = np.abs(area.value - expected.value)[~undefined]
    assert (error <= area.bound[~undefined] + 1e-6).all()


def test_a_bound_of_zero_means_exact():
  # Bins of width 1/16 near 0: these logits share a bin only if equal.
  logits = np.array([[0.0], [0.125], [0.125], [0.25], [-0.125]], np.float32)
  labels = np.array([[False], [True], [True], [False], [False]])
  area = metrics.compute(
    metrics.auc(256, details=True), logits=logits, labels=labels
  )
  assert area.bound.item() == 0
  assert area.value.item() == metrics.auc_exact(logits, labels).item()


def test_values_without_details():
  logits, labels, groups = with_groups(64, 2)
  batch = {"logits": logits, "labels": labels, "groups": groups}
  detailed = metrics.compute(GROUP_AUC, **batch)
  found = metrics.compute(metrics.group_auc(256), **batch)
  for kind in KINDS:
    np.testing.assert_array_equal(
      getattr(found, kind), getattr(detailed, kind).value
    )


@few
@hypothesis.given(
  scores=st.lists(
    st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 1e-30, 1.0, 3.5, np.inf]),
    min_size=12,
    max_size=12,
  ),
  labels=st.integers(0, 2**12 - 1),
)
def test_sorting_by_numpy_and_by_xla_agree(scores, labels):
  scores = np.array(scores, np.float32)
  labels = (labels >> np.arange(12)) % 2 == 1
  host = metrics.auc_exact(scores, labels)
  assert host.dtype == np.float32
  compiled = jax.jit(metrics.auc_exact)(scores, labels)
  np.testing.assert_allclose(host, compiled, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.int32, jax.numpy.bfloat16])
def test_exact_area_of_other_types(dtype):
  scores = np.array([3, 1, 2, 2, 5, 2]).astype(dtype)
  labels = np.array([1, 0, 1, 0, 0, 0], bool)
  assert float(metrics.auc_exact(scores, labels)) == 0.625
  assert float(metrics.auc_exact(jax.numpy.asarray(scores), labels)) == 0.625


def test_no_scores():
  nothing = np.zeros((0, 2), np.float32)
  assert np.isnan(metrics.auc_exact(nothing, nothing > 0)).all()


def test_groups_of_another_length():
  with pytest.raises(ValueError, match=r"\[3, G\]"):
    metrics.group_auc_exact(
      np.zeros(3, np.float32), np.zeros(3, bool), np.zeros((2, 1), bool)
    )
  with pytest.raises(ValueError, match="16 times"):
    metrics.group_auc(100)
