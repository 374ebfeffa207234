"""Solvers of a trace against published values, and what they refuse."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import spade
from effjax.spade.solvers import SOLVERS, Problem

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "spade"
KEY = jax.random.key(0)


def problem(matrix, met, sparsity, *, taps=1, convention="reference"):
  return Problem(
    KEY,
    jnp.asarray(np.transpose(matrix), jnp.float32),
    jnp.asarray(met, jnp.float32),
    False,
    sparsity,
    taps,
    None,
    0.01,
    convention,
  )


def solved(name, given):
  """Solve a problem, whose matrix lies the other way."""
  found = SOLVERS[name](given)
  return found._replace(weights=found.weights.T, mask=found.mask.T)


@pytest.mark.parametrize("name", ["linear_full", "linear_dead"])
@pytest.mark.parametrize("percent", [25, 50, 75, 90])
@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_wanda_is_the_published_one(name, percent, convention):
  with np.load(GOLDEN / f"{name}.npz") as data:
    published, w, x = data[f"wanda_s{percent}_W"], data["W"], data["X"]
  given = problem(w, x.T @ x, percent / 100, convention=convention)
  found = solved("wanda", given)
  np.testing.assert_array_equal(found.mask, published != 0)


def test_wanda_removes_the_first_of_equal_ones_and_a_floor_of_them():
  given = problem(np.ones((1, 100)), np.eye(100), 0.29)
  mask = np.asarray(solved("wanda", given).mask[0])
  assert not mask[:28].any()
  assert mask[28:].all()


@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.57, 0.9, 1.0])
def test_magnitude_by_the_reference_removes_one_more_and_ties(sparsity):
  w = np.random.default_rng(0).integers(1, 60, (10, 10)) * 0.25
  sizes = np.sort(w.reshape(-1))
  limit = sizes[min(int(100 * sparsity), 99)]
  found = solved("magnitude", problem(-w, np.eye(10), sparsity))
  np.testing.assert_array_equal(found.mask, w > limit)
  np.testing.assert_array_equal(found.weights, np.where(w > limit, -w, 0))


@pytest.mark.parametrize("percent", [50, 80])
def test_the_reference_removes_blocks_of_channels(percent):
  with np.load(GOLDEN / "conv_3x3s1.npz") as data:
    w, gram = data["W"], data["H"]
    published = data[f"obs_spadeblock_s{percent}_W"]
  flat = w.reshape(len(w), -1)
  found = solved("exact_obs", problem(flat, gram, percent / 100, taps=9))
  wanted = published.reshape(flat.shape)
  np.testing.assert_array_equal(found.mask, wanted != 0)
  np.testing.assert_allclose(found.weights, wanted, atol=1e-4)


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"sparsegpt"}))
def test_blocks_are_for_one_solver(solver):
  capture = lambda w, x: (x @ w["a"], {"a": x})
  arguments = (KEY, capture, {"a": jnp.ones((4, 2))}, jnp.ones((1, 4)), 0.5)
  with pytest.raises(ValueError, match="does not choose by blocks"):
    spade.trace(*arguments, solver=solver, mask_block=2, augment=None)


def test_numbers_of_other_libraries_are_numbers():
  f = spade.capture_function(lambda w, x: x @ w["a"])
  params, x = {"a": jnp.arange(8.0).reshape(4, 2)}, jnp.ones((1, 4))
  wanted = spade.trace(KEY, f, params, x, 0.5, augment=None)
  for share in (np.float32(0.5), jnp.float32(0.5), [(".*", np.float64(0.5))]):
    found = spade.trace(KEY, f, params, x, share, augment=None)
    np.testing.assert_array_equal(found["a"], wanted["a"])
  with pytest.raises(ValueError, match="is traced"):
    jax.jit(lambda s: spade.trace(KEY, f, params, x, s, augment=None))(0.5)
  with pytest.raises(ValueError, match="of a tree of shares make rules"):
    spade.trace(KEY, f, params, x, {"a": 0.5}, augment=None)
  with pytest.raises(ValueError, match="the leaf 'b' is no array"):
    spade.trace(KEY, f, params | {"b": jnp.tanh}, x, 0.5, augment=None)
