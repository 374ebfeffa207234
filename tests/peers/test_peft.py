"""Adapters through the files of peft: written here and read there, and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters
from effjax.io import peft as files
from effjax.models import llama, llama_weights

pytestmark = pytest.mark.peers
# What torch and peft warn about has nothing to do with the values.
quiet = pytest.mark.filterwarnings("ignore")

CONFIG = llama.Config(
  vocabulary=32,
  width=16,
  layers=2,
  heads=4,
  key_heads=2,
  head_size=4,
  hidden=24,
  tied=False,
)
TOKENS = np.random.default_rng(0).integers(0, 32, (2, 7))
WHERE = ".*(attention|mlp)/.*kernel"


@pytest.fixture(scope="module")
def peft(torch):
  return pytest.importorskip("peft", reason="peft is not installed")


@pytest.fixture(scope="module")
def base(torch):
  """The same random model in transformers and here."""
  transformers = pytest.importorskip("transformers")
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=32,
      hidden_size=16,
      num_hidden_layers=2,
      num_attention_heads=4,
      num_key_value_heads=2,
      intermediate_size=24,
      max_position_embeddings=64,
      tie_word_embeddings=False,
      rms_norm_eps=CONFIG.epsilon,
    )
  ).eval()
  with torch.no_grad():
    for weight in model.parameters():
      weight.mul_(5)  # or the outputs hardly differ
  state = {k: v.numpy() for k, v in model.state_dict().items()}
  shapes = jax.eval_shape(
    llama.Llama(CONFIG).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32)
  )["params"]

  def value(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    found = state[llama_weights.stored_name(name)]
    found = found.T if name.endswith("kernel") else found
    assert found.shape == leaf.shape
    return jnp.asarray(found)

  return model, jax.tree_util.tree_map_with_path(value, shapes)


def logits(params, parts=None):
  model = llama.Llama(CONFIG, apply_part=adapters.dense)
  return model.apply(
    {"params": params}, jnp.asarray(TOKENS, jnp.int32), parts=parts
  )


def their_logits(torch, model):
  with torch.no_grad():
    return model(torch.from_numpy(TOKENS)).logits.numpy()


def moved(theta):
  rng = np.random.default_rng(1)
  return {
    key: x + jnp.asarray(rng.normal(size=x.shape) * 0.2, x.dtype)
    for key, x in theta.items()
  }


def close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


ADAPTERS = {
  "lora": (adapters.lora(3, alpha=6, where=WHERE), {}),
  "patterns": (
    adapters.lora(
      [("layer_1/.*query.*", 5), (".*down.*", None), (".*", 3)],
      alpha=[(".*query.*", 7), (".*", 2.5)],
      where=WHERE,
    ),
    {},
  ),
  "rslora": (
    adapters.lora(4, alpha=6, where=WHERE, rank_stabilized=True),
    {"use_rslora": True},
  ),
  "pissa": (
    adapters.lora(3, alpha=6, where=WHERE, initial="pissa"),
    {},
  ),
  "dora": (adapters.dora(3, alpha=6, where=WHERE), {}),
  "embedding": (adapters.lora(3, where="embed/embedding|head/kernel"), {}),
}


@quiet
@pytest.mark.parametrize("name", ADAPTERS)
def test_what_we_write_is_read_there(name, torch, peft, base, tmp_path):
  model, params = base
  adapter, config = ADAPTERS[name]
  theta, fixed = adapter.init(jax.random.key(0), params)
  theta = moved(theta)
  merged = logits(adapter.merge(params, theta, fixed))
  assert np.max(np.abs(merged - logits(params))) > 0.1
  if name != "embedding":
    parts = adapters.parts(adapter, params, theta, fixed)
    close(logits(params, parts), merged)
  files.save_peft(
    tmp_path / "adapter",
    adapter,
    params,
    theta,
    fixed,
    names=llama_weights.stored_name,
    config=config,
  )
  theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
  try:
    close(merged, their_logits(torch, theirs))
    theirs.save_pretrained(tmp_path / "again")
  finally:
    theirs.unload()
  loaded = files.load_peft(
    tmp_path / "again", params, names=llama_weights.stored_name
  )
  close(logits(loaded.adapter.merge(params, *loaded[1:3])), merged)
  if name != "pissa":
    assert loaded.theta.keys() == theta.keys()
    for key, x in theta.items():
      np.testing.assert_array_equal(loaded.theta[key], x)


@quiet
@pytest.mark.parametrize("dora", [False, True])
def test_what_they_write_is_read_here(dora, torch, peft, base, tmp_path):
  model, params = base
  config = peft.LoraConfig(
    r=4,
    lora_alpha=6,
    target_modules="all-linear",
    rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 3},
    alpha_pattern={"k_proj": 11, ".*up_proj": 3},
    use_dora=dora,
    use_rslora=not dora,
    task_type="CAUSAL_LM",
  )
  theirs = peft.get_peft_model(model, config)
  try:
    torch.manual_seed(1)
    with torch.no_grad():
      for name, weight in theirs.named_parameters():
        if "lora" in name:
          weight.add_(torch.randn_like(weight) * 0.2)
    expected = their_logits(torch, theirs)
    theirs.save_pretrained(tmp_path / "theirs")
  finally:
    theirs.unload()
  names = llama_weights.stored_name
  loaded = files.load_peft(tmp_path / "theirs", params, names=names)
  adapter, theta, fixed, fields = loaded
  close(logits(adapter.merge(params, theta, fixed)), expected)
  parts = adapters.parts(adapter, params, theta, fixed)
  close(logits(params, parts), expected)
  files.save_peft(
    tmp_path / "ours",
    adapter,
    params,
    theta,
    fixed,
    names=names,
    config=fields,
  )
  ours = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
  assert fields.keys() <= ours.keys()
  again = peft.PeftModel.from_pretrained(model, tmp_path / "ours")
  try:
    np.testing.assert_allclose(
      their_logits(torch, again), expected, rtol=1e-6, atol=1e-6
    )
  finally:
    again.unload()
