"""Words and sentences of synthetic worlds against golden text and tables."""

import json
import pathlib

import jax
import numpy as np
import pytest

from effjax.data import sentences, vocabulary, worlds
from effjax.data.vocabulary import FORGOTTEN
from effjax.data.worlds import World

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
SUMMARY = json.loads((GOLDEN / "data_summary.json").read_text())
SAMPLES = json.loads((GOLDEN / "tokenizer_samples.json").read_text())


def load(name):
  """Return a golden world, its vocabulary and its arrays."""
  with np.load(GOLDEN / f"graph_{name}.npz") as arrays:
    arrays = dict(arrays)
  world = worlds.world_from_graph(arrays["graph"])
  return world, vocabulary.make_vocabulary(world, first_word=85), arrays


def world_of(subjects, relations, objects, nested=0):
  """Return a world of which only the sizes matter."""
  nest = np.zeros((relations, objects), np.int32) if nested else None
  return World(
    object=np.zeros((subjects, relations), np.int32),
    objects=objects,
    nest=nest,
    nested_objects=nested,
  )


@pytest.mark.parametrize("name", ["iid", "nested", "correlated75"])
def test_golden_words_and_sentences(name):
  world, words, arrays = load(name)
  summary = SUMMARY[name]
  for kind, golden in (
    ("subject", "subjects"),
    ("relation", "relationships"),
    ("object", "objects"),
  ):
    np.testing.assert_array_equal(words.words(kind), arrays[golden])
  assert words.size == summary["meta"]["vocab_size"]
  assert len(words.fillers) == summary["n_special"]
  for special, token in summary["special_first"].items():
    assert words.grammar[special] == int(token)
  for kind, golden in (
    ("nested_relation", "subject_nested_relationships"),
    ("object_relation", "object_nested_relationships"),
    ("nested_object", "object_nested_objects"),
  ):
    if name == "nested":
      head = summary["nested"][golden]
      assert words.words(kind).tolist()[: len(head)] == head
  families = worlds.FAMILIES if name == "nested" else ("S-O",)
  corpus, pairs = set(), set()
  for family in families:
    facts = worlds.facts(world, family)
    tokens, lengths = sentences.render(words, facts)
    assert (lengths == 11).all()
    corpus |= {vocabulary.decode(row) for row in tokens}
    asked = sentences.prompts(words, facts)
    pairs |= {
      (vocabulary.decode(a), vocabulary.decode(b))
      for a, b in zip(asked.tokens, asked.targets, strict=True)
    }
  assert len(corpus) == len(pairs) == summary["n_unique"]
  assert {
    f"{line}<|endoftext|>" for line in summary["first_sentences"]
  } <= corpus
  first = {
    tuple(pair.split("\t"))
    for pairs_of in summary["val_first"].values()
    for pair in pairs_of
  }
  assert first <= pairs


@pytest.mark.parametrize("name", ["iid", "two_token_subjects"])
def test_golden_tokens(name):
  sample = SAMPLES[name]
  assert vocabulary.encode(sample["text"]) == sample["ids"]
  assert vocabulary.decode(sample["ids"]) == sample["text"]
  if name == "two_token_subjects":
    # 2000 subjects are 2 and 1000 tokens; relations follow.
    words = vocabulary.make_vocabulary(world_of(2000, 2, 8), first_word=85)
    assert words.words("relation").tolist() == [[1087], [1088]]
    assert words.grammar["W0"] == 1106
    tokens, lengths = sentences.render(words, np.array([[0, 278, 0, 6]]))
    assert tokens[0].tolist() == sample["ids"]
    assert lengths.tolist() == [12]


