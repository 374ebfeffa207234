"""Rates of groups: counts, products of groups, controls, soft rates."""

import fairlearn.metrics
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from effjax import metrics
from effjax.metrics import counting

NAN = np.nan
RATES = metrics.group_rates()
# Compiled once for all tests.
CONDITIONAL = metrics.conditional(RATES)


def example(seed, rows=60, groups=3):
  """Overlapping groups, of which one may be empty; rare and common labels."""
  rng = np.random.default_rng(seed)
  return {
    "predictions": rng.random((rows, 4)) < [0.0, 0.2, 0.5, 0.9],
    "labels": rng.random((rows, 4)) < rng.choice([0.0, 0.1, 0.5, 1.0], 4),
    "groups": rng.random((rows, groups)) < rng.choice([0.0, 0.1, 0.6], groups),
  }


def partition(seed, rows=60, levels=4):
  """A partition whose third group is empty, as ids and as columns."""
  ids = np.random.default_rng(seed).choice([0, 1, 3], rows)
  return ids, np.asarray(metrics.one_hot(ids, levels))


def cells_by_hand(batch, weights):
  """TP, FP, TN and FN [G + 1, A] in float64, by loops."""
  groups = np.column_stack([batch["groups"], np.ones(len(weights), bool)])
  p, y = batch["predictions"], batch["labels"]
  return [
    np.array([[weights[g & x].sum() for x in cell.T] for g in groups.T])
    for cell in (p & y, p & ~y, ~p & ~y, ~p & y)
  ]


def rates_by_hand(tp, fp, tn, fn):
  n = tp + fp + tn + fn
  with np.errstate(divide="ignore", invalid="ignore"):
    ratio = np.where(fp > 0, fn / fp, NAN)
    return {
      "tpr": tp / (tp + fn),
      "fpr": fp / (fp + tn),
      "tnr": tn / (fp + tn),
      "fnr": fn / (tp + fn),
      "precision": tp / (tp + fp),
      "accuracy": (tp + tn) / n,
      "selection_rate": (tp + fp) / n,
      "base_rate": (tp + fn) / n,
      "f1": 2 * tp / (2 * tp + fp + fn),
      "balanced_accuracy": (tp / (tp + fn) + tn / (fp + tn)) / 2,
      "error_ratio": ratio,
      "support": n,
    }


@pytest.mark.parametrize("kind", [None, np.bool_, np.int32, np.float32])
def test_rates_equal_brute_force(kind):
  for seed in range(4):
    batch = example(seed)
    weights = np.ones(60)
    if kind is not None:
      weights = np.random.default_rng(seed).integers(0, 3, 60).astype(kind)
      if kind is np.float32:
        weights /= 10
      batch["weights"] = weights
    found = metrics.compute(RATES, **batch)
    cells = cells_by_hand(batch, weights.astype(np.float64))
    for part, rates in ((slice(-1), found), (-1, found.overall)):
      expected = rates_by_hand(*(x[part] for x in cells))
      for name, value in expected.items():
        np.testing.assert_allclose(
          getattr(rates, name), value, rtol=1e-6, atol=1e-6, err_msg=name
        )
  assert found.overall.overall is None


LONG = counting._LEAST_ROWS + 75


@pytest.mark.parametrize("kind", [None, np.bool_, np.int32])
def test_counts_by_bits_are_exact(kind):
  batch = example(5, LONG)
  weights = np.random.default_rng(6).integers(0, 2, LONG)
  if kind is None:
    weights = np.ones(LONG)
  else:
    batch["weights"] = weights.astype(kind)
  metric = RATES
  state = jax.jit(lambda batch: metric.update(metric.empty, **batch))(batch)
  cells = cells_by_hand(batch, weights)
  for found, expected in zip(state[:4], cells, strict=True):
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.int32


def test_bits_of_full_columns_do_not_overflow():
  ones = jnp.ones((LONG, 2), bool)
  np.testing.assert_array_equal(counting.cooccurrence(None, ones, ones), LONG)
  np.testing.assert_array_equal(counting.count(None, ones), LONG)
  np.testing.assert_array_equal(counting.count(None, ~ones), 0)


