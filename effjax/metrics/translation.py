"""BLEU and chrF as the programs of machine translation report them.

They equal sacreBLEU's to rounding; none of them is the score of the Panza
paper, for which see `panza_bleu`. Scores have the range 0 to 100.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from effjax import arguments
from effjax.metrics import texts

# Default amounts of what smoothing adds.
SMOOTHINGS = {"exp": None, "floor": 0.1, "add-k": 1.0, "none": None}
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
# All of ASCII punctuation but ' - . , which need a look at their neighbours.
_SIGNS = re.compile(
  "(["
  + re.escape("".join(c for c in string.punctuation if c not in "'-.,"))
  + " ])"
)
_POINT_AFTER = re.compile("([^0-9])([.,])")
_POINT_BEFORE = re.compile("([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile("([0-9])(-)")


class Bleu(NamedTuple):
  """Corpus BLEU and what it is made of.

  Attributes:
    score: 0 to 100.
    precisions: [O] of the orders 1 to O, 0 to 100, smoothed.
    brevity: The brevity penalty.
    counts: [O] n-grams that match.
    totals: [O] n-grams of the predictions.
    length: The number of tokens of the predictions.
    reference_length: That of the closest references.
  """

  score: float
  precisions: np.ndarray
  brevity: float
  counts: np.ndarray
  totals: np.ndarray
  length: int
  reference_length: int


def tokenize_13a(text: str) -> list[str]:
  """Splits a text as the official scorer of WMT does, version 13a.

  Punctuation and symbols of ASCII become tokens, but for apostrophes; points
  and commas only where a digit is missing on one side; dashes only after a
  digit. Four HTML entities are read, lines joined.

  Args:
    text: The text.

  Returns:
    Its tokens.

  >>> tokenize_13a("It's 3,5 &amp; 4-5, e-mail.")
  ["It's", '3,5', '&', '4', '-', '5', ',', 'e-mail', '.']
  """
  text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
  for entity, sign in _ENTITIES.items():
    text = text.replace(entity, sign)
  # A blank on both sides, so that every sign has neighbours.
  text = _SIGNS.sub(r" \1 ", f" {text} ")
  text = _POINT_AFTER.sub(r"\1 \2 ", text)
  text = _POINT_BEFORE.sub(r" \1 \2", text)
  return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


def bleu(
  predictions: Sequence[str],
  references: Sequence[str | Sequence[str]],
  *,
  smoothing: str = "exp",
  amount: float | None = None,
  effective_order: bool = False,
  lowercase: bool = False,
  order: int = 4,
) -> Bleu:
  """Returns corpus BLEU over tokens of `tokenize_13a`.

  The counts of all texts are added up first. The brevity penalty takes, for
  each text, the reference whose length is closest, the shorter among ties.
  Papineni et al., "BLEU" (ACL 2002); Post 2018, arXiv:1804.08771; smoothing:
  Chen and Cherry, "A Systematic Comparison of Smoothing Techniques" (WMT 2014).

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them where a text has several.
    smoothing: What becomes of an order without a match. "exp": the first such
      order has 1/2 of a match, the next 1/4; "floor": it has `amount`; "add-k":
      `amount` is added to matches and totals of all orders above 1; "none": the
      score is 0.
    amount: By default 0.1 for "floor" and 1 for "add-k".
    effective_order: Whether orders that are longer than the text do not count,
      instead of making the score 0.
    lowercase: Whether to ignore case.
    order: The highest order.

  Returns:
    A `Bleu`.

  Raises:
    ValueError: If the smoothing is unknown, `order` no whole number from 1 on,
      `amount` negative or not finite, or the texts are as `panza_bleu` refuses
      them.

  >>> round(bleu(["The cat sat here."], ["The cat sat there."]).score, 4)
  42.7287
  """
  order = _check(smoothing, amount, order)
  rows = _bleu_rows(predictions, references, lowercase, order)
  return _bleu(rows.sum(axis=0), smoothing, amount, effective_order)


def sentence_bleu(
  predictions: Sequence[str],
  references: Sequence[str | Sequence[str]],
  *,
  smoothing: str = "exp",
  amount: float | None = None,
  effective_order: bool = True,
  lowercase: bool = False,
  order: int = 4,
) -> np.ndarray:
  """Returns the BLEU of every text by itself; see `bleu` for the arguments.

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them.
    smoothing: "exp", "floor", "add-k" or "none".
    amount: What smoothing adds.
    effective_order: Whether orders that are longer than the text do not count.
    lowercase: Whether to ignore case.
    order: The highest order.

  Returns:
    [N] float64, 0 to 100; 0 where no token matches.

  Raises:
    ValueError: As for `bleu`.

  >>> sentence_bleu(["so be it"], ["so be it"]).round(6).tolist()
  [100.0]
  """
  order = _check(smoothing, amount, order)
  rows = _bleu_rows(predictions, references, lowercase, order)
  return np.array(
    [_bleu(row, smoothing, amount, effective_order).score for row in rows]
  )


def chrf(
  predictions: Sequence[str],
  references: Sequence[str | Sequence[str]],
  *,
  word_order: int = 0,
  character_order: int = 6,
  beta: float = 2.0,
  lowercase: bool = False,
) -> float:
  """Returns chrF of a corpus, or chrF++ with `word_order=2`.

  Precision and recall are means over the orders of n-grams of characters
  without white space (and of words); F weighs recall `beta` squared times. The
  counts of all texts are added up first, those of the best reference of each.
  Popović, "chrF" (WMT 2015) and "chrF++" (WMT 2017).

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them where a text has several.
    word_order: The highest order of words; 0 for none.
    character_order: The highest order of characters.
    beta: The weight of recall.
    lowercase: Whether to ignore case.

  Returns:
    0 to 100.

  Raises:
    ValueError: If `character_order` is no whole number from 1 on or
      `word_order` from 0 on, `beta` is negative or not finite, or the texts are
      as `panza_bleu` refuses them.

  >>> round(chrf(["The cat"], ["The cats"]), 4)
  77.571
  """
  rows = _chrf_rows(
    predictions, references, character_order, word_order, beta, lowercase
  )
  return _f_score(rows.sum(axis=0), beta)


def sentence_chrf(
  predictions: Sequence[str],
  references: Sequence[str | Sequence[str]],
  *,
  word_order: int = 0,
  character_order: int = 6,
  beta: float = 2.0,
  lowercase: bool = False,
) -> np.ndarray:
  """Returns chrF of every text by itself; see `chrf` for the arguments.

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them.
    word_order: The highest order of words; 0 for none.
    character_order: The highest order of characters.
    beta: The weight of recall.
    lowercase: Whether to ignore case.

  Returns:
    [N] float64, 0 to 100.

  Raises:
    ValueError: As for `chrf`.

  >>> sentence_chrf(["a", "b"], ["a", "a"]).tolist()
  [100.0, 0.0]
  """
  rows = _chrf_rows(
    predictions, references, character_order, word_order, beta, lowercase
  )
  return np.array([_f_score(row, beta) for row in rows])


def _check(smoothing: str, amount: float | None, order: int) -> int:
  if smoothing not in SMOOTHINGS:
    raise ValueError(
      f"smoothing {smoothing!r} is unknown; choose one of"
      f" {', '.join(SMOOTHINGS)}."
    )
  if amount is not None:
    arguments.finite("amount", amount, 0)
  return arguments.whole("order", order)


def _bleu_rows(predictions, references, lowercase: bool, order: int):
  """Returns [N, 2 + 2 O]: both lengths, matches and totals of each order."""
  rows = []
  for text, several in texts.paired(predictions, references):
    found, *wanted = (
      tokenize_13a((x.lower() if lowercase else x).rstrip())
      for x in (text, *several)
    )
    # Sorted, so that the shorter one is the first among ties.
    closest = texts.closest(len(found), sorted(map(len, wanted)))
    counts, totals = [], []
    for n in range(1, order + 1):
      grams = texts.ngrams(found, n)
      most: Counter = Counter()
      for other in wanted:
        most |= texts.ngrams(other, n)
      counts.append(texts.clipped(grams, most))
      totals.append(grams.total())
    rows.append([len(found), closest, *counts, *totals])
  return np.array(rows)


def _bleu(
  row: np.ndarray, smoothing: str, amount: float | None, effective_order: bool
) -> Bleu:
  (length, closest), (counts, totals) = row[:2].tolist(), np.split(row[2:], 2)
  amount = SMOOTHINGS[smoothing] if amount is None else amount
  # A text without tokens is too short only where some are wanted.
  brevity = float(not closest)
  if length:
    brevity = math.exp(min(0.0, 1.0 - closest / length))
  # Without a match at all nothing is smoothed.
  precisions = np.zeros(len(counts))
  counted = len(counts) if not effective_order else 0
  halvings = 0
  for i, (count, total) in enumerate(zip(counts, totals, strict=True)):
    if not counts.any():
      break
    if smoothing == "add-k" and i:
      count, total = count + amount, total + amount
    if not total:
      break
    counted = max(counted, i + 1)
    if not count and smoothing == "exp":
      halvings += 1
      count = 0.5**halvings
    elif not count and smoothing == "floor":
      count = amount
    precisions[i] = 100.0 * count / total
  used = precisions[:counted]
  score = 0.0
  if counted and used.all():
    score = brevity * math.exp(np.log(used).mean())
  return Bleu(score, precisions, brevity, counts, totals, length, closest)


def _chrf_rows(predictions, references, characters, words, beta, lowercase):
  """Returns [N, O, 3]: n-grams predicted, wanted and in common."""
  characters = arguments.whole("character_order", characters)
  words = arguments.whole("word_order", words, 0)
  arguments.finite("beta", beta, 0)
  rows = []
  for text, several in texts.paired(predictions, references):
    found, *wanted = (
      _chrf_grams(x.lower() if lowercase else x, characters, words)
      for x in (text, *several)
    )
    tables = [
      np.array(
        [
          # Orders that the reference has not do not count against a text.
          [a.total() if b else 0, b.total(), texts.clipped(a, b)]
          for a, b in zip(found, other, strict=True)
        ]
      ).reshape(characters + words, 3)
      for other in wanted
    ]
    # The first among equals.
    rows.append(max(tables, key=lambda table: _f_score(table, beta)))
  return np.array(rows)


def _chrf_grams(text: str, characters: int, words: int) -> list[Counter]:
  joined = "".join(text.split())
  tokens: list[str] = []
  for word in text.split():
    tokens += _without_sign(word)
  return [texts.ngrams(joined, n) for n in range(1, characters + 1)] + [
    texts.ngrams(tokens, n) for n in range(1, words + 1)
  ]


def _without_sign(word: str) -> list[str]:
  """Splits a punctuation mark off the end of a word, or else off its start."""
  if len(word) > 1 and word[-1] in string.punctuation:
    return [word[:-1], word[-1]]
  if len(word) > 1 and word[0] in string.punctuation:
    return [word[0], word[1:]]
  return [word]


def _f_score(table: np.ndarray, beta: float) -> float:
  """Returns F of [O, 3] counts, over the orders that both sides have."""
  table = table[(table[:, 0] > 0) & (table[:, 1] > 0)]
  if not len(table):
    return 0.0
  found, wanted, common = table.T
  precision, recall = (common / found).mean(), (common / wanted).mean()
  if not precision + recall:
    return 0.0
  square = beta**2
  total = square * precision + recall
  return float(100.0 * (1.0 + square) * precision * recall / total)
