"""Language models of the Llama family, Touvron et al. 2023 (arXiv:2302.13971).

A block normalises its input by the root mean square, attends by rotated queries
and keys, of which groups of queries share one (arXiv:2305.13245), and adds a
gated layer (SwiGLU, arXiv:2002.05202). Weights are read by
`models.llama_weights`, text is made by `models.generation`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax import tree
from effjax.models import attention

_KERNELS = (
  "attention/query/kernel",
  "attention/key/kernel",
  "attention/value/kernel",
  "attention/output/kernel",
  "mlp/gate/kernel",
  "mlp/up/kernel",
  "mlp/down/kernel",
)
_init = nn.initializers.normal(0.02)


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


class Cache(NamedTuple):
  """What a model keeps of the tokens that it has read, in T slots.

  Attributes:
    keys: rotated keys [B, K, T, D] of each layer; one array with a leading axis
      of layers where the layers are scanned.
    values: values, likewise.
    positions: position [B, T] of the token in each slot, -1 in a slot that is
      empty or holds padding.
    used: number of slots that have been written.
  """

  keys: Any
  values: Any
  positions: jax.Array
  used: jax.Array


def make_cache(
  config: Config,
  batch: int,
  slots: int,
  *,
  dtype: Any = jnp.float32,
  scan_layers: bool = False,
) -> Cache:
  """Make an empty cache.

  Args:
    config: The model's sizes.
    batch: Number of sequences B.
    slots: Number of slots T, padding included.
    dtype: Dtype of keys and values, that of the model's computation.
    scan_layers: Whether the model scans its layers.

  Returns:
    The cache.
  """
  shape = (batch, config.key_heads, slots, config.head_size)

  def empty():
    if scan_layers:
      return jnp.zeros((config.layers, *shape), dtype)
    return tuple(jnp.zeros(shape, dtype) for _ in range(config.layers))

  positions = jnp.full((batch, slots), -1, jnp.int32)
  return Cache(empty(), empty(), positions, jnp.int32(0))


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
  """A layer without bias, `kernel` [I, O], which a function may apply.

  Attributes:
    apply_part: from inputs, kernel and what belongs to the layer to outputs.
  """

  use_bias: bool = False
  kernel_init: Any = _init
  apply_part: Callable = low_rank

  @nn.compact
  def __call__(self, x: jax.Array, part: Any = None) -> jax.Array:
    """Map x [..., I] to [..., O], with `part` if there is one."""
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    return x @ kernel if part is None else self.apply_part(x, kernel, part)


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
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(jnp.square(wide), -1, keepdims=True)
    x = (wide * jax.lax.rsqrt(square + self.epsilon)).astype(self.dtype)
    # Rank promotion is spelt out; every model here is [B, S, W].
    return x * scale.astype(self.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class _Layer(nn.Module):
  """What makes the layers of a block, which share their options."""

  config: Config
  dtype: Any
  param_dtype: Any
  apply_part: Callable

  def dense(self, x, name, features, parts):
    layer = Dense(
      features,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      apply_part=self.apply_part,
      name=name,
    )
    return layer(x, parts.get(f"{name}/kernel"))


class Attention(_Layer):
  """Grouped-query attention with rotated queries and keys."""

  @nn.compact
  def __call__(
    self, x: jax.Array, stored: Any, shared: attention.Shared, parts: Mapping
  ) -> tuple[jax.Array, Any]:
    """Attend from x [B, S, W]; returns the same and (keys, values)."""
    c = self.config
    split = lambda y, heads: y.reshape(*y.shape[:2], heads, c.head_size)
    project = lambda name, heads: split(
      self.dense(x, name, heads * c.head_size, parts), heads
    )
    query = attention.rotate(project("query", c.heads), shared.rotation)
    key = attention.rotate(project("key", c.key_heads), shared.rotation)
    value = project("value", c.key_heads)
    y, stored = attention.attend(query, key, value, stored, shared)
    return self.dense(y, "output", c.width, parts), stored


class MLP(_Layer):
  """The gated layer: silu(x gate) * (x up), times down."""

  @nn.compact
  def __call__(self, x: jax.Array, parts: Mapping) -> jax.Array:
    """Map x [B, S, W] to the same."""
    gate = self.dense(x, "gate", self.config.hidden, parts)
    up = self.dense(x, "up", self.config.hidden, parts)
    return self.dense(nn.silu(gate) * up, "down", self.config.width, parts)


class Block(_Layer):
  """Attention and the gated layer, each on a normalised residual stream."""

  @nn.compact
  def __call__(
    self, x: jax.Array, stored: Any, parts: Mapping, shared: attention.Shared
  ) -> tuple[jax.Array, Any]:
    """Map x [B, S, W] to the same, and give this layer's (keys, values)."""
    options = (self.config, self.dtype, self.param_dtype, self.apply_part)
    norm = functools.partial(
      RMSNorm, self.config.epsilon, self.dtype, self.param_dtype
    )
    under = lambda name: _under(parts, name)
    y, stored = Attention(*options, name="attention")(
      norm(name="attention_norm")(x), stored, shared, under("attention")
    )
    x = x + y
    y = MLP(*options, name="mlp")(norm(name="mlp_norm")(x), under("mlp"))
    return x + y, stored


