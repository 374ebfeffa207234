"""CounterFact and zsRE: golden values and brute force."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
DATA = np.load(GOLDEN / "metric_inputs.npz", allow_pickle=False)
EXPECTED = json.loads((GOLDEN / "metric_expected.json").read_text())
NEW, TRUE = DATA["nll_new"], DATA["nll_true"]
LOGITS, BEFORE, LABELS = DATA["logits_cur"], DATA["logits_ref"], DATA["y_f"]


def test_golden():
  with jax.enable_x64(True):
    pairs = [
      (jnp.asarray(NEW[:, i]), jnp.asarray(TRUE[:, i])) for i in (0, 1, 2)
    ]
    found = jax.jit(metrics.counterfact)(*pairs)
  for name, expected in EXPECTED["counterfact"].items():
    np.testing.assert_allclose(getattr(found, name), expected, 1e-9)


def test_cases_of_several_prompts():
  # The mean over cases of means over prompts; the last case has none.
  new = np.array([[1.0, 3.0], [1.0, np.nan], [np.nan, np.nan]])
  true = np.full((3, 2), 2.0)
  where = ~np.isnan(new)
  pair = (new, true, where)
  same, nothing = (true, true), (new, true, where & ~where)
  work = lambda pair, same, nothing: (
    metrics.counterfact(pair, pair, pair),
    metrics.counterfact(same, same, same),
    metrics.counterfact(nothing, same, same),
  )
  found, even, none = jax.jit(work)(pair, same, nothing)
  gap = np.exp(-new) - np.exp(-true)
  gap = (gap[0].mean() + gap[1, 0]) / 2
  np.testing.assert_allclose(found.rewrite_success, 0.75)
  np.testing.assert_allclose(found.rewrite_diff, gap, rtol=1e-6)
  np.testing.assert_allclose(found.neighborhood_success, 0.25)
  np.testing.assert_allclose(found.neighborhood_diff, -gap, rtol=1e-6)
  np.testing.assert_allclose(found.score, 3 / (4 / 3 + 4 / 3 + 4), rtol=1e-6)
  # Equal losses are no success, for either side.
  assert even.score == 0
  assert np.isnan(none.score)
  with pytest.raises(ValueError, match=r"\[M, Q\]"):
    metrics.counterfact((new, true[:2]), pair, pair)


def test_zsre():
  logits, before = LOGITS.astype(np.float32), BEFORE.astype(np.float32)
  labels = LABELS.copy()
  said = np.roll(logits.argmax(-1), 1, axis=1)
  labels[:3] = np.where(labels[:3] < 0, -100, said[:3])
  labels[4] = -100  # no text at all
  counted = labels >= 0
  right = (said == labels) & counted
  rows = counted.any(1)
  share = lambda hits: np.mean(
    [hits[b][counted[b]].mean() for b in np.nonzero(rows)[0]]
  )
  was = np.roll(before.argmax(-1), 1, axis=1)
  first = [(said == was)[b][np.argmax(counted[b])] for b in np.nonzero(rows)[0]]
  sets = {"paraphrase": (before, labels), "locality": (logits, before, labels)}
  work = lambda rewrite, sets: (
    metrics.zsre(rewrite, **sets),
    metrics.zsre(rewrite, **sets, convention="reference"),
    metrics.answer_nll(*rewrite),
  )
  found, published, losses = jax.jit(work)((logits, labels), sets)
  assert found.reliability > 0.5
  np.testing.assert_allclose(found.reliability, share(right), rtol=1e-6)
  agreed = share(said == was)
  np.testing.assert_allclose(found.locality, agreed, rtol=1e-6)
  assert np.isnan(found.portability)
  np.testing.assert_allclose(published.locality, np.mean(first), rtol=1e-6)
  for b, row in enumerate(labels):
    logs = LOGITS[b] - np.log(np.exp(LOGITS[b]).sum(-1, keepdims=True))
    own = [-logs[t - 1, y] for t, y in enumerate(row) if y >= 0]
    expected = np.mean(own) if own else np.nan
    np.testing.assert_allclose(losses[b], expected, rtol=1e-5)
  with pytest.raises(ValueError, match="reference"):
    metrics.zsre((logits, labels), convention="published")


def test_a_model_that_says_nan_is_neither_right_nor_wrong():
  labels = np.zeros((2, 3), int)
  logits = np.ones((2, 3, 4), np.float32)
  logits[1, 0] = np.nan
  shares = {
    "token_accuracy": metrics.token_accuracy(logits, labels),
    "exact_memorization": metrics.exact_memorization(logits, labels),
    "extraction_strength": metrics.extraction_strength(logits, labels),
    "agreement": metrics.token_agreement(logits, 0 * logits + 1, labels),
  }
  assert all(np.isnan(x) for x in shares.values()), shares
  # Where nothing is asked, nothing is unknown.
  labels[1, 1] = -100
  shares = {
    "token_accuracy": metrics.token_accuracy(logits, labels),
    "exact_memorization": metrics.exact_memorization(logits, labels),
    "extraction_strength": metrics.extraction_strength(logits, labels),
    "agreement": metrics.token_agreement(logits, np.ones((2, 3, 4)), labels),
  }
  assert all(x == 1.0 for x in shares.values()), shares


def test_a_loss_that_is_nan_is_no_failure():
  good, spoilt = np.array([1.0, 2.0]), np.array([1.0, np.nan])
  lower, higher = (good, good + 1), (good + 1, good)
  for rewrite in ((spoilt, good + 1), (good, spoilt)):
    found = jax.jit(metrics.counterfact)(rewrite, lower, higher)
    assert np.isnan(found.rewrite_success)
    assert np.isnan(found.rewrite_diff)
    assert np.isnan(found.score)
    assert found.paraphrase_success == found.neighborhood_success == 1
  # Several prompts of a case; what is not there does not matter.
  new, true = np.array([[1.0, np.nan], [1.0, 1.0]]), np.full((2, 2), 2.0)
  where = np.array([[True, False], [True, True]])
  every = metrics.counterfact((new, true), (new, true), (true, new))
  assert np.isnan(every[:]).all()
  some = metrics.counterfact(*[(new, true, where)] * 2, (true, new, where))
  assert some.rewrite_success == some.score == 1
