"""Texts in rows: nothing is lost, nothing counts that should not."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.data import dialogues, packing
from effjax.data.dialogues import Example

LENGTH = 24


def _examples(sizes):
  """Make texts whose tokens tell text and place: 100 n + i."""
  return [
    Example(100 * n + np.arange(size, dtype=np.int32), prompt)
    for n, (size, prompt) in enumerate(sizes, 1)
  ]


def _read_back(batch):
  """List what counts: pairs of token seen and token foretold."""
  found = []
  for row in range(len(batch["tokens"])):
    counts = batch["weights"][row] > 0
    seen = batch["tokens"][row][batch["places"][row][counts]]
    found += zip(
      seen.tolist(), batch["targets"][row][counts].tolist(), strict=True
    )
  return found


SIZES = st.lists(
  st.integers(2, LENGTH).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(1, size - 1))
  ),
  min_size=1,
  max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 3), st.integers(0, 2))
def test_packed_rows_hold_every_text_once(sizes, seed, epoch):
  examples = _examples(sizes)
  made = packing.packed(examples, 1, LENGTH, seed=seed)
  found = []
  for number in range(made.per_epoch):
    batch = made[epoch * made.per_epoch + number]
    assert batch["tokens"].shape == (1, LENGTH)
    np.testing.assert_allclose(batch["weights"].sum(), 1, rtol=1e-5)
    # Neighbours of one text have one segment and count up.
    for text in np.unique(batch["segments"]):
      if text:
        inside = batch["segments"][0] == text
        positions = batch["positions"][0][inside]
        np.testing.assert_array_equal(positions, np.arange(inside.sum()))
        tokens = batch["tokens"][0][inside]
        assert len(np.unique(tokens // 100)) == 1
    found += _read_back(batch)
  expected = [
    (int(tokens[i]), int(tokens[i + 1]))
    for tokens, prompt in examples
    for i in range(prompt - 1, len(tokens) - 1)
  ]
  assert sorted(found) == sorted(expected)


def test_the_number_of_rows_does_not_depend_on_the_order():
  rng = np.random.default_rng(0)
  examples = _examples([(int(n), 1) for n in rng.integers(2, LENGTH, 40)])
  rows = [
    packing.packed(examples, 1, LENGTH, seed=seed).per_epoch
    for seed in range(5)
  ]
  least = -(-sum(len(x.tokens) for x in examples) // LENGTH)
  assert len(set(rows)) == 1
  assert rows[0] <= 1.1 * least + 1
  made = packing.packed(examples, 4, LENGTH, seed=0)
  first, again = made[3], made[3]
  assert all(np.array_equal(first[name], again[name]) for name in first)
  later = made[3 + made.per_epoch]
  assert not np.array_equal(first["tokens"], later["tokens"])


def test_buckets_are_of_like_length_and_complete_without_shuffling():
  rng = np.random.default_rng(1)
  examples = _examples([(int(n), 1) for n in rng.integers(2, 60, 30)])
  made = packing.bucketed(examples, 4, seed=0, multiple=8, shuffle=False)
  batches = [made[i] for i in range(made.per_epoch)]
  found = [pair for batch in batches for pair in _read_back(batch)]
  assert len(found) == sum(len(x.tokens) - 1 for x in examples)
  shuffled = packing.bucketed(examples, 4, seed=0, multiple=8)
  padding = [np.mean(b["segments"] == 0) for b in batches]
  assert np.mean(padding) < 0.35  # single texts in rows of 60: 0.48
  assert {b["tokens"].shape[1] % 8 for b in batches} == {0}
  assert shuffled.per_epoch == 7
  for batch in batches:
    # Also where rows are empty.
    np.testing.assert_allclose(batch["weights"].sum(), 4, rtol=1e-5)


def test_what_does_not_fit_is_named():
  with pytest.raises(ValueError, match=r"longest of 1 has 30"):
    packing.packed(_examples([(30, 1)]), 1, LENGTH, seed=0)
  with pytest.raises(
    ValueError, match="fill 1 rows of 24 tokens, and a batch has 2"
  ):
    packing.packed(_examples([(3, 1)]), 2, LENGTH, seed=0)
  with pytest.raises(ValueError, match="1 texts do not fill"):
    packing.bucketed(_examples([(3, 1)]), 2, seed=0)


class _Letters:
  """A tokenizer of single letters with a template of conversations."""

  end, template = 0, "any"

  def chat_tokens(self, messages):
    (message,) = messages
    return self.encode(f"<{message['content']}>", special=False)

  def encode(self, text, *, special):
    assert not special
    return [ord(letter) for letter in text]


def test_dialogues_are_read_and_encoded(tmp_path):
  path = tmp_path / "my.jsonl"
  lines = [{"prompt": "ab", "response": "c"}, {"prompt": "", "response": "ü"}]
  path.write_text("\n\n".join(map(json.dumps, lines)), "utf-8")
  read = dialogues.read(path)
  assert read == [("ab", "c"), ("", "ü")]
  examples = dialogues.encode(read, _Letters(), length=6)
  assert examples[0].tokens.tolist() == [*map(ord, "<ab>c"), 0]
  assert [example.prompt for example in examples] == [4, 2]
  with pytest.raises(ValueError, match="dialogue 1 has 6 tokens, 4 of them in"):
    dialogues.encode(read, _Letters(), length=5)


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ('{"prompt": "a"}', "line 2 has no 'response'; it has"),
    ('{"prompt": "a", "response": 1}', "line 2: 'response' must be a text"),
    ('{"prompt": "a", "response": " "}', "line 2: 'response' is empty"),
    ("[1]", "line 2 must be an object .* not list"),
    ('{"prompt": ', "line 2 is not JSON"),
    ('{"prompt": ' + "9" * 5000 + "}", "line 2 is not JSON"),
    ("[" * 100_000, "line 2 is not JSON"),
    (
      '{"prompt": "x \\ud83d", "response": "b"}',
      "line 2: 'prompt' holds half a character",
    ),
  ],
)
def test_errors_name_the_line(tmp_path, line, message):
  path = tmp_path / "my.jsonl"
  path.write_text('{"prompt": "a", "response": "b"}\n' + line)
  with pytest.raises(ValueError, match=message):
    dialogues.read(path)


def test_nothing_to_read(tmp_path):
  with pytest.raises(FileNotFoundError, match="no file"):
    dialogues.read(tmp_path / "absent.jsonl")
  (tmp_path / "empty.jsonl").write_text("\n")
  with pytest.raises(ValueError, match="holds no dialogue"):
    dialogues.read(tmp_path / "empty.jsonl")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.lists(st.integers(2, 10), min_size=1, max_size=12))
def test_what_all_texts_begin_with_stands_once(beginning, sizes):
  head = np.arange(beginning, dtype=np.int32)
  examples = [
    Example(np.concatenate([head, tail.tokens]), beginning + 1)
    for tail in _examples([(size, 1) for size in sizes])
  ]
  assert packing.common_beginning(examples) == beginning
  made = packing.packed(examples, 1, LENGTH, seed=0, beginning=beginning)
  apart = packing.packed(examples, 1, LENGTH, seed=0)
  assert made.per_epoch <= apart.per_epoch
  counted = []
  for number in range(made.per_epoch):
    row = {name: value[0] for name, value in made[number].items()}
    np.testing.assert_array_equal(row["tokens"][:beginning], head)
    np.testing.assert_array_equal(row["segments"][:beginning], -1)
    assert (row["segments"][beginning:] >= 0).all()
    for text in range(1, row["segments"].max() + 1):
      inside = row["segments"] == text
      assert row["positions"][inside].tolist() == list(
        range(beginning, beginning + inside.sum())
      )
    counted += _read_back(made[number])
  whole = [
    pair for n in range(apart.per_epoch) for pair in _read_back(apart[n])
  ]
  assert sorted(counted) == sorted(whole)


def test_a_beginning_that_texts_do_not_share_is_refused():
  texts = [[7, 8, 9, 1, 5], [7, 8, 9, 2, 5], [7, 8, 4, 3, 5]]
  alike, other = (
    [Example(np.array(t, np.int32), 4) for t in part]
    for part in (texts[:2], texts)
  )
  with pytest.raises(ValueError, match=r"2 tokens that are the same.* with 3"):
    packing.packed(other, 1, LENGTH, seed=0, beginning=3)
  # One of the variants, when its batch is made.
  made = packing.packed(
    alike, 1, LENGTH, seed=0, beginning=3, variants=lambda epoch: other[1:]
  )
  with pytest.raises(ValueError, match="the same"):
    made[0]
  with pytest.raises(ValueError, match="beginning counts tokens, got -1"):
    packing.packed(alike, 1, LENGTH, seed=0, beginning=-1)
  # The last token of a prompt foretells: it is of a text of its own.
  short = [Example(np.array([7, 8, 9], np.int32), 1)] * 2
  assert packing.common_beginning(short) == 0