def test_bits_under_vmap_and_with_many_columns():
  rng = np.random.default_rng(7)
  left = rng.random((LONG, counting._MOST_COLUMNS + 1)) < 0.5
  right = rng.random((2, LONG, 3)) < 0.3
  expected = np.einsum("np,mnq->mpq", left.astype(int), right.astype(int))
  for columns in (3, left.shape[1]):
    found = jax.jit(jax.vmap(counting.cooccurrence, (None, None, 0)))(
      None, left[:, :columns], right
    )
    np.testing.assert_array_equal(found, expected[:, :columns])


def test_rows_sharded_by_type_are_counted():
  kinds = (jax.sharding.AxisType.Explicit,)
  mesh = jax.make_mesh((1,), ("rows",), axis_types=kinds)
  columns = np.random.default_rng(8).random((LONG, 3)) < 0.5
  with jax.set_mesh(mesh):
    rows = jax.NamedSharding(mesh, jax.P("rows"))
    found = jax.jit(counting.cooccurrence, static_argnums=0)(
      None, *(jax.device_put(columns, rows) for _ in range(2))
    )
  expected = columns.T.astype(int) @ columns
  np.testing.assert_array_equal(np.asarray(found), expected)


def test_zero_division_is_an_option_of_precision_and_f1():
  column = np.array([[False], [False], [True]])
  batch = {
    "predictions": column,
    "labels": column,
    "groups": np.asarray(metrics.one_hot(np.array([0, 0, 1]), 3)),
  }
  found = metrics.compute(metrics.group_rates(zero_division=0.0), **batch)
  for rate in (found.precision, found.f1):
    np.testing.assert_array_equal(rate[:, 0], [0.0, 1.0, NAN])
  np.testing.assert_array_equal(found.tpr[:, 0], [NAN, 1.0, NAN])
  found = metrics.compute(RATES, **batch)
  for rate in (found.precision, found.f1):
    np.testing.assert_array_equal(rate[:, 0], [NAN, 1.0, NAN])


FAIRLEARN = {
  "tpr": fairlearn.metrics.true_positive_rate,
  "fpr": fairlearn.metrics.false_positive_rate,
  "tnr": fairlearn.metrics.true_negative_rate,
  "fnr": fairlearn.metrics.false_negative_rate,
  "selection_rate": fairlearn.metrics.selection_rate,
  "support": fairlearn.metrics.count,
  "accuracy": sklearn.metrics.accuracy_score,
}


def frame(batch, attribute, features, controls=None):
  return fairlearn.metrics.MetricFrame(
    metrics=FAIRLEARN,
    y_true=batch["labels"][:, attribute],
    y_pred=batch["predictions"][:, attribute],
    sensitive_features=features,
    control_features=controls,
  )


