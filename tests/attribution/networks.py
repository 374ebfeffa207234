"""Networks that the tests of attribution explain."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax import models
from effjax.models import layers, mobilenet


class Separable(nn.Module):
  """The stem of a MobileNet, one of its blocks and its head."""

  @nn.compact
  def __call__(self, x, train=False):
    x = layers.Conv(4, 3, strides=2, padding=1, use_bias=False, name="stem")(x)
    x = mobilenet.SeparableBlock(6, strides=2, name="block")(nn.relu(x), train)
    return nn.Dense(3, name="head")(jnp.mean(x, axis=(1, 2)))


MODULES = {
  "cnn": models.CNN(outputs=3, features=(4, 6), hidden=8),
  "resnet": models.ResNet(stage_sizes=(1, 1), outputs=3, width=4),
  "mobilenet": Separable(),
}


@functools.cache
def linen(name):
  """Returns (f, params, x, target, module, statistics) of a small model."""
  module = MODULES[name]
  x = jax.random.normal(jax.random.key(1), (2, 12, 12, 3))
  variables = module.init(jax.random.key(0), x, train=False)
  names = iter(jax.random.split(jax.random.key(2), 400))
  noise = lambda a: 0.2 * jax.random.normal(next(names), a.shape)
  params = jax.tree.map(lambda a: a + noise(a), variables["params"])
  statistics = jax.tree.map(
    lambda a: jnp.abs(a + noise(a)), variables.get("batch_stats", {})
  )

  def f(params, x):
    rest = {"batch_stats": statistics} if statistics else {}
    return module.apply({"params": params, **rest}, x, train=False)

  return f, params, x, jnp.array([2, 0]), module, statistics


def plain(params, x):
  """Returns logits [B, 3] of [B, 6] by functions that no module defines."""
  h = jnp.maximum(x @ params["a"] + params["b"][None], 0.0)
  h = jnp.where(h > 0.3, h, 0.1 * h) + jnp.tanh(h)
  h = jax.nn.silu(h.reshape(-1, 4, 2).max(axis=2))
  return jnp.concatenate([h, -h], axis=1) @ params["c"]


@functools.cache
def plain_case():
  """Returns (f, params, x, target) of the plain function."""
  keys = jax.random.split(jax.random.key(3), 4)
  shapes = {"a": (6, 8), "b": (8,), "c": (8, 3)}
  params = {
    name: jax.random.normal(key, shapes[name])
    for name, key in zip(shapes, keys, strict=False)
  }
  x = jax.random.normal(keys[3], (2, 6))
  return plain, params, x, jnp.array([1, 2])
