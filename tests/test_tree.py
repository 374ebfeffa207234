import re

import equinox as eqx
import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from effjax import tree as trees

TREE = {
  "block_1": {"conv": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.ones(4)}},
  "block_2": [{"kernel": jnp.ones((4, 4), jnp.bfloat16)}, jnp.ones(())],
  "ids": jnp.arange(6).reshape(2, 3),
  "function": jnp.tanh,
  "none": None,
  "number": 3.0,
}
NOTHING = {
  **dict.fromkeys(TREE),
  "block_1": {"conv": {"kernel": None, "bias": None}},
  "block_2": [{"kernel": None}, None],
}


def chosen(tree, where=None):
  """Names of the selected leaves."""
  picked = jax.tree.leaves(trees.select(tree, where))
  names = jax.tree.leaves(trees.names(tree))
  return [name for name, c in zip(names, picked, strict=True) if c]


def test_names():
  assert jax.tree.leaves(trees.names(TREE)) == [
    "block_1/conv/bias",
    "block_1/conv/kernel",
    "block_2/0/kernel",
    "block_2/1",
    "function",
    "ids",
    "number",
  ]
  assert jax.tree.structure(trees.names(TREE)) == jax.tree.structure(TREE)
  assert trees.names(jnp.ones(3)) == ""


def test_names_in_four_frameworks():
  class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(2, name="enc")(x)

  class Nnx(nnx.Module):
    def __init__(self, rngs):
      self.enc = nnx.Linear(3, 2, rngs=rngs)

  variables = Linen().init(jax.random.key(0), jnp.ones((1, 3)))
  both = ["enc/bias", "enc/kernel"]
  assert jax.tree.leaves(trees.names(variables["params"])) == both
  assert jax.tree.leaves(trees.names(variables))[0] == "params/enc/bias"
  with jax.numpy_dtype_promotion("standard"):
    state = nnx.split(Nnx(nnx.Rngs(0)))[1]
  assert jax.tree.leaves(trees.names(state)) == both
  assert jax.tree.leaves(trees.names(nnx.to_pure_dict(state))) == both
  module = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
  assert chosen(module) == ["layers/0/weight", "layers/1/weight"]
  assert chosen(module, ".*") == [
    "layers/0/weight",
    "layers/0/bias",
    "layers/1/weight",
    "layers/1/bias",
  ]
  picked = trees.select(module, ".*bias")
  assert isinstance(picked, eqx.nn.MLP)
  assert chosen(module, picked) == ["layers/0/bias", "layers/1/bias"]


def test_default_selection():
  assert chosen(TREE) == ["block_1/conv/kernel", "block_2/0/kernel"]
  assert trees.select(jnp.ones(3)) is True
  shapes = jax.eval_shape(lambda: {"w": jnp.ones((2, 2)), "b": jnp.ones(2)})
  assert trees.select(shapes) == {"w": True, "b": False}


def test_selectors():
  kernels = ["block_1/conv/kernel", "block_2/0/kernel"]
  assert chosen(TREE, ".*kernel") == kernels
  assert chosen(TREE, re.compile(r"block_\d/(conv|0)/kernel")) == kernels
  assert chosen(TREE, [".*conv/kernel", ".*/0/.*"]) == kernels
  assert chosen(TREE, lambda name, leaf: leaf.dtype == jnp.int32) == ["ids"]
  # Leaves that are no arrays are never selected.
  assert chosen(TREE, lambda name, leaf: True) == chosen(TREE, ".*")
  assert len(chosen(TREE, ".*")) == 5
  assert chosen(TREE, jax.tree.map(lambda _: True, TREE)) == chosen(TREE, ".*")
  bools = {
    **NOTHING,
    "block_1": {"conv": {"kernel": np.True_, "bias": False}},
  }
  assert chosen(TREE, bools) == ["block_1/conv/kernel"]


def test_bools_for_a_tree_with_gaps():
  # Scores are None where a leaf of the parameters has none.
  tree, where = {"a": None, "b": jnp.ones(2)}, {"a": False, "b": True}
  assert trees.select(tree, where) == {"a": None, "b": True}
  with pytest.raises(ValueError, match="chooses 'a', which is None"):
    trees.select(tree, {"a": True, "b": True})


