"""Object slots: golden values, brute force and edges."""

import json
import pathlib

import jax
import numpy as np
import pytest

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
DATA = np.load(GOLDEN / "metric_inputs.npz", allow_pickle=False)
EXPECTED = json.loads((GOLDEN / "metric_expected.json").read_text())["slot"]
PRE, POST = DATA["slot_pre"], DATA["slot_post"]
TARGETS, OLD = DATA["slot_tgt"], DATA["slot_old"]


@jax.jit
def measure(post, targets, old, pre, where):
  return metrics.slot_metrics(
    post, targets, old=old, reference_logits=pre, where=where
  )


def test_golden():
  everything = np.ones(len(TARGETS), bool)
  with jax.enable_x64(True):
    found = measure(POST, TARGETS, OLD, PRE, everything)
  assert int(found.count) == len(TARGETS)
  for name, expected in EXPECTED.items():
    np.testing.assert_allclose(getattr(found, name), expected, 1e-9)


def test_rows_that_do_not_count():
  where = np.arange(len(TARGETS)) < 50
  post, targets = POST.copy(), TARGETS.copy()
  post[50:], targets[50:] = np.nan, -100
  same = np.resize(np.arange(50), len(TARGETS))
  with jax.enable_x64(True):
    found = measure(post, targets, OLD, PRE, where)
    alone = measure(POST[same], TARGETS[same], OLD[same], PRE[same], where)
  for ours, expected in zip(found, alone, strict=True):
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
  # A row that counts and holds NaN is not simply wrong.
  more = where | (np.arange(len(TARGETS)) == 50)
  with jax.enable_x64(True):
    assert np.isnan(measure(post, TARGETS, OLD, PRE, more).accuracy)
    nothing = measure(post, targets, OLD, PRE, where & ~where)
  assert int(nothing.count) == 0
  means = nothing._replace(count=np.nan)
  assert all(np.isnan(x) for x in means)


def test_ties_and_extremes():
  logits = np.zeros_like(PRE)
  logits[0, 3:5] = logits[1, 3:5] = 3.0
  logits[2, [0, 1]] = 1e4, -1e4
  targets, old = TARGETS.copy(), OLD.copy()
  targets[:3], old[:3] = (3, 4, 1), (4, 3, 0)
  with jax.enable_x64(True):
    where = np.arange(len(TARGETS)) < 3
    found = measure(logits, targets, old, logits, where)
  np.testing.assert_allclose(found.accuracy, 1 / 3)  # the lowest id wins
  np.testing.assert_allclose(found.old_recall, 2 / 3)
  assert float(found.new_gt_old) == 0  # equal is not greater
  np.testing.assert_allclose(found.mean_rank_target, (1 + 1 + 17) / 3)
  equal = np.exp(3) / (2 * np.exp(3) + 15)
  np.testing.assert_allclose(found.prob_old, (2 * equal + 1) / 3)
  assert not np.any([found.kl_pre_post, found.tv_pre_post])


def test_words_of_several_tokens():
  rng = np.random.default_rng(0)
  z, y = rng.normal(size=(2, 5, 2, 7)).astype(np.float32)
  new = np.argmax(z, -1)
  new[0, 1] = (new[0, 1] + 1) % 7  # a word with a wrong token
  ignored = np.zeros((5, 2), bool)
  ignored[1, 1] = True  # a word of one token
  old = rng.integers(7, size=(5, 2))
  found = jax.jit(
    lambda z, y, new: metrics.slot_metrics(
      z, new, old=old, old_logits=y, reference_logits=y
    )
  )(z, y, np.where(ignored, -100, new))
  p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (z, y))
  rows, columns = np.indices((5, 2))
  target = np.where(ignored, 1.0, p[rows, columns, new]).prod(1)
  other = q[rows, columns, old].prod(1)
  np.testing.assert_allclose(found.accuracy, 0.8, rtol=1e-6)
  np.testing.assert_allclose(found.prob_target, target.mean(), rtol=1e-5)
  np.testing.assert_allclose(found.prob_old, other.mean(), rtol=1e-5)
  np.testing.assert_allclose(found.new_gt_old, (target > other).mean())
  kl = (q * np.log(q / p)).sum(-1)
  kl = np.where(ignored[:, 1], kl[:, 0], kl.mean(1)).mean()
  np.testing.assert_allclose(found.kl_pre_post, kl, rtol=1e-5)
  agreed = (z.argmax(-1) == y.argmax(-1)) | ignored
  np.testing.assert_allclose(found.prediction_agreement, agreed.all(1).mean())


def test_by_relation():
  values, where = np.array([1.0, 0.0, 1.0, np.nan]), np.arange(4) < 3
  table = jax.jit(metrics.by_relation, static_argnums=2)
  found = table(values, np.array([0, 0, 2, 2]), 3, where=where)
  np.testing.assert_array_equal(found.mean, [0.5, np.nan, 1.0])
  assert found.count.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
  ("wrong", "words"),
  [
    (lambda: metrics.edit_success(PRE, TARGETS[1:]), r"\[M, V\]"),
    (lambda: metrics.edit_success(PRE, TARGETS, where=TARGETS), "bool"),
    (lambda: metrics.prediction_agreement(PRE, PRE[:, 1:]), "both be"),
    (lambda: metrics.by_relation([1.0], [0, 1], 2), "both be"),
  ],
)
def test_errors(wrong, words):
  with pytest.raises(ValueError, match=words):
    wrong()


