"""Measures of memorisation and membership against brute force."""

import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
DATA = np.load(GOLDEN / "metric_inputs.npz", allow_pickle=False)
LOGITS, LABELS = DATA["logits_cur"], DATA["y_f"].copy()
# Texts that are known by heart in part, one of a single token, one of none.
SAID = np.roll(LOGITS.argmax(-1), 1, axis=1)
LABELS[0] = np.where(LABELS[0] < 0, -100, SAID[0])
LABELS[1, -2:] = SAID[1, -2:]
LABELS[2, -2:] = SAID[2, -2:]
LABELS[2, -1] = (SAID[2, -1] + 1) % LOGITS.shape[-1]
LABELS[3] = -100
LABELS[3, 4] = SAID[3, 4]
LABELS[5] = -100
SHARES = (0.2, 0.29, 1.0)


@jax.jit
def measure(logits, labels):
  found = {}
  for drop in (False, True):
    options = {"drop_last": drop}
    each = {**options, "each": True}
    found[f"exact {drop}"] = metrics.exact_memorization(logits, labels, **each)
    for strict in (False, True):
      found[f"strength {drop} {strict}"] = metrics.extraction_strength(
        logits, labels, strict=strict, **each
      )
    for share in SHARES:
      found[f"min_k {drop} {share}"] = metrics.min_k(
        logits, labels, share=share, **options
      )
      found[f"min_k_plus_plus {drop} {share}"] = metrics.min_k_plus_plus(
        logits, labels, share=share, **options
      )
  found["mean"] = metrics.exact_memorization(logits, labels)
  return found


def least(values, share):
  if not len(values):
    return np.nan
  return -np.sort(values)[: max(1, int(share * len(values)))].mean()


def by_hand():
  logs = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
  mu = (np.exp(logs) * logs).sum(-1)
  sigma = np.sqrt((np.exp(logs) * logs**2).sum(-1) - mu**2)
  found = {}
  for b, row in enumerate(LABELS):
    for drop in (False, True):
      places = [t for t, y in enumerate(row) if y >= 0]
      places = places[: len(places) - drop]
      own = np.array([logs[b, t - 1, row[t]] for t in places])
      unlike = np.array(
        [
          (logs[b, t - 1, row[t]] - mu[b, t - 1]) / sigma[b, t - 1]
          for t in places
        ]
      )
      right = [SAID[b, t] == row[t] for t in places]
      n = len(places)
      starts = [k for k in range(n) if all(right[k:])]
      found.setdefault(f"exact {drop}", []).append(
        np.mean(right) if n else np.nan
      )
      for strict in (False, True):
        k = min(starts, default=n if strict else n - 1)
        found.setdefault(f"strength {drop} {strict}", []).append(
          1 - k / n if n else np.nan
        )
      for share in SHARES:
        found.setdefault(f"min_k {drop} {share}", []).append(least(own, share))
        found.setdefault(f"min_k_plus_plus {drop} {share}", []).append(
          least(unlike, share)
        )
  return found


def test_values():
  with jax.enable_x64(True):
    found = measure(LOGITS, LABELS)
  expected = by_hand()
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, 1e-6, err_msg=name)
  np.testing.assert_allclose(
    found["mean"], np.nanmean(expected["exact False"]), rtol=1e-6
  )
  # Even of nothing the published programs find a part.
  for strict in (True, False):
    strength = float(found[f"strength False {strict}"][2])
    assert (strength == 0) == strict


def test_a_sure_model_is_finite():
  logits = np.zeros_like(LOGITS)
  logits[..., 0] = 1e4
  labels = np.where(LABELS < 0, -100, 0)
  labels[1] = np.where(LABELS[1] < 0, -100, 1)
  with jax.enable_x64(True):
    found = measure(logits, labels)
  for name, values in found.items():
    if name.endswith("False 0.2"):
      assert np.isfinite(values[:5]).all(), name


def test_zlib():
  texts = ["aaaaaaaaaaaaaaaaaaaaaaaa", "Zürich"]
  found = metrics.zlib_score(jnp.array([1.0, 2.0]), texts)
  sizes = [len(zlib.compress(text.encode())) for text in texts]
  np.testing.assert_allclose(found, [1 / sizes[0], 2 / sizes[1]], rtol=1e-6)
  with pytest.raises(ValueError, match="2 texts"):
    metrics.zlib_score(jnp.ones(3), texts)


