import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "bias"
CASES = pytest.mark.parametrize(
  ("case", "classes"), [("c10", 10), ("c2", 2), ("edge", 5)]
)
FEW = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)


def golden(case):
  """Returns the arrays of a case under their own names."""
  data = np.load(GOLDEN / "cev_sde.npz", allow_pickle=False)
  return {
    name.removeprefix(f"{case}_"): data[name]
    for name in data
    if name.startswith(f"{case}_")
  }


def of_predictions(data, classes, **options):
  return metrics.cev_sde(
    data["labels"], data["dense_pred"], data["pruned_preds"], classes, **options
  )


@CASES
@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_golden(case, classes, convention):
  data = golden(case)
  value = of_predictions(data, classes, convention=convention)
  for rate in ("fpr", "fnr"):
    np.testing.assert_allclose(
      getattr(value, f"dense_{rate}"), data[f"dense_{rate}"], atol=1e-6
    )
    expected = data[f"{rate}_change_pct"]
    if convention == "exact":
      expected = np.where(np.isinf(expected), np.nan, expected)
    np.testing.assert_allclose(
      getattr(value, f"{rate}_change"), expected, rtol=1e-5
    )
  np.testing.assert_array_equal(value.support, np.bincount(data["labels"]))
  if case == "edge":
    np.testing.assert_array_equal(value.defined, [False] + [True] * 4)
    assert int(value.count) == 4
    assert np.isfinite(value.sde) == (convention == "exact")
  else:
    assert value.defined.all()
    for name, key in (("cev", "cev_code"), ("cev_sqdist",) * 2, ("sde",) * 2):
      np.testing.assert_allclose(getattr(value, name), data[key], rtol=1e-5)


def brute(labels, dense, pruned, classes):
  """Changes in percent by loops in float64, NaN where undefined."""

  def rates(predictions, c):
    positive, negative = labels == c, labels != c
    said = predictions == c
    with np.errstate(invalid="ignore"):
      return np.array(
        [
          np.float64((said & negative).sum()) / negative.sum(),
          np.float64((~said & positive).sum()) / positive.sum(),
        ]
      )

  changes = np.full((classes, 2), np.nan)
  for c in range(classes):
    one = rates(dense, c)
    many = np.mean([rates(x, c) for x in pruned], axis=0)
    with np.errstate(all="ignore"):
      changes[c] = np.where(one > 0, 100 * (many - one) / one, np.nan)
  return changes


def aggregate(changes):
  """CEV and SDE of changes [C, 2]."""
  points = changes[~np.isnan(changes).any(axis=1)]
  if not len(points):
    return np.nan, np.nan, 0
  distance = ((points - points.mean(axis=0)) ** 2).mean()
  return distance, np.mean(abs(points @ [1, -1])) / np.sqrt(2), len(points)


