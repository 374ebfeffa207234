"""A tiny language model with a tokenizer, and the files that hold it."""

import jax
import numpy as np

from effjax import tree
from effjax.models import llama, llama_weights, tokenizers
from tests.io import gguf_files as written

SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
  "{% for message in messages %}<|{{ message['role'] }}|>"
  "{{ message['content'] }}<|end|>{% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _characters():
  """Return the printable characters that stand for the 256 bytes."""
  shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = [byte for byte in range(256) if byte not in shown]
  found = {byte: chr(byte) for byte in shown}
  return found | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


BYTES = _characters()
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ t", "Ã ¯")
# The byte of "%" has no token.
TOKENS = (
  *SPECIAL,
  *(BYTES[byte] for byte in range(256) if byte != ord("%")),
  *(merge.replace(" ", "") for merge in MERGES),
)
CONFIG = llama.Config(
  vocabulary=len(TOKENS),
  width=8,
  layers=2,
  heads=2,
  key_heads=1,
  head_size=4,
  hidden=12,
  context=40,
)
METADATA = {
  "general.architecture": "llama",
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.pre": "smollm",
  "tokenizer.ggml.tokens": list(TOKENS),
  "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(TOKENS) - 3),
  "tokenizer.ggml.merges": list(MERGES),
  "tokenizer.ggml.eos_token_id": 0,
  "tokenizer.chat_template": TEMPLATE,
  "llama.embedding_length": 8,
  "llama.block_count": 2,
  "llama.attention.head_count": 2,
  "llama.attention.head_count_kv": 1,
  "llama.feed_forward_length": 12,
  "llama.context_length": 40,
  "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def tokenizer(**changes):
  """Make the tokenizer, with entries of the metadata changed."""
  prefix = "tokenizer.ggml."
  changes = {f"{prefix}{key}": value for key, value in changes.items()}
  return tokenizers.from_gguf({**METADATA, **changes})


def random_params(config=CONFIG, seed=0):
  """Return parameters of which the most likely tokens differ."""
  module = llama.Llama(config)
  tokens = jax.ShapeDtypeStruct((1, 1), np.int32)
  made = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
  generator = np.random.default_rng(seed)

  def draw(path, leaf):
    normal = generator.normal(size=leaf.shape)
    scale = 1.0 if path.endswith("scale") else 0.0
    return np.float32(scale + normal / leaf.shape[0] ** 0.5)

  return jax.tree.map(draw, tree.names(made), made)


def stored(params, form):
  """Return parameters under the names and in the layout of a file."""
  found = {}
  paths = jax.tree.leaves(tree.names(params))
  for path, leaf in zip(paths, jax.tree.leaves(params), strict=True):
    value = np.asarray(leaf)
    if path.endswith("kernel"):
      value = value.T
    if form == "gguf" and path.endswith(("query/kernel", "key/kernel")):
      # Within each head of D rows, row 2 i + j holds what is row j D / 2 + i.
      size = CONFIG.head_size
      order = [
        head + j * size // 2 + i
        for head in range(0, len(value), size)
        for i in range(size // 2)
        for j in range(2)
      ]
      value = value[order]
    found[llama_weights.stored_name(path, form)] = value
  return found


def gguf_file(params, **changes):
  """Return a GGUF file of the model, with entries "llama.…" changed."""
  metadata = METADATA | {f"llama.{key}": x for key, x in changes.items()}
  entries = {}
  for key, value in metadata.items():
    if isinstance(value, str):
      entries[key] = written.string(value)
    elif isinstance(value, float):
      entries[key] = written.number("f32", value)
    elif isinstance(value, int):
      entries[key] = written.number("u32", value)
    elif isinstance(value[0], str):
      entries[key] = written.strings(value)
    else:
      entries[key] = written.numbers("i32", value)
  tensors = {k: written.floats(v) for k, v in stored(params, "gguf").items()}
  return written.file(entries, tensors)