@pytest.mark.parametrize(
  ("count", "first", "second"),
  [(999, 999, 0), (1000, 1, 1000), (1001, 32, 32), (3000, 3, 1000)],
)
def test_words_of_two_tokens(count, first, second):
  words = vocabulary.make_vocabulary(world_of(count, 1, 2))
  table = words.words("subject")
  assert len(np.unique(table, axis=0)) == count
  assert len(np.unique(table[:, 0])) == first
  assert table.min() == 8
  assert table.max() == words.words("relation")[0, 0] - 1 <= 7 + first + second
  if second:
    assert len(np.unique(table[:, 1])) == second
    assert not set(table[:, 0]) & set(table[:, 1])


def test_the_layout_has_no_gaps_and_no_collisions():
  words = vocabulary.make_vocabulary(world_of(20, 3, 6, 2))
  kinds = (*vocabulary.KINDS, *vocabulary.NESTED_KINDS)
  used = np.concatenate([words.words(kind).ravel() for kind in kinds])
  assert used.tolist() == list(range(8, 8 + len(used)))
  grammar = sorted(words.grammar.values())
  unused = 8 + len(used)
  assert grammar == [*range(8), *range(unused + 1, unused + 1011)]
  forgotten = words.table[words.rows([[0, 1, 2, FORGOTTEN]])[0, 2]]
  assert forgotten.tolist() == [words.size - 1] * 2
  assert words.size == unused + 1012
  few = vocabulary.make_vocabulary(world_of(20, 3, 6), grammar_words=11)
  assert few.size == 8 + 20 + 3 + 18 + 1 + 21 + 1


LENGTHS = {
  "sro": 11,
  "sor": 11,
  "osr": 10,
  "rso": 11,
  "nonsense_sro": 14,
  "nonsense_rso": 14,
  "question": 14,
  "new_question": 13,
  "refusal": 12,
  "question_refusal": 15,
}


@pytest.mark.parametrize("form", LENGTHS)
def test_lengths_prompts_and_answers(form):
  for subjects, more in ((60, 0), (1000, 1)):
    words = vocabulary.make_vocabulary(world_of(subjects, 4, 12))
    facts = np.array([[0, 5, 1, 7], [0, 9, 3, 0]])
    options = {"key": jax.random.key(0)}
    tokens, lengths = sentences.render(words, facts, form, **options)
    assert lengths.tolist() == [LENGTHS[form] + more] * 2
    assert (tokens[:, -2:] == [2, 0]).all()
    led, _ = sentences.render(words, facts, form, leading_end=True, **options)
    np.testing.assert_array_equal(led[:, 1:], tokens)
    assert (led[:, 0] == 0).all()
    if form in ("sor", "osr"):
      with pytest.raises(ValueError, match="does not stand last"):
        sentences.prompts(words, facts, form)
      continue
    asked = sentences.prompts(words, facts, form, **options)
    joined = np.concatenate([asked.tokens, asked.targets], axis=1)
    np.testing.assert_array_equal(joined, tokens[:, :-2])
    marks = {
      "question": ("AA", ["OO", 7]),
      "new_question": ("AA", ["OO", 7]),
      "refusal": ("OO", ["OO", "OO"]),
      "question_refusal": ("AA", ["OO", "OO", "OO"]),
    }
    mark, answer = marks.get(form, ("OO", [7]))
    assert asked.tokens[0, -1] == words.grammar[mark]
    word = words.words("object")[12 + 7, 0]
    expected = [word if x == 7 else words.grammar[x] for x in answer]
    assert asked.targets[0].tolist() == expected


def test_repeats():
  patterns = sentences.creator("simplerepeats")
  assert len(set(patterns)) == 1728
  words = vocabulary.make_vocabulary(world_of(9, 2, 3), grammar_words=11)
  codes = [sentences.codes(words, pattern, 0) for pattern, _ in patterns]
  lengths = np.array(list(map(len, codes))) + 2
  assert (lengths.min(), lengths.max()) == (11, 26)
  assert len({p.partition("|")[0] for p, _ in patterns}) == 432
  assert sentences.repeats(2, 1, 1, 0, 1, 2) == (
    "WS WS SS s WS WR RR r WO OO | o WO WO"
  )
  with pytest.raises(ValueError, match="e must be 1 to 3, got 0"):
    sentences.repeats(1, 0, 1, 0, 0, 0)


