"""A tiny Llama and its sampling against those of transformers."""

import json

import numpy as np
import pytest

from effjax.io import safetensors
from effjax.models import generation, llama, llama_weights, sampling

pytestmark = pytest.mark.peers
TOKENS = np.random.default_rng(0).integers(3, 50, (2, 9))


@pytest.fixture(scope="module")
def transformers(torch):
  return pytest.importorskip("transformers", reason="transformers is absent")


def build(torch, transformers, **changes):
  sizes = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 5000.0,
    "initializer_range": 0.3,
    **changes,
  }
  torch.manual_seed(0)
  config = transformers.LlamaConfig(**sizes)
  return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(
  "changes",
  [
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False, "head_dim": 6, "num_key_value_heads": 4},
  ],
)
def test_logits_and_greedy_tokens(torch, transformers, tmp_path, changes):
  peer = build(torch, transformers, **changes)
  peer.save_pretrained(tmp_path)
  stored = json.loads((tmp_path / "config.json").read_text())
  config = llama_weights.hugging_face_config(stored)
  params = llama_weights.load(
    config, safetensors.read(tmp_path / "model.safetensors")
  )
  module = llama.Llama(config)
  with torch.no_grad():
    expected = peer(torch.from_numpy(TOKENS)).logits.numpy()
    greedy = peer.generate(
      torch.from_numpy(TOKENS[:1]),
      max_new_tokens=12,
      do_sample=False,
      eos_token_id=None,
      pad_token_id=0,
      repetition_penalty=1.3,
    )[0, 9:]
  found = module.apply({"params": params}, np.int32(TOKENS))
  np.testing.assert_allclose(found, expected, atol=1e-4)
  (made,) = generation.generate(
    None,
    module,
    params,
    TOKENS[:1].tolist(),
    max_tokens=12,
    sampling=sampling.Sampling(repetition_penalty=1.3),
  )
  assert list(made.tokens) == greedy.tolist()


@pytest.mark.parametrize(
  ("top_k", "top_p"), [(5, None), (None, 0.6), (7, 0.8), (1, 0.5)]
)
def test_tokens_that_may_be_drawn(torch, transformers, top_k, top_p):
  processors = transformers.generation.logits_process
  logits = np.random.default_rng(1).normal(size=(4, 30)).astype(np.float32)
  expected = torch.from_numpy(logits.copy())
  if top_k is not None:
    expected = processors.TopKLogitsWarper(top_k)(None, expected)
  if top_p is not None:
    expected = processors.TopPLogitsWarper(top_p)(None, expected)
  found, tokens = sampling.candidates(logits, top_k=top_k, top_p=top_p)
  dense = np.full(logits.shape, -np.inf, np.float32)
  np.put_along_axis(dense, np.asarray(tokens), np.asarray(found), 1)
  np.testing.assert_array_equal(dense, expected.numpy())
