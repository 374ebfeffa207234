"""The laws that every metric obeys, over a table of all of them."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics

ROWS, FIRST, ATTRIBUTES, GROUPS = 24, 9, 4, 3
TRAIN = np.random.default_rng(0)
TRAIN_LABELS = TRAIN.random((60, ATTRIBUTES)) < 0.4
TRAIN_GROUPS = TRAIN.random((60, GROUPS)) < 0.5

METRICS = {
  "accuracy": metrics.accuracy(),
  "positive_rate": metrics.positive_rate(0.5),
  "uncertainty": metrics.uncertainty(),
  "auc": metrics.auc(64, details=True),
  "interdependence": metrics.interdependence(),
  "calibration_error": metrics.calibration_error(norm="l2"),
  "threshold_calibration_bias": metrics.threshold_calibration_bias(
    TRAIN_LABELS
  ),
  "bias_amplification": metrics.bias_amplification(
    TRAIN_LABELS, TRAIN_GROUPS, min_positives=2, details=True
  ),
  "backdoor_amplification": metrics.backdoor_amplification(),
  "group_rates": metrics.group_rates(),
}
METRICS["collection"] = metrics.collection(
  {name: METRICS[name] for name in ("accuracy", "group_rates")}
)


@st.composite
def batches(draw):
  """Rows with ties, constant columns, empty groups and rows of weight 0."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  rate = rng.choice([0.0, 0.1, 0.5, 1.0], (1, ATTRIBUTES))
  logits = rng.normal(0, 3, (ROWS, ATTRIBUTES)).round(draw(st.integers(0, 2)))
  return {
    "logits": logits.astype(np.float32),
    "labels": rng.random((ROWS, ATTRIBUTES)) < rate,
    "groups": rng.random((ROWS, GROUPS)) < draw(st.sampled_from([0.0, 0.5])),
    "weights": rng.integers(0, draw(st.sampled_from([1, 2, 4])), ROWS).astype(
      draw(st.sampled_from([np.int32, np.float32]))
    ),
  }


@functools.cache
def functions(name):
  """Returns the compiled parts of a metric, compiled once for all examples."""
  metric = METRICS[name]
  return (
    jax.jit(lambda batch: metric.update(metric.empty, **batch)),
    jax.jit(metric.merge),
    jax.jit(metric.compute),
  )


def cut(batch, rows):
  return {name: x[rows] for name, x in batch.items()}


def same(a, b, tolerance=0.0):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


every_metric = pytest.mark.parametrize("name", METRICS)
few = hypothesis.settings(max_examples=15, deadline=None, derandomize=True)


@every_metric
@few
@hypothesis.given(batch=batches())
def test_merge_laws(name, batch):
  update, merge, compute = functions(name)
  metric = METRICS[name]
  order = np.random.default_rng(1).permutation(ROWS)
  whole = update(batch)
  a, b = (update(cut(batch, rows)) for rows in np.split(order, [FIRST]))
  # Empty is an identity; merge is commutative; splits do not matter.
  same(compute(metric.merge(metric.empty, whole)), compute(whole))
  same(metric.merge(whole, metric.empty), metric.merge(metric.empty, whole))
  same(merge(a, b), merge(b, a))
  same(merge(a, b), whole, 1e-5)
  same(merge(merge(a, b), whole), merge(a, merge(b, whole)), 1e-5)


@every_metric
@few
@hypothesis.given(batch=batches())
def test_rows_of_weight_zero_do_not_matter(name, batch):
  update, _, compute = functions(name)
  dead = batch["weights"] == 0
  spoilt = dict(batch)
  spoilt["logits"] = np.where(dead[:, None], np.float32(np.nan), batch["logits"])
  spoilt["labels"] = batch["labels"] ^ dead[:, None]
  spoilt["groups"] = batch["groups"] ^ dead[:, None]
  same(update(spoilt), update(batch))
  same(compute(update(spoilt)), compute(update(batch)))


def example(seed=0, rows=ROWS):
  rng = np.random.default_rng(seed)
  return {
    "logits": rng.normal(0, 2, (rows, ATTRIBUTES)).astype(np.float32),
    "labels": rng.random((rows, ATTRIBUTES)) < 0.5,
    "groups": rng.random((rows, GROUPS)) < 0.5,
  }


