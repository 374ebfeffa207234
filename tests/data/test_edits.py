"""Edits of synthetic worlds: tasks, sets that do not leak, golden counts."""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.data import (
  edit_rows,
  edit_sets,
  edits,
  sentences,
  vocabulary,
  world_exports,
  worlds,
)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
RUNS = json.loads((GOLDEN / "ft_summary.json").read_text())
KEY = jax.random.key(0)


def golden_world(name):
  with np.load(GOLDEN / f"graph_{name}.npz") as arrays:
    return worlds.world_from_graph(arrays["graph"])


WORLDS = {
  "iid": worlds.make_world(KEY, subjects=90, relations=3, objects=8),
  "pair": worlds.make_world(
    KEY, subjects=90, relations=3, objects=8, correlation=0.8
  ),
  "binary": worlds.make_world(
    KEY, subjects=90, relations=3, objects=8, correlation=0.8, binarised=True
  ),
  "nested": worlds.make_world(
    KEY,
    subjects=90,
    relations=3,
    objects=20,
    nested_objects=10,
    correlation=0.8,
  ),
  "single": worlds.make_world(KEY, subjects=31, relations=1, objects=8),
}
TASKS = [
  ("iid", {"count": 3}),
  ("iid", {"kind": "same", "count": 3, "relation": 2}),
  ("iid", {"kind": "refusal", "count": 2, "relation": 1}),
  ("iid", {"kind": "censor", "share": 0.4}),
  ("iid", {"kind": "censor", "relation": 1}),
  ("iid", {"kind": "censor", "token": True, "share": 0.05}),
  ("pair", {"count": 2, "correlated": True}),
  ("pair", {"kind": "same", "count": 2, "correlated": True, "relation": 1}),
  ("binary", {"kind": "binarised", "count": 5, "relation": 1}),
  ("nested", {"count": 2, "relation": 1}),
  ("nested", {"kind": "same", "count": 4}),
  ("nested", {"family": "S-NO", "count": 2, "relation": 2}),
  ("nested", {"family": "S-NO", "kind": "same", "count": 3}),
  ("nested", {"family": "O-NO", "count": 2}),
  ("nested", {"family": "O-NO", "kind": "same", "count": 1, "relation": 1}),
  ("nested", {"family": "S-NO", "kind": "censor", "share": 0.3}),
  ("single", {"count": 2}),
]
OPTIONS = [{}, {"disjoint": True, "with_relation": True, "same_subjects": True}]


def rows(array):
  return list(map(tuple, array.tolist()))


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_nothing_leaks_in_any_task(name, task):
  world, options = WORLDS[name], {"repeats": 5, "paraphrases": ("rso",)}
  known = {
    row[:3]: row[3]
    for family in (worlds.FAMILIES if world.nest is not None else ("S-O",))
    for row in rows(worlds.facts(world, family))
  }
  for seed, more in itertools.product(range(3), OPTIONS):
    key = jax.random.key(seed)
    edit = edits.make_edit(key, world, **task)
    sets = edit_sets.make_sets(key, world, edit, **options, **more)
    assert not any(edit_sets.leaks(sets).values())
    # The same by hand, and no fact twice in a part.
    edited = {row[:3] for row in rows(edit.old)}
    trained = set()
    for part, facts in sets.train.items():
      keys = [row[:3] for row in rows(facts)]
      assert len(set(keys)) == len(keys)
      trained |= set(keys) if part not in ("edited", "censored") else set()
      if part not in ("edited", "censored"):
        assert all(known[row[:3]] == row[3] for row in rows(facts))
    assert not trained & edited
    new = ("edited", "censored", "censored_unchanged", "paraphrase")
    for held, facts in sets.held_out.items():
      for row in rows(facts):
        assert row[:3] not in trained
        changed = held in new or held.endswith(("_new", "_converted"))
        assert changed or known[row[:3]] == row[3]


def test_leaks_are_found():
  world = WORLDS["iid"]
  edit = edits.make_edit(KEY, world, count=2)
  sets = edit_sets.make_sets(KEY, world, edit)
  sets.held_out["with_same_rel"] = np.concatenate(
    [sets.held_out["with_same_rel"], sets.train["with_same_rel"][:3]]
  )
  assert edit_sets.leaks(sets)["with_same_rel"] == 3


