"""Values of the 2023 study's pruners; see tests/golden/bias/README.md."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import pruning

FILE = pathlib.Path(__file__).parents[1] / "golden" / "bias" / "pruning.npz"
GOLDEN = np.load(FILE, allow_pickle=False)
NAMES = [k[6:-4] for k in GOLDEN.files if k.startswith("sched_") and "cfg" in k]
LAYERS = ("conv", "dw", "fc")
KEPT = {2: 493, 4: 259, 6: 127, 8: 68, 10: 52}
magnitude = functools.partial(pruning.magnitude, convention="reference")
global_topk = functools.partial(pruning.global_topk, convention="reference")


def layers(name):
  return {layer: jnp.asarray(GOLDEN[f"{name}_{layer}"]) for layer in LAYERS}


def equal(found, name):
  for layer in LAYERS:
    expected = GOLDEN[f"{name}_{layer}"]
    np.testing.assert_array_equal(found[layer], expected.astype(bool))


def schedule_of(name):
  begin, every, end, initial, final, degree = GOLDEN[f"sched_{name}_cfg"]
  return pruning.polynomial(
    initial,
    final,
    int(begin),
    int(end),
    int(every),
    degree=degree,
    convention="reference",
  )


def test_every_schedule_is_here():
  assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_schedules(name):
  schedule = schedule_of(name)
  active, level = (GOLDEN[f"sched_{name}_{k}"] for k in ("active", "level"))
  steps = np.flatnonzero(active)
  assert schedule.steps == tuple(steps)
  np.testing.assert_allclose(schedule.levels, level[steps], rtol=0, atol=1e-15)
  epochs = jnp.arange(101)
  np.testing.assert_array_equal(jax.vmap(schedule.fires)(epochs), active)
  found = jax.jit(jax.vmap(schedule.sparsity))(epochs)
  np.testing.assert_allclose(found, level, rtol=0, atol=2e-7, equal_nan=True)


def test_thresholds():
  case = lambda i, key: GOLDEN[f"pct{i}_{key}"]
  cases = ("0", "1", "2", "3", "4", "ties")
  scores = {i: jnp.asarray(case(i, "x")) for i in cases}
  topk = functools.partial(pruning.topk, where=".*", convention="reference")
  for position, share in enumerate(case("0", "p")):
    masks = topk(scores, share)
    for i, mask in masks.items():
      assert case(i, "p")[position] == share
      threshold = np.float32(case(i, "thr")[position])
      np.testing.assert_array_equal(mask, scores[i] > threshold)
      assert int(mask.sum()) == case(i, "kept")[position]
  # The threshold -1 of sparsity 0 keeps everything.
  assert GOLDEN["pct_p0_is_minus1"] == -1
  assert all(mask.all() for mask in topk(scores, 0.0).values())


def test_global_run():
  weights, masks, updates = layers("glob_w_e0"), None, 0
  for epoch in range(13):
    np.testing.assert_equal(epoch in KEPT, bool(GOLDEN[f"glob_did_e{epoch}"]))
    if epoch in KEPT:
      level = float(GOLDEN[f"glob_level_e{epoch}"])
      masks = global_topk(magnitude(weights, masks=masks), level, where=".*")
      equal(masks, f"glob_mask_e{epoch}")
      kept = sum(int(m.sum()) for m in masks.values())
      assert kept == KEPT[epoch]
      updates += 1
      weights = pruning.apply_mask(weights, masks)
      for layer in LAYERS:
        after = GOLDEN[f"glob_wafter_e{epoch}_{layer}"]
        np.testing.assert_array_equal(weights[layer], after)
    weights = jax.tree.map(jnp.add, weights, layers(f"glob_delta_e{epoch}"))
    if masks is not None:
      weights = pruning.apply_mask(weights, masks)
  assert updates == 5


def test_global_run_inside_an_optimizer():
  # The study masks at the start of an epoch what the transform masks at its
  # end: the "training step" of an epoch is the update that goes in.
  schedule = pruning.cubic(0.05, 0.9, 2, 11, 2, convention="reference")
  optimizer = pruning.prune(
    schedule, score=magnitude, mask=global_topk, where=".*"
  )
  params = layers("glob_w_e0")
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for epoch in range(13):
    deltas = layers(f"glob_delta_e{epoch}")
    updates, state = update(deltas, state, params)
    params = optax.apply_updates(params, updates)
    masks = optax.tree.get(state, "mask")
    equal(masks, f"glob_mask_e{epoch}")
    if epoch < 12:
      after = {k: GOLDEN[f"glob_wafter_e{epoch + 1}_{k}"] for k in LAYERS}
      following = layers(f"glob_mask_e{epoch + 1}")
      for layer in LAYERS:
        entering = np.where(following[layer], params[layer], 0)
        np.testing.assert_array_equal(entering, after[layer])


def test_layerwise():
  masks = pruning.topk(
    magnitude(layers("glob_w_e0")), 0.7, where=".*", convention="reference"
  )
  equal(masks, "layer70_mask")
  assert [int(masks[k].sum()) for k in LAYERS] == [86, 21, 48]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 8), (4, 8)])
def test_n_m(n, m):
  case = lambda key: GOLDEN[f"nm{n}_{m}_{key}"]
  # From O, I, H, W to H, W, I, O and from O, I to I, O.
  ours = {"conv": (2, 3, 1, 0), "lin": (1, 0)}
  for layer, order in ours.items():
    weights = jnp.asarray(case(f"{layer}_w").transpose(order))
    mask = pruning.n_m(pruning.magnitude(weights), n, m)
    expected = case(f"{layer}_mask").transpose(order)
    np.testing.assert_array_equal(mask, expected.astype(bool))
    assert float(pruning.sparsity(mask)) == 1 - case("level")
