import functools

import jax
import numpy as np
import pytest
from sklearn.metrics import (
  accuracy_score,
  average_precision_score,
  f1_score,
  precision_recall_curve,
  precision_score,
  recall_score,
  roc_auc_score,
)

from effjax import metrics

NAN = np.nan


def data(rows, decimals, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, 4)) < rng.uniform(0.1, 0.9, 4)
  logits = 2 * rng.normal(size=(rows, 4)) + labels
  return logits.round(decimals).astype(np.float32), labels


def nearest(scores, labels, recalls):
  """The rule on scikit-learn's curve, by a loop over its points."""
  if labels.all() or not labels.any():
    return [NAN] * len(recalls)
  precision, recall, _ = precision_recall_curve(labels, scores)
  values = []
  for wanted in recalls:
    best = min(range(len(recall)), key=lambda i: abs(recall[i] - wanted))
    near = abs(recall[best] - wanted) < 0.05
    values.append(precision[best] if near else NAN)
  return values


@pytest.mark.parametrize("rows", [3, 20, 400])
@pytest.mark.parametrize("decimals", [6, 1, 0])
def test_average_precision_equals_scikit_learn(rows, decimals):
  for seed in range(5):
    scores, labels = data(rows, decimals, seed)
    value = metrics.average_precision(scores, labels)
    for a in range(4):
      if labels[:, a].any():
        expected = average_precision_score(labels[:, a], scores[:, a])
        assert float(value[a]) == pytest.approx(expected, abs=1e-6)
      else:
        assert np.isnan(value[a])


def test_average_precision_of_degenerate_data():
  scores = np.array([1.0, 1.0, 0.0], np.float32)
  average = metrics.average_precision
  assert average(scores, np.ones(3, bool)) == 1.0
  assert np.isnan(average(scores, np.zeros(3, bool)))
  assert np.isnan(average(scores[:0], np.zeros(0, bool)))
  spoilt = np.array([NAN, 1.0, 0.0], np.float32)
  assert np.isnan(average(spoilt, np.ones(3, bool)))


@pytest.mark.parametrize("rows", [5, 24, 400])
@pytest.mark.parametrize("decimals", [6, 1, 0])
def test_precision_at_recall_equals_the_rule(rows, decimals):
  recalls = (0.0, 0.5, 0.75, 0.9, 0.95, 1.0)
  for seed in range(5):
    scores, labels = data(rows, decimals, seed)
    value = metrics.precision_at_recall(scores, labels, recalls)
    expected = [nearest(scores[:, a], labels[:, a], recalls) for a in range(4)]
    np.testing.assert_allclose(value.T, expected, rtol=0, atol=1e-6)


def test_of_equally_near_points_the_larger_recall_counts():
  # Recalls 1/4, 2/4, 3/4, 1 with precisions 1, 2/3, 3/4, 4/5.
  labels = np.array([1, 0, 1, 1, 1], bool)
  scores = np.arange(5, 0, -1).astype(np.float32)
  at = functools.partial(metrics.precision_at_recall, scores, labels)
  np.testing.assert_allclose(at((0.5, 0.75)), [2 / 3, 3 / 4], rtol=1e-6)
  # Of the two points of recall 1/4 the one with the lower threshold.
  np.testing.assert_allclose(at((0.25,)), [0.5], rtol=1e-6)
  np.testing.assert_array_equal(at((0.375, 0.05, 0.04)), [NAN, NAN, 1.0])


@pytest.mark.parametrize("constant", [False, True])
def test_precision_at_recall_of_a_single_class(constant):
  scores = np.arange(4, dtype=np.float32)
  value = metrics.precision_at_recall(scores, np.full(4, constant))
  np.testing.assert_array_equal(value, [NAN] * 4)


@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_table_equals_scikit_learn(convention):
  logits, labels = data(300, 6)
  table = metrics.label_table(logits, labels, convention=convention)
  for a in range(4):
    y, decided = labels[:, a], logits[:, a] > 0
    matrix = [np.sum((decided == d) & (y == t)) for d in (1, 0) for t in (1, 0)]
    tp, fp, fn, tn = matrix
    expected = {
      "accuracy": accuracy_score(y, decided),
      "recall": recall_score(y, decided),
      "precision": precision_score(y, decided),
      "fpr": fp / (fp + tn),
      "fnr": fn / (fn + tp),
      "f1": f1_score(y, decided),
      "auc": roc_auc_score(y, logits[:, a]),
      "average_precision": average_precision_score(y, logits[:, a]),
      "positive_rate": y.mean(),
      "predicted_positive_rate": decided.mean(),
      "tp": tp,
      "fp": fp,
      "fn": fn,
      "tn": tn,
    }
    assert set(expected) | {"precision_at_recall"} == set(table._fields)
    for name, number in expected.items():
      found = float(getattr(table, name)[a])
      assert found == pytest.approx(number, abs=1e-6), name
    np.testing.assert_allclose(
      table.precision_at_recall[:, a],
      nearest(logits[:, a], y, (0.5, 0.75, 0.9, 0.95)),
      atol=1e-6,
    )


