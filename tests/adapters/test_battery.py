"""What must hold for every adapter, over a table of them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from effjax import adapters
from effjax.io import checkpoint
from tests.adapters.draws import KEY, close, draw, equal, start
from tests.pruning.test_battery import Equinox, Linen, Nnx, weights


def params_of(seed=0):
  """Make parameters of two types, with a scalar and an empty leaf."""
  conv, dense = draw(3, 3, 2, 4, seed=seed), draw(6, 4, seed=seed + 1)
  return {
    "conv": {"kernel": conv, "bias": draw(4)},
    "dense": {"kernel": dense.astype(jnp.bfloat16)},
    "scale": draw(),
    "empty": draw(0, 4),
    "count": np.zeros((2, 2), np.int32),
  }


WHERE = ".*kernel"


PARAMS = params_of()
# A third of the weights, the same number for any place of the ties.
MASKS = {
  **dict.fromkeys(PARAMS),
  "conv": {"kernel": draw(3, 3, 2, 4, seed=7) > 0.4, "bias": None},
  "dense": {"kernel": draw(6, 4, seed=8) > 0.4},
}


# Name -> adapter, and whether it begins as the identity bit for bit.
TABLE = {
  "lora": (adapters.lora(2, alpha=3, where=WHERE), True),
  "pissa": (adapters.ADAPTERS["pissa"](2, alpha=3, where=WHERE), False),
  "dora": (adapters.dora(2, alpha=3, where=WHERE), False),
  "ia3": (
    adapters.ia3([("conv.*", "outputs"), (".*", "inputs")], where=WHERE),
    True,
  ),
  "shira": (adapters.shira(MASKS), True),
  "rosa": (adapters.rosa(2, MASKS, alpha=3), True),
  "chain": (
    adapters.chain(
      adapters.lora(1, where=WHERE),
      adapters.ia3(where="dense/kernel"),
      adapters.dora(2, where="conv/kernel"),
    ),
    False,
  ),
  "masked": (
    adapters.masked(adapters.lora(2, where=WHERE), MASKS),
    False,
  ),
}
every = pytest.mark.parametrize("name", TABLE)


@functools.cache
def begin(name):
  return jax.jit(TABLE[name][0].init)(KEY, PARAMS)


@functools.cache
def program(name):
  """Compile applying, merging and gradients of a sum of squares."""
  adapter, fixed = TABLE[name][0], begin(name)[1]

  def loss(params, theta):
    out = adapter.apply(params, theta, fixed)
    squares = lambda x: jnp.sum(x.astype(jnp.float32) ** 2)
    return sum(map(squares, jax.tree.leaves(out))), out

  both = jax.grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
  return jax.jit(lambda p, t: (*both(p, t), adapter.merge(p, t, fixed)))


@every
def test_theta_is_a_flat_dict_of_floating_arrays(name):
  theta, fixed = begin(name)
  paths = {"conv/kernel", "dense/kernel"}
  assert {key.rpartition("/")[0] for key in theta} == paths
  for x in theta.values():
    assert x.dtype == jnp.float32
  for x in fixed.values():
    assert x.dtype in (jnp.float32, jnp.int32)
  roles = {"lora_a", "lora_b", "magnitude", "gains", "sparse"}
  assert set(adapters.labels(theta).values()) <= roles
  sizes = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  moments = sizes(jax.eval_shape(optax.adam(1e-3).init, theta))
  assert moments == 2 * sizes(theta) + 1


@every
def test_begins_as_the_identity(name):
  params = jax.tree.map(np.asarray, PARAMS)
  if name == "masked":
    zero = lambda w, m: np.where(m, w, np.zeros((), w.dtype))
    for layer in ("conv", "dense"):
      kernel, mask = params[layer]["kernel"], MASKS[layer]["kernel"]
      params[layer] = {**params[layer], "kernel": zero(kernel, mask)}
  theta = jax.tree.map(np.asarray, begin(name)[0])
  out = program(name)(params, theta)[-1]
  if TABLE[name][1]:
    return equal(out, params)
  return close(out, params, rtol=4e-7, atol=1e-6)


@every
def test_merging_is_applying_and_the_rest_stays(name):
  theta, _ = start(TABLE[name][0], PARAMS)
  before = jax.tree.map(np.array, (PARAMS, theta))
  _, applied, merged = program(name)(PARAMS, theta)
  equal((jax.tree.map(np.asarray, PARAMS), theta), before)
  equal(applied, merged)
  for layer in ("conv", "dense"):
    one, two = (p[layer].pop("kernel") for p in (merged, before[0]))
    assert one.dtype == two.dtype
    assert np.any(one != two)
  equal(merged, before[0])
  assert program(name)._cache_size() == 1


@every
def test_only_theta_has_gradients(name):
  (of_params, of_theta), *_ = program(name)(
    PARAMS, start(TABLE[name][0], PARAMS)[0]
  )
  for leaf in jax.tree.leaves(of_params):
    assert leaf.dtype == jax.dtypes.float0 or not np.any(leaf)
  for key, leaf in of_theta.items():
    assert np.any(leaf), key


def test_eager_is_compiled():
  adapter = TABLE["lora"][0]
  theta, fixed = adapter.init(KEY, PARAMS)
  equal((theta, fixed), begin("lora"))
  theta, _ = start(adapter, PARAMS)
  compiled = program("lora")(PARAMS, theta)[-1]
  kernel = lambda params: params["conv"]["kernel"]
  close(
    kernel(adapter.merge(PARAMS, theta, fixed)), kernel(compiled), rtol=1e-6
  )


@pytest.mark.parametrize("name", ["dora", "rosa"])
def test_vmap_equals_a_loop(name):
  adapter, (_, fixed) = TABLE[name][0], begin(name)
  members = [start(adapter, PARAMS, seed)[0] for seed in (1, 2)]
  stacked = jax.tree.map(lambda *x: np.stack(x), *members)
  many = jax.jit(jax.vmap(adapter.apply, in_axes=(None, 0, None)))
  together = many(PARAMS, stacked, fixed)
  for i, member in enumerate(members):
    alone = program(name)(PARAMS, member)[1]
    kernel = lambda params: np.asarray(params["conv"]["kernel"])
    close(kernel(together)[i], kernel(alone), rtol=2e-6)


def test_checkpoints(tmp_path):
  saved = begin("rosa")
  checkpoint.save(tmp_path / "theta", saved)
  equal(checkpoint.load(tmp_path / "theta", saved), saved)


@functools.cache
def frameworks():
  """The same numbers in four frameworks; equinox has [O, I]."""
  params = {
    "first": {"kernel": draw(4, 8), "bias": draw(8)},
    "second": {"kernel": draw(8, 4), "bias": draw(4)},
  }
  # Its own parameters come as linen makes them.
  shapes = jax.eval_shape(Linen().init, KEY, np.ones((1, 4), np.float32))
  linen = jax.tree.map(lambda _, p: p, shapes["params"], params)
  with jax.numpy_dtype_promotion("standard"):
    module = nnx.eval_shape(lambda: Nnx(nnx.Rngs(0)))
  state = nnx.split(module)[1]
  nnx.replace_by_pure_dict(state, params)
  shape = eqx.filter_eval_shape(eqx.nn.Linear, 4, 8, key=KEY)
  linear = lambda p: eqx.tree_at(
    lambda x: (x.weight, x.bias), shape, (p["kernel"].T, p["bias"])
  )
  own = Equinox(linear(params["first"]), jax.nn.relu, linear(params["second"]))
  return {
    "dict": params,
    "linen": linen,
    "nnx state": state,
    "nnx dict": nnx.to_pure_dict(state),
    "equinox": own,
  }


# Made for a tree, as masks have its structure.
FRAMEWORK_TABLE = {
  "lora": lambda tree: adapters.lora(2, alpha=3),
  "dora": lambda tree: adapters.dora(2),
  "ia3": lambda tree: adapters.ia3("inputs"),
  "rosa": lambda tree: adapters.rosa(
    1,
    jax.tree.map(
      lambda w: np.asarray(w) > 0.5 if getattr(w, "ndim", 0) == 2 else None,
      tree,
    ),
  ),
}


@functools.cache
def merged_in(framework):
  """Kernels that each adapter makes of the same theta, as [I, O]."""
  tree = frameworks()[framework]
  work = []
  for make in FRAMEWORK_TABLE.values():
    adapter = make(tree)
    theta, fixed = start(adapter, tree)
    theta = {
      key: np.sin(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
      for key, x in theta.items()
    }
    for key in [key for key in theta if key.endswith("sparse")]:
      # Values by place, and places lie in the order of each kernel.
      places = np.asarray(fixed[key.replace("sparse", "indices")])
      inputs, outputs = (4, 8) if key.startswith("first") else (8, 4)
      if framework == "equinox":
        places = places % inputs * outputs + places // inputs
      theta[key] = np.cos(places).astype(np.float32)
    assert len(adapters.summary(tree, theta).rows) == 4
    work.append((adapter, theta, fixed))
  arrays, rest = eqx.partition(tree, eqx.is_array)

  @jax.jit
  def merge(arrays):
    whole = eqx.combine(arrays, rest)
    return [
      eqx.filter(adapter.merge(whole, theta, fixed), eqx.is_array)
      for adapter, theta, fixed in work
    ]

  return [w for found in merge(arrays) for w in weights(framework, found)]


@pytest.mark.parametrize("name", ["linen", "nnx state", "nnx dict", "equinox"])
def test_frameworks_agree(name):
  for ours, theirs in zip(merged_in("dict"), merged_in(name), strict=True):
    close(ours, theirs)
