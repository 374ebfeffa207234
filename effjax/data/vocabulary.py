"""The words of a synthetic world, as tokens, and their text.

A word names a subject, a relation or an object. It has one token, or two where
there are 1000 or more of its kind. Tokens are numbered without gaps, kind after
kind, behind eight fixed ones:

  0 end of a text, 1 padding, 2 ".", 3 SS, 4 RR, 5 OO, 6 QQ, 7 AA

Then follow subjects, relations, the objects of each relation; in a nested world
also relations of subjects to nested objects, of objects to nested objects, and
the nested objects of each relation; one token that is never used; and the words
of the grammar, see `GRAMMAR`. The text of a token is its number.
"""

import dataclasses
import functools
import math
import re
from typing import Any

import numpy as np

from effjax.data import world_rules
from effjax.data.worlds import World

END, PADDING, PERIOD = 0, 1, 2
SPECIALS = ("<|endoftext|>", "<|padding|>", ".", "SS", "RR", "OO", "QQ", "AA")
# Behind the words W0, W1, ..., W10 and before the others; the published layout
# has six tokens without a name in the place of the first six.
_MARKS = ("WS", "WR", "WO", "F1", "F2", "F3", "WQ1", "WQ2", "WQ3", "WQ4")
KINDS = ("subject", "relation", "object")
NESTED_KINDS = ("nested_relation", "object_relation", "nested_object")
FORGOTTEN = -1  # a value that no fact has: its word is one of its own

# Rows of `Vocabulary.table` of subject, relation and value, by family.
_SLOTS = (
  ("subject", "relation", "object"),
  ("subject", "nested_relation", "nested_object"),
  ("object", "object_relation", "nested_object"),
)
_FEW = 1000  # so many words need two tokens
_MOST = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
  """All words of a world.

  Attributes:
    table: tokens of each word, int32 [words + 1, 2]; where a word has one
      token, the second is padding. The last row is the word of what was
      forgotten.
    starts: first row of each kind of word.
    counts: number of words of each kind; those of all relations together.
    widths: tokens of a word of each kind.
    per_relation: number of objects and of nested objects of one relation.
    grammar: token of each word of the grammar.
    first_word: first token that is not fixed.
    size: number of tokens.
  """

  table: np.ndarray
  starts: dict[str, int]
  counts: dict[str, int]
  widths: dict[str, int]
  per_relation: dict[str, int]
  grammar: dict[str, int]
  first_word: int
  size: int

  @functools.cached_property
  def fillers(self) -> np.ndarray:
    """Tokens that may stand anywhere: W0, W1, ... and WQ1 to WQ4."""
    names = [n for n in self.grammar if re.fullmatch(r"WQ?\d+", n)]
    return np.array(sorted(self.grammar[n] for n in names), np.int32)

  def words(self, kind: str) -> np.ndarray:
    """Return the tokens of all words of a kind, int32 [words, 1 or 2]."""
    start = self.starts[kind]
    rows = self.table[start : start + self.counts[kind]]
    return rows[:, : self.widths[kind]]

  def rows(self, facts: np.ndarray) -> np.ndarray:
    """Find the words of facts in the table.

    Args:
      facts: Rows [family, subject, relation, value], int [M, 4].

    Returns:
      Rows of `table` of subject, relation and value, int32 [M, 3].

    Raises:
      ValueError: If a number has no word.
    """
    facts = np.asarray(facts).reshape(-1, 4)
    found = np.zeros((len(facts), 3), np.int32)
    for family in np.unique(facts[:, 0]).tolist():
      mine = facts[:, 0] == family
      relation = facts[mine, 2]
      for column, kind in enumerate(self.kinds(family)):
        number = facts[mine, column + 1]
        each = self.per_relation.get(kind)
        unknown = number >= (each or self.counts[kind])
        lowest = FORGOTTEN if column == 2 else 0
        if (unknown | (number < lowest)).any():
          bad = int(number[unknown | (number < lowest)][0])
          raise ValueError(
            f"there is no {kind} {bad}; the vocabulary has"
            f" {each or self.counts[kind]}"
          )
        row = self.starts[kind] + number + (relation * each if each else 0)
        forgotten = (column == 2) & (number == FORGOTTEN)
        found[mine, column] = np.where(forgotten, len(self.table) - 1, row)
    return found

  def kinds(self, family: int) -> tuple[str, str, str]:
    """Return the kinds of words that facts of a family consist of."""
    kinds = _SLOTS[family]
    if kinds[1] not in self.starts:
      raise ValueError("the vocabulary is of a world without nested objects")
    return kinds


