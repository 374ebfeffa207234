"""Encoders of sentences against a network in NumPy, and golden values."""

import json
import math
import pathlib

import numpy as np
import pytest

from effjax import data
from effjax.models import bert, tokenizers

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "personalization"
CONFIG = {
  "model_type": "bert",
  "hidden_act": "gelu",
  "vocab_size": 9,
  "hidden_size": 8,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 6,
  "max_position_embeddings": 40,
  "type_vocab_size": 2,
  "layer_norm_eps": 1e-5,
}
GENERATOR = np.random.default_rng(0)


def tensors():
  """Return random weights under the names of the stored file."""
  found = {}

  def draw(name, *shape):
    found[name] = np.float32(GENERATOR.normal(size=shape))

  def norm(name):
    draw(f"{name}.LayerNorm.weight", 8)
    draw(f"{name}.LayerNorm.bias", 8)

  for name, rows in (("word", 9), ("position", 40), ("token_type", 2)):
    draw(f"embeddings.{name}_embeddings.weight", rows, 8)
  norm("embeddings")
  for i in range(2):
    layer = f"encoder.layer.{i}"
    shapes = {
      "attention.self.query": (8, 8),
      "attention.self.key": (8, 8),
      "attention.self.value": (8, 8),
      "attention.output.dense": (8, 8),
      "intermediate.dense": (6, 8),
      "output.dense": (8, 6),
    }
    for name, shape in shapes.items():
      draw(f"{layer}.{name}.weight", *shape)
      draw(f"{layer}.{name}.bias", shape[0])
    norm(f"{layer}.attention.output")
    norm(f"{layer}.output")
  found["pooler.dense.weight"] = np.zeros((8, 8), np.float32)
  found["embeddings.position_ids"] = np.arange(40)
  return found


STATE = tensors()


def brute(tokens):
  """Return the vector of one text in float64."""
  get = lambda name: np.asarray(STATE[name], float)
  dense = lambda x, name: x @ get(f"{name}.weight").T + get(f"{name}.bias")

  def norm(x, name):
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return x * get(f"{name}.LayerNorm.weight") + get(f"{name}.LayerNorm.bias")

  embed = lambda name: get(f"embeddings.{name}_embeddings.weight")
  x = embed("word")[tokens] + embed("position")[: len(tokens)]
  x = norm(x + embed("token_type")[0], "embeddings")
  for i in range(2):
    layer, heads = f"encoder.layer.{i}", []
    for head in range(2):
      query, key, value = (
        dense(x, f"{layer}.attention.self.{kind}")[:, 4 * head : 4 * head + 4]
        for kind in ("query", "key", "value")
      )
      scores = np.exp(query @ key.T / 2)
      heads.append(scores / scores.sum(1, keepdims=True) @ value)
    y = dense(np.concatenate(heads, 1), f"{layer}.attention.output.dense")
    x = norm(x + y, f"{layer}.attention.output")
    y = dense(x, f"{layer}.intermediate.dense")
    y = y * (1 + np.vectorize(math.erf)(y / 2**0.5)) / 2
    x = norm(x + dense(y, f"{layer}.output.dense"), f"{layer}.output")
  mean = x.mean(0)
  return mean / np.linalg.norm(mean)


class Letters:
  """Stands for a tokenizer: a is 1, b is 2, and so on."""

  def encode(self, text, framed=False):
    return [ord(letter) - ord("a") + 1 for letter in text]


def test_vectors_do_not_depend_on_order_and_padding():
  module, params = bert.load(CONFIG, STATE)
  texts = ["abcde", "h", "gfabgh", "ba"]
  found = bert.encode(module, params, Letters(), texts, batch=3)
  expected = np.stack([brute(Letters().encode(text)) for text in texts])
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert found.dtype == np.float32
  with pytest.raises(ValueError, match=r"Text 1 has 41 tokens.*at most 40"):
    bert.encode(module, params, Letters(), ["a", "a" * 41])
  assert bert.encode(module, params, Letters(), []).shape == (0, 8)


@pytest.mark.parametrize(
  ("config", "change", "message"),
  [
    ({"model_type": "roberta"}, {}, "model_type 'roberta', expected 'bert'"),
    ({"hidden_act": "relu"}, {}, "hidden_act 'relu', expected 'gelu'"),
    ({}, {"cls.bias": 0}, "have 'cls.bias', for which"),
    ({}, {"encoder.layer.1.output.dense.bias": None}, "lack 'encoder.layer.1"),
    ({"vocab_size": 10}, {}, r"the shape \[9, 8\], which does not fit \[10, 8"),
  ],
)
def test_other_models_are_refused(config, change, message):
  state = {k: v for k, v in (STATE | change).items() if v is not None}
  with pytest.raises(ValueError, match=message):
    bert.load({**CONFIG, **config}, state)


def test_an_incomplete_configuration():
  short = {k: v for k, v in CONFIG.items() if k != "vocab_size"}
  with pytest.raises(ValueError, match="lacks 'vocab_size'"):
    bert.load(short, STATE)


@pytest.mark.data
@pytest.mark.slow
def test_golden_vectors_of_minilm():
  safetensors = pytest.importorskip("safetensors.numpy")
  try:
    found = data.source("minilm", "all").arrays
  except FileNotFoundError:
    pytest.skip("The weights are absent: python -m launch.fetch minilm")
  contents = dict(zip(found["files"], found["contents"], strict=True))
  config = json.loads(contents["config.json"])
  assert config == json.loads((GOLDEN / "minilm_config.json").read_text())
  module, params = bert.load(
    config, safetensors.load(contents["model.safetensors"])
  )
  made = tokenizers.from_json(contents["tokenizer.json"], length=bert.LENGTH)
  with np.load(GOLDEN / "minilm.npz") as stored:
    golden = dict(stored)
  sentences = [str(text) for text in golden["sentences"]]
  for i, text in enumerate(sentences):
    assert made.encode(text, framed=True) == golden[f"ids{i}"].tolist()
  vectors = bert.encode(module, params, made, sentences)
  np.testing.assert_allclose(vectors, golden["embeddings"], atol=1e-5)
  np.testing.assert_allclose(vectors @ vectors.T, golden["cos"], atol=1e-5)
