"""Class activation maps: published values, captured layers, resizing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from effjax import attribution
from tests.attribution import golden, networks

VARIANTS = {
  "_relu": {"relu": True},
  "_up_nearest": {"upsample": "nearest"},
  "_up_bilinear": {"upsample": "bilinear"},
}


LAYERS = ("conv1", "conv2", "conv3")


def test_agrees_with_captum():
  values = golden.load()

  # One program: the layers and variants share what they compute.
  @jax.jit
  def compute(params, x):
    def explain(method, layer, **options):
      args = golden.network, params, x, values["target"]
      return method(*args, layer=f"{layer}.weight", **options)

    found = {
      f"gradcam_{layer}": explain(attribution.grad_cam, layer)
      for layer in LAYERS
    }
    for suffix, options in VARIANTS.items():
      maps = explain(attribution.grad_cam, "conv2", **options)
      found[f"gradcam_conv2{suffix}"] = maps
    maps = explain(attribution.guided_grad_cam, "conv1")
    return {**found, "guided_gradcam_conv1": maps}

  found = compute(golden.params(), values["x"])
  assert len(found) == 7
  for name, maps in found.items():
    np.testing.assert_allclose(maps, values[name], rtol=0, atol=2e-6)


def intercepted(module, statistics, layer, params, x, delta):
  """Returns logits with delta added to a layer, and the layer's result."""
  seen = []

  def intercept(call, args, kwargs, context):
    y = call(*args, **kwargs)
    if "/".join(context.module.path) == layer:
      seen.append(y)
      y = y + delta
    return y

  with nn.intercept_methods(intercept):
    rest = {"batch_stats": statistics} if statistics else {}
    logits = module.apply({"params": params, **rest}, x, train=False)
  return logits, seen[0]


@pytest.mark.parametrize(
  ("name", "layer"),
  [
    ("cnn", "conv2"),
    ("resnet", "block2/projection_conv"),
    ("mobilenet", "block/depthwise_conv"),
  ],
)
def test_agrees_with_gradients_at_a_captured_layer(name, layer):
  f, params, x, target, module, statistics = networks.linen(name)
  run = functools.partial(intercepted, module, statistics, layer, params, x)
  _, result = jax.jit(run)(0.0)

  def total(delta):
    return jnp.sum(run(delta)[0][jnp.arange(2), target])

  slope = jax.jit(jax.grad(total))(np.zeros(result.shape, np.float32))
  weights = np.mean(slope, axis=(1, 2), keepdims=True)
  expected = np.sum(weights * np.asarray(result), axis=3, keepdims=True)
  maps = attribution.grad_cam(f, params, x, target, layer=f"{layer}/kernel")
  scale = np.abs(expected).max()
  np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5 * scale)


def test_layers_without_places():
  f, params, x, target, *_ = networks.linen("cnn")
  maps = attribution.grad_cam(f, params, x, target, layer="head/kernel")
  # The gradient of a logit in itself is 1.
  logits = np.asarray(f(params, x))[range(2), target]
  np.testing.assert_allclose(maps[:, 0], logits, rtol=1e-5)


def test_one_pruned_copy_for_each_example():
  networks.assert_explains_copies(
    functools.partial(attribution.grad_cam, layer="conv1/kernel")
  )


def test_nearest_takes_the_entry_at_the_floor():
  maps = jnp.arange(5.0)[None, :, None]
  large = attribution.resize_maps(maps, (1, 12, 2), method="nearest")
  expected = [int(np.floor(i * 5 / 12)) for i in range(12)]
  np.testing.assert_array_equal(large[0, :, 1], expected)


