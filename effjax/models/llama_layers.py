"""The layers of the Llama family, and their sizes."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax.models import attention, products

normal_init = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The sizes of a model.

  Attributes:
    vocabulary: number of tokens V.
    width: size of the residual stream W.
    layers: number of blocks L.
    heads: number of heads of queries H.
    key_heads: number of heads of keys and values K, which divides H.
    head_size: size of a head D, even.
    hidden: size of the gated layer.
    context: positions that the model was trained for.
    rope_base: base of the wavelengths of the rotations.
    epsilon: added to the mean square.
    tied: whether the embedding is the output layer too.
  """

  vocabulary: int
  width: int
  layers: int
  heads: int
  key_heads: int
  head_size: int
  hidden: int
  context: int = 2048
  rope_base: float = 1e4
  epsilon: float = 1e-5
  tied: bool = True

  def __post_init__(self):
    sizes = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.type is int
    }
    for name, value in sizes.items():
      if not isinstance(value, int) or value < 1:
        raise ValueError(
          f"{name} must be a whole number of at least 1, got {value!r}."
        )
    if self.heads % self.key_heads or self.head_size % 2:
      raise ValueError(
        "heads must be a multiple of key_heads, and head_size even, got"
        f" {self.heads}, {self.key_heads} and {self.head_size}."
      )


def low_rank(x: jax.Array, kernel: jax.Array, part: Any) -> jax.Array:
  """Apply a kernel and a product of two factors, x W + (x A) B.

  Args:
    x: Inputs [..., I].
    kernel: W [I, O].
    part: The pair A [I, r], B [r, O], of which one bears the scale.

  Returns:
    Outputs [..., O].
  """
  a, b = part
  return x @ kernel + (x @ a.astype(x.dtype)) @ b.astype(x.dtype)


class Dense(nn.Dense):
  """A layer, `kernel` [I, O], which a function may apply; by default no bias.

  Attributes:
    apply_part: from inputs, kernel and what belongs to the layer to outputs.
  """

  use_bias: bool = False
  kernel_init: Any = normal_init
  apply_part: Callable = low_rank

  @nn.compact
  def __call__(self, x: jax.Array, part: Any = None) -> jax.Array:
    """Map x [..., I] to [..., O], with `part` if there is one."""
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    y = x @ kernel if part is None else self.apply_part(x, kernel, part)
    if not self.use_bias:
      return y
    bias = self.param("bias", self.bias_init, shape[1:], self.param_dtype)
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class Transposed(nn.Module):
  """A layer without bias whose `kernel` is [O, I].

  Attributes:
    features: number of outputs O.
    dtype: dtype of the result.
    param_dtype: dtype of the parameters.
  """

  features: int
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Map x [..., I] to [..., O]."""
    shape = (self.features, x.shape[-1])
    kernel = self.param("kernel", normal_init, shape, self.param_dtype)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    return jnp.einsum("...i,oi->...o", x, kernel)


class RMSNorm(nn.Module):
  """Division by the root mean square, times `scale` (arXiv:1910.07467).

  Attributes:
    epsilon: added to the mean square.
    dtype: dtype of the result.
    param_dtype: dtype of the parameters.
  """

  epsilon: float
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalise x [..., W]; the statistics are float32 or wider."""
    ones = nn.initializers.ones
    scale = self.param("scale", ones, x.shape[-1:], self.param_dtype)
    wide = x.astype(products.wide(x.dtype))
    square = jnp.mean(jnp.square(wide), -1, keepdims=True)
    x = (wide * jax.lax.rsqrt(square + self.epsilon)).astype(self.dtype)
    # Rank promotion is spelt out; every model here is [B, S, W].
    return x * scale.astype(self.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Options(NamedTuple):
  """What all layers of a model have in common, see `llama.Llama`."""

  config: Config
  dtype: Any
  param_dtype: Any
  apply_part: Callable
  fused: bool


class Attention(nn.Module):
  """Grouped-query attention with rotated queries and keys."""

  options: Options

  @nn.compact
  def __call__(
    self, x: jax.Array, stored: Any, shared: attention.Shared, parts: Mapping
  ) -> tuple[jax.Array, Any]:
    """Attend from x [B, S, W]; returns the same and (keys, values)."""
    c = self.options.config
    heads = (c.heads, c.key_heads, c.key_heads)
    sizes = [number * c.head_size for number in heads]
    names = ("query", "key", "value")
    made = _side_by_side(self.options, x, names, sizes, parts)
    query, key, value = (
      y.reshape(*y.shape[:2], number, c.head_size)
      for y, number in zip(made, heads, strict=True)
    )
    query, key = (attention.rotate(y, shared.rotation) for y in (query, key))
    y, stored = attention.attend(query, key, value, stored, shared)
    return _dense(self.options, y, "output", c.width, parts), stored


class MLP(nn.Module):
  """The gated layer: silu(x gate) * (x up), times down."""

  options: Options

  @nn.compact
  def __call__(self, x: jax.Array, parts: Mapping) -> jax.Array:
    """Map x [B, S, W] to the same."""
    o, c = self.options, self.options.config
    gate, up = _side_by_side(o, x, ("gate", "up"), [c.hidden] * 2, parts)
    y = nn.silu(gate) * up
    if o.fused:
      return Transposed(c.width, o.dtype, o.param_dtype, name="down")(y)
    return _dense(o, y, "down", c.width, parts)


class Block(nn.Module):
  """Attention and the gated layer, each on a normalised residual stream."""

  options: Options

  @nn.compact
  def __call__(
    self, x: jax.Array, stored: Any, parts: Mapping, shared: attention.Shared
  ) -> tuple[jax.Array, Any]:
    """Map x [B, S, W] to the same, and give this layer's (keys, values)."""
    o = self.options
    norm = functools.partial(RMSNorm, o.config.epsilon, o.dtype, o.param_dtype)
    y, stored = Attention(o, name="attention")(
      norm(name="attention_norm")(x),
      stored,
      shared,
      under(parts, "attention"),
    )
    x = x + y
    y = MLP(o, name="mlp")(norm(name="mlp_norm")(x), under(parts, "mlp"))
    return x + y, stored


def _dense(options, x, name, features, parts) -> jax.Array:
  """Apply a layer inside the module that is being called."""
  layer = Dense(
    features,
    dtype=options.dtype,
    param_dtype=options.param_dtype,
    apply_part=options.apply_part,
    name=name,
  )
  return layer(x, parts.get(f"{name}/kernel"))


def _side_by_side(options, x, names, sizes, parts) -> list[jax.Array]:
  """Apply layers that have one input, by one product if they are fused."""
  if not options.fused:
    pairs = zip(names, sizes, strict=True)
    return [_dense(options, x, name, size, parts) for name, size in pairs]
  y = _dense(options, x, "_".join(names), sum(sizes), parts)
  return jnp.split(y, [sum(sizes[:i]) for i in range(1, len(sizes))], axis=-1)


def under(parts: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Return the entries below a name, without it."""
  prefix = f"{name}/"
  return {
    path.removeprefix(prefix): part
    for path, part in parts.items()
    if path.startswith(prefix)
  }
