"""The Llama family against a network in NumPy, and its forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models, tree
from effjax.models import attention, llama, llama_weights

CONFIG = llama.Config(
  vocabulary=23,
  width=12,
  layers=2,
  heads=4,
  key_heads=2,
  head_size=6,
  hidden=10,
  context=32,
  rope_base=50.0,
)
MODEL = llama.Llama(CONFIG)
GENERATOR = np.random.default_rng(0)
TOKENS = GENERATOR.integers(0, CONFIG.vocabulary, (2, 7)).astype(np.int32)


def random_params(config=CONFIG, seed=0):
  """Return random parameters, large enough that every layer matters."""
  module = llama.Llama(config)
  made = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
  generator = np.random.default_rng(seed)

  def draw(path, leaf):
    normal = generator.normal(size=leaf.shape)
    if path.endswith("scale"):
      return np.float32(1 + 0.2 * normal)
    return np.float32(normal / leaf.shape[0] ** 0.5)

  return jax.tree.map(draw, tree.names(made), made)


PARAMS = random_params()


@functools.partial(jax.jit, static_argnums=0)
def run(module, params, *args, **options):
  """Apply a model as a compiled program."""
  return module.apply({"params": params}, *args, **options)


@functools.partial(jax.jit, static_argnums=(0, 5))
def read(module, params, tokens, positions, cache, empty):
  """Read tokens after those of a cache; returns logits and the cache."""
  variables = {"params": params}
  hidden, cache = module.apply(
    variables, tokens, positions, cache, empty=empty, method="extend"
  )
  return module.apply(variables, hidden, method="logits"), cache


class Network:
  """The same network in float64, text by text and head by head."""

  def __init__(self, params, config=CONFIG):
    self.params = jax.tree.map(lambda x: np.asarray(x, float), params)
    self.config = config

  def norm(self, x, name):
    mean = np.mean(x**2, axis=1, keepdims=True)
    return x / np.sqrt(mean + self.config.epsilon) * self.at(name)

  def at(self, path):
    found = self.params
    for key in path.split("/"):
      found = found[key]
    return found

  def rotate(self, x):
    size = self.config.head_size
    y = np.zeros_like(x)
    for position, i in np.ndindex(len(x), size // 2):
      angle = position * self.config.rope_base ** (-2 * i / size)
      a, b = x[position, i], x[position, i + size // 2]
      y[position, i] = a * np.cos(angle) - b * np.sin(angle)
      y[position, i + size // 2] = b * np.cos(angle) + a * np.sin(angle)
    return y

  def attend(self, x, name):
    c = self.config
    heads = []
    for head in range(c.heads):
      group = head * c.key_heads // c.heads
      part = lambda kind, h: (
        x
        @ self.at(f"{name}/{kind}/kernel")[:, h * c.head_size :][
          :, : c.head_size
        ]
      )
      query = self.rotate(part("query", head))
      key = self.rotate(part("key", group))
      scores = query @ key.T / np.sqrt(c.head_size)
      scores[np.triu_indices(len(x), 1)] = -np.inf
      weights = np.exp(scores - scores.max(1, keepdims=True))
      weights /= weights.sum(1, keepdims=True)
      heads.append(weights @ part("value", group))
    return np.concatenate(heads, 1) @ self.at(f"{name}/output/kernel")

  def __call__(self, tokens):
    x = self.at("embed/embedding")[tokens]
    for i in range(self.config.layers):
      name = f"layer_{i}"
      x = x + self.attend(
        self.norm(x, f"{name}/attention_norm/scale"), f"{name}/attention"
      )
      y = self.norm(x, f"{name}/mlp_norm/scale")
      gate = y @ self.at(f"{name}/mlp/gate/kernel")
      up = y @ self.at(f"{name}/mlp/up/kernel")
      y = gate / (1 + np.exp(-gate)) * up
      x = x + y @ self.at(f"{name}/mlp/down/kernel")
    x = self.norm(x, "norm/scale")
    if self.config.tied:
      return x @ self.at("embed/embedding").T
    return x @ self.at("head/kernel")


def near(found, expected, tolerance=2e-5):
  np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_logits():
  found = run(MODEL, PARAMS, TOKENS)
  assert found.dtype == jnp.float32
  network = Network(PARAMS)
  near(found, np.stack([network(row) for row in TOKENS]))


def test_names_of_parameters_are_public():
  made = jax.eval_shape(MODEL.init, jax.random.key(0), TOKENS)["params"]
  shapes = dict(
    zip(
      jax.tree.leaves(tree.names(made)),
      (leaf.shape for leaf in jax.tree.leaves(made)),
      strict=True,
    )
  )
  block = {
    "attention/query/kernel": (12, 24),
    "attention/key/kernel": (12, 12),
    "attention/value/kernel": (12, 12),
    "attention/output/kernel": (24, 12),
    "attention_norm/scale": (12,),
    "mlp/gate/kernel": (12, 10),
    "mlp/up/kernel": (12, 10),
    "mlp/down/kernel": (10, 12),
    "mlp_norm/scale": (12,),
  }
  expected = {"embed/embedding": (23, 12), "norm/scale": (12,)}
  for i in range(2):
    expected |= {f"layer_{i}/{k}": shape for k, shape in block.items()}
  assert shapes == expected


def test_an_output_layer_of_its_own():
  config = dataclasses.replace(CONFIG, tied=False, layers=1)
  params = random_params(config, seed=1)
  assert params["head"]["kernel"].shape == (12, 23)
  found = run(llama.Llama(config), params, TOKENS[:1])
  near(found[0], Network(params, config)(TOKENS[0]))


def test_texts_that_share_a_row_do_not_see_each_other():
  row = np.concatenate([TOKENS[0, :4], TOKENS[1], [0, 0]])[None]
  segments = np.array([[1] * 4 + [2] * 7 + [0] * 2])
  found = run(MODEL, PARAMS, row, None, segments)[0]
  network = Network(PARAMS)
  near(found[:4], network(TOKENS[0, :4]))
  near(found[4:11], network(TOKENS[1]))
  assert np.isfinite(found).all()


def test_positions_matter_by_their_differences():
  shifted = np.arange(5, 12, dtype=np.int32)[None]
  found = run(MODEL, PARAMS, TOKENS, shifted)
  near(found, run(MODEL, PARAMS, TOKENS), 1e-4)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_reading_piece_by_piece(scan_layers):
  """Pieces of several lengths, padded before and behind, in a larger cache."""
  module = MODEL.clone(scan_layers=scan_layers)
  params = llama_weights.stack(PARAMS) if scan_layers else PARAMS
  cache = llama.make_cache(CONFIG, 2, 16, scan_layers=scan_layers)
  pieces = [
    (TOKENS[:, :3], [0, 1, 2, -1]),
    (TOKENS[:, 3:5], [3, 4, -1, -1]),
    (TOKENS[:, 5:], [-1, 5, 6, -1]),
  ]
  found = []
  for number, (tokens, positions) in enumerate(pieces):
    positions = np.broadcast_to(np.array(positions, np.int32), (2, 4))
    there = positions[0] >= 0
    padded = np.zeros((2, 4), np.int32)
    padded[:, there] = tokens
    logits, cache = read(module, params, padded, positions, cache, number == 0)
    found.append(logits[:, there])
  near(jnp.concatenate(found, axis=1), run(MODEL, PARAMS, TOKENS))
  assert int(cache.used) == 12
  held = [0, 1, 2, -1, 3, 4, -1, -1, -1, 5, 6, *[-1] * 5]
  assert cache.positions[1].tolist() == held


def test_scanned_and_recomputed_layers():
  """The same logits and gradients as by separate layers."""
  module = MODEL.clone(scan_layers=True, remat=True)
  weights = GENERATOR.normal(size=(2, 7, 23)).astype(np.float32)
  total = lambda module: jax.jit(
    jax.value_and_grad(
      lambda params: jnp.sum(run(module, params, TOKENS) * weights)
    )
  )
  value, gradient = total(MODEL)(PARAMS)
  stacked = llama_weights.stack(PARAMS)
  found, found_gradient = total(module)(stacked)
  near(found, value, 1e-4)
  jax.tree.map(
    lambda a, b: near(a, b, 1e-4),
    llama_weights.unstack(found_gradient),
    gradient,
  )
  made = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
  assert tree.names(made) == tree.names(stacked)


def test_fused_kernels():
  module, params = llama_weights.fuse(MODEL, PARAMS)
  assert params["layer_0"]["attention"]["query_key_value"]["kernel"].shape == (
    12,
    48,
  )
  near(run(module, params, TOKENS), run(MODEL, PARAMS, TOKENS))
  made = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
  assert tree.names(made) == tree.names(params)
  with pytest.raises(ValueError, match="neither scanned nor fused"):
    llama_weights.fuse(module, params)
  part = {"layer_0/mlp/up/kernel": (jnp.ones((12, 1)), jnp.ones((1, 10)))}
  with pytest.raises(ValueError, match="has fused kernels"):
    run(module, params, TOKENS, parts=part)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_low_rank_parts_are_as_merged_kernels(scan_layers):
  merged = jax.tree.map(np.array, PARAMS)
  parts = {}
  for kind, inner in (("attention", "query"), ("mlp", "down")):
    for i in range(2):
      kernel = merged[f"layer_{i}"][kind][inner]["kernel"]
      a = GENERATOR.normal(size=(len(kernel), 2)).astype(np.float32)
      b = GENERATOR.normal(size=(2, kernel.shape[1])).astype(np.float32)
      kernel += a @ b
      parts[f"layer_{i}/{kind}/{inner}/kernel"] = (a, b)
  module, params = MODEL, PARAMS
  if scan_layers:
    module, params = MODEL.clone(scan_layers=True), llama_weights.stack(PARAMS)
    parts = {
      f"layers/{rest}/kernel": jax.tree.map(
        lambda *x: jnp.stack(x),
        *(parts[f"layer_{i}/{rest}/kernel"] for i in range(2)),
      )
      for rest in ("attention/query", "mlp/down")
    }
  found = run(module, params, TOKENS, parts=parts)
  near(found, run(MODEL, merged, TOKENS), 1e-4)


def test_a_function_applies_the_kernels_that_have_parts():
  seen = []

  def double(x, kernel, part):
    seen.append(part)
    return part * (x @ kernel)

  module = MODEL.clone(apply_part=double)
  factor = jnp.float32(2)
  found = run(module, PARAMS, TOKENS, parts={"layer_1/mlp/down/kernel": factor})
  params = jax.tree.map(np.array, PARAMS)
  params["layer_1"]["mlp"]["down"]["kernel"] *= 2
  near(found, run(MODEL, params, TOKENS))
  assert len(seen) == 1
  with pytest.raises(
    ValueError, match=r"no kernel of this model.*layer_1/mlp/down/kernel"
  ):
    run(module, PARAMS, TOKENS, parts={"layer_1/mlp/donw": factor})


def test_inputs_of_layers_are_captured():
  capture = models.capture(MODEL, {"params": PARAMS})
  logits, inputs = jax.jit(capture)(PARAMS, TOKENS)
  assert logits.shape == (2, 7, 23)
  assert len(inputs) == 14
  x = inputs["layer_1/mlp/down/kernel"]
  assert x.shape == (2, 7, 10)
  assert capture.layers(PARAMS, TOKENS)["layer_0/mlp/up/kernel"].axes == (0, 1)


def test_half_the_bits():
  module = llama.Llama(CONFIG, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
  found = run(module, params, TOKENS[:1])
  assert found.dtype == jnp.float32
  near(found[0], Network(params)(TOKENS[0]), 0.1)
  cache = llama.make_cache(CONFIG, 1, 16, dtype=jnp.bfloat16)
  positions = np.arange(7, dtype=np.int32)[None]
  logits, cache = read(module, params, TOKENS[:1], positions, cache, True)
  near(logits, found, 0.1)
  assert cache.keys[0].dtype == jnp.bfloat16


def test_implementations_of_attention_agree():
  draw = lambda *shape: jnp.asarray(GENERATOR.normal(size=shape), jnp.float32)
  query, key, value = draw(2, 5, 4, 8), draw(2, 5, 2, 8), draw(2, 5, 2, 8)
  segments = jnp.array([[1, 1, 2, 2, 2], [3, 3, 3, 3, 3]])
  for mask in (None, attention.same_segment(segments)):
    attend = jax.jit(
      lambda name, mask=mask: attention.attend(
        query, key, value, None, attention.Shared((), mask, None, None, name)
      )[0],
      static_argnums=0,
    )
    found = [attend(name) for name in ("rows", "xla")]
    assert found[0].shape == (2, 5, 32)
    near(found[0], found[1])
  shared = attention.Shared((), None, None, None, "row")
  with pytest.raises(ValueError, match="one of auto, rows, xla, cudnn"):
    attention.attend(query, key, value, None, shared)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
    ({"key_heads": 3}, "heads must be a multiple of key_heads"),
    ({"head_size": 5}, "head_size even, got 4, 2 and 5"),
  ],
)
def test_sizes_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **change)
