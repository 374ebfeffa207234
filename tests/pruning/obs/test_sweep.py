"""SparseGPT against published values and against float64 brute force."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.pruning import obs
from effjax.pruning.obs.solution import kept_entries

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "spade"
reference = functools.partial(obs.sparsegpt, convention="reference")


def golden(name):
  return np.load(GOLDEN / f"{name}.npz")


def assert_published(solution, weights, error, atol=1e-5):
  np.testing.assert_array_equal(solution.mask, weights != 0)
  np.testing.assert_allclose(solution.weights, weights, rtol=1e-4, atol=atol)
  if error is not None:
    np.testing.assert_allclose(solution.loss, error, rtol=1e-5)


# Compiled solvers are few: shapes and conventions are shared on purpose.
@pytest.mark.parametrize("name", ["linear_full", "linear_dead"])
@pytest.mark.parametrize(
  "block", [1, 8, pytest.param(16, marks=pytest.mark.slow), 128]
)
def test_published_linear_layers(name, block):
  data = golden(name)
  for percent in (25, 50, 75, 90):
    key = f"sparsegpt_b{block}_s{percent}"
    assert_published(
      reference(data["W"], data["H"], percent / 100, mask_block=block),
      data[f"{key}_W"],
      data[f"{key}_err"],
    )


@pytest.mark.parametrize("name", ["linear_full", "linear_dead"])
def test_published_patterns_and_damping(name):
  data = golden(name)
  for removed, of in ((2, 4), (4, 8), (3, 4), (1, 4)):
    key = f"sparsegpt_{removed}of{of}"
    assert_published(
      reference(data["W"], data["H"], n_m=(of - removed, of)),
      data[f"{key}_W"],
      data[f"{key}_err"],
    )
  assert_published(
    reference(data["W"], data["H"], 0.5, damping=0.1),
    data["sparsegpt_b128_s50_damp10_W"],
    None,
  )


@pytest.mark.parametrize(
  "name", ["conv_3x3s1", pytest.param("conv_1x1s1", marks=pytest.mark.slow)]
)
def test_published_convolutions(name):
  data = golden(name)
  taps = int(data["conv"][0]) ** 2
  w = data["W"].reshape(len(data["W"]), -1)
  for percent in (20, 50, 80, 95):
    for kind, block in (("spade", taps), ("b128", 128)):
      key = f"sparsegpt_{kind}_s{percent}"
      assert_published(
        reference(w, data["H"], percent / 100, mask_block=block),
        data[f"{key}_W"].reshape(w.shape),
        data[f"{key}_err"],
      )


def test_published_batch_under_vmap():
  data = golden("batch_linear")
  for percent in (50, 80, 95):
    for damping in (0.01, 0.1):
      solve = jax.vmap(
        lambda h, d=damping, s=percent / 100: reference(
          data["W"], h, s, mask_block=1, damping=d
        )
      )
      found = solve(jnp.asarray(data["H"]))
      published = data[f"batch_s{percent}_damp{round(100 * damping):02d}_W"]
      np.testing.assert_array_equal(found.mask, published != 0)
      np.testing.assert_allclose(found.weights, published, rtol=1e-4, atol=5e-5)


def brute(w, gram, damping, choose):
  """Sweep in float64 with an explicit inverse, as the paper writes it."""
  w, gram = np.array(w, np.float64), np.array(gram, np.float64)
  dead = np.diagonal(gram) == 0
  gram[dead, dead] = 1.0
  w[:, dead] = 0.0
  live = np.diagonal(gram)[~dead]
  gram += np.eye(len(gram)) * damping * (live.mean() if live.size else 1.0)
  upper = np.linalg.cholesky(np.linalg.inv(gram)).T
  mask, loss = np.ones(w.shape, bool), 0.0
  for start, stop, block_mask in choose(w, upper):
    mask[:, start:stop] = block_mask(w[:, start:stop])
    for j in range(start, stop):
      q = np.where(mask[:, j], w[:, j], 0.0)
      error = (w[:, j] - q) / upper[j, j]
      w[:, j:] -= error[:, None] * upper[j, j:]
      w[:, j] = q
      loss += 0.5 * np.square(error).sum()
  return w, mask & ~dead, loss


def by_share(sparsity, block):
  def choose(w, upper):
    for start in range(0, w.shape[1], block):
      stop = min(start + block, w.shape[1])

      def keep(part, start=start, stop=stop):
        scores = (part / np.diagonal(upper)[start:stop]) ** 2
        kept = scores.size - int(np.floor(sparsity * scores.size + 0.5))
        # The order of ties: by column, then by row.
        order = np.argsort(-scores.T.reshape(-1), kind="stable")
        mask = np.zeros(scores.size, bool)
        mask[order[:kept]] = True
        return mask.reshape(scores.T.shape).T

      yield start, stop, keep

  return choose


@settings(max_examples=15, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  # Two super-blocks, and a prime block that is swept in tiles of 1.
  shape=st.sampled_from([(3, 100, 65), (2, 40, 17)]),
  sparsity=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
  dead=st.booleans(),
  ties=st.booleans(),
)
def test_sweep_by_brute_force(seed, shape, sparsity, dead, ties):
  rows, columns, block = shape
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(3 * columns, columns))
  w = rng.normal(size=(rows, columns))
  if ties:
    x, w = np.eye(columns), np.round(w)
  if dead:
    x[:, rng.integers(columns)] = 0.0
  gram = x.T @ x
  with jax.enable_x64():
    found = obs.sparsegpt(w, gram, sparsity, mask_block=block)
    assert found.weights.dtype == jnp.float64
  weights, mask, loss = brute(w, gram, 0.01, by_share(sparsity, block))
  np.testing.assert_array_equal(found.mask, mask)
  np.testing.assert_allclose(found.weights, weights, atol=1e-9)
  np.testing.assert_allclose(found.loss, loss, rtol=1e-9, atol=1e-12)
  assert float(found.damping) == pytest.approx(0.01)


def test_the_loss_is_the_change_of_the_outputs():
  data = golden("linear_full")
  x, w = data["X"], data["W"]
  found = reference(w, x.T @ x, n_m=(1, 4), damping=0.0)
  change = (np.asarray(found.weights) - w) @ x.T
  np.testing.assert_allclose(found.loss, 0.5 * np.sum(change**2), rtol=1e-4)
  assert (np.asarray(found.mask).reshape(24, 12, 4).sum(-1) == 1).all()


def test_scale_of_the_gram_matrix_and_order_of_rows_do_not_matter():
  data = golden("linear_full")
  plain = reference(data["W"], data["H"], 0.5, mask_block=8)
  scaled = reference(data["W"], 64 * data["H"], 0.5, mask_block=8)
  turned = reference(data["W"][::-1], data["H"], 0.5, mask_block=8)
  np.testing.assert_array_equal(plain.mask, scaled.mask)
  np.testing.assert_array_equal(plain.mask, turned.mask[::-1])
  np.testing.assert_allclose(plain.weights, turned.weights[::-1], atol=1e-6)
  np.testing.assert_allclose(64 * plain.loss, scaled.loss, rtol=1e-5)


def test_a_traced_sparsity_counts_alike():
  data = golden("linear_full")
  solve = lambda s: reference(data["W"], data["H"], s, mask_block=8).mask
  traced = jax.jit(solve)
  for sparsity in (0.0, 0.25, 0.3125, 1.0):
    np.testing.assert_array_equal(traced(sparsity), solve(sparsity))
  for convention in ("exact", "reference"):
    count = lambda s, c=convention: kept_entries(24, s, c)
    traced = jax.jit(count)
    for sparsity in (0.0, 0.25, 0.3, 0.5, 0.9, 1.0):
      assert int(traced(sparsity)) == count(sparsity)


def test_inside_a_traced_function_a_known_matrix_is_still_looked_at():
  gram, w = jnp.eye(8), jnp.ones((2, 8))
  mask = jax.eval_shape(lambda s: obs.sparsegpt(w, gram, s).mask, 0.5)
  assert mask.shape == (2, 8)
  bad = gram.at[0, 0].set(jnp.nan)
  with pytest.raises(ValueError, match="NaN or infinities"):
    jax.eval_shape(lambda s: obs.sparsegpt(w, bad, s).mask, 0.5)


def test_a_large_block_counts_exactly():
  rng = np.random.default_rng(2)
  w = rng.normal(size=(40, 160)).astype(np.float32)
  w[:, ::3] = 0.0  # many ties
  found = obs.sparsegpt(w, np.eye(160, dtype=np.float32), 0.9, mask_block=150)
  for start in range(0, 160, 150):
    part = np.asarray(found.mask[:, start : start + 150])
    assert part.size - part.sum() == int(np.floor(0.9 * part.size + 0.5))


def test_damping_grows_where_the_factor_fails():
  # One direction only, and rounding makes the rest slightly negative.
  v = np.linspace(1.0, 2.0, 48, dtype=np.float32)
  gram = np.outer(v, v) - 1e-2 * np.eye(48, dtype=np.float32)
  found = reference(golden("linear_full")["W"], gram, 0.5, damping=1e-4)
  assert 1e-4 < float(found.damping) < 10.0
  assert np.isfinite(found.weights).all()
  assert np.isfinite(found.loss)


def test_without_a_factor_magnitudes_decide():
  w = golden("linear_full")["W"]
  gram = np.diag(np.where(np.arange(48) == 1, -1e6, 1.0)).astype(np.float32)
  found = reference(w, gram, 0.5)
  assert float(found.damping) == np.inf
  assert np.isnan(found.loss)
  mask = np.abs(w) > np.sort(np.abs(w).reshape(-1))[w.size // 2]
  np.testing.assert_array_equal(found.mask, mask)
  np.testing.assert_array_equal(found.weights, np.where(mask, w, 0.0))


def test_a_layer_without_any_input_is_wiped_out():
  found = reference(golden("linear_full")["W"], np.zeros((48, 48)), 0.5)
  assert not found.mask.any()
  assert not found.weights.any()
  assert float(found.loss) == 0.0


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (dict(w=np.ones(3), gram=np.eye(3), sparsity=0.5), r"\[O, I\] and"),
    (dict(w=np.ones((2, 3)), gram=np.eye(4), sparsity=0.5), r"\(4, 4\)"),
    (dict(w=np.ones((2, 3)), gram=np.eye(3)), "either a sparsity or n_m"),
    (dict(w=np.ones((2, 3)), gram=np.eye(3), sparsity=1.5), "sparsity"),
    (dict(w=np.ones((2, 6)), gram=np.eye(6), n_m=(2, 4)), "6 inputs cannot"),
    (dict(w=np.ones((2, 4)), gram=np.eye(4), n_m=(5, 4)), "does not keep"),
    (
      dict(w=np.ones((2, 3)), gram=np.full((3, 3), np.nan), sparsity=0.5),
      "Gram matrix holds NaN or infinities",
    ),
    (
      dict(w=np.full((2, 3), np.inf), gram=np.eye(3), sparsity=0.5),
      "weights hold NaN or infinities",
    ),
    (
      dict(w=np.ones((2, 3)), gram=np.eye(3), sparsity=0.5, mask_block=0),
      "mask_block must be a whole number of at least 1",
    ),
    (
      dict(w=np.ones((2, 3)), gram=np.eye(3), sparsity=0.5, convention="own"),
      "convention 'own'",
    ),
  ],
)
def test_mistakes(arguments, words):
  with pytest.raises(ValueError, match=words):
    obs.sparsegpt(**arguments)
