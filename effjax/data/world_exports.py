"""Worlds and edits as files for other programs, and graphs of other programs.

Files are written under another name first and then renamed.
"""

import contextlib
import csv
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from effjax.data import corpora, sentences, vocabulary, worlds
from effjax.data.corpus_rows import Corpus
from effjax.data.edit_sets import Sets
from effjax.data.vocabulary import Vocabulary
from effjax.data.worlds import World

_PER_SHARD = 100_000  # facts times copies


def write_corpus(
  directory: str | os.PathLike, world: World, corpus: Corpus
) -> list[pathlib.Path]:
  """Write a whole corpus as shards of text.

  Trainers of plain text, such as LitGPT's `TextFiles`, take the first shard for
  validation and the others for training.

  Args:
    directory: Where; it is made.
    world: The world.
    corpus: Its corpus, in the layout "rows" and not divided among hosts.

  Returns:
    The files, each with a share of the sentences, which end in an end of text.

  Raises:
    ValueError: If the corpus has another layout or is a part of one.
  """
  plan = corpus.plan
  if plan.layout != "rows" or plan.rows != plan.all_rows:
    raise ValueError(
      "a corpus is written from the layout 'rows' of one host, got"
      f" {plan.layout!r} and {plan.rows} of {plan.all_rows} rows"
    )
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  size = _PER_SHARD * (2 if world.nest is not None else 1)
  count = max(1, world.object.size * plan.copies // size)
  edges = np.arange(count + 1) * plan.sentences // count
  lines, paths = _lines(corpus), []
  for number in range(count):
    paths.append(directory / f"shard_{number:05d}.txt")
    with _replacing(paths[-1]) as file:
      for _ in range(edges[number + 1] - edges[number]):
        file.write(next(lines))
  return paths


def _lines(corpus: Corpus) -> Iterator[str]:
  left = corpus.plan.sentences
  for batch in corpora.stream(corpus):
    # The first token of a row is the end of the text before.
    for row in np.asarray(batch["tokens"])[:left, 1:]:
      yield vocabulary.decode(row)
    left -= corpus.plan.rows
    if left <= 0:
      return


def write_prompts(
  path: str | os.PathLike,
  words: Vocabulary,
  facts: np.ndarray,
  form: str = "sro",
  **options: Any,
) -> None:
  """Write prompts and answers, with a tab between them, one pair a line.

  Args:
    path: The file.
    words: The vocabulary.
    facts: Rows [family, subject, relation, value].
    form: See `sentences.prompts`.
    **options: Likewise.
  """
  with _replacing(pathlib.Path(path)) as file:
    for prompt, target in pairs(words, facts, form, **options):
      file.write(f"{prompt}\t{target}\n")


def pairs(
  words: Vocabulary, facts: np.ndarray, form: str = "sro", **options: Any
) -> list[tuple[str, str]]:
  """Return the texts of prompts and answers, see `sentences.prompts`."""
  asked = sentences.prompts(words, facts, form, **options)
  return [
    (vocabulary.decode(prompt), vocabulary.decode(target))
    for prompt, target in zip(asked.tokens, asked.targets, strict=True)
  ]


def instructions(sets: Sets, words: Vocabulary) -> list[dict[str, str]]:
  """List the training mix of an edit with all its copies.

  Args:
    sets: The sets.
    words: The vocabulary.

  Returns:
    Dicts of "instruction", "input" and "output", as trainers of dialogues take
    them; parts stand one behind the other.
  """
  return [
    {"instruction": prompt, "input": "", "output": target}
    for name, facts in sets.train.items()
    for prompt, target in pairs(words, facts, sets.forms.get(name, "sro"))
    for _ in range(sets.copies[name])
  ]


def write_json_lines(path: str | os.PathLike, rows: Any) -> None:
  """Write dicts as JSON, one a line."""
  with _replacing(pathlib.Path(path)) as file:
    for row in rows:
      file.write(json.dumps(row) + "\n")


def tokenizer_json(words: Vocabulary) -> str:
  """Return a tokenizer of the texts of a world for other trainers.

  Args:
    words: The vocabulary.

  Returns:
    The content of a `tokenizer.json` of Hugging Face's `tokenizers`. Words are
    whole tokens, so that no text outside of the world can be encoded.

  Raises:
    ImportError: If `tokenizers` is absent.
  """
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "a tokenizer.json is written by the package tokenizers; install the extra"
      ' "language"'
    ) from error
  from tokenizers import decoders, models, pre_tokenizers

  count = len(vocabulary.SPECIALS)
  used = [*range(count), *range(words.first_word, words.size)]
  text = lambda token: vocabulary.token_text(token).replace(" ", "\u0120")
  backend = tokenizers.Tokenizer(
    models.WordLevel({text(token): token for token in used}, unk_token="")
  )
  split = tokenizers.Regex(vocabulary.pattern())
  backend.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(split, "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens(list(vocabulary.SPECIALS[:2]))
  return backend.to_str(pretty=True)


def write_tokenizer(path: str | os.PathLike, words: Vocabulary) -> None:
  """Write the content of `tokenizer_json` to a file."""
  with _replacing(pathlib.Path(path)) as file:
    file.write(tokenizer_json(words))


def read_graph(path: str | os.PathLike, **options: Any) -> World:
  """Read the graph of another program.

  Args:
    path: A `.npz` or `.npy` file with an array `graph`, or a `.json` or `.csv`
      file with its rows; a first line of names is passed over.
    **options: See `worlds.world_from_graph`.

  Returns:
    The world.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If the file is of another kind, or holds no graph.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"there is no graph at {path}")
  if path.suffix not in _READERS:
    raise ValueError(
      f"{path} must be one of {', '.join(_READERS)}, got {path.suffix!r}"
    )
  try:
    edges = _READERS[path.suffix](path)
  except (*_DAMAGE, OSError) as error:
    raise ValueError(f"{path} holds no graph: {error}") from error
  return worlds.world_from_graph(edges, **options)


_DAMAGE = (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


def _from_npz(path):
  with np.load(path, allow_pickle=False) as arrays:
    return arrays["graph"]


def _from_csv(path):
  with open(path, encoding="utf-8", newline="") as file:
    rows = [row for row in csv.reader(file) if row]
  skip = bool(rows) and not rows[0][0].strip().lstrip("-").isdigit()
  return np.array(rows[skip:]).astype(np.int64)


_READERS = {
  ".npz": _from_npz,
  ".npy": lambda path: np.load(path, allow_pickle=False),
  ".json": lambda path: np.array(json.loads(path.read_text("utf-8"))),
  ".csv": _from_csv,
}


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[Any]:
  scratch = path.with_name(f".{path.name}.tmp")
  try:
    with open(scratch, "w", encoding="utf-8", newline="\n") as file:
      yield file
    os.replace(scratch, path)
  finally:
    scratch.unlink(missing_ok=True)
