"""Synthetic worlds: statistics, golden graphs, and what is impossible."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest

from effjax.data import worlds

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
SUMMARY = json.loads((GOLDEN / "data_summary.json").read_text())
KEY = jax.random.key(0)


def golden(name):
  with np.load(GOLDEN / f"graph_{name}.npz") as arrays:
    return {name: arrays[name] for name in arrays.files}


def near(share, expected, count, sigmas=5):
  """Compare a share of `count` draws with its probability."""
  spread = math.sqrt(expected * (1 - expected) / count)
  assert abs(share - expected) <= sigmas * spread + 1e-12


def test_objects_are_uniform_and_independent():
  world = worlds.make_world(KEY, subjects=20_000, relations=3, objects=7)
  assert world.object.dtype == np.int32
  assert world.object.shape == (20_000, 3)
  for relation in range(3):
    for share in np.bincount(world.object[:, relation]) / 20_000:
      near(share, 1 / 7, 20_000)
  agree = np.mean(world.object[:, 0] == world.object[:, 1])
  near(agree, 1 / 7, 20_000)


@pytest.mark.parametrize("objects", [2, 5])
@pytest.mark.parametrize("strength", [0.75, 1.0])
def test_correlation_is_exact(objects, strength):
  make = lambda **options: worlds.make_world(
    KEY, subjects=40_000, relations=3, objects=objects, **options
  )
  world = make(correlation=strength)
  agrees = world.object[:, 0] == world.object[:, 1]
  near(agrees.mean(), strength, 40_000)
  plain = make()
  np.testing.assert_array_equal(world.object[:, 2], plain.object[:, 2])
  for share in np.bincount(world.object[:, 1], minlength=objects) / 40_000:
    near(share, 1 / objects, 40_000)
  if strength < 1:
    # Each other object is as likely as any, 0 too.
    first, second = world.object[~agrees, :2].T
    steps = np.bincount((second - first) % objects, minlength=objects)
    assert steps[0] == 0
    for count in steps[1:]:
      near(count / steps.sum(), 1 / (objects - 1), steps.sum())


def test_the_published_correlation_has_its_quirks():
  objects, strength, count = 4, 0.6, 60_000
  world = worlds.make_world(
    KEY,
    subjects=count,
    relations=2,
    objects=objects,
    correlation=strength,
    convention="reference",
  )
  first, second = world.object.T
  agrees = first == second
  near(
    agrees.mean(),
    strength + (1 - strength) / (objects * (objects - 1)),
    count,
  )
  assert not ((second == 0) & ~agrees).any()
  # 1 of 3 draws hits the other's number, which O - 1 replaces.
  others = second[(first == 1) & ~agrees]
  near(np.mean(others == objects - 1), 2 / 3, len(others))


def test_binarised_pairs():
  world = worlds.make_world(
    KEY,
    subjects=20_000,
    relations=3,
    objects=9,
    correlation=0.8,
    binarised=True,
  )
  assert set(np.unique(world.object[:, :2])) == {0, 1}
  assert world.object[:, 2].max() == 8
  near(np.mean(world.object[:, 0] == world.object[:, 1]), 0.8, 20_000)
  near(np.mean(world.object[:, 0]), 0.5, 20_000)


def test_minorities_dissent():
  world = worlds.make_world(
    KEY, subjects=500, relations=3, objects=4, minority=0.3
  )
  there = world.minority >= 0
  assert there.sum() == int(0.3 * 1500)
  assert (world.minority[there] != world.object[there]).all()
  steps = (world.minority - world.object)[there] % 4
  for step in (1, 2, 3):
    near(np.mean(steps == step), 1 / 3, there.sum())
  assert worlds.graph(world)[:, 3].tolist() == world.minority.ravel().tolist()
  everything = worlds.make_world(
    KEY, subjects=5, relations=1, objects=2, minority=1.0
  )
  np.testing.assert_array_equal(everything.minority, 1 - everything.object)
  # int(m S R), in this order: 0.03 * 180 * 5 is less than 27 in float64.
  some = worlds.make_world(
    KEY, subjects=180, relations=5, objects=4, minority=0.03
  )
  assert np.sum(some.minority >= 0) == 26


def test_nests_are_balanced_and_facts_are_complete():
  world = worlds.make_world(
    KEY, subjects=50, relations=3, objects=12, nested_objects=4, correlation=0.9
  )
  for row in world.nest:
    assert np.bincount(row).tolist() == [3] * 4
  assert not np.array_equal(world.nest[0], world.nest[1])
  relation = np.arange(3)[None]
  s_o, s_no, o_no = (worlds.facts(world, name) for name in worlds.FAMILIES)
  np.testing.assert_array_equal(s_o[:, 3].reshape(50, 3), world.object)
  np.testing.assert_array_equal(
    s_no[:, 3].reshape(50, 3), world.nest[relation, world.object]
  )
  pairs = {(o, r) for row in world.object.tolist() for r, o in enumerate(row)}
  assert set(map(tuple, o_no[:, 1:3].tolist())) == pairs
  assert (world.nest[o_no[:, 2], o_no[:, 1]] == o_no[:, 3]).all()
  assert worlds.table_bits(world) == pytest.approx(
    150 * math.log2(12) + 36 * math.log2(4)
  )


def test_frequencies_follow_a_power_of_the_rank():
  world = worlds.make_world(
    KEY, subjects=100, relations=2, objects=3, frequency="zipf", exponent=0.5
  )
  assert world.frequency.mean() == pytest.approx(1)
  sorted_down = np.sort(world.frequency)[::-1]
  np.testing.assert_allclose(
    sorted_down / sorted_down[0], np.arange(1, 101) ** -0.5
  )
  plain = worlds.make_world(KEY, subjects=100, relations=2, objects=3)
  assert plain.frequency is None
  np.testing.assert_array_equal(plain.object, world.object)


def test_keys_decide():
  options = {"subjects": 30, "relations": 2, "objects": 5}
  first, again = (worlds.make_world(KEY, **options) for _ in range(2))
  other = worlds.make_world(jax.random.key(1), **options)
  np.testing.assert_array_equal(first.object, again.object)
  assert not np.array_equal(first.object, other.object)


@pytest.mark.parametrize("name", ["iid", "nested", "correlated75"])
def test_golden_graphs_are_read_back(name):
  edges, summary = golden(name)["graph"], SUMMARY[name]
  world = worlds.world_from_graph(edges)
  np.testing.assert_array_equal(worlds.graph(world), edges)
  shuffled = np.random.default_rng(0).permutation(edges)
  again = worlds.world_from_graph(shuffled)
  np.testing.assert_array_equal(again.object, world.object)
  assert world.object.size == summary["meta"]["graph_size"]
  assert np.bincount(world.object[:, 0]).tolist() == summary["obj_counts_rel0"]
  match = np.mean(world.object[:, 0] == world.object[:, 1])
  assert match == summary["match_rate_r0_r1"]
  if name == "nested":
    counts = [len(worlds.facts(world, f)) for f in worlds.FAMILIES]
    assert counts == [
      600,
      600,
      summary["val_counts"]["object_nested_object_sro.txt"],
    ]
    assert world.nested_objects == 5
  else:
    assert world.nest is None
    with pytest.raises(ValueError, match="no nested objects"):
      worlds.facts(world, "O-NO")


SMALL = {"subjects": 8, "relations": 2, "objects": 6}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"subjects": 0}, "subjects must be a whole number of at least 1, got 0"),
    ({"objects": 2.5}, "objects must be a whole number"),
    ({"relations": 1, "correlation": 0.9}, "at least 2 relations and 2 obj"),
    ({"objects": 1, "correlation": 1.0}, "at least 2 relations and 2 obj"),
    ({"correlation": 1 / 6}, "above 0.166667, which is chance"),
    ({"correlation": 1.1}, "at most 1, got 1.1"),
    *(
      ({name: wrong}, f"{name} must be a finite number")
      for name in ("correlation", "minority", "minority_share")
      for wrong in (float("nan"), "most", -0.1)
    ),
    ({"minority": None}, "minority must be a finite number"),
    (
      {"correlation": 0.5, "binarised": True},
      "binarised relations must be abo",
    ),
    ({"binarised": True}, "give correlation too"),
    ({"correlation": 0.9, "minority": 0.1}, "cannot have dissenting objects"),
    ({"minority": 1.1}, "share of the facts, from 0 to 1"),
    ({"minority": 0.1, "minority_share": 0.5}, "from 0 to below 0.5, got 0.5"),
    ({"minority": 0.1, "objects": 1}, "needs a second object"),
    ({"minority": 0.1, "nested_objects": 3}, "cannot be combined"),
    (
      {"nested_objects": 4},
      "must divide objects=6; the nearest that does is 3",
    ),
    ({"frequency": "zip"}, "one of uniform, zipf, got 'zip'"),
    ({"frequency": "zipf", "exponent": 0}, "exponent must be finite and above"),
    ({"convention": "ours"}, "'exact' or 'reference'"),
  ],
)
def test_impossible_worlds(change, message):
  with pytest.raises(ValueError, match=message):
    worlds.make_world(KEY, **(SMALL | change))


@pytest.mark.parametrize(
  ("edges", "options", "message"),
  [
    ([[0, 0, 1], [0, 1, 1], [1, 0, 1]], {}, "4 in all; it has 3"),
    ([[0, 0, 1], [0, 0, 2]], {}, "more than once, such as \\[0, 0\\]"),
    ([[0, 0, -1]], {}, "negative"),
    ([[0, 0, 5]], {"objects": 5}, "objects=5, but the graph has number 5"),
    ([[0, 0, 5]], {"objects": 7.5}, "objects must be a whole number"),
    ([[0, 0, 1]], {"minority_share": None}, "minority_share must be a finite"),
    ([[0, 0]], {}, "rows \\[subject, relation"),
    ([[0.0, 0.0, 1.0]], {}, "whole numbers, got float64"),
    ([[0, 0, 1]], {"nested_objects": 2}, "no edge has a nested object"),
    (
      [[0, 0, 1, -1, 0], [1, 0, 1, -1, 1]],
      {},
      "object 1 of relation 0 has no nested object, or two",
    ),
    (
      [[0, 0, 1, -1, 0], [1, 0, 2, -1, -1]],
      {},
      "object 2 of relation 0 has no",
    ),
    ([[0, 0, 1, 1]], {}, "another than the majority's"),
    ([[0, 0, 1, 0]], {"minority_share": 0.9}, "below 0.5, got 0.9"),
    ([[0, 0, 1, 0, 0]], {}, "cannot be combined"),
  ],
)
def test_graphs_that_are_none(edges, options, message):
  with pytest.raises(ValueError, match=message):
    worlds.world_from_graph(np.array(edges), **options)


def test_families_have_names():
  world = worlds.make_world(KEY, **SMALL)
  with pytest.raises(ValueError, match="choose one of S-O, S-NO, O-NO"):
    worlds.facts(world, "objects")