def test_table_of_degenerate_labels():
  logits = np.array([[1.0, -1.0, -1.0], [-1.0, -2.0, -3.0]], np.float32)
  labels = np.array([[True, False, True], [True, False, False]])
  table = metrics.label_table(logits, labels)
  expected = {
    "recall": [0.5, NAN, 0.0],
    "precision": [1.0, NAN, NAN],
    "fpr": [NAN, 0.0, 0.0],
    "fnr": [0.5, NAN, 1.0],
    "f1": [2 / 3, NAN, NAN],
    "auc": [NAN, NAN, 1.0],
    "average_precision": [NAN, NAN, 1.0],
  }
  for name, values in expected.items():
    np.testing.assert_allclose(getattr(table, name), values, err_msg=name)
  zero = metrics.label_table(logits, labels, zero_division=0.0)
  np.testing.assert_allclose(zero.precision, [1.0, 0.0, 0.0])
  np.testing.assert_allclose(zero.f1, [2 / 3, 0.0, 0.0])


def test_conventions_differ_for_tiny_and_for_large_logits():
  logits = np.array([[1e-9], [30.0], [40.0], [-1.0]], np.float32)
  labels = np.array([[True], [False], [True], [False]])
  exact = metrics.label_table(logits, labels)
  reference = metrics.label_table(logits, labels, convention="reference")
  assert (exact.tp.item(), reference.tp.item()) == (2, 1)
  # In float32 sigmoid(30) and sigmoid(40) are both 1: a tie.
  assert (exact.auc.item(), reference.auc.item()) == (0.75, 0.625)


def test_a_nan_logit_makes_the_rates_of_its_label_undefined():
  logits, labels = data(30, 2)
  clean = metrics.label_table(logits, labels)
  logits[3, 1] = NAN
  spoilt = metrics.label_table(logits, labels)
  for x, y in zip(clean[:11], spoilt[:11], strict=True):
    assert np.isnan(y[..., 1]).all()
    np.testing.assert_array_equal(x[..., [0, 2, 3]], y[..., [0, 2, 3]])


def test_traced_and_unusable_arrays():
  scores = np.zeros(3, np.float32)
  with pytest.raises(ValueError, match="concrete"):
    jax.jit(metrics.average_precision)(scores, scores > 0)
  with pytest.raises(ValueError, match=r"\[3\] and \[4\]"):
    metrics.average_precision(scores, np.zeros(4, bool))
  with pytest.raises(ValueError, match="between 0 and 1"):
    metrics.precision_at_recall(scores, scores > 0, (0.5, 95))
  with pytest.raises(ValueError, match=r"\[N, A\]"):
    metrics.label_table(scores, scores > 0)


def test_exact_logits_are_not_rounded():
  logits = np.array([[1 + 1e-12], [1.0], [-1.0], [1e-50]])
  labels = np.array([[True], [False], [False], [True]])
  for x64 in (False, True):
    with jax.enable_x64(x64):
      table = metrics.label_table(logits, labels)
      assert table.tp == 2
      for name, alone in (
        ("average_precision", metrics.average_precision(logits, labels)),
        ("precision_at_recall", metrics.precision_at_recall(logits, labels)),
      ):
        np.testing.assert_array_equal(getattr(table, name), alone, name)
      # Of four pairs only (1e-50, 1) is in the wrong order.
      assert (table.auc, table.auc.dtype) == (0.75, np.float32)
      rounded = metrics.label_table(logits, labels, convention="reference")
      assert (rounded.auc, rounded.tp) == (0.625, 1)
  top = metrics.label_table(logits[:3], labels[:3])
  assert (top.average_precision, top.auc) == (1.0, 1.0)


def test_no_column_at_all():
  scores, labels = np.zeros((4, 0), np.float32), np.zeros((4, 0), bool)
  assert metrics.average_precision(scores, labels).shape == (0,)
  found = metrics.precision_at_recall(scores, labels, (0.5, 0.9))
  assert found.shape == (2, 0)
  for convention in ("exact", "reference"):
    table = metrics.label_table(scores, labels, convention=convention)
    for name, x in table._asdict().items():
      wanted = (4, 0) if name == "precision_at_recall" else (0,)
      assert x.shape == wanted, name


@pytest.mark.parametrize("recalls", [None, 0.5, ["much"], [0.5, None]])
def test_recalls_that_are_none_are_named(recalls):
  logits = np.zeros((3, 1), np.float32)
  labels = np.array([[True], [False], [True]])
  with pytest.raises(ValueError, match="recalls must be"):
    metrics.label_table(logits, labels, recalls=recalls)


@pytest.mark.parametrize("groups", [2.5, 2.0, None, -1])
def test_a_number_of_groups_is_whole(groups):
  with pytest.raises(ValueError, match="groups must be a whole number"):
    metrics.one_hot([0, 1], groups)
