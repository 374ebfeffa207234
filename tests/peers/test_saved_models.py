"""Models that are merged and saved here are read by transformers."""

import jax.numpy as jnp
import numpy as np
import pytest

from effjax.studies import language
from tests.models import language_models as tiny

pytestmark = pytest.mark.peers


def test_transformers_reads_a_saved_model(tmp_path, monkeypatch):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  path = tmp_path / "tiny.gguf"
  path.write_bytes(tiny.gguf_file(tiny.random_params()))
  model = language.load(str(path))
  folder = language.save(tmp_path / "saved", model)
  text = "<|user|>hello to it 17<|end|>"
  tokens = model.tokenizer.encode(text)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  assert tokenizer(text)["input_ids"] == tokens
  messages = [{"role": "user", "content": "hello"}]
  assert tokenizer.apply_chat_template(
    messages, tokenize=False, add_generation_prompt=True
  ) == model.tokenizer.chat(messages)
  assert tokenizer.eos_token_id == model.tokenizer.end
  read = transformers.AutoModelForCausalLM.from_pretrained(folder)
  with torch.no_grad():
    theirs = read(torch.tensor([tokens])).logits.numpy()
  ours = model.module.apply(
    {"params": model.params}, jnp.asarray([tokens], jnp.int32)
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-4)