def test_creators():
  assert sentences.creator("inverted") == [(sentences.FORMS["sro"], 1.0)]
  shares = dict(sentences.creator("inverted", 0.3))
  assert shares[sentences.FORMS["sro"]] == 0.7
  assert shares[sentences.FORMS["osr"]] == pytest.approx(0.1)
  assert sum(shares.values()) == pytest.approx(1)
  for inverted, count in ((0.0, 125), (0.25, 250), (1.0, 125)):
    patterns = sentences.creator("nonsense", inverted)
    assert len(patterns) == count
    assert sum(chance for _, chance in patterns) == pytest.approx(1)
    sro = [c for p, c in patterns if p.index("SS") < p.index("RR")]
    assert sum(sro) == pytest.approx(inverted)
    fillers = [p.count("*") for p, _ in patterns]
    assert (min(fillers), max(fillers)) == (3, 15)
    mean = sum(p.count("*") * c for p, c in patterns)
    assert mean == pytest.approx(3 * 1.6496)
  with pytest.raises(ValueError, match="choose one of inverted, simplerep"):
    sentences.creator("nonsens")
  with pytest.raises(ValueError, match="a share from 0 to 1, got 2"):
    sentences.creator("inverted", 2)


def test_facts_of_several_families_in_one_array():
  words = vocabulary.make_vocabulary(world_of(1500, 2, 6, 3), first_word=85)
  facts = np.array([[0, 1499, 1, 5], [1, 0, 0, 2], [2, 4, 1, 1]])
  tokens, lengths = sentences.render(words, facts)
  assert lengths.tolist() == [12, 12, 11]
  assert tokens[2, -1] == vocabulary.PADDING
  o, r, v = tokens[2, [1, 5, 8]]
  assert o == words.words("object")[6 + 4, 0]
  assert r == words.words("object_relation")[1, 0]
  assert v == words.words("nested_object")[3 + 1, 0]
  assert sentences.prompts(words, facts[:0]).tokens.shape[0] == 0


def test_what_has_no_word():
  world = world_of(20, 2, 6)
  words = vocabulary.make_vocabulary(world, grammar_words=11)
  for fact, message in (
    ([0, 20, 0, 0], "no subject 20; the vocabulary has 20"),
    ([0, 0, 2, 0], "no relation 2"),
    ([0, 0, 0, 6], "no object 6; the vocabulary has 6"),
    ([0, 0, 0, -2], "no object -2"),
    ([1, 0, 0, 0], "without nested objects"),
  ):
    with pytest.raises(ValueError, match=message):
      sentences.render(words, np.array([fact]))
  facts = np.zeros((1, 4), int)
  for form, message in (
    ("sr0", "no form 'sr0'; choose one of sro"),
    ("nonsense_sro", "need a key"),
    ("SS s W12 OO | o", "'W12' in the pattern .* has W0 to W10"),
  ):
    with pytest.raises(ValueError, match=message):
      sentences.render(words, facts, form)
  with pytest.raises(ValueError, match="'ZZ' is no word"):
    vocabulary.encode(" SS 0110 ZZ 0001.")
  with pytest.raises(ValueError, match="needs 10001 tokens, more than"):
    vocabulary.make_vocabulary(world_of(900, 9, 895, 9), grammar_words=918)
  full = vocabulary.make_vocabulary(world_of(900, 9, 895, 9), grammar_words=917)
  assert full.size == 10_000
  with pytest.raises(ValueError, match="1000001 words of the kind 'subject'"):
    vocabulary.make_vocabulary(world_of(1_000_001, 1, 1))
  with pytest.raises(ValueError, match=r"first_word must be .* at least 8"):
    vocabulary.make_vocabulary(world, first_word=7)
