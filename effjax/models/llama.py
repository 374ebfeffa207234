"""Language models of the Llama family, Touvron et al. 2023 (arXiv:2302.13971).

A block normalises its input by the root mean square, attends by rotated queries
and keys, of which groups of queries share one (arXiv:2305.13245), and adds a
gated layer (SwiGLU, arXiv:2002.05202). Weights are read by
`models.llama_weights`, text is made by `models.generation`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax import tree
from effjax.models import attention, llama_layers, products
from effjax.models.llama_layers import Config

_KERNELS = (
  "attention/query/kernel",
  "attention/key/kernel",
  "attention/value/kernel",
  "attention/output/kernel",
  "mlp/gate/kernel",
  "mlp/up/kernel",
  "mlp/down/kernel",
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
    fused: whether layers that have one input are one kernel; for decoding, see
      `llama_weights.fuse`. `parts` cannot be given then.
    apply_part: function `(x [..., I], kernel [I, O], part) -> [..., O]` for the
      layers that have an entry in `parts`, see `__call__`.
  """

  config: Config
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  scan_layers: bool = False
  remat: bool = False
  implementation: str = "auto"
  fused: bool = False
  apply_part: Callable = llama_layers.low_rank

  def setup(self):
    """Make the layers."""
    c = self.config
    self.embed = nn.Embed(
      c.vocabulary,
      c.width,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      embedding_init=llama_layers.normal_init,
    )
    options = llama_layers.Options(
      c, self.dtype, self.param_dtype, self.apply_part, self.fused
    )
    block = llama_layers.Block
    if self.remat:
      block = nn.remat(block, prevent_cse=not self.scan_layers)
    if self.scan_layers:
      block = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, 0, nn.broadcast),
        length=c.layers,
      )
      self.layers = block(options)
    else:
      self.layer = [block(options) for _ in range(c.layers)]
    self.norm = llama_layers.RMSNorm(c.epsilon, self.dtype, self.param_dtype)
    if not c.tied:
      self.head = llama_layers.Dense(
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
        of their own text alone. 0 is padding, which no other token sees; what
        is below 0 all texts of the row begin with, and see.
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
    empty: bool = False,
    parts: Mapping[str, Any] | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Read more tokens after those that a cache holds.

    Args:
      tokens: Whole numbers [B, S].
      positions: Position of each token [B, S], -1 for padding, which may stand
        anywhere: no token sees it.
      cache: What was read before; it must have S slots left.
      empty: Whether the cache is known to be empty, and padding to stand behind
        all tokens; this is faster.
      parts: As in `__call__`.

    Returns:
      What `logits` takes, [B, S, W], and the cache with these tokens.
    """
    positions = positions.astype(jnp.int32)
    mask, held = None, None
    if not empty:
      held = attention.visible(positions, cache.positions)
      # Padding sees itself, so that what becomes of it stays finite.
      itself = jnp.eye(tokens.shape[1], dtype=bool)[None]
      mask = attention.visible(positions, positions) | itself
    shared = self._shared(positions, mask, held, cache.used)
    stored = (cache.keys, cache.values)
    hidden, (keys, values) = self._run(tokens, shared, stored, parts)
    now = jax.lax.dynamic_update_slice(
      cache.positions, positions, (jnp.int32(0), cache.used)
    )
    return hidden, Cache(keys, values, now, cache.used + tokens.shape[1])

  def logits(
    self, hidden: jax.Array, *, parts: Mapping[str, Any] | None = None
  ) -> jax.Array:
    """Return the logits [..., V] of normalised hidden states [..., W]."""
    if not self.config.tied:
      logits = self.head(hidden, (parts or {}).get("head/kernel"))
      return logits.astype(products.wide(logits.dtype))
    table = self.embed.embedding.astype(hidden.dtype)
    return jax.lax.dot_general(
      hidden,
      table,
      (((hidden.ndim - 1,), (1,)), ((), ())),
      preferred_element_type=products.wide(hidden.dtype),
    )

  def _shared(self, positions, mask, held=None, start=None):
    rotation = attention.rotation(
      positions, self.config.head_size, self.config.rope_base
    )
    return attention.Shared(rotation, mask, held, start, self.implementation)

  def _run(self, tokens, shared, stored, parts):
    parts = dict(parts or {})
    self._check(parts)
    x = self.embed(tokens)
    if self.scan_layers:
      x, stored = self.layers(
        x, stored, llama_layers.under(parts, "layers"), shared
      )
      return self.norm(x), stored
    keys, values = [], []
    for i, block in enumerate(self.layer):
      own = None if stored is None else (stored[0][i], stored[1][i])
      x, own = block(x, own, llama_layers.under(parts, f"layer_{i}"), shared)
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
      if self.fused:
        raise ValueError(
          f"parts has {path!r}, but this model has fused kernels; give parts to"
          " the model as it was before."
        )
      if path not in known:
        raise ValueError(
          f"parts has {path!r}, which is no kernel of this model; the nearest"
          f" are {', '.join(tree.nearest(path, known, 3))}."
        )
