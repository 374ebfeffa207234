import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import pruning
from effjax.pruning import search
from tests.pruning import brute

RNG = np.random.default_rng(0)
SHAPES = {"a": {"kernel": (6, 5), "bias": (5,)}, "b": {"kernel": (5, 4)}}
SIZE = 50
is_shape = lambda x: isinstance(x, tuple)


def normal(seed=0, dtype=jnp.float32, shapes=SHAPES):
  rng = np.random.default_rng(seed)
  make = lambda shape: jnp.asarray(rng.normal(size=shape), dtype)
  return jax.tree.map(make, shapes, is_leaf=is_shape)


def kernels(tree):
  return [tree["a"]["kernel"], tree["b"]["kernel"]]


def masks_of(state):
  return optax.tree.get(state, "mask")


def apply(params, updates):
  # Optax adds numbers of different types.
  with jax.numpy_dtype_promotion("standard"):
    return optax.apply_updates(params, updates)


def train(optimizer, params, steps, *, gradients=None, grads=False):
  """Return [(params, masks)] after every step, all with one compiled update."""

  @jax.jit
  def step(params, state, gradient):
    extra = {"grads": gradient} if grads else {}
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(gradient, state, params, **extra)
    return apply(params, updates), state

  gradients = gradients or (lambda i, params: normal(100 + i))
  state, history = optimizer.init(params), []
  for i in range(steps):
    params, state = step(params, state, gradients(i, params))
    history.append((params, masks_of(state)))
  assert step._cache_size() == 1
  return history


def assert_sparse(params, masks, kept):
  assert masks["a"]["bias"] is None
  total = 0
  for p, m in zip(kernels(params), kernels(masks), strict=True):
    np.testing.assert_array_equal(np.asarray(p) != 0, m)
    total += int(m.sum())
  assert total == kept


@pytest.mark.parametrize("narrow", ["params", "updates", "both", "neither"])
def test_pruned_weights_are_exactly_zero(narrow):
  half = lambda which: narrow in (which, "both")
  params = normal(0, jnp.bfloat16 if half("params") else jnp.float32)
  updates = normal(1, jnp.bfloat16 if half("updates") else jnp.float32)
  optimizer = pruning.prune(pruning.one_shot(0.7))
  ((after, masks),) = train(
    optimizer, params, 1, gradients=lambda i, params: updates
  )
  assert_sparse(after, masks, brute.kept(SIZE, 0.7))
  expected = apply(params, updates)
  for p, e, m in zip(*map(kernels, (after, expected, masks)), strict=True):
    assert p.dtype == params["b"]["kernel"].dtype
    np.testing.assert_array_equal(p, jnp.where(m, e, 0))
  np.testing.assert_array_equal(after["a"]["bias"], expected["a"]["bias"])


