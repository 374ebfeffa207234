"""Deltas: orientation, arithmetic, exact undoing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import editing, pruning

RNG = np.random.default_rng(0)
PARAMS = {
  "conv": {"kernel": RNG.normal(size=(3, 2, 4, 5)).astype(np.float32)},
  "dense": {
    "bias": RNG.normal(size=4).astype(np.float32),
    "kernel": RNG.normal(size=(6, 4)).astype(np.float32),
  },
  "steps": np.arange(3),
}
PARAMS = jax.tree.map(jnp.asarray, PARAMS)
MATRIX = RNG.normal(size=(4, 6)).astype(np.float32)


def same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_matrix_becomes_the_kernel_that_multiplies_as_it_does():
  x = RNG.normal(size=6).astype(np.float32)
  delta = editing.to_delta("dense/kernel", MATRIX)
  np.testing.assert_allclose(x @ delta["dense/kernel"], MATRIX @ x, rtol=1e-5)
  torch = editing.to_delta("dense/weight", MATRIX)
  np.testing.assert_array_equal(torch["dense/weight"], MATRIX)


def test_a_matrix_of_a_convolution_has_the_order_of_its_gram_matrix():
  kernel = PARAMS["conv"]["kernel"]
  matrix = pruning.kernel_to_matrix(kernel)
  delta = editing.to_delta("conv/kernel", matrix, shape=kernel.shape)
  np.testing.assert_array_equal(delta["conv/kernel"], kernel)
  torch = jnp.transpose(kernel, (3, 2, 0, 1))
  delta = editing.to_delta("conv/weight", matrix, shape=torch.shape)
  np.testing.assert_array_equal(delta["conv/weight"], torch)


@pytest.mark.parametrize(
  ("word", "axis"), [("biiio", 0), ("iiiob", 4), ("boiii", 0), ("biiiio", 0)]
)
def test_stacked_convolutions_have_the_order_of_single_ones(word, axis):
  single = {"biiiio": (3, 2, 2, 4, 5), "boiii": (5, 4, 3, 2)}
  shape = single.get(word, (3, 2, 4, 5))
  stacked = (*shape[:axis], 2, *shape[axis:])
  size = int(np.prod(shape)) // 5
  matrices = jnp.asarray(RNG.normal(size=(2, 5, size)), jnp.float32)
  found = editing.to_delta("k", matrices, shape=stacked, layout=word)["k"]
  inner = word.replace("b", "")
  for i in range(2):
    one = editing.to_delta("k", matrices[i], shape=shape, layout=inner)["k"]
    np.testing.assert_array_equal(jnp.take(found, i, axis), one)


def test_other_layouts():
  query = jnp.asarray(RNG.normal(size=(6, 2, 2)).astype(np.float32))
  delta = editing.to_delta(
    "query/kernel", query.reshape(6, 4).T, shape=(6, 2, 2), layout="ioo"
  )
  np.testing.assert_array_equal(delta["query/kernel"], query)
  stacked = jnp.asarray(RNG.normal(size=(3, 6, 4)).astype(np.float32))
  delta = editing.to_delta(
    "k", jnp.swapaxes(stacked, 1, 2), shape=(3, 6, 4), layout="bio"
  )
  np.testing.assert_array_equal(delta["k"], stacked)


def test_task_vectors():
  tuned = jax.tree.map(lambda x: 2 * np.asarray(x), PARAMS)
  vector = jax.jit(editing.task_vector)(PARAMS, tuned)
  assert vector.keys() == {"conv/kernel", "dense/bias", "dense/kernel"}
  same(editing.add(PARAMS, vector)["dense"], tuned["dense"])
  forgotten = editing.add(PARAMS, vector, -1.0)
  assert not np.asarray(forgotten["dense"]["kernel"]).any()
  some = editing.task_vector(PARAMS, tuned, where=".*bias")
  assert list(some) == ["dense/bias"]
  with pytest.raises(ValueError, match="dense/bias"):
    editing.task_vector(
      PARAMS, {**tuned, "dense": {"bias": jnp.ones(3), "kernel": MATRIX.T}}
    )


def test_undoing_is_exact():
  delta = editing.to_delta("dense/kernel", MATRIX * 1e-3)
  delta["dense/bias"] = jnp.full(4, 1e-8)
  narrow = {
    name: jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS[name])
    for name in ("dense", "conv")
  }
  for params in (PARAMS, narrow):
    edited, record = editing.apply(params, delta)
    changed = edited["dense"]["kernel"] - params["dense"]["kernel"]
    assert np.asarray(changed).any()
    assert edited["dense"]["kernel"].dtype == params["dense"]["kernel"].dtype
    same(edited["conv"], params["conv"])
    same(editing.undo(edited, record), params)
  # Subtracting is not: what was lost in rounding stays lost.
  edited, record = editing.apply(PARAMS, delta, 1e5)
  nearly = editing.add(edited, delta, -1e5)["dense"]["kernel"]
  assert np.asarray(nearly != PARAMS["dense"]["kernel"]).any()
  # In the order of a stack only, for the same leaves.
  twice, second = editing.apply(edited, delta, scale=2.0)
  with pytest.raises(ValueError, match="later"):
    editing.undo(twice, record)
  same(editing.undo(editing.undo(twice, second), record), PARAMS)
  there_and_back = jax.jit(lambda p: editing.undo(*editing.apply(p, delta)))
  same(there_and_back(PARAMS), PARAMS)


def test_algebra():
  delta = editing.to_delta("dense/kernel", MATRIX)
  other = {"dense/bias": jnp.ones(4)}
  whole = editing.total(delta, other, editing.scaled(delta, 0.5))
  np.testing.assert_allclose(whole["dense/kernel"], 1.5 * MATRIX.T, rtol=1e-6)
  np.testing.assert_array_equal(whole["dense/bias"], np.ones(4))


def test_scaling_rounds_once():
  x = jnp.arange(1, 200, dtype=jnp.bfloat16)
  for scaled in (editing.scaled, jax.jit(editing.scaled)):
    found = scaled({"b": x}, 0.1)["b"]
    assert found.dtype == jnp.bfloat16
    once = (np.float32(0.1) * np.asarray(x, np.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(found, once)


@pytest.mark.parametrize(
  ("wrong", "words"),
  [
    (lambda: editing.add(PARAMS, {"dense/kernal": MATRIX}), "dense/kernel"),
    (lambda: editing.add(PARAMS, {"dense/kernel": MATRIX}), "shape"),
    (lambda: editing.add(PARAMS, {"steps": jnp.ones(3)}), "int32"),
    (lambda: editing.to_delta("k", jnp.ones(3)), r"\[O, I\]"),
    (lambda: editing.to_delta("k", MATRIX, shape=(4, 6)), "takes a matrix"),
    (lambda: editing.to_delta("k", MATRIX, layout="iio"), "letters"),
    (
      lambda: editing.total({"k": jnp.ones(2)}, {"k": jnp.ones(3)}),
      "shapes",
    ),
    (
      lambda: editing.add({"k": MATRIX}, {"k": MATRIX}, jnp.ones((3, 1, 1))),
      r"scale must be a number, got shape \(3, 1, 1\)",
    ),
    (lambda: editing.add(PARAMS, {}, None), "scale must be a number, got None"),
    (lambda: editing.scaled({"k": MATRIX}, jnp.ones(6)), "factor must be"),
    (lambda: editing.scaled({"k": jnp.ones(2, int)}, 0.5), "floating.*int32"),
  ],
)
def test_errors(wrong, words):
  with pytest.raises(ValueError, match=words):
    wrong()


def test_many_small_deltas_of_a_narrow_type_are_rounded_once():
  one = {"b": jnp.full(3, 1.0, jnp.bfloat16)}
  small = {"b": jnp.full(3, 2.0**-9, jnp.bfloat16)}
  found = editing.total(one, *[small] * 8)["b"]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(found.astype(jnp.float32), 1.0 + 2.0**-6)
