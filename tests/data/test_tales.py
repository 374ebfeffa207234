"""Tales are read, and cut without losing or repeating a sentence."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effjax import data
from effjax.data import registry, tales

HEAD = "Title\tContent\nstring\tstring\n\tinclude=True\n"
TABLE = f'{HEAD}\nOne\tA fox. A "hen".\nTwo\t"She said: ""No!""\tGone."\n'


def test_a_table_is_read_with_its_quotation_marks(tmp_path, monkeypatch):
  content = TABLE.encode()
  real = registry.SOURCES["tales"]
  (file,) = real.files
  digest = hashlib.sha256(content).hexdigest()
  file = dataclasses.replace(file, sha256=digest, size=len(content))
  made = dataclasses.replace(real, files=(file,))
  monkeypatch.setitem(registry.SOURCES, "tales", made)
  (tmp_path / file.name).write_bytes(content)
  found = data.source("tales", "all", directory=tmp_path)
  assert found.arrays["titles"].tolist() == ["One", "Two"]
  assert found.arrays["texts"].tolist() == [
    'A fox. A "hen".',
    'She said: "No!"\tGone.',
  ]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("Title\tText\n", "no column 'Content'"),
    ("", "no column 'Title'"),
    (HEAD, "has no rows"),
    (f"{HEAD}One\n", "line 4: expected 2 values, found 1"),
  ],
)
def test_damaged_tables(text, message):
  with pytest.raises(ValueError, match=message):
    tales.read(text.encode())


_WORDS = st.lists(st.sampled_from(["a", "be.", "No!’", "we;", "on,"]))


@given(_WORDS, st.integers(1, 4), st.integers(1, 4))
def test_every_sentence_is_in_one_place(words, asked, answered):
  text = "  ".join(words)
  parts = tales.sentences(text)
  assert " ".join(parts) == " ".join(words)
  found = tales.dialogues(text, asked=asked, answered=answered)
  begin = "Continue the tale: "
  passages = []
  for prompt, response in found:
    assert prompt.startswith(begin)
    assert len(prompt.removeprefix(begin).split()) >= asked
    assert len(response.split()) >= answered
    passages += [prompt.removeprefix(begin), response]
  joined = " ".join(passages)
  assert " ".join(words).startswith(joined)
  rest = parts[len(tales.sentences(joined)) :]
  left = sum(len(part.split()) for part in rest)
  last = rest[-1].split() if rest else []
  assert left - len(last) < asked + answered + 5 * len(rest)
