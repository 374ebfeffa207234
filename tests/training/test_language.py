"""Fine-tuning: the loss is that of full logits, and every arm learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import adapters, training
from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.models import llama, llama_layers
from effjax.training import language

CONFIG = llama_layers.Config(
  vocabulary=29,
  width=16,
  layers=2,
  heads=4,
  key_heads=2,
  head_size=4,
  hidden=24,
)
SLOW = pytest.mark.slow
KERNELS = r"layer_\d/mlp/(up|down)/kernel"


@pytest.fixture(scope="module")
def net():
  module = llama.Llama(CONFIG, apply_part=adapters.dense)
  tokens = jnp.zeros((1, 4), jnp.int32)
  variables = jax.jit(module.init)(jax.random.key(0), tokens)
  return module, variables["params"]


@pytest.fixture(scope="module")
def examples():
  rng = np.random.default_rng(0)
  return [
    Example(rng.integers(1, 29, size).astype(np.int32), int(size) // 3)
    for size in rng.integers(5, 15, 12)
  ]


def _by_full_logits(module, params, examples):
  """Average over single texts, one after the other."""

  @jax.jit
  def chances(tokens):
    return jax.nn.log_softmax(module.apply({"params": params}, tokens[None])[0])

  losses = []
  for tokens, prompt in examples:
    # What comes after a text does not matter to it.
    found = np.asarray(chances(np.pad(tokens, (0, 16 - len(tokens)))))
    losses += [
      -found[i, tokens[i + 1]] for i in range(prompt - 1, len(tokens) - 1)
    ]
  return np.mean(losses)


def test_packed_loss_is_the_mean_over_single_texts(net, examples):
  module, params = net
  few = examples[:4]
  batch = packing.packed(few, 1, 64, seed=0)[0]
  loss = functools.partial(language.mean_loss, module, chunk_size=7)
  found = jax.jit(loss)(params, batch)
  expected = _by_full_logits(module, params, few)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_beginning_read_once_changes_neither_loss_nor_gradients(net):
  module, params = net
  rng = np.random.default_rng(3)
  draw = lambda size: rng.integers(0, module.config.vocabulary, size)
  head, tails = draw(6), [draw(size) for size in (5, 9, 4)]
  texts = [
    Example(np.concatenate([head, tail]).astype(np.int32), 8) for tail in tails
  ]
  packed = functools.partial(packing.packed, texts, 1, seed=0)
  apart, once = packed(36)[0], packed(24, beginning=6)[0]
  assert (once["tokens"].shape[1], once["segments"].min()) == (24, -1)
  loss = functools.partial(language.mean_loss, module, chunk_size=7)
  (one, slopes), (two, others) = (
    jax.jit(jax.value_and_grad(loss))(params, batch) for batch in (apart, once)
  )
  np.testing.assert_allclose(one, two, rtol=1e-6)
  for slope, other in zip(
    jax.tree.leaves(slopes), jax.tree.leaves(others), strict=True
  ):
    np.testing.assert_allclose(slope, other, rtol=1e-4, atol=1e-6)


def test_cross_entropy_has_the_gradients_of_full_logits():
  rng = np.random.default_rng(1)
  hidden = jnp.asarray(rng.normal(size=(10, 6)), jnp.float32)
  table = jnp.asarray(rng.normal(size=(9, 6)), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 9, 10))
  weights = jnp.asarray(rng.uniform(size=10) * (np.arange(10) % 3 > 0))
  weights = weights.astype(jnp.float32)

  def plain(hidden, table):
    chances = jax.nn.log_softmax(hidden @ table.T)
    return -jnp.sum(weights * chances[jnp.arange(10), targets])

  def ours(hidden, table, train_table=True):
    return 3.0 * language.cross_entropy(
      hidden, table, targets, weights, chunk_size=4, train_table=train_table
    )

  value, slopes = jax.value_and_grad(plain, (0, 1))(hidden, table)
  found, given = jax.value_and_grad(ours, (0, 1))(hidden, table)
  np.testing.assert_allclose(found, 3 * value, rtol=1e-6)
  for slope, own in zip(slopes, given, strict=True):
    np.testing.assert_allclose(own, 3 * slope, atol=2e-6)
  only = functools.partial(ours, train_table=False)
  to_hidden, to_table = jax.grad(only, (0, 1))(hidden, table)
  np.testing.assert_allclose(to_hidden, given[0], atol=2e-6)
  assert not to_table.any()


def _arms(params):
  rng = np.random.default_rng(2)
  masks = jax.tree.map(
    lambda x: jnp.asarray(rng.random(x.shape) < 0.1) if x.ndim > 1 else None,
    params,
  )
  masks["embed"]["embedding"] = None
  return {
    "full": language.full(),
    "one block": language.full(r"layer_1/.*"),
    "LoRA": language.adapted(adapters.lora(2, where=KERNELS), dropout=0.1),
    "DoRA": language.adapted(adapters.dora(2, where=KERNELS)),
    "RoSA": language.adapted(adapters.rosa(2, masks, where=KERNELS)),
  }


@pytest.mark.parametrize(
  "name",
  [
    pytest.param("full", marks=SLOW),
    pytest.param("one block", marks=SLOW),
    "LoRA",
    pytest.param("DoRA", marks=SLOW),
    pytest.param("RoSA", marks=SLOW),
  ],
)
def test_every_arm_learns_and_resumes(net, examples, name, tmp_path):
  module, params = net
  arm = _arms(params)[name]
  batches = packing.packed(examples, 2, 32, seed=0)
  trained, frozen = jax.jit(arm.init)(jax.random.key(1), params)
  optimizer = optax.adam(0.04)
  evaluate = language.held_out_loss(module, arm, batches)
  before = evaluate(trained, frozen)
  step = language.finetune_step(module, arm, optimizer)
  state = training.create(jax.random.key(2), trained, optimizer)
  run = functools.partial(
    training.fit,
    state,
    step,
    batches,
    workdir=tmp_path,
    frozen=frozen,
    checkpoint_every=4,
  )
  if name in ("one block", "LoRA"):
    run(steps=4)
  final = run(steps=10)
  after = evaluate(final.params, frozen)
  assert after < before - 0.05
  merged = jax.jit(arm.merge)(final.params, frozen)
  whole = language.full()
  np.testing.assert_allclose(
    language.held_out_loss(module, whole, batches)(*whole.init(None, merged)),
    after,
    rtol=1e-4,
  )
  moved = jax.tree.map(
    lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), merged, params
  )
  assert moved["layer_1"]["mlp"]["up"]["kernel"]
  assert moved["layer_0"]["mlp"]["up"]["kernel"] == (name != "one block")
  assert moved["embed"]["embedding"] == (name == "full")


def test_micro_batches_do_not_matter(net, examples):
  module, params = net
  arm = language.full(r"layer_0/mlp/.*")
  batch = packing.packed(examples, 2, 32, seed=0)[0]
  trained, frozen = arm.init(jax.random.key(1), params)
  optimizer = optax.sgd(1.0)
  state = training.create(jax.random.key(2), trained, optimizer)
  results = [
    jax.jit(language.finetune_step(module, arm, optimizer, accumulate=n))(
      state, batch, frozen
    )
    for n in (1, 2)
  ]
  for one, two in zip(*map(jax.tree.leaves, results), strict=True):
    if jnp.issubdtype(one.dtype, jnp.floating):
      np.testing.assert_allclose(one, two, atol=1e-5)


def test_an_adapted_head_is_refused(net, examples):
  module, params = net
  batch = packing.packed(examples, 1, 64, seed=0)[0]
  with pytest.raises(ValueError, match=r"changes 'head/kernel'"):
    language.mean_loss(module, params, batch, parts={"head/kernel": 1})