def make_vocabulary(
  world: World,
  *,
  first_word: int = 8,
  grammar_words: int = 1000,
  limit: int = 10_000,
) -> Vocabulary:
  """Number the words of a world.

  Args:
    world: The world.
    first_word: First token that is not fixed; 85 numbers words as the published
      program does, whose tokenizer needs the 77 below.
    grammar_words: How many words W0, W1, ... there are; 11 will do for all
      sentences but `nonsense`, which draws fillers among them.
    limit: Tokens that there may be: the text of a token has four digits.

  Returns:
    The vocabulary; its last token is the word of what was forgotten.

  Raises:
    ValueError: If there are too many words.

  >>> world = World(object=np.array([[1, 0]], np.int32), objects=2)
  >>> vocabulary = make_vocabulary(world, first_word=85)
  >>> vocabulary.words("object").tolist(), vocabulary.grammar["W0"]
  ([[88], [89], [90], [91]], 93)
  """
  world_rules.check_count("first_word", first_word, len(SPECIALS))
  world_rules.check_count("grammar_words", grammar_words, 11)
  relations = world.relations
  counts = {
    "subject": (world.subjects, 1),
    "relation": (relations, 1),
    "object": (world.objects, relations),
  }
  if world.nest is not None:
    counts["nested_relation"] = counts["object_relation"] = (relations, 1)
    counts["nested_object"] = (world.nested_objects, relations)
  tables, starts, widths, following = [], {}, {}, first_word
  for kind, (count, times) in counts.items():
    starts[kind] = sum(map(len, tables))
    for _ in range(times):
      table, widths[kind], following = _number(kind, count, following)
      tables.append(table)
  names = [f"W{i}" for i in range(11)]
  names += [*_MARKS, *(f"W{i}" for i in range(11, grammar_words))]
  grammar = {name: following + 1 + i for i, name in enumerate(names)}
  grammar |= {name: i for i, name in enumerate(SPECIALS)}
  forgotten = following + 1 + len(names)
  if forgotten >= limit:
    raise ValueError(
      f"the world needs {forgotten + 1} tokens, more than the limit of {limit}"
      " that four digits can name: take fewer subjects, objects or"
      " grammar_words"
    )
  tables.append(np.full((1, 2), forgotten, np.int32))
  return Vocabulary(
    table=np.concatenate(tables),
    starts=starts,
    counts={kind: count * times for kind, (count, times) in counts.items()},
    widths=widths,
    per_relation={
      kind: count
      for kind, (count, _) in counts.items()
      if kind.endswith("object")
    },
    grammar=grammar,
    first_word=first_word,
    size=forgotten + 1,
  )


def _number(kind: str, count: int, start: int) -> tuple[np.ndarray, int, int]:
  """Number words; returns their tokens, how many each has, what follows."""
  number = np.arange(count, dtype=np.int32)
  if count < _FEW:
    table = np.stack([start + number, np.full(count, PADDING, np.int32)], 1)
    return table, 1, start + count
  if count > _MOST:
    raise ValueError(
      f"{count} words of the kind {kind!r} are more than the {_MOST} that two"
      " tokens name"
    )
  divisor = _FEW if count % _FEW == 0 else math.isqrt(count - 1) + 1
  first, second = np.divmod(number, np.int32(divisor))
  middle = start + int(first[-1]) + 1
  return np.stack([start + first, middle + second], 1), 2, middle + divisor


def decode(tokens: Any) -> str:
  """Return the text of tokens; padding has none.

  Args:
    tokens: Whole numbers.

  Returns:
    Text with a blank before every word.

  >>> decode([0, 3, 110, 5, 182, 2, 0])
  '<|endoftext|> SS 0110 OO 0182.<|endoftext|>'
  """
  return "".join(
    token_text(token)
    for token in np.asarray(tokens).reshape(-1).tolist()
    if token != PADDING
  )


def token_text(token: int) -> str:
  """Return the text of one token."""
  if token <= PERIOD:
    return SPECIALS[token]
  return f" {SPECIALS[token] if token < len(SPECIALS) else f'{token:04d}'}"


def encode(text: str) -> list[int]:
  """Return the tokens of a text that `decode` made.

  Args:
    text: The text.

  Returns:
    Tokens.

  Raises:
    ValueError: If the text holds something else, naming it.

  >>> encode(" SS 0110 OO 0182.<|endoftext|>")
  [3, 110, 5, 182, 2, 0]
  """
  found, place = [], 0
  for match in _TOKEN.finditer(text):
    _refuse(text[place : match.start()])
    place = match.end()
    word = match[0].strip(" ")
    found.append(SPECIALS.index(word) if word in SPECIALS else int(word))
  _refuse(text[place:])
  return found


def pattern() -> str:
  """Return a regular expression of all words, with the blank before them."""
  plain, marked = (
    "|".join(map(re.escape, part)) for part in (SPECIALS[:3], SPECIALS[3:])
  )
  return rf"{plain}| ?(?:{marked}|\d{{4,}})"


_TOKEN = re.compile(pattern())


def _refuse(text: str) -> None:
  if text.strip():
    raise ValueError(
      f"{text.strip()[:40]!r} is no word: words have four digits, or are one of"
      f" {', '.join(SPECIALS)}"
    )