def test_privacy_leakage():
  familiar, strange = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.5, 4.0])
  area = 5 / 6
  found = metrics.privacy_leakage(familiar, strange)
  np.testing.assert_allclose(found, 100 * (0.5 - area) / 0.5, rtol=1e-5)
  again = metrics.privacy_leakage(
    familiar, strange, retrained=(strange, familiar)
  )
  rest = 1 - 1 / 6
  np.testing.assert_allclose(again, 100 * ((1 - area) - rest) / rest, rtol=1e-5)
  assert np.isnan(metrics.privacy_leakage(familiar, strange[:0]))
  with pytest.raises(ValueError, match="vectors"):
    metrics.privacy_leakage(familiar[None], strange)


def test_errors():
  with pytest.raises(ValueError, match="share"):
    metrics.min_k(LOGITS, LABELS, share=0.0)
  with pytest.raises(ValueError, match=r"\[B, T, V\]"):
    metrics.exact_memorization(LOGITS, LABELS[1:])


def test_leakage_of_areas_near_one_keeps_its_digits():
  # One of 3,000 texts to forget lies above one never seen: areas of almost 1.
  forget, holdout = np.arange(3000.0), np.arange(2999.0, 5999.0)
  other = (np.arange(3000.0), np.arange(2998.0, 5998.0))
  ties = [
    (f[:, None] > h).sum() + (f[:, None] == h).sum() / 2
    for f, h in ((forget, holdout), other)
  ]
  first, rest = (x / 9e6 for x in ties)
  wanted = 100 * (first - rest) / (rest + 1e-10)
  found = metrics.privacy_leakage(forget, holdout, retrained=other)
  np.testing.assert_allclose(found, wanted, rtol=1e-4)
  with jax.enable_x64(True):
    found = metrics.privacy_leakage(forget, holdout, retrained=other)
    traced = jax.jit(
      lambda f, h, *o: metrics.privacy_leakage(f, h, retrained=o)
    )(forget, holdout, *other)
  np.testing.assert_allclose([found, traced], wanted, rtol=1e-9)


def test_nan_is_not_left_out_of_the_least():
  logits = LOGITS.astype(np.float32)
  logits[1, 4] = np.nan
  labels = LABELS.copy()
  labels[1] = labels[2] = np.arange(labels.shape[1]) % logits.shape[-1]
  clean = measure(LOGITS.astype(np.float32), labels)
  found = measure(logits, labels)
  for name in found:
    if name.startswith("min_k"):
      assert np.isnan(found[name][1]), name
      others = np.delete(found[name], 1)
      np.testing.assert_array_equal(others, np.delete(clean[name], 1))
  # Where no label is, nothing is unknown.
  labels[1, 5] = -100
  assert np.isfinite(metrics.min_k_plus_plus(logits, labels)[1])


def test_labels_of_any_integers():
  logits = np.zeros((1, 3, 300), np.float32)
  logits[..., 256 + 5] = 1.0
  narrow = np.array([[0, 5, 5]], np.uint8)
  for measured in (metrics.exact_memorization, metrics.token_accuracy):
    assert float(measured(logits, narrow)) == 0, measured
    with pytest.raises(ValueError, match=r"labels must be integers, got float"):
      measured(logits, narrow.astype(np.float32))
    with pytest.raises(ValueError, match=r"labels must .* below 300, got"):
      measured(logits, narrow.astype(np.int32) + 295)
    assert np.isnan(jax.jit(measured)(logits, narrow.astype(np.int32) + 295))
  found = metrics.extraction_strength(logits, narrow, strict=True)
  assert float(found) == 0
  # Nothing predicts the first one, and negative ones are ignored.
  labels = np.array([[999, 256 + 5, -100]])
  assert float(metrics.exact_memorization(logits, labels)) == 1.0


@pytest.mark.parametrize("share", [None, "all", 1.5, np.nan])
def test_shares_that_are_none(share):
  for score in (metrics.min_k, metrics.min_k_plus_plus):
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got"):
      score(LOGITS, LABELS, share=share)


def test_a_single_text_is_not_many():
  with pytest.raises(ValueError, match="texts must be a list of texts"):
    metrics.zlib_score(np.ones(4), "abcd")
