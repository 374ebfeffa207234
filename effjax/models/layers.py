"""Building blocks shared by the image models: convolution, pooling, norm."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Padding = str | int | Sequence[int | tuple[int, int]]

# N(0, sqrt(2 / (k * k * out))), He et al. 2015 (arXiv:1502.01852), eq. 14.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
  pair = (value, value) if isinstance(value, int) else tuple(value)
  if len(pair) != 2 or min(pair) < 1:
    raise ValueError(
      f"{name} must be a positive integer or two of them, got {value!r}."
    )
  return pair


def _explicit_padding(padding, sizes, window, strides):
  """Return ((top, bottom), (left, right)) for any accepted spelling."""
  if isinstance(padding, str):
    if padding.upper() not in ("SAME", "VALID"):
      raise ValueError(
        f"padding must be 'SAME', 'VALID', an integer or two pairs, got"
        f" {padding!r}."
      )
    return tuple(lax.padtype_to_pads(sizes, window, strides, padding.upper()))
  if isinstance(padding, int):
    padding = (padding, padding)
  pads = tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
  if len(pads) != 2 or any(len(p) != 2 for p in pads):
    raise ValueError(
      f"padding must be 'SAME', 'VALID', an integer or two pairs, got"
      f" {padding!r}."
    )
  return pads


def convolution(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: int | Sequence[int] = 1,
  padding: Padding = "SAME",
  groups: int = 1,
) -> jax.Array:
  """Convolve a batch of images with a kernel.

  Args:
    x: images [N, H, W, I].
    kernel: weights [h, w, I / groups, O], of the same dtype as x.
    strides: step of the window, one number or (rows, columns).
    padding: "SAME", "VALID", the number of zeros on every side, or explicit
      pairs ((top, bottom), (left, right)).
    groups: number of independent blocks of channels; I for depthwise.

  Returns:
    Images [N, H', W', O].
  """
  strides = _pair(strides, "strides")
  pads = _explicit_padding(padding, x.shape[1:3], kernel.shape[:2], strides)
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    pads,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


class Conv(nn.Module):
  """Two-dimensional convolution with parameters `kernel` (HWIO) and `bias`.

  Attributes:
    features: number of output channels.
    kernel_size: window, one number or (rows, columns).
    strides: step of the window.
    padding: "SAME", "VALID", an integer or explicit pairs.
    feature_group_count: number of groups; the input channels for depthwise.
    use_bias: whether to add a bias.
    kernel_init: initialiser of the kernel.
    bias_init: initialiser of the bias.
    dtype: dtype of the computation and of the result.
    param_dtype: dtype of the parameters.
  """

  features: int
  kernel_size: int | Sequence[int]
  strides: int | Sequence[int] = 1
  padding: Padding = "SAME"
  feature_group_count: int = 1
  use_bias: bool = True
  kernel_init: Callable[..., jax.Array] = conv_init
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolve x [N, H, W, I]; returns [N, H', W', features]."""
    groups = self.feature_group_count
    if x.shape[-1] % groups or self.features % groups:
      raise ValueError(
        f"feature_group_count={groups} must divide the {x.shape[-1]} input"
        f" channels and the {self.features} features."
      )
    shape = (
      *_pair(self.kernel_size, "kernel_size"),
      x.shape[-1] // groups,
      self.features,
    )
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    x = convolution(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      strides=self.strides,
      padding=self.padding,
      groups=groups,
    )
    if not self.use_bias:
      return x
    bias = self.param(
      "bias", self.bias_init, (self.features,), self.param_dtype
    )
    return x + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def max_pool(x, window, *, strides=None, padding="VALID"):
  """Return the largest value of each window."""
  strides = _pair(window if strides is None else strides, "strides")
  window = _pair(window, "window")
  pads = _explicit_padding(padding, x.shape[1:3], window, strides)
  return nn.max_pool(x, window, strides, pads)


class BatchNorm(nn.Module):
  """Batch normalisation, Ioffe and Szegedy 2015 (arXiv:1502.03167).

  Statistics are float32 whatever the dtype of the input. The running variance
  is the unbiased one, as in PyTorch. Parameters are `scale` and `bias`; the
  collection `batch_stats` holds `mean` and `var`.

  Attributes:
    momentum: share of the old running statistics that is kept.
    epsilon: added to the variance.
    dtype: dtype of the result.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Normalise x [N, H, W, C] by the batch (train) or running statistics."""
    channels, axes = x.shape[-1:], tuple(range(x.ndim - 1))
    scale = self.param("scale", nn.initializers.ones, channels)
    bias = self.param("bias", nn.initializers.zeros, channels)
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
    running_var = self.variable("batch_stats", "var", jnp.ones, channels)
    x = x.astype(jnp.float32)
    if train:
      mean = jnp.mean(x, axes)
      shape = (1,) * len(axes) + channels
      var = jnp.mean(jnp.square(x - mean.reshape(shape)), axes)
      if not self.is_initializing():
        count = x.size // x.shape[-1]
        keep, unbiased = self.momentum, count / max(count - 1, 1)
        running_mean.value = keep * running_mean.value + (1 - keep) * mean
        running_var.value = (
          keep * running_var.value + (1 - keep) * unbiased * var
        )
    else:
      mean, var = running_mean.value, running_var.value
    factor = scale * lax.rsqrt(var + self.epsilon)
    shape = (1,) * len(axes) + channels
    y = x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)
    return y.astype(self.dtype)