@pytest.mark.parametrize(
  ("where", "words"),
  [
    ("kernel", "matches no leaf .* the nearest names are .*kernel"),
    ("blok_1/conv/kernel", "nearest names are block_1/conv/kernel"),
    ([".*bias", "x"], "'x' matches no leaf"),
    ("*kernel", "not a regular expression: nothing to repeat"),
    (".*function", "matches no leaf"),
    (lambda name, leaf: False, "chooses none of the leaves"),
    ([], "chooses none"),
    (jax.tree.map(lambda _: False, TREE), "chooses none"),
    ({"x": True}, "does not have the structure"),
    ({**NOTHING, "ids": [True]}, "list at 'ids'"),
    ({**NOTHING, "ids": 1}, "int at 'ids'"),
  ],
)
def test_selectors_that_are_mistakes(where, words):
  with pytest.raises(ValueError, match=words):
    trees.select(TREE, where)


def test_a_tree_without_arrays():
  for tree in ({}, None, {"a": 1.0, "b": None}):
    with pytest.raises(ValueError, match="holds no arrays"):
      trees.select(tree)


def test_assign():
  rules = [(".*conv/.*", 1), (re.compile(".*kernel"), 2), (".*", None)]
  values = trees.assign(TREE, rules)
  assert values["block_1"] == {"conv": {"kernel": 1, "bias": 1}}
  assert values["block_2"] == [{"kernel": 2}, None]
  assert values["ids"] is values["function"] is values["number"] is None
  with pytest.raises(ValueError, match="no rule covers the leaf 'block_2/1'"):
    trees.assign(TREE, [(".*(kernel|bias)", 0)])
  with pytest.raises(ValueError, match="not a regular"):
    trees.assign(TREE, [("*", 0)])


@pytest.mark.parametrize("where", [None, ".*", ".*bias"])
def test_partition_and_combine(where):
  picked, rest = trees.partition(TREE, where)
  assert len(jax.tree.leaves(picked)) == len(chosen(TREE, where))
  back = trees.combine(picked, rest)
  assert jax.tree.structure(back) == jax.tree.structure(TREE)
  assert all(
    one is two
    for one, two in zip(*map(jax.tree.leaves, (back, TREE)), strict=True)
  )


def test_partition_of_a_module():
  module = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
  weights, rest = trees.partition(module, ".*weight")
  x = jnp.ones(2)
  # A training function over the weights alone.
  loss = lambda w: jnp.sum(trees.combine(w, rest)(x))
  grads = jax.grad(loss)(weights)
  assert float(loss(weights)) == float(jnp.sum(module(x)))
  assert grads.layers[0].bias is None
  assert grads.layers[0].weight.shape == (4, 2)


def test_align():
  kernel = {"conv": {"kernel": "k", "bias": None}}
  other = {**NOTHING, "ids": "here", "block_1": kernel}
  aligned = trees.align(TREE, other)
  assert aligned == [None, "k", None, None, None, "here", None]
  with pytest.raises(ValueError, match=r"the mask tree does not have .* 'b'"):
    trees.align({"b": jnp.ones(1)}, {"c": 1}, "mask tree")


def test_keys_belong_to_names():
  key = jax.random.key(1)
  keys = trees.keys(key, TREE)
  assert jax.tree.structure(keys) == jax.tree.structure(TREE)
  data = [jax.random.key_data(k).tolist() for k in jax.tree.leaves(keys)]
  assert len({tuple(d) for d in data}) == len(data)
  fewer = trees.keys(key, {"ids": 1, "number": 2, "other": 3})
  same = lambda a, b: (jax.random.key_data(a) == jax.random.key_data(b)).all()
  assert same(fewer["ids"], keys["ids"])
  assert not same(trees.keys(jax.random.key(2), TREE)["ids"], keys["ids"])


def test_nearest():
  known = ["dense/kernel", "dense/bias", "conv/kernel", "dense/kernel"]
  assert trees.nearest("dense/kernl", known)[0] == "dense/kernel"
  assert len(trees.nearest("dense/kernl", known)) == 3
  assert trees.nearest("x", []) == []


def test_empty_nodes_stand_for_leaves():
  tree = {"a": jnp.ones(2), "b": jnp.ones(2), "c": 1.0}
  assert trees.align(tree, {"a": optax.MaskedNode(), "b": 3, "c": ()}) == [
    None,
    3,
    None,
  ]


def test_errors_show_no_arrays():
  params = {"a": {"kernel": jnp.ones((40, 40)), "bias": jnp.ones(40)}}
  other = flax.core.freeze(params)
  with pytest.raises(ValueError, match="does not have the structure") as info:
    trees.align(params, other)
  assert len(str(info.value)) < 300
  with pytest.raises(ValueError, match="does not choose the array, of int32"):
    trees.select(jnp.arange(3))
