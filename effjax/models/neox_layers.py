"""The layers of the GPT-NeoX family, and their sizes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax.models import attention, llama_layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The sizes of a model.

  Attributes:
    vocabulary: number of tokens V.
    width: size of the residual stream W.
    layers: number of blocks L.
    heads: number of heads H, which divides W.
    hidden: size of the MLP.
    context: positions that the model was trained for.
    rotated: how many of the W / H numbers of a head are rotated, even; 0 for
      none.
    learned_positions: whether a vector for each position is added to the
      embedding; no text is longer than the context then.
    rope_base: base of the wavelengths of the rotations.
    epsilon: added to the variance in layer norms.
  """

  vocabulary: int
  width: int
  layers: int
  heads: int
  hidden: int
  context: int = 2048
  rotated: int = 0
  learned_positions: bool = False
  rope_base: float = 1e4
  epsilon: float = 1e-5

  def __post_init__(self):
    for name in ("vocabulary", "width", "layers", "heads", "hidden", "context"):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 1:
        raise ValueError(
          f"{name} must be a whole number of at least 1, got {value!r}."
        )
    if self.width % self.heads:
      raise ValueError(
        f"heads must divide width, got {self.heads} and {self.width}."
      )
    if self.rotated % 2 or not 0 <= self.rotated <= self.head_size:
      raise ValueError(
        f"rotated must be even and from 0 to {self.head_size}, the size of a"
        f" head, got {self.rotated!r}."
      )

  @property
  def head_size(self) -> int:
    """Size of a head D."""
    return self.width // self.heads

  @property
  def tied(self) -> bool:
    """Whether the embedding is the output layer too: never in this family."""
    return False

  @property
  def block_parameters(self) -> int:
    """Number of parameters of all blocks, 12 W^2 + 13 W each if hidden = 4 W.

    >>> sizes = {"width": 256, "layers": 6, "heads": 8, "hidden": 1024}
    >>> Config(vocabulary=9, **sizes).block_parameters
    4738560
    """
    w, h = self.width, self.hidden
    return self.layers * (4 * w * w + 2 * w * h + 9 * w + h)


class Options(NamedTuple):
  """What all layers of a model have in common, see `NeoX`."""

  config: Config
  dtype: Any
  param_dtype: Any
  apply_part: Callable


class Attention(nn.Module):
  """Attention of heads that are rotated in part."""

  options: Options

  @nn.compact
  def __call__(
    self, x: jax.Array, shared: attention.Shared, parts: Mapping
  ) -> jax.Array:
    """Attend from x [B, S, W]; returns the same."""
    c = self.options.config
    query, key, value = (
      _dense(self.options, x, name, c.width, parts).reshape(
        *x.shape[:2], c.heads, c.head_size
      )
      for name in ("query", "key", "value")
    )
    if c.rotated:
      query, key = (
        _rotate(y, shared.rotation, c.rotated) for y in (query, key)
      )
    y, _ = attention.attend(query, key, value, None, shared)
    return _dense(self.options, y, "output", c.width, parts, last=True)


class MLP(nn.Module):
  """The exact GELU of x up, times down."""

  options: Options

  @nn.compact
  def __call__(self, x: jax.Array, parts: Mapping) -> jax.Array:
    """Map x [B, S, W] to the same."""
    c = self.options.config
    y = _dense(self.options, x, "up", c.hidden, parts)
    y = nn.gelu(y, approximate=False)
    return _dense(self.options, y, "down", c.width, parts, last=True)


class Block(nn.Module):
  """Attention and MLP side by side."""

  options: Options

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    shared: attention.Shared,
    parts: Mapping,
    shift: jax.Array | None,
  ) -> jax.Array:
    """Map x [B, S, W] to the same; `shift` is added to what the MLP gives."""
    o = self.options
    y = Attention(o, name="attention")(
      norm(o, "attention_norm")(x),
      shared,
      llama_layers.under(parts, "attention"),
    )
    z = MLP(o, name="mlp")(
      norm(o, "mlp_norm")(x), llama_layers.under(parts, "mlp")
    )
    return x + y + (z if shift is None else z + shift.astype(z.dtype))


def _dense(options, x, name, features, parts, *, last=False) -> jax.Array:
  """Apply a layer inside the module that is being called."""
  scale = (2 * options.config.layers) ** -0.5 if last else 1.0
  layer = llama_layers.Dense(
    features,
    use_bias=True,
    dtype=options.dtype,
    param_dtype=options.param_dtype,
    kernel_init=nn.initializers.normal(0.02 * scale),
    apply_part=options.apply_part,
    name=name,
  )
  return layer(x, parts.get(f"{name}/kernel"))


def norm(options: Options, name: str | None) -> nn.LayerNorm:
  """Return the layer norm of a model."""
  return nn.LayerNorm(
    epsilon=options.config.epsilon,
    dtype=options.dtype,
    param_dtype=options.param_dtype,
    use_fast_variance=False,
    name=name,
  )


def _rotate(x, rotation, count) -> jax.Array:
  """Rotate the first numbers of each head."""
  turned = attention.rotate(x[..., :count], rotation)
  return jnp.concatenate([turned, x[..., count:]], axis=-1)
