"""The factor by blocks, as a whole, and NumPy's in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.pruning import obs
from effjax.pruning.obs import choice, factor, sweep
from effjax.pruning.obs.solution import usable


@pytest.mark.parametrize("way", [factor._by_blocks, factor._as_a_whole])
@pytest.mark.parametrize(
  ("columns", "size"), [(12, 4), (13, 4), (5, 5), (3, 8), (1, 1)]
)
def test_it_is_that_of_numpy(way, columns, size):
  inputs = np.random.default_rng(columns).normal(size=(20, columns))
  gram, added = inputs.T @ inputs, np.linspace(0.5, 2.0, columns)
  rows, corners, inverses = way(
    jnp.asarray(gram, jnp.float32), jnp.asarray(added, jnp.float32), size
  )
  many = -(-columns // size)
  whole = np.eye(many * size)
  turned = (gram + np.diag(added))[::-1, ::-1]
  whole[:columns, :columns] = np.linalg.cholesky(turned)[::-1, ::-1]
  for k in range(many):
    block = slice(k * size, (k + 1) * size)
    corner = whole[block, block]
    np.testing.assert_allclose(corners[k], corner, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
      inverses[k], np.linalg.inv(corner), rtol=1e-4, atol=1e-4
    )
    before = slice(0, k * size)
    np.testing.assert_allclose(
      rows[block, before], whole[before, block].T, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("way", [factor._by_blocks, factor._as_a_whole])
def test_what_cannot_be_factored_shows(way):
  gram = jnp.diag(jnp.array([1.0, -1.0, 1.0, 1.0, 1.0]))
  _, corners, _ = way(gram, jnp.zeros(5), 2)
  pivots = jnp.diagonal(corners, axis1=1, axis2=2)
  assert not usable(pivots)


def test_large_matrices_are_not_written_out():
  gram = jax.ShapeDtypeStruct((200, 200), jnp.float32)
  added = jax.ShapeDtypeStruct((200,), jnp.float32)
  jaxpr = jax.make_jaxpr(lambda g, a: factor.factor_rows(g, a, 2))(gram, added)
  assert str(jaxpr).count("= cholesky") == 1


@pytest.mark.parametrize("columns", [255, 256, 600])
def test_many_columns_are_counted(columns):
  """A byte counts to 255: more columns are counted in parts."""
  scores = np.random.default_rng(0).permutation(np.arange(3.0 * columns))
  scores = jnp.asarray(scores.reshape(columns, 3), jnp.float32)
  for keep in (0, 1, 3 * columns - 1, 3 * columns):
    mask = choice.largest(scores, jnp.int32(keep), strict=False)
    np.testing.assert_array_equal(mask, scores >= 3 * columns - keep)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_accelerators_find_the_same(sign, monkeypatch):
  """What an accelerator would run, run here: a batch, and one that fails."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 60, 40)).astype(np.float32)
  w = jnp.asarray(rng.normal(size=(2, 6, 40)), jnp.float32)
  gram = jnp.asarray(sign * np.einsum("bni,bnj->bij", x, x))
  solve = functools.partial(obs.sparsegpt, sparsity=0.7, mask_block=9)
  here = jax.vmap(solve)(w, gram)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  sweep.compiled.cache_clear()
  try:
    there = jax.vmap(solve)(w, gram)
  finally:
    sweep.compiled.cache_clear()
  np.testing.assert_array_equal(there.mask, here.mask)
  np.testing.assert_allclose(there.weights, here.weights, atol=1e-5)
  np.testing.assert_array_equal(there.damping, here.damping)
  assert np.all(np.isfinite(here.damping)) == (sign > 0)


@pytest.mark.parametrize("side", [1, 2, 64, 65, 126, 131, 300])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_factors_come_with_their_inverses(side, scale):
  """Alone, by halves, and by halves of halves; of any size of numbers."""
  inputs = np.random.default_rng(side).normal(size=(2 * side + 1, side))
  gram = inputs.T @ inputs * scale
  for find, like in (
    (factor.lower_factor, np.linalg.cholesky(gram)),
    (
      factor.upper_factor,
      np.linalg.cholesky(gram[::-1, ::-1])[::-1, ::-1],
    ),
  ):
    found, inverse = jax.jit(find)(jnp.asarray(gram, jnp.float32))
    near = dict(rtol=0, atol=2e-4 * np.abs(like).max())
    np.testing.assert_allclose(found, like, **near)
    exact = np.linalg.inv(like)
    near = dict(rtol=0, atol=2e-4 * np.abs(exact).max())
    np.testing.assert_allclose(inverse, exact, **near)


@pytest.mark.parametrize("side", [3, 200])
def test_factors_of_what_has_none_are_not_finite(side):
  gram = jnp.eye(side).at[side // 2, side // 2].set(-1.0)
  for find in (factor.lower_factor, factor.upper_factor):
    assert not usable(jnp.diagonal(find(gram)[0]))


def test_blocks_of_many_columns_are_not_written_out():
  gram = jax.ShapeDtypeStruct((2048, 2048), jnp.float32)
  assert str(jax.make_jaxpr(factor.lower_factor)(gram)).count("cholesky") == 1