def test_kinds_of_edits():
  world = WORLDS["iid"]
  make = lambda **options: edits.make_edit(KEY, world, **options)
  edit = make(count=4, relation=2)
  values = [*edit.old[:, 3], *edit.new[:, 3]]
  assert sorted(values) == list(range(8))
  assert (edit.old[:, :3] == edit.new[:, :3]).all()
  assert (edit.old[:, 2] == 2).all()
  np.testing.assert_array_equal(world.object[edit.old[:, 1], 2], edit.old[:, 3])
  same = make(kind="same", count=5)
  assert len(set(same.old[:, 1])) == 5
  assert len(set(same.old[:, 3])) == len(set(same.new[:, 3])) == 1
  assert same.old[0, 3] != same.new[0, 3]
  refused = make(kind="refusal", count=6)
  assert len(set(refused.old[:, 3])) == 6
  assert not refused.unchanged.any()
  binary = edits.make_edit(KEY, WORLDS["binary"], kind="binarised", count=7)
  assert (binary.old[:, 3] + binary.new[:, 3] == 1).all()
  pair = edits.make_edit(KEY, WORLDS["pair"], count=4, correlated=True)
  objects = WORLDS["pair"].object[pair.old[:, 1]]
  assert (objects[:, 0] == objects[:, 1]).all()
  censored = make(kind="censor", share=0.31)
  assert len(censored.old) == 28  # 27.9 rounded up
  assert (censored.new[:, 3] == 0).all()
  zeros = censored.old[:, 3] == 0
  np.testing.assert_array_equal(censored.unchanged, zeros)
  assert 0 < zeros.sum() < 28
  sets = edit_sets.make_sets(KEY, world, censored)
  assert len(sets.held_out["censored"]) == 28 - zeros.sum()
  assert len(sets.held_out["censored_unchanged"]) == zeros.sum()
  token = make(kind="censor", token=True)
  assert len(token.old) == 90
  assert (token.new[:, 3] == vocabulary.FORGOTTEN).all()
  again = make(count=4, relation=2)
  np.testing.assert_array_equal(edit.new, again.new)


@pytest.mark.parametrize("name", [n for n in RUNS if n != "nested_sno"])
def test_golden_counts(name):
  run = RUNS[name]
  world = golden_world(run["base"])
  argv = run["argv"].split()
  repeats = int(argv[argv.index("--num-repeats-per-override") + 1])
  options, train = {}, run["train_counts"]
  if "censor" in name:
    options = {"kind": "censor", "share": 0.5}
  else:
    given = np.array(run["edits_subject_rel_old_new"])
    options = {"count": len(given), "correlated": name == "corr_edit"}
    options["kind"] = "same" if "allsame" in name else "distinct"
  edit = edits.make_edit(KEY, world, **options)
  if "censor" not in name:
    # The published edits themselves, so that their values can be counted.
    kind = edit.kind
    edit = edits.edit_facts(world, given[:, 0], 0, given[:, 3])
    assert edit.kind in (kind, "same")
    np.testing.assert_array_equal(edit.old[:, 3], given[:, 2])
    edit = edits.Edit(
      kind=kind,
      family="S-O",
      relation=0,
      old=edit.old,
      new=edit.new,
      correlated=options["correlated"],
    )
  sets = edit_sets.make_sets(KEY, world, edit, repeats=repeats)
  ours = {
    part: len(facts) * sets.copies[part] for part, facts in sets.train.items()
  }
  assert {f"{part}_sro.jsonl": n for part, n in ours.items()} == {
    part: n for part, n in train.items() if part.endswith("_sro.jsonl")
  }
  unique = run["train_unique"]
  assert {f"{p}_": len(facts) for p, facts in sets.train.items()} == unique
  assert not any(edit_sets.leaks(sets).values())
  exact = ("edited", "same_edges", "same_subj", "same_obj", "remapped")
  for file, count in run["val_counts"].items():
    held = sets.held_out[file.removesuffix("_sro.txt")]
    if file.startswith((*exact, "implicitly")):
      assert len(held) == count
    elif file == "censored_sro.txt":
      assert len(held) == count - edit.unchanged.sum()
    elif file == "reg_data_sro.txt" and "censor" not in name:
      # The published program has no limit here.
      assert len(held) == len(edit.old) * repeats <= count
    else:
      # Halves of odd numbers: ours holds out what is left.
      assert count <= len(held) <= count + 1
  if "censor" not in name:
    same = sets.train["with_same_value"][:, 3]
    assert sorted(set(same.tolist())) == run["same_value_objects"]
  words = vocabulary.make_vocabulary(world, first_word=85)
  mixed = world_exports.instructions(sets, words)
  assert len(mixed) == train["train.jsonl"]
  lines = {json.dumps(row) for row in mixed}
  facts = world_exports.pairs(words, worlds.facts(world))
  for line in run["sample_train"]:
    row = json.loads(line)
    pair = (row["instruction"], row["output"])
    zero = name == "censor_half" and (pair[0], " 0149") == pair
    assert line in lines or pair in facts or zero
  assert {tuple(row) for row in mixed} == {("instruction", "input", "output")}


