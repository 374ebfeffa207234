"""MobileNet version 1, Howard et al. 2017 (arXiv:1704.04861)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax.models import layers

# (output channels at width 1, stride) of the depthwise-separable blocks.
BLOCKS = (
  (64, 1),
  (128, 2),
  (128, 1),
  (256, 2),
  (256, 1),
  (512, 2),
  *[(512, 1)] * 5,
  (1024, 2),
  (1024, 1),
)


class SeparableBlock(nn.Module):
  """A 3x3 depthwise and a 1x1 convolution, each with batch norm and ReLU.

  Attributes:
    features: number of output channels.
    strides: step of the depthwise convolution.
    dtype: dtype of the computation.
  """

  features: int
  strides: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Map x [N, H, W, I] to [N, H / strides, W / strides, features]."""
    x = layers.Conv(
      x.shape[-1],
      3,
      strides=self.strides,
      padding=1,
      feature_group_count=x.shape[-1],
      use_bias=False,
      dtype=self.dtype,
      name="depthwise_conv",
    )(x)
    x = layers.BatchNorm(dtype=self.dtype, name="depthwise_norm")(x, train)
    x = layers.Conv(
      self.features,
      1,
      use_bias=False,
      dtype=self.dtype,
      name="pointwise_conv",
    )(nn.relu(x))
    x = layers.BatchNorm(dtype=self.dtype, name="pointwise_norm")(x, train)
    return nn.relu(x)


class MobileNetV1(nn.Module):
  """A strided 3x3 stem and thirteen depthwise-separable blocks.

  Attributes:
    outputs: number of logits A.
    width: multiplier of all channel counts.
    dtype: dtype of the computation; parameters, statistics and logits are
      float32.
  """

  outputs: int = 1000
  width: float = 1.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Return logits [N, A] of images x [N, H, W, C]."""
    if self.width <= 0:
      raise ValueError(f"width must be above 0, got {self.width!r}.")

    def scaled(features):
      return max(1, int(features * self.width))

    x = layers.Conv(
      scaled(32),
      3,
      strides=2,
      padding=1,
      use_bias=False,
      dtype=self.dtype,
      name="stem_conv",
    )(x)
    x = layers.BatchNorm(dtype=self.dtype, name="stem_norm")(x, train)
    x = nn.relu(x)
    for i, (features, strides) in enumerate(BLOCKS, start=1):
      x = SeparableBlock(
        scaled(features), strides, dtype=self.dtype, name=f"block{i}"
      )(x, train)
    x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    return nn.Dense(self.outputs, name="head")(x)
