import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import pruning

RNG = np.random.default_rng(0)
SCORES = {
  "conv": jnp.asarray(RNG.random((3, 3, 4, 6)), jnp.float32),
  "dense": jnp.asarray(RNG.random((5, 8)), jnp.float32),
  "bias": jnp.ones(8),
}


def brute(scores, sparsity, axis=-1):
  """The mask of one leaf: sums in float64, ties to the lower index."""
  sums = np.moveaxis(np.asarray(scores, np.float64), axis, -1)
  sums = sums.reshape(-1, sums.shape[-1]).sum(0)
  pruned = int(np.floor(sparsity * sums.size + 0.5))
  order = np.lexsort((np.arange(sums.size), -sums))
  kept = np.zeros(sums.size, bool)
  kept[order[: sums.size - pruned]] = True
  shape = [1] * scores.ndim
  shape[axis] = sums.size
  return np.broadcast_to(kept.reshape(shape), scores.shape)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.75])
@pytest.mark.parametrize("axis", [-1, 0])
def test_channels_by_brute_force(sparsity, axis):
  masks = pruning.channels(SCORES, sparsity, axis=axis)
  assert masks["bias"] is None
  for name in ("conv", "dense"):
    np.testing.assert_array_equal(
      masks[name], brute(SCORES[name], sparsity, axis)
    )


def test_channels_of_a_traced_sparsity_and_of_trees():
  compiled = jax.jit(pruning.channels)
  for sparsity in (0.25, 0.5):
    eager = pruning.channels(SCORES, sparsity)
    jax.tree.map(
      np.testing.assert_array_equal, eager, compiled(SCORES, sparsity)
    )
  masks = pruning.channels(SCORES, {"conv": 0.5, "dense": 0.0, "bias": None})
  assert int(masks["conv"][0, 0, 0].sum()) == 3
  assert bool(masks["dense"].all())
  masks = pruning.channels(SCORES, keep=2, where="dense")
  assert masks["conv"] is None
  assert int(masks["dense"][0].sum()) == 2


def test_channels_refuse_what_is_not_there():
  with pytest.raises(ValueError, match=r"axis 3 .* 'dense' of shape \(5, 8\)"):
    pruning.channels(SCORES, 0.5, axis=3)
  with pytest.raises(ValueError, match="matches no leaf"):
    pruning.channels(SCORES, 0.5, where="head")


def trained(steps=7, **options):
  """Train with pruning at the end of a chain; return weights and masks."""
  params = {k: v for k, v in SCORES.items() if k != "bias"}
  schedule = pruning.cubic(0.0, 0.5, 0, 6, 2)
  optimizer = optax.chain(optax.adamw(0.01), pruning.prune(schedule, **options))
  state = optimizer.init(params)

  @jax.jit
  def step(params, state):
    grads = jax.tree.map(lambda p: p - 0.5, params)
    # Optax mixes counts and floats; that is not ours to forbid.
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  masks = []
  for _ in range(steps):
    params, state = step(params, state)
    masks.append(optax.tree.get(state, "mask"))
  return params, masks


def test_channels_go_while_training_and_stay_away():
  params, masks = trained(mask="channels")
  for name, weight in params.items():
    dead = ~np.asarray(masks[-1][name]).reshape(-1, weight.shape[-1])
    assert (dead == dead[:1]).all()
    assert dead[0].sum() == weight.shape[-1] // 2
    assert not np.asarray(weight)[~np.asarray(masks[-1][name])].any()
    for before, after in itertools.pairwise(masks):
      assert not (np.asarray(after[name]) & ~np.asarray(before[name])).any()


def test_random_scores_differ_by_key_and_update():
  first, second = (
    trained(score="random", key=jax.random.key(i))[1] for i in range(2)
  )
  again = trained(score="random", key=jax.random.key(0))[1]
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert (first[-1]["conv"] != second[-1]["conv"]).any()
  total = sum(m.size for m in jax.tree.leaves(first[-1]))
  kept = sum(int(m.sum()) for m in jax.tree.leaves(first[-1]))
  assert kept == total - int(np.floor(0.5 * total + 0.5))
  # What dies later is not the rest of one ranking: each update draws anew.
  ranking = pruning.random(jax.random.fold_in(jax.random.key(0), 0), SCORES)
  fixed = pruning.global_topk(ranking, keep=kept)
  assert (fixed["conv"] != first[-1]["conv"]).any()


def test_random_scores_and_keys_belong_together():
  schedule = pruning.one_shot(0.5)
  with pytest.raises(ValueError, match="needs key="):
    pruning.prune(schedule, score="random")
  with pytest.raises(ValueError, match="no other score"):
    pruning.prune(schedule, key=jax.random.key(0))
  with pytest.raises(ValueError, match="choose one of random"):
    pruning.prune(schedule, score="randm")


@pytest.mark.slow
def test_members_of_a_population_draw_for_themselves():
  schedule = pruning.one_shot(0.5)
  make = lambda i: pruning.prune(
    schedule, score="random", key=jax.random.key(i)
  )
  params = {"dense": SCORES["dense"]}
  states = [make(i).init(params) for i in range(2)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
  update = lambda state: make(0).update(params, state, params)[1].mask["dense"]
  together = jax.vmap(update)(stacked)
  for i, state in enumerate(states):
    np.testing.assert_array_equal(together[i], update(state))
  assert (together[0] != together[1]).any()


def test_partial_names_stay_counted():
  masks = trained(mask=functools.partial(pruning.channels, axis=0))[1]
  assert int(masks[-1]["dense"][:, 0].sum()) == 2
