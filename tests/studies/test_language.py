"""Language models by name and from files, and the weights that are kept."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.io import safetensors
from effjax.studies import language
from tests.models import language_models as tiny
from tests.models.test_llama_weights import HUGGING_FACE

PARAMS = tiny.random_params()


@pytest.fixture
def places(tmp_path, monkeypatch):
  monkeypatch.delenv("EFFJAX_DATA", raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path


@pytest.fixture
def weights(places):
  path = places / "tiny.gguf"
  path.write_bytes(tiny.gguf_file(PARAMS))
  return path


def same(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_gguf_file_and_its_kept_weights(places, weights, monkeypatch):
  first = language.load(str(weights))
  same(first.params, PARAMS)
  assert first.module.config.context == 40
  assert first.eos == (0,)
  assert first.tokenizer.chat([]) == "<|assistant|>"
  (kept,) = (places / "cache/effjax/weights").iterdir()
  assert kept.name == f"{first.digest}.llama-1.safetensors"

  def refuse(*args, **options):
    raise AssertionError("the weights are dequantised again")

  monkeypatch.setattr(language.llama_weights, "load", refuse)
  again = language.load(str(weights), dtype=jnp.bfloat16)
  assert again.params["norm"]["scale"].dtype == jnp.bfloat16
  assert again.module.dtype == jnp.bfloat16
  kept.write_bytes(kept.read_bytes()[:-3])
  with pytest.raises(ValueError, match=r"damaged.*delete that file"):
    language.load(str(weights))


def test_nothing_is_kept_unless_it_may(places, weights):
  same(language.load(str(weights), keep=False).params, PARAMS)
  assert not (places / "cache").exists()
  (places / "cache").write_text("in the way")
  with pytest.warns(UserWarning, match="not kept for the next time"):
    same(language.load(str(weights)).params, PARAMS)


def test_a_directory_of_hugging_face(places):
  library = pytest.importorskip("tokenizers")
  folder = places / "model"
  folder.mkdir()
  with pytest.raises(FileNotFoundError, match=r"no file .*config\.json"):
    language.load(str(folder))
  (folder / "config.json").write_text(json.dumps(HUGGING_FACE))
  words = {"a": 0, "b": 1, "</s>": 2}
  backend = library.Tokenizer(library.models.WordLevel(words, "a"))
  (folder / "tokenizer.json").write_text(backend.to_str())
  (folder / "tokenizer_config.json").write_text(
    json.dumps({"bos_token": "a", "eos_token": {"content": "</s>"}})
  )
  (folder / "chat_template.jinja").write_text("{{ eos_token }}!")
  arrays = tiny.stored(PARAMS, "hugging_face")
  safetensors.write(folder / "model.safetensors", arrays)
  found = language.load(str(folder))
  same(found.params, PARAMS)
  assert found.eos == (2,)
  assert found.tokenizer.begin == 0
  assert found.tokenizer.chat([]) == "</s>!"
  (folder / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is no JSON text"):
    language.load(str(folder))


def test_models_that_there_are_not(places):
  with pytest.raises(ValueError, match="did you mean 'smollm2'"):
    language.load("smollm")
  with pytest.raises(FileNotFoundError, match=r"no file absent\.gguf"):
    language.load("absent.gguf")
  with pytest.raises(
    FileNotFoundError, match=r"fetch them with: python -m launch\.fetch smollm2"
  ):
    language.load("smollm2")
  with pytest.raises(FileNotFoundError, match="'minilm' was not found"):
    language.load_encoder()


@pytest.mark.data
@pytest.mark.slow
def test_the_real_encoder():
  from effjax.models import bert

  try:
    encoder = language.load_encoder()
  except FileNotFoundError:
    pytest.skip("The weights are absent: python -m launch.fetch minilm")
  vectors = bert.encode(*encoder, ["A cat sits.", "A cat is sitting.", "Tax"])
  assert vectors[0] @ vectors[1] > 0.8 > 0.3 > vectors[0] @ vectors[2]
