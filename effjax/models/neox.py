"""Language models of the GPT-NeoX family (arXiv:2204.06745), such as Pythia.

Attention and MLP of a block both read the residual stream, each through a layer
norm of its own, and are added to it at once. Part of each head is rotated by
position; toy models have learnt positions instead. The sizes of Pythia-31M are
`pythia_31m`, small models for worlds of facts `toy` (Biderman et al. 2023,
arXiv:2304.01373).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax import tree
from effjax.models import attention, llama_layers, neox_layers, products
from effjax.models.neox_layers import Config

_KERNELS = (
  "attention/query/kernel",
  "attention/key/kernel",
  "attention/value/kernel",
  "attention/output/kernel",
  "mlp/up/kernel",
  "mlp/down/kernel",
)


def pythia_31m(vocabulary: int = 50_304, **changes: Any) -> Config:
  """Return the sizes of Pythia-31M.

  Args:
    vocabulary: Number of tokens; a world of facts needs few.
    **changes: Other attributes of `Config`.

  Returns:
    The sizes; the context is that of the corpus of facts, 1024.
  """
  sizes: dict[str, Any] = {
    "width": 256,
    "layers": 6,
    "heads": 8,
    "hidden": 1024,
    "context": 1024,
    "rotated": 8,
  }
  return Config(vocabulary=vocabulary, **(sizes | changes))


def toy(
  vocabulary: int,
  *,
  width: int = 64,
  layers: int = 2,
  context: int = 32,
  **changes: Any,
) -> Config:
  """Return sizes of a small model with learnt positions.

  Args:
    vocabulary: Number of tokens.
    width: Size of the residual stream W; the MLP has 4 W.
    layers: Number of blocks.
    context: Tokens of the longest text.
    **changes: Other attributes of `Config`.

  Returns:
    The sizes.

  >>> toy(300).block_parameters
  99968
  """
  sizes: dict[str, Any] = {
    "heads": 4,
    "hidden": 4 * width,
    "learned_positions": True,
  }
  return Config(
    vocabulary=vocabulary,
    width=width,
    layers=layers,
    context=context,
    **(sizes | changes),
  )


class NeoX(nn.Module):
  """A language model of the GPT-NeoX family.

  Its parameters are `embed/embedding` [V, W], `positions/embedding` [C, W] if
  they are learnt, `layer_0/attention/query/kernel` [W, W] and `bias`, and so on
  for key, value and output, `layer_0/mlp/up` and `down`,
  `layer_0/attention_norm/scale` and `bias`, `layer_0/mlp_norm`, `norm`, and
  `head/kernel` [W, V]. Kernels that write to the residual stream begin smaller,
  by 1 / sqrt(2 L).

  `models.capture` gives the input of every kernel: that of
  `layer_0/mlp/down/kernel` is the key of the facts that it stores.

  Attributes:
    config: sizes.
    dtype: dtype of the computation; statistics and logits are float32.
    param_dtype: dtype of the parameters that `init` makes.
    remat: whether activations inside of blocks are computed again for
      gradients.
    implementation: of the attention, see `attention.attend`.
    apply_part: function `(x [..., I], kernel [I, O], part) -> [..., O]` for the
      layers that have an entry in `parts`, see `__call__`.
  """

  config: Config
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False
  implementation: str = "auto"
  apply_part: Callable = llama_layers.low_rank

  def setup(self):
    """Make the layers."""
    c = self.config
    embed = lambda count: nn.Embed(
      count,
      c.width,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      embedding_init=llama_layers.normal_init,
    )
    self.embed = embed(c.vocabulary)
    if c.learned_positions:
      self.positions = embed(c.context)
    options = neox_layers.Options(
      c, self.dtype, self.param_dtype, self.apply_part
    )
    block = neox_layers.Block
    if self.remat:
      block = nn.remat(block)
    self.layer = [block(options) for _ in range(c.layers)]
    self.norm = neox_layers.norm(options, None)
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
    shifts: Mapping[str, jax.Array] | None = None,
  ) -> jax.Array:
    """Return the logits of the token after each.

    Args:
      tokens: Whole numbers [B, S].
      positions: Position of each token [B, S]; by default its column.
      segments: Number of the text that a token is of [B, S]: tokens see those
        of their own text alone. 0 is padding, which no other token sees; what
        is below 0 all texts of the row begin with, and see.
      parts: For kernels by their path what `apply_part` is given. By default
        pairs of low-rank factors.
      shifts: For MLPs by their path, "layer_0/mlp", what is added to their
        outputs, [B, S, W].

    Returns:
      Logits [B, S, V], float32 or wider.

    Raises:
      ValueError: If `parts` or `shifts` names something that there is not, or
        texts are longer than learnt positions.
    """
    hidden = self.hidden(
      tokens, positions, segments, parts=parts, shifts=shifts
    )
    return self.logits(hidden, parts=parts)

  def hidden(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
    shifts: Mapping[str, jax.Array] | None = None,
  ) -> jax.Array:
    """Return what `logits` takes, [B, S, W]; see `__call__`."""
    c, parts, shifts = self.config, dict(parts or {}), dict(shifts or {})
    self._check(tokens, positions, parts, shifts)
    if positions is None:
      positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    mask = None if segments is None else attention.same_segment(segments)
    rotation: Any = ()
    if c.rotated:
      rotation = attention.rotation(positions, c.rotated, c.rope_base)
    shared = attention.Shared(rotation, mask, None, None, self.implementation)
    x = self.embed(tokens)
    if c.learned_positions:
      x = x + jnp.broadcast_to(self.positions(positions), x.shape)
    for i, block in enumerate(self.layer):
      name = f"layer_{i}"
      shift = shifts.get(f"{name}/mlp")
      x = block(x, shared, llama_layers.under(parts, name), shift)
    return self.norm(x)

  def logits(
    self, hidden: jax.Array, *, parts: Mapping[str, Any] | None = None
  ) -> jax.Array:
    """Return the logits [..., V] of normalised hidden states [..., W]."""
    logits = self.head(hidden, (parts or {}).get("head/kernel"))
    return logits.astype(products.wide(logits.dtype))

  def _check(self, tokens, positions, parts, shifts) -> None:
    c = self.config
    layers = [f"layer_{i}" for i in range(c.layers)]
    kernels = [f"{layer}/{name}" for layer in layers for name in _KERNELS]
    for what, given, known in (
      ("parts", parts, [*kernels, "head/kernel"]),
      ("shifts", shifts, [f"{layer}/mlp" for layer in layers]),
    ):
      for path in given:
        if path not in known:
          raise ValueError(
            f"{what} has {path!r}, which this model has not; the nearest are"
            f" {', '.join(tree.nearest(path, known, 3))}."
          )
    # Positions that are given may begin anew in a row of several texts.
    too_long = positions is None and tokens.shape[1] > c.context
    if c.learned_positions and too_long:
      raise ValueError(
        f"texts of {tokens.shape[1]} tokens are longer than the {c.context}"
        " positions that the model learns."
      )
