"""Disparities against fairlearn, brute force, and where nothing is defined."""

import fairlearn.metrics
import jax
import numpy as np
import pytest

from effjax import metrics

NAN, INF = np.nan, np.inf
RATES = metrics.group_rates()
# As a metric, which can be merged and resampled.
DISPARITIES = RATES._replace(
  compute=lambda state: metrics.disparities(RATES.compute(state))
)


def example(seed, rate=(0.2, 0.5, 0.8), rows=90):
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, 3, rows)
  return ids, {
    "predictions": rng.random((rows, 3)) < rate,
    "labels": rng.random((rows, 3)) < rate,
    "groups": np.asarray(metrics.one_hot(ids, 3)),
  }


def fields(gap):
  return {
    ("difference", "between_groups"): gap.difference,
    ("ratio", "between_groups"): gap.ratio,
    ("difference", "to_overall"): gap.difference_to_overall,
    ("ratio", "to_overall"): gap.ratio_to_overall,
  }


FAIRLEARN = {
  "demographic_parity": ("demographic_parity", {}),
  "equal_opportunity": ("equal_opportunity", {}),
  "equalized_odds": ("equalized_odds", {"agg": "worst_case"}),
  "equalized_odds_mean": ("equalized_odds", {"agg": "mean"}),
}


@pytest.mark.parametrize("name", FAIRLEARN)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_fairlearn(name, seed):
  ids, batch = example(seed)
  gap = getattr(metrics.compute(DISPARITIES, **batch), name)
  stem, options = FAIRLEARN[name]
  for (kind, method), found in fields(gap).items():
    function = getattr(fairlearn.metrics, f"{stem}_{kind}")
    expected = [
      function(
        batch["labels"][:, a],
        batch["predictions"][:, a],
        sensitive_features=ids,
        method=method,
        **options,
      )
      for a in range(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
  np.testing.assert_array_equal(gap.estimable, 3)


def test_undefined_where_fairlearn_says_zero():
  ids, batch = example(3)
  # Positive labels in group 0 only, and no positive decision anywhere.
  batch["labels"] &= (ids == 0)[:, None]
  batch["labels"][np.argmax(ids == 0)] = True
  batch["predictions"][:] = False
  found = metrics.compute(DISPARITIES, **batch)
  for stem, gap in (
    ("equal_opportunity", found.equal_opportunity),
    ("equalized_odds", found.equalized_odds),
  ):
    theirs = getattr(fairlearn.metrics, f"{stem}_difference")(
      batch["labels"][:, 0], batch["predictions"][:, 0], sensitive_features=ids
    )
    assert theirs == 0.0  # "perfectly fair"
    assert np.isnan(gap.difference).all()
    np.testing.assert_array_equal(gap.estimable, 1)
  np.testing.assert_array_equal(found.predictive_parity.estimable, 0)
  # A rate of 0 in every group is defined, its ratio 0/0 is not.
  parity = found.demographic_parity
  np.testing.assert_array_equal(parity.difference, 0.0)
  assert np.isnan(parity.ratio).all()
  assert np.isnan(parity.ratio_to_overall).all()
  np.testing.assert_array_equal(parity.estimable, 3)


def test_groups_without_a_rate_are_skipped_and_counted():
  ids, batch = example(4)
  batch["labels"] &= (ids != 2)[:, None]
  found = metrics.compute(DISPARITIES, **batch)
  tpr = np.asarray(metrics.compute(RATES, **batch).tpr)
  gap = found.equal_opportunity
  np.testing.assert_array_equal(gap.estimable, 2)
  np.testing.assert_allclose(gap.difference, abs(tpr[0] - tpr[1]), rtol=1e-6)
  np.testing.assert_array_equal(found.false_positive_rate.estimable, 3)
  np.testing.assert_array_equal(found.equalized_odds.estimable, 2)
  only = metrics.compute(
    DISPARITIES, **{**batch, "groups": batch["groups"] & [True, False, False]}
  )
  for x in only[:-2]:
    for value in fields(x).values():
      assert np.isnan(value).all()
  np.testing.assert_array_equal(only.accuracy.estimable, 1)
  np.testing.assert_array_equal(only.worst_group, 0)
  assert np.isfinite(only.worst_accuracy).all()


def gap_by_hand(values, overall):
  found = values[~np.isnan(values)]
  if len(found) < 2:
    return [NAN] * 4
  with np.errstate(invalid="ignore"):
    ratios = np.minimum(found, overall) / np.maximum(found, overall)
    return [
      found.max() - found.min(),
      np.float64(found.min()) / found.max(),
      abs(found - overall).max(),
      ratios.min(),
    ]


SOURCES = {
  "demographic_parity": "selection_rate",
  "equal_opportunity": "tpr",
  "predictive_parity": "precision",
  "false_positive_rate": "fpr",
  "false_negative_rate": "fnr",
  "accuracy": "accuracy",
  "treatment_equality": "error_ratio",
}


def test_equals_brute_force():
  for seed in range(6):
    _, batch = example(seed, rate=(0.05, 0.4, 1.0), rows=90)
    rates = metrics.compute(RATES, **batch)
    found = metrics.compute(DISPARITIES, **batch)
    for name, source in SOURCES.items():
      values = np.asarray(getattr(rates, source), np.float64)
      overall = np.asarray(getattr(rates.overall, source), np.float64)
      expected = np.array(
        [gap_by_hand(values[:, a], overall[a]) for a in range(3)]
      ).T
      gap = getattr(found, name)
      for x, y in zip(fields(gap).values(), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)
      np.testing.assert_array_equal(gap.estimable, (~np.isnan(values)).sum(0))
    accuracy = np.asarray(rates.accuracy)
    np.testing.assert_array_equal(found.worst_group, accuracy.argmin(0))
    np.testing.assert_array_equal(found.worst_accuracy, accuracy.min(0))


def test_treatment_equality_is_undefined_without_false_positives():
  # FN / FP is 1/1 in the first group, 1/0 in the second, 1/2 in the third.
  cells = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 1]] + [[1, 0, 2]] * 2)
  cells = np.vstack([cells, [[0, 1, 2]]])
  predictions, labels, ids = cells.T
  found = metrics.compute(
    DISPARITIES,
    predictions=predictions[:, None] > 0,
    labels=labels[:, None] > 0,
    groups=metrics.one_hot(ids, 3),
  ).treatment_equality
  assert float(found.difference[0]) == 0.5
  assert float(found.ratio[0]) == 0.5
  assert int(found.estimable[0]) == 2


