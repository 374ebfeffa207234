"""Encoders of the family of BERT, Devlin et al. 2019 (arXiv:1810.04805).

`SentenceEncoder` gives one vector for a text, after Reimers and Gurevych 2019
(arXiv:1908.10084); all-MiniLM-L6-v2 is one, whose files `data.source` knows as
"minilm".
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from effjax.models import stored
from effjax.models.tokenizers import Tokenizer

# Tokens to which texts are cut, as all-MiniLM-L6-v2 was trained.
LENGTH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The sizes of an encoder.

  Attributes:
    vocabulary: number of tokens.
    width: size of the residual stream W.
    layers: number of blocks.
    heads: number of heads.
    hidden: size of the inner layer.
    context: number of positions.
    kinds: number of kinds of texts, of which we use the first.
    epsilon: added to variances.
  """

  vocabulary: int
  width: int
  layers: int
  heads: int
  hidden: int
  context: int = 512
  kinds: int = 2
  epsilon: float = 1e-12


class Block(nn.Module):
  """Attention and two layers, each normalised after it is added.

  Attributes:
    config: sizes.
  """

  config: Config

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
    """Map x [B, S, W] to the same, seeing the tokens of `valid` [B, S]."""
    c = self.config
    project = lambda name: nn.Dense(c.width, name=name)(x).reshape(
      *x.shape[:2], c.heads, -1
    )
    y = jax.nn.dot_product_attention(
      project("query"),
      project("key"),
      project("value"),
      mask=valid[:, None, None],
    )
    y = nn.Dense(c.width, name="output")(y.reshape(x.shape))
    norm = functools.partial(nn.LayerNorm, epsilon=c.epsilon)
    x = norm(name="attention_norm")(x + y)
    y = nn.gelu(nn.Dense(c.hidden, name="up")(x), approximate=False)
    y = nn.Dense(c.width, name="down")(y)
    return norm(name="mlp_norm")(x + y)


class SentenceEncoder(nn.Module):
  """Encodes texts as vectors of length one.

  Attributes:
    config: sizes.
  """

  config: Config

  @nn.compact
  def __call__(self, tokens: jax.Array, valid: jax.Array) -> jax.Array:
    """Return the vectors of texts.

    Args:
      tokens: Whole numbers [B, S].
      valid: Which of them are not padding [B, S].

    Returns:
      The mean over the tokens of a text, divided by its length: [B, W].
    """
    c = self.config
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    embed = lambda count, name, which: nn.Embed(count, c.width, name=name)(
      which
    )
    x = (
      embed(c.vocabulary, "embed", tokens)
      + embed(c.context, "embed_position", positions)
      + embed(c.kinds, "embed_kind", jnp.zeros_like(positions))
    )
    x = nn.LayerNorm(epsilon=c.epsilon, name="embed_norm")(x)
    for i in range(c.layers):
      x = Block(c, name=f"layer_{i}")(x, valid)
    total = jnp.sum(jnp.where(valid[..., None], x, 0), axis=1)
    count = jnp.maximum(jnp.sum(valid, axis=1, keepdims=True), 1)
    mean = total / count.astype(total.dtype)
    length = jnp.linalg.norm(mean, axis=1, keepdims=True)
    return mean / jnp.maximum(length, 1e-12)


_LAYERS = {
  "embed": "embeddings.word_embeddings",
  "embed_position": "embeddings.position_embeddings",
  "embed_kind": "embeddings.token_type_embeddings",
  "embed_norm": "embeddings.LayerNorm",
}
_BLOCK_LAYERS = {
  "query": "attention.self.query",
  "key": "attention.self.key",
  "value": "attention.self.value",
  "output": "attention.output.dense",
  "attention_norm": "attention.output.LayerNorm",
  "up": "intermediate.dense",
  "down": "output.dense",
  "mlp_norm": "output.LayerNorm",
}
# What the encoder of sentences has no use for.
_UNUSED = ("pooler.", "embeddings.position_ids")


