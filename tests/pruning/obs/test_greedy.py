"""The greedy surgeon against published values and against brute force."""

import functools
import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.pruning import obs

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "spade"
reference = functools.partial(obs.exact_obs, convention="reference")


def golden(name):
  return np.load(GOLDEN / f"{name}.npz")


def assert_published(solution, weights, error=None):
  np.testing.assert_array_equal(solution.mask, weights != 0)
  np.testing.assert_allclose(solution.weights, weights, rtol=1e-4, atol=1e-5)
  if error is not None:
    np.testing.assert_allclose(solution.loss, error, rtol=1e-5)


@pytest.mark.parametrize("name", ["linear_full", "linear_dead"])
@pytest.mark.parametrize(
  ("end", "damping"),
  [("", 0.0), pytest.param("_damp01", 0.01, marks=pytest.mark.slow)],
)
def test_published_linear_layers(name, end, damping):
  data = golden(name)
  solve = functools.partial(reference, data["W"], data["H"], damping=damping)
  for percent in (25, 90):
    published = data[f"obs_unstr_s{percent}_W{end}"]
    assert_published(solve(percent / 100), published)
  for removed, of in ((2, 4), (4, 8)):
    key = f"obs_{removed}of{of}"
    assert_published(
      solve(n_m=(of - removed, of)),
      data[f"{key}_W{end}"],
      data[f"{key}_err{end}"],
    )
  assert_published(solve(0.75, block=4), data[f"obs_block4_s75_W{end}"])


@pytest.mark.parametrize(
  "name", [pytest.param("conv_3x3s1", marks=pytest.mark.slow), "conv_1x1s1"]
)
def test_published_convolutions(name):
  data = golden(name)
  taps, w = int(data["conv"][0]) ** 2, data["W"]
  flat = w.reshape(len(w), -1)
  solve = functools.partial(reference, damping=0.01)
  for percent in (50, 80):
    assert_published(
      solve(flat, data["H"], percent / 100),
      data[f"obs_unstr_s{percent}_W"].reshape(flat.shape),
    )
    # The published blocks run along columns ordered by tap, then by channel.
    order = np.arange(flat.shape[1]).reshape(-1, taps).T.reshape(-1)
    found = solve(
      flat[:, order],
      data["H"][np.ix_(order, order)],
      percent / 100,
      block=taps,
    )
    published = data[f"obs_spadeblock_s{percent}_W"].reshape(flat.shape)
    assert_published(found, published[:, order])


def brute(w, gram, steps):
  """Remove one weight after the other in float64, inverting anew each time."""
  w, mask, losses = w.copy(), np.ones(w.size, bool), []
  for _ in range(steps):
    live = np.flatnonzero(mask)
    inverse = np.linalg.inv(gram[np.ix_(live, live)])
    scores = w[live] ** 2 / np.diagonal(inverse)
    p = scores.argmin()
    w[live] -= inverse[:, p] * w[live[p]] / inverse[p, p]
    mask[live[p]] = False
    w[~mask] = 0.0
    losses.append(0.5 * scores[p])
  return w, mask, losses


@settings(max_examples=12, deadline=None)
@given(
  seed=st.integers(0, 2**31), sparsity=st.sampled_from([0.0, 0.3, 0.8, 1.0])
)
def test_global_choice_by_brute_force(seed, sparsity):
  rng = np.random.default_rng(seed)
  x, w = rng.normal(size=(40, 9)), rng.normal(size=(4, 9))
  gram = x.T @ x
  with jax.enable_x64():
    found = obs.exact_obs(w, gram, sparsity)
  losses = np.array([brute(row, gram, 9)[2] for row in w])
  removed = int(np.floor(sparsity * w.size + 0.5))
  chosen = np.zeros(w.size, bool)
  chosen[np.argsort(losses.reshape(-1), kind="stable")[:removed]] = True
  counts = chosen.reshape(losses.shape).sum(1)
  rows = [brute(row, gram, count) for row, count in zip(w, counts, strict=True)]
  np.testing.assert_array_equal(found.mask, [mask for _, mask, _ in rows])
  np.testing.assert_allclose(
    found.weights, [row for row, _, _ in rows], atol=1e-9
  )
  total = sum(sum(step) for _, _, step in rows)
  np.testing.assert_allclose(found.loss, total, rtol=1e-8, atol=1e-12)


def test_it_beats_the_sweep_and_magnitude():
  data = golden("linear_full")
  w, gram = data["W"], data["H"]
  distance = lambda q: float(np.trace((w - q) @ gram @ (w - q).T)) / 2
  exact = distance(np.asarray(obs.exact_obs(w, gram, 0.5).weights))
  swept = distance(np.asarray(obs.sparsegpt(w, gram, 0.5).weights))
  smallest = np.abs(w) < np.median(np.abs(w))
  assert exact < swept < distance(np.where(smallest, 0.0, w))


def test_a_gram_matrix_without_full_rank_is_damped():
  data = golden("linear_full")
  x = data["X"][:20]
  found = obs.exact_obs(data["W"], x.T @ x, 0.5)
  assert np.isfinite(found.weights).all()
  assert 0.0 < float(found.damping) < np.inf
  assert found.mask.sum() == found.mask.size // 2


def test_batches_solve_like_single_ones():
  data = golden("batch_linear")
  one = [obs.exact_obs(data["W"], h, 0.5, damping=0.01) for h in data["H"]]
  many = jax.vmap(lambda h: obs.exact_obs(data["W"], h, 0.5, damping=0.01))(
    data["H"]
  )
  for i, solution in enumerate(one):
    np.testing.assert_array_equal(many.mask[i], solution.mask)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (dict(sparsity=0.5, block=3), "blocks of 3"),
    (dict(n_m=(2, 4), block=2), "cannot be combined"),
    (dict(), "either a sparsity or n_m"),
    (dict(sparsity=-0.1), "sparsity"),
  ],
)
def test_mistakes(arguments, words):
  with pytest.raises(ValueError, match=words):
    obs.exact_obs(np.ones((2, 8), np.float32), np.eye(8), **arguments)
