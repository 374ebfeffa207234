"""Files for other programs: shards of text, pairs, JSON lines, a tokenizer."""

import collections
import json
import pathlib

import jax
import numpy as np
import pytest

from effjax.data import (
  corpora,
  edit_sets,
  edits,
  sentences,
  vocabulary,
  world_exports,
  worlds,
)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
SUMMARY = json.loads((GOLDEN / "data_summary.json").read_text())["iid"]
SAMPLES = json.loads((GOLDEN / "tokenizer_samples.json").read_text())
KEY = jax.random.key(0)
WORLD = world_exports.read_graph(GOLDEN / "graph_iid.npz", objects=12)
WORDS = vocabulary.make_vocabulary(WORLD, first_word=85)


def test_shards_hold_the_golden_corpus(tmp_path, monkeypatch):
  monkeypatch.setattr(world_exports, "_PER_SHARD", 200)
  corpus = corpora.make_corpus(KEY, WORLD, WORDS, rows=64, copies=3)
  paths = world_exports.write_corpus(tmp_path / "text", WORLD, corpus)
  assert [path.name for path in paths] == [
    f"shard_0000{i}.txt" for i in range(3)
  ]
  assert sorted(path.name for path in (tmp_path / "text").iterdir()) == [
    path.name for path in paths
  ]
  texts = [path.read_text() for path in paths]
  lines = "".join(texts).split("<|endoftext|>")[:-1]
  assert len(lines) == SUMMARY["n_sentences"]
  counts = collections.Counter(collections.Counter(lines).values())
  assert counts == {3: SUMMARY["n_unique"]}
  assert set(SUMMARY["first_sentences"]) <= set(lines)
  assert {len(line.split()) for line in lines} == {9}
  assert {text.count("<|endoftext|>") for text in texts} == {240}
  packed = corpora.make_corpus(KEY, WORLD, WORDS, rows=4, layout="packed")
  with pytest.raises(ValueError, match="from the layout 'rows' of one host"):
    world_exports.write_corpus(tmp_path, WORLD, packed)


def test_prompts_and_instructions(tmp_path):
  path = tmp_path / "sro.txt"
  world_exports.write_prompts(path, WORDS, worlds.facts(WORLD))
  lines = path.read_text().splitlines()
  assert len(lines) == SUMMARY["val_counts"]["sro.txt"]
  assert set(SUMMARY["val_first"]["sro.txt"]) <= set(lines)
  edit = edits.make_edit(KEY, WORLD, kind="refusal", count=2)
  sets = edit_sets.make_sets(KEY, WORLD, edit, repeats=4)
  path = tmp_path / "train.jsonl"
  world_exports.write_json_lines(path, world_exports.instructions(sets, WORDS))
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [row["output"] for row in rows[:8]] == [" OO OO"] * 8
  assert rows[8]["instruction"].endswith(" OO")
  assert len(rows) == 8 + sum(
    len(facts) for name, facts in sets.train.items() if name != "edited"
  )


@pytest.mark.parametrize("name", ["iid", "two_token_subjects"])
def test_a_tokenizer_for_others(tmp_path, name):
  tokenizers = pytest.importorskip("tokenizers")
  sample, words = SAMPLES[name], WORDS
  if name != "iid":
    world = worlds.World(object=np.zeros((2000, 2), np.int32), objects=8)
    words = vocabulary.make_vocabulary(world, first_word=85)
  world_exports.write_tokenizer(tmp_path / "tokenizer.json", words)
  backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  found = backend.encode(sample["text"])
  assert found.ids == sample["ids"]
  assert found.tokens == sample["tokens"]
  assert backend.decode(found.ids, skip_special_tokens=False) == sample["text"]
  for token, number in sample["specials"].items():
    assert backend.token_to_id(token) == number
  question, _ = sentences.render(words, np.array([[0, 1, 1, 1]]), "question")
  assert backend.encode(vocabulary.decode(question)).ids == question[0].tolist()
  assert max(backend.get_vocab().values()) == words.size - 1
  with pytest.raises(Exception, match="UNK"):
    backend.encode(" SS Rome")


def test_graphs_of_other_programs(tmp_path):
  edges = worlds.graph(WORLD)
  np.save(tmp_path / "g.npy", edges)
  (tmp_path / "g.json").write_text(json.dumps(edges.tolist()))
  text = "\n".join(",".join(map(str, row[:3])) for row in edges.tolist())
  (tmp_path / "g.csv").write_text(f"subject,relation,object\n{text}\n")
  (tmp_path / "plain.csv").write_text(text)
  for name in ("g.npy", "g.json", "g.csv", "plain.csv"):
    world = world_exports.read_graph(tmp_path / name)
    np.testing.assert_array_equal(world.object, WORLD.object)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("g.txt", b"", r"must be one of .npz, .npy, .json, .csv, got '.txt'"),
    ("g.npz", b"PK damaged", "holds no graph"),
    ("g.npy", b"", "holds no graph"),
    ("g.json", b"[[0, 0, 1], [0]]", "holds no graph"),
    ("g.json", b"{", "holds no graph"),
    ("g.csv", b"", "rows .subject, relation"),
    ("g.csv", b"s,r,o\n0,a,1\n", "holds no graph"),
  ],
)
def test_files_that_are_no_graph(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message):
    world_exports.read_graph(tmp_path / name)
  with pytest.raises(FileNotFoundError, match="there is no graph at"):
    world_exports.read_graph(tmp_path / "absent.npz")
