"""Weights of the Llama family, from GGUF files and from Hugging Face's."""

import dataclasses
import functools
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax.models import llama, stored

# What our leaves are called, outside and inside of a block.
_GGUF = {
  "embed/embedding": "token_embd.weight",
  "norm/scale": "output_norm.weight",
  "head/kernel": "output.weight",
  "attention_norm/scale": "attn_norm.weight",
  "mlp_norm/scale": "ffn_norm.weight",
  "attention/query/kernel": "attn_q.weight",
  "attention/key/kernel": "attn_k.weight",
  "attention/value/kernel": "attn_v.weight",
  "attention/output/kernel": "attn_output.weight",
  "mlp/gate/kernel": "ffn_gate.weight",
  "mlp/up/kernel": "ffn_up.weight",
  "mlp/down/kernel": "ffn_down.weight",
}
_HUGGING_FACE = {
  "embed/embedding": "model.embed_tokens.weight",
  "norm/scale": "model.norm.weight",
  "head/kernel": "lm_head.weight",
  "attention_norm/scale": "input_layernorm.weight",
  "mlp_norm/scale": "post_attention_layernorm.weight",
  "attention/query/kernel": "self_attn.q_proj.weight",
  "attention/key/kernel": "self_attn.k_proj.weight",
  "attention/value/kernel": "self_attn.v_proj.weight",
  "attention/output/kernel": "self_attn.o_proj.weight",
  "mlp/gate/kernel": "mlp.gate_proj.weight",
  "mlp/up/kernel": "mlp.up_proj.weight",
  "mlp/down/kernel": "mlp.down_proj.weight",
}
_FORMATS = {
  "gguf": ("blk", _GGUF),
  "hugging_face": ("model.layers", _HUGGING_FACE),
}


def stored_name(path: str, form: str = "hugging_face") -> str:
  """Return what a parameter is called in a file.

  Args:
    path: Its path in `llama.Llama`, of a layer that is not scanned.
    form: "gguf" or "hugging_face".

  Returns:
    The name.

  >>> stored_name("layer_3/attention/query/kernel")
  'model.layers.3.self_attn.q_proj.weight'
  """
  layers, names = _FORMATS[form]
  first, _, rest = path.partition("/")
  if first.startswith("layer_"):
    return f"{layers}.{first.removeprefix('layer_')}.{names[rest]}"
  return names[path]


def gguf_config(
  metadata: Mapping[str, Any], tensors: Mapping[str, Any]
) -> llama.Config:
  """Read the sizes of a model from the metadata of a GGUF file.

  Args:
    metadata: The entries of the file.
    tensors: Its tensors, of which only names and shapes matter.

  Returns:
    The sizes.

  Raises:
    ValueError: If the model is of another family, lacks an entry, or scales
      its rotations.
  """
  family = metadata.get("general.architecture")
  if family != "llama":
    raise ValueError(
      f"The file holds a model of the architecture {family!r}, expected"
      " 'llama'."
    )
  scaled = metadata.get("llama.rope.scaling.type", "none")
  if scaled != "none" or "rope_freqs.weight" in tensors:
    raise ValueError(
      "The file's model scales its rotations (llama.rope.scaling.type is"
      f" {scaled!r}), which is not supported."
    )

  def get(key: str, default: Any = None) -> Any:
    value = metadata.get(f"llama.{key}", default)
    if value is None:
      raise ValueError(f"The file's metadata lack 'llama.{key}'.")
    return value

  width, heads = get("embedding_length"), get("attention.head_count")
  size = get("attention.key_length", _share(width, heads))
  if get("rope.dimension_count", size) != size:
    raise ValueError(
      f"The file's model rotates {get('rope.dimension_count')} of the {size}"
      " numbers of a head, which is not supported."
    )
  vocabulary = metadata.get("llama.vocab_size")
  if "token_embd.weight" in tensors:
    vocabulary = tensors["token_embd.weight"].shape[0]
  return llama.Config(
    vocabulary=int(vocabulary or get("vocab_size")),
    width=width,
    layers=get("block_count"),
    heads=heads,
    key_heads=get("attention.head_count_kv", heads),
    head_size=size,
    hidden=get("feed_forward_length"),
    context=get("context_length"),
    rope_base=float(get("rope.freq_base", 1e4)),
    epsilon=float(get("attention.layer_norm_rms_epsilon")),
    tied="output.weight" not in tensors,
  )


