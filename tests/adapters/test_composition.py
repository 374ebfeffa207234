"""Adapters, masks and deltas in any order; labels, LoRA+ and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import adapters, pruning
from tests.adapters.draws import KEY, add, close, draw, equal, merged, start

PARAMS = {"w": draw(6, 5), "v": draw(5, 4, seed=1)}
DELTA = {"w": draw(6, 5, seed=2), "v": draw(5, 4, seed=3)}
MASKS = {"w": draw(6, 5, seed=4) > 0, "v": draw(5, 4, seed=5) > 0}


def masked(params):
  return jax.tree.map(lambda w, m: np.where(m, w, 0), params, MASKS)


def kept(params):
  return jax.tree.map(lambda w: np.asarray(w) != 0, params)


@pytest.mark.parametrize(
  "adapter", [adapters.lora(2), adapters.rosa(2, MASKS)], ids=["lora", "rosa"]
)
def test_an_adapter_and_a_delta_commute(adapter):
  arrays = start(adapter, PARAMS)
  close(
    merged(adapter, add(PARAMS, DELTA), *arrays),
    add(merged(adapter, PARAMS, *arrays), DELTA),
  )


def test_adapter_after_mask_after_delta():
  pruned = masked(add(PARAMS, DELTA))
  adapter = adapters.lora(2)
  arrays = start(adapter, PARAMS)
  held, by_zeros = adapters.masked(adapter, MASKS), adapters.masked(adapter)

  @jax.jit
  def work(pruned, whole, theta):
    results = [a.merge(pruned, theta, {}) for a in (held, by_zeros, adapter)]
    return *results, pruning.apply_mask(adapter.merge(whole, theta, {}), MASKS)

  sparse, too, dense, after = work(pruned, add(PARAMS, DELTA), arrays[0])
  # An adapter fills the zeros, unless it is asked not to.
  assert all(np.all(k) for k in kept(dense).values())
  equal(kept(sparse), MASKS)
  equal(sparse, too)
  # Masking before, after, and both are the same.
  equal(jax.tree.map(np.asarray, sparse), masked(dense))
  close(sparse, after)


def test_gradients_stay_within_a_mask():
  masks = {"w": MASKS["w"], "v": None}
  adapter = adapters.masked(adapters.lora(2, where="w"), masks)
  theta, fixed = start(adapter, PARAMS)

  @jax.jit
  def work(theta):
    loss = lambda t: jnp.sum(jnp.sin(adapter.apply(PARAMS, t, fixed)["w"]))
    return jax.grad(loss)(theta), adapter.merge(PARAMS, theta, fixed)

  found, tuned = work(theta)
  slopes = np.where(MASKS["w"], np.cos(tuned["w"]), 0)
  close(found["w/lora_a"], slopes @ theta["w/lora_b"].T, atol=1e-5)
  with pytest.raises(ValueError, match="no factored form"):
    adapters.parts(adapter, PARAMS, theta, fixed)
  with pytest.raises(ValueError, match=r"shape \(2, 2\), the kernel \(6, 5\)"):
    adapters.masked(
      adapters.lora(2, where="w"), {"w": np.ones((2, 2), bool), "v": None}
    ).merge(PARAMS, theta, fixed)


def test_a_merged_model_can_be_pruned():
  adapter, again = adapters.dora(2), adapters.masked(adapters.lora(1))

  @jax.jit
  def work(theta):
    tuned = adapter.merge(PARAMS, theta, {})
    masks = pruning.global_topk(pruning.magnitude(tuned), 0.6)
    pruned = pruning.apply_mask(tuned, masks)
    return masks, pruned, again.merge(pruned, *again.init(KEY, pruned))

  masks, pruned, same = work(start(adapter, PARAMS)[0])
  assert sum(int(m.sum()) for m in masks.values()) == 20
  equal(kept(pruned), jax.tree.map(np.asarray, masks))
  equal(same, pruned)


def test_a_chain_is_one_after_the_other():
  one, two = adapters.lora(2, where="w"), adapters.dora(1)
  both = adapters.chain(one, two)
  theta, fixed = start(both, PARAMS)
  assert fixed == {}

  @jax.jit
  def work(theta):
    pick = lambda i: {
      k.replace(f"{i}.", ""): x for k, x in theta.items() if f"/{i}." in k
    }
    after = two.merge(one.merge(PARAMS, pick(0), {}), pick(1), {})
    loss = lambda t: jnp.sum(both.apply(PARAMS, t, fixed)["w"] ** 2)
    return both.merge(PARAMS, theta, fixed), after, jax.grad(loss)(theta)

  found, after, slopes = work(theta)
  close(found, after)
  # Each of them has gradients, the first through the second.
  assert np.any(slopes["w/0.lora_a"])
  assert np.any(slopes["w/1.lora_a"])
  with pytest.raises(ValueError, match="at least one"):
    adapters.chain()
  with pytest.raises(ValueError, match=r"theta holds 'w/2\.lora_a'"):
    both.apply(PARAMS, {**theta, "w/2.lora_a": draw(1)}, fixed)


def test_chains_round_once():
  half = {"w": PARAMS["w"].astype(jnp.bfloat16)}
  both = adapters.chain(adapters.lora(2), adapters.lora(2))
  theta, fixed = start(both, half)
  wide = {"w": half["w"].astype(np.float32)}
  expected = np.asarray(merged(both, wide, theta, fixed)["w"])
  found = merged(both, half, theta, fixed)["w"]
  np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))


def test_faster_factors():
  theta, _ = start(adapters.dora(1, where="w"), PARAMS)
  labels = adapters.labels(theta)
  rate = {"lora_a": 0.01, "lora_b": 0.16, "magnitude": 0.16}
  adamw = lambda r: optax.adamw(r, weight_decay=0.1)
  optimizers = (
    optax.multi_transform({role: adamw(r) for role, r in rate.items()}, labels),
    optax.chain(adamw(0.01), adapters.lora_plus(16)),
  )

  @jax.jit
  def two_steps(theta):
    found = []
    for optimizer in optimizers:
      moving, state = theta, optimizer.init(theta)
      for _ in range(2):
        grads = jax.tree.map(lambda x: jnp.sin(x + 1), moving)
        with jax.numpy_dtype_promotion("standard"):
          updates, state = optimizer.update(grads, state, moving)
        moving = optax.apply_updates(moving, updates)
      found.append(moving)
    return found

  close(*two_steps(theta))
  with pytest.raises(ValueError, match="at least 1"):
    adapters.lora_plus(0.5)


def test_summary():
  theta, _ = start(adapters.lora([("w", 2), (".*", 1)]), PARAMS)
  table = adapters.summary(PARAMS, theta)
  rows = [(r.name, r.weights, r.trained) for r in table.rows]
  assert rows == [("v", 20, 9), ("w", 30, 22)]
  assert (table.trained, table.weights) == (31, 50)
  one = adapters.summary(PARAMS, theta, rules=[".*"])
  assert (one.rows[0].leaves, one.rows[0].trained) == (2, 31)
  with pytest.raises(ValueError, match="no rule covers the leaf 'v'"):
    adapters.summary(PARAMS, theta, rules=["w"])
  with pytest.raises(ValueError, match="no leaf 'u'"):
    adapters.summary(PARAMS, {"u/lora_a": draw(1)})
