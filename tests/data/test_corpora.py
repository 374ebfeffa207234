"""Streamed corpora: exact counts, random access, shares of what is drawn."""

import collections
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.data import corpora, permutations, sentences, vocabulary, worlds

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
SUMMARY = json.loads((GOLDEN / "data_summary.json").read_text())
KEY = jax.random.key(3)
SIZES = {"subjects": 10, "relations": 2, "objects": 4}


def make(sizes=SIZES, **options):
  """Make a world, its words, and a corpus."""
  names = ("minority", "minority_share", "nested_objects", "frequency")
  own = {name: options.pop(name) for name in names if name in options}
  world = worlds.make_world(jax.random.key(0), **sizes, **own)
  words = vocabulary.make_vocabulary(world)
  return world, words, corpora.make_corpus(KEY, world, words, **options)


def read(corpus, steps=None):
  """Read the first batches and join them."""
  found = list(corpora.stream(corpus, 0, steps or corpus.plan.steps))
  return {k: np.concatenate([batch[k] for batch in found]) for k in found[0]}


def rows_of(words, facts, form="sro"):
  tokens, _ = sentences.render(words, facts, form, leading_end=True)
  return list(map(tuple, tokens.tolist()))


def test_orders_are_permutations():
  counts = (1, 2, 101)

  @jax.jit
  def orders(key):
    numbers = jnp.array([[0], [5]])
    places = [jnp.tile(jnp.arange(count), (2, 1)) for count in counts]
    return [
      permutations.permute(key, numbers + 0 * place, place, count)
      for place, count in zip(places, counts, strict=True)
    ]

  for found, count in zip(orders(KEY), counts, strict=True):
    first, second = found.tolist()
    assert sorted(first) == sorted(second) == list(range(count))
    assert count < 10 or first != second


def test_orders_look_random():
  count, orders = 7, 4000
  places = jnp.tile(jnp.arange(count), (orders, 1))
  numbers = jnp.arange(orders)[:, None] + 0 * places
  permute = jax.jit(permutations.permute, static_argnums=3)
  found = np.asarray(permute(KEY, numbers, places, count))
  expected, spread = orders / count, np.sqrt(orders / count)
  for place in range(count):
    counts = np.bincount(found[:, place], minlength=count)
    assert np.abs(counts - expected).max() < 5 * spread
  pairs = np.bincount(found[:, 0] * count + found[:, 1], minlength=49)
  pairs = pairs.reshape(7, 7)[~np.eye(7, dtype=bool)]
  assert np.abs(pairs - orders / 42).max() < 5 * np.sqrt(orders / 42)


def test_every_pass_holds_each_fact_once_and_passes_differ():
  world, words, corpus = make(rows=4, copies=3)
  assert (corpus.plan.sentences, corpus.plan.tokens) == (60, 660)
  assert corpus.plan.steps == 15
  found = read(corpus)
  facts = worlds.facts(world)
  expected = sorted(rows_of(words, facts))
  for number in range(3):
    tokens = found["tokens"][20 * number : 20 * (number + 1)]
    assert sorted(map(tuple, tokens.tolist())) == expected
  units = found["units"][:, 0].reshape(3, 20)
  assert len(set(map(tuple, units.tolist()))) == 3
  assert rows_of(words, facts[units.ravel()]) == list(
    map(tuple, found["tokens"].tolist())
  )
  assert (found["segments"] == 1).all()


def test_any_step_alone_and_shards_together():
  _, _, corpus = make(rows=4, copies=3)
  whole = read(corpus, 16)  # the last is beyond the end
  one = corpora.batch(corpus, 5)
  for name, value in one.items():
    np.testing.assert_array_equal(value, whole[name][20:24])
  host = corpora.as_batches(corpus)
  assert (host.per_epoch, host.size) == (15, 4)
  np.testing.assert_array_equal(host[5]["tokens"], one["tokens"])
  _, _, part = make(rows=4, copies=3, shard=(1, 2))
  again = read(part, 3)["tokens"].reshape(3, 2, -1)
  batches = whole["tokens"][:12].reshape(3, 4, -1)
  np.testing.assert_array_equal(again, batches[:, 2:])


def test_packed_rows_are_one_text():
  _, _, corpus = make(rows=3, copies=3, layout="packed", length=25)
  _, _, single = make(rows=4, copies=3)
  text = read(single)["tokens"][:, 1:].ravel()  # 60 sentences of 11 tokens
  found = read(corpus)
  assert corpus.plan.steps == 9  # 660 tokens in rows of 25, three at a time
  np.testing.assert_array_equal(found["tokens"].ravel()[:660], text)
  assert (np.diff(found["segments"]) >= 0).all()
  assert found["segments"].max() == 4


