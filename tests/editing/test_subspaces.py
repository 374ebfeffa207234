"""Ranks and subspaces of deltas against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import editing

RNG = np.random.default_rng(1)
A, B = RNG.normal(size=(2, 6, 4))


def test_spectra():
  delta = {"a/kernel": jnp.asarray(A, jnp.float32), "a/bias": jnp.ones(4)}
  found = editing.spectra(delta)
  s = np.linalg.svd(A, compute_uv=False)
  share = s / s.sum()
  expected = (
    np.linalg.norm(A),
    s[0],
    s.sum(),
    (s**2).sum() / s[0] ** 2,
    np.exp(-(share * np.log(share)).sum()),
    4,
  )
  np.testing.assert_allclose(found["a/kernel"], expected, rtol=1e-5)
  np.testing.assert_allclose(found["a/bias"], (2, 2, 2, 1, 1, 1), rtol=1e-6)
  nothing = editing.spectra({"k": jnp.zeros((6, 4))})["k"]
  assert int(nothing.rank) == 0
  assert np.isnan(nothing.effective_rank)
  empty = editing.spectra({"w": jnp.zeros((0, 3))})["w"]
  np.testing.assert_array_equal(empty, [0, 0, 0, np.nan, np.nan, 0])


def test_projection():
  u, s, vt = np.linalg.svd(A, full_matrices=False)
  delta = {"k": jnp.asarray(A, jnp.float32), "b": jnp.ones(4)}
  project = jax.jit(editing.project)
  for rank in (0, 2, 4, 9):
    expected = u[:, :rank] * s[:rank] @ vt[:rank]
    found = project(delta, rank)
    np.testing.assert_allclose(found["k"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["b"], delta["b"])


def test_stacked_kernels_and_convolutions():
  stack = jnp.asarray(RNG.normal(size=(2, 6, 4)), jnp.float32)
  found = editing.project({"k": stack}, 2, layout="bio")["k"]
  for i in range(2):
    one = editing.project({"k": stack[i]}, 2)["k"]
    np.testing.assert_allclose(found[i], one, atol=1e-5)
  kernel = jnp.asarray(A.reshape(3, 1, 2, 4), jnp.float32)
  found = editing.project({"k": kernel}, 2)["k"]
  np.testing.assert_allclose(
    found.reshape(6, 4), editing.project({"k": kernel.reshape(6, 4)}, 2)["k"]
  )
  with pytest.raises(ValueError, match="layout"):
    editing.project({"k": stack}, 2)


def angles(a, b, rank):
  """Return principal angles of the leading column spaces, and their overlap."""
  x, y = (np.linalg.svd(m)[0][:, :rank] for m in (a, b))
  cosines = np.linalg.svd(x.T @ y, compute_uv=False)
  return np.arccos(np.clip(cosines, 0, 1)), (cosines**2).mean()


def test_comparison():
  a, b = jnp.asarray(A, jnp.float32), jnp.asarray(B, jnp.float32)
  found = editing.compare({"k": a}, {"k": b, "other": b}, rank=2)["k"]
  cosine = (A * B).sum() / np.linalg.norm(A) / np.linalg.norm(B)
  np.testing.assert_allclose(found.cosine, cosine, rtol=1e-5)
  for side, (x, y) in (("input", (A, B)), ("output", (A.T, B.T))):
    expected, overlap = angles(x, y, 2)
    np.testing.assert_allclose(
      getattr(found, f"{side}_angles"), expected, atol=1e-5
    )
    np.testing.assert_allclose(
      getattr(found, f"{side}_overlap"), overlap, atol=1e-5
    )
  # The same space by other vectors, to the last bits and not their root.
  turned = jnp.asarray(np.linalg.svd(A)[0][:, :2] @ RNG.normal(size=(2, 4)))
  low = editing.project({"k": a}, 2)
  same = editing.compare(low, {"k": turned.astype(jnp.float32)}, rank=2)["k"]
  assert np.max(same.input_angles) < 1e-5
  np.testing.assert_allclose(same.input_overlap, 1.0, rtol=1e-5)


def test_comparison_beyond_the_rank():
  one = jnp.zeros((6, 4)).at[0, 0].set(1.0)
  two = one.at[1, 1].set(0.5)
  found = editing.compare({"k": one}, {"k": two}, rank=2)["k"]
  np.testing.assert_array_equal(found.input_angles, [0.0, np.nan])
  assert found.input_overlap == 1.0
  nothing = editing.compare({"k": one}, {"k": 0 * one}, rank=2)["k"]
  assert np.isnan(nothing.input_angles).all()
  assert np.isnan(nothing.cosine)
  assert np.isnan(nothing.output_overlap)


def test_comparison_of_leaves_of_lower_rank():
  kernel, bias = jnp.asarray(A, jnp.float32), jnp.array([3.0, 4.0])
  a = {"kernel": kernel, "bias": bias, "none": jnp.zeros((0, 3))}
  b = a | {"bias": jnp.array([3.0, 0.0])}
  found = editing.compare(a, b, rank=2)
  alone = editing.compare(a, b, rank=1)
  for side in ("input", "output"):
    angles = getattr(found["bias"], f"{side}_angles")
    one = getattr(alone["bias"], f"{side}_angles")
    np.testing.assert_array_equal(angles, [*np.asarray(one), np.nan])
    assert np.isnan(getattr(found["none"], f"{side}_angles")).all()
  np.testing.assert_allclose(found["bias"].output_overlap, 0.36, rtol=1e-5)
  assert found["bias"].input_overlap == 1.0
  np.testing.assert_allclose(found["kernel"].input_overlap, 1.0, rtol=1e-5)
  # More than any leaf has.
  wide = editing.compare({"x": kernel}, {"x": kernel}, rank=5)["x"]
  assert np.isnan(wide.input_angles).tolist() == [False] * 4 + [True]


def test_whole_deltas():
  a, b = {"x": jnp.array([3.0]), "y": jnp.array([4.0])}, {"y": jnp.ones(1)}
  assert editing.norm(a) == 5.0
  np.testing.assert_allclose(editing.cosine(a, b), 0.8, rtol=1e-6)
  assert editing.cosine({"x": a["x"]}, b) == 0.0


@pytest.mark.parametrize(
  ("a", "b", "rank", "words"),
  [
    ({"x": A}, {"y": A}, 1, "common"),
    ({"x": A}, {"x": A.T}, 1, "shapes"),
    ({"x": A}, {"x": A}, 0, "rank must be a whole number of at least 1"),
    ({"x": A}, {"x": A}, 1.5, "rank must be a whole number"),
  ],
)
def test_errors(a, b, rank, words):
  with pytest.raises(ValueError, match=words):
    editing.compare(a, b, rank=rank)


@pytest.mark.parametrize("rank", [2.7, np.nan, -1, None, "2"])
def test_ranks_that_are_none(rank):
  with pytest.raises(ValueError, match="rank must be a whole number of at le"):
    editing.project({"k": jnp.ones((3, 3))}, rank)


@pytest.mark.timeout(120)
def test_many_projections_side_by_side_end():
  # Batched factorisations that run at once waited for each other for ever.
  draw = np.random.default_rng(0).normal
  stacked = {
    f"layer_{i}/kernel": jnp.asarray(draw(size=(8, 32, 64)), jnp.float32)
    for i in range(12)
  }

  @jax.jit
  def repeated(deltas):
    step = lambda total, rank: (
      jax.tree.map(
        jnp.add,
        total,
        jax.vmap(lambda d: editing.project(d, rank))(deltas),
      ),
      None,
    )
    return jax.lax.scan(step, deltas, jnp.array([1, 2, 3], jnp.int32))[0]

  found = repeated(stacked)
  for path, x in stacked.items():
    one = {path: x[5]}
    parts = [one, *(editing.project(one, rank) for rank in (1, 2, 3))]
    np.testing.assert_allclose(
      found[path][5], sum(p[path] for p in parts), atol=1e-3
    )
