"""Keys, second moments, the search for values, and the box of FT-L."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import editing, pruning

RNG = np.random.default_rng(0)
WANTED = np.array([3.0, -1.0, 0.5])
V0 = np.array([1.0, 2.0, 2.0])  # of length 3


def test_second_moment_of_a_stream():
  keys = RNG.normal(size=(7, 4)).astype(np.float32)
  halves = keys[:4], keys[3:]  # the fourth is in both
  grams = [np.asarray(pruning.input_gram(half)) for half in halves]
  keys = np.concatenate(halves)
  found = np.asarray(editing.second_moment(grams[0] + grams[1], 8))
  np.testing.assert_allclose(found, keys.T @ keys / 8, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(found, found.T)
  for count in (0, np.inf, np.nan, None):
    with pytest.raises(ValueError, match="number of keys must be a finite"):
      editing.second_moment(grams[0], count)
  with pytest.raises(ValueError, match=r"\[I, I\]"):
    editing.second_moment(keys, 8)


def test_average_keys():
  keys = RNG.normal(size=(2, 3, 4)).astype(np.float32)
  where = np.array([[True, True, False], [False, False, False]])
  keys[~where] = np.nan
  found = np.asarray(jax.jit(editing.average_keys)(keys, where=where))
  np.testing.assert_allclose(found[0], keys[0, :2].mean(0), rtol=1e-6)
  assert np.isnan(found[1]).all()
  with pytest.raises(ValueError, match="where"):
    editing.average_keys(keys, where=where[0])


@functools.cache
def search():
  """Return the search, compiled once for all settings but the count."""

  @functools.partial(jax.jit, static_argnums=0)
  def work(evaluations, v0, settings):
    loss = lambda d: jnp.sum((d - WANTED.astype(v0.dtype)) ** 2)
    return editing.optimize_value(
      loss,
      v0,
      divergence=lambda d: jnp.sum(jnp.abs(d) ** 3),
      evaluations=evaluations,
      **settings,
    )

  return work


def by_hand(evaluations, rate, decay, kl, clamp, stop):
  """Follow the published program with Adam written out."""
  d, m, s = np.zeros(3), np.zeros(3), np.zeros(3)
  for i in range(evaluations):
    size = np.linalg.norm(d)
    loss = ((d - WANTED) ** 2).sum() + kl * (np.abs(d) ** 3).sum()
    loss += decay * size / 9
    if loss < stop or i == evaluations - 1:
      return d, loss, i + 1
    slope = 2 * (d - WANTED) + 3 * kl * d * np.abs(d)
    if size:
      slope += decay * d / size / 9
    m, s = 0.9 * m + 0.1 * slope, 0.999 * s + 0.001 * slope**2
    steps = i + 1
    d = d - rate * (m / (1 - 0.9**steps)) / (
      np.sqrt(s / (1 - 0.999**steps)) + 1e-8
    )
    d = d * min(1, clamp * 3 / np.linalg.norm(d))
  return None


@pytest.mark.parametrize(
  ("rate", "decay", "kl", "clamp", "stop"),
  [
    (0.5, 0.5, 0.0625, 4.0, 0.05),  # runs out of evaluations
    (0.5, 0.5, 0.0625, 0.2, 0.05),  # is clamped
    (0.5, 0.0, 0.0, 4.0, 3.0),  # stops early
    (0.5, 0.0, 0.0, 4.0, 100.0),  # need not begin
  ],
)
def test_search(rate, decay, kl, clamp, stop):
  settings = {"learning_rate": rate, "weight_decay": decay, "kl": kl}
  settings |= {"clamp": clamp, "stop": stop}
  with jax.enable_x64(True):
    found = search()(20, jnp.asarray(V0), settings)
  d, loss, evaluations = by_hand(20, rate, decay, kl, clamp, stop)
  np.testing.assert_allclose(found.delta, d, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(found.value, V0 + d, rtol=1e-9)
  np.testing.assert_allclose(found.loss, loss, rtol=1e-9)
  assert int(found.evaluations) == evaluations
  assert bool(found.reached) == (loss < stop)
  assert np.linalg.norm(found.delta) <= clamp * 3 * (1 + 1e-12)


def test_search_ends_where_the_loss_is_not_finite():
  found = editing.optimize_value(
    lambda d: jnp.log(jnp.sum(d) + 1e-3) + 10.0, jnp.asarray(V0)
  )
  assert not np.isfinite(found.loss)
  assert int(found.evaluations) == 2
  assert not found.reached
  for v0, words in ((np.zeros(3), "length"), (np.zeros((2, 3)), "vector")):
    with pytest.raises(ValueError, match=words):
      editing.optimize_value(jnp.sum, v0)
  for count in (0, 2.5):
    with pytest.raises(ValueError, match="evaluations must be a whole number"):
      editing.optimize_value(jnp.sum, V0, evaluations=count)
  for clamp in (-1, np.nan, None):
    with pytest.raises(ValueError, match="clamp must be a finite number"):
      editing.optimize_value(jnp.sum, V0, clamp=clamp)


def test_clamp():
  base = {"w": jnp.asarray(RNG.normal(size=(50,)), jnp.float32)}
  tuned = {"w": base["w"] + 1.0}
  for given, centre in ((None, tuned), (base, base)):
    optimizer = optax.chain(optax.sgd(0.3), editing.clamp_to(given, 0.5))
    state, params = optimizer.init(tuned), tuned

    @jax.jit
    def step(params, state, optimizer=optimizer):
      slopes = {"w": jnp.cos(jnp.arange(50.0))}
      updates, state = optimizer.update(slopes, state, params)
      return optax.apply_updates(params, updates), state

    for _ in range(3):
      params, state = step(params, state)
    moved = np.asarray(params["w"] - centre["w"])
    assert np.abs(moved).max() <= 0.5 * (1 + 1e-6)
    free = np.asarray(tuned["w"]) - 0.9 * np.cos(np.arange(50.0))
    free -= np.asarray(centre["w"])
    inside = np.abs(free) < 0.5
    if given is None:
      np.testing.assert_allclose(moved[inside], free[inside], atol=1e-5)
    assert np.abs(moved).max() > 0.49
  with pytest.raises(ValueError, match="parameters"):
    editing.clamp_to(base).update(base, state[1])
  with pytest.raises(ValueError, match="epsilon"):
    editing.clamp_to(base, -1.0)