@every_metric
def test_jit_equals_eager(name):
  metric, (update, merge, compute) = METRICS[name], functions(name)
  batch = example()
  state = metric.update(metric.empty, **batch)
  same(update(batch), state, 1e-6)
  same(merge(state, state), metric.merge(state, state))
  same(compute(state), metric.compute(state), 1e-6)


@every_metric
def test_whole_weights_repeat_rows(name):
  batch = example()
  weights = np.random.default_rng(2).integers(0, 4, ROWS)
  repeated = {n: np.repeat(x, weights, axis=0) for n, x in batch.items()}
  metric = METRICS[name]
  weighted = metric.update(metric.empty, **batch, weights=weights)
  same(weighted, metric.update(metric.empty, **repeated), 1e-6)


@every_metric
def test_evaluate_and_scan_agree_with_one_batch(name):
  metric, batch = METRICS[name], example()
  parts = [cut(batch, slice(i, i + 8)) for i in range(0, ROWS, 8)]
  expected = metrics.compute(metric, **batch)
  same(metrics.evaluate(metric, parts), expected, 1e-5)
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *parts)
  state, _ = jax.lax.scan(
    lambda state, part: (metric.update(state, **part), None),
    metrics.start(metric, **parts[0]),
    stacked,
  )
  same(metric.compute(state), expected, 1e-5)


@every_metric
def test_vmap_equals_loop(name):
  metric = METRICS[name]
  pair = [example(seed) for seed in (3, 4)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *pair)
  mapped = jax.vmap(lambda batch: metrics.compute(metric, **batch))(stacked)
  for i, batch in enumerate(pair):
    same(
      jax.tree.map(lambda x, i=i: x[i], mapped),
      metrics.compute(metric, **batch),
      1e-5,
    )


@every_metric
def test_no_sample_is_undefined(name):
  metric = METRICS[name]
  for value in (metrics.evaluate(metric, []), metric.compute(metric.empty)):
    floats = [
      x for x in jax.tree.leaves(value) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    assert floats
    assert all(np.isnan(x).all() for x in floats)


@every_metric
def test_a_nan_logit_makes_its_attribute_undefined(name):
  metric, batch = METRICS[name], example(rows=200)
  clean = metrics.compute(metric, **batch)
  batch["logits"][5, 1] = np.nan
  spoilt = metrics.compute(metric, **batch)
  for x, y in zip(jax.tree.leaves(clean), jax.tree.leaves(spoilt), strict=True):
    if not jnp.issubdtype(x.dtype, jnp.floating):
      continue
    assert np.isnan(y[..., 1]).all()
    if name != "interdependence":
      others = [0, 2, 3]
      np.testing.assert_array_equal(x[..., others], y[..., others])


@every_metric
def test_counts_are_integers_and_statistics_float32(name):
  metric, batch = METRICS[name], example()
  state = metric.update(metric.empty, **batch)
  offsets = {"calibration_error": 1}
  dtypes = [x.dtype for x in jax.tree.leaves(state)]
  assert dtypes.count(jnp.float32) == offsets.get(name, 0)
  assert set(dtypes) <= {jnp.dtype(jnp.int32), jnp.dtype(jnp.float32)}
  floats = [
    x.dtype
    for x in jax.tree.leaves(metric.compute(state))
    if jnp.issubdtype(x.dtype, jnp.floating)
  ]
  assert set(floats) == {jnp.dtype(jnp.float32)}


def test_counts_stay_exact_for_many_samples():
  rows = 200_003
  labels = np.ones((rows, 2), bool)
  labels[:1, 1] = False
  logits = np.ones((rows, 2), np.float32)
  batch = {"logits": logits, "labels": labels}
  metric = metrics.accuracy()
  state = metric.empty
  for _ in range(90):  # 18 million: beyond the whole numbers of float32
    state = metric.update(state, **batch)
  np.testing.assert_array_equal(state.count, [90 * rows, 90 * (rows - 1)])
  assert int(state.total) == 90 * rows