def agree(rates, attribute, expected):
  """Compares with a frame; its rates of 0/0 are 0.0, ours NaN."""
  for name in FAIRLEARN:
    found = np.asarray(getattr(rates, name))[..., attribute].reshape(-1)
    other = expected[name].to_numpy()
    undefined = np.isnan(found)
    # Counts of empty cells are NaN there and 0 here.
    other = np.where(np.isnan(other) & (name == "support"), 0.0, other)
    np.testing.assert_allclose(found[~undefined], other[~undefined], rtol=1e-6)
    assert (np.isnan(other[undefined]) | (other[undefined] == 0)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_rates_agree_with_fairlearn(seed):
  batch = example(seed, groups=4)
  ids, batch["groups"] = partition(seed)
  rates = metrics.compute(RATES, **batch)
  for attribute in range(4):
    expected = frame(batch, attribute, ids)
    agree(rates, attribute, expected.by_group.reindex(range(4)))
    agree(rates.overall, attribute, expected.overall.to_frame().T)


def test_intersections_agree_with_fairlearn():
  batch = example(2)
  (first, a), (second, b) = partition(3), partition(4)
  batch["groups"] = metrics.intersections(a, b)
  assert batch["groups"].shape == (60, 16)
  rates = metrics.compute(RATES, **batch)
  index = pd.MultiIndex.from_product([range(4), range(4)])
  features = pd.DataFrame({"first": first, "second": second})
  for attribute in (1, 2):
    expected = frame(batch, attribute, features)
    agree(rates, attribute, expected.by_group.reindex(index))
  # The empty cells keep their columns.
  empty = ~np.asarray(batch["groups"]).any(0)
  assert empty.sum() >= 7
  np.testing.assert_array_equal(np.asarray(rates.support)[empty], 0)
  assert np.isnan(np.asarray(rates.accuracy)[empty]).all()
  names = metrics.intersection_names("wxyz", "0123", separator="/")
  assert len(names) == 16
  row = int(np.argmax(np.asarray(batch["groups"])[0]))
  assert names[row] == f"{'wxyz'[first[0]]}/{second[0]}"


def test_intersections_of_overlapping_groups():
  rng = np.random.default_rng(0)
  sets = [rng.random((10, n)) < 0.5 for n in (2, 3, 2)]
  cells = np.asarray(metrics.intersections(*sets))
  expected = np.einsum("na,nb,nc->nabc", *(x.astype(int) for x in sets))
  np.testing.assert_array_equal(cells, expected.reshape(10, 12).astype(bool))
  np.testing.assert_array_equal(metrics.intersections(sets[0]), sets[0])


def test_controls_agree_with_fairlearn():
  batch = example(5)
  ids, batch["groups"] = partition(5)
  levels, controls = partition(6)
  rates = metrics.compute(CONDITIONAL, **batch, controls=controls)
  assert rates.tpr.shape == (4, 4, 4)
  assert rates.overall.tpr.shape == (4, 4)
  index = pd.MultiIndex.from_product([range(4), range(4)])
  gaps = metrics.disparities(rates)
  for attribute in (1, 2):
    expected = frame(batch, attribute, ids, levels)
    agree(rates, attribute, expected.by_group.reindex(index))
    agree(rates.overall, attribute, expected.overall.reindex(range(4)))
    for method, field in (
      ("between_groups", "difference"),
      ("to_overall", "difference_to_overall"),
    ):
      other = expected.difference(method=method)["selection_rate"]
      found = getattr(gaps.demographic_parity, field)[:, attribute]
      np.testing.assert_allclose(
        found, other.reindex(range(4)).to_numpy(), rtol=1e-6
      )


@pytest.mark.parametrize("kind", [None, np.int32, np.float32])
def test_conditional_equals_one_level_at_a_time(kind):
  batch = example(7)
  controls = np.random.default_rng(7).random((60, 2)) < 0.5
  weights = np.random.default_rng(8).integers(0, 3, 60)
  if kind is not None:
    batch["weights"] = weights.astype(kind)
  found = metrics.compute(CONDITIONAL, **batch, controls=controls)
  for level in range(2):
    inside = controls[:, level]
    batch["weights"] = inside if kind is None else inside * weights.astype(kind)
    jax.tree.map(
      lambda x, y, level=level: np.testing.assert_array_equal(x[level], y),
      found,
      metrics.compute(RATES, **batch),
    )


def test_conditional_states_add_up():
  batch = {**example(9), "controls": partition(9)[1]}
  halves = [
    {n: x[rows] for n, x in batch.items()}
    for rows in (slice(30), slice(30, None))
  ]
  whole = metrics.compute(CONDITIONAL, **batch)
  metric = CONDITIONAL._replace(compute=jax.jit(CONDITIONAL.compute))
  found = metrics.evaluate(metric, halves)
  jax.tree.map(np.testing.assert_array_equal, found, whole)
  empty = CONDITIONAL.empty
  state = jax.jit(lambda batch: CONDITIONAL.update(empty, **batch))(batch)
  for other in (metrics.start(CONDITIONAL, **batch), empty):
    for pair in ((other, state), (state, other)):
      merged = CONDITIONAL.merge(*pair)
      jax.tree.map(np.testing.assert_array_equal, merged, state)
  assert np.isnan(metrics.evaluate(metric, []).tpr)


def test_any_metric_can_be_conditional():
  batch, controls = example(10), partition(10)[1]
  share = metrics.conditional(metrics.accuracy())
  right = batch["predictions"] == batch["labels"]
  found = metrics.compute(share, **batch, controls=controls)
  for level in (0, 1, 3):
    np.testing.assert_allclose(
      found[level], right[controls[:, level]].mean(0), rtol=1e-6
    )
  assert np.isnan(found[2]).all()


def test_mistakes_are_named():
  groups = np.ones((4, 2), bool)
  with pytest.raises(ValueError, match=r"shape \[N, G\], got none"):
    metrics.intersections()
  with pytest.raises(ValueError, match=r"got \[4\], \[4, 2\]"):
    metrics.intersections(groups[:, 0], groups)
  with pytest.raises(ValueError, match="number of rows"):
    metrics.intersections(groups, groups[:3])
  batch = {"predictions": groups, "labels": groups, "groups": groups}
  with pytest.raises(ValueError, match="no controls"):
    metrics.compute(CONDITIONAL, **batch)
  with pytest.raises(ValueError, match=r"got \[3, 2\] beside groups"):
    metrics.compute(CONDITIONAL, **batch, controls=groups[:3])
  with pytest.raises(ValueError, match="number of rows"):
    metrics.soft_group_rates(np.zeros((3, 2), np.float32), groups, groups)


def test_soft_rates_equal_brute_force():
  batch = example(11)
  logits = np.random.default_rng(11).normal(0, 2, (60, 4)).astype(np.float32)
  weights = np.random.default_rng(12).integers(0, 3, 60).astype(np.float32)
  logits[weights == 0] = NAN
  temperature = np.array([0.5, 1.0, 2.0, 4.0], np.float32)
  found = metrics.soft_group_rates(
    logits,
    batch["labels"],
    batch["groups"],
    weights=weights,
    temperature=temperature,
  )
  live = weights > 0
  p = 1 / (1 + np.exp(-logits[live].astype(np.float64) / temperature))
  y = batch["labels"][live].astype(float)
  groups = np.column_stack([batch["groups"], np.ones(60, bool)])[live]
  factor = (weights[live, None] * groups).T
  cells = [factor @ x for x in (p * y, p * (1 - y), (1 - p) * (1 - y))]
  cells.append(factor @ ((1 - p) * y))
  for part, rates in ((slice(-1), found), (-1, found.overall)):
    expected = rates_by_hand(*(x[part] for x in cells))
    for name, value in expected.items():
      np.testing.assert_allclose(
        getattr(rates, name), value, rtol=2e-5, atol=1e-6, err_msg=name
      )


def test_cold_soft_rates_are_the_hard_ones():
  batch = example(12)
  logits = np.where(batch["predictions"], 1.0, -1.0).astype(np.float32)
  soft = metrics.soft_group_rates(
    logits, batch["labels"], batch["groups"], temperature=1e-3
  )
  hard = metrics.compute(RATES, **batch)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), soft, hard
  )


