import collections

import jax
import numpy as np
import pytest

from effjax import metrics
from effjax.metrics import cells, resampling, tables

ROWS, ATTRIBUTES, GROUPS = 60, 3, 2
TRAIN = np.random.default_rng(0)
TRAIN_LABELS = TRAIN.random((80, ATTRIBUTES)) < 0.4
TRAIN_GROUPS = TRAIN.random((80, GROUPS)) < 0.5

METRICS = {
  "accuracy": metrics.accuracy([0.1, -0.2, 0.0]),
  "positive_rate": metrics.positive_rate(0.5),
  "uncertainty": metrics.uncertainty(),
  "group_rates": metrics.group_rates(),
  "threshold_calibration_bias": metrics.threshold_calibration_bias(
    TRAIN_LABELS, details=True
  ),
  "bias_amplification": metrics.bias_amplification(
    TRAIN_LABELS, TRAIN_GROUPS, min_positives=2, details=True
  ),
  "backdoor_amplification": metrics.backdoor_amplification(),
  "calibration_error": metrics.calibration_error(5),
  "calibration_of_groups": metrics.calibration_error(5, by_group=True),
  "top_class": metrics.calibration_error(4, confidence="top_class"),
}
METRICS["collection"] = metrics.collection(
  {name: METRICS[name] for name in ("accuracy", "group_rates")}
)
METRICS["flips"] = metrics.flips()
METRICS["calibration_and_accuracy"] = metrics.collection(
  {name: METRICS[name] for name in ("accuracy", "calibration_error")}
)
METRICS["collections"] = metrics.collection(
  {"all": METRICS["collection"], "uncertainty": metrics.uncertainty()}
)


def example(seed=0, rows=ROWS):
  rng = np.random.default_rng(seed)
  return {
    "logits": rng.normal(0, 2, (rows, ATTRIBUTES)).astype(np.float32),
    "labels": rng.random((rows, ATTRIBUTES)) < 0.5,
    "groups": rng.random((rows, GROUPS)) < 0.5,
    "reference_logits": rng.normal(0, 2, (rows, ATTRIBUTES)).astype(np.float32),
  }


def state_of(metric, table, counts):
  sums = jax.tree.map(lambda x: (counts * x).astype(np.float32), table.means)
  return table.cells.state(
    counts.astype(np.int32), table.kinds, sums, table.codes
  )


@pytest.mark.parametrize("name", METRICS)
def test_the_state_of_the_counts_is_that_of_the_rows(name):
  metric, batch = METRICS[name], example()
  batch["logits"][:5] = [np.inf, 0.0, -np.inf]
  batch["logits"][7, 1] = np.nan
  batch["weights"] = np.arange(ROWS) % 3 > 0
  table = tables.tabulate(metric.cells, [batch])
  expected = metric.update(metric.empty, **batch)
  actual = state_of(metric, table, table.counts)
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for x, y in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert x.shape == y.shape
    assert x.dtype == y.dtype
    # Counts are equal to the bit; offsets are summed in another order.
    tolerance = 0 if y.dtype == np.int32 else 1e-5
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_coarse_cells_keep_the_estimate():
  batch = example(rows=500)
  batch["logits"][:, 1] /= 30  # narrow scores are resolved as well
  plan = resampling.prepare(metrics.group_auc(), batch)
  table = plan.counted.table
  value = jax.jit(plan.metric.compute)(
    state_of(plan.metric, table, table.counts)
  )
  for coarse, lost, exact in zip(
    *map(jax.tree.leaves, (value, plan.counted.lost, plan.estimate)),
    strict=True,
  ):
    assert (np.asarray(coarse) != exact).any()
    np.testing.assert_allclose(coarse, exact, atol=4e-3)
    np.testing.assert_allclose(coarse + lost, exact, rtol=1e-6)


def test_many_cells_are_joined_until_they_are_few():
  batch = example(rows=3000)
  groups = np.random.default_rng(0).random((3000, 5)) < 0.5
  metric = METRICS["calibration_error"]
  pair = [batch, {**batch, "logits": batch["reference_logits"]}]
  paired = cells.join(metric.cells.paired, metric.cells.paired)
  table = tables.tabulate(paired, pair)
  assert paired.size > 4096 >= table.counts.shape[2] == len(table.codes)
  assert table.cells.size < paired.size
  states = state_of(metric, table, table.counts)
  for state, part in zip(states, pair, strict=True):
    expected = metric.update(metric.empty, **part)
    for x, y in zip(state, expected, strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-3)
  by_group = metrics.group_auc()
  table = tables.tabulate(by_group.cells, [{**batch, "groups": groups}])
  assert table.counts.shape == (ATTRIBUTES, 32, 2 * 16 + 1)


