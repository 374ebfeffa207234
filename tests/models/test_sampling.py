"""How the next token is chosen, against NumPy and against the odds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.models import sampling

SIZE = 12
_candidates = jax.jit(sampling.candidates, static_argnames="top_k")
_draw = jax.jit(sampling.draw, static_argnames="top_k")


def brute(logits, top_k, top_p):
  """Return the tokens that may be drawn, the most likely first."""
  order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
  order = order[:top_k]
  if top_p is None:
    return order
  shares = np.exp([float(logits[i]) for i in order])
  shares /= shares.sum()
  total = 0.0
  for count, share in enumerate(shares, start=1):
    total += share
    if total >= top_p:
      return order[:count]
  return order


@given(
  st.lists(st.integers(-4, 4), min_size=SIZE, max_size=SIZE),
  st.sampled_from([None, 1, 5, SIZE]),
  st.sampled_from([None, 0.1, 0.55, 0.77]),
)
@settings(deadline=None, max_examples=60)
def test_tokens_that_may_be_drawn(values, top_k, top_p):
  logits = np.float32(values) * np.float32(0.37)
  found, tokens = _candidates(logits[None], top_k=top_k, top_p=top_p)
  kept = [int(t) for x, t in zip(found[0], tokens[0], strict=True) if x > -1e9]
  expected = brute(logits, top_k, top_p)
  if top_k is None and top_p is None:
    kept, expected = sorted(kept), sorted(expected)
  assert kept == expected
  for x, token in zip(found[0], tokens[0], strict=True):
    assert x in (logits[token], -np.inf)


def test_the_most_likely_token_always_stays():
  found, tokens = _candidates(np.zeros((1, SIZE), np.float32), top_p=1e-9)
  assert tokens[0, 0] == 0
  assert np.isfinite(found).sum() == 1
  whole, _ = _candidates(np.zeros((1, SIZE), np.float32), top_p=1.0)
  assert np.isfinite(whole).all()
  # Also what is so unlikely that the sum is 1 before it.
  whole, _ = _candidates(np.float32([[0.0, -17.0, -20.0]]), top_p=1.0)
  assert np.isfinite(whole).all()


def test_draws_have_the_odds():
  """Temperature first, then the largest, then those of most probability."""
  logits = np.log([0.4, 0.3, 0.2, 0.05, 0.05])
  shares = np.array([0.4, 0.3, 0.2, 0, 0]) ** 2
  shares /= shares.sum()  # 0.55, 0.31, 0.14
  shares = np.where(shares > 0.2, shares, 0) / shares[:2].sum()
  keys = jax.random.split(jax.random.key(0), 4000)
  found = _draw(
    keys,
    jnp.broadcast_to(jnp.float32(logits), (4000, 5)),
    temperature=0.5,
    top_k=3,
    top_p=0.6,
  )
  assert found.dtype == jnp.int32
  counts = np.bincount(found, minlength=5) / 4000
  np.testing.assert_allclose(counts, shares, atol=0.03)
  assert counts[2:].sum() == 0


def test_hardly_any_temperature_takes_the_largest():
  keys = jax.random.split(jax.random.key(1), 3)
  logits = jax.random.normal(jax.random.key(2), (3, SIZE))
  found = _draw(keys, logits, temperature=1e-38)
  assert found.tolist() == jnp.argmax(logits, axis=1).tolist()


def test_rows_draw_by_their_own_keys():
  keys = jax.random.split(jax.random.key(1), 3)
  logits = jax.random.normal(jax.random.key(2), (3, SIZE))
  together = _draw(keys, logits, temperature=1.0)
  alone = [
    _draw(keys[i : i + 1], logits[i : i + 1], temperature=1.0)[0]
    for i in range(3)
  ]
  assert together.tolist() == [int(token) for token in alone]


def test_tokens_that_were_there_are_less_likely():
  logits = jnp.array([[3.0, -3.0, 0.0, 3.0]])
  seen = jnp.array([[True, True, True, False]])
  assert sampling.penalise(logits, seen, 1.5).tolist() == [[2, -4.5, 0, 3]]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"temperature": -1}, "temperature must be at least 0, got -1"),
    ({"top_k": 0}, "top_k must be at least 1, got 0"),
    ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
    ({"top_p": 1.5}, "top_p must be"),
    ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
    ({"temperature": float("nan")}, "temperature must be"),
  ],
)
def test_settings_that_make_no_sense(change, message):
  with pytest.raises(ValueError, match=message):
    sampling.Sampling(**change)
