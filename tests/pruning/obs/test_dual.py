"""The dual of SparseGPT against SparseGPT itself."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax import pruning
from effjax.pruning import obs

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "spade"


def both(w, inputs, *args, **kwargs):
  """Solve from the inputs and from their Gram matrix."""
  gram = pruning.input_gram(jnp.asarray(inputs))
  return (
    obs.sparsegpt_from_inputs(w, inputs, *args, **kwargs),
    obs.sparsegpt(w, gram, *args, **kwargs),
  )


def assert_alike(dual, primal, atol, rtol):
  np.testing.assert_array_equal(dual.mask, primal.mask)
  np.testing.assert_allclose(dual.weights, primal.weights, atol=atol)
  np.testing.assert_allclose(dual.loss, primal.loss, rtol=rtol, atol=atol)
  np.testing.assert_allclose(dual.damping, primal.damping)


@settings(max_examples=12, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  sparsity=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
  damping=st.sampled_from([1e-5, 0.01, 1.0]),
  dead=st.sampled_from([0, 1, 100]),
)
def test_dual_and_primal_find_the_same(seed, sparsity, damping, dead):
  rng = np.random.default_rng(seed)
  inputs, w = rng.normal(size=(12, 100)), rng.normal(size=(4, 100))
  inputs[:, rng.permutation(100)[:dead]] = 0.0
  with jax.enable_x64():
    # Two super-blocks of one block each, the second not full.
    dual, primal = both(w, inputs, sparsity, mask_block=65, damping=damping)
  assert_alike(dual, primal, 1e-8, 1e-8)


@pytest.mark.parametrize("solve", ["inputs", "gram"])
def test_weights_may_lie_as_jax_keeps_them(solve):
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(12, 100)).astype(np.float32)
  w = rng.normal(size=(4, 100)).astype(np.float32)
  if solve == "inputs":
    given, function = inputs, obs.sparsegpt_from_inputs
  else:
    given, function = pruning.input_gram(inputs), obs.sparsegpt
  one = function(w, given, 0.7, mask_block=9)
  other = function(w.T, given, 0.7, mask_block=9, transposed=True)
  np.testing.assert_array_equal(other.weights.T, one.weights)
  np.testing.assert_array_equal(other.mask.T, one.mask)
  np.testing.assert_array_equal(other.loss, one.loss)
  with pytest.raises(ValueError, match=r"\[I, O\]"):
    function(w, given, 0.7, transposed=True)


def test_many_super_blocks_of_correlated_inputs_in_single_precision():
  """What is taken from the inverse at each block must not add up."""
  rng = np.random.default_rng(0)
  common = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 900))
  inputs = np.maximum(common + 0.3 * rng.normal(size=(200, 900)) + 0.5, 0.0)
  w = rng.normal(size=(32, 900))
  with jax.enable_x64():
    exact = obs.sparsegpt(w, inputs.T @ inputs, 0.8, mask_block=9)
  found = obs.sparsegpt_from_inputs(
    w.astype(np.float32), inputs.astype(np.float32), 0.8, mask_block=9
  )
  np.testing.assert_array_equal(found.mask, exact.mask)
  np.testing.assert_allclose(found.weights, exact.weights, atol=5e-3)
  np.testing.assert_allclose(found.loss, exact.loss, rtol=1e-4)


def low_rank():
  """Find few inputs that have nearly a published Gram matrix, of rank 5."""
  data = np.load(GOLDEN / "batch_linear.npz")
  values, vectors = np.linalg.eigh(data["H"][2].astype(np.float64))
  inputs = (vectors * np.sqrt(np.maximum(values, 0.0))).T[-13:]
  np.testing.assert_allclose(inputs.T @ inputs, data["H"][2], atol=0.05)
  return data["W"], inputs.astype(np.float32)


def test_single_precision_patterns_and_dead_columns():
  w, inputs = low_rank()
  for columns in ([], [5, 17]):
    inputs[:, columns] = 0.0
    solve = functools.partial(both, w, inputs, convention="reference")
    for percent in (50, 80, 95):
      for damping in (0.01, 0.1):
        assert_alike(
          *solve(percent / 100, damping=damping), atol=2e-4, rtol=2e-4
        )
    assert_alike(*solve(n_m=(2, 4)), atol=2e-4, rtol=2e-4)


def test_without_damping_some_is_added_and_said():
  w, inputs = low_rank()
  found = obs.sparsegpt_from_inputs(
    w, inputs, 0.5, damping=0.0, convention="reference"
  )
  assert 0.0 < float(found.damping) < np.inf
  assert np.isfinite(found.weights).all()
  assert np.isfinite(found.loss)


def test_many_inputs_are_summed_up():
  data = np.load(GOLDEN / "linear_full.npz")
  found, straight = both(data["W"], data["X"], 0.5, convention="reference")
  np.testing.assert_array_equal(found.mask, straight.mask)
  np.testing.assert_array_equal(found.mask, data["sparsegpt_b128_s50_W"] != 0)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (dict(inputs=np.ones((2, 7)), sparsity=0.5), r"\(2, 8\) and \(2, 7\)"),
    (dict(inputs=np.ones((2, 8))), "either a sparsity or n_m"),
    (dict(inputs=np.full((2, 8), np.inf), sparsity=0.5), "the inputs hold"),
    (dict(inputs=np.ones((2, 8)), n_m=(1, 3)), "8 inputs cannot"),
  ],
)
def test_mistakes(arguments, words):
  with pytest.raises(ValueError, match=words):
    obs.sparsegpt_from_inputs(np.ones((2, 8)), **arguments)


@pytest.mark.parametrize("damping", [0.0, 1e-5, 1e-4, 1e-3, 0.01])
def test_little_damping_of_inputs_with_a_large_mean(damping):
  """One strong direction, of which little is left after the first columns."""
  rng = np.random.default_rng(0)
  inputs = (3.0 + 0.1 * rng.normal(size=(60, 300))).astype(np.float32)
  w = rng.normal(size=(8, 300)).astype(np.float32)
  found, primal = both(w, inputs, 0.5, damping=damping)
  for solution in (found, primal):
    change = (w - np.asarray(solution.weights)).astype(np.float64)
    outputs = np.sum(np.square(change @ inputs.T.astype(np.float64)))
    ridge = float(solution.damping) * np.mean(np.square(inputs)) * 60
    loss = 0.5 * (outputs + ridge * np.sum(np.square(change)))
    np.testing.assert_allclose(solution.loss, loss, rtol=0.2)
    assert loss < 1000  # 32,000 where nothing is compensated
  assert float(found.damping) == float(primal.damping)


def test_inputs_that_are_traced_and_not_finite_leave_magnitudes():
  w = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
  inputs = np.ones((2, 8), np.float32)
  inputs[0, 0] = np.nan
  found = jax.jit(lambda x: obs.sparsegpt_from_inputs(w, x, 0.5))(inputs)
  assert np.isinf(found.damping)
  np.testing.assert_array_equal(found.weights, np.where(found.mask, w, 0.0))
  assert found.mask.sum() == 12
  order = np.sort(np.abs(w), axis=None)
  np.testing.assert_array_equal(found.mask, np.abs(w) >= order[12])


def test_a_known_damping_inside_a_traced_function():
  w, inputs = low_rank()
  damping = jnp.float32(0.01)
  solve = lambda x: obs.sparsegpt_from_inputs(w, x, 0.5, damping=damping)
  np.testing.assert_array_equal(jax.jit(solve)(inputs).mask, solve(inputs).mask)


def test_a_damping_that_is_traced():
  w, inputs = low_rank()
  solve = lambda d: obs.sparsegpt_from_inputs(w, inputs, 0.5, damping=d)
  found = jax.vmap(solve)(jnp.array([1e-4, 0.01], jnp.float32))
  for i, damping in enumerate((1e-4, 0.01)):
    mask = solve(damping).mask
    assert np.mean(mask != found.mask[i]) < 0.01
