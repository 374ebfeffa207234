"""How well mails fit a query: cosines, words in common, and both together."""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

VARIANTS = ("lucene", "robertson", "okapi")
_EPSILON = 0.25  # of Okapi, for words in more than half of the documents
_FUSION = 60


def relevance(cosine: Any) -> Any:
  """Return the relevance of vectors of length one with some cosine.

  1 - sqrt(2) (1 - cos): the conversion of the retriever that Panza uses, which
  takes a squared distance for a distance. It lies in [1 - 2 sqrt(2), 1].

  >>> float(round(relevance(cosine(0.2)), 6))
  0.2
  """
  return 1 - math.sqrt(2) * (1 - cosine)


def cosine(relevance: float) -> float:
  """Return the cosine of vectors of some relevance.

  >>> round(cosine(0.2), 6)
  0.434315
  """
  return 1 - (1 - relevance) / math.sqrt(2)


def words(text: str) -> list[str]:
  """Cut a text into words in small letters, for `bm25`.

  >>> words("The café's 2nd table!")
  ['the', 'café', 's', '2nd', 'table']
  """
  return re.findall(r"\w+", text.casefold())


def bm25(
  documents: Sequence[Sequence[str]],
  queries: Sequence[Sequence[str]],
  *,
  variant: str = "lucene",
  k1: float = 1.5,
  b: float = 0.75,
) -> np.ndarray:
  """Score documents by the words that they share with queries.

  A word of a query counts as often as it is there, one that no document has
  counts nothing. "lucene" and "robertson" (Robertson and Zaragoza 2009) are
  those of the library bm25s, whose term weights lack the factor k1 + 1.

  Args:
    documents: The words of N documents.
    queries: The words of Q queries.
    variant: One of `VARIANTS`.
    k1: Where frequencies saturate.
    b: How much the length of a document matters.

  Returns:
    Scores, float32 [Q, N].

  Raises:
    ValueError: If there is no document, or no such variant.
    ModuleNotFoundError: If the library bm25s is not installed.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}"
    )
  if not len(documents):
    raise ValueError("there must be at least one document")
  documents = [list(document) for document in documents]
  if not any(documents):
    return np.zeros((len(queries), len(documents)), np.float32)
  if variant == "okapi":
    score = _okapi(documents, k1, b)
  else:
    try:
      import bm25s
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        'ranking by words needs the library bm25s: pip install "effjax[mail]"'
      ) from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs all it does
    index = bm25s.BM25(method=variant, k1=k1, b=b)
    index.index(documents, show_progress=False)
    score = index.get_scores
  none = np.zeros(len(documents), np.float32)
  rows = [score(list(query)) if len(query) else none for query in queries]
  return np.asarray(rows, np.float32).reshape(len(queries), len(documents))


def _okapi(documents, k1, b):
  """Return the score function of Okapi BM25 as rank-bm25 has it."""
  counts = [Counter(document) for document in documents]
  sizes = np.array([len(document) for document in documents], float)
  held = Counter(word for count in counts for word in count)
  total = len(documents)
  weights = {
    word: math.log((total - n + 0.5) / (n + 0.5)) for word, n in held.items()
  }
  floor = _EPSILON * sum(weights.values()) / len(weights)
  weights = {w: x if x >= 0 else floor for w, x in weights.items()}
  norm = k1 * (1 - b + b * sizes / sizes.mean())

  def score(query):
    found = np.zeros(total)
    for word in query:
      times = np.array([count[word] for count in counts], float)
      found += weights.get(word, 0.0) * times * (k1 + 1) / (times + norm)
    return found

  return score


def fused(*scores: np.ndarray) -> np.ndarray:
  """Join rankings: the sum of 1 / (60 + rank) (Cormack et al. 2009).

  Args:
    *scores: Scores [Q, N], the higher the better; of equals the first ranks
      first, as in `order`.

  Returns:
    Joint scores [Q, N].
  """
  total = np.zeros(scores[0].shape)
  for each in scores:
    ranks = np.argsort(order(each), axis=1) + 1
    total += 1 / (_FUSION + ranks)
  return total


def order(scores: np.ndarray) -> np.ndarray:
  """Order documents by score, the best first, of equals the first.

  Args:
    scores: Scores [Q, N], which are equal if they are so to six decimals.

  Returns:
    Numbers of documents [Q, N].
  """
  return np.argsort(-np.round(scores, 6), axis=1, kind="stable")
