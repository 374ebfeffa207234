"""The building blocks of the image models: convolution, pooling, batch norm.

Images are [N, H, W, C] (batch, rows, columns, channels) throughout.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from effjax.models import depthwise, products

Padding = str | int | Sequence[int | tuple[int, int]]

IMPLEMENTATIONS = ("auto", "products", "patches", "xla")

# N(0, sqrt(2 / (h * w * out))), He et al. 2015 (arXiv:1502.01852), eq. 14.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
  pair = (value, value) if isinstance(value, int) else tuple(value)
  if len(pair) != 2 or min(pair) < 1:
    raise ValueError(
      f"{name} must be a positive integer or two of them, got {value!r}."
    )
  return pair


def _pads(padding: Padding, sizes, window, strides) -> products.Pads:
  """Return ((top, bottom), (left, right)) for any accepted spelling."""
  if isinstance(padding, str) and padding.upper() in ("SAME", "VALID"):
    rows, columns = lax.padtype_to_pads(sizes, window, strides, padding.upper())
    return rows, columns
  if isinstance(padding, int):
    padding = (padding, padding)
  if not isinstance(padding, str) and len(padding) == 2:
    pads = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    if all(len(p) == 2 for p in pads):
      return pads[0], pads[1]
  raise ValueError(
    "padding must be 'SAME', 'VALID', an integer, or one for rows and one for"
    f" columns, each an integer or a pair; got {padding!r}."
  )


def convolution(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: int | Sequence[int] = 1,
  padding: Padding = "SAME",
  groups: int = 1,
  implementation: str = "auto",
) -> jax.Array:
  """Convolve images with a kernel (cross-correlation, as is usual).

  Args:
    x: images [N, H, W, I].
    kernel: weights [h, w, I / groups, O], of the dtype of x.
    strides: step of the window, one number or (rows, columns).
    padding: "SAME", "VALID", the number of zeros on every side, or one entry
      for rows and one for columns, each a number or a pair (before, after).
    groups: number of independent blocks of channels; I for depthwise.
    implementation: "xla" is `lax.conv_general_dilated`. "products" has fast
      gradients on the CPU, through matrix products; it has no forward-mode
      derivative (`jax.jvp`, `jax.jacfwd`; forward over reverse works), and
      takes XLA's operation for groups other than 1 and I. "patches" is one
      product, fast for small images on accelerators and for models that are
      mapped; it takes XLA's operation for groups. "auto" chooses by the default
      backend when this is traced: products on the CPU, elsewhere patches where
      those of an image are few numbers, and "xla".

  Returns:
    Images [N, H', W', O] of the dtype of x; sums are float32 or wider on the
    CPU.

  Raises:
    ValueError: shapes, groups, padding or implementation do not fit.

  Examples:
    >>> x, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 16))
    >>> convolution(x, kernel, strides=2, padding=1).shape
    (1, 4, 4, 16)
  """
  if x.ndim != 4 or kernel.ndim != 4:
    raise ValueError(
      "convolution needs x [N, H, W, I] and kernel [h, w, I / groups, O], got"
      f" shapes {x.shape} and {kernel.shape}."
    )
  if x.shape[3] != kernel.shape[2] * groups or kernel.shape[3] % groups:
    raise ValueError(
      f"x {x.shape} and kernel {kernel.shape} do not fit: with groups={groups}"
      f" the kernel needs {x.shape[3] / groups:g} input channels and a multiple"
      f" of {groups} outputs."
    )
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got"
      f" {implementation!r}."
    )
  strides = _pair(strides, "strides")
  pads = _pads(padding, x.shape[1:3], kernel.shape[:2], strides)
  if implementation == "auto":
    if jax.default_backend() == "cpu":
      implementation = "products"
    else:
      small = products.has_small_patches(x, kernel, strides, pads)
      implementation = "patches" if small else "xla"
  if implementation == "products" and groups == 1:
    return products.convolution(x, kernel, strides, pads)
  if implementation == "products" and groups == x.shape[3] == kernel.shape[3]:
    return depthwise.convolution(x, kernel, strides, pads)
  if implementation == "patches" and groups == 1:
    return products.by_patches(x, kernel, strides, pads)
  return products.xla(x, kernel, strides, pads, groups)


class Conv(nn.Module):
  """Convolution with parameters `kernel` [h, w, I / groups, O] and `bias` [O].

  Takes the place of `flax.linen.Conv` for images; `convolution` says what
  differs in speed.

  Attributes:
    features: number of output channels O.
    kernel_size: window, one number or (rows, columns).
    strides: step of the window.
    padding: as in `convolution`.
    feature_group_count: number of groups; I for depthwise.
    use_bias: whether to add a bias [O].
    kernel_init: initialiser of the kernel.
    bias_init: initialiser of the bias.
    dtype: dtype of computation and result; None takes that of the operands.
    param_dtype: dtype of the parameters.
    implementation: as in `convolution`.
  """

  features: int
  kernel_size: int | Sequence[int]
  strides: int | Sequence[int] = 1
  padding: Padding = "SAME"
  feature_group_count: int = 1
  use_bias: bool = True
  kernel_init: Callable[..., jax.Array] = conv_init
  bias_init: Callable[..., jax.Array] = nn.initializers.zeros
  dtype: Any = None
  param_dtype: Any = jnp.float32
  implementation: str = "auto"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolve x [N, H, W, I]; returns [N, H', W', O]."""
    groups = self.feature_group_count
    if x.ndim != 4 or x.shape[3] % groups or self.features % groups:
      raise ValueError(
        f"Conv needs images [N, H, W, I] with I and features={self.features}"
        f" divisible by feature_group_count={groups}, got shape {x.shape}."
      )
    window = _pair(self.kernel_size, "kernel_size")
    shape = (*window, x.shape[3] // groups, self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param("bias", self.bias_init, shape[3:], self.param_dtype)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = convolution(
      x,
      kernel,
      strides=self.strides,
      padding=self.padding,
      groups=groups,
      implementation=self.implementation,
    )
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def _pool(x, window, strides, padding, operation, start):
  window = _pair(window, "window")
  strides = window if strides is None else _pair(strides, "strides")
  pads = _pads(padding, x.shape[1:3], window, strides)
  x = products.pad(x, pads, start)
  # Columns, then rows: h + w operations instead of h * w. The gradient of a
  # strided slice is cheap, that of a window reduction is not on the CPU.
  for axis in (2, 1):
    size, stride = window[axis - 1], strides[axis - 1]
    count = products.positions(x.shape[axis], size, stride, (0, 0))
    x = functools.reduce(
      operation, [products.tap(x, axis, i, count, stride) for i in range(size)]
    )
  return x


