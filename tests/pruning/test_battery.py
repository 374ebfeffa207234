"""What must hold for every score, mask and transform, over a table of them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from effjax import pruning
from effjax.io import checkpoint

KEY = jax.random.key(0)
SHAPES = {
  "conv": {"kernel": (4, 6), "bias": (6,)},
  "scale": (),
  "empty": (0, 4),
}
is_shape = lambda x: isinstance(x, tuple)


def draw(seed=0, dtype=jnp.bfloat16):
  """Make parameters of two types, with ties, a scalar and an empty leaf."""
  rng = np.random.default_rng(seed)
  make = lambda s: jnp.asarray(rng.normal(size=s).round(1), dtype)
  params = jax.tree.map(make, SHAPES, is_leaf=is_shape)
  params["conv"]["kernel"] = params["conv"]["kernel"].astype(jnp.float32)
  return params


def everywhere(params):
  return jax.tree.map(lambda p: jnp.abs(p) > 0.3, params)


def updated(optimizer):
  """Make a function of parameters of one update of them."""

  def step(params):
    state = optimizer.init(params)
    gradients = jax.tree.map(lambda p: p * jnp.asarray(0.5, p.dtype), params)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates)

  return step


SCORES = {
  "magnitude": pruning.magnitude,
  "random": functools.partial(pruning.random, KEY),
  "taylor": lambda p: pruning.taylor(p, p),
  "fisher": lambda p: pruning.fisher(p, p),
}
MASKS = {
  "topk": lambda p: pruning.topk(p, 0.6, where=".*"),
  "topk along": lambda p: pruning.topk(p, 0.5, axis=0),
  "global_topk": lambda p: pruning.global_topk(p, 0.6, where=".*"),
  "reference": lambda p: pruning.global_topk(p, 0.6, convention="reference"),
  "n_m": lambda p: pruning.n_m(p, 2, 4, where="conv/kernel"),
}
SAME = {
  "apply_mask": lambda p: pruning.apply_mask(p, everywhere(p)),
  "straight_through": lambda p: pruning.straight_through(p, everywhere(p)),
  "prune": updated(pruning.prune(pruning.one_shot(0.6))),
  "prune by layer": updated(
    pruning.prune(pruning.one_shot(0.6), mask="layer", regrow=True)
  ),
  "dynamic": updated(pruning.dynamic(KEY, pruning.constant(0.6, 0, 1, 1))),
}
TABLE = {**SCORES, **MASKS, **SAME}
every = pytest.mark.parametrize("name", TABLE)


@functools.cache
def compiled(name):
  return jax.jit(TABLE[name])


@functools.cache
def result(name):
  return compiled(name)(draw())


def same(one, two):
  assert jax.tree.structure(one) == jax.tree.structure(two)
  for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
    assert a.dtype == b.dtype
    # A fused product may round once less.
    np.testing.assert_allclose(
      np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=2e-7
    )


@every
def test_pure_and_the_same_compiled(name):
  params = draw()
  before = jax.tree.map(np.array, params)
  eager = TABLE[name](params)
  jax.tree.map(np.testing.assert_array_equal, params, before)
  same(eager, result(name))
  again = compiled(name)(params)
  jax.tree.map(np.testing.assert_array_equal, again, result(name))


@every
def test_compiled_once(name):
  for seed in range(3):
    compiled(name)(draw(seed))
  assert compiled(name)._cache_size() == 1


@every
def test_vmap_equals_a_loop(name):
  members = [draw(seed) for seed in range(3)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *members)
  together = jax.jit(jax.vmap(TABLE[name]))(stacked)
  for i, member in enumerate(members):
    same(jax.tree.map(lambda x, i=i: x[i], together), compiled(name)(member))


@every
def test_structure_shape_and_type(name):
  params, out = draw(), result(name)
  leaves, treedef = jax.tree.flatten(params)
  found = treedef.flatten_up_to(out)
  for leaf, x in zip(leaves, found, strict=True):
    if x is None:
      assert name in MASKS
      continue
    assert x.shape == leaf.shape
    if name in SCORES:
      assert x.dtype == jnp.float32
    else:
      assert x.dtype == (bool if name in MASKS else leaf.dtype)


@pytest.mark.parametrize("name", ["apply_mask", "straight_through"])
def test_gradients(name):
  loss = lambda p: sum(
    jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(p)
  )
  params = draw()
  grads = jax.grad(lambda p: loss(SAME[name](p)))(params)
  masks = everywhere(params)
  for g, m in zip(*map(jax.tree.leaves, (grads, masks)), strict=True):
    expected = m if name == "apply_mask" else jnp.ones_like(m)
    np.testing.assert_array_equal(g.astype(jnp.float32), expected)


OPTIMIZERS = {
  "prune": lambda: optax.chain(
    optax.adam(0.1), pruning.prune(pruning.cubic(0.2, 0.8, 0, 3, 1))
  ),
  "regrow": lambda: pruning.prune(
    pruning.one_shot(0.5), mask="layer", regrow=True
  ),
  "dynamic": lambda: pruning.dynamic(
    KEY, pruning.constant(0.6, 0, 4, 1), grow="random"
  ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_checkpoints_of_states(name, tmp_path):
  optimizer = OPTIMIZERS[name]()
  params = draw(0, jnp.float32)

  @jax.jit
  def step(params, state):
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(params, state, params)
    return optax.apply_updates(params, updates), state

  saved = step(params, optimizer.init(params))
  checkpoint.save(tmp_path / "state", saved)
  loaded = checkpoint.load(tmp_path / "state", (params, optimizer.init(params)))
  data = lambda x: (
    jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  for one, two in ((saved, loaded), (step(*saved), step(*loaded))):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
      np.testing.assert_array_equal(data(a), data(b))
  masks = optax.tree.get(loaded[1], "mask")
  same(pruning.unpack(pruning.pack(masks), params), masks)


class Linen(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(8, name="first")(x))
    return nn.Dense(4, name="second")(x)


class Nnx(nnx.Module):
  def __init__(self, rngs):
    self.first = nnx.Linear(4, 8, rngs=rngs)
    self.second = nnx.Linear(8, 4, rngs=rngs)


class Equinox(eqx.Module):
  first: eqx.nn.Linear
  activation: object
  second: eqx.nn.Linear


@functools.cache
def frameworks():
  """The same numbers in four frameworks; equinox has [O, I]."""
  params = Linen().init(KEY, jnp.ones((1, 4)))["params"]
  with jax.numpy_dtype_promotion("standard"):
    module = Nnx(nnx.Rngs(0))
  state = nnx.split(module)[1]
  nnx.replace_by_pure_dict(state, params)
  linear = lambda i, o, p: eqx.tree_at(
    lambda x: (x.weight, x.bias),
    eqx.nn.Linear(i, o, key=KEY),
    (p["kernel"].T, p["bias"]),
  )
  own = Equinox(
    linear(4, 8, params["first"]), jax.nn.relu, linear(8, 4, params["second"])
  )
  plain = jax.tree.map(np.asarray, dict(params))
  return {
    "dict": plain,
    "linen": params,
    "nnx state": state,
    "nnx dict": nnx.to_pure_dict(state),
    "equinox": own,
  }


def weights(framework, tree):
  """The two kernels of any of them as [I, O]."""
  if framework == "equinox":
    return [np.asarray(tree.first.weight).T, np.asarray(tree.second.weight).T]
  leaf = lambda x: np.asarray(x.get_value() if hasattr(x, "get_value") else x)
  return [leaf(tree["first"]["kernel"]), leaf(tree["second"]["kernel"])]


@functools.cache
def masks_in(framework):
  """Masks, and weights masked by the first of them, as [I, O]."""
  tree = frameworks()[framework]
  scores = pruning.magnitude(tree)
  kernels, axis = ".*kernel", -2
  if framework == "equinox":
    kernels, axis = ".*weight", -1
  masks = [
    pruning.global_topk(scores, 0.7),
    pruning.topk(scores, pruning.erk(tree, 0.7), where=kernels),
    pruning.n_m(scores, 1, 4, axis=axis),
  ]
  masked = pruning.apply_mask(tree, masks[0])
  assert jax.tree.structure(masked) == jax.tree.structure(tree)
  assert float(pruning.sparsity(masks[0])) == pytest.approx(0.7, abs=0.01)
  assert len(pruning.summary(tree, masks[0]).layers) == 4
  return [weights(framework, t) for t in (*masks, masked)]


@pytest.mark.parametrize("name", ["nnx state", "nnx dict", "linen", "equinox"])
def test_frameworks_agree(name):
  for ours, theirs in zip(masks_in("dict"), masks_in(name), strict=True):
    for one, two in zip(ours, theirs, strict=True):
      np.testing.assert_array_equal(one, two)
