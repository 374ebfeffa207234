"""Amplification with a direction, and MALS, against brute force and goldens."""

import jax
import numpy as np
import pytest

from effjax import metrics
from tests.metrics.test_golden import load

DIRECTIONS = ["group_to_attribute", "attribute_to_group"]
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
NAN = np.nan
# Metrics without training, compiled once for all tests.
PLAIN = {
  d: metrics.directional_bias_amplification(direction=d, details=True)
  for d in DIRECTIONS
}


def golden(labels="test_labels"):
  data = load("directional_ba")
  groups, tasks = data["attr_idx"], data["task_idx"]
  batch = {
    "predictions": data["preds"][:, tasks],
    "group_predictions": data["preds"][:, groups],
    "labels": data[labels][:, tasks],
    "groups": data[labels][:, groups],
  }
  train = data["train_labels"][:, tasks], data["train_labels"][:, groups]
  return data, batch, train


@every_direction
def test_golden(direction):
  data, batch, train = golden()
  name = {"g": "a_to_t", "a": "t_to_a"}[direction[0]]
  metric = metrics.directional_bias_amplification(*train, direction=direction)
  value = metrics.compute(metric, **batch)
  assert float(value) == pytest.approx(float(data[f"train_dir_{name}"]))
  value = metrics.compute(PLAIN[direction], **batch).value
  assert float(value) == pytest.approx(float(data[f"test_dir_{name}"]))


def test_golden_without_one_group():
  data, batch, train = golden("empty_attr_test_labels")
  metric = metrics.directional_bias_amplification(*train, details=True)
  found = metrics.compute(metric, **batch)
  assert float(found.value) == pytest.approx(float(data["empty_attr_a_to_t"]))
  assert np.isnan(found.pairs[-1]).all()
  assert np.isfinite(found.pairs[:-1]).all()
  assert int(found.estimable) == 2 * len(data["task_idx"])
  np.testing.assert_array_equal(found.support[-1], 0)


