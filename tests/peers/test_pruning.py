"""Masks against torch's pruning, where scores have no ties."""

import math

import jax
import numpy as np
import pytest

from effjax import pruning

pytestmark = pytest.mark.peers
SHAPES = {"conv": (3, 3, 4, 8), "dense": (40, 16), "head": (16, 5)}
# Torch rounds the number of pruned weights half to even; these have no half.
SHARES = [0.0, 0.05, 0.3, 0.7, 0.9, 0.99, 0.995]


@pytest.fixture(scope="module")
def weights():
  rng = np.random.default_rng(0)
  return {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in SHAPES.items()
  }


@pytest.fixture
def prune(torch):
  return pytest.importorskip("torch.nn.utils.prune")


@pytest.fixture
def layers(torch, weights):
  """The same weights in torch modules, [O, ...]."""
  made = {}
  for name, kernel in weights.items():
    module = torch.nn.Module()
    swapped = torch.from_numpy(np.moveaxis(kernel, -1, 0).copy())
    module.weight = torch.nn.Parameter(swapped)
    made[name] = module
  return made


def masks_in(layers):
  return {
    name: np.moveaxis(module.weight_mask.numpy() > 0, 0, -1)
    for name, module in layers.items()
  }


def same(ours, theirs):
  for name in SHAPES:
    np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize("share", SHARES)
def test_global_magnitude(prune, weights, layers, share):
  prune.global_unstructured(
    [(module, "weight") for module in layers.values()],
    pruning_method=prune.L1Unstructured,
    amount=share,
  )
  ours = pruning.global_topk(pruning.magnitude(weights), share)
  same(ours, masks_in(layers))


@pytest.mark.parametrize("share", SHARES)
def test_magnitude_by_layer(prune, weights, layers, share):
  for module in layers.values():
    prune.l1_unstructured(module, "weight", amount=share)
  same(pruning.topk(pruning.magnitude(weights), share), masks_in(layers))


def test_number_of_pruned_weights(prune, weights, layers):
  numbers = {"conv": 100, "dense": 0, "head": 79}
  keep = {}
  for name, module in layers.items():
    prune.l1_unstructured(module, "weight", numbers[name])
    keep[name] = weights[name].size - numbers[name]
  same(pruning.topk(pruning.magnitude(weights), keep=keep), masks_in(layers))


@pytest.mark.parametrize("share", SHARES)
def test_random_masks_have_the_same_size(prune, weights, layers, share):
  for module in layers.values():
    prune.random_unstructured(module, "weight", amount=share)
  scores = pruning.random(jax.random.key(0), weights)
  ours, theirs = pruning.topk(scores, share), masks_in(layers)
  for name in SHAPES:
    assert int(ours[name].sum()) == theirs[name].sum()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.6, 0.7])
def test_channels_by_their_l1_norm(prune, weights, layers, share):
  for module in layers.values():
    prune.ln_structured(module, "weight", share, n=1, dim=0)
  ours = pruning.channels(pruning.magnitude(weights), share)
  same(ours, masks_in(layers))


@pytest.mark.parametrize("share", SHARES[1:])
def test_strictly_above_the_kth(torch, weights, share):
  """The threshold of the study of 2023, by torch's topk."""
  scores = pruning.magnitude(weights, convention="reference")
  joined = torch.cat(
    [torch.from_numpy(np.array(s).ravel()) for s in scores.values()]
  )
  rank = math.ceil(joined.numel() * (1 - share))
  threshold = torch.topk(joined, rank).values[-1].item()
  ours = pruning.global_topk(scores, share, convention="reference")
  same(ours, {name: s > threshold for name, s in scores.items()})


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 8)])
def test_n_of_m(torch, weights, n, m):
  """Along the inputs of a dense layer, as torch's semi-structured sparsity."""
  kernel = weights["dense"]
  groups = torch.from_numpy(kernel.T.copy()).abs().reshape(16, -1, m)
  kept = torch.zeros(groups.shape, dtype=torch.bool)
  kept.scatter_(2, torch.topk(groups, n, dim=2).indices, True)
  ours = pruning.n_m(pruning.magnitude(kernel), n, m)
  np.testing.assert_array_equal(ours, kept.reshape(16, -1).T.numpy())