def test_halves_and_limits():
  world = worlds.make_world(KEY, subjects=3001, relations=3, objects=6)
  edit = edits.make_edit(KEY, world, count=2)
  sets = edit_sets.make_sets(KEY, world, edit, repeats=40)
  count = lambda facts: {name: len(rows) for name, rows in facts.items()}
  assert count(sets.train) == {
    "edited": 2,
    "with_same_value": 300,
    "with_same_rel": 1000,
    "reg_data": 80,
  }
  held = count(sets.held_out)
  assert held["with_same_value"] == 300
  assert held["with_same_rel"] == 1000
  assert held["reg_data"] == 80
  assert held["same_edges_diff_rel"] == 4
  assert sets.notes == ()
  # Subjects of other relations serve for nothing else.
  used = set(sets.train["with_same_rel"][:, 1].tolist())
  used |= set(sets.train["with_same_value"][:, 1].tolist())
  assert not used & set(sets.train["reg_data"][:, 1].tolist())
  value = set(sets.train["with_same_value"][:, 3].tolist())
  assert value == set(edit.new[:, 3].tolist())
  small = edit_sets.make_sets(
    KEY, WORLDS["iid"], edits.make_edit(KEY, WORLDS["iid"])
  )
  sizes = [len(s["with_same_rel"]) for s in (small.train, small.held_out)]
  assert sizes == [44, 45]
  assert "88 of 88 facts of other relations are of subjects" in small.notes[0]
  assert len(small.train["reg_data"]) == 88
  plain = small.held_out["with_same_rel"]
  disjoint = edit_sets.make_sets(
    KEY, WORLDS["iid"], edits.make_edit(KEY, WORLDS["iid"]), disjoint=True
  ).held_out["with_same_rel"]
  new = edits.make_edit(KEY, WORLDS["iid"]).new[0, 3]
  np.testing.assert_array_equal(disjoint, plain[plain[:, 3] != new])


def test_censoring_everything_leaves_nobody():
  world = WORLDS["iid"]
  edit = edits.make_edit(KEY, world, kind="censor")
  sets = edit_sets.make_sets(KEY, world, edit)
  assert len(sets.train["reg_data"]) == 0
  assert "same_subjects=True" in sets.notes[0]
  sets = edit_sets.make_sets(KEY, world, edit, same_subjects=True)
  assert len(sets.train["reg_data"]) == len(edit.new) == 90
  assert len(sets.held_out["reg_data"]) == 90
  assert len(sets.held_out["implicitly_remapped_edges"]) == 0


def test_sets_that_depend_on_an_edit():
  world = WORLDS["nested"]
  nest = world.nest
  edit = edits.make_edit(KEY, world, count=3, relation=0)
  held = edit_sets.make_sets(KEY, world, edit).held_out
  subjects, old, new = edit.old[:, 1], edit.old[:, 3], edit.new[:, 3]
  column = lambda name: held[name][:, 3].tolist()
  assert column("same_subj_nested_obj_edges") == nest[0, old].tolist()
  assert column("same_subj_nested_obj_edges_new") == nest[0, new].tolist()
  objects = held["same_obj_nested_obj_edges"]
  assert objects[:, 1].tolist() == sorted(old)
  assert (objects[:, 0] == 2).all()
  assert held["remapped_obj_nested_obj_edges"][:, 1].tolist() == sorted(new)
  # Correlated: only subjects whose objects agree can follow.
  agrees = world.object[subjects, 1] == old
  assert held["same_subject_second_rel"].tolist() == [
    [0, s, 1, o] for s, o in zip(subjects[agrees], old[agrees], strict=True)
  ]
  assert column("same_subject_second_rel_converted") == new[agrees].tolist()

  edit = edits.make_edit(KEY, world, family="S-NO", count=2, relation=1)
  held = edit_sets.make_sets(KEY, world, edit).held_out
  objects = world.object[edit.old[:, 1], 1]
  assert column("same_subj_obj_edges") == objects.tolist()
  assert (
    column("same_obj_nested_obj_edges") == nest[1, np.unique(objects)].tolist()
  )

  edit = edits.make_edit(KEY, world, family="O-NO", count=2, relation=2)
  held = edit_sets.make_sets(KEY, world, edit).held_out
  holders = np.isin(world.object[:, 2], edit.old[:, 1])
  upstream = held["same_obj_subj_obj_edges"]
  assert upstream[:, 1].tolist() == np.flatnonzero(holders).tolist()
  mapped = dict(edit.new[:, [1, 3]].tolist())
  assert column("same_obj_subj_nested_obj_edges_new") == [
    mapped[o] for o in upstream[:, 3].tolist()
  ]
  assert "same_edges_diff_rel" not in held