def test_errors():
  f, params, x, target, *_ = networks.linen("cnn")
  cam = functools.partial(attribution.grad_cam, f, params, x, target)
  with pytest.raises(ValueError, match=r"'conv3/kernel'.*'conv2/kernel'"):
    cam(layer="conv3/kernel")
  with pytest.raises(ValueError, match="nearest, bilinear, got 'cubic'"):
    cam(layer="conv1/kernel", upsample="cubic")
  with pytest.raises(ValueError, match="has other axes"):
    cam(layer="head/kernel", upsample="nearest")
  for axis in (0, -4, 4):
    with pytest.raises(ValueError, match="no axis of a layer's result of 4"):
      cam(layer="conv1/kernel", channel_axis=axis)
  twice = lambda w, x: x @ w @ w
  with pytest.raises(ValueError, match="used by 2 layers"):
    attribution.grad_cam(twice, jnp.eye(2), jnp.ones((1, 2)), 0, layer="")
  with pytest.raises(ValueError, match="another rank"):
    attribution.resize_maps(jnp.ones((2, 2)), (4,))


def by_loops(f, x, target, result):
  """Returns the Score-CAM of a result [B, H, W, C], channel by channel."""
  enlarge = jax.jit(
    functools.partial(jax.image.resize, method="bilinear"), static_argnums=1
  )
  every = np.asarray(enlarge(result, (*x.shape[:3], result.shape[3])))
  maps = np.zeros((*result.shape[:3], 1))
  for b in range(len(x)):
    scores = np.full(result.shape[3], -np.inf)
    for c in range(result.shape[3]):
      large = every[b, :, :, c]
      if np.ptp(large):
        mask = ((large - large.min()) / np.ptp(large))[None, :, :, None]
        scores[c] = f(x[b : b + 1] * mask)[0, target[b]]
    weights = np.exp(scores - scores.max())
    maps[b, :, :, 0] = result[b] @ (weights / weights.sum())
  return np.maximum(maps, 0)


def test_score_cam_by_loops():
  f, params, x, target, module, statistics = networks.linen("cnn")
  # A pruned channel shows nothing.
  params = jax.tree.map(np.array, params)
  params["conv2"]["kernel"][..., 1] = 0
  run = functools.partial(intercepted, module, statistics, "conv2", params, x)
  _, result = jax.jit(run)(0.0)
  explain = functools.partial(attribution.score_cam, layer="conv2/kernel")
  apply = lambda x: np.asarray(f(params, x))
  expected = by_loops(apply, x, target, np.asarray(result))
  assert expected.max() > 0.1
  for chunk_size in (3, None):
    maps = explain(f, params, x, target, chunk_size=chunk_size)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)


def test_score_cam_prefers_the_channel_that_counts():
  """Two channels copy one half of x each; the logit counts the first half."""
  rng = np.random.default_rng(0)
  x = rng.uniform(1, 2, size=(2, 4, 6, 2)).astype(np.float32)
  x[:, :, :3, 1], x[:, :, 3:, 0] = 0, 0

  def f(w, x):
    seen = x @ w
    half = jnp.sum(seen[:, :, :3], axis=(1, 2, 3))
    return jnp.stack([half, -half, 0 * half], axis=1)

  w = np.eye(2, dtype=np.float32)
  args = (f, w, x[[0, 0, 0]], [0, 1, 2])
  maps = attribution.score_cam(*args, layer="")
  for_it, against, indifferent = np.asarray(maps)[..., 0]
  copy = x[0].sum(axis=2)
  left, right = copy[:, :3], copy[:, 3:]
  np.testing.assert_allclose(for_it[:, :3], left, rtol=1e-3)
  np.testing.assert_allclose(for_it[:, 3:], 0, atol=1e-3)
  np.testing.assert_allclose(against[:, 3:], right, rtol=1e-3)
  np.testing.assert_allclose(indifferent, copy / 2, rtol=1e-5)


def test_score_cam_of_constant_channels_is_zero():
  f = lambda w, x: jnp.sum(x @ w, axis=1)
  w = np.zeros((2, 2), np.float32)
  maps = attribution.score_cam(
    f, w, np.ones((1, 3, 2), np.float32), 0, layer=""
  )
  np.testing.assert_array_equal(maps, 0)


def test_score_cam_of_one_pruned_copy_for_each_example():
  networks.assert_explains_copies(
    functools.partial(attribution.score_cam, layer="conv1/kernel")
  )
