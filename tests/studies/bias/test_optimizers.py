import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.bias import celeba_mobilenet, celeba_resnet18, fashion
from effjax import training
from effjax.studies.bias import optimizers

PER_EPOCH = 3


def run(transform, grads, params):
  """The parameters after each update along given gradients."""
  state, seen = transform.init(params), []
  for grad in grads:
    with jax.numpy_dtype_promotion("standard"):
      updates, state = transform.update({"w": grad}, state, params)
    params = optax.apply_updates(params, updates)
    seen.append(np.asarray(params["w"], np.float64))
  return seen, state


@pytest.fixture
def problem():
  rng = np.random.default_rng(0)
  grads = jnp.asarray(rng.normal(size=(4 * PER_EPOCH, 2, 2)), jnp.float32)
  return grads, {"w": jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)}


def test_sgd_as_published(problem):
  """Momentum over coupled weight decay, zeroed at the end of every epoch."""
  grads, params = problem
  options = optimizers.options(celeba_resnet18.get_config().training, "ri")
  assert dataclasses.asdict(options) == {
    "optimizer": "sgd",
    "momentum": 0.875,
    "weight_decay": 2**-15,
    "schedule": "warmup_cosine",
    "warmup_epochs": 5,
    "reset_momentum": True,
  }
  options = dataclasses.replace(options, warmup_epochs=2, weight_decay=0.1)
  links = optimizers.links(options, 4, PER_EPOCH)
  found, _ = run(optax.chain(*links, optax.scale(-0.256)), grads, params)
  w, buffer = np.asarray(params["w"], np.float64), 0.0
  for i, grad in enumerate(np.asarray(grads, np.float64)):
    epoch = i // PER_EPOCH
    rate = (0.5, 1.0, 1.0, 0.5 * (1 + np.cos(np.pi / 2)))[epoch]
    buffer = 0.875 * buffer + grad + 0.1 * w
    w = w - 0.256 * rate * buffer
    if (i + 1) % PER_EPOCH == 0:
      buffer = 0.0
    np.testing.assert_allclose(found[i], w, rtol=2e-5, err_msg=f"update {i}")


def test_pt_is_adam_at_a_constant_rate(problem):
  grads, params = problem
  for config in (celeba_resnet18, celeba_mobilenet):
    options = optimizers.options(config.get_config().training, "pt")
    assert (options.optimizer, options.schedule) == ("adam", "constant")
    assert options.weight_decay == 0.0
    assert not options.reset_momentum
  links = optimizers.links(options, 80, PER_EPOCH)
  found, _ = run(optax.chain(*links, optax.scale(-1e-4)), grads, params)
  expected, _ = run(optax.adam(1e-4), grads, params)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_adamw_of_fashion(problem):
  grads, params = problem
  config = fashion.get_config().training
  kinds = {optimizers.options(config, arm) for arm in optimizers.ARMS}
  (options,) = kinds  # all arms alike: they train in one program
  links = optimizers.links(options, config.epochs, PER_EPOCH)
  rate = training.warmup_cosine(2e-3, 1, config.epochs, PER_EPOCH)
  found, _ = run(optax.chain(*links, optax.scale(-2e-3)), grads, params)
  adamw = optax.adamw(rate, weight_decay=config.weight_decay)
  expected, _ = run(adamw, grads, params)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_weight_decay_leaves_vectors_alone(name):
  options = optimizers.Options(
    optimizer=name, weight_decay=0.5, schedule="constant"
  )
  transform = optax.chain(*optimizers.links(options, 2, 2))
  params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
  zeros = jax.tree.map(jnp.zeros_like, params)
  with jax.numpy_dtype_promotion("standard"):
    updates, _ = transform.update(zeros, transform.init(params), params)
  assert (updates["kernel"] > 0).all()
  assert (updates["bias"] == 0).all()


def test_only_the_dense_resnet18_is_without_weight_decay():
  small = celeba_resnet18.get_config().training
  other = celeba_mobilenet.get_config().training
  decay = lambda config, arm: optimizers.options(config, arm).weight_decay
  assert decay(small, "dense") == decay(small, "base") == 0.0
  assert decay(other, "dense") == decay(other, "base") == 2**-15


def test_reset_every_is_state_only():
  """Members with other intervals share one update, as a population must."""
  grads = jnp.arange(1.0, 7.0)
  plain = optimizers.reset_every(optax.trace(0.5), 100)

  def follow(every):
    transform = optimizers.reset_every(optax.trace(0.5), every)
    state = transform.init(jnp.zeros(()))

    def step(state, grad):
      update, state = plain.update(grad, state)
      return state, update

    return jax.lax.scan(step, state, grads)[1]

  np.testing.assert_allclose(
    follow(100), [1, 2.5, 4.25, 6.125, 8.0625, 10.03125]
  )
  np.testing.assert_allclose(follow(2), [1, 2.5, 3, 5.5, 5, 8.5])
  np.testing.assert_allclose(follow(1), grads)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"optimizer": "sdg"}, "training.optimizer 'sdg' is unknown; choose sgd"),
    ({"schedule": "cosine"}, "training.schedule 'cosine' is unknown"),
    ({"reset_momentum": True}, "reset_momentum belongs to sgd"),
    (
      {"optimizers": {"rl": {"momentum": 0.5}}},
      "training.optimizers has no 'rl'; the nearest are ri",
    ),
    (
      {"optimizers": {"pt": {"momentun": 0.5}}},
      "training.optimizers.pt has no 'momentun'; the nearest are momentum",
    ),
  ],
)
def test_what_does_not_exist_is_named(config, message):
  with pytest.raises(ValueError, match=message):
    optimizers.links(optimizers.options(config, "ri"), 4, PER_EPOCH)
