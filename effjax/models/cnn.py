"""A small convolutional network that trains in seconds on a CPU."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax.models import layers


class CNN(nn.Module):
  """Strided 3x3 convolutions, one hidden dense layer, one dense head.

  Striding instead of pooling keeps the gradient cheap on a CPU. With its
  defaults the network has 206,922 weights on 28x28x1 images.

  Attributes:
    outputs: number of logits A.
    features: channels of each convolution; every one halves the image.
    hidden: width of the dense layer.
    dtype: dtype of the computation; parameters and logits are float32.
  """

  outputs: int = 10
  features: Sequence[int] = (16, 32)
  hidden: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Return logits [N, A] of images x [N, H, W, C]."""
    del train  # neither dropout nor batch statistics
    if min(self.hidden, *self.features) < 1:
      raise ValueError(
        "features and hidden must be whole numbers of at least 1, got"
        f" {tuple(self.features)!r} and {self.hidden!r}."
      )
    for i, features in enumerate(self.features):
      x = layers.Conv(
        features,
        3,
        strides=2,
        padding=1,
        dtype=self.dtype,
        name=f"conv{i + 1}",
      )(x)
      x = nn.relu(x)
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name="dense")(x))
    return nn.Dense(self.outputs, name="head")(x.astype(jnp.float32))