def test_an_old_object_that_is_ignored_does_not_count():
  logits = np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
  found = metrics.slot_metrics(logits, [0, 1], old=[1, -100])
  alone = metrics.slot_metrics(logits[:1], [0], old=[1])
  assert int(found.count) == 2
  for name in ("old_recall", "prob_old", "margin", "new_gt_old"):
    assert float(getattr(found, name)) == float(getattr(alone, name)), name


def test_rows_with_nan_are_not_the_best():
  logits = np.full((1, 5), np.nan)
  found = metrics.slot_metrics(logits, [2], old=[0])
  measured = found._asdict() | {"count": None}
  assert all(np.isnan(x) for x in measured.values() if x is not None)
  # What has no logit at all loses to what has one, and is as likely as another.
  logits = np.array([[0.0, -np.inf, -np.inf]])
  found = metrics.slot_metrics(logits, [1], old=[2])
  assert float(found.new_gt_old) == 0
  assert float(found.mean_rank_target) == 2


def test_answers_of_several_tokens_that_stay():
  before = np.eye(3)[[[0, 1], [1, 2], [2, 2]]]
  after = np.eye(3)[[[0, 1], [1, 0], [2, 0]]]
  share = metrics.prediction_agreement
  assert float(share(after, before)) == np.float32(1 / 3)
  targets = np.array([[0, 0], [0, 0], [0, -100]])
  assert float(share(after, before, targets=targets)) == np.float32(2 / 3)
  where = np.array([False, True, True])
  assert float(share(after, before, targets=targets, where=where)) == 0.5


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64, np.uint32])
def test_narrow_ids_do_not_wrap(kind):
  logits = np.zeros((1, 300), np.float32)
  logits[0, 256 + 5] = 1.0
  words = np.repeat(logits[:, None], 2, axis=1)
  for x64 in (False, True):
    with jax.enable_x64(x64):
      ids = np.array([5], kind)
      found = metrics.slot_metrics(logits, ids, old=ids)
      assert float(found.accuracy) == float(found.old_recall) == 0
      assert float(jax.jit(metrics.edit_success)(logits, ids)) == 0
      assert float(metrics.edit_success(words, ids[:, None][:, [0, 0]])) == 0
      table = metrics.by_relation(np.ones(3), np.arange(3).astype(kind), 300)
      assert table.count.tolist() == [1, 1, 1] + [0] * 297


def test_divergence_from_nan_is_nan():
  logits, before = np.zeros((2, 2, 3), np.float32)
  before[1] = np.nan
  found = metrics.slot_metrics(logits, [0, 1], reference_logits=before)
  for name in ("prediction_agreement", "kl_pre_post", "tv_pre_post"):
    assert np.isnan(getattr(found, name)), name
  # What could not be said before adds nothing.
  before = np.array([[0.0, 0.0, -np.inf]])
  found = metrics.slot_metrics(before, [0], reference_logits=before)
  assert float(found.kl_pre_post) == 0


@pytest.mark.parametrize(
  ("wrong", "words"),
  [
    (lambda z: metrics.slot_metrics(z, [0, 7]), "targets must be neg.* 0 to 7"),
    (lambda z: metrics.slot_metrics(z, [0, 1], old=[5, 0]), "old must"),
    (lambda z: metrics.edit_success(z, [0, 5]), "below 5"),
    (lambda z: metrics.slot_metrics(z, [0.0, 1]), "targets must be integers"),
    (lambda z: metrics.slot_metrics(z, [0, 1], old=[0.0, 1]), "old must be i"),
    (lambda z: metrics.by_relation([1, 1], [0, 7], 2), "relations must .*7"),
    (lambda z: metrics.by_relation([1, 1], [0, -1], 2), "relations must .*-1"),
    (lambda z: metrics.by_relation([1, 1], [0.0, 1], 2), "relations must be i"),
    (lambda z: metrics.by_relation([1, 1], [0, 1], 2.5), "number must be"),
    (lambda z: metrics.by_relation([1, 1], [0, 1], None), "number must be"),
  ],
)
def test_ids_that_are_none(wrong, words):
  with pytest.raises(ValueError, match=words):
    wrong(np.zeros((2, 5), np.float32))


def test_ids_of_rows_that_do_not_count_may_be_anything():
  logits, where = np.eye(3, dtype=np.float32)[:2], np.array([True, False])
  found = metrics.slot_metrics(logits, [0, 7], old=[1, 9], where=where)
  assert (float(found.accuracy), int(found.count)) == (1.0, 1)
  found = metrics.slot_metrics(logits, [0, -100], old=[1, 9])
  assert (float(found.old_recall), int(found.count)) == (0.0, 1)
  table = metrics.by_relation([1.0, 2.0], [0, 9], 2, where=where)
  assert table.count.tolist() == [1, 0]
  # Traced, ids outside are not simply wrong.
  success = jax.jit(metrics.edit_success)
  assert np.isnan(success(logits, np.array([0, 7])))
  assert float(success(logits, np.array([0, 7]), where=where)) == 1.0