def hugging_face_config(config: Mapping[str, Any]) -> llama.Config:
  """Read the sizes of a model from a `config.json` of Hugging Face.

  Args:
    config: The content of the file.

  Returns:
    The sizes.

  Raises:
    ValueError: If the model is of another family, or has biases, another
      activation or scaled rotations, or an entry is missing.
  """
  rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
  for key, expected, found in (
    ("model_type", "llama", config.get("model_type")),
    ("hidden_act", "silu", config.get("hidden_act", "silu")),
    ("attention_bias", False, bool(config.get("attention_bias"))),
    ("mlp_bias", False, bool(config.get("mlp_bias"))),
    (
      "the type of rotations",
      "default",
      rope.get("rope_type", rope.get("type", "default")),
    ),
  ):
    if found != expected:
      raise ValueError(
        f"The configuration has {key} {found!r}, expected {expected!r}."
      )

  def get(key: str, default: Any = None) -> Any:
    value = config.get(key, default)
    value = default if value is None else value
    if value is None:
      raise ValueError(f"The configuration lacks {key!r}.")
    return value

  width, heads = get("hidden_size"), get("num_attention_heads")
  return llama.Config(
    vocabulary=get("vocab_size"),
    width=width,
    layers=get("num_hidden_layers"),
    heads=heads,
    key_heads=get("num_key_value_heads", heads),
    head_size=get("head_dim", _share(width, heads)),
    hidden=get("intermediate_size"),
    context=get("max_position_embeddings", 2048),
    rope_base=float(rope.get("rope_theta", get("rope_theta", 1e4))),
    epsilon=float(get("rms_norm_eps", 1e-6)),
    tied=bool(get("tie_word_embeddings", False)),
  )


def _share(width: Any, heads: Any) -> int:
  """Divide numbers among heads."""
  for number in (width, heads):
    if not isinstance(number, numbers.Integral) or number < 1:
      raise ValueError(
        f"The model has a width of {width!r} and {heads!r} heads; both must be"
        " whole numbers from 1 on."
      )
  return width // heads


def hugging_face_fields(config: llama.Config) -> dict[str, Any]:
  """Write the sizes of a model as a `config.json` of Hugging Face has them.

  Args:
    config: The sizes.

  Returns:
    The content of the file, which `hugging_face_config` reads.
  """
  return {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": config.vocabulary,
    "hidden_size": config.width,
    "num_hidden_layers": config.layers,
    "num_attention_heads": config.heads,
    "num_key_value_heads": config.key_heads,
    "head_dim": config.head_size,
    "intermediate_size": config.hidden,
    "max_position_embeddings": config.context,
    "rope_theta": config.rope_base,
    "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
    "rms_norm_eps": config.epsilon,
    "tie_word_embeddings": config.tied,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
  }


def load(
  config: llama.Config,
  tensors: Mapping[str, Any],
  form: str = "hugging_face",
  *,
  dtype: Any = np.float32,
) -> dict[str, Any]:
  """Make the parameters of a model of stored weights.

  Args:
    config: The model's sizes.
    tensors: Weights by their name in the file, [O, I]; whatever NumPy makes
      arrays of.
    form: "gguf" or "hugging_face". In a GGUF file the pairs that are rotated
      lie side by side.
    dtype: Dtype of the parameters.

  Returns:
    The parameters of `llama.Llama(config)`, NumPy arrays; `stack` makes those
    for scanned layers.

  Raises:
    ValueError: If a tensor is missing, too many, or of another shape.
  """
  if form not in _FORMATS:
    raise ValueError(
      f"form must be one of {', '.join(_FORMATS)}, got {form!r}."
    )
  module = llama.Llama(config)
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  made = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]

  def convert(path: str, value: np.ndarray) -> np.ndarray:
    if form == "gguf" and path.endswith(("query/kernel", "key/kernel")):
      value = _halves(value, config.head_size)
    return stored.transposed(path, value)

  # A tied head is a copy of the embedding.
  head = [_FORMATS[form][1]["head/kernel"]] if config.tied else []
  return stored.fill(
    made,
    functools.partial(stored_name, form=form),
    tensors,
    convert=convert,
    dtype=dtype,
    unused=head,
  )


