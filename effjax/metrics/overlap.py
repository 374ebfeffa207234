"""How close texts are to what their author wrote: words in common.

These functions run on the host, in float64.
"""

import functools
import math
import operator
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from effjax import arguments
from effjax.metrics import texts

ORDERS = (1, 2, 3, 4)
_OUTSIDE_ROUGE = re.compile("[^a-z0-9]+")


class BleuScores(NamedTuple):
  """The Panza-BLEU of N mails.

  Attributes:
    mean: The plain mean over the mails, which the paper reports.
    minimum: The lowest score of a mail.
    scores: [N], of each mail.
    cumulative: [N, 4], the cumulative BLEU-1 to BLEU-4 that it is the mean of.
  """

  mean: float
  minimum: float
  scores: np.ndarray
  cumulative: np.ndarray


class RougeScores(NamedTuple):
  """The ROUGE of N mails, each against its best reference.

  Attributes:
    mean: The mean of the F-measure, which the paper reports.
    precision: [N], overlap / length of the prediction.
    recall: [N], overlap / length of the reference.
    f_measure: [N], their harmonic mean.
  """

  mean: float
  precision: np.ndarray
  recall: np.ndarray
  f_measure: np.ndarray


class Profile(NamedTuple):
  """A text as BLEU sees it.

  Attributes:
    length: The number of tokens.
    counts: How often each n-gram occurs, n = 1 to 4.
  """

  length: int
  counts: list[Counter]


def panza_bleu(
  predictions: Sequence[str],
  references: Sequence[str | Sequence[str]],
  *,
  clean: bool = True,
) -> BleuScores:
  """Returns the mean of cumulative BLEU-1 to BLEU-4 of each mail, unsmoothed.

  B_N is the geometric mean of the clipped precisions of n-grams up to N, times
  the brevity penalty exp(1 - r / c) of c <= r words, r those of the reference
  whose length is closest, the first among ties; it is 0 where n-grams of one
  order up to N never match, so that a mail of three words has at most 3/4.
  The score of the Panza paper (CPAL 2026); neither corpus BLEU nor BLEU-4, for
  which see `bleu`. Papineni et al., "BLEU" (ACL 2002), for B_N.

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them where a mail has several.
    clean: Whether to compare what `clean_text` leaves, as the paper does,
      instead of what stands between white space.

  Returns:
    A `BleuScores`; an empty prediction scores 0.

  Raises:
    ValueError: If there is no prediction, a mail has no reference, or there are
      not as many predictions as references.

  >>> round(panza_bleu(["See you at two"], ["See you at ten"]).mean, 4)
  0.5218
  """
  profiles = [
    (profile(_words(text, clean)), [profile(_words(r, clean)) for r in several])
    for text, several in texts.paired(predictions, references)
  ]
  cumulative = np.array([cumulative_bleu(*pair) for pair in profiles])
  scores = cumulative.mean(axis=1)
  return BleuScores(
    float(scores.mean()), float(scores.min()), scores, cumulative
  )


def self_bleu(predictions: Sequence[str], *, clean: bool = True) -> float:
  """Returns the mean Panza-BLEU between two predictions, a lack of diversity.

  Every prediction is scored against every other one as its only reference.
  After Zhu et al. 2018, arXiv:1802.01886, where the others are references all
  at once.

  Args:
    predictions: [N] texts.
    clean: As in `panza_bleu`.

  Returns:
    The mean over the N (N - 1) ordered pairs; NaN for a single prediction.

  Raises:
    ValueError: If there is no prediction.

  >>> round(self_bleu(["so be it then", "so be it then", "never"]), 4)
  0.3333
  """
  predictions = texts.listed(predictions, "predictions")
  texts.check_some(predictions, "predictions")
  if len(predictions) == 1:
    return math.nan
  profiles = [profile(_words(text, clean)) for text in predictions]
  total = sum(
    sum(cumulative_bleu(one, [other]))
    for i, one in enumerate(profiles)
    for j, other in enumerate(profiles)
    if i != j
  )
  return total / (len(ORDERS) * len(profiles) * (len(profiles) - 1))


