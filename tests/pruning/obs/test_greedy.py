"""The greedy surgeon against published values and against brute force."""

import functools
import pathlib

import jax
import jax.numpy as jnp
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


# Compiled solvers are few: shapes, kinds and conventions are shared on purpose.
@pytest.mark.parametrize("name", ["linear_full", "linear_dead"])
@pytest.mark.parametrize(("end", "damping"), [("", 0.0), ("_damp01", 0.01)])
def test_published_linear_layers(name, end, damping):
  data = golden(name)
  solve = functools.partial(reference, data["W"], data["H"], damping=damping)
  for percent in (25, 50, 75, 90):
    published = data[f"obs_unstr_s{percent}_W{end}"]
    assert_published(solve(percent / 100), published)
  for percent in (25, 50, 75):
    published = data[f"obs_block4_s{percent}_W{end}"]
    assert_published(solve(percent / 100, block=4), published)
  for percent in (25, 50):
    published = data[f"obs_struct_s{percent}_W{end}"]
    assert_published(solve(percent / 100, scope="columns"), published)
  for removed, of in ((2, 4), (4, 8)):
    key = f"obs_{removed}of{of}"
    assert_published(
      solve(n_m=(of - removed, of)),
      data[f"{key}_W{end}"],
      data[f"{key}_err{end}"],
    )