@jax.custom_jvp
def _larger(first: jax.Array, second: jax.Array) -> jax.Array:
  return jnp.maximum(first, second)


@_larger.defjvp
def _larger_jvp(primals, tangents):
  """Among equal values pass on the change of the first alone."""
  first, second = primals
  taken = (first >= second) | jnp.isnan(first)
  change = jnp.where(taken, tangents[0], tangents[1])
  return _larger(first, second), change


def max_pool(
  x: jax.Array,
  window: int | Sequence[int],
  *,
  strides: int | Sequence[int] | None = None,
  padding: Padding = "VALID",
) -> jax.Array:
  """Return the largest value in each window.

  Of equal values the first one, by rows, gets the gradient.

  Args:
    x: images [N, H, W, C].
    window: size of the window, one number or (rows, columns).
    strides: step of the window; its size by default.
    padding: as in `convolution`; filled with -inf.

  Returns:
    Images [N, H', W', C].

  Examples:
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
  """
  return _pool(x, window, strides, padding, _larger, -jnp.inf)


def avg_pool(
  x: jax.Array,
  window: int | Sequence[int],
  *,
  strides: int | Sequence[int] | None = None,
  padding: Padding = "VALID",
) -> jax.Array:
  """Return the mean of each window; padding counts as zeros.

  Args:
    x: images [N, H, W, C].
    window: size of the window, one number or (rows, columns).
    strides: step of the window; its size by default.
    padding: as in `convolution`.

  Returns:
    Images [N, H', W', C] of the dtype of x.

  Examples:
    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
  """
  rows, columns = _pair(window, "window")
  wide = x.astype(products.wide(x.dtype))
  total = _pool(wide, window, strides, padding, jnp.add, 0)
  return (total / (rows * columns)).astype(x.dtype)


class BatchNorm(nn.Module):
  """Batch normalisation, Ioffe and Szegedy 2015 (arXiv:1502.03167).

  Statistics are float32 or wider whatever the dtype of the input. The running
  variance is the unbiased one, as in PyTorch. Parameters are `scale` and
  `bias`; the collection `batch_stats` holds `mean` and `var`, all [C].

  Attributes:
    momentum: share of the old running statistics that is kept.
    epsilon: added to the variance.
    dtype: dtype of the result; None takes that of the input.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Normalise x [N, H, W, C] by batch (train) or running statistics."""
    channels = x.shape[-1:]
    scale = self.param("scale", nn.initializers.ones, channels)
    bias = self.param("bias", nn.initializers.zeros, channels)
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
    running_var = self.variable("batch_stats", "var", jnp.ones, channels)

    dtype = x.dtype if self.dtype is None else self.dtype
    x = x.astype(products.wide(x.dtype))
    axes = tuple(range(x.ndim - 1))
    spread = lambda statistic: jnp.expand_dims(statistic.astype(x.dtype), axes)
    if train:
      mean = jnp.mean(x, axes)
      var = jnp.mean(jnp.square(x - spread(mean)), axes)
      if not self.is_initializing():
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((running_mean, mean), (running_var, unbiased)):
          new = new.astype(running.value.dtype)
          running.value += (1 - self.momentum) * (new - running.value)
    else:
      mean, var = running_mean.value, running_var.value
    factor = spread(scale) * lax.rsqrt(spread(var) + self.epsilon)
    return (x * factor + (spread(bias) - spread(mean) * factor)).astype(dtype)
