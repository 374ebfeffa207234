import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.pruning import search, slices
from effjax.pruning.deferred import as_deferred
from effjax.pruning.integers import Wide, wide
from tests.pruning import brute

# Leaves below and above the size at which slices are read, with and without
# entries beyond their last whole slice.
SHAPES = ((100,), (140_001,), (2, 65_536), (9_000,), (3, 50_000), ())
SIZES = [int(np.prod(shape)) for shape in SHAPES]
TOTAL = sum(SIZES)
GROUPS = {"one": ((0, 1, 2, 3, 4, 5),), "four": ((0,), (1, 3), (2, 5), (4,))}


@pytest.fixture(scope="module", params=["slices", "whole"])
def keep_largest(request):
  """The search as jitted functions, one for each reader and grouping."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(search, "_slices_pay", lambda: request.param == "slices")

    # A new function: jit remembers what it traced before.
    @functools.partial(jax.jit, static_argnames="groups")
    def mask(leaves, keep, groups):
      picked = [[leaves[i] for i in group] for group in GROUPS[groups]]
      return search.keep_largest(picked, keep)

    yield mask


@functools.cache
def scores(kind, seed=0):
  rng = np.random.default_rng(seed)
  return [jnp.asarray(brute.numbers(rng, s, kind), jnp.float32) for s in SHAPES]


def check(masks, leaves, groups, keep):
  for found, group, count in zip(masks, GROUPS[groups], keep, strict=True):
    expected = brute.largest([leaves[i] for i in group], count)
    for mask, brute_mask in zip(found, expected, strict=True):
      np.testing.assert_array_equal(mask, brute_mask)


@pytest.mark.parametrize("kind", ["plain", "ties", "special"])
@pytest.mark.parametrize("keep", [0, 1, 43_011, TOTAL // 2, TOTAL - 1, TOTAL])
def test_large_leaves(keep_largest, kind, keep):
  leaves = scores(kind)
  check(keep_largest(leaves, wide([keep]), "one"), leaves, "one", [keep])


@pytest.mark.parametrize("kind", ["plain", "ties"])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_several_groups(keep_largest, kind, share):
  leaves = scores(kind)
  sizes = [sum(SIZES[i] for i in group) for group in GROUPS["four"]]
  keep = [round(share * size) for size in sizes]
  check(keep_largest(leaves, wide(keep), "four"), leaves, "four", keep)


# Leaves and slices end there, or one entry before or after.
EDGES = [
  edge + step
  for edge in (100, 8_292, 100 + 139_264, 140_101, 271_173, 280_173, TOTAL - 1)
  for step in (-1, 0, 1)
]


def test_equal_scores_are_kept_in_order_up_to_any_position(keep_largest):
  leaves = [jnp.zeros(shape) for shape in SHAPES]
  for keep in EDGES:
    (masks,) = keep_largest(leaves, wide([keep]), "one")
    flat = np.concatenate([np.ravel(mask) for mask in masks])
    assert flat[:keep].all(), keep
    assert not flat[keep:].any(), keep


def test_ties_within_one_group_only(keep_largest):
  leaves = list(scores("plain"))
  leaves[4] = jnp.ones(SHAPES[4])
  keep = [50, 70_000, 1, 123_456]
  check(keep_largest(leaves, wide(keep), "four"), leaves, "four", keep)


def test_strict_keeps_what_is_above_the_kth_largest():
  leaves = [x for x in scores("ties") if x.size < 10_000]
  size = sum(x.size for x in leaves)
  mask = jax.jit(lambda k: search.keep_largest([leaves], k, strict=True)[0])
  for rank in (0, 1, 1_000, size, size + 1):
    masks = mask(wide([rank]))
    if rank > size:
      assert all(m.all() for m in masks)
    else:
      expected = brute.above(leaves, rank)
      for found, brute_mask in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(found, brute_mask)


@pytest.mark.parametrize(("sliced", "most"), [(True, 6), (False, 14)])
def test_few_passes_over_the_data(monkeypatch, sliced, most):
  monkeypatch.setattr(search, "_slices_pay", lambda: sliced)
  find = jax.jit(
    lambda leaves, keep: search.find(as_deferred([leaves]), keep).passes
  )
  leaves = [jnp.abs(x) for x in scores("plain")]
  shares = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
  passes = [find(leaves, wide([round(TOTAL * (1 - s))])) for s in shares]
  assert np.median(passes) <= most
  # In the worst case a pass leaves a fifth of 2^32 keys every other time.
  assert int(find(list(scores("special")), wide([TOTAL // 2]))) <= 28


def test_threshold_of_an_exact_count_has_no_excess():
  find = jax.jit(lambda x, keep: search.find(as_deferred([[x]]), keep))
  x = jnp.arange(1000.0)
  found = find(x, wide([100]))
  assert int(found.excess[0]) == 0
  assert int(jnp.sum(search.order_keys(x) >= found.key[0])) == 100
  found = find(jnp.ones(1000), wide([100]))
  assert int(found.excess[0]) == 900
  assert (int(found.above.high[0]), int(found.above.low[0])) == (0, 0)


def test_brackets_narrow_on_counts_beyond_32_bits():
  entries, keep = 2**40, 2**33 + 5
  bracket = search._widest([entries], jnp.int32)
  probes = jnp.array([[-5, 0, 7, 9]], jnp.int32)
  counts = jax.tree.map(
    lambda x: x[None], wide([2**39, 2**33 + 6, 2**33 + 5, 2**33 + 4])
  )
  narrow = search._narrow(bracket, probes, counts, wide([keep]))
  assert (int(narrow.low[0]), int(narrow.high[0])) == (7, 9)
  value = lambda n: int(n.high[0]) * 65536 + int(n.low[0])
  assert value(narrow.at_low) == keep
  assert value(narrow.at_high) == keep - 1
  ties = slices.first_ties(
    as_deferred([[jnp.ones(5)]]),
    search.order_keys(jnp.ones(1)),
    Wide(jnp.zeros(1, jnp.int32), jnp.full(1, 3, jnp.int32)),
  )
  assert ties.tolist() == [3]


@pytest.mark.slow
def test_counts_of_20_million_entries_are_exact():
  # float32 tells neither 20,000,001 nor the count to keep from a neighbour.
  size, keep = 20_000_001, 12_345_677
  x = jnp.arange(size, dtype=jnp.int32) % 251
  (mask,) = jax.jit(
    lambda x: search.keep_largest([[x.astype(jnp.float32)]], wide([keep]))[0]
  )(x)
  assert int(np.count_nonzero(mask)) == keep
  x, mask = np.asarray(x), np.asarray(mask)
  lowest = x[mask].min()
  assert x[~mask].max() <= lowest
  tied = np.flatnonzero(x == lowest)
  kept = mask[tied]
  assert kept[: kept.sum()].all()
