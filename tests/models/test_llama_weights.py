"""Weights and sizes as files hold them."""

import jax
import numpy as np
import pytest

from effjax.io import gguf
from effjax.models import llama_weights
from tests.models import language_models as tiny

PARAMS = tiny.random_params()
HUGGING_FACE = {
  "model_type": "llama",
  "vocab_size": len(tiny.TOKENS),
  "hidden_size": 8,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "intermediate_size": 12,
  "max_position_embeddings": 40,
  "rms_norm_eps": 1e-5,
  "rope_theta": 1e4,
  "tie_word_embeddings": True,
}


def same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_gguf_file():
  file = gguf.parse(tiny.gguf_file(PARAMS))
  config = llama_weights.gguf_config(file.metadata, file.tensors)
  assert abs(config.epsilon - 1e-5) < 1e-12
  assert config == tiny.CONFIG.__class__(
    **{**vars(tiny.CONFIG), "epsilon": config.epsilon}
  )
  same(llama_weights.load(config, file.tensors, "gguf"), PARAMS)


def test_tensors_of_hugging_face():
  config = llama_weights.hugging_face_config(HUGGING_FACE)
  assert config == tiny.CONFIG
  tensors = tiny.stored(PARAMS, "hugging_face")
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
  found = llama_weights.load(config, tensors)
  same(found, PARAMS)
  half = llama_weights.load(config, tensors, dtype=np.float16)
  assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype("f2")}


def test_an_output_layer_of_its_own():
  config = llama_weights.hugging_face_config(
    {**HUGGING_FACE, "tie_word_embeddings": False}
  )
  params = tiny.random_params(config, seed=1)
  tensors = tiny.stored(params, "hugging_face")
  same(llama_weights.load(config, tensors), params)
  names = {**tensors, "output.weight": 0}
  assert not llama_weights.gguf_config(tiny.METADATA, names | _table()).tied


def _table():
  return {"token_embd.weight": np.zeros((len(tiny.TOKENS), 8))}


def test_defaults_of_hugging_face():
  short = {
    k: v
    for k, v in HUGGING_FACE.items()
    if k not in ("num_key_value_heads", "rope_theta", "tie_word_embeddings")
  }
  short["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}
  config = llama_weights.hugging_face_config(short | {"head_dim": None})
  assert config.key_heads == 2
  assert config.head_size == 4
  assert config.rope_base == 5e5
  assert not config.tied


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"model_type": "qwen2"}, "model_type 'qwen2', expected 'llama'"),
    ({"attention_bias": True}, "attention_bias True, expected False"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu', expected 'silu'"),
    (
      {"rope_scaling": {"rope_type": "llama3"}},
      "type of rotations 'llama3', expected 'default'",
    ),
    ({"hidden_size": None}, "lacks 'hidden_size'"),
  ],
)
def test_configurations_of_other_models(change, message):
  with pytest.raises(ValueError, match=message):
    llama_weights.hugging_face_config({**HUGGING_FACE, **change})


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"general.architecture": "gemma"}, "architecture 'gemma', expected"),
    ({"llama.block_count": None}, r"lack 'llama\.block_count'"),
    ({"llama.rope.dimension_count": 2}, "rotates 2 of the 4 numbers"),
    ({"llama.rope.scaling.type": "yarn"}, "'yarn'.*not supported"),
  ],
)
def test_gguf_files_of_other_models(change, message):
  with pytest.raises(ValueError, match=message):
    llama_weights.gguf_config({**tiny.METADATA, **change}, _table())


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("model.norm.weight", None, r"lack 'model\.norm\.weight'"),
    ("model.norm.bias", np.zeros(8), r"have 'model\.norm\.bias', for which"),
    (
      "model.layers.2.mlp.up_proj.weight",
      np.zeros((12, 8)),
      r"have 'model\.layers\.2",
    ),
    (
      "model.layers.0.self_attn.q_proj.weight",
      np.zeros((4, 8)),
      r"q_proj\.weight' has the shape \[4, 8\], which does not fit \[8, 8\] of"
      " 'layer_0/attention/query/kernel'",
    ),
  ],
)
def test_weights_of_other_models(name, value, message):
  tensors = tiny.stored(PARAMS, "hugging_face")
  tensors[name] = value
  if value is None:
    del tensors[name]
  with pytest.raises(ValueError, match=message):
    llama_weights.load(tiny.CONFIG, tensors)


def test_a_form_that_there_is_not():
  with pytest.raises(ValueError, match="one of gguf, hugging_face, got 'hf'"):
    llama_weights.load(tiny.CONFIG, {}, "hf")


def test_stacked_layers_and_back():
  same(llama_weights.unstack(llama_weights.stack(PARAMS)), PARAMS)