@pytest.mark.parametrize("name", ["linear_full", "linear_dead"])
@pytest.mark.parametrize(("end", "damping"), [("", 0.0), ("_damp01", 0.01)])
def test_published_traces_of_every_row(name, end, damping):
  data = golden(name)
  solve = functools.partial(
    reference, data["W"], data["H"], damping=damping, scope="rows"
  )
  losses = np.cumsum(data[f"obs_losses{end}"].sum(0))
  steps = data[f"obs_trace_idx{end}"]
  for step, published in zip(steps, data[f"obs_trace_W{end}"], strict=True):
    assert_published(solve(step / 48), published, losses[step])
  assert_published(solve(0.75), data[f"obs_balanced_rem12_W{end}"])
  losses = np.cumsum(data[f"obs_block4_losses{end}"].sum(0))
  for step in (0, 5, 12):
    found = solve(step / 12, block=4)
    np.testing.assert_allclose(found.loss, losses[step], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv_3x3s1", "conv_1x1s1"])
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
  """Remove whole columns one after the other, inverting anew each time.

  Args:
    w: Rows [R, I], float64.
    gram: Gram matrix [I, I].
    steps: How many go.

  Returns:
    The rows, what is kept [I], and the loss of each step.
  """
  w, mask, losses = w.copy(), np.ones(w.shape[1], bool), []
  for _ in range(steps):
    live = np.flatnonzero(mask)
    inverse = np.linalg.inv(gram[np.ix_(live, live)])
    scores = np.square(w[:, live]).sum(0) / np.diagonal(inverse)
    p = scores.argmin()
    w[:, live] -= np.outer(w[:, live[p]], inverse[:, p]) / inverse[p, p]
    mask[live[p]] = False
    w[:, ~mask] = 0.0
    losses.append(0.5 * scores[p])
  return w, mask, losses


def by_rows(w, gram, counts):
  """Prune each row alone; return weights, mask and loss."""
  rows = [
    brute(row[None], gram, count) for row, count in zip(w, counts, strict=True)
  ]
  loss = sum(sum(losses) for _, _, losses in rows)
  return (
    np.concatenate([row for row, _, _ in rows]),
    [m for _, m, _ in rows],
    loss,
  )


@settings(max_examples=12, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  sparsity=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
  scope=st.sampled_from(["matrix", "rows", "columns"]),
  dead=st.booleans(),
  zeros=st.booleans(),
)
def test_every_scope_by_brute_force(seed, sparsity, scope, dead, zeros):
  rng = np.random.default_rng(seed)
  x, w = rng.normal(size=(40, 9)), rng.normal(size=(4, 9))
  w = np.where(zeros & (rng.random(w.shape) < 0.4), 0.0, w)
  x[:, 3] *= not dead
  with jax.enable_x64():
    found = obs.exact_obs(w, x.T @ x, sparsity, scope=scope)
  gram = x.T @ x + np.diag(3.0 * np.arange(9) == 9.0) * dead
  w[:, 3] *= not dead
  size = w.size if scope == "matrix" else 9
  removed = int(np.floor(sparsity * size + 0.5))
  if scope == "columns":
    weights, mask, losses = brute(w, gram, removed)
    mask, loss = np.broadcast_to(mask, w.shape), sum(losses)
  elif scope == "rows":
    weights, mask, loss = by_rows(w, gram, [removed] * 4)
  else:
    losses = np.array([brute(row[None], gram, 9)[2] for row in w])
    chosen = np.zeros(w.size, bool)
    chosen[np.argsort(losses.reshape(-1), kind="stable")[:removed]] = True
    weights, mask, loss = by_rows(w, gram, chosen.reshape(4, 9).sum(1))
  mask = np.array(mask)
  mask[:, 3] &= not dead
  np.testing.assert_array_equal(found.mask, mask)
  np.testing.assert_allclose(found.weights, weights, atol=1e-9)
  np.testing.assert_allclose(found.loss, loss, rtol=1e-8, atol=1e-12)


def test_weights_that_are_zero_already_cost_nothing():
  data = golden("linear_full")
  start = reference(data["W"], data["H"], 0.25, scope="rows").weights
  for sparsity in (0.0, 0.1, 0.25):
    found = reference(start, data["H"], sparsity, scope="rows")
    np.testing.assert_array_equal(found.weights, start)
    assert float(found.loss) == 0.0
  # The next removals are those of the dense inverse without these columns.
  found = reference(start, data["H"], 0.5, scope="rows")
  straight = reference(data["W"], data["H"], 0.5, scope="rows")
  np.testing.assert_array_equal(found.mask, straight.mask)
  np.testing.assert_allclose(found.weights, straight.weights, atol=1e-5)


def test_it_beats_the_sweep_and_magnitude():
  data = golden("linear_full")
  w, gram = data["W"], data["H"]
  distance = lambda q: float(np.trace((w - q) @ gram @ (w - q).T)) / 2
  exact = distance(np.asarray(reference(w, gram, 0.5).weights))
  # The sweep with the least damping; it prunes one entry more.
  swept = distance(data["sparsegpt_b128_s50_W"])
  smallest = np.abs(w) < np.median(np.abs(w))
  assert exact < swept < distance(np.where(smallest, 0.0, w))


def test_a_gram_matrix_without_full_rank_is_damped():
  data = golden("linear_full")
  x = data["X"][:20]
  found = reference(data["W"], x.T @ x, 0.5)
  assert np.isfinite(found.weights).all()
  assert 0.0 < float(found.damping) < np.inf
  assert found.mask.sum() == found.mask.size // 2


def test_a_layer_without_any_input_is_wiped_out():
  found = reference(golden("linear_full")["W"], np.zeros((48, 48)), 0.5)
  assert not found.mask.any()
  assert not found.weights.any()
  assert float(found.loss) == 0.0


def test_batches_and_traced_sparsities_solve_like_single_ones():
  data, other = golden("linear_full"), golden("linear_dead")
  grams = np.stack([data["H"], other["H"]])
  shares = np.array([0.25, 0.6], np.float32)
  many = jax.vmap(lambda h, s: reference(data["W"], h, s))(
    jnp.asarray(grams), jnp.asarray(shares)
  )
  for i, (gram, share) in enumerate(zip(grams, shares, strict=True)):
    one = reference(data["W"], gram, float(share))
    np.testing.assert_array_equal(many.mask[i], one.mask)
    np.testing.assert_allclose(many.weights[i], one.weights, atol=1e-6)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (dict(sparsity=0.5, block=3), "blocks of 3"),
    (dict(n_m=(2, 4), block=2), "cannot be combined"),
    (dict(n_m=(2, 4), scope="rows"), "cannot be combined"),
    (dict(sparsity=0.5, scope="row"), "no scope 'row'"),
    (dict(), "either a sparsity or n_m"),
    (dict(sparsity=-0.1), "sparsity"),
    (dict(n_m=(2.0, 4.0)), "n_m must be a whole number"),
    (dict(n_m=(1,)), "two whole numbers"),
    (dict(sparsity=0.5, block=2.0), "block must be a whole number"),
    (dict(sparsity=0.5, damping="much"), "damping must be a finite number"),
    (dict(sparsity=0.5, w=np.full((2, 8), np.nan)), "weights hold NaN"),
  ],
)
def test_mistakes(arguments, words):
  arguments = dict(w=np.ones((2, 8), np.float32), gram=np.eye(8)) | arguments
  with pytest.raises(ValueError, match=words):
    obs.exact_obs(**arguments)