def rouge_n(
  predictions: Sequence[str],
  references: Sequence[str | Sequence[str]],
  order: int = 1,
  *,
  clean: bool = True,
) -> RougeScores:
  """Returns the overlap of n-grams, each counted as often as in both texts.

  Tokens are runs of a-z and 0-9 after lower-casing, without stemming: any other
  letter separates them. Among several references the one with the best
  F-measure counts, the first among ties. Lin, "ROUGE" (ACL workshop 2004).

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them where a mail has several.
    order: n of the n-grams.
    clean: Whether to compare what `clean_text` leaves, as the Panza paper does;
      otherwise "e-mail" is two tokens.

  Returns:
    A `RougeScores`; 0 where a text has no n-gram.

  Raises:
    ValueError: If `order` is no whole number from 1 on, or the texts are as
      `panza_bleu` refuses them.

  >>> rouge_n(["Is it Zürich?"], ["It is Zürich."], 2).f_measure.tolist()
  [0.3333333333333333]
  """
  order = arguments.whole("order", order)

  def overlap(prediction, reference):
    found, wanted = (
      texts.ngrams(prediction, order),
      texts.ngrams(reference, order),
    )
    return texts.clipped(found, wanted), found.total(), wanted.total()

  return _rouge(predictions, references, overlap, clean)


def rouge_l(
  predictions: Sequence[str],
  references: Sequence[str | Sequence[str]],
  *,
  clean: bool = True,
) -> RougeScores:
  """Returns the overlap as the longest common subsequence of tokens.

  Tokens and references are treated as in `rouge_n`. On a cleaned text, which is
  one line, ROUGE-Lsum is the same number.

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them where a mail has several.
    clean: As in `rouge_n`.

  Returns:
    A `RougeScores`; 0 where a text has no token.

  Raises:
    ValueError: If the texts are as `panza_bleu` refuses them.

  >>> rouge_l(["we met on Monday"], ["we all met Monday"]).recall.tolist()
  [0.75]
  """

  def overlap(prediction, reference):
    common = longest_common_subsequence(prediction, reference)
    return common, len(prediction), len(reference)

  return _rouge(predictions, references, overlap, clean)


def profile(tokens: Sequence[Hashable]) -> Profile:
  """Returns what `cumulative_bleu` needs to know of a text.

  Args:
    tokens: The tokens.

  Returns:
    A `Profile`.
  """
  return Profile(len(tokens), [texts.ngrams(tokens, n) for n in ORDERS])


def cumulative_bleu(
  prediction: Profile, references: Sequence[Profile]
) -> list[float]:
  """Returns BLEU-1 to BLEU-4 of one text, unsmoothed; see `panza_bleu`.

  Args:
    prediction: A `Profile`.
    references: Those of its references, at least one.

  Returns:
    Four numbers.
  """
  scores = [0.0] * len(ORDERS)
  length = prediction.length
  closest = texts.closest(length, [other.length for other in references])
  log = 0.0
  for i, found in enumerate(prediction.counts):
    wanted = [other.counts[i] for other in references]
    # The largest count of any reference.
    matches = texts.clipped(found, functools.reduce(operator.or_, wanted))
    if not matches:
      break
    log += math.log(matches / (length - i))
    brevity = min(0.0, 1.0 - closest / length)
    scores[i] = math.exp(brevity + log / (i + 1))
  return scores


def longest_common_subsequence(
  first: Sequence[Hashable], second: Sequence[Hashable]
) -> int:
  """Returns the length of the longest common subsequence.

  A column of the table of dynamic programming is one whole number, whose bits
  say where a value exceeds the one above it.
  Hyyrö, "Bit-Parallel LCS-length Computation Revisited" (AWOCA 2004).

  Args:
    first: Tokens.
    second: Tokens.

  Returns:
    The length.

  >>> longest_common_subsequence("humans", "matches")
  3
  """
  places: dict[Hashable, int] = {}
  for i, token in enumerate(first):
    places[token] = places.get(token, 0) | 1 << i
  every = (1 << len(first)) - 1
  flat = every
  for token in second:
    here = flat & places.get(token, 0)
    flat = (flat + here | flat - here) & every
  return len(first) - flat.bit_count()


def _rouge(predictions, references, overlap, clean) -> RougeScores:
  rows = []
  for text, several in texts.paired(predictions, references):
    tokens = _rouge_tokens(text, clean)
    scored = [
      _precision_recall_f(*overlap(tokens, _rouge_tokens(other, clean)))
      for other in several
    ]
    # The first among equals.
    rows.append(max(scored, key=lambda row: row[2]))
  precision, recall, f_measure = np.array(rows).T
  return RougeScores(float(f_measure.mean()), precision, recall, f_measure)


def _precision_recall_f(hits: int, found: int, wanted: int) -> list[float]:
  if not hits:
    return [0.0, 0.0, 0.0]
  # F = 2 P R / (P + R) with one rounding, so that ties are ties.
  return [hits / found, hits / wanted, 2 * hits / (found + wanted)]


def _words(text: str, clean: bool) -> list[str]:
  return (texts.clean_text(text) if clean else text).split()


def _rouge_tokens(text: str, clean: bool) -> list[str]:
  text = texts.clean_text(text) if clean else text.lower()
  return _OUTSIDE_ROUGE.sub(" ", text).split()