@FEW
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_equals_loops_also_where_classes_have_no_errors(seed):
  rng = np.random.default_rng(seed)
  classes, rows = 4, 30
  # Few samples, and predictions that stray to the next class only: classes
  # without samples, without errors of one kind, or of both.
  labels = rng.integers(0, rng.integers(1, classes + 1), rows)

  def predict():
    strays = rng.random(rows) < rng.choice([0.0, 0.1, 0.4])
    return np.minimum(labels + strays, classes - 1)

  dense, pruned = predict(), np.stack([predict() for _ in range(3)])
  value = metrics.cev_sde(labels, dense, pruned, classes)
  changes = brute(labels, dense, pruned, classes)
  cev, sde, count = aggregate(changes)
  for ours, theirs in zip(
    (value.fpr_change, value.fnr_change), changes.T, strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9)
  np.testing.assert_allclose(value.cev, cev, rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(value.cev_sqdist, 2 * value.cev, rtol=1e-6)
  np.testing.assert_allclose(value.sde, sde, rtol=1e-5, atol=1e-5)
  assert int(value.count) == count == int(value.defined.sum())


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_rates_serve_as_well_as_predictions(x64, convention):
  data = golden("edge")
  value = of_predictions(data, 5, convention=convention)
  pruned = [
    [
      [(said & ~true).sum() / (~true).sum(), (~said & true).sum() / true.sum()]
      for c in range(5)
      for said, true in [(x == c, data["labels"] == c)]
    ]
    for x in data["pruned_preds"]
  ]
  with jax.enable_x64(x64):
    rates = metrics.cev_sde_of_rates(
      data["dense_fpr"],
      data["dense_fnr"],
      *np.moveaxis(pruned, 2, 0),
      convention=convention,
    )
  assert rates.cev.dtype == (np.float64 if x64 else np.float32)
  assert rates.support is None
  for name in ("cev", "sde", "fpr_change", "fnr_change", "count"):
    np.testing.assert_allclose(
      getattr(rates, name), getattr(value, name), rtol=1e-5
    )


def test_a_pruned_model_like_the_dense_one_changes_nothing():
  data = golden("c10")
  data["pruned_preds"] = np.stack([data["dense_pred"]] * 3)
  value = of_predictions(data, 10)
  np.testing.assert_array_equal(value.fpr_change, 0.0)
  assert value.cev == value.sde == 0.0
  assert int(value.count) == 10


def test_a_perfect_dense_model_has_no_defined_class():
  data = golden("c10")
  data["dense_pred"] = data["labels"]
  value = of_predictions(data, 10)
  assert int(value.count) == 0
  for x in (value.cev, value.cev_sqdist, value.sde, value.fpr_change):
    assert np.isnan(x).all()
  reference = of_predictions(data, 10, convention="reference")
  assert np.isposinf(reference.fpr_change).all()


def test_cev_sde_under_jit_and_vmap():
  data = golden("c2")
  levels = data["pruned_preds"].reshape(2, 2, -1)
  mapped = jax.jit(
    jax.vmap(
      lambda pruned: metrics.cev_sde(
        data["labels"], data["dense_pred"], pruned, 2
      )
    )
  )(levels)
  for i, level in enumerate(levels):
    data["pruned_preds"] = level
    alone = of_predictions(data, 2)
    np.testing.assert_allclose(mapped.cev[i], alone.cev, rtol=1e-6)


def population(models, rows=400, classes=5, seed=0):
  """Models that find one class harder than the rest; the last is absent."""
  labels = np.random.default_rng(9).integers(0, classes - 1, rows)
  rng = np.random.default_rng(seed)
  rate = np.where(labels == 2, 0.5, 0.1)
  wrong = rng.random((models, rows)) < rate
  return labels, np.where(wrong, (labels + 1) % (classes - 1), labels)


@pytest.mark.parametrize("correction", metrics.CORRECTIONS)
def test_class_significance(correction):
  labels, dense = population(6)
  pruned = population(4, seed=1)[1]
  pruned[:, (labels == 2) & (np.arange(400) % 5 > 0)] = 3
  labels, dense, pruned = (x.astype(np.int64) for x in (labels, dense, pruned))
  with jax.enable_x64(True):
    value = metrics.class_significance(
      labels, dense, pruned, 5, correction=correction
    )
    again = np.asarray(metrics.CORRECTIONS[correction](value.test.p))
  value = jax.tree.map(np.asarray, value)
  np.testing.assert_array_equal(value.support, np.bincount(labels, minlength=5))
  np.testing.assert_allclose(value.dense_accuracy, (dense == labels).mean())
  np.testing.assert_allclose(value.pruned_accuracy, (pruned == labels).mean())
  for c in range(4):
    chosen = labels == c
    recalls = [(x == labels)[:, chosen].mean(axis=1) for x in (pruned, dense)]
    np.testing.assert_allclose(value.pruned_recall[:, c], recalls[0])
    np.testing.assert_allclose(value.dense_recall[:, c], recalls[1])
    expected = scipy.stats.ttest_ind(
      recalls[0] - (pruned == labels).mean(),
      recalls[1] - (dense == labels).mean(),
      equal_var=False,
    )
    np.testing.assert_allclose(value.test.t[c], expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(value.test.p[c], expected.pvalue, rtol=1e-9)
  assert value.test.difference[2] < -0.2
  assert np.isnan(value.test.p[4])
  assert np.isnan(value.dense_recall[:, 4]).all()
  np.testing.assert_array_equal(value.adjusted, again)
  assert value.adjusted[2] < 0.01


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"classes": 2}, "run from 0 to"),
    ({"pruned": np.zeros((2, 3), int)}, "must have shapes [N], [K, N]"),
    ({"dense": np.zeros(400, int)}, "dense must be a matrix of integers"),
    ({"labels": np.zeros(400)}, "labels must be a vector of integers"),
    ({"correction": "bonferroni"}, "holm, benjamini_hochberg"),
  ],
)
def test_errors(change, message):
  labels, dense = population(2)
  arguments = {"labels": labels, "dense": dense, "pruned": dense, "classes": 5}
  with pytest.raises(ValueError) as error:
    metrics.class_significance(**{**arguments, **change})
  assert message in str(error.value)


def test_errors_of_cev_sde():
  labels, dense = population(2)
  with pytest.raises(ValueError, match="dense must be a vector of integers"):
    metrics.cev_sde(labels, dense, dense, 5)
  with pytest.raises(ValueError, match="convention"):
    metrics.cev_sde(labels, dense[0], dense, 5, convention="paper")
  with pytest.raises(ValueError, match=r"\[C\], \[C\], \[S, C\]"):
    metrics.cev_sde_of_rates([0.1], [0.1], [0.1], [0.1])
