import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import pruning
from tests.pruning import brute

SCHEDULE = pruning.constant(0.6, 1, 5, 2)
SHAPES = {"a": (6, 5), "b": (4, 10)}
KEY = jax.random.key(2)


def draw(seed):
  rng = np.random.default_rng(seed)
  arrays = {k: rng.normal(size=s) for k, s in SHAPES.items()}
  arrays["bias"] = rng.normal(size=5)
  return {k: jnp.asarray(x, jnp.float32) for k, x in arrays.items()}


def fraction(step):
  first, last = SCHEDULE.steps[0], SCHEDULE.steps[-1]
  return 0.15 * (1 + math.cos(math.pi * (step - first) / (last - first)))


@functools.cache
def history(grow):
  """Train for seven steps; return [(params, masks)], the start included."""
  optimizer = optax.chain(
    optax.sgd(0.3), pruning.dynamic(KEY, SCHEDULE, grow=grow)
  )
  params = draw(0)
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  steps = [(params, optax.tree.get(state, "mask"))]
  for i in range(7):
    gradient = draw(10 + i)
    updates, state = update(gradient, state, params, grads=gradient)
    params = optax.apply_updates(params, updates)
    steps.append((params, optax.tree.get(state, "mask")))
  assert update._cache_size() == 1
  return steps


@pytest.mark.parametrize("grow", ["gradient", "random"])
def test_counts_stay(grow):
  shares = pruning.erk(draw(0), 0.6)
  for params, masks in history(grow)[1:]:
    assert masks["bias"] is None
    for name in SHAPES:
      kept = brute.kept(params[name].size, shares[name])
      assert int(masks[name].sum()) == kept
      # A weight that has just been grown is zero, every other one trains.
      assert not np.asarray(params[name])[~np.asarray(masks[name])].any()


@pytest.mark.parametrize("grow", ["gradient", "random"])
def test_the_smallest_go_and_as_many_come(grow):
  moves = 0
  steps = history(grow)
  for i, (before, after) in enumerate(itertools.pairwise(steps)):
    (params, old), (after_params, new) = before, after
    for name in SHAPES:
      o, n = np.asarray(old[name]), np.asarray(new[name])
      live = int(o.sum())
      moved = math.floor(fraction(i) * live + 0.5) if i in SCHEDULE.steps else 0
      grown = n & ~o
      assert grown.sum() == (o & ~n).sum() == moved
      size = np.where(o, np.abs(params[name]), -np.inf)
      (stay,) = brute.largest([size], live - moved)
      np.testing.assert_array_equal(o & n, stay)
      assert not np.asarray(after_params[name])[grown].any()
      if grow == "gradient":
        want = np.where(o, -np.inf, np.abs(draw(10 + i)[name]))
        np.testing.assert_array_equal(grown, brute.largest([want], moved)[0])
      moves += moved
  assert moves > 5


def test_live_weights_train():
  (params, _), (first, masks) = history("gradient")[:2]
  for name in SHAPES:
    trained = params[name] - np.float32(0.3) * draw(10)[name]
    np.testing.assert_allclose(
      first[name], np.where(masks[name], trained, 0), rtol=1e-6
    )
  np.testing.assert_allclose(
    first["bias"],
    params["bias"] - np.float32(0.3) * draw(10)["bias"],
    rtol=1e-6,
  )


def test_keys_decide():
  masks = lambda key: optax.tree.get(
    pruning.dynamic(key, SCHEDULE).init(draw(0)), "mask"
  )
  one, two, other = masks(KEY), masks(KEY), masks(jax.random.key(3))
  np.testing.assert_array_equal(one["b"], two["b"])
  assert (one["b"] != other["b"]).any()


def test_a_layer_cannot_grow_more_than_it_has_pruned():
  schedule = pruning.constant(0.1, 0, 4, 2)
  optimizer = pruning.dynamic(
    KEY, schedule, fraction=1.0, allocation=pruning.uniform
  )
  state = optimizer.init(draw(0))
  assert state.moved.tolist()[0] == [3, 4]
  assert state.moved.tolist()[-1] == [0, 0]


def test_narrow_updates_leave_exact_zeros():
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), draw(0))
  optimizer = pruning.dynamic(KEY, pruning.constant(0.6, 9, 9, 1))
  state = optimizer.init(params)
  updates, _ = optimizer.update(draw(1), state, params)
  with jax.numpy_dtype_promotion("standard"):
    params = optax.apply_updates(params, updates)
  for name in SHAPES:
    assert params[name].dtype == jnp.bfloat16
    np.testing.assert_array_equal(params[name] != 0, state.mask[name])


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: pruning.dynamic(KEY, SCHEDULE, grow="rigl"), "'gradient' or"),
    (lambda: pruning.dynamic(KEY, SCHEDULE, fraction=1.5), "fraction 1.5"),
    (lambda: pruning.dynamic(KEY, pruning.from_table([], [])), "no steps"),
    (
      lambda: pruning.dynamic(KEY, SCHEDULE, where="x").init(draw(0)),
      "matches no leaf",
    ),
    (
      lambda: pruning.dynamic(KEY, SCHEDULE).update(
        draw(0), pruning.dynamic(KEY, SCHEDULE).init(draw(0))
      ),
      "dynamic needs the parameters",
    ),
  ],
)
def test_mistakes(make, words):
  with pytest.raises(ValueError, match=words):
    make()