def test_packed_rows_of_unequal_sentences_hold_whole_ones():
  world, words, corpus = make(
    rows=2, copies=2, layout="packed", length=60, creator="simplerepeats"
  )
  assert corpus.plan.per_row == 2
  found = read(corpus)
  facts = worlds.facts(world)[found["units"]]
  for tokens, segments, about in zip(
    found["tokens"], found["segments"], facts, strict=True
  ):
    assert tokens[0] == vocabulary.END
    length = int((segments > 0).sum())
    assert (tokens[length:] == vocabulary.PADDING).all()
    assert (tokens[:length] != vocabulary.PADDING).all()
    written = np.split(
      tokens[1:length], np.flatnonzero(np.diff(segments[1:length])) + 1
    )
    assert len(written) == 2
    for sentence, fact in zip(written, about, strict=True):
      s, r, o = words.table[words.rows(fact)[0], 0]
      text = sentence.tolist()
      assert text[text.index(3) + 1] == s
      assert text[text.index(4) + 1] == r
      assert text[text.index(5) + 1] == o
      assert text[-2:] == [vocabulary.PERIOD, vocabulary.END]


def test_biographies():
  world, words, corpus = make(rows=5, copies=2, layout="biography")
  assert corpus.plan.steps == 4
  found = read(corpus)
  facts = worlds.facts(world)[found["units"]]
  assert (facts[:, 0, 1] == facts[:, 1, 1]).all()
  assert (np.sort(facts[:, :, 2]) == [0, 1]).all()
  assert np.bincount(facts[:, 0, 1]).tolist() == [2] * 10
  assert 0 < facts[:, 0, 2].mean() < 1
  first, second = (rows_of(words, facts[:, i]) for i in range(2))
  expected = [a + b[1:] for a, b in zip(first, second, strict=True)]
  assert list(map(tuple, found["tokens"].tolist())) == expected