@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_golden_mals(convention):
  data, batch, _ = golden()
  batch["groups"] = np.concatenate(
    [batch["groups"][:, :1], ~batch["groups"][:, :1]], axis=1
  )
  metric = metrics.mals(convention=convention)
  value = metrics.compute(metric, **batch)
  assert float(value) == pytest.approx(float(data["mals"]), abs=1e-7)
  # From the counts themselves, as labels of training.
  cells = data["mals_bog_labels"].astype(int)
  rows = np.repeat(np.arange(cells.size), cells.reshape(-1))
  train = (
    np.eye(len(cells), dtype=bool)[rows // 2],
    np.eye(2, dtype=bool)[rows % 2],
  )
  value = metrics.compute(metrics.mals(*train, convention=convention), **batch)
  assert float(value) == pytest.approx(float(data["mals"]), abs=1e-7)


def rates(joint, condition):
  with np.errstate(invalid="ignore"):
    return joint / condition


def brute_force(batch, direction, train=None):
  """Pairs y * delta [G, A] in float64, by loops over samples' columns."""
  labels, groups = batch["labels"], batch["groups"]
  t, g = train or (labels, groups)
  some = t.any(1) | g.any(1)
  t, g = t[some], g[some]
  pairs = np.zeros((groups.shape[1], labels.shape[1]))
  for i in range(pairs.shape[0]):
    for a in range(pairs.shape[1]):
      both = int((g[:, i] & t[:, a]).sum())
      sign = np.sign(both * len(t) - int(g[:, i].sum()) * int(t[:, a].sum()))
      if direction == "group_to_attribute":
        inside = groups[:, i]
        made, true = batch["predictions"][:, a], labels[:, a]
      else:
        inside = labels[:, a]
        made, true = batch["group_predictions"][:, i], groups[:, i]
      pairs[i, a] = sign * (
        rates((made & inside).sum(), inside.sum())
        - rates((true & inside).sum(), inside.sum())
      )
  return pairs


def example(seed, rows=40):
  rng = np.random.default_rng(seed)
  rate = rng.choice([0.0, 0.1, 0.5, 1.0], 4)
  return {
    "predictions": rng.random((rows, 4)) < 0.4,
    "group_predictions": rng.random((rows, 3)) < 0.4,
    "labels": rng.random((rows, 4)) < rate,
    "groups": rng.random((rows, 3)) < rng.choice([0.0, 0.2, 0.5], 3),
  }


@every_direction
@pytest.mark.parametrize("seed", range(6))
def test_equals_brute_force(direction, seed):
  batch = example(seed)
  found = metrics.compute(PLAIN[direction], **batch)
  expected = brute_force(batch, direction)
  np.testing.assert_allclose(found.pairs, expected, atol=1e-6)
  defined = ~np.isnan(expected)
  assert int(found.estimable) == defined.sum()
  np.testing.assert_allclose(
    found.value,
    expected[defined].mean() if defined.any() else NAN,
    atol=1e-6,
  )


@every_direction
def test_sign_of_training(direction):
  batch, other = example(1), example(2, 90)
  train = other["labels"], other["groups"]
  metric = metrics.directional_bias_amplification(
    *train, direction=direction, details=True
  )
  found = metrics.compute(metric, **batch)
  np.testing.assert_allclose(
    found.pairs, brute_force(batch, direction, train), atol=1e-6
  )
  with pytest.raises(ValueError, match="3 and 3 columns, but in training 3"):
    metrics.compute(
      metric,
      **{
        **batch,
        "labels": batch["labels"][:, :3],
        "predictions": batch["predictions"][:, :3],
      },
    )


@pytest.mark.parametrize(("more", "sign"), [(0, 0), (1, 1), (-1, -1)])
def test_independence_is_decided_exactly(more, sign):
  # The products are above 2^33 and differ by little: beyond float32 and int32.
  weights = np.full(4, 50_000, np.int32) + np.array([more, 0, 0, 0], np.int32)
  groups = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
  labels = np.array([[1], [0], [1], [0]], bool)
  batch = {"predictions": ~labels, "labels": labels, "groups": groups}
  found = metrics.compute(
    PLAIN["group_to_attribute"],
    **batch,
    group_predictions=groups,
    weights=weights,
  )
  np.testing.assert_array_equal(found.sign, [[sign], [-sign]])
  assert int(found.estimable) == 2
  if not sign:
    np.testing.assert_array_equal(found.pairs, 0.0)


@every_direction
def test_batches_add_up(direction):
  metric, batch = PLAIN[direction], example(3)
  halves = [
    {n: x[rows] for n, x in batch.items()}
    for rows in (slice(20), slice(20, None))
  ]
  expected = metrics.compute(metric, **batch)
  compute = jax.jit(metric.compute)
  found = metrics.evaluate(metric._replace(compute=compute), halves)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  nothing = compute(metric.empty)
  assert np.isnan(nothing.value)
  assert int(nothing.estimable) == 0


def test_a_nan_logit_spoils_the_mean():
  batch = example(4)
  logits = np.where(batch.pop("predictions"), 1, -1).astype(np.float32)
  logits[3, 2] = NAN
  found = metrics.compute(PLAIN["group_to_attribute"], logits=logits, **batch)
  assert np.isnan(found.value)
  assert np.isnan(found.pairs[:, 2]).all()
  assert not np.isnan(found.pairs[:, 0]).all()


def mals_by_hand(batch, train, convention):
  groups = batch["groups"].astype(int)
  made = (groups.T @ batch["predictions"]).astype(float)
  true = (train[1].astype(int).T @ train[0]).astype(float)
  with np.errstate(invalid="ignore"):
    share, other = true / true.sum(0), made / made.sum(0)
  terms = np.where(share > 1 / len(share), other - share, 0.0)
  undefined = np.isnan(share).any(0) | np.isnan(other).any(0)
  total = np.where(undefined, 0.0, terms.sum(0)).sum()
  if convention == "reference":
    return total / made.shape[1]
  return total / (~undefined).sum() if (~undefined).any() else NAN


@pytest.mark.parametrize("convention", ["exact", "reference"])
@pytest.mark.parametrize("trained", [False, True])
def test_mals_equals_brute_force(convention, trained):
  other = example(9)
  train = (other["labels"], other["groups"]) if trained else ()
  metric = metrics.mals(*train, convention=convention, details=True)
  for seed in range(5):
    batch = example(seed)
    if seed == 4:
      batch["predictions"] = np.zeros_like(batch["predictions"])
    del batch["group_predictions"]
    found = metrics.compute(metric, **batch)
    expected = mals_by_hand(
      batch, train or (batch["labels"], batch["groups"]), convention
    )
    np.testing.assert_allclose(found.value, expected, atol=1e-6)
  assert int(found.estimable) == 0
  if trained:
    assert np.isnan(metrics.evaluate(metric, []).value)


def test_an_even_share_is_no_stereotype():
  cells = np.array([[1, 0], [0, 1], [1, 0]], bool)
  batch = {"predictions": np.ones((3, 1), bool), "groups": cells}
  labels = np.array([[True], [True], [False]])
  found = metrics.compute(metrics.mals(details=True), labels=labels, **batch)
  assert float(found.value) == 0.0
  assert not found.stereotyped.any()


def test_mistakes_are_named():
  labels, groups = np.ones((4, 2), bool), np.ones((4, 3), bool)
  with pytest.raises(ValueError, match="direction must be one of"):
    metrics.directional_bias_amplification(direction="sideways")
  for make in (metrics.directional_bias_amplification, metrics.mals):
    with pytest.raises(ValueError, match="together or not at all"):
      make(labels)
    with pytest.raises(ValueError, match=r"\[M, A\] and \[M, G\]"):
      make(labels, groups[:3])
  batch = {"predictions": labels, "labels": labels, "groups": groups}
  backwards = PLAIN["attribute_to_group"]
  with pytest.raises(ValueError, match="no group_predictions"):
    metrics.compute(backwards, **batch)
  with pytest.raises(ValueError, match="number of groups"):
    metrics.compute(backwards, **batch, group_predictions=labels)


def test_the_scale_of_floating_weights_does_not_break_ties():
  rng = np.random.default_rng(0)
  # Three groups of equal share in every attribute: nobody is stereotyped.
  labels = np.tile([[True, True], [True, False]], (150, 1))
  batch = {
    "labels": labels,
    "predictions": rng.random(labels.shape) < 0.5,
    "groups": metrics.one_hot(np.arange(300) // 2 % 3, 3),
  }
  for scale in (1e-6, 0.1, 1.0, 1e12):
    weights = np.full(300, scale, np.float32)
    found = metrics.compute(
      metrics.mals(details=True), **batch, weights=weights
    )
    assert not np.asarray(found.stereotyped).any()