def test_rows_are_drawn_for_models_that_are_alike():
  rng = np.random.default_rng(0)
  batch = example(rows=3000)
  metric = metrics.auc()
  for noise, alike in ((0.01, True), (0.7, False)):
    other = batch["logits"] + noise * rng.normal(size=batch["logits"].shape)
    other = {**batch, "logits": other.astype(np.float32)}
    plan = resampling.prepare(metric, batch, other)
    assert (plan.counted is None) == alike
    both = metrics.collection({"auc": metric})
    assert resampling.prepare(both, batch, other).counted is None


def test_rows_are_chosen_where_cells_do_not_fit():
  batch = example()
  fits = lambda batch, metric=METRICS["accuracy"]: (
    tables.tabulate(metric.cells, [batch]) is not None
  )
  assert fits({**batch, "weights": np.arange(ROWS) % 2})
  assert fits({**batch, "weights": np.ones(ROWS, np.float32)})
  assert not fits({**batch, "weights": np.arange(ROWS)})
  assert not fits({**batch, "weights": np.full(ROWS, 0.5, np.float32)})
  groups = np.random.default_rng(0).random((2000, 12)) < 0.5
  many = {**example(rows=2000), "groups": groups}
  assert not fits(many, METRICS["group_rates"])
  assert cells.join(*[metrics.auc().cells.paired] * 3) is None


def test_draws_are_multinomial():
  counts = np.array([[5, 0, 3, 2, 0], [0, 0, 0, 10, 0]])
  batch = {
    "predictions": np.repeat([[1, 0, 1], [0, 1, 1]], 5, axis=0) > 0,
    "labels": np.ones((10, 3), bool),
    "groups": np.arange(10)[:, None] < [4, 10],
  }
  table = tables.tabulate(METRICS["group_rates"].cells, [batch])
  generator = np.random.default_rng(0)
  drawn = np.concatenate(list(tables.draw(generator, table, 4000)))
  assert (drawn.sum(axis=(2, 3)) == 10).all()
  # Every attribute sees the same sizes of the kinds.
  assert (drawn.sum(axis=3) == drawn.sum(axis=3)[:, :1]).all()
  np.testing.assert_allclose(drawn.mean(axis=0), table.counts, atol=0.13)
  share = table.counts / 10
  np.testing.assert_allclose(
    drawn.var(axis=0), 10 * share * (1 - share), rtol=0.12, atol=1e-9
  )
  assert (drawn[:, table.counts == 0] == 0).all()
  many = tables._multinomial(generator, np.full((500, 2), 10), counts)
  assert (many[:, counts == 0] == 0).all()
  assert (many.sum(axis=-1) == 10).all()


def test_drawn_rows_are_counted_exactly():
  batch = example(3, 50)
  batch["weights"] = np.arange(50) % 5 > 0
  strata = np.arange(50) % 3
  metric = METRICS["group_rates"]
  table = tables.tabulate(metric.cells, [batch], strata)
  live = np.flatnonzero(batch["weights"])
  # The same draws as inside, in the order of the samples of each stratum.
  generator, other = (np.random.default_rng(1) for _ in range(2))
  (drawn,) = tables.draw_rows(generator, table, 4)
  update = jax.jit(lambda w: metric.update(metric.empty, **batch | w))
  for counts in drawn:
    weights = np.zeros(50, np.int32)
    for s in range(3):
      rows = live[strata[live] == s]
      weights[rows] = np.bincount(
        other.integers(0, len(rows), len(rows)), minlength=len(rows)
      )
    expected = update({"weights": weights})
    actual = state_of(metric, table, counts)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("joint", [False, True])
def test_leaving_out_one_sample(joint):
  batch = example(4, 30)
  table = tables.tabulate(METRICS["accuracy"].cells, [batch])
  left = tables.leave_out(table, joint=joint)
  counts = np.concatenate(list(left.blocks))[: len(left.weights)]
  assert (counts.sum(axis=(2, 3)) == 29).all()
  columns = np.arange(ATTRIBUTES) if not joint else np.zeros(3, int)
  for a in range(ATTRIBUTES):
    weights = left.weights[:, columns[a]]
    assert weights.sum() == 30
    found = collections.Counter()
    for weight, cell in zip(
      weights, table.counts[a] - counts[:, a], strict=True
    ):
      if weight:
        found[int(np.flatnonzero(cell.ravel())[0])] += int(weight)
    assert found == {
      i: n for i, n in enumerate(table.counts[a].ravel().tolist()) if n
    }
