import jax
import numpy as np
import pytest
import scipy.stats

from effjax import metrics
from effjax.metrics import base, resampling


def rows_only(metric):
  return metric._replace(cells=None)


# Shared, so that each is compiled once.
ACCURACY = metrics.accuracy()
RATES = metrics.group_rates()


def data(rows=400, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, 2)) < [[0.3, 0.6]]
  logits = rng.normal(size=(rows, 2)) + 2 * labels
  return {"logits": logits.astype(np.float32), "labels": labels}


def test_bootstrap_agrees_with_the_normal_interval_of_a_rate():
  batch = data()
  metric = ACCURACY
  interval = metrics.bootstrap(jax.random.key(0), metric, batch, 2000)
  rate = np.asarray(metrics.compute(metric, **batch))
  half = 1.96 * np.sqrt(rate * (1 - rate) / 400)
  np.testing.assert_allclose(interval.estimate, rate, rtol=1e-6)
  np.testing.assert_allclose(interval.low, rate - half, atol=0.006)
  np.testing.assert_allclose(interval.high, rate + half, atol=0.006)
  np.testing.assert_array_equal(interval.count, [2000, 2000])


def test_intervals_cover_as_often_as_they_say():
  # Every attribute is a data set of its own.
  decisions = np.random.default_rng(0).random((150, 400)) < 0.7
  for method in ("percentile", "bca"):
    interval = metrics.bootstrap(
      jax.random.key(0),
      metrics.positive_rate(),
      {"predictions": decisions},
      400,
      level=0.9,
      method=method,
    )
    inside = (interval.low <= 0.7) & (interval.high >= 0.7)
    # 0.9 within four standard errors, 0.015 each.
    assert abs(float(inside.mean()) - 0.9) < 0.06


def test_bootstrap_of_trees_and_of_undefined_values():
  batch = data(60)
  batch["groups"] = np.zeros((60, 2), bool)
  batch["groups"][0, 0] = True  # a group of one sample, and one of none
  interval = metrics.bootstrap(jax.random.key(1), RATES, batch, 200)
  counts = np.asarray(interval.count.accuracy)
  # A resample misses one given sample with probability 1/e.
  assert (np.abs(counts[0] / 200 - 0.63) < 0.12).all()
  np.testing.assert_array_equal(counts[1], [0, 0])
  assert np.isnan(interval.low.accuracy[1]).all()
  assert np.isfinite(interval.low.accuracy[0]).all()


def test_paired_bootstrap_draws_the_same_rows():
  batch = data()
  better = {**batch, "logits": batch["logits"].copy()}
  wrong = (batch["logits"] > 0) != batch["labels"]
  better["logits"][wrong] *= np.where(np.arange(wrong.sum()) < 8, -1, 1)
  metric = ACCURACY
  same = metrics.bootstrap(jax.random.key(2), metric, batch, 100, paired=batch)
  np.testing.assert_array_equal(same.low, [0.0, 0.0])
  np.testing.assert_array_equal(same.high, [0.0, 0.0])
  interval = metrics.bootstrap(
    jax.random.key(2), metric, better, 500, paired=batch
  )
  # Only gains are resampled, so no lower end is below 0.
  assert (np.asarray(interval.low) >= 0).all()
  assert (np.asarray(interval.high) < 0.06).all()
  np.testing.assert_allclose(
    interval.estimate,
    metrics.compute(metric, **better) - metrics.compute(metric, **batch),
    atol=1e-6,
  )


def test_rows_of_weight_zero_are_never_drawn():
  batch = data(80)
  padded = {
    name: np.concatenate(
      [x, np.full_like(x[:40], np.nan if x.dtype == np.float32 else True)]
    )
    for name, x in batch.items()
  }
  padded["weights"] = np.arange(120) < 80
  key, metric = jax.random.key(3), ACCURACY
  plain = metrics.bootstrap(key, metric, batch, 50)
  other = metrics.bootstrap(key, metric, padded, 50)
  for name in ("estimate", "low", "high"):
    np.testing.assert_allclose(
      getattr(plain, name), getattr(other, name), rtol=1e-6
    )


def test_same_key_same_interval():
  batch = data(50)
  first, again, other = (
    metrics.bootstrap(jax.random.key(seed), metrics.auc(64), batch, 50)
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first.low, again.low)
  assert (np.asarray(first.low) != np.asarray(other.low)).any()