def test_nested_worlds_and_their_repeats():
  world, words, corpus = make(
    sizes={"subjects": 40, "relations": 3, "objects": 6},
    nested_objects=2,
    rows=16,
    copies=2,
    nested_copies=3,
  )
  listed = [worlds.facts(world, family) for family in worlds.FAMILIES]
  times = np.repeat([2, 2, 6], list(map(len, listed)))
  assert corpus.plan.sentences == times.sum()
  found = read(corpus)
  units = found["units"][: times.sum(), 0]
  np.testing.assert_array_equal(np.bincount(units), times)
  # The first half is a pass of its own.
  half = np.bincount(units[: len(units) // 2])
  np.testing.assert_array_equal(half, times // 2)
  facts = np.concatenate(listed)[units]
  assert rows_of(words, facts) == list(
    map(tuple, found["tokens"][: len(units)].tolist())
  )


def test_rare_facts_are_written_once_at_least():
  world, _, corpus = make(rows=2, copies=1, frequency="zipf")
  counts = np.diff(np.asarray(corpus.ends), prepend=0)
  wanted = np.repeat(np.rint(world.frequency), 2)
  assert not wanted.all()
  np.testing.assert_array_equal(counts, np.maximum(wanted, 1))
  assert corpus.plan.sentences == counts.sum()


def test_questions_about_nested_worlds():
  """All facts of a subject are asked, those of objects are not."""
  world, words, corpus = make(
    sizes={"subjects": 8, "relations": 2, "objects": 4},
    nested_objects=2,
    rows=2,
    copies=4,
    questions=0.5,
  )
  asked = np.asarray(corpus.kinds) >= 3
  facts = np.concatenate(
    [worlds.facts(world, family) for family in ("S-O", "S-NO")]
  )
  chosen = corpora.asked_subjects(KEY, world, 0.5)
  expected = words.rows(facts[chosen[facts[:, 1]]])
  np.testing.assert_array_equal(corpus.words[asked], expected)
  assert corpus.plan.sentences == 4 * (~asked).sum() + 4 * asked.sum()
  # 14 tokens a question, 11 a statement.
  assert corpus.plan.tokens == 44 * (~asked).sum() + 56 * asked.sum()


def test_golden_corpora_have_these_counts():
  with np.load(GOLDEN / "graph_nested.npz") as arrays:
    world = worlds.world_from_graph(arrays["graph"])
  words = vocabulary.make_vocabulary(world, first_word=85)
  corpus = corpora.make_corpus(KEY, world, words, rows=1, copies=2)
  summary = SUMMARY["nested"]
  assert corpus.plan.sentences == summary["n_sentences"]
  # The published count has one token too many for each sentence.
  meta = summary["meta"]["total_num_tokens"]
  assert corpus.plan.tokens == meta - summary["n_sentences"]


def test_questions_and_skewed_frequencies():
  world, words, corpus = make(
    rows=10, copies=6, questions=0.25, asked=0.3, frequency="zipf"
  )
  found = read(corpus)
  facts = worlds.facts(world)
  total = corpus.plan.sentences
  counts = np.bincount(found["units"][:total, 0])
  wanted = np.maximum(np.rint(6 * world.frequency), 1)
  np.testing.assert_array_equal(counts[:20], np.repeat(wanted, 2))
  assert counts[20:].tolist() == [5] * 6  # int(6 / .3 * .25), of 3 subjects
  chosen = corpora.asked_subjects(KEY, world, 0.3)
  np.testing.assert_array_equal(
    corpus.words[20:], words.rows(facts[chosen[facts[:, 1]]])
  )
  question = found["units"][:total, 0] >= 20
  tokens = found["tokens"][:total]
  assert (tokens[question, 1] == words.grammar["QQ"]).all()
  assert (tokens[~question, 1] == words.grammar["SS"]).all()
  asked = set(rows_of(words, facts, "question"))
  written = collections.Counter(map(tuple, tokens[question].tolist()))
  assert written.keys() <= asked
  assert set(written.values()) == {5}
  assert len(written) == 6


def test_drawn_facts_and_dissenting_objects():
  world, words, corpus = make(
    rows=500,
    copies=100,
    frequency="zipf",
    order="replacement",
    minority=0.5,
    minority_share=0.2,
  )
  found = read(corpus, 16)
  wanted = np.repeat(np.maximum(np.rint(100 * world.frequency), 1), 2)
  expected = wanted / wanted.sum() * 8000
  counts = np.bincount(found["units"][:, 0], minlength=20)
  assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()

  facts = worlds.facts(world)[found["units"][:, 0]]
  written = found["tokens"][:, 9]
  major = words.table[words.rows(facts)[:, 2], 0]
  other = world.minority[facts[:, 1], facts[:, 2]]
  there = other >= 0
  assert (written[~there] == major[~there]).all()
  facts[:, 3] = np.maximum(other, 0)
  minor = words.table[words.rows(facts)[:, 2], 0]
  assert ((written == major) | (written == minor)).all()
  share = np.mean(written[there] == minor[there])
  assert abs(share - 0.2) < 5 * np.sqrt(0.16 / there.sum())


def test_shares_of_orders_and_fillers():
  _, words, corpus = make(
    rows=1000, copies=400, creator="nonsense", inverted=0.3
  )
  found, spots, sro = read(corpus)["tokens"], collections.Counter(), 0
  summary = SUMMARY["nonsense0"]["spot_len_hist"]
  fillers = set(words.fillers.tolist())
  for row in found.tolist():
    sro += row.index(3) < row.index(4) < row.index(5)
    inside = [t in fillers for t in row[1 : row.index(2)]]
    groups = "".join("f" if x else " " for x in inside).split()
    assert len(groups) == 3
    spots.update(map(len, groups))
  assert abs(sro / 8000 - 0.3) < 5 * np.sqrt(0.21 / 8000)
  for length, count in summary.items():
    share = count / 30_000
    ours = spots[int(length)] / 24_000
    assert abs(ours - share) < 6 * np.sqrt(share / 12_000)
  drawn = found[np.isin(found, words.fillers)]
  assert len(np.unique(drawn)) == len(words.fillers) == 1004
  counts = np.bincount(drawn)[words.fillers]
  mean = len(drawn) / 1004
  assert np.abs(counts - mean).max() < 6 * np.sqrt(mean)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"copies": 0}, "copies must be a whole number of at least 1"),
    ({"layout": "row"}, "layout must be one of rows, packed, biography"),
    ({"order": "random"}, "order must be one of permutation, replacement"),
    ({"shard": (1, 3)}, "3 must divide the 4 rows"),
    ({"layout": "packed", "length": 11}, "length must be .* at least 12"),
    ({"questions": 0.1, "asked": 0}, "asked one above 0"),
    ({"questions": 0.1, "asked": 0.01}, "0 subjects: take more copies"),
    ({"layout": "biography", "questions": 0.5}, "questions 0"),
    ({"layout": "biography", "nested_objects": 2}, "must not be nested"),
    ({"copies": 2**28}, "sentences; there may be 4294967295"),
    ({"creator": "inverse"}, "no creator 'inverse'"),
  ],
)
def test_impossible_corpora(options, message):
  with pytest.raises(ValueError, match=message):
    make(**({"rows": 4} | options))
