"""Layers and models against torch: values, gradients, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.models import layers
from tests.peers import networks

pytestmark = pytest.mark.peers
RNG = np.random.default_rng(0)


def normal(*shape):
  return np.asarray(RNG.normal(size=shape), np.float32)


def near(found, expected, tolerance):
  """Compare relative to the largest entry."""
  expected = np.asarray(expected, np.float64)
  scale = np.abs(expected).max(initial=0.0)
  np.testing.assert_allclose(
    np.asarray(found, np.float64), expected, rtol=0, atol=tolerance * scale
  )


# (image, window, strides, padding, inputs, outputs, groups), in turns the paths
# of products, of XLA's operation, depthwise and grouped.
CONVOLUTIONS = [
  ((8, 9), (3, 3), (1, 1), (1, 1), 8, 6, 1),
  ((4, 3), (3, 3), (2, 2), (1, 1), 4, 6, 1),
  ((12, 11), (7, 7), (2, 2), (3, 3), 3, 4, 1),
  ((9, 8), (3, 2), (2, 1), (0, 1), 1, 5, 1),
  ((7, 7), (1, 1), (2, 2), (0, 0), 5, 4, 1),
  ((8, 7), (3, 3), (1, 1), (1, 1), 6, 6, 6),
  ((7, 8), (5, 3), (2, 1), (2, 1), 6, 6, 6),
  ((6, 6), (3, 3), (2, 2), (1, 1), 4, 12, 4),
  ((6, 7), (3, 3), (1, 2), (1, 0), 6, 8, 2),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_conv_and_its_gradients(torch, case):
  image, window, strides, padding, inputs, outputs, groups = case
  module = layers.Conv(
    outputs,
    window,
    strides=strides,
    padding=padding,
    feature_group_count=groups,
  )
  params = {
    "kernel": normal(*window, inputs // groups, outputs),
    "bias": normal(outputs),
  }
  x = normal(3, *image, inputs)

  @jax.jit
  def run(params, x, weights):
    y, pullback = jax.vjp(
      lambda p, x: module.apply({"params": p}, x), params, x
    )
    return y, *pullback(weights)

  shape = jax.eval_shape(module.apply, {"params": params}, x).shape
  weights = normal(*shape)
  y, gradient, dx = run(params, x, weights)

  tensors = networks.as_torch({"params": {"conv": params}})
  kernel, bias = (
    torch.from_numpy(tensors[f"conv.{k}"]).requires_grad_()
    for k in ("weight", "bias")
  )
  inside = networks.images(x).requires_grad_()
  out = torch.nn.functional.conv2d(
    inside, kernel, bias, strides, padding, groups=groups
  )
  out.backward(networks.images(weights))
  found = networks.as_torch({"params": {"conv": gradient}})
  near(np.transpose(y, (0, 3, 1, 2)), out.detach(), 1e-5)
  near(np.transpose(dx, (0, 3, 1, 2)), inside.grad, 1e-5)
  near(found["conv.weight"], kernel.grad, 1e-5)
  near(found["conv.bias"], bias.grad, 1e-5)


# name: (attributes of ours, the same in torch, published number of parameters
# at full width with 1000 outputs, that of torchvision for the ResNets)
STAGES = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
MODELS = {
  "resnet18": (8, 11_689_512),
  "resnet50": (4, 25_557_032),
  "mobilenet_v1": (0.25, 4_231_976),
}


def peer(name, width, outputs):
  if name == "mobilenet_v1":
    return networks.mobilenet_v1(width=width, outputs=outputs)
  return networks.resnet(
    STAGES[name], width=width, outputs=outputs, bottleneck=name == "resnet50"
  )


@pytest.mark.parametrize("name", MODELS)
def test_number_of_parameters(torch, name):
  _, count = MODELS[name]
  with torch.device("meta"):
    module = peer(name, 1.0 if name == "mobilenet_v1" else 64, 1000)
  assert sum(p.numel() for p in module.parameters()) == count
  shapes = jax.eval_shape(
    models.build(name).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )
  ours = jax.tree.leaves(shapes["params"])
  assert sum(leaf.size for leaf in ours) == count


def some_variables(model, x):
  """Draw variables; float64, but for the head, whose logits are float32."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), x)

  def draw(path, leaf):
    noise = normal(*leaf.shape)
    if leaf.ndim == 4:
      value = noise * np.sqrt(2 / (noise.size / leaf.shape[2]))
    elif path[-1].key in ("scale", "var"):
      value = np.exp(0.2 * noise)
    else:
      value = 0.2 * noise
    return value.astype(np.float32 if path[1].key == "head" else np.float64)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("name", MODELS)
def test_logits_statistics_and_gradients(torch, name):
  # In float64: a unit that is almost 0 must be on or off in both networks.
  width, _ = MODELS[name]
  with jax.enable_x64(True):
    model = models.build(name, outputs=5, width=width, dtype=jnp.float64)
    x, weights = normal(6, 32, 32, 3).astype(float), normal(6, 5)
    variables = some_variables(model, x)
    module = peer(name, width, 5).double()
    networks.copy(variables, module)

    @jax.jit
    def run(params, stats):
      def loss(params):
        logits, state = model.apply(
          {"params": params, "batch_stats": stats},
          x,
          train=True,
          mutable=["batch_stats"],
        )
        return jnp.sum(logits * weights), (logits, state["batch_stats"])

      gradient, (logits, after) = jax.grad(loss, has_aux=True)(params)
      evaluated = model.apply({"params": params, "batch_stats": after}, x)
      return logits, gradient, after, evaluated

    logits, gradient, stats, evaluated = run(
      variables["params"], variables["batch_stats"]
    )

  assert logits.dtype == evaluated.dtype == jnp.float32
  module.train()
  out = module(networks.images(x))
  (out * torch.from_numpy(weights)).sum().backward()
  near(logits, out.detach(), 1e-6)
  for key, value in networks.as_torch({"params": gradient}).items():
    near(value, module.get_parameter(key).grad, 1e-5)
  for key, value in networks.as_torch({"batch_stats": stats}).items():
    near(value, module.get_buffer(key), 1e-6)
  module.eval()
  with torch.no_grad():
    near(evaluated, module(networks.images(x)), 1e-6)