OPTIMIZERS = {
  "momentum": lambda last: optax.chain(optax.sgd(0.1, momentum=0.9), last),
  "adam": lambda last: optax.chain(optax.adam(0.05), last),
  "adamw": lambda last: optax.chain(optax.adamw(0.05, weight_decay=0.1), last),
  "clipped": lambda last: optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(0.05), last
  ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_whole_schedule_without_regrowth(name):
  schedule = pruning.cubic(0.1, 0.9, 2, 8, 3)
  optimizer = OPTIMIZERS[name](pruning.prune(schedule))
  history = train(optimizer, normal(), 11)
  levels = dict(zip(schedule.steps, schedule.levels, strict=True))
  kept, before = SIZE, None
  for step, (params, masks) in enumerate(history):
    kept = brute.kept(SIZE, levels[step]) if step in levels else kept
    assert_sparse(params, masks, kept)
    if before is not None:
      for now, last in zip(*map(kernels, (masks, before)), strict=True):
        assert not (now & ~last).any()
    before = masks


def test_the_smallest_weights_that_enter_the_update_go():
  params, gradient = normal(), normal(100)
  optimizer = optax.chain(
    optax.sgd(0.1), pruning.prune(pruning.one_shot(0.6, 1))
  )
  (first, none), (second, masks) = train(optimizer, params, 2)
  assert all(m.all() for m in kernels(none))
  expected = brute.largest(
    [np.abs(k) for k in kernels(first)], brute.kept(SIZE, 0.6)
  )
  for mask, q, e in zip(*map(kernels, (masks, second)), expected, strict=True):
    np.testing.assert_array_equal(mask, e)
    np.testing.assert_array_equal(np.asarray(q)[~e], 0)
  np.testing.assert_allclose(
    first["a"]["bias"], params["a"]["bias"] - 0.1 * gradient["a"]["bias"]
  )


def test_gradient_accumulation():
  schedule = pruning.cubic(0.2, 0.8, 0, 3, 1)
  inner = optax.chain(optax.adamw(0.05), pruning.prune(schedule))
  optimizer = optax.MultiSteps(inner, every_k_schedule=2)
  history = train(optimizer, normal(), 8)
  for step, (params, masks) in enumerate(history):
    # An update happens at every second call.
    done = (step + 1) // 2
    kept = brute.kept(SIZE, schedule.levels[done - 1]) if done else SIZE
    assert_sparse(params, masks, kept)


def test_regrow_scores_the_dense_weights():
  schedule = pruning.from_table([0, 2, 4], [0.5, 0.8, 0.6])
  optimizer = optax.chain(optax.sgd(0.5), pruning.prune(schedule, regrow=True))
  history = train(optimizer, normal(), 6)
  dense = [np.asarray(k) for k in kernels(normal())]
  levels = dict(zip(schedule.steps, schedule.levels, strict=True))
  regrown = 0
  for step, (params, masks) in enumerate(history):
    if step in levels:
      kept = brute.kept(SIZE, levels[step])
      expected = brute.largest([np.abs(d) for d in dense], kept)
    gradient = kernels(normal(100 + step))
    dense = [
      d - np.float32(0.5) * np.asarray(g)
      for d, g in zip(dense, gradient, strict=True)
    ]
    for p, m, e, d in zip(
      *map(kernels, (params, masks)), expected, dense, strict=True
    ):
      np.testing.assert_array_equal(m, e)
      np.testing.assert_allclose(p, np.where(e, d, 0), atol=1e-6)
      np.testing.assert_array_equal(np.asarray(p)[~e], 0)
    if step:
      pairs = zip(*map(kernels, (masks, history[step - 1][1])), strict=True)
      regrown += sum(int((now & ~old).sum()) for now, old in pairs)
  assert regrown > 0


def test_alternating_phases():
  schedule = pruning.alternating(0.8, 1, 7, sparse=2, dense=2)
  optimizer = optax.chain(optax.sgd(1.0), pruning.prune(schedule))
  history = train(optimizer, normal(), 9)
  sparse = [False, True, True, False, False, True, True, True, True]
  for (params, masks), is_sparse in zip(history, sparse, strict=True):
    assert_sparse(params, masks, brute.kept(SIZE, 0.8) if is_sparse else SIZE)
  # Weights that the dense phase revived may survive the next sparse one.
  first, last = history[2][1], history[-1][1]
  pairs = zip(*map(kernels, (last, first)), strict=True)
  assert any((now & ~old).any() for now, old in pairs)


@pytest.mark.parametrize("rule", [pruning.uniform, pruning.erk])
def test_layers_by_allocation(rule):
  params = normal()
  optimizer = pruning.prune(
    pruning.one_shot(0.6), mask="layer", allocation=rule
  )
  ((after, masks),) = train(optimizer, params, 1)
  shares = kernels(rule(params, 0.6))
  for k, m, p, share in zip(
    *map(kernels, (params, masks, after)), shares, strict=True
  ):
    (expected,) = brute.largest([np.abs(k)], brute.kept(k.size, share))
    np.testing.assert_array_equal(m, expected)
    np.testing.assert_array_equal(np.asarray(p)[~expected], 0)


def product(p, g):
  return np.abs(np.asarray(p) * np.asarray(g))


def square(p, g):
  return np.square(np.asarray(p) * np.asarray(g)) / 2


def check_score(score, expected, grads):
  # The updates that arrive differ from the gradients.
  optimizer = optax.chain(
    optax.scale_by_sign(), pruning.prune(pruning.one_shot(0.5), score=score)
  )
  ((_, masks),) = train(optimizer, normal(), 1, grads=grads)
  for m, e in zip(kernels(masks), brute.largest(expected, 25), strict=True):
    np.testing.assert_array_equal(m, e)


@pytest.mark.parametrize("grads", [True, False])
@pytest.mark.parametrize(
  ("score", "formula"), [("taylor", product), (pruning.fisher, square)]
)
def test_scores_of_gradients(score, formula, grads):
  arriving = normal(100) if grads else jax.tree.map(jnp.sign, normal(100))
  pairs = zip(*map(kernels, (normal(), arriving)), strict=True)
  check_score(score, [formula(p, g) for p, g in pairs], grads)


def test_scores_of_weights():
  key = jax.random.key(5)
  drawn = kernels(pruning.random(key, normal()))
  check_score(functools.partial(pruning.random, key), drawn, False)
  negative = lambda params: jax.tree.map(jnp.negative, params)
  check_score(negative, kernels(negative(normal())), False)


def test_n_m_by_name():
  params = normal(shapes={"kernel": (8, 3), "bias": (3,)})
  optimizer = pruning.prune(pruning.one_shot(0.5), mask="2:4")
  updates, state = optimizer.update(params, optimizer.init(params), params)
  expected = brute.n_m(np.abs(params["kernel"]), 2, 4, -2)
  np.testing.assert_array_equal(masks_of(state)["kernel"], expected)
  after = apply(params, updates)
  np.testing.assert_array_equal(np.asarray(after["kernel"]) != 0, expected)


def test_a_mask_along_an_axis():
  params = normal(shapes={"kernel": (8, 3), "bias": (3,)})
  mask = functools.partial(pruning.topk, axis=0)
  optimizer = pruning.prune(pruning.one_shot(0.75), mask=mask)
  _, state = optimizer.update(params, optimizer.init(params), params)
  found = masks_of(state)["kernel"]
  expected = brute.largest_along(np.abs(params["kernel"]), 2, 0)
  np.testing.assert_array_equal(found, expected)


def test_moments_of_pruned_weights():
  params = normal()
  optimizer = optax.chain(optax.adam(0.1), pruning.prune(pruning.one_shot(0.5)))
  state = optimizer.init(params)
  with jax.numpy_dtype_promotion("standard"):
    _, state = jax.jit(optimizer.update)(normal(1), state, params)
  masks = masks_of(state)
  cleared = pruning.mask_moments(optimizer, state, masks)
  for name in ("mu", "nu"):
    before, after = (optax.tree.get(s, name) for s in (state, cleared))
    for b, a, m in zip(*map(kernels, (before, after, masks)), strict=True):
      np.testing.assert_array_equal(a, np.where(m, b, 0))
      assert np.asarray(b)[~np.asarray(m)].any()
    np.testing.assert_array_equal(before["a"]["bias"], after["a"]["bias"])
  for one, two in zip(
    *map(jax.tree.leaves, (state[1], cleared[1])), strict=True
  ):
    np.testing.assert_array_equal(one, two)


def test_populations_of_different_sparsity():
  levels = (0.2, 0.5, 0.9)
  chain = lambda level: optax.chain(
    optax.adam(0.05), pruning.prune(pruning.cubic(0.0, level, 0, 3, 1))
  )
  params = [normal(seed) for seed in range(3)]
  gradients = [normal(7 + seed) for seed in range(3)]

  def step(params, state, gradient):
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(gradient, state, params)
    return apply(params, updates), state

  def run(step, params, state, gradient):
    for _ in range(4):
      params, state = step(params, state, gradient)
    return params, masks_of(state)

  optimizer = chain(0.5)  # which one does not matter: the state knows
  states = [chain(s).init(p) for s, p in zip(levels, params, strict=True)]
  stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
  stacked = tuple(map(stack, (params, states, gradients)))
  alone = jax.jit(step)
  each = [run(alone, *m) for m in zip(params, states, gradients, strict=True)]
  assert alone._cache_size() == 1
  ways = {
    "map": jax.jit(lambda *a: jax.lax.map(lambda m: step(*m), a)),
    "vmap": jax.jit(jax.vmap(step)),
  }
  for way in ways.values():
    together = run(way, *stacked)
    for i, (own, own_masks) in enumerate(each):
      weights, masks = jax.tree.map(lambda x, i=i: x[i], together)
      assert_sparse(weights, masks, brute.kept(SIZE, levels[i]))
      for one, two in zip(*map(kernels, (masks, own_masks)), strict=True):
        np.testing.assert_array_equal(one, two)
      for one, two in zip(*map(kernels, (weights, own)), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-6, atol=1e-7)


def test_counts_that_float32_cannot_hold():
  size = 2**25 + 1
  params = {"w": np.broadcast_to(np.float32(1), (1, size))}
  state = pruning.prune(pruning.one_shot(0.3)).init(params)
  high, low = np.asarray(state.keep)[0, 0]
  assert int(high) * 65536 + int(low) == brute.kept(size, 0.3)
  assert int(np.float32(brute.kept(size, 0.3))) != brute.kept(size, 0.3)


def test_leaves_that_are_not_weights_pass():
  params = {
    "kernel": normal()["a"]["kernel"],
    "table": jnp.arange(6).reshape(2, 3),
    "none": None,
  }
  optimizer = pruning.prune(pruning.one_shot(0.5))
  updates, state = optimizer.update(params, optimizer.init(params), params)
  assert masks_of(state)["table"] is None
  np.testing.assert_array_equal(updates["table"], params["table"])
  assert int(masks_of(state)["kernel"].sum()) == 15


def test_an_equinox_module_with_functions():
  module = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
  optimizer = optax.chain(optax.sgd(0.1), pruning.prune(pruning.one_shot(0.5)))
  params, rest = eqx.partition(module, eqx.is_array)
  state = optimizer.init(params)
  grads = eqx.filter_grad(lambda m: jnp.sum(m(jnp.ones(3)) ** 2))(module)
  updates, state = jax.jit(optimizer.update)(grads, state, params)
  after = eqx.combine(apply(params, updates), rest)
  assert after(jnp.ones(3)).shape == (2,)
  zeros = sum(int((layer.weight == 0).sum()) for layer in after.layers)
  assert zeros == 10
  assert float(pruning.sparsity(masks_of(state))) == 0.5


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (
      lambda: pruning.prune(pruning.one_shot(0.5), score="magnitud"),
      "magnitude",
    ),
    (lambda: pruning.prune(pruning.one_shot(0.5), mask="globl"), "global"),
    (lambda: pruning.prune(0.9), r"a schedule is wanted, .*, not 0\.9"),
    (
      lambda: pruning.prune(pruning.one_shot(0.5), where="x").init(normal()),
      "matches no leaf",
    ),
    (
      lambda: pruning.prune(pruning.one_shot(0.5)).update(
        normal(), pruning.prune(pruning.one_shot(0.5)).init(normal())
      ),
      "prune needs the parameters",
    ),
    (
      lambda: pruning.prune(pruning.one_shot(0.5)).init({"bias": jnp.ones(3)}),
      "chooses none",
    ),
  ],
)
def test_mistakes(make, words):
  with pytest.raises(ValueError, match=words):
    make()