def gap(state):
  tpr = RATES.compute(state).tpr
  return {"gap": tpr[0] - tpr[1], "tpr": tpr}


# One gap between two overlapping groups.
GAP = RATES._replace(compute=gap)


def grouped(rows=400, seed=0):
  batch = data(rows, seed)
  rng = np.random.default_rng(seed + 1)
  first = rng.random(rows) < 0.5
  other = np.where(rng.random(rows) < 0.8, first, ~first)
  batch["logits"] -= 1.5
  return {**batch, "groups": np.stack([first, other], axis=1)}


CELL_METRICS = {
  "gap": GAP,
  "auc": metrics.auc(),
  "auc_of_few_bins": metrics.auc(64),
  "group_auc": metrics.group_auc(),
  "calibration_of_groups": metrics.calibration_error(by_group=True),
  "excess_error": metrics.excess_error(),
  "calibration_error": metrics.calibration_error(norm="l2"),
  "backdoor": metrics.backdoor_amplification(),
}


@pytest.mark.parametrize("name", CELL_METRICS)
def test_cells_give_the_distribution_of_rows(name):
  metric, batch = CELL_METRICS[name], grouped()
  batch["reference_logits"] = batch["logits"][::-1]
  same_distribution(metric, batch)


PAIRED = {name: CELL_METRICS[name] for name in ("auc", "calibration_error")}


@pytest.mark.parametrize("name", PAIRED)
def test_joint_cells_give_the_distribution_of_paired_rows(name):
  batch = grouped()
  noise = 0.5 * np.random.default_rng(5).normal(size=batch["logits"].shape)
  other = {**batch, "logits": batch["logits"] + noise.astype(np.float32)}
  same_distribution(PAIRED[name], batch, other)


def same_distribution(metric, batch, paired=None):
  key = jax.random.key(0)
  cells, rows = (
    resampling.draw(key, resampling.prepare(m, batch, paired), n)
    for m, n in ((metric, 2000), (rows_only(metric), 600))
  )
  assert resampling.prepare(metric, batch, paired).counted is not None
  for x, y in zip(jax.tree.leaves(cells), jax.tree.leaves(rows), strict=True):
    x, y = np.asarray(x), np.asarray(y)
    # Five standard errors of means, of spreads, and of 5 % quantiles.
    np.testing.assert_allclose(
      x.mean(axis=0), y.mean(axis=0), atol=5 * y.std(axis=0).max() / 21
    )
    np.testing.assert_allclose(x.std(axis=0), y.std(axis=0), rtol=0.15)
    for q in (0.05, 0.95):
      np.testing.assert_allclose(
        np.quantile(x, q, axis=0),
        np.quantile(y, q, axis=0),
        atol=0.4 * y.std(axis=0).max(),
      )


def accuracy_of(batch):
  right = (batch["logits"] > 0) == batch["labels"]
  return right[:, 0].astype(float)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("cells", [True, False])
def test_bootstrap_agrees_with_scipy(method, cells):
  # A rare event: a skewed distribution, where BCa differs by several errors.
  batch = data(120)
  batch["logits"] = np.where(batch["labels"], 1, -1).astype(np.float32)
  batch["logits"][:6] *= -1
  metric = ACCURACY
  interval = metrics.bootstrap(
    jax.random.key(0),
    metric if cells else rows_only(metric),
    batch,
    4000 if cells else 1000,
    level=0.9,
    method=method,
  )
  reference = scipy.stats.bootstrap(
    (accuracy_of(batch),),
    np.mean,
    n_resamples=9999,
    confidence_level=0.9,
    method=method,
    rng=np.random.default_rng(0),
  ).confidence_interval
  # The accuracy moves in steps of 1/120.
  np.testing.assert_allclose(interval.low[0], reference.low, atol=1.1 / 120)
  np.testing.assert_allclose(interval.high[0], reference.high, atol=1.1 / 120)


def exact_gap(batch):
  groups, labels = batch["groups"].astype(float), batch["labels"]
  tpr = groups.T @ ((batch["logits"] > 0) & labels) / (groups.T @ labels)
  return tpr[0] - tpr[1]


