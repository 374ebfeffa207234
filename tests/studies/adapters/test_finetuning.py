"""Arms by name, places of sparse weights, and losses that count each text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.models import llama
from effjax.studies.adapters import finetuning, plans
from effjax.training import language
from tests.models import language_models as tiny

CONFIG = dataclasses.replace(tiny.CONFIG, layers=1)
PARAMS = tiny.random_params(CONFIG)
MODULE = llama.Llama(CONFIG)


LENGTH = 16


@pytest.fixture(scope="module")
def examples():
  rng = np.random.default_rng(0)
  return [
    Example(rng.integers(3, 200, size).astype(np.int32), 2)
    for size in (5, 9, 12, 7, 10)
  ]


@jax.jit
def _losses(params, tokens):
  """The loss of every token but the first; what is after it does not matter."""
  logits = MODULE.apply({"params": params}, tokens[None])[0]
  chances = jax.nn.log_softmax(logits)[:-1]
  return -jnp.take_along_axis(chances, tokens[1:, None], axis=1)[:, 0]


_grad = jax.jit(
  jax.grad(lambda params, tokens, counts: _losses(params, tokens) @ counts)
)


def _padded(example):
  tokens, prompt = example
  counts = np.zeros(LENGTH - 1, np.float32)
  counts[prompt - 1 : len(tokens) - 1] = 1
  return np.pad(tokens, (0, LENGTH - len(tokens))), counts


@pytest.mark.slow
def test_places_are_those_of_the_largest_squared_gradients(examples, tmp_path):
  plan = plans.Plan(
    arm="rosa", rank=2, density=0.1, warm_up=0, collected=5, steps=1
  )
  tuner = finetuning.Tuner(MODULE, PARAMS, examples)
  masks = tuner._masks(plan, tmp_path, rows=1, length=LENGTH)
  squares = []
  for example in examples:
    tokens, counts = _padded(example)
    grad = _grad(PARAMS, tokens, counts / counts.sum())
    squares.append(jax.tree.map(lambda g: np.asarray(g, np.float64) ** 2, grad))
  mean = jax.tree.map(lambda *x: sum(x) / len(x), *squares)
  assert masks["embed"]["embedding"] is None
  for name in ("query", "output"):
    own = mean["layer_0"]["attention"][name]["kernel"]
    mask = np.asarray(masks["layer_0"]["attention"][name]["kernel"])
    count = int(0.1 * own.size)
    chosen = np.sort(own[mask])
    assert len(chosen) == count
    largest = np.sort(own.reshape(-1))[-count:]
    np.testing.assert_allclose(chosen, largest, rtol=1e-3)
  again = tuner._masks(plan, tmp_path, rows=1, length=LENGTH)
  jax.tree.map(np.testing.assert_array_equal, again, masks)


def test_held_out_texts_count_once_each(examples):
  loss = finetuning.held_out(MODULE, examples, length=LENGTH)
  padded = [_padded(example) for example in examples]
  found = sum(_losses(PARAMS, tokens) @ counts for tokens, counts in padded)
  tokens = sum(counts.sum() for _, counts in padded)
  assert loss(PARAMS) == pytest.approx(float(found) / tokens, rel=1e-5)


def test_arms_train_what_they_say():
  params = tiny.random_params()

  def trained(**options):
    chosen = plans.choose(plans.Plan(**options), 2)
    values, _ = chosen.arm.init(jax.random.key(0), params)
    return plans.summary(params, values, chosen.adapter).trained

  count = sum(x.size for x in jax.tree.leaves(params))
  layer = sum(x.size for x in jax.tree.leaves(params["layer_1"]))
  assert trained(arm="full") == count
  assert trained(arm="blocks") == layer
  assert trained(arm="blocks", layers=(0, 1)) == 2 * layer
  kernels = [
    x.shape
    for part in ("attention", "mlp")
    for x in jax.tree.leaves(params["layer_0"][part])
  ]
  low = 2 * sum(3 * (i + o) for i, o in kernels)
  assert trained(arm="lora", rank=3) == low
  assert trained(arm="dora", rank=3) == low + 2 * sum(o for _, o in kernels)


def test_the_rate_rises_and_falls():
  plan = plans.Plan(steps=20, learning_rate=0.5)
  update = plans.optimizer(plan)
  params = {"x": jnp.zeros(1)}
  state = update.init(params)
  sizes = []
  for _ in range(20):
    with jax.numpy_dtype_promotion("standard"):
      moves, state = update.update({"x": jnp.ones(1)}, state, params)
    sizes.append(-float(moves["x"][0]))
  # Adam moves by the rate while gradients are the same.
  assert sizes[1] == pytest.approx(0.5, rel=1e-3) == max(sizes)
  assert sizes[0] == pytest.approx(0.25, rel=1e-3)
  assert sizes[2:] == sorted(sizes[2:], reverse=True)
  assert 0 < sizes[-1] < 0.05


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(arm="lorra"), "did you mean 'lora'"),
    (dict(density=0.0), "density must lie in"),
    (dict(learning_rate=0.0), "learning rate must be above 0, got 0.0"),
    (dict(learning_rate=float("nan")), "above 0, got nan"),
    (dict(dropout=1.0), "dropout must lie in"),
    (dict(layers=(1, 0)), "the layers 1 to 0 are no range of the 2"),
    (dict(warm_up=-1), "warm_up=-1"),
  ],
)
def test_plans_that_make_no_sense(options, message):
  with pytest.raises(ValueError, match=message):
    plans.check(plans.Plan(**options), 2)


def test_splits():
  train, held = finetuning.split(10, 0.0, 0)
  assert (len(train), len(held)) == (10, 0)
  train, held = finetuning.split(10, 0.01, 0)
  assert len(held) == 1
  assert sorted([*train, *held]) == list(range(10))
  with pytest.raises(ValueError, match="held_out must lie in"):
    finetuning.split(10, 1.0, 0)
  with pytest.raises(ValueError, match="of 1 dialogues 1 would be held out"):
    finetuning.split(1, 0.1, 0)


@pytest.mark.slow
def test_the_loss_of_an_arm_is_that_of_its_merged_model(examples, tmp_path):
  tuner = finetuning.Tuner(MODULE, PARAMS, examples)
  plan = plans.Plan(rank=2, steps=3, learning_rate=0.05)
  tuned = tuner.tune(plan, tmp_path, rows=2, length=LENGTH)
  other = plans.Plan(rank=2, steps=3, learning_rate=0.01, seed=1)
  step = tuner._steps
  tuner.tune(other, tmp_path / "other", rows=2, length=LENGTH)
  assert len(step) == 1
  batches = packing.packed(examples, 2, LENGTH, seed=0)
  batch = finetuning._even(batches)[0]
  params, parts = tuned.chosen.arm.model(tuned.trained, tuned.frozen, None)
  factored = language.mean_loss(tuner.module, params, batch, parts=parts)
  merged = language.mean_loss(tuner.module, tuned.merged, batch)
  np.testing.assert_allclose(factored, merged, rtol=1e-5)