def test_whole_numbers_of_numpy_choose_the_same_solver():
  w = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
  two, four = np.int64(2), np.int64(4)
  for options, other in (
    (dict(n_m=(2, 4)), dict(n_m=(two, four))),
    (dict(sparsity=0.5, block=2), dict(sparsity=0.5, block=two)),
  ):
    wanted, found = (obs.exact_obs(w, np.eye(8), **o) for o in (options, other))
    np.testing.assert_array_equal(found.weights, wanted.weights)


def test_the_reference_adds_one_to_what_cannot_be_factored():
  # Two directions in six columns. Inverted by hand with H + 1.
  x = np.array([[2.0, 0, 0, 4, 0, 2], [0, 2, 4, 0, 2, 0]])
  w = np.random.default_rng(0).normal(size=(3, 6))
  gram = x.T @ x
  found = obs.exact_obs(
    w, gram, 0.5, scope="rows", damping=0.0, convention="reference"
  )
  mean = np.trace(gram) / 6
  assert float(found.damping) == pytest.approx(1 / mean, rel=1e-6)
  inverse = np.linalg.inv(gram + np.eye(6))
  for row, mask, weights in zip(w, found.mask, found.weights, strict=True):
    gone = np.flatnonzero(~np.asarray(mask))
    assert len(gone) == 3
    shares = np.linalg.solve(inverse[np.ix_(gone, gone)], row[gone])
    np.testing.assert_allclose(
      weights, row - inverse[:, gone] @ shares, atol=1e-5
    )


def test_columns_that_are_twice_there_never_give_nan():
  """The whole can be inverted by rounding, and a part of it then not."""
  raised = 0
  for seed in (84, *range(20)):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 2)).astype(np.float32)
    x = np.concatenate([x, x], axis=1)
    w = rng.normal(size=(4, 4)).astype(np.float32)
    found = obs.exact_obs(w, x.T @ x, 0.5)
    assert np.isfinite(found.weights).all()
    assert np.isfinite(found.loss)
    assert found.mask.sum() == 8
    raised += float(found.damping) > 0
  assert raised


def test_squares_that_overflow_are_counted():
  w = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
  for scale in (1.0, 1e20):
    found = obs.exact_obs(w * np.float32(scale), np.eye(6, dtype=w.dtype), 0.5)
    assert found.mask.sum() == 12


@pytest.mark.parametrize("solve", [obs.exact_obs, obs.sparsegpt])
def test_numbers_with_axes_are_named(solve):
  w, gram = np.ones((2, 8), np.float32), np.eye(8, dtype=np.float32)
  with pytest.raises(ValueError, match=r"damping must be one number.*\(1,\)"):
    solve(w, gram, 0.5, damping=np.array([0.01]))
  for size in (1, 2):
    with pytest.raises(ValueError, match="sparsity must be one number"):
      jax.jit(lambda s: solve(w, gram, s))(jnp.ones(size))
  with pytest.raises(ValueError, match="must be real"):
    solve(w * 1j, gram, 0.5)