def test_bca_equals_its_formula():
  batch = grouped(80)
  for metric in (GAP, rows_only(GAP)):
    key, plan = jax.random.key(1), resampling.prepare(metric, batch)
    samples = np.asarray(resampling.draw(key, plan, 500)["gap"], np.float64)
    estimate = np.asarray(plan.estimate["gap"], np.float64)
    left = np.stack(
      [
        exact_gap({n: np.delete(x, i, 0) for n, x in batch.items()})
        for i in range(80)
      ]
    )
    influence = left.mean(axis=0) - left
    speed = (influence**3).sum(axis=0) / 6
    speed /= (influence**2).sum(axis=0) ** 1.5
    below = (samples < estimate).mean(axis=0) / 2
    bias = scipy.stats.norm.ppf(below + (samples <= estimate).mean(axis=0) / 2)
    interval = metrics.bootstrap(key, metric, batch, 500, method="bca")
    for end, z in ((interval.low, -1.959964), (interval.high, 1.959964)):
      level = scipy.stats.norm.cdf(bias + (bias + z) / (1 - speed * (bias + z)))
      for a in range(2):
        expected = np.quantile(samples[:, a], level[a])
        np.testing.assert_allclose(end["gap"][a], expected, atol=2e-4)


def test_a_constant_has_no_width():
  batch = data(50)
  batch["logits"] = np.where(batch["labels"], 1, -1).astype(np.float32)
  for metric in (ACCURACY, rows_only(ACCURACY)):
    for method in ("percentile", "bca"):
      interval = metrics.bootstrap(
        jax.random.key(0), metric, batch, 20, method=method
      )
      for end in interval[:3]:
        np.testing.assert_array_equal(end, [1.0, 1.0])


def test_strata_keep_their_sizes():
  batch = data(50)
  strata = batch["labels"][:, 0]
  metric = metrics.positive_rate()
  labels = {**batch, "predictions": batch["labels"]}
  for m in (metric, rows_only(metric)):
    interval = metrics.bootstrap(
      jax.random.key(0), m, labels, 50, strata=strata
    )
    for end in interval[:3]:
      np.testing.assert_allclose(end[0], strata.mean(), rtol=1e-6)
    assert interval.low[1] < interval.high[1]
  # Nothing is left to vary where the strata tell all decisions.
  several = np.random.default_rng(0).integers(-3, 3, 50)
  decided = {**batch, "predictions": several[:, None] > [0, 0]}
  interval = metrics.bootstrap(
    jax.random.key(0), metric, decided, 50, strata=several
  )
  np.testing.assert_array_equal(interval.low, interval.high)


def test_stratified_bca_equals_scipy_for_two_samples():
  rng = np.random.default_rng(3)
  group = np.arange(90) < 30
  decisions = rng.random((90, 1)) < np.where(group, 0.1, 0.4)[:, None]
  batch = {
    "predictions": decisions,
    "labels": decisions,
    "groups": np.stack([group, ~group], axis=1),
  }
  metric = RATES
  difference = lambda state: jax.numpy.subtract(
    *metric.compute(state).selection_rate
  )
  reference = scipy.stats.bootstrap(
    (decisions[group, 0].astype(float), decisions[~group, 0].astype(float)),
    lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
    n_resamples=9999,
    method="BCa",
    rng=np.random.default_rng(0),
  ).confidence_interval
  for m in (metric, rows_only(metric)):
    interval = metrics.bootstrap(
      jax.random.key(0),
      m._replace(compute=difference),
      batch,
      1000,
      strata=group,
      method="bca",
    )
    np.testing.assert_allclose(interval.low[0], reference.low, atol=0.03)
    np.testing.assert_allclose(interval.high[0], reference.high, atol=0.03)


def test_values_that_combine_attributes_share_their_rows():
  # Two equal columns: their difference is 0 in every resample of rows, and
  # their mean varies like one of them.
  batch = {n: np.repeat(x[:, :1], 2, axis=1) for n, x in data(150).items()}
  metric = ACCURACY
  difference = lambda state: metric.compute(state)[0] - metric.compute(state)[1]
  interval = metrics.bootstrap(
    jax.random.key(0), metric._replace(compute=difference), batch, 50
  )
  assert float(interval.low) == float(interval.high) == 0.0
  apart = metrics.bootstrap(
    jax.random.key(0),
    metric._replace(compute=difference),
    batch,
    50,
    joint=False,
  )
  assert float(apart.high) > 0.01
  mean = metric._replace(compute=lambda s: metric.compute(s).mean())
  for method in ("percentile", "bca"):
    wide, rows = (
      metrics.bootstrap(jax.random.key(0), m, batch, 500, method=method)
      for m in (mean, rows_only(mean))
    )
    np.testing.assert_allclose(wide.low, rows.low, atol=0.012)
    np.testing.assert_allclose(wide.high, rows.high, atol=0.012)