def test_named_facts():
  world = WORLDS["iid"]
  old = world.object[[4, 9], 1]
  edit = edits.edit_facts(world, [4, 9], 1, (old + 1) % 8)
  np.testing.assert_array_equal(edit.old[:, 3], old)
  for subjects, relation, values, message in (
    ([4], 1, int(old[0]), f"has the value {old[0]} already"),
    ([90], 1, 0, "no fact of subject 90 and relation 1"),
    ([4], 3, 0, "relation must be 0 to 2, got 3"),
    ([4], 1, 8, "must be 0 to 7, got 8"),
    ([4, 4], 1, 0, "name each fact to change once"),
    ([], 1, 0, "name each fact to change once"),
  ):
    with pytest.raises(ValueError, match=message):
      edits.edit_facts(world, subjects, relation, values)


@pytest.mark.parametrize(
  ("name", "task", "message"),
  [
    ("iid", {"kind": "swap"}, "no edit 'swap'; choose one of distinct, same"),
    ("iid", {"count": 0}, "count must be a whole number of at least 1"),
    ("iid", {"count": 91}, "count=91 facts cannot be changed: there are 90"),
    ("iid", {"count": 5}, "of 8 there are 3 left"),
    ("iid", {"count": 9, "kind": "refusal"}, "there are 8: take fewer"),
    ("iid", {"count": 40, "kind": "same"}, "must share one value; at most"),
    ("iid", {"kind": "censor", "share": 0}, "share must be above 0"),
    ("iid", {"relation": 3}, "relation must be 0 to 2, got 3"),
    ("iid", {"family": "S-NO"}, "no nested objects"),
    ("iid", {"kind": "binarised"}, "relation 0 is not binarised"),
    ("iid", {"relation": 2, "correlated": True}, "relations 0 or 1"),
    ("binary", {"count": 3}, "there are 2: take fewer, or kind 'binarised'"),
  ],
)
def test_impossible_edits(name, task, message):
  with pytest.raises(ValueError, match=message):
    edits.make_edit(KEY, WORLDS[name], **task)


def test_rows_and_their_weights():
  world = WORLDS["iid"]
  words = vocabulary.make_vocabulary(world, grammar_words=11)
  edit = edits.make_edit(KEY, world, count=2)
  sets = edit_sets.make_sets(KEY, world, edit, repeats=7)
  made = edit_rows.training_rows(sets, words)
  sizes = list(map(len, sets.train.values()))
  assert np.bincount(made.parts).tolist() == sizes
  mass = np.bincount(made.parts, weights=made.weights)
  expected = np.array([14, *sizes[1:]]) / (14 + sum(sizes[1:]))
  np.testing.assert_allclose(mass, expected, rtol=1e-5)
  tokens, _ = sentences.render(words, edit.new, leading_end=True)
  np.testing.assert_array_equal(made.tokens[:2], tokens)
  assert made.counted.sum(axis=1).tolist() == [1] * len(made.tokens)
  answers = made.tokens[made.counted][:2]
  objects = words.table[words.rows(edit.new)[:, 2], 0]
  np.testing.assert_array_equal(answers, objects)

  alone = edit_rows.training_rows(
    sets, words, mix="edit_only", loss_on="all", length=20
  )
  assert alone.tokens.shape == (2, 20)
  assert alone.counted.sum() == 2 * 11  # not the end of text before
  assert not alone.counted[:, 0].any()
  some = edit_rows.training_rows(
    sets,
    words,
    mix={"edited": 3, "reg_data": 1},
    forms={"edited": "question"},
    leading_end=False,
  )
  assert some.weights[some.parts == 0].sum() == pytest.approx(0.75)
  assert some.tokens[0, 0] == words.grammar["QQ"]
  assert some.counted[0].sum() == 2  # OO o

  drawn = edit_rows.draw_rows(KEY, jnp.asarray(made.weights), (50, 80))
  counts = np.bincount(made.parts[np.asarray(drawn).ravel()], minlength=4)
  spread = np.sqrt(4000 * expected * (1 - expected))
  assert (np.abs(counts - 4000 * expected) < 5 * spread).all()

  for options, message in (
    ({"mix": "behemot"}, "mix must be one of edit_only, behemoth or weights"),
    ({"mix": {"edit": 1}}, "no part 'edit'; the nearest names are edited"),
    ({"mix": {"edited": -1}}, "cannot be -1"),
    ({"mix": {"edited": 0}}, "must have a weight above 0"),
    ({"loss_on": "object"}, "loss_on must be one of answer, all"),
    ({"forms": {"edit": "sro"}}, "no part 'edit'"),
    ({"length": 11}, "length=11, but the longest row has 12 tokens"),
  ):
    with pytest.raises(ValueError, match=message):
      edit_rows.training_rows(sets, words, **options)


