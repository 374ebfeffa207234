"""The GPT-NeoX family against a network in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters, models, tree
from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.models import neox, neox_layers
from effjax.training import language

CONFIG = neox.Config(
  vocabulary=23,
  width=12,
  layers=2,
  heads=2,
  hidden=20,
  rotated=4,
  rope_base=50.0,
  epsilon=1e-3,
)
MODEL = neox.NeoX(CONFIG, apply_part=adapters.dense)
TOY = neox.toy(23, width=8, layers=1, context=9)
GENERATOR = np.random.default_rng(0)
TOKENS = GENERATOR.integers(0, CONFIG.vocabulary, (2, 7)).astype(np.int32)


def random_params(config, seed=0):
  """Return random parameters, large enough that every layer matters."""
  module = neox.NeoX(config)
  made = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
  generator = np.random.default_rng(seed)

  def draw(path, leaf):
    normal = generator.normal(size=leaf.shape)
    if path.endswith("scale"):
      return np.float32(1 + 0.2 * normal)
    wide = leaf.shape[0] if path.endswith("kernel") else 4
    return np.float32(normal / wide**0.5)

  return jax.tree.map(draw, tree.names(made), made)


PARAMS = random_params(CONFIG)


@functools.partial(jax.jit, static_argnums=0)
def run(module, params, *args, **options):
  """Apply a model as a compiled program."""
  return module.apply({"params": params}, *args, **options)


class Network:
  """The same network in float64, text by text and head by head."""

  def __init__(self, params, config):
    self.params = jax.tree.map(lambda x: np.asarray(x, float), params)
    self.config = config
    self.keys = []  # inputs of the last kernel of each MLP

  def at(self, path):
    found = self.params
    for key in path.split("/"):
      found = found[key]
    return found

  def norm(self, x, name):
    x = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt(
      (x**2).mean(axis=1, keepdims=True) + self.config.epsilon
    )
    return x / deviation * self.at(f"{name}/scale") + self.at(f"{name}/bias")

  def dense(self, x, name):
    return x @ self.at(f"{name}/kernel") + self.at(f"{name}/bias")

  def rotate(self, x):
    size, y = self.config.rotated, x.copy()
    for position, i in np.ndindex(len(x), size // 2):
      angle = position * self.config.rope_base ** (-2 * i / size)
      a, b = x[position, i], x[position, i + size // 2]
      y[position, i] = a * np.cos(angle) - b * np.sin(angle)
      y[position, i + size // 2] = b * np.cos(angle) + a * np.sin(angle)
    return y

  def attend(self, x, name):
    size, heads = self.config.head_size, []
    query, key, value = (
      self.dense(x, f"{name}/{kind}") for kind in ("query", "key", "value")
    )
    for head in range(self.config.heads):
      part = slice(head * size, (head + 1) * size)
      scores = self.rotate(query[:, part]) @ self.rotate(key[:, part]).T
      scores = scores / np.sqrt(size)
      scores[np.triu_indices(len(x), 1)] = -np.inf
      weights = np.exp(scores - scores.max(1, keepdims=True))
      weights /= weights.sum(1, keepdims=True)
      heads.append(weights @ value[:, part])
    return self.dense(np.concatenate(heads, 1), f"{name}/output")

  def __call__(self, tokens, shifts=()):
    x = self.at("embed/embedding")[tokens]
    if self.config.learned_positions:
      x = x + self.at("positions/embedding")[: len(tokens)]
    for i in range(self.config.layers):
      name = f"layer_{i}"
      y = self.attend(
        self.norm(x, f"{name}/attention_norm"), f"{name}/attention"
      )
      z = self.dense(self.norm(x, f"{name}/mlp_norm"), f"{name}/mlp/up")
      z = z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
      self.keys.append(z)
      x = x + y + self.dense(z, f"{name}/mlp/down") + dict(shifts).get(i, 0)
    return self.norm(x, "norm") @ self.at("head/kernel")


def near(found, expected, tolerance=3e-5):
  np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_logits_keys_and_shifts():
  shift = GENERATOR.normal(size=(2, 7, 12)).astype(np.float32)

  @jax.jit
  def both(params, shift):
    capture = models.capture(MODEL, {})
    logits, inputs = capture(params, TOKENS)
    shifted = MODEL.apply(
      {"params": params}, TOKENS, shifts={"layer_1/mlp": shift}
    )
    return logits, inputs, shifted

  logits, inputs, shifted = both(PARAMS, shift)
  assert logits.dtype == jnp.float32
  networks = [Network(PARAMS, CONFIG) for _ in TOKENS]
  near(
    logits, np.stack([f(row) for f, row in zip(networks, TOKENS, strict=True)])
  )
  for layer in range(2):
    keys = np.stack([network.keys[layer] for network in networks])
    near(inputs[f"layer_{layer}/mlp/down/kernel"], keys)
  assert len(inputs) == 13
  moved = [
    Network(PARAMS, CONFIG)(row, [(1, more)])
    for row, more in zip(TOKENS, shift, strict=True)
  ]
  near(shifted, np.stack(moved))


def test_learnt_positions_and_texts_that_share_a_row():
  params = random_params(TOY, seed=1)
  network = Network(params, TOY)
  network.rotate = lambda x: x
  row = np.concatenate([TOKENS[0, :4], TOKENS[1, :5], [0, 0]])[None]
  segments = np.array([[1] * 4 + [2] * 5 + [0] * 2])
  positions = np.array([[*range(4), *range(5), 0, 0]], np.int32)
  found = run(neox.NeoX(TOY), params, row, positions, segments)[0]
  near(found[:4], network(TOKENS[0, :4]))
  near(found[4:9], network(TOKENS[1, :5]))
  assert np.isfinite(found).all()


def test_names_of_parameters_are_public():
  made = jax.eval_shape(neox.NeoX(TOY).init, jax.random.key(0), TOKENS)
  names = jax.tree.leaves(tree.names(made["params"]))
  shapes = [leaf.shape for leaf in jax.tree.leaves(made["params"])]
  expected = {
    "embed/embedding": (23, 8),
    "positions/embedding": (9, 8),
    "head/kernel": (8, 23),
  }
  for path, count, size in (
    ("attention/query", 8, 8),
    ("attention/key", 8, 8),
    ("attention/value", 8, 8),
    ("attention/output", 8, 8),
    ("mlp/up", 8, 32),
    ("mlp/down", 32, 8),
  ):
    expected[f"layer_0/{path}/kernel"] = (count, size)
    expected[f"layer_0/{path}/bias"] = (size,)
  for path in ("layer_0/attention_norm", "layer_0/mlp_norm", "norm"):
    expected |= {f"{path}/scale": (8,), f"{path}/bias": (8,)}
  assert dict(zip(names, shapes, strict=True)) == expected


def count_of_blocks(config):
  made = jax.eval_shape(neox.NeoX(config).init, jax.random.key(0), TOKENS)
  params = made["params"]
  blocks = [v for k, v in params.items() if k.startswith("layer")]
  return sum(leaf.size for leaf in jax.tree.leaves(blocks))


def test_sizes_of_pythia():
  config = neox.pythia_31m(2000)
  assert count_of_blocks(config) == config.block_parameters == 4_738_560
  assert (config.head_size, config.rotated, config.context) == (32, 8, 1024)
  assert count_of_blocks(CONFIG) == CONFIG.block_parameters


def test_kernels_begin_small():
  options = neox_layers.Options(
    neox.toy(5, width=48, layers=3), jnp.float32, jnp.float32, None
  )
  init = jax.jit(neox_layers.MLP(options).init)
  made = init(jax.random.key(0), jnp.zeros((1, 2, 48)), {})["params"]
  deviation = lambda name: float(np.std(made[name]["kernel"]))
  assert deviation("up") == pytest.approx(0.02, rel=0.05)
  assert deviation("down") == pytest.approx(0.02 / 6**0.5, rel=0.05)
  assert not made["up"]["bias"].any()


def test_adapters_and_losses_of_language_models():
  """What fine-tunes Llama fine-tunes these too."""
  adapter = adapters.lora(2, where=r"layer.*(query|down)/kernel")
  arm = language.adapted(adapter)
  theta, frozen = arm.init(jax.random.key(0), PARAMS)
  theta = jax.tree.map(lambda x: x + 0.1, theta)
  examples = [Example(row, 2) for row in TOKENS]
  batch = packing.packed(examples, 1, 14, seed=0)[0]

  @jax.jit
  def loss(theta, frozen):
    params, parts = arm.model(theta, frozen, None)
    value = language.mean_loss(
      MODEL, params, batch, parts=parts, train_head=False
    )
    return value, arm.merge(theta, frozen)

  factored, merged = loss(theta, frozen)
  network = Network(merged, CONFIG)
  expected = []
  for row in TOKENS:
    z = network(row)[1:-1]
    z = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    expected += [-z[i, token] for i, token in enumerate(row[2:])]
  near(factored, np.mean(expected))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"parts": {"layer_0/mlp/up": None}}, "nearest are layer_0/mlp/up/kernel"),
    ({"shifts": {"layer_1/mpl": None}}, "nearest are layer_1/mlp"),
  ],
)
def test_names_that_the_model_has_not(options, message):
  with pytest.raises(ValueError, match=message):
    MODEL.apply({"params": PARAMS}, TOKENS, **options)


def test_texts_longer_than_learnt_positions():
  with pytest.raises(ValueError, match="of 10 tokens are longer than the 9"):
    neox.NeoX(TOY).apply({}, jnp.zeros((1, 10), jnp.int32))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
    ({"heads": 3}, "heads must divide width, got 3 and 64"),
    ({"rotated": 3}, "rotated must be even and from 0 to 16"),
    ({"rotated": 18}, "from 0 to 16, the size of a head, got 18"),
  ],
)
def test_sizes_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    neox.toy(9, **change)
