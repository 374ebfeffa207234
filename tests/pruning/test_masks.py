import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import pruning
from tests.pruning import brute

quick = hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
kinds = st.sampled_from(["plain", "ties", "special"])
seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 1.0, 0.5, 0.95]) | st.floats(0, 1, width=32)
# Every new set of shapes and types costs a compilation: there are few of them.
SHAPES = {"a": (5, 7), "b": [(3,), (), (0, 4), (2, 1, 3)], "c": (40, 3)}
NARROW = ("bfloat16", "float16", "float32")
is_shape = lambda x: isinstance(x, tuple)
both_precisions = pytest.mark.parametrize("double", [False, True])


def tree_of_scores(seed, kind, double=False, shapes=SHAPES):
  """Make scores in turns of all three narrow types, or of float64."""
  rng = np.random.default_rng(seed)
  types = itertools.repeat("float64") if double else itertools.cycle(NARROW)
  make = lambda s: jnp.asarray(brute.numbers(rng, s, kind), next(types))
  return {**jax.tree.map(make, shapes, is_leaf=is_shape), "none": None}


def same(masks, expected):
  found = jax.tree.leaves(masks)
  assert len(found) == len(expected)
  for mask, brute_mask in zip(found, expected, strict=True):
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, brute_mask)


def silent(function, *args, **kwargs):
  """Call without the warning that sparsity 1 deserves."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("warnings.warn", lambda *a, **k: None)
    return function(*args, **kwargs)


@both_precisions
@quick
@hypothesis.given(seed=seeds, kind=kinds, share=shares)
def test_topk(double, seed, kind, share):
  with jax.enable_x64(double):
    scores = tree_of_scores(seed, kind, double)
    masks = silent(pruning.topk, scores, share, where=".*")
  expected = [
    brute.largest([x], brute.kept(x.size, share))[0]
    for x in jax.tree.leaves(scores)
  ]
  same(masks, expected)
  assert masks["none"] is None


@both_precisions
@quick
@hypothesis.given(seed=seeds, kind=kinds, share=shares)
def test_global_topk(double, seed, kind, share):
  with jax.enable_x64(double):
    scores = tree_of_scores(seed, kind, double)
    masks = silent(pruning.global_topk, scores, share, where=".*")
  leaves = jax.tree.leaves(scores)
  size = sum(x.size for x in leaves)
  same(masks, brute.largest(leaves, brute.kept(size, share)))


@both_precisions
@pytest.mark.parametrize("axis", [0, -1])
@quick
@hypothesis.given(seed=seeds, kind=kinds, share=shares)
def test_topk_along_an_axis(double, axis, seed, kind, share):
  with jax.enable_x64(double):
    shapes = {"a": (5, 7), "b": (4, 3, 2)}
    scores = tree_of_scores(seed, kind, double, shapes)
    masks = silent(pruning.topk, scores, share, axis=axis)
  expected = [
    brute.largest_along(x, brute.kept(x.shape[axis], share), axis)
    for x in jax.tree.leaves(scores)
  ]
  same(masks, expected)


@both_precisions
@pytest.mark.parametrize(
  ("n", "m", "axis"), [(2, 4, -2), (1, 4, 0), (3, 6, -1)]
)
@quick
@hypothesis.given(seed=seeds, kind=kinds)
def test_n_m(double, n, m, axis, seed, kind):
  with jax.enable_x64(double):
    shapes = {"a": (8, 4, 6), "b": (12, 12)}
    scores = tree_of_scores(seed, kind, double, shapes)
    masks = pruning.n_m(scores, n, m, axis=axis)
  leaves = jax.tree.leaves(scores)
  same(masks, [brute.n_m(x, n, m, axis) for x in leaves])


@pytest.mark.parametrize("n", [0, 4])
def test_n_m_at_its_ends(n):
  (mask,) = jax.tree.leaves(pruning.n_m(jnp.ones((4, 2)), n, 4))
  assert mask.all() if n else not mask.any()


@quick
@hypothesis.given(seed=seeds, kind=kinds, share=shares)
def test_reference_convention(seed, kind, share):
  scores = tree_of_scores(seed, kind)
  leaves = jax.tree.leaves(scores)
  if share == 0.0:
    same(
      pruning.topk(scores, 0.0, where=".*", convention="reference"),
      [np.ones(x.shape, bool) for x in leaves],
    )
    return
  rank = lambda size: int(np.ceil(size * (1.0 - share)))
  reference = {"where": ".*", "convention": "reference"}
  masks = silent(pruning.global_topk, scores, share, **reference)
  same(masks, brute.above(leaves, rank(sum(x.size for x in leaves))))
  masks = silent(pruning.topk, scores, share, **reference)
  same(masks, [brute.above([x], rank(x.size))[0] for x in leaves])


def test_reference_convention_along_an_axis():
  scores = tree_of_scores(0, "ties", shapes={"a": (9, 4)})
  masks = pruning.topk(scores, 0.5, axis=0, convention="reference")
  expected = np.stack([brute.above([c], 5)[0] for c in scores["a"].T], axis=1)
  same(masks, [expected])


@jax.jit
def traced(scores, sparsity, keep):
  one = pruning.global_topk(scores, sparsity, where=".*")
  return one, pruning.topk(scores, keep=keep, where=".*")


@quick
@hypothesis.given(seed=seeds, kind=kinds, share=st.integers(0, 1024))
def test_traced_numbers(seed, kind, share):
  scores = tree_of_scores(seed, kind)
  leaves, treedef = jax.tree.flatten(scores)
  counts = [(share + 1) % (x.size + 1) for x in leaves]
  # Counts beyond the ends stand for the ends.
  given = [
    k if k < x.size else k + 9 for k, x in zip(counts, leaves, strict=True)
  ]
  given = treedef.unflatten([jnp.int32(k or -2) for k in given])
  found, by_leaf = traced(scores, jnp.float32(share / 1024), given)
  size = sum(x.size for x in leaves)
  same(found, brute.largest(leaves, brute.kept(size, share / 1024)))
  same(
    by_leaf,
    [brute.largest([x], k)[0] for x, k in zip(leaves, counts, strict=True)],
  )


@quick
@hypothesis.given(seed=seeds, kind=kinds, share=st.floats(0, 1))
def test_trees_of_numbers(seed, kind, share):
  scores = tree_of_scores(seed, kind)
  leaves, treedef = jax.tree.flatten(scores)
  counts = [round(share * x.size) for x in leaves]
  expected = [
    brute.largest([x], k)[0] for x, k in zip(leaves, counts, strict=True)
  ]
  same(
    pruning.topk(scores, keep=treedef.unflatten(counts), where=".*"), expected
  )
  shares = [1 - k / max(x.size, 1) for k, x in zip(counts, leaves, strict=True)]
  shares = treedef.unflatten(shares)
  same(silent(pruning.topk, scores, shares, where=".*"), expected)
  keep = sum(counts)
  masks = pruning.global_topk(scores, keep=keep, where=".*")
  same(masks, brute.largest(leaves, keep))


def test_only_selected_leaves_get_masks():
  scores = tree_of_scores(0, "plain")
  masks = pruning.global_topk(scores, 0.5)
  assert masks["b"][0] is masks["b"][1] is masks["none"] is None
  assert masks["b"][2].shape == (0, 4)
  # The count goes over the selected leaves alone.
  assert sum(int(m.sum()) for m in jax.tree.leaves(masks)) == 80
  sparsities = {"a": 0.5, "b": [None] * 4, "c": None, "none": None}
  masks = pruning.topk(scores, sparsities, where="a", axis=0)
  assert masks["a"].sum(axis=0).tolist() == [2] * 7
  assert masks["c"] is None


@pytest.mark.parametrize("kind", ["plain", "ties", "special"])
@pytest.mark.parametrize("rule", [pruning.topk, pruning.global_topk])
def test_masks_of_rising_sparsity_are_nested(rule, kind):
  scores = tree_of_scores(1, kind)
  last = rule(scores, 0.0, where=".*")
  assert all(m.all() for m in jax.tree.leaves(last))
  for share in np.linspace(0.01, 0.99, 21):
    masks = rule(scores, float(share), where=".*")
    for inner, outer in zip(*map(jax.tree.leaves, (masks, last)), strict=True):
      assert not (inner & ~outer).any()
    last = masks


def test_sparsity_one_warns():
  with pytest.warns(UserWarning, match="prunes every weight"):
    masks = pruning.topk(jnp.ones(4), 1.0)
  assert not masks.any()


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda s: pruning.topk(s, 0.5), "scores of 'b/c' hold NaN"),
    (lambda s: pruning.global_topk(s, 0.5), "'b/c'"),
    (lambda s: pruning.n_m(s, 1, 2), "'b/c'"),
    (lambda s: pruning.topk(s["b"]["c"], 0.5), "the array"),
    (lambda s: pruning.topk({"a": s["a"]}, 1.5), r"outside \[0, 1\]"),
    (lambda s: pruning.topk({"a": s["a"]}, 95), "did you mean 0.95"),
    (lambda s: pruning.topk({"a": s["a"]}, np.nan), "outside"),
    (lambda s: pruning.topk({"a": s["a"]}), "either"),
    (lambda s: pruning.topk({"a": s["a"]}, 0.5, keep=1), "either"),
    (lambda s: pruning.topk({"a": s["a"]}, keep=9), "between 0 and the 8"),
    (lambda s: pruning.topk({"a": s["a"]}, keep=-1), "between"),
    (lambda s: pruning.topk({"a": s["a"]}, keep=1.5), "whole number"),
    (lambda s: pruning.topk({"a": s["a"]}, [0.5] * 2), "tree of sparsities"),
    (lambda s: pruning.topk({"a": s["a"]}, np.full(1, 0.5)), "of 'a' must be"),
    (lambda s: pruning.topk({"a": s["a"]}, "0.5"), "tree of sparsities"),
    (lambda s: pruning.global_topk({"a": s["a"]}, "0.5"), "must be one number"),
    (lambda s: pruning.global_topk({"a": s["a"]}, 1j), "must be one number"),
    (lambda s: pruning.global_topk({"a": s["a"]}, {"a": 0.5}), "one number"),
    (lambda s: pruning.topk({"a": s["a"]}, {"a": 1.5}), "sparsity of 'a' 1.5"),
    (lambda s: pruning.topk({"a": s["a"]}, keep=np.nan), "nan of 'a' is not"),
    (lambda s: pruning.topk({"a": s["a"]}, keep=np.ones(1)), "whole number"),
    (lambda s: pruning.global_topk({"a": s["a"]}, keep={"a": 1}), "whole"),
    (lambda s: jax.jit(pruning.topk)({"a": s["a"]}, np.ones(2)), "one number"),
    (
      lambda s: jax.jit(lambda k: pruning.topk(s["a"], keep=k))(1.5),
      r"float32\[\]; one whole number",
    ),
    (
      lambda s: pruning.topk(s["a"].astype(jnp.complex64), 0.5, where=".*"),
      "of the array are complex64, which has no order",
    ),
    (lambda s: pruning.topk({"a": s["a"]}, {"b": 0.5}), "tree of sparsities"),
    (lambda s: pruning.topk({"a": s["a"]}, {"a": None}), "no number .* 'a'"),
    (lambda s: pruning.topk({"a": s["a"]}, 0.5, axis=2), "axis 2 .* 'a'"),
    (lambda s: pruning.topk({"a": s["a"]}, 0.5, axis=-3), "axis -3"),
    (lambda s: pruning.topk(s, 0.5, where="x"), "matches no leaf"),
    (lambda s: pruning.topk(s, 0.5, convention="ours"), "'exact' or 'ref"),
    (
      lambda s: pruning.n_m({"a": s["a"]}, 1, 3),
      "'a' .* groups of 2 would fit",
    ),
    (lambda s: pruning.n_m(jnp.ones((3, 3)), 1, 2), "deselect"),
    (lambda s: pruning.n_m(jnp.ones(4), 1, 2, axis=1), "axis 1"),
    (lambda s: pruning.n_m(jnp.ones(4), 1, 2), "axis -2"),
    (lambda s: pruning.n_m({"a": s["a"]}, 3, 2), "0 <= n <= m"),
    (lambda s: pruning.n_m({"a": s["a"]}, 1.0, 2), "whole numbers"),
    (lambda s: pruning.topk({}, 0.5), "holds no arrays"),
  ],
)
def test_mistakes(call, words):
  scores = {
    "a": jnp.arange(8.0).reshape(2, 4),
    "b": {"c": jnp.array([[1.0, np.nan], [1.0, 1.0]])},
  }
  with pytest.raises(ValueError, match=words):
    call(scores)


def test_too_many_entries_in_one_array():
  scores = jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)
  with pytest.raises(ValueError, match="split the array"):
    jax.eval_shape(lambda s: pruning.topk(s, keep=1), scores)


def test_nan_under_jit_takes_the_place_of_its_sign():
  scores = jnp.array([jnp.inf, jnp.nan, -jnp.inf, -jnp.nan])
  mask = jax.jit(lambda s: pruning.topk(s, 0.5))(scores)
  assert mask.tolist() == [True, True, False, False]


def test_scores_closed_over_by_a_traced_function():
  scores = jnp.array([3.0, 1.0, 2.0, 0.0])
  mask = jax.jit(lambda share: pruning.topk(scores, share))(jnp.float32(0.5))
  assert mask.tolist() == [True, False, True, False]


def test_traced_numbers_out_of_range():
  """They count as the nearer end, NaN as 0."""
  keep = lambda s: pruning.global_topk(jnp.arange(8.0), s).sum()
  shares = jnp.array([-0.5, np.nan, 0.25, 1.5, np.inf], jnp.float32)
  assert jax.vmap(keep)(shares).tolist() == [8, 8, 6, 0, 0]


def test_straight_through_of_weights_that_are_not_finite():
  w = jnp.array([np.inf, np.nan, 2.0, -np.inf])
  mask = jnp.array([False, False, True, True])
  through = lambda w: pruning.straight_through(w, mask)
  assert through(w).tolist() == [0.0, 0.0, 2.0, -np.inf]
  _, tangent = jax.jvp(through, (w,), (jnp.arange(4.0),))
  assert tangent.tolist() == [0.0, 1.0, 2.0, 3.0]
  pull = jax.jit(lambda w, g: jax.vjp(through, w)[1](g)[0])
  assert pull(w, jnp.arange(4.0)).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_masks_of_other_kinds():
  params = {"a": np.arange(3.0), "b": jnp.ones(2)}
  # Where optax.masked leaves a parameter out, its masks have a node like this.
  masks = {"a": np.array([1, 0, 1]), "b": optax.MaskedNode()}
  for function in (pruning.apply_mask, pruning.straight_through):
    masked = function(params, masks)
    assert masked["a"].tolist() == [0.0, 0.0, 2.0]
    assert masked["b"] is params["b"]
    with pytest.raises(
      ValueError, match="'a' is a ArrayImpl and its mask a li"
    ):
      function({"a": jnp.ones(2)}, {"a": [True, False]})
    with pytest.raises(ValueError, match=r"'a' is a float .* for no mask"):
      function({"a": 1.0}, {"a": jnp.array(True)})


def test_apply_mask_and_straight_through():
  params = {"w": jnp.array([np.nan, 2.0, np.inf], jnp.bfloat16), "f": abs}
  masks = {"w": jnp.array([False, True, False]), "f": None}
  masked = pruning.apply_mask(params, masks)
  assert masked["w"].dtype == jnp.bfloat16
  assert masked["w"].tolist() == [0.0, 2.0, 0.0]
  assert masked["f"] is abs
  loss = lambda p: jnp.sum(pruning.straight_through(p, mask) ** 2)
  mask, w = jnp.array([True, False]), jnp.array([3.0, 5.0])
  assert float(loss(w)) == 9.0
  assert jax.grad(loss)(w).tolist() == [6.0, 0.0]
  through = jax.grad(lambda p: pruning.straight_through(p, mask).sum())
  assert through(w).tolist() == [1.0, 1.0]
  for function in (pruning.apply_mask, pruning.straight_through):
    with pytest.raises(ValueError, match=r"mask of 'w' has shape \(2,\)"):
      function({"w": jnp.ones(3)}, {"w": mask})
    with pytest.raises(ValueError, match="structure of the parameters"):
      function({"w": jnp.ones(3)}, {"v": mask})
