"""Sentences about facts of synthetic worlds, and prompts that ask for them.

A pattern is the text of a sentence: words of the grammar, `s`, `r` and `o` for
subject, relation and object, `*` for any word of the grammar, and a bar behind
what a prompt shows. Behind every sentence stand a period and the end of text.
The patterns are those of Behemoth (arXiv:2601.23153).

A pattern is turned into codes: tokens, or the number of a place to fill. So all
sentences of a corpus are one table, and writing them is one look-up.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.data import batches, vocabulary
from effjax.data.vocabulary import Vocabulary

FORMS = {
  "sro": "SS s W0 W1 RR r W2 OO | o",
  "sor": "SS s W0 OO o W3 W4 RR r",
  "osr": "OO o W5 SS s W8 RR r",
  "rso": "W9 RR r W7 SS s W5 OO | o",
  "nonsense_sro": "* * SS s * * RR r * * OO | o",
  "nonsense_rso": "* * RR r * * SS s * * OO | o",
  "question": "QQ WQ1 RR r WQ2 SS s WQ3 WQ4 AA | OO o",
  "new_question": "QQ F1 RR r F2 SS s F3 AA | OO o",
  "refusal": "SS s W0 W1 RR r W2 OO | OO OO",
  "question_refusal": "QQ WQ1 RR r WQ2 SS s WQ3 WQ4 AA | OO OO OO",
}
CREATORS = ("inverted", "simplerepeats", "nonsense")

# Places of a code: -1 and -2 are the tokens of s, -3 and -4 of r, -5 and -6 of
# o, -7 and lower the fillers in turn.
_PLACES = {"s": 0, "r": 1, "o": 2}
_WORDS = 6
# Of 1 + a geometric number with success 0.6, capped at 5.
_SPOT_LENGTHS = (0.6, 0.24, 0.096, 0.0384, 0.0256)


class Prompts(NamedTuple):
  """What a model is asked, and what it should say.

  Attributes:
    tokens: prompts, padded behind, int32 [M, P].
    lengths: tokens of each prompt, int32 [M].
    targets: answers, padded behind, int32 [M, K].
    target_lengths: tokens of each answer, int32 [M].
  """

  tokens: np.ndarray
  lengths: np.ndarray
  targets: np.ndarray
  target_lengths: np.ndarray


def repeats(a: int, b: int, c: int, d: int, e: int, f: int) -> str:
  """Return the pattern of a sentence whose marks are repeated.

  Args:
    a: How often WS stands before the subject, 1 to 3.
    b: How often behind it, 0 to 3.
    c: How often WR stands before the relation, 1 to 3.
    d: How often behind it, 0 to 3.
    e: How often WO stands before the object, 1 to 3.
    f: How often behind it, 0 to 3; prompts have 0.

  Returns:
    The pattern.

  >>> repeats(1, 0, 2, 0, 1, 0)
  'WS SS s WR WR RR r WO OO | o'
  """
  counts = (a, b, c, d, e, f)
  parts = ("WS", "SS s WS", "WR", "RR r WR", "WO", "OO | o WO")
  for number, (count, least) in enumerate(zip(counts, (1, 0) * 3, strict=True)):
    if not least <= count <= 3:
      raise ValueError(
        f"{'abcdef'[number]} must be {least} to 3, got {count!r}"
      )
  words: list[str] = []
  for count, part in zip(counts, parts, strict=True):
    *before, repeated = part.split()
    words += before + [repeated] * count
  return " ".join(words)


def creator(name: str, inverted: float = 0.0) -> list[tuple[str, float]]:
  """List the patterns that a corpus is written in.

  Args:
    name: "inverted" writes SRO, and its other orders (SOR, OSR, RSO) in equal
      shares; "simplerepeats" one of 1728 patterns of repeated marks; "nonsense"
      fillers around every part, in the order RSO.
    inverted: Share of sentences that are not SRO; of `nonsense` instead those
      that are, as in the published program.

  Returns:
    Patterns with their probabilities, none of which is 0.

  Raises:
    ValueError: If there is no such creator, or the share is none.

  >>> creator("inverted")
  [('SS s W0 W1 RR r W2 OO | o', 1.0)]
  """
  if name not in CREATORS:
    raise ValueError(
      f"there is no creator {name!r}; choose one of {', '.join(CREATORS)}"
    )
  if not 0 <= inverted <= 1:
    raise ValueError(f"inverted is a share from 0 to 1, got {inverted!r}")
  if name == "inverted":
    found = [(FORMS["sro"], 1 - inverted)]
    found += [(FORMS[form], inverted / 3) for form in ("sor", "osr", "rso")]
  elif name == "simplerepeats":
    counts = (range(1, 4), range(4)) * 3
    found = [(repeats(*n), 1 / 1728) for n in itertools.product(*counts)]
  else:
    found = [
      (_fillers(order, lengths), share * _chance(lengths))
      for order, share in (("sro", inverted), ("rso", 1 - inverted))
      for lengths in itertools.product(range(1, 6), repeat=3)
    ]
  return [(pattern, chance) for pattern, chance in found if chance > 0]


def _fillers(order: str, lengths: Sequence[int]) -> str:
  spots = [" ".join("*" * length) for length in lengths]
  first, second = ("SS s", "RR r") if order == "sro" else ("RR r", "SS s")
  return f"{spots[0]} {first} {spots[1]} {second} {spots[2]} OO | o"


def _chance(lengths: Sequence[int]) -> float:
  return float(np.prod([_SPOT_LENGTHS[n - 1] for n in lengths]))


def codes(words: Vocabulary, pattern: str, family: int) -> list[int]:
  """Turn a pattern into codes, without period and end.

  Args:
    words: The vocabulary.
    pattern: The pattern; a bar in it is left out.
    family: Number of the family of the facts, see `worlds.FAMILIES`.

  Returns:
    Tokens, and -1 - i for the place i: the two tokens of subject, relation and
    object in turn, and then the fillers.

  Raises:
    ValueError: If a word of the pattern is none of the grammar.
  """
  kinds, found, fillers = words.kinds(family), [], 0
  for word in pattern.split():
    if word in _PLACES:
      place = _PLACES[word]
      width = words.widths[kinds[place]]
      found += [-1 - 2 * place - i for i in range(width)]
    elif word == "*":
      found.append(-1 - _WORDS - fillers)
      fillers += 1
    elif word in words.grammar:
      found.append(words.grammar[word])
    elif word != "|":
      raise ValueError(
        f"{word!r} in the pattern {pattern!r} is no word of this grammar, which"
        f" has W0 to W{sum(map(_is_plain, words.grammar)) - 1}, {_MARKS}"
      )
  return found


_MARKS = "WS, WR, WO, F1 to F3, WQ1 to WQ4, SS, RR, OO, QQ, AA, s, r, o and *"


def _is_plain(name: str) -> bool:
  return name[0] == "W" and name[1:].isdigit()


def pad(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
  """Put rows of unequal lengths into an array; returns it and the lengths."""
  lengths = np.array([len(row) for row in rows], np.int32)
  table = np.full((len(rows), lengths.max(initial=0)), vocabulary.PADDING)
  for i, row in enumerate(rows):
    table[i, : len(row)] = row
  return table.astype(np.int32), lengths


def fill(coded: Any, words: Any, xp: Any = jnp) -> Any:
  """Fill the places of sentences.

  Args:
    coded: Codes [..., W].
    words: Tokens of the places [..., P].
    xp: The module that computes it, `jax.numpy` or `numpy`.

  Returns:
    Tokens [..., W].
  """
  # Comparing with every place is faster than looking each token up.
  for place in range(words.shape[-1]):
    coded = xp.where(coded == -1 - place, words[..., place, None], coded)
  return coded


def pattern_of(form: str) -> str:
  """Return the pattern of a form, or a pattern as it is."""
  if " " in form:
    return form
  if form not in FORMS:
    raise ValueError(
      f"there is no form {form!r}; choose one of {', '.join(FORMS)}, or give a"
      " pattern"
    )
  return FORMS[form]


def render(
  words: Vocabulary,
  facts: np.ndarray,
  form: str = "sro",
  *,
  key: jax.Array | None = None,
  leading_end: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
  """Write one sentence about each fact.

  Args:
    words: The vocabulary.
    facts: Rows [family, subject, relation, value], int [M, 4].
    form: One of `FORMS`, or a pattern.
    key: Draws the fillers of patterns that have some.
    leading_end: Whether an end of text stands before each sentence, as in the
      rows of a corpus.

  Returns:
    Tokens, padded behind, int32 [M, W], and how many they are [M].

  Raises:
    ValueError: If a number has no word, or fillers need a key.
  """
  tail = [vocabulary.PERIOD, vocabulary.END]
  return _write(words, facts, pattern_of(form), key, leading_end, tail)


def prompts(
  words: Vocabulary,
  facts: np.ndarray,
  form: str = "sro",
  *,
  key: jax.Array | None = None,
  leading_end: bool = False,
) -> Prompts:
  """Ask for the value of each fact.

  Args:
    words: The vocabulary.
    facts: Rows [family, subject, relation, value], int [M, 4].
    form: One of `FORMS` or a pattern, with a bar.
    key: Draws the fillers of patterns that have some.
    leading_end: Whether an end of text stands before each prompt, as in the
      rows of a corpus.

  Returns:
    Prompts and answers.

  Raises:
    ValueError: If the form has no bar, a number no word, or fillers no key.
  """
  pattern = pattern_of(form)
  if "|" not in pattern:
    raise ValueError(
      f"the form {form!r} cannot ask for the object, which does not stand last;"
      f" choose one of {', '.join(n for n, p in FORMS.items() if '|' in p)}"
    )
  before, _, behind = pattern.partition("|")
  asked = _write(words, facts, before, key, leading_end, [])
  return Prompts(*asked, *_write(words, facts, behind, key, False, []))


def _write(words, facts, pattern, key, leading_end, tail):
  """Write facts in a pattern, between what stands before and behind."""
  facts = np.asarray(facts).reshape(-1, 4)
  head = [vocabulary.END] if leading_end else []
  families = np.unique(facts[:, 0]).tolist()
  table, lengths = pad(
    [[*head, *codes(words, pattern, family), *tail] for family in families]
  )
  which = np.searchsorted(families, facts[:, 0])
  places = words.table[words.rows(facts)].reshape(len(facts), _WORDS)
  count = pattern.split().count("*")
  if count:
    if key is None:
      raise ValueError(f"the fillers of {pattern!r} need a key")
    drawn = batches.generator_of(key).choice(words.fillers, (len(facts), count))
    places = np.concatenate([places, drawn.astype(np.int32)], axis=1)
  return fill(table[which], places, np), lengths[which]
