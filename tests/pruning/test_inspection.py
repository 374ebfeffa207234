import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import pruning

quick = hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
PARAMS = {
  "conv": {"kernel": jnp.ones((3, 3, 2)), "bias": jnp.ones(2)},
  "scale": jnp.float32(1.0),
  "empty": jnp.ones((0, 2)),
  "function": abs,
}
MASKS = {
  "conv": {"kernel": jnp.arange(18).reshape(3, 3, 2) < 5, "bias": None},
  "scale": jnp.array(True),
  "empty": jnp.ones((0, 2), bool),
  "function": None,
}


def test_sparsity():
  assert float(pruning.sparsity(MASKS)) == pytest.approx(13 / 19)
  traced = jax.jit(pruning.sparsity)(MASKS)
  assert traced.dtype == jnp.float32
  assert float(traced) == pytest.approx(13 / 19)
  with pytest.raises(ValueError, match="no masks"):
    pruning.sparsity({"a": None})


def test_summary():
  table = pruning.summary(PARAMS, MASKS)
  rows = {row.name: row for row in table.layers}
  assert rows.keys() == {"conv/kernel", "conv/bias", "scale", "empty"}
  assert (rows["conv/kernel"].kept, rows["conv/kernel"].size) == (5, 18)
  assert rows["conv/kernel"].sparsity == pytest.approx(13 / 18)
  assert (rows["conv/bias"].kept, rows["conv/bias"].pruned) == (2, False)
  assert rows["empty"].sparsity == 0.0
  assert table.sparsity == pytest.approx(13 / 19)
  assert table.sparsity_of_all == pytest.approx(13 / 21)
  lines = str(table).splitlines()
  assert len(lines) == 6
  assert "not pruned" in lines[1]
  assert lines[2].split() == ["conv/kernel", "3x3x2", "18", "5", "72.22%"]
  assert "68.4211% of the weights" in lines[-1]
  with pytest.raises(ValueError, match="mask tree"):
    pruning.summary({"a": jnp.ones(2)}, {"b": None})


@quick
@hypothesis.given(
  size=st.sampled_from([0, 1, 7, 8, 9, 64]), seed=st.integers(0, 99)
)
def test_packing(size, seed):
  mask = np.random.default_rng(seed).random((size, 1)) < 0.5
  packed = pruning.pack({"a": jnp.asarray(mask), "b": None})
  assert packed["a"].dtype == jnp.uint8
  np.testing.assert_array_equal(packed["a"], np.packbits(mask))
  like = {"a": jnp.ones((size, 1)), "b": jnp.ones(3)}
  masks = pruning.unpack(packed, like)
  np.testing.assert_array_equal(masks["a"], mask)
  assert masks["a"].dtype == bool
  assert masks["b"] is None


def test_packing_a_whole_tree():
  arrays = {k: v for k, v in PARAMS.items() if k != "function"}
  masks = {k: v for k, v in MASKS.items() if k != "function"}
  back = pruning.unpack(pruning.pack(masks), arrays)
  assert jax.tree.structure(back) == jax.tree.structure(masks)
  for one, two in zip(*map(jax.tree.leaves, (back, masks)), strict=True):
    np.testing.assert_array_equal(one, two)
  with pytest.raises(ValueError, match=r"'a' has shape \(1,\).*needs \(2,\)"):
    pruning.unpack({"a": jnp.zeros(1, jnp.uint8)}, {"a": jnp.ones(9)})


def test_masks_without_values():
  shapes = jax.eval_shape(lambda: {"a": jnp.ones((2, 2), bool)})
  masks = {"a": jnp.array([[True, False], [False, False]])}
  assert pruning.summary(shapes, masks).sparsity == 0.75
  assert jax.eval_shape(pruning.sparsity, masks).dtype == jnp.float32
  for call in (
    lambda: pruning.summary(shapes, shapes),
    lambda: pruning.sparsity(shapes),
  ):
    with pytest.raises(ValueError, match="shapes but no values"):
      call()
  with pytest.raises(ValueError, match="which are traced here"):
    jax.jit(lambda m: pruning.summary(shapes, m).sparsity)(masks)


def test_tables_that_have_nothing_to_say():
  table = str(pruning.summary({"a": jnp.ones(2)}, {"a": None}))
  assert table.endswith("no layer is pruned")
  with pytest.raises(ValueError, match=r"mask of 'a' has shape \(2,\), the le"):
    pruning.summary({"a": jnp.ones(3)}, {"a": jnp.ones(2, bool)})


@pytest.mark.parametrize("bits", [jnp.ones(1, bool), jnp.ones(1), [3]])
def test_unpacking_what_was_not_packed(bits):
  with pytest.raises(ValueError, match=r"'a' is .*; pack makes uint8 arrays"):
    pruning.unpack({"a": bits}, {"a": jnp.ones(3)})


@pytest.mark.parametrize("kind", [bool, "uint8", "int32", "float32"])
def test_masks_of_other_types(kind):
  masks = {"w": jnp.array([1, 0, 0, 1]).astype(kind)}
  assert float(jax.jit(pruning.sparsity)(masks)) == 0.5
  assert float(pruning.sparsity(masks)) == 0.5
  assert pruning.pack(masks)["w"].tolist() == [0b10010000]
