"""A multi-layer perceptron, for tables."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class MLP(nn.Module):
  """Dense layers with ReLU in between, and a dense head.

  Attributes:
    outputs: number of logits A.
    hidden: width of each hidden layer; without any the model is linear.
    dtype: dtype of the computation; parameters and logits are float32.
  """

  outputs: int = 1
  hidden: Sequence[int] = (64, 32)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Return logits [N, A] of x [N, ...], whose rows are flattened."""
    del train  # neither dropout nor batch statistics
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(self.hidden):
      x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"dense_{i}")(x))
    return nn.Dense(self.outputs, name="head")(x.astype(jnp.float32))