def test_explicit_resamples_equal_a_loop():
  batch = grouped(60)
  index = np.random.default_rng(0).integers(0, 60, (30, 45))
  metric = GAP
  interval = metrics.explicit_bootstrap(metric, batch, index, level=0.8)
  values = np.stack(
    [
      base.compute(metric, **{n: x[i] for n, x in batch.items()})["gap"]
      for i in index
    ]
  )
  for end, q in ((interval.low, 0.1), (interval.high, 0.9)):
    np.testing.assert_allclose(
      end["gap"], np.nanquantile(values, q, axis=0), atol=1e-6
    )
  same = metrics.explicit_bootstrap(metric, batch, index, paired=batch)
  np.testing.assert_array_equal(same.low["gap"], [0.0, 0.0])


def test_nan_logits_spoil_the_resamples_that_draw_them():
  batch = data(50)
  batch["logits"][3, 1] = np.nan
  for metric in (ACCURACY, metrics.auc(64)):
    interval = metrics.bootstrap(jax.random.key(0), metric, batch, 300)
    assert np.isnan(interval.estimate[1])
    assert int(interval.count[0]) == 300
    assert abs(int(interval.count[1]) / 300 - np.exp(-1)) < 0.12


def test_paired_cells_draw_the_same_rows():
  batch = grouped(300)
  other = {**batch, "logits": batch["logits"] + 0.3}
  metric = GAP
  cells, rows = (
    metrics.bootstrap(jax.random.key(0), m, batch, 800, paired=other)
    for m in (metric, rows_only(metric))
  )
  assert resampling.prepare(metric, batch, other).counted is not None
  width = np.asarray(rows.high["tpr"] - rows.low["tpr"])
  assert (np.abs(cells.low["tpr"] - rows.low["tpr"]) < 0.2 * width).all()
  assert (np.abs(cells.high["tpr"] - rows.high["tpr"]) < 0.2 * width).all()


def test_under_jit_rows_are_drawn():
  batch = data(40)
  function = lambda key, batch: metrics.bootstrap(key, ACCURACY, batch, 200)
  inside = jax.jit(function)(jax.random.key(0), batch)
  outside = metrics.bootstrap(
    jax.random.key(0), rows_only(ACCURACY), batch, 200
  )
  np.testing.assert_allclose(inside.low, outside.low, rtol=1e-6)
  np.testing.assert_allclose(inside.high, outside.high, rtol=1e-6)


def test_old_keys_and_weights_that_are_no_selection():
  batch = data(60)
  old = metrics.bootstrap(jax.random.PRNGKey(7), ACCURACY, batch, 30)
  new = metrics.bootstrap(jax.random.key(7), ACCURACY, batch, 30)
  np.testing.assert_array_equal(old.low, new.low)
  batch["weights"] = np.arange(60) % 3
  plan = resampling.prepare(ACCURACY, batch)
  assert plan.counted is None
  interval = metrics.bootstrap(jax.random.key(0), ACCURACY, batch, 200)
  assert (np.asarray(interval.low) < interval.estimate).all()


def test_unusable_options():
  key, metric, batch = jax.random.key(0), ACCURACY, data(20)
  with pytest.raises(ValueError, match="resamples must be a whole"):
    metrics.bootstrap(key, metric, batch, 0)
  with pytest.raises(ValueError, match="resamples must be a whole"):
    metrics.bootstrap(key, metric, batch, 2.5)
  with pytest.raises(ValueError, match="level must lie"):
    metrics.bootstrap(key, metric, batch, level=95)
  with pytest.raises(ValueError, match="method must be one of percentile, bca"):
    metrics.bootstrap(key, metric, batch, method="BC")
  with pytest.raises(ValueError, match=r"strata must have shape \[20\]"):
    metrics.bootstrap(key, metric, batch, strata=np.zeros(19))
  with pytest.raises(ValueError, match=r"same number of rows, got \[3, 4\]"):
    metrics.bootstrap(
      key, metric, {"logits": np.zeros((3, 1)), "labels": np.zeros((4, 1))}
    )
  with pytest.raises(ValueError, match="0 to 20, but the batch has 20 rows"):
    metrics.explicit_bootstrap(metric, batch, np.arange(21)[None])
  with pytest.raises(ValueError, match=r"matrix \[R, n\] of integers"):
    metrics.explicit_bootstrap(metric, batch, np.arange(20))
