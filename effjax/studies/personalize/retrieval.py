"""Find earlier mails that fit an instruction or another mail.

All queries are compared with all mails by one matrix product: below a thousand
mails no library is faster.
"""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from effjax.data import cleaning
from effjax.data.mails import Mail
from effjax.io import safetensors
from effjax.studies.personalize import ranking

KINDS = ("minilm", "bm25", "hybrid")
# The published least relevance, for another encoder: `tune` finds a better one.
RELEVANCE = 0.2

# From texts [N] to vectors of length one [N, W].
Encode = Callable[[Sequence[str]], np.ndarray]


class Index(NamedTuple):
  """Mails that can be searched.

  Attributes:
    mails: The mails, N of them.
    kind: "minilm": by the cosine of vectors; "bm25": by words; "hybrid": by
      both, see `ranking.fused`.
    threshold: The least relevance (of "bm25": score) of what is found.
    vectors: A vector for each mail [N, W]; None for "bm25".
    encode: What has made them; None for "bm25".
  """

  mails: tuple[Mail, ...]
  kind: str
  threshold: float
  vectors: np.ndarray | None = None
  encode: Encode | None = None


class Hit(NamedTuple):
  """A mail that was found.

  Attributes:
    place: Its number in the index.
    relevance: Its relevance, of "bm25" its score.
  """

  place: int
  relevance: float


class Tuned(NamedTuple):
  """How a threshold does on the mails it was chosen for.

  Attributes:
    threshold: The threshold.
    recall: Share of the queries that find their own mail.
    false_hits: Share of other mails that pass.
  """

  threshold: float
  recall: float
  false_hits: float


def build(
  mails: Sequence[Mail],
  *,
  kind: str = "minilm",
  encode: Encode | None = None,
  threshold: float | None = None,
) -> Index:
  """Make an index of mails, of which none should be in a test part.

  Args:
    mails: The mails.
    kind: One of `KINDS`.
    encode: Makes vectors of texts, as
      `functools.partial(bert.encode, *language.load_encoder())` does.
    threshold: The least relevance; by default `RELEVANCE`, and above nothing
      for "bm25".

  Returns:
    The index.

  Raises:
    ValueError: If there are no mails, no such kind, or no encoder for it.
  """
  if kind not in KINDS:
    raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
  if not mails:
    raise ValueError("there must be at least one mail to search")
  if threshold is None:
    threshold = 0.0 if kind == "bm25" else RELEVANCE
  if kind == "bm25":
    return Index(tuple(mails), kind, threshold)
  if encode is None:
    raise ValueError(f"an index of the kind {kind!r} needs encode, got None")
  vectors = np.asarray(encode([mail.text for mail in mails]))
  return Index(tuple(mails), kind, threshold, vectors, encode)


def search(
  index: Index,
  queries: Sequence[str],
  k: int,
  *,
  threshold: float | None = None,
  without: np.ndarray | None = None,
) -> list[list[Hit]]:
  """Find mails for queries.

  The k nearest are taken first, and those below the threshold are dropped then,
  so that fewer may be left, or none. Of equals the first are taken.

  Args:
    index: The index.
    queries: Q texts.
    k: The most mails for each.
    threshold: The least relevance; by default that of the index.
    without: Mails that must not be found, bool [Q, N].

  Returns:
    For each query what was found, the best first.

  Raises:
    ValueError: If k is negative or `without` has another shape.
  """
  if k < 0:
    raise ValueError(f"k must be at least 0, got {k}")
  shape = (len(queries), len(index.mails))
  if without is not None and without.shape != shape:
    raise ValueError(
      f"without must have the shape {list(shape)}, got {list(without.shape)}"
    )
  if not len(queries):
    return []
  scores, relevance = _scores(index, queries)
  if without is not None:
    scores = np.where(without, -np.inf, scores)
  least = index.threshold if threshold is None else threshold
  found = []
  for row, places in enumerate(ranking.order(scores)[:, :k]):
    passed = [
      Hit(int(place), float(relevance[row, place]))
      for place in places
      if scores[row, place] > -np.inf
      and relevance[row, place] >= least
      # No word in common: nothing was found.
      and (index.kind != "bm25" or relevance[row, place] > 0)
    ]
    found.append(passed)
  return found


