"""The laws that every metric obeys, over a table of all of them."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics

ROWS, ATTRIBUTES, GROUPS = 24, 4, 3
TRAIN = np.random.default_rng(0)
TRAIN_LABELS = TRAIN.random((60, ATTRIBUTES)) < 0.4
TRAIN_GROUPS = TRAIN.random((60, GROUPS)) < 0.5


def table_of_metrics(labels, groups):
  """Returns every metric, told of labels and groups of training."""
  return {
    "accuracy": metrics.accuracy(),
    "positive_rate": metrics.positive_rate(0.5),
    "uncertainty": metrics.uncertainty(),
    "auc": metrics.auc(64, details=True),
    "group_auc": metrics.group_auc(64, details=True),
    "interdependence": metrics.interdependence(),
    "mutual_information": metrics.mutual_information(),
    "calibration_error": metrics.calibration_error(norm="l2"),
    "calibration_of_groups": metrics.calibration_error(
      by_group=True, details=True
    ),
    "classwise_calibration": metrics.calibration_error(confidence="classwise"),
    "brier_score": metrics.brier_score(details=True),
    "negative_log_likelihood": metrics.negative_log_likelihood(),
    "entropy": metrics.entropy(),
    "threshold_calibration_bias": metrics.threshold_calibration_bias(labels),
    "bias_amplification": metrics.bias_amplification(
      labels, groups, min_positives=2, details=True
    ),
    "backdoor_amplification": metrics.backdoor_amplification(),
    "group_rates": metrics.group_rates(),
    "directional_bias_amplification": metrics.directional_bias_amplification(
      labels, groups, details=True
    ),
    "mals": metrics.mals(details=True),
    "selective_rates": metrics.selective_rates(0.2),
    "flips": metrics.flips(),
    "error_change": metrics.error_change(reference_threshold=0.5),
    "divergence": metrics.divergence(),
    "dense_criteria": metrics.dense_criteria(labels, groups, min_positives=2),
  }


METRICS = table_of_metrics(TRAIN_LABELS, TRAIN_GROUPS)
NO_ATTRIBUTES = table_of_metrics(TRAIN_LABELS[:, :0], TRAIN_GROUPS)
# Each value of these depends on the logits of all attributes.
JOINT = ("interdependence", "mutual_information", "classwise_calibration")
METRICS["disparities"] = METRICS["group_rates"]._replace(
  compute=lambda state: metrics.disparities(
    METRICS["group_rates"].compute(state)
  )
)
METRICS["collection"] = metrics.collection(
  {name: METRICS[name] for name in ("accuracy", "group_rates")}
)


@st.composite
def batches(draw):
  """Rows with ties, constant columns, empty groups and rows of weight 0."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  rate = rng.choice([0.0, 0.1, 0.5, 1.0], (1, ATTRIBUTES))
  logits = rng.normal(0, 3, (ROWS, ATTRIBUTES)).round(draw(st.integers(0, 2)))
  reference = logits + rng.normal(0, 1, logits.shape).round()
  return {
    "logits": logits.astype(np.float32),
    "reference_logits": reference.astype(np.float32),
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
# One for each way of adding up rows; the others compile for long.
QUICK = (
  "group_auc",
  "calibration_of_groups",
  "brier_score",
  "group_rates",
  "directional_bias_amplification",
  "divergence",
  "interdependence",
  "collection",
)
kinds_of_metrics = pytest.mark.parametrize(
  "name",
  [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in METRICS
  ],
)
few = hypothesis.settings(max_examples=15, deadline=None, derandomize=True)


@every_metric
@few
@hypothesis.given(batch=batches(), seed=st.integers(0, 2**32 - 1))
def test_merge_laws(name, batch, seed):
  update, merge, compute = functions(name)
  whole = update(batch)
  # Parts in which the other rows weigh 0 keep their shape, so that each
  # function is compiled once; shorter batches are tested below.
  part = np.random.default_rng(seed).integers(0, 3, ROWS)
  a, b, c = (
    update({**batch, "weights": batch["weights"] * (part == i)})
    for i in range(3)
  )
  same(merge(a, b), merge(b, a))
  same(merge(merge(a, b), c), merge(a, merge(b, c)), 1e-6)
  same(merge(merge(a, b), c), whole, 1e-5)
  empty = update({**batch, "weights": 0 * batch["weights"]})
  same(merge(empty, whole), whole)
  same(compute(merge(whole, empty)), compute(whole))


@every_metric
@few
@hypothesis.given(batch=batches())
def test_rows_of_weight_zero_do_not_matter(name, batch):
  update, _, compute = functions(name)
  dead = batch["weights"] == 0
  spoilt = dict(batch)
  for name in ("logits", "reference_logits"):
    spoilt[name] = np.where(dead[:, None], np.float32(np.nan), batch[name])
  spoilt["labels"] = batch["labels"] ^ dead[:, None]
  spoilt["groups"] = batch["groups"] ^ dead[:, None]
  same(update(spoilt), update(batch))
  same(compute(update(spoilt)), compute(update(batch)))


def example(seed=0, rows=ROWS):
  rng = np.random.default_rng(seed)
  batch = {
    "logits": rng.normal(0, 2, (rows, ATTRIBUTES)).astype(np.float32),
    "labels": rng.random((rows, ATTRIBUTES)) < 0.5,
    "groups": rng.random((rows, GROUPS)) < 0.5,
  }
  reference = rng.normal(0, 2, (rows, ATTRIBUTES)).astype(np.float32)
  return {**batch, "reference_logits": reference}


@kinds_of_metrics
def test_jit_equals_eager(name):
  metric, (update, merge, compute) = METRICS[name], functions(name)
  batch = example()
  with jax.disable_jit():
    state = metric.update(metric.empty, **batch)
    twice, value = metric.merge(state, state), metric.compute(state)
  same(update(batch), state, 1e-6)
  same(merge(state, state), twice)
  same(compute(state), value, 1e-6)


@every_metric
def test_whole_weights_repeat_rows(name):
  update, *_ = functions(name)
  batch = example()
  weights = np.array([0, 1, 2] * (ROWS // 3), np.int32)
  repeated = {n: np.repeat(x, weights, axis=0) for n, x in batch.items()}
  ones = np.ones(ROWS, np.int32)
  weighted = update({**batch, "weights": weights})
  same(weighted, update({**repeated, "weights": ones}), 1e-6)
  same(weighted, update(repeated), 1e-6)


@kinds_of_metrics
def test_batches_in_a_loop_and_in_a_scan(name):
  metric, (update, _, compute) = METRICS[name], functions(name)
  batch = example()
  parts = [cut(batch, slice(i, i + 8)) for i in range(0, ROWS, 8)]
  expected = compute(update(batch))
  same(metrics.evaluate(metric, parts), expected, 1e-5)

  @jax.jit
  def scan(stacked):
    state, _ = jax.lax.scan(
      lambda state, part: (metric.update(state, **part), None),
      metrics.start(metric, **parts[0]),
      stacked,
    )
    return state

  stacked = jax.tree.map(lambda *x: np.stack(x), *parts)
  same(compute(scan(stacked)), expected, 1e-5)


@every_metric
def test_empty_is_an_identity(name):
  metric, (update, _, compute) = METRICS[name], functions(name)
  state = update(example())
  for merged in (
    metric.merge(metric.empty, state),
    metric.merge(state, metric.empty),
    metric.merge(metrics.start(metric, **example()), state),
  ):
    same(compute(merged), compute(state))


@pytest.mark.parametrize("name", NO_ATTRIBUTES)
def test_there_may_be_no_attributes(name):
  batch = example()
  for key in ("logits", "reference_logits", "labels"):
    batch[key] = batch[key][:, :0]
  found = metrics.compute(NO_ATTRIBUTES[name], **batch)
  expected = jax.eval_shape(lambda: metrics.compute(METRICS[name], **example()))
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for x, y in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    shape = tuple(0 if size == ATTRIBUTES else size for size in y.shape)
    assert (x.shape, x.dtype) == (shape, y.dtype)


@every_metric
def test_vmap_equals_loop(name):
  metric, (update, _, compute) = METRICS[name], functions(name)
  pair = [example(seed) for seed in (3, 4)]
  stacked = jax.tree.map(lambda *x: np.stack(x), *pair)
  mapped = jax.jit(
    jax.vmap(lambda batch: metric.compute(metric.update(metric.empty, **batch)))
  )(stacked)
  for i, batch in enumerate(pair):
    one = jax.tree.map(lambda x, i=i: x[i], mapped)
    same(one, compute(update(batch)), 1e-5)


@every_metric
def test_no_sample_is_undefined(name):
  metric, (update, _, compute) = METRICS[name], functions(name)
  nothing = {**example(), "weights": np.zeros(ROWS, np.int32)}
  for value in (metrics.evaluate(metric, []), compute(update(nothing))):
    floats = [
      x for x in jax.tree.leaves(value) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    assert floats
    assert all(np.isnan(x).all() for x in floats)


@every_metric
def test_a_nan_logit_makes_its_attribute_undefined(name):
  update, _, compute = functions(name)
  batch = example()
  clean = compute(update(batch))
  batch["logits"][5, 1] = np.nan
  spoilt = compute(update(batch))
  for x, y in zip(jax.tree.leaves(clean), jax.tree.leaves(spoilt), strict=True):
    if not jnp.issubdtype(x.dtype, jnp.floating):
      continue
    assert np.isnan(y[..., 1] if y.ndim else y).all()
    if not y.ndim:
      continue  # one number for all attributes
    if name not in JOINT:
      others = np.array([0, 2, 3])
      np.testing.assert_array_equal(x[..., others], y[..., others])


@every_metric
def test_counts_are_integers_and_statistics_float32(name):
  update, _, compute = functions(name)
  state = update(example())
  sums = {
    "calibration_error": 1,
    "calibration_of_groups": 1,
    "classwise_calibration": 1,
    "brier_score": 3,
    "negative_log_likelihood": 1,
    "entropy": 1,
    "divergence": 1,
  }
  dtypes = [x.dtype for x in jax.tree.leaves(state)]
  assert dtypes.count(jnp.float32) == sums.get(name, 0)
  assert set(dtypes) <= {jnp.dtype(jnp.int32), jnp.dtype(jnp.float32)}
  floats = {
    x.dtype
    for x in jax.tree.leaves(compute(state))
    if jnp.issubdtype(x.dtype, jnp.floating)
  }
  assert floats == {jnp.dtype(jnp.float32)}


def test_counts_stay_exact_for_many_samples():
  rows = 200_003
  labels = np.ones((rows, 2), bool)
  labels[:1, 1] = False
  logits = np.ones((rows, 2), np.float32)
  batch = {"logits": logits, "labels": labels}
  metric = metrics.accuracy()
  state = metric.empty
  update = jax.jit(lambda state: metric.update(state, **batch))
  for _ in range(90):  # 18 million: beyond the whole numbers of float32
    state = update(state)
  np.testing.assert_array_equal(state.count, [90 * rows, 90 * (rows - 1)])
  assert int(state.total) == 90 * rows