def stored_name(path: str) -> str:
  """Return what a parameter is called in Hugging Face's files.

  >>> stored_name("layer_2/up/kernel")
  'encoder.layer.2.intermediate.dense.weight'
  """
  *outer, layer, leaf = path.split("/")
  leaf = "bias" if leaf == "bias" else "weight"
  if outer:
    number = outer[0].removeprefix("layer_")
    return f"encoder.layer.{number}.{_BLOCK_LAYERS[layer]}.{leaf}"
  return f"{_LAYERS[layer]}.{leaf}"


def load(
  config: Mapping[str, Any], tensors: Mapping[str, Any]
) -> tuple[SentenceEncoder, dict[str, Any]]:
  """Make an encoder with stored weights.

  Args:
    config: The content of `config.json`.
    tensors: The weights by name, [O, I].

  Returns:
    The module and its parameters.

  Raises:
    ValueError: If the model is of another kind, or a tensor is missing, too
      many, or of another shape.
  """
  for key, expected in (
    ("model_type", "bert"),
    ("hidden_act", "gelu"),
    ("position_embedding_type", "absolute"),
  ):
    if config.get(key, expected) != expected:
      raise ValueError(
        f"The configuration has {key} {config[key]!r}, expected {expected!r}."
      )
  try:
    sizes = Config(
      vocabulary=config["vocab_size"],
      width=config["hidden_size"],
      layers=config["num_hidden_layers"],
      heads=config["num_attention_heads"],
      hidden=config["intermediate_size"],
      context=config["max_position_embeddings"],
      kinds=config["type_vocab_size"],
      epsilon=config["layer_norm_eps"],
    )
  except KeyError as error:
    raise ValueError(f"The configuration lacks {error}.") from None
  module = SentenceEncoder(sizes)
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  valid = jax.ShapeDtypeStruct((1, 1), bool)
  made = jax.eval_shape(module.init, jax.random.key(0), tokens, valid)["params"]
  params = stored.fill(
    made, stored_name, tensors, convert=stored.transposed, unused=_UNUSED
  )
  return module, jax.tree.map(jnp.asarray, params)


def encode(
  module: SentenceEncoder,
  params: Any,
  tokenizer: Tokenizer,
  texts: Sequence[str],
  *,
  batch: int = 32,
) -> np.ndarray:
  """Return the vectors of texts; their products are cosines.

  Texts of like length go together, so that little is padding.

  Args:
    module: The encoder.
    params: Its parameters.
    tokenizer: Its tokenizer, which cuts texts to what the encoder can read.
    texts: The texts.
    batch: The most texts at once.

  Returns:
    Vectors of length one, float32 [N, W].

  Raises:
    ValueError: If a text is longer than the encoder's positions.
  """
  tokens = [tokenizer.encode(text, framed=True) for text in texts]
  found = np.zeros((len(texts), module.config.width), np.float32)
  order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
  for start in range(0, len(order), batch):
    rows = order[start : start + batch]
    length = len(tokens[rows[-1]])
    if length > module.config.context:
      raise ValueError(
        f"Text {rows[-1]} has {length} tokens, but the encoder reads at most"
        f" {module.config.context}; let the tokenizer cut it."
      )
    # Few shapes, so that few programs are compiled.
    size = min(-(-max(length, 1) // 32) * 32, module.config.context)
    padded = np.zeros((batch, size), np.int32)
    valid = np.zeros((batch, size), bool)
    for place, row in enumerate(rows):
      padded[place, : len(tokens[row])] = tokens[row]
      valid[place, : len(tokens[row])] = True
    found[rows] = np.asarray(_apply(module, params, padded, valid))[: len(rows)]
  return found


@functools.partial(jax.jit, static_argnums=0)
def _apply(module, params, tokens, valid):
  return module.apply({"params": params}, tokens, valid)