class Llama(nn.Module):
  """A language model of the Llama family.

  Its parameters are `embed/embedding` [V, W], `layer_0/attention/query/kernel`
  [W, H D] and so on for key, value and output, `layer_0/mlp/gate/kernel`, up
  and down, `layer_0/attention_norm/scale`, `layer_0/mlp_norm/scale`,
  `norm/scale`, and `head/kernel` [W, V] if the embedding is not tied. Where the
  layers are scanned, `layers/...` has their parameters with a leading axis.

  Attributes:
    config: sizes.
    dtype: dtype of the computation; statistics and logits are float32.
    param_dtype: dtype of the parameters that `init` makes.
    scan_layers: whether one block is compiled and scanned over; compiles
      faster, but decodes slower, above all on CPUs.
    remat: whether activations inside of blocks are computed again for
      gradients.
    implementation: of the attention without a cache, see `attention.attend`.
    apply_part: function `(x [..., I], kernel [I, O], part) -> [..., O]` for the
      layers that have an entry in `parts`, see `__call__`.
  """

  config: Config
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  scan_layers: bool = False
  remat: bool = False
  implementation: str = "auto"
  apply_part: Callable = low_rank

  def setup(self):
    """Make the layers."""
    c = self.config
    self.embed = nn.Embed(
      c.vocabulary,
      c.width,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      embedding_init=_init,
    )
    options = (c, self.dtype, self.param_dtype, self.apply_part)
    block = Block
    if self.remat:
      block = nn.remat(Block, prevent_cse=not self.scan_layers)
    if self.scan_layers:
      block = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, 0, nn.broadcast),
        length=c.layers,
      )
      self.layers = block(*options)
    else:
      self.layer = [block(*options) for _ in range(c.layers)]
    self.norm = RMSNorm(c.epsilon, self.dtype, self.param_dtype)
    if not c.tied:
      self.head = Dense(
        c.vocabulary,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        apply_part=self.apply_part,
      )

  def __call__(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
  ) -> jax.Array:
    """Return the logits of the token after each.

    Args:
      tokens: Whole numbers [B, S].
      positions: Position of each token [B, S]; by default its column.
      segments: Number of the text that a token is of [B, S]: tokens see those
        of their own text alone. 0 is padding, which no other token sees.
      parts: For kernels by their path what `apply_part` is given; for scanned
        layers with a leading axis. By default pairs of low-rank factors.

    Returns:
      Logits [B, S, V], float32 or wider.

    Raises:
      ValueError: If `parts` names a kernel that there is not.
    """
    hidden = self.hidden(tokens, positions, segments, parts=parts)
    return self.logits(hidden, parts=parts)

  def hidden(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
  ) -> jax.Array:
    """Return what `logits` takes, [B, S, W]; see `__call__`."""
    if positions is None:
      positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    mask = None if segments is None else attention.same_segment(segments)
    shared = self._shared(positions, mask)
    return self._run(tokens, shared, None, parts)[0]

  def extend(
    self,
    tokens: jax.Array,
    positions: jax.Array,
    cache: Cache,
    *,
    parts: Mapping[str, Any] | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Read more tokens after those that a cache holds.

    Args:
      tokens: Whole numbers [B, S].
      positions: Position of each token [B, S], -1 for padding, which may stand
        anywhere: no token sees it.
      cache: What was read before; it must have S slots left.
      parts: As in `__call__`.

    Returns:
      What `logits` takes, [B, S, W], and the cache with these tokens.
    """
    start, zero = cache.used, jnp.int32(0)
    held = jax.lax.dynamic_update_slice(
      cache.positions, positions.astype(jnp.int32), (zero, start)
    )
    shared = self._shared(
      positions, attention.visible(positions, held), start=start
    )
    stored = (cache.keys, cache.values)
    hidden, (keys, values) = self._run(tokens, shared, stored, parts)
    return hidden, Cache(keys, values, held, start + tokens.shape[1])

  def logits(
    self, hidden: jax.Array, *, parts: Mapping[str, Any] | None = None
  ) -> jax.Array:
    """Return the logits [..., V] of normalised hidden states [..., W]."""
    if not self.config.tied:
      logits = self.head(hidden, (parts or {}).get("head/kernel"))
      return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    table = self.embed.embedding.astype(hidden.dtype)
    return jax.lax.dot_general(
      hidden,
      table,
      (((hidden.ndim - 1,), (1,)), ((), ())),
      preferred_element_type=jnp.promote_types(hidden.dtype, jnp.float32),
    )

  def _shared(self, positions, mask, start=None) -> attention.Shared:
    rotation = attention.rotation(
      positions, self.config.head_size, self.config.rope_base
    )
    implementation = self.implementation
    return attention.Shared(rotation, mask, start, implementation)

  def _run(self, tokens, shared, stored, parts):
    parts = dict(parts or {})
    self._check(parts)
    x = self.embed(tokens)
    if self.scan_layers:
      x, stored = self.layers(x, stored, _under(parts, "layers"), shared)
      return self.norm(x), stored
    keys, values = [], []
    for i, block in enumerate(self.layer):
      own = None if stored is None else (stored[0][i], stored[1][i])
      x, own = block(x, own, _under(parts, f"layer_{i}"), shared)
      if own is not None:
        keys.append(own[0])
        values.append(own[1])
    return self.norm(x), (tuple(keys), tuple(values))

  def _check(self, parts: Mapping[str, Any]) -> None:
    layers = [f"layer_{i}" for i in range(self.config.layers)]
    prefixes = ["layers"] if self.scan_layers else layers
    known = [f"{prefix}/{name}" for prefix in prefixes for name in _KERNELS]
    if not self.config.tied:
      known.append("head/kernel")
    for path in parts:
      if path not in known:
        raise ValueError(
          f"parts has {path!r}, which is no kernel of this model; the nearest"
          f" are {', '.join(tree.nearest(path, known, 3))}."
        )


def _under(parts: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Return the entries below a name, without it."""
  prefix = f"{name}/"
  return {
    path.removeprefix(prefix): part
    for path, part in parts.items()
    if path.startswith(prefix)
  }