def test_a_schedule_without_steps_never_prunes():
  for mask in ("global", "layer", "channels"):
    optimizer = pruning.prune(pruning.from_table([], []), mask=mask)
    history = train(optimizer, normal(), 2)
    assert all(m.all() for m in kernels(history[-1][1]))


WRAPPED = {
  "masked": lambda last: optax.chain(
    optax.adam(0.1),
    optax.masked(
      last, {"a": {"kernel": True, "bias": False}, "b": {"kernel": False}}
    ),
  ),
  "partition": lambda last: optax.partition(
    {"sparse": optax.chain(optax.adam(0.1), last), "dense": optax.sgd(0.1)},
    {"a": {"kernel": "sparse", "bias": "dense"}, "b": {"kernel": "dense"}},
  ),
  "hyperparameters": lambda last: optax.inject_hyperparams(
    lambda rate: optax.chain(optax.adam(rate), last)
  )(rate=0.1),
  "finite": lambda last: optax.apply_if_finite(
    optax.chain(optax.adam(0.1), last), 2
  ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_inside_other_transforms(name):
  optimizer = WRAPPED[name](pruning.prune(pruning.one_shot(0.8, 1)))
  (_, _), (params, masks) = train(optimizer, normal(), 2)
  whole = name in ("hyperparameters", "finite")
  assert int(masks["a"]["kernel"].sum()) == (
    6 if not whole else int(np.count_nonzero(params["a"]["kernel"]))
  )
  again = pruning.apply_mask(params, masks)
  for one, two in zip(*map(jax.tree.leaves, (again, params)), strict=True):
    np.testing.assert_array_equal(one, two)
  assert float(pruning.sparsity(masks)) == pytest.approx(0.8)


def test_weights_that_are_not_finite():
  """As documented: a sum cannot make zero of an infinite weight."""
  params = {"w": jnp.array([[np.inf, 1.0, 2.0, np.nan]])}
  smallest = lambda p: jax.tree.map(lambda x: -jnp.abs(x), p)
  zeros = jax.tree.map(jnp.zeros_like, params)
  optimizer = pruning.prune(pruning.one_shot(0.5), score=smallest)
  updates, state = jax.jit(optimizer.update)(
    zeros, optimizer.init(params), params
  )
  after = optax.apply_updates(params, updates)["w"]
  assert not masks_of(state)["w"][0, 0]
  assert np.isnan(after[0, 0])
  clean = pruning.apply_mask({"w": after}, masks_of(state))["w"]
  assert np.isfinite(clean[0, :3]).all()


@pytest.mark.parametrize("mask", ["global", "layer"])
@pytest.mark.parametrize("score", ["magnitude", "taylor", "fisher"])
def test_an_update_stores_no_scores(monkeypatch, mask, score):
  # A program whose memory is large maps it anew at every step.
  monkeypatch.setattr(search, "_slices_pay", lambda: True)
  params = {"w": jnp.ones((1024, 2048)), "v": jnp.ones((2048, 512))}
  optimizer = optax.chain(
    optax.sgd(0.1),
    pruning.prune(pruning.constant(0.9, 0, 9, 1), score=score, mask=mask),
  )
  step = jax.jit(optimizer.update, donate_argnums=1)
  program = step.lower(params, optimizer.init(params), params).compile()
  weights = sum(w.size for w in params.values())
  # One byte for each entry of the new masks, and the joined remainders.
  assert program.memory_analysis().temp_size_in_bytes < 1.2 * weights


def test_fisher_averages_squared_gradients():
  rng = np.random.default_rng(3)
  params = {"w": jnp.asarray(rng.normal(size=(6, 7)), jnp.float32)}
  optimizer = pruning.prune(pruning.one_shot(0.5, 3), score="fisher")
  state = optimizer.init(params)
  squared = np.zeros((6, 7))
  for _ in range(4):
    grads = {"w": jnp.asarray(rng.normal(size=(6, 7)), jnp.float32)}
    squared = 0.99 * squared + 0.01 * np.asarray(grads["w"], float) ** 2
    updates, state = optimizer.update(grads, state, params, grads=grads)
    params = optax.apply_updates(params, updates)
    before = np.asarray(params["w"], float) - np.asarray(updates["w"], float)
  scores = 0.5 * before**2 * squared
  wanted = scores >= np.sort(scores.ravel())[21]
  np.testing.assert_array_equal(state.mask["w"], wanted)
  # The last gradient alone would choose others.
  last = np.abs(before * np.asarray(grads["w"], float))
  assert (wanted != (last >= np.sort(last.ravel())[21])).any()


@pytest.mark.parametrize(
  "make",
  [
    lambda: pruning.prune(pruning.one_shot(0.5), score="taylor"),
    lambda: pruning.prune(pruning.one_shot(0.5), score="fisher"),
    lambda: pruning.dynamic(jax.random.key(0), pruning.constant(0.5, 0, 10, 2)),
  ],
)
def test_frozen_leaves_beside_whole_gradients(make):
  params = {"a": jnp.arange(1.0, 17).reshape(4, 4), "f": jnp.ones((4, 4))}
  transforms = {
    "t": optax.chain(optax.sgd(0.1), make()),
    "z": optax.set_to_zero(),
  }
  optimizer = optax.multi_transform(transforms, {"a": "t", "f": "z"})
  grads = jax.tree.map(jnp.ones_like, params)
  updates, _ = optimizer.update(
    grads, optimizer.init(params), params, grads=grads
  )
  new = optax.apply_updates(params, updates)
  # Weights that grow begin at zero.
  assert int(jnp.sum(new["a"] == 0)) >= 8
  np.testing.assert_array_equal(new["f"], params["f"])
