"""A tiny GPT-NeoX against that of transformers."""

import jax
import numpy as np
import pytest

from effjax import models, tree
from effjax.models import neox

pytestmark = pytest.mark.peers
TOKENS = np.random.default_rng(0).integers(0, 50, (2, 9)).astype(np.int32)
NAMES = {
  "attention_norm": "input_layernorm",
  "mlp_norm": "post_attention_layernorm",
  "attention/output": "attention.dense",
  "mlp/up": "mlp.dense_h_to_4h",
  "mlp/down": "mlp.dense_4h_to_h",
}
FIELDS = {"scale": "weight", "kernel": "weight", "bias": "bias"}


def tensor(state, path, heads):
  """Return one of our parameters from theirs."""
  fixed = {
    "embed/embedding": "gpt_neox.embed_in.weight",
    "norm/scale": "gpt_neox.final_layer_norm.weight",
    "norm/bias": "gpt_neox.final_layer_norm.bias",
    "head/kernel": "lm_head.weight",
  }
  if path in fixed:
    found = state[fixed[path]].numpy()
    return found.T if path.endswith("kernel") else found
  layer, rest = path.split("/", 1)
  name, field = rest.rsplit("/", 1)
  prefix = f"gpt_neox.layers.{layer.removeprefix('layer_')}."
  kinds = [f"attention/{kind}" for kind in ("query", "key", "value")]
  if name in kinds:
    # Rows of theirs are heads, then query, key and value, then numbers.
    whole = state[f"{prefix}attention.query_key_value.{FIELDS[field]}"].numpy()
    parts = whole.reshape(heads, 3, -1, *whole.shape[1:])
    found = parts[:, kinds.index(name)].reshape(-1, *whole.shape[1:])
  else:
    found = state[f"{prefix}{NAMES[name]}.{FIELDS[field]}"].numpy()
  return found.T if field == "kernel" else found


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_logits_and_keys(torch, share):
  transformers = pytest.importorskip("transformers")
  torch.manual_seed(0)
  peer_config = transformers.GPTNeoXConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=48,
    max_position_embeddings=64,
    hidden_act="gelu",
    use_parallel_residual=True,
    tie_word_embeddings=False,
    initializer_range=0.3,
    rope_parameters={
      "rope_type": "default",
      "rope_theta": 10000.0,
      "partial_rotary_factor": share,
    },
  )
  peer = transformers.GPTNeoXForCausalLM(peer_config).eval()
  with torch.no_grad():
    for name, value in peer.named_parameters():
      if "norm" in name or "bias" in name:
        value += 0.2 * torch.randn(value.shape)
  config = neox.Config(
    vocabulary=50,
    width=32,
    layers=3,
    heads=2,
    hidden=48,
    rotated=int(16 * share),
  )
  module = neox.NeoX(config)
  made = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
  state = peer.state_dict()
  params = jax.tree.map(
    lambda path, _: tensor(state, path, 2),
    tree.names(made),
    made,
  )
  keys = []
  for layer in peer.gpt_neox.layers:
    layer.mlp.dense_4h_to_h.register_forward_pre_hook(
      lambda _, inputs: keys.append(inputs[0].numpy())
    )
  with torch.no_grad():
    expected = peer(torch.from_numpy(TOKENS.astype(int))).logits.numpy()
  logits, inputs = models.capture(module, {})(params, TOKENS)
  np.testing.assert_allclose(logits, expected, atol=2e-4)
  for i, key in enumerate(keys):
    found = inputs[f"layer_{i}/mlp/down/kernel"]
    np.testing.assert_allclose(found, key, atol=2e-4)