def same(index: Index, mails: Sequence[Mail]) -> np.ndarray:
  """Say which mails of an index are a mail, contain it or are part of it.

  Args:
    index: The index of N mails.
    mails: Q mails.

  Returns:
    bool [Q, N]; case and white space do not count.
  """
  texts = [cleaning.normalized(mail.text) for mail in index.mails]
  found = np.zeros((len(mails), len(texts)), bool)
  for row, mail in enumerate(mails):
    own = cleaning.normalized(mail.text)
    for place, text in enumerate(texts):
      found[row, place] = (
        mail.id == index.mails[place].id or own in text or text in own
      )
  return found


def neighbours(
  index: Index, k: int, *, threshold: float | None = None
) -> list[list[Hit]]:
  """Find for each mail of an index the others that are like it.

  Args:
    index: The index.
    k: The most for each.
    threshold: The least relevance; by default that of the index.

  Returns:
    For each mail what was found, the best first: never itself, nor one that
    contains it or is part of it.
  """
  texts = [mail.text for mail in index.mails]
  without = same(index, index.mails)
  return search(index, texts, k, threshold=threshold, without=without)


def tune(
  index: Index, queries: Sequence[str], *, false_hits: float = 0.05
) -> tuple[Index, Tuned]:
  """Choose the threshold that finds most at a given share of false hits.

  Args:
    index: An index of mails to learn from.
    queries: For each of them an instruction that it follows.
    false_hits: The largest share of pairs of an instruction and the mail of
      another one that may pass.

  Returns:
    The index with the lowest threshold that does so, and how it does.

  Raises:
    ValueError: If there are not as many queries as mails, fewer than two mails,
      or no such share.
  """
  count = len(index.mails)
  if len(queries) != count or count < 2:
    raise ValueError(
      f"there must be a query for each of at least two mails, got"
      f" {len(queries)} for {count}"
    )
  if not 0 <= false_hits < 1:
    raise ValueError(f"false_hits must be in [0, 1), got {false_hits}")
  _, relevance = _scores(index, queries)
  others = relevance[~same(index, index.mails)]
  own = np.diagonal(relevance)
  if len(others):
    falling = np.sort(others)[::-1]
    best = falling[int(false_hits * len(falling))]
    threshold = float(np.nextafter(best, np.inf))
  else:
    threshold = float(own.min())
  tuned = Tuned(
    threshold,
    float(np.mean(own >= threshold)),
    float(np.mean(others >= threshold)) if len(others) else 0.0,
  )
  return index._replace(threshold=threshold), tuned


def save(path: str | os.PathLike, index: Index) -> None:
  """Write an index with its mails and its threshold, atomically.

  The file holds the texts of the mails: it is not to be passed on.
  """
  content = {
    "kind": index.kind,
    "threshold": index.threshold,
    "mails": [mail._asdict() for mail in index.mails],
  }
  vectors = index.vectors
  if vectors is None:
    vectors = np.zeros((len(index.mails), 0), np.float32)
  metadata = {"index": json.dumps(content)}
  safetensors.write(path, {"vectors": vectors}, metadata)


def load(path: str | os.PathLike, encode: Encode | None = None) -> Index:
  """Read an index.

  Args:
    path: What `save` has written.
    encode: As in `build`; the same as there.

  Returns:
    The index.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is damaged or no index, or there is no encoder for it.
  """
  path = pathlib.Path(path)
  vectors = safetensors.read(path).get("vectors")
  try:
    content = json.loads(safetensors.read_metadata(path)["index"])
    mails = tuple(
      Mail(**each)._replace(thread=tuple(each["thread"]))
      for each in content["mails"]
    )
    kind, threshold = content["kind"], float(content["threshold"])
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{path} is no index of mails ({error})") from None
  if kind not in KINDS or vectors is None or len(vectors) != len(mails):
    raise ValueError(f"{path} is no index of mails")
  if kind == "bm25":
    return Index(mails, kind, threshold)
  if encode is None:
    raise ValueError(f"the index {path} needs encode, got None")
  return Index(mails, kind, threshold, vectors, encode)


def _scores(
  index: Index, queries: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Return what mails are ranked by, and their relevance, each [Q, N]."""
  if index.kind == "bm25":
    by_words = _by_words(index, queries)
    return by_words, by_words
  assert index.encode is not None
  assert index.vectors is not None
  cosines = np.asarray(index.encode(queries)) @ index.vectors.T
  relevance = ranking.relevance(cosines)
  if index.kind == "hybrid":
    return ranking.fused(_by_words(index, queries), cosines), relevance
  return relevance, relevance


def _by_words(index: Index, queries: Sequence[str]) -> np.ndarray:
  return ranking.bm25(
    [ranking.words(mail.text) for mail in index.mails],
    [ranking.words(query) for query in queries],
  )
