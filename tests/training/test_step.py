import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import training
from tests.training import tiny


def test_create():
  state = training.create(jax.random.key(0), {"w": jnp.ones(2)}, optax.sgd(1.0))
  assert state.model_state == {}
  assert (state.step.dtype, state.position.dtype) == (jnp.int32, jnp.int32)
  assert training.state.counters(state) == (0, 0)
  assert jax.dtypes.issubdtype(state.key.dtype, jax.dtypes.prng_key)


def test_step_is_what_one_would_write():
  optimizer = optax.sgd(0.1)
  state = tiny.start(optimizer)
  batch = tiny.Batches()[0]
  new, measures = jax.jit(training.make_step(tiny.loss, optimizer))(
    state, batch
  )
  key = jax.random.fold_in(state.key, 0)
  arguments = (state.params, state.model_state, batch, key, True)
  (value, (model_state, _)), grads = jax.jit(
    jax.value_and_grad(tiny.loss, has_aux=True), static_argnums=4
  )(*arguments)
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    (new.params, new.model_state, measures["loss"]),
    (expected, model_state, value),
  )
  assert (int(new.step), int(new.position)) == (1, 1)
  assert set(measures) == {"loss", "absolute"}
  assert all(m.dtype == jnp.float32 for m in measures.values())


def test_dropout_differs_between_steps_and_runs():
  optimizer = optax.sgd(0.0)
  step = jax.jit(training.make_step(tiny.loss, optimizer))
  batch = tiny.Batches()[0]
  state = tiny.start(optimizer)
  after, first = step(state, batch)
  _, second = step(after, batch)
  _, again = step(state, batch)
  _, other = step(state._replace(key=jax.random.key(9)), batch)
  assert first["loss"] == again["loss"]
  assert first["loss"] != second["loss"]
  assert first["loss"] != other["loss"]


def test_gradients_reach_the_last_link_of_a_chain():
  def update(updates, state, params=None, *, grads, **extra):
    del params, extra
    return updates, jax.tree.map(jnp.copy, grads)

  init = lambda params: jax.tree.map(jnp.zeros_like, params)
  watch = optax.GradientTransformationExtraArgs(init, update)
  optimizer = optax.chain(optax.scale(0.0), watch)
  state = tiny.start(optimizer)
  state, _ = jax.jit(training.make_step(tiny.loss, optimizer))(
    state, tiny.Batches()[0]
  )
  assert all(jnp.any(g != 0) for g in jax.tree.leaves(state.opt_state[1]))


def mean_loss(params, model_state, batch, key, train):
  del key, train
  error = (batch["x"] @ params["a"]["kernel"]).sum(1) - batch["y"]
  return jnp.mean(error**2), (model_state, {"error": jnp.mean(error)})


@pytest.mark.parametrize("count", [4])
def test_accumulation_equals_one_batch(count):
  optimizer = optax.sgd(0.01, momentum=0.9)
  state, batch = tiny.start(optimizer), tiny.Batches()[0]
  make = lambda **kwargs: jax.jit(
    training.make_step(mean_loss, optimizer, **kwargs)
  )
  whole, measures = make()(state, batch)
  parts, averaged = make(accumulate=count)(state, batch)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
    (whole.params, measures),
    (parts.params, averaged),
  )
  assert int(parts.step) == int(parts.position) == 1


def test_accumulation_passes_statistics_on_in_order():
  optimizer = optax.sgd(0.0)
  step = jax.jit(training.make_step(tiny.loss, optimizer, accumulate=2))
  state, batch = tiny.start(optimizer), tiny.Batches()[0]
  new, _ = step(state, batch)
  mean = jnp.zeros((16,))
  for start in (0, 1):
    rows = {name: x[start::2] for name, x in batch.items()}
    arguments = (state.params, {"mean": mean}, rows, state.key, True)
    mean = tiny.loss(*arguments)[1][0]["mean"]
  np.testing.assert_allclose(new.model_state["mean"], mean, rtol=1e-5)


def test_accumulation_sums_narrow_gradients_in_float32():
  def loss(params, model_state, batch, key, train):
    del key, train
    return jnp.mean(params * batch["x"].astype(params.dtype)), (model_state, {})

  optimizer = optax.sgd(1.0)
  state = training.create(jax.random.key(0), jnp.bfloat16(0), optimizer)
  batch = {"x": np.ones((256,), np.float32)}
  batch["x"][0] = 3.0
  step = training.make_step(loss, optimizer, accumulate=256)
  # 258 / 256. A sum in bfloat16 would stay at 256, where adding 1 is lost.
  assert float(jax.jit(step)(state, batch)[0].params) == -1.0078125


def test_accumulation_must_divide_the_batch():
  optimizer = optax.sgd(1.0)
  step = training.make_step(tiny.loss, optimizer, accumulate=3)
  with pytest.raises(ValueError, match=r"accumulate=3 .* batch of 16 in 'x'"):
    jax.jit(step)(tiny.start(optimizer), tiny.Batches()[0])
  with pytest.raises(ValueError, match="at least 1, got 0"):
    training.make_step(tiny.loss, optimizer, accumulate=0)


def alone_and_together(mapping, optimizer, steps=12):
  step = tiny.step(optimizer)
  members = [tiny.Batches(seed) for seed in range(3)]
  starts = [tiny.start(optimizer, seed) for seed in range(3)]
  jitted, alone, told = jax.jit(step), [], []
  for state, batches in zip(starts, members, strict=True):
    for position in range(steps):
      state, measures = jitted(state, batches[position])
    alone.append(state)
    told.append(measures["loss"])
  together = training.stack(starts)
  mapped = jax.jit(training.population(step, mapping))
  for position in range(steps):
    together, measures = mapped(together, tiny.Stacked(members)[position])
  assert measures["loss"].shape == (3,)
  return alone, training.unstack(together), jnp.stack(told), measures["loss"]


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
  "mapping", ["map", pytest.param("unroll", marks=pytest.mark.slow), None]
)
def test_population_equals_separate_runs_bit_for_bit(mapping):
  optimizer = tiny.masked() if mapping else tiny.pruned(12)
  alone, together, told, losses = alone_and_together(mapping, optimizer)
  for one, member in zip(alone, together, strict=True):
    tiny.assert_same(one, member)
  np.testing.assert_array_equal(told, losses)
  masks = [optax.tree.get(state.opt_state, "mask") for state in together]
  kernels = [mask["a"]["kernel"] for mask in masks]
  assert not all(bool(jnp.all(kernel)) for kernel in kernels)


def test_vmapped_population_equals_separate_runs_up_to_rounding():
  alone, together, _, _ = alone_and_together("vmap", tiny.masked(), 4)
  for one, member in zip(alone, together, strict=True):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      one.params,
      member.params,
    )


def test_unknown_mapping():
  with pytest.raises(ValueError, match="'pmap'"):
    training.population(lambda state, batch: (state, {}), "pmap")


def test_stack_and_unstack():
  states = [tiny.start(tiny.adam(), seed) for seed in range(2)]
  for before, after in zip(
    states, training.unstack(training.stack(states)), strict=True
  ):
    tiny.assert_same(before, after)
  with pytest.raises(ValueError, match="at least one member"):
    training.stack([])
  with pytest.raises(ValueError, match=r"member 1 .* another structure"):
    training.stack([{"a": jnp.ones(())}, {"b": jnp.ones(())}])
  stacked = training.stack(states)
  apart = stacked._replace(step=jnp.array([1, 2], jnp.int32))
  with pytest.raises(ValueError, match=r"steps \[1, 2\]"):
    training.state.counters(apart)
