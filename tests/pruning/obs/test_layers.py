"""One-shot pruning of a trained network from a batch of its inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import pruning
from effjax.pruning import obs


@pytest.fixture(scope="module")
def network():
  """One convolution and one dense layer, and what meets them."""
  rng = np.random.default_rng(1)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  params = {
    "conv": {"kernel": normal(3, 3, 2, 6)},
    "dense": {"kernel": normal(6, 5), "bias": jnp.asarray(np.ones(5))},
  }
  images = np.maximum(rng.normal(size=(8, 6, 6, 2)), 0.0).astype(np.float32)
  met = jnp.asarray(np.maximum(rng.normal(size=(30, 6)), 0.0), jnp.float32)
  grams = {
    "conv": {
      "kernel": jax.jit(pruning.conv_input_gram, static_argnums=1)(images, 3)
    },
    "dense": {"kernel": pruning.input_gram(met), "bias": None},
  }
  return params, grams


def test_outputs_change_less_than_by_magnitude(network):
  params, grams = network
  pruned, masks = obs.prune_tree(params, grams, 0.5)
  plain = pruning.topk(pruning.magnitude(params), 0.5)
  smaller = pruning.apply_mask(params, plain)
  for name in ("conv", "dense"):
    matrix = lambda p, n=name: np.asarray(
      pruning.kernel_to_matrix(p[n]["kernel"])
    )
    gram = np.asarray(grams[name]["kernel"])
    change = lambda p, h=gram, m=matrix: np.trace(
      (m(p) - m(params)) @ h @ (m(p) - m(params)).T
    )
    assert change(pruned) < 0.95 * change(smaller)
  assert masks["dense"]["bias"] is None
  np.testing.assert_array_equal(pruned["dense"]["bias"], np.ones(5))
  for name in ("conv", "dense"):
    kernel, mask = pruned[name]["kernel"], masks[name]["kernel"]
    assert mask.shape == kernel.shape
    np.testing.assert_array_equal(kernel != 0, mask)
    assert float(pruning.sparsity(mask)) == pytest.approx(0.5, abs=0.04)


def test_every_layer_is_solved_as_it_would_be_alone(network):
  params, grams = network
  shares = {"conv": {"kernel": 0.75}, "dense": {"kernel": 0.4, "bias": None}}
  pruned, _ = obs.prune_tree(params, grams, shares)
  matrix = pruning.kernel_to_matrix(params["conv"]["kernel"])
  alone = obs.sparsegpt(
    matrix, grams["conv"]["kernel"], 0.75, mask_block=9
  ).weights
  np.testing.assert_array_equal(
    pruned["conv"]["kernel"], pruning.matrix_to_kernel(alone, (3, 3, 2, 6))
  )
  some, masks = obs.prune_tree(params, grams, n_m=(1, 2), where="dense/kernel")
  assert masks["conv"]["kernel"] is None
  np.testing.assert_array_equal(
    some["conv"]["kernel"], params["conv"]["kernel"]
  )
  by_pairs = np.asarray(masks["dense"]["kernel"]).reshape(3, 2, 5)
  assert (by_pairs.sum(1) == 1).all()


def test_mistakes(network):
  params, grams = network
  nothing = jax.tree.map(lambda _: None, params)
  with pytest.raises(ValueError, match="no kernel has a Gram matrix"):
    obs.prune_tree(params, nothing, 0.5)
  lacking = {**grams, "conv": {"kernel": None}}
  with pytest.raises(ValueError, match="'conv/kernel' has no Gram matrix"):
    obs.prune_tree(params, lacking, 0.5, where=".*kernel")
  wrong = {**grams, "conv": {"kernel": jnp.eye(3)}}
  with pytest.raises(ValueError, match=r"'conv/kernel' has shape \(3, 3\)"):
    obs.prune_tree(params, wrong, 0.5)
  with pytest.raises(ValueError, match="'conv/kernel': sparsity"):
    obs.prune_tree(params, grams, 1.5)
  with pytest.raises(ValueError, match="'conv/kernel': mask_block must be"):
    obs.prune_tree(params, grams, 0.5, mask_block=0)
  with pytest.raises(ValueError, match="damping must be a finite number"):
    obs.prune_tree(params, grams, 0.5, damping=-1.0)
  with pytest.raises(ValueError, match="'conv/kernel': give either a sparsity"):
    obs.prune_tree(params, grams, 0.5, n_m=(2, 4))
  whole = jax.tree.map(lambda x: x.astype(jnp.int32), params)
  with pytest.raises(ValueError, match="'conv/kernel' is of int32"):
    obs.prune_tree(whole, grams, 0.5)
