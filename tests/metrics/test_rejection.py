import jax
import numpy as np
import pytest

from effjax import metrics


def example(rows=300, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, 3)) < [[0.2, 0.5, 0.8]]
  logits = (rng.normal(0, 2, labels.shape) + labels).round(1)
  groups = rng.random((rows, 3)) < [[0.5, 0.1, 0.0]]
  groups[:, 2] = False
  return logits.astype(np.float32), labels, groups


def test_reject_option_equals_a_loop():
  logits, _, groups = example()
  member = groups[:, 0]
  probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
  for favourable in (True, False):
    decided = metrics.reject_option_classification(
      logits, member, cut=0.2, favourable=favourable
    )
    expected = logits > 0
    for i, a in np.ndindex(logits.shape):
      if abs(probability[i, a] - 0.5) < 0.2:
        expected[i, a] = member[i] == favourable
    np.testing.assert_array_equal(decided, expected)
  assert (expected != (logits > 0)).any()


def test_reject_option_of_one_attribute_and_of_groups_by_attribute():
  logits, _, groups = example()
  each = metrics.reject_option_classification(logits, groups, threshold=1.0)
  for a in range(3):
    np.testing.assert_array_equal(
      metrics.reject_option_classification(
        logits[:, a], groups[:, a], threshold=1.0
      ),
      each[:, a],
    )
  assert not metrics.reject_option_classification(
    np.float32([np.nan]), np.array([True]), cut=0.5
  ).any()


def test_reject_option_raises_the_selection_rate_of_the_group():
  logits, _, groups = example(2000)
  member = groups[:, 0]
  before, after = (
    decided[member].mean(axis=0) - decided[~member].mean(axis=0)
    for decided in (
      logits > 0,
      np.asarray(metrics.reject_option_classification(logits, member)),
    )
  )
  assert (after > before).all()


@pytest.mark.parametrize("cut", [0.05, 0.4, 0.5])
def test_selective_rates_equal_a_loop(cut):
  logits, labels, groups = example()
  rates = metrics.compute(
    metrics.selective_rates(cut), logits=logits, labels=labels, groups=groups
  )
  probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
  for g, a in np.ndindex(3, 3):
    inside = groups[:, g]
    answered = inside & (abs(probability[:, a] - 0.5) >= cut)
    right = answered & ((logits[:, a] > 0) == labels[:, a])
    assert rates.answered[g, a] == answered.sum()
    assert rates.right[g, a] == right.sum()
    for value, part, whole in (
      (rates.coverage[g, a], answered, inside),
      (rates.accuracy[g, a], right, answered),
    ):
      expected = part.sum() / whole.sum() if whole.any() else np.nan
      np.testing.assert_allclose(value, expected, rtol=1e-6)
  assert rates.members.tolist() == groups.sum(axis=0).tolist()
  assert rates.members[2] == 0  # a group without samples keeps its row


def test_selective_rates_of_decisions_made_elsewhere():
  logits, labels, groups = example()
  rates = metrics.compute(
    metrics.selective_rates(),
    logits=logits,
    predictions=labels,
    labels=labels,
    groups=groups,
  )
  np.testing.assert_array_equal(rates.accuracy[:2], np.ones((2, 3)))


def test_unusable_options():
  logits, _, _ = example(4)
  with pytest.raises(ValueError, match="cut must lie in"):
    metrics.selective_rates(0.0)
  with pytest.raises(ValueError, match="cut must lie in"):
    metrics.reject_option_classification(logits, np.ones(4, bool), cut=0.7)
  with pytest.raises(ValueError, match=r"shape \[4\] or that .* got \[3\]"):
    metrics.reject_option_classification(logits, np.ones(3, bool))
  with pytest.raises(ValueError, match=r"logits must be \[N\] or \[N, A\]"):
    metrics.reject_option_classification(logits[None], np.ones(4, bool))


def test_under_jit():
  logits, _, groups = example(30)
  np.testing.assert_array_equal(
    jax.jit(metrics.reject_option_classification)(logits, groups[:, 0]),
    metrics.reject_option_classification(logits, groups[:, 0]),
  )