def test_soft_rates_have_gradients_where_others_are_undefined():
  batch = example(13)
  batch["groups"][:, 1] = False
  batch["groups"][:, 0] = True
  batch["labels"][:, 0] = False
  batch["labels"][:30, 2] = True
  logits = np.random.default_rng(13).normal(0, 1, (60, 4)).astype(np.float32)

  @jax.jit
  def loss(logits):
    rates = metrics.soft_group_rates(logits, batch["labels"], batch["groups"])
    gaps = metrics.disparities(rates)
    terms = [
      gaps.equalized_odds.difference,
      gaps.demographic_parity.ratio,
      gaps.predictive_parity.ratio_to_overall,
      gaps.treatment_equality.difference_to_overall,
      gaps.worst_accuracy,
    ]
    return sum(jnp.sum(jnp.where(jnp.isnan(x), 0.0, x)) for x in terms)

  gradient = np.asarray(jax.jit(jax.grad(loss))(logits))
  assert np.isfinite(gradient).all()
  for place in ((0, 2), (5, 1), (40, 3)):
    step = np.zeros_like(logits)
    step[place] = 0.05
    slope = (float(loss(logits + step)) - float(loss(logits - step))) / 0.1
    assert gradient[place] == pytest.approx(slope, abs=1e-3)
    assert abs(slope) > 1e-3
