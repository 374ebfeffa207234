"""Networks that the tests of attribution explain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from effjax import models
from effjax.models import layers, mobilenet, resnet


class Separable(nn.Module):
  """The stem of a MobileNet, one of its blocks and its head."""

  @nn.compact
  def __call__(self, x, train=False):
    x = layers.Conv(4, 3, strides=2, padding=1, use_bias=False, name="stem")(x)
    x = mobilenet.SeparableBlock(6, strides=2, name="block")(nn.relu(x), train)
    return nn.Dense(3, name="head")(jnp.mean(x, axis=(1, 2)))


class Residual(nn.Module):
  """A ResNet of two blocks, the second with a projection."""

  @nn.compact
  def __call__(self, x, train=False):
    x = layers.Conv(4, 3, padding=1, use_bias=False, name="stem")(x)
    x = nn.relu(layers.BatchNorm(name="norm")(x, train))
    x = resnet.Block(4, name="block1")(layers.max_pool(x, 2), train)
    x = resnet.Block(6, strides=2, name="block2")(x, train)
    return nn.Dense(3, name="head")(jnp.mean(x, axis=(1, 2)))


MODULES = {
  "cnn": models.CNN(outputs=3, features=(4, 6), hidden=8),
  "resnet": Residual(),
  "mobilenet": Separable(),
}


@functools.cache
def linen(name):
  """Returns (f, params, x, target, module, statistics) of a small model."""
  module = MODULES[name]

  rng = np.random.default_rng(1)
  x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)

  def draw(path, leaf):
    # Kernels that keep the size of activations, norms that are no identities.
    name, fan_in = path[-1].key, np.prod(leaf.shape[:-1])
    array = rng.normal(size=leaf.shape) * (2 / fan_in) ** 0.5
    if name in ("scale", "var"):
      array = 1 + 0.2 * np.abs(array)
    return array.astype(leaf.dtype)

  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  params, statistics = variables["params"], variables.get("batch_stats", {})

  def f(params, x):
    rest = {"batch_stats": statistics} if statistics else {}
    return module.apply({"params": params, **rest}, x, train=False)

  return jax.jit(f), params, x, np.array([2, 0]), module, statistics


def assert_explains_copies(method):
  """Checks maps of one pruned copy of a model for each example."""
  f, params, x, target, *_ = linen("cnn")
  half = np.float32(0.5)
  stacked = jax.tree.map(lambda p: np.stack([p, half * p]), params)
  each = lambda p, x, t: method(f, p, x[None], t[None])[0]
  maps = jax.jit(jax.vmap(each))(stacked, x, target)
  for i in range(2):
    own = jax.tree.map(lambda p, i=i: p[i], stacked)
    (expected,) = method(f, own, x[i : i + 1], target[i : i + 1])
    expected = np.asarray(expected)
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(maps[i], expected, rtol=1e-3, atol=1e-6)


def normals(seed):
  """Returns a function from lengths of axes to a new normal array."""
  rng = np.random.default_rng(seed)
  return lambda *shape: rng.normal(size=shape).astype(np.float32)


def plain(params, x):
  """Returns logits [B, 3] of [B, 6] by functions that no module defines."""
  h = jnp.maximum(x @ params["a"] + params["b"][None], 0.0)
  h = jnp.where(h > 0.3, h, 0.1 * h) + jnp.tanh(h)
  h = jax.nn.silu(h.reshape(-1, 4, 2).max(axis=2))
  return jnp.concatenate([h, -h], axis=1) @ params["c"]


@functools.cache
def plain_case():
  """Returns (f, params, x, target) of the plain function."""
  draw = normals(3)
  params = {"a": draw(6, 8), "b": draw(8), "c": draw(8, 3)}
  return plain, params, draw(2, 6), np.array([1, 2])