def test_leading_axes_equal_vmap():
  batches = [example(seed)[1] for seed in range(4)]
  rates = [metrics.compute(RATES, **batch) for batch in batches]
  stacked = jax.tree.map(lambda *x: np.stack(x), *rates)
  found = jax.jit(metrics.disparities)(stacked)
  mapped = jax.jit(jax.vmap(metrics.disparities))(stacked)
  jax.tree.map(np.testing.assert_array_equal, found, mapped)
  for i, batch in enumerate(batches):
    jax.tree.map(
      lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-6),
      found,
      metrics.compute(DISPARITIES, **batch),
    )


def test_resamples_of_disparities():
  metric = RATES._replace(
    compute=lambda state: DISPARITIES.compute(state).demographic_parity
  )
  _, batch = example(5)
  found = metrics.bootstrap(jax.random.key(0), metric, batch, resamples=40)
  gap = metrics.compute(DISPARITIES, **batch).demographic_parity.difference
  np.testing.assert_allclose(found.estimate.difference, gap, rtol=1e-6)
  assert (found.low.difference <= gap + 0.1).all()
  assert (found.high.difference > gap).all()


def test_no_sample_is_undefined():
  found = jax.jit(DISPARITIES.compute)(DISPARITIES.empty)
  assert np.isnan(found.accuracy.difference)
  assert int(found.accuracy.estimable) == 0
  assert int(found.worst_group) == -1


def test_gap_of_other_values():
  values = np.array([[0.5, NAN, 0.0], [0.8, 0.1, 0.0], [NAN, NAN, 0.0]])
  found = metrics.gap(values.astype(np.float32))
  np.testing.assert_allclose(found.difference, [0.3, NAN, 0.0], rtol=1e-6)
  np.testing.assert_allclose(found.ratio, [0.625, NAN, NAN], rtol=1e-6)
  np.testing.assert_array_equal(found.estimable, [2, 1, 3])
  assert np.isnan(found.ratio_to_overall).all()
  with pytest.raises(ValueError, match=r"\[\.\.\., G, A\], got \[3\]"):
    metrics.gap(values[0])


def test_rates_need_the_overall_ones():
  rates = metrics.compute(RATES, **example(0)[1])
  with pytest.raises(ValueError, match="overall"):
    metrics.disparities(rates.overall)