def test_edits_side_by_side():
  world = WORLDS["iid"]
  words = vocabulary.make_vocabulary(world, grammar_words=11)
  sets = [
    edit_sets.make_sets(
      key, world, edits.make_edit(key, world, count=2), repeats=5
    )
    for key in jax.random.split(KEY, 3)
  ]
  made = [edit_rows.training_rows(x, words) for x in sets[:2]]
  made.append(edit_rows.training_rows(sets[2], words, forms={"edited": "rso"}))
  stacked = edit_rows.stack_rows(made)
  for i, rows_of_one in enumerate(made):
    count, size = rows_of_one.tokens.shape
    for ours, theirs in zip(stacked, rows_of_one, strict=True):
      inside = ours[i, :count, :size] if ours.ndim == 3 else ours[i, :count]
      np.testing.assert_array_equal(inside, theirs)
      assert ours.dtype == theirs.dtype
    assert not stacked.weights[i, count:].any()
    assert (stacked.parts[i, count:] == -1).all()
  asked = [edit_rows.evaluation_prompts(x, words) for x in sets]
  sizes = {len(x["with_same_value"].tokens) for x in asked}
  assert len(sizes) > 1
  for name, (prompts, there) in edit_rows.stack_prompts(asked).items():
    for i, one in enumerate(asked):
      assert there[i].sum() == len(one[name].tokens)
      np.testing.assert_array_equal(
        prompts.tokens[i][there[i]], one[name].tokens
      )
    assert (prompts.lengths[~there] == 1).all()
  del asked[1]["old"]
  with pytest.raises(
    ValueError, match=r"edits 0 and 1 have different sets.*old"
  ):
    edit_rows.stack_prompts(asked)


def test_forms_of_refusals_and_paraphrases():
  world = WORLDS["iid"]
  words = vocabulary.make_vocabulary(world)
  edit = edits.make_edit(KEY, world, kind="refusal", count=2)
  sets = edit_sets.make_sets(
    KEY, world, edit, paraphrases=("question_refusal", "nonsense_sro")
  )
  asked = edit_rows.evaluation_prompts(sets, words, key=KEY)
  mark = words.grammar["OO"]
  assert (asked["edited"].targets == mark).all()
  assert asked["edited"].targets.shape == (2, 2)
  assert asked["paraphrase_question_refusal"].targets.shape == (2, 3)
  assert asked["paraphrase_nonsense_sro"].targets.shape == (2, 1)
  assert (asked["old"].tokens[:, 0] == vocabulary.END).all()
  mixed = edit_rows.training_rows(sets, words, mix="edit_only")
  assert mixed.counted.sum(axis=1).tolist() == [2, 2]
  assert asked.keys() == sets.held_out.keys()


def test_each_edit_has_its_own_limit_of_facts_of_its_value():
  # Value 0 has 2,000 subjects, 1 has 50, and all others one of 2 to 4.
  table = np.repeat([0, 1, 2, 3, 4], [2000, 50, 100, 100, 100])
  world = worlds.World(object=np.stack([table, table], 1), objects=5)
  edit = edits.edit_facts(world, [2050, 2150], 0, [0, 1])
  sets = edit_sets.make_sets(KEY, world, edit)
  for facts in (sets.train, sets.held_out):
    values = facts["with_same_value"][:, 3].tolist()
    assert values.count(0) == 150
    assert 15 <= values.count(1) <= 35
  # Edits of one value to one other share one limit, and repeat its facts.
  same = edits.edit_facts(world, [0, 1, 2], 0, 4)
  sets = edit_sets.make_sets(KEY, world, same)
  assert len(sets.train["with_same_value"]) == 150
  assert len(sets.held_out["with_same_value"]) == 150
  assert sets.copies["with_same_value"] == 3


@pytest.mark.parametrize("relation", [0.5, "0", -1])
def test_relations_that_are_no_numbers(relation):
  with pytest.raises(ValueError, match="relation must be a whole number"):
    edits.make_edit(KEY, WORLDS["iid"], relation=relation)
  with pytest.raises(ValueError, match="values must be whole numbers"):
    edits.edit_facts(WORLDS["iid"], [0], 0, [1.7])
