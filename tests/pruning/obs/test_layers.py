"""One-shot pruning of a trained network from a batch of its inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import pruning
from effjax.pruning import obs


@pytest.fixture(scope="module")
def network():
  """A network of one convolution and one dense layer with its inputs."""
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    "conv": {"kernel": jax.random.normal(keys[0], (3, 3, 2, 6))},
    "dense": {
      "kernel": jax.random.normal(keys[1], (6, 5)),
      "bias": jnp.ones(5),
    },
  }
  images = jax.nn.relu(jax.random.normal(keys[2], (8, 6, 6, 2)))

  def hidden(params):
    y = jax.lax.conv_general_dilated(
      images,
      params["conv"]["kernel"],
      (1, 1),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jnp.mean(jax.nn.relu(y), axis=(1, 2))

  grams = {
    "conv": {"kernel": pruning.conv_input_gram(images, 3)},
    "dense": {"kernel": pruning.input_gram(hidden(params)), "bias": None},
  }
  return params, grams, hidden


def outputs(network, params):
  return network[2](params) @ params["dense"]["kernel"]


def test_outputs_change_less_than_by_magnitude(network):
  params, grams, _ = network
  pruned, masks = obs.prune_tree(params, grams, 0.5)
  plain = pruning.topk(pruning.magnitude(params), 0.5)
  before = outputs(network, params)
  change = lambda p: float(jnp.sum(jnp.square(outputs(network, p) - before)))
  assert change(pruned) < 0.7 * change(pruning.apply_mask(params, plain))
  assert masks["dense"]["bias"] is None
  np.testing.assert_array_equal(pruned["dense"]["bias"], np.ones(5))
  for name in ("conv", "dense"):
    kernel, mask = pruned[name]["kernel"], masks[name]["kernel"]
    assert mask.shape == kernel.shape
    np.testing.assert_array_equal(kernel != 0, mask)
    assert float(pruning.sparsity(mask)) == pytest.approx(0.5, abs=0.04)


def test_every_layer_is_solved_as_it_would_be_alone(network):
  params, grams, _ = network
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
  params, grams, _ = network
  nothing = jax.tree.map(lambda _: None, params)
  with pytest.raises(ValueError, match="no kernel has a Gram matrix"):
    obs.prune_tree(params, nothing, 0.5)
  lacking = {**grams, "conv": {"kernel": None}}
  with pytest.raises(ValueError, match="'conv/kernel' has no Gram matrix"):
    obs.prune_tree(params, lacking, 0.5, where=".*kernel")
  wrong = {**grams, "conv": {"kernel": jnp.eye(3)}}
  with pytest.raises(ValueError, match=r"'conv/kernel' has shape \(3, 3\)"):
    obs.prune_tree(params, wrong, 0.5)
