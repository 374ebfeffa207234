"""What must hold for every adapter, over a table of them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from effjax import adapters, pruning
from effjax.io import checkpoint

KEY = jax.random.key(0)


def draw(seed=0):
  """Make parameters of two types, with a scalar and an empty leaf."""
  rng = np.random.default_rng(seed)
  make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {
    "conv": {"kernel": make(3, 3, 2, 4), "bias": make(4)},
    "dense": {"kernel": make(6, 4).astype(jnp.bfloat16)},
    "scale": make(),
    "empty": make(0, 4),
    "count": jnp.zeros((2, 2), jnp.int32),
  }


WHERE = ".*kernel"


def half(params, where=WHERE):
  return adapters.sparse_masks(params, 0.3, where=where)


def rosa(where=WHERE):
  return adapters.rosa(2, half(draw(), where), alpha=3)


# Name -> adapter, and whether it begins as the identity bit for bit.
TABLE = {
  "lora": (adapters.lora(2, alpha=3, where=WHERE), True),
  "rslora": (
    adapters.ADAPTERS["rslora"](rank=[("conv.*", 4), (".*", 2)], where=WHERE),
    True,
  ),
  "gaussian": (adapters.lora(2, where=WHERE, initial="gaussian"), True),
  "pissa": (adapters.ADAPTERS["pissa"](2, alpha=3, where=WHERE), True),
  "olora": (adapters.ADAPTERS["olora"](2, alpha=3, where=WHERE), True),
  "dora": (adapters.dora(2, alpha=3, where=WHERE), False),
  "dora of pissa": (adapters.dora(2, where=WHERE, initial="pissa"), False),
  "ia3": (
    adapters.ia3([("conv.*", "outputs"), (".*", "inputs")], where=WHERE),
    True,
  ),
  "shira": (adapters.shira(half(draw())), True),
  "rosa": (rosa(), True),
  "chain": (
    adapters.chain(
      adapters.lora(1, where=WHERE),
      adapters.ia3(where="dense/kernel"),
      adapters.dora(2, where="conv/kernel"),
    ),
    False,
  ),
  "masked": (
    adapters.masked(adapters.lora(2, where=WHERE), half(draw())),
    False,
  ),
}
every = pytest.mark.parametrize("name", TABLE)


def moved(theta, seed=1):
  """Move theta away from where it begins."""
  rng = np.random.default_rng(seed)
  return {
    key: x + jnp.asarray(rng.normal(size=x.shape) * 0.3, x.dtype)
    for key, x in sorted(theta.items())
  }


@functools.cache
def start(name):
  theta, fixed = TABLE[name][0].init(KEY, draw())
  return theta, fixed


@functools.cache
def program(name):
  """Compile what applying gives, with gradients of a sum of its squares."""
  apply, fixed = TABLE[name][0].apply, start(name)[1]

  def loss(params, theta):
    out = apply(params, theta, fixed)
    squares = lambda x: jnp.sum(x.astype(jnp.float32) ** 2)
    return sum(map(squares, jax.tree.leaves(out))), out

  both = jax.grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
  return jax.jit(both)


def same(one, two, rtol=0.0, atol=0.0):
  assert jax.tree.structure(one) == jax.tree.structure(two)
  for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
    assert a.dtype == b.dtype
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@every
def test_theta_is_a_flat_dict_of_floating_arrays(name):
  theta, fixed = start(name)
  paths = {"conv/kernel", "dense/kernel"}
  assert {key.rpartition("/")[0] for key in theta} == paths
  for x in theta.values():
    assert x.dtype == jnp.float32
  again = TABLE[name][0].init(KEY, draw())
  same((theta, fixed), again)
  assert set(adapters.labels(theta).values()) <= {
    "lora_a",
    "lora_b",
    "magnitude",
    "gains",
    "sparse",
  }


@every
def test_begins_as_the_identity(name):
  params = draw()
  if name == "masked":
    params = pruning.apply_mask(params, half(params))
  out = TABLE[name][0].merge(params, *start(name))
  same(out, params, rtol=0 if TABLE[name][1] else 4e-7, atol=0)


@every
def test_merging_is_applying_and_the_rest_stays(name):
  adapter, (theta, fixed) = TABLE[name][0], start(name)
  params, theta = draw(), moved(theta)
  before = jax.tree.map(np.array, (params, theta))
  _, applied = program(name)(params, theta)
  merged = adapter.merge(params, theta, fixed)
  jax.tree.map(np.testing.assert_array_equal, (params, theta), before)
  kernels = lambda p: [p["conv"]["kernel"], p["dense"]["kernel"]]
  same(kernels(applied)[:1], kernels(merged)[:1], rtol=2e-6, atol=1e-6)
  same(kernels(applied)[1:], kernels(merged)[1:], rtol=1e-2)
  for i, kernel in enumerate(kernels(params)):
    assert kernels(merged)[i].dtype == kernel.dtype
    assert np.any(kernels(merged)[i] != kernel)
  rest = lambda p: (p["conv"]["bias"], p["scale"], p["empty"], p["count"])
  same(rest(applied), rest(params))
  same(rest(merged), rest(params))


@every
def test_only_theta_has_gradients(name):
  theta, _ = start(name)
  (of_params, of_theta), _ = program(name)(draw(), moved(theta))
  for leaf in jax.tree.leaves(of_params):
    assert leaf.dtype == jax.dtypes.float0 or not np.any(leaf)
  for key, leaf in of_theta.items():
    assert np.any(leaf), key
  assert program(name)._cache_size() == 1
  sizes = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  moments = sizes(jax.eval_shape(optax.adam(1e-3).init, theta))
  assert moments == 2 * sizes(theta) + 1


@pytest.mark.parametrize("name", ["pissa", "dora", "rosa", "chain"])
def test_vmap_equals_a_loop(name):
  theta, fixed = start(name)
  params = draw()
  members = [moved(theta, seed) for seed in (1, 2)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *members)
  many = jax.jit(jax.vmap(TABLE[name][0].apply, in_axes=(None, 0, None)))
  together = many(params, stacked, fixed)
  for i, member in enumerate(members):
    _, alone = program(name)(params, member)
    mine = jax.tree.map(lambda x, i=i: x[i], together)
    kernel = lambda p: p["conv"]["kernel"]
    same(kernel(mine), kernel(alone), rtol=2e-6, atol=1e-6)


def test_checkpoints(tmp_path):
  saved = start("rosa")
  checkpoint.save(tmp_path / "theta", saved)
  same(checkpoint.load(tmp_path / "theta", saved), saved)


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
  return {
    "dict": jax.tree.map(np.asarray, dict(params)),
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


# Made for a tree, as masks have its structure.
FRAMEWORK_TABLE = {
  "lora": lambda tree: adapters.lora(2, alpha=3),
  "dora": lambda tree: adapters.dora(2),
  "ia3": lambda tree: adapters.ia3("inputs"),
  "rosa": lambda tree: adapters.rosa(
    1, adapters.sparse_masks(pruning.magnitude(tree), 0.25)
  ),
}


@functools.cache
def merged_in(framework):
  """Kernels that each adapter makes of the same theta, as [I, O]."""
  tree = frameworks()[framework]
  found = []
  for make in FRAMEWORK_TABLE.values():
    adapter = make(tree)
    theta, fixed = adapter.init(KEY, tree)
    assert len(adapters.summary(tree, theta).rows) == 4
    theta = {
      key: jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
      for key, x in theta.items()
    }
    for key in [key for key in theta if key.endswith("sparse")]:
      places = fixed[key.replace("sparse", "indices")]
      width = {"first": (4, 8), "second": (8, 4)}[key.split("/")[0]]
      if framework == "equinox":
        rows, columns = places % width[0], places // width[0]
        places = rows * width[1] + columns
      theta[key] = jnp.cos(places.astype(jnp.float32))
    merged = adapter.merge(tree, theta, fixed)
    assert jax.tree.structure(merged) == jax.tree.structure(tree)
    found += weights(framework, merged)
  return found


@pytest.mark.parametrize("name", ["linen", "nnx state", "nnx dict", "equinox"])
def test_frameworks_agree(name):
  for ours, theirs in zip(merged_in("dict"), merged_in(name), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
