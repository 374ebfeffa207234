"""EfficientNet-Lite0 against its stored weights in plain torch."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import data
from effjax.io import torch_pickle
from effjax.models import efficientnet
from tests.peers import networks

pytestmark = [pytest.mark.peers, pytest.mark.data]
# Blocks, kernel size, stride of the first, output channels; those of the first
# stage do not expand.
STAGES = [(1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80)]
STAGES += [(3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320)]


def forward(torch, state, x):
  """Return the logits of images [N, 3, H, W]."""
  f = torch.nn.functional

  def conv(x, name, stride=1):
    kernel = state[f"{name}.weight"]
    size, side = kernel.shape[2], x.shape[2]
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    pads = (total // 2, total - total // 2) * 2
    groups = x.shape[1] // kernel.shape[1]
    return f.conv2d(f.pad(x, pads), kernel, stride=stride, groups=groups)

  def norm(x, name):
    leaves = ("running_mean", "running_var", "weight", "bias")
    return f.batch_norm(x, *(state[f"{name}.{n}"] for n in leaves), eps=1e-3)

  x = f.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
  number = 0
  for blocks, size, stride, features in STAGES:
    for block in range(blocks):
      name, y = f"_blocks.{number}", x
      if number:
        y = f.relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
      assert state[f"{name}._depthwise_conv.weight"].shape[2] == size
      step = 1 if block else stride
      y = conv(y, f"{name}._depthwise_conv", step)
      y = norm(
        conv(f.relu6(norm(y, f"{name}._bn1")), f"{name}._project_conv"),
        f"{name}._bn2",
      )
      assert y.shape[1] == features
      x = x + y if step == 1 and x.shape[1] == features else y
      number += 1
  x = f.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
  return f.linear(x, state["_fc.weight"], state["_fc.bias"])


@pytest.fixture(scope="module")
def stored(torch):
  """The bytes of the weights, and the twenty pictures."""
  try:
    weights = data.source("efficientnet_lite0", "all").arrays["contents"][0]
    pictures = data.source("imagenet_samples", "all")
  except FileNotFoundError:
    pytest.skip(
      "The weights or pictures are absent: python -m launch.fetch"
      " efficientnet_lite0 imagenet_samples"
    )
  x = [efficientnet.preprocess(example["image"][None]) for example in pictures]
  return weights, np.concatenate(x)


def test_the_file_is_read_as_by_torch(torch, stored):
  state = torch.load(io.BytesIO(stored[0]), weights_only=True)
  found = torch_pickle.parse(stored[0])
  assert list(found) == list(state)
  for name, tensor in state.items():
    np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)


def test_logits_of_all_pictures(torch, stored):
  weights, x = stored
  module, variables = efficientnet.load(torch_pickle.parse(weights))
  logits = jax.jit(module.apply)(variables, x)
  state = torch.load(io.BytesIO(weights), weights_only=True)
  with torch.no_grad():
    expected = forward(torch, state, networks.images(x)).numpy()
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_gradient_of_a_picture(torch, stored):
  weights, x = stored
  module, variables = efficientnet.load(torch_pickle.parse(weights))
  gradient = jax.jit(
    jax.grad(lambda x: jnp.sum(module.apply(variables, x)[:, 243]))
  )(x[:1])
  state = torch.load(io.BytesIO(weights), weights_only=True)
  inside = networks.images(x[:1]).requires_grad_()
  forward(torch, state, inside)[:, 243].sum().backward()
  expected = np.transpose(inside.grad.numpy(), (0, 2, 3, 1))
  # A unit that is almost 0 or 6 may be on in one network and off in the other.
  error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
  assert error < 1e-3
