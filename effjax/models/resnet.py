"""Residual networks, He et al. 2015 (arXiv:1512.03385), version 1."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax.models import layers


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or a 1x1, 3x3, 1x1 bottleneck.

  A bottleneck has its stride on the 3x3 convolution. The input is projected
  by a 1x1 convolution where its shape differs from that of the output.

  Attributes:
    features: channels of the inner convolutions.
    strides: step of the strided convolution.
    bottleneck: whether the block is a bottleneck, with 4 x features outputs.
    dtype: dtype of the computation.
  """

  features: int
  strides: int = 1
  bottleneck: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Map x [N, H, W, I] to [N, H / strides, W / strides, O]."""

    def conv(x, features, size, strides, name):
      return layers.Conv(
        features,
        size,
        strides=strides,
        padding=size // 2,
        use_bias=False,
        dtype=self.dtype,
        name=name,
      )(x)

    def norm(x, name):
      return layers.BatchNorm(dtype=self.dtype, name=name)(x, train)

    features, strides = self.features, self.strides
    if self.bottleneck:
      plan = ((features, 1, 1), (features, 3, strides), (4 * features, 1, 1))
    else:
      plan = ((features, 3, strides), (features, 3, 1))
    y = x
    for i, (width, size, step) in enumerate(plan, start=1):
      y = norm(conv(y, width, size, step, f"conv{i}"), f"norm{i}")
      if i < len(plan):
        y = nn.relu(y)
    if x.shape != y.shape:
      x = conv(x, plan[-1][0], 1, strides, "projection_conv")
      x = norm(x, "projection_norm")
    return nn.relu(x + y)


class ResNet(nn.Module):
  """A residual network for images.

  Attributes:
    stage_sizes: number of blocks in each stage.
    bottleneck: whether blocks are bottlenecks.
    outputs: number of logits A.
    width: channels of the stem and of the first stage; 64 in the paper.
    stem: "imagenet" (7x7 stride 2, then max-pool 3x3 stride 2) or "cifar"
      (3x3 stride 1, no pool), for images of 64 pixels and less.
    dtype: dtype of the computation; parameters, statistics and logits are
      float32.
  """

  stage_sizes: Sequence[int]
  bottleneck: bool = False
  outputs: int = 1000
  width: int = 64
  stem: str = "imagenet"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Return logits [N, A] of images x [N, H, W, C]."""
    if self.stem not in ("imagenet", "cifar"):
      raise ValueError(
        f"stem must be 'imagenet' or 'cifar', got {self.stem!r}."
      )
    if self.width < 1 or not self.stage_sizes or min(self.stage_sizes) < 1:
      raise ValueError(
        "width and stage_sizes must be whole numbers of at least 1, got"
        f" {self.width!r} and {tuple(self.stage_sizes)!r}."
      )
    size, strides = (7, 2) if self.stem == "imagenet" else (3, 1)
    x = layers.Conv(
      self.width,
      size,
      strides=strides,
      padding=size // 2,
      use_bias=False,
      dtype=self.dtype,
      name="stem_conv",
    )(x)
    x = layers.BatchNorm(dtype=self.dtype, name="stem_norm")(x, train)
    x = nn.relu(x)
    if self.stem == "imagenet":
      x = layers.max_pool(x, 3, strides=2, padding=1)
    for stage, blocks in enumerate(self.stage_sizes):
      for block in range(blocks):
        x = Block(
          self.width * 2**stage,
          strides=2 if stage and not block else 1,
          bottleneck=self.bottleneck,
          dtype=self.dtype,
          name=f"stage{stage + 1}_block{block + 1}",
        )(x, train)
    x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    return nn.Dense(self.outputs, name="head")(x)