def _halves(value: np.ndarray, size: int) -> np.ndarray:
  """Put rows 2 i and 2 i + 1 of every head at i and i + D / 2."""
  pairs = value.reshape(-1, size // 2, 2, value.shape[1])
  return pairs.swapaxes(1, 2).reshape(value.shape)


def stack(params: Mapping[str, Any]) -> dict[str, Any]:
  """Turn the parameters of separate layers into those of scanned ones.

  Args:
    params: Parameters with `layer_0`, `layer_1`, ...

  Returns:
    The same with `layers`, whose leaves have a leading axis of layers.

  >>> stack({"layer_0": {"a": np.zeros(3)}, "layer_1": {"a": np.ones(3)}})[
  ...   "layers"
  ... ]["a"].shape
  (2, 3)
  """
  count = sum(name.startswith("layer_") for name in params)
  layers = [params[f"layer_{i}"] for i in range(count)]
  rest = {k: v for k, v in params.items() if not k.startswith("layer_")}
  return {**rest, "layers": jax.tree.map(lambda *x: jnp.stack(x), *layers)}


def unstack(params: Mapping[str, Any]) -> dict[str, Any]:
  """Turn the parameters of scanned layers into those of separate ones.

  Args:
    params: Parameters with `layers`.

  Returns:
    The same with `layer_0`, `layer_1`, ...
  """
  layers = params["layers"]
  count = len(jax.tree.leaves(layers)[0])
  split = {
    f"layer_{i}": jax.tree.map(lambda x, i=i: x[i], layers)
    for i in range(count)
  }
  return {**{k: v for k, v in params.items() if k != "layers"}, **split}


def fuse(
  module: llama.Llama, params: Mapping[str, Any]
) -> tuple[llama.Llama, dict[str, Any]]:
  """Lay kernels out as decoding one token after the other reads them fastest.

  Query, key and value become one kernel, and so do gate and up; the kernel of
  down is transposed, and a tied embedding gets a transposed copy as output
  layer. Products of one row with these take four fifths of the time on a CPU.

  Args:
    module: The model, its layers not scanned.
    params: Its parameters.

  Returns:
    The same model in that form, and its parameters.

  Raises:
    ValueError: If the layers are scanned or fused.
  """
  if module.scan_layers or module.fused:
    raise ValueError(
      "fuse needs a model whose layers are neither scanned nor fused; unstack"
      " those that are scanned."
    )
  join = lambda layer, *names: {
    "kernel": jnp.concatenate([layer[name]["kernel"] for name in names], 1)
  }
  made: dict[str, Any] = {"embed": params["embed"], "norm": params["norm"]}
  made["head"] = (
    {"kernel": jnp.transpose(params["embed"]["embedding"])}
    if module.config.tied
    else params["head"]
  )
  for i in range(module.config.layers):
    name = f"layer_{i}"
    layer = params[name]
    made[name] = {
      "attention_norm": layer["attention_norm"],
      "mlp_norm": layer["mlp_norm"],
      "attention": {
        "query_key_value": join(layer["attention"], "query", "key", "value"),
        "output": layer["attention"]["output"],
      },
      "mlp": {
        "gate_up": join(layer["mlp"], "gate", "up"),
        "down": {"kernel": jnp.transpose(layer["mlp"]["down"]["kernel"])},
      },
    }
  config = dataclasses.replace(module.config, tied=False)
  return module.clone(config=config, fused=True), made
