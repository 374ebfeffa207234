"""Who wrote a text: a classifier of character n-grams, and what it finds.

Stands in for people who are asked to recognise an author. These functions run
on the host, in float64.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from effjax import arguments
from effjax.metrics import texts

# Features that are made dense at a time.
_BLOCK = 4096


class AuthorClassifier(NamedTuple):
  """A linear classifier of texts; A authors, F features.

  Attributes:
    authors: The A names, in alphabetical order.
    features: The column of each character n-gram.
    idf: [F], the inverse document frequencies.
    weights: [F, A].
    bias: [A].
    orders: The lowest and the highest n.
  """

  authors: tuple[str, ...]
  features: dict[str, int]
  idf: np.ndarray
  weights: np.ndarray
  bias: np.ndarray
  orders: tuple[int, int]


class Authorship(NamedTuple):
  """What a classifier finds in N texts; A authors.

  Attributes:
    accuracy: The share of texts that are given to their author.
    chance: 1 / A.
    confusion: [A, A] counts; a row is a true author, a column a found one.
    precision: [A], NaN for an author to whom no text is given.
    recall: [A], NaN for an author without a text.
    authors: The names, in the order of the rows.
    found: [N], the row of the author whom each text is given to.
  """

  accuracy: float
  chance: float
  confusion: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  authors: tuple[str, ...]
  found: np.ndarray


class _Rows(NamedTuple):
  """A sparse matrix: columns and values of each row."""

  columns: list[np.ndarray]
  values: list[np.ndarray]


def fit_authorship(
  mails: Sequence[str],
  authors: Sequence[str],
  *,
  orders: tuple[int, int] = (3, 5),
  least: int = 2,
  penalty: float = 1.0,
) -> AuthorClassifier:
  """Fits a multinomial logistic regression to character n-grams.

  A feature is 1 + ln(count) times ln((1 + N) / (1 + df)) + 1; a text has the
  length 1. The loss is the sum of cross-entropies, each weighted by N / (A n)
  of the n texts of its author, and penalty / 2 times the squared weights; the
  biases are free. Remove what names the authors first, see `remove_identity`.

  Args:
    mails: [N] texts.
    authors: [N] names.
    orders: The lowest and the highest n of the n-grams.
    least: The number of texts that a feature must occur in.
    penalty: The weight of the squares.

  Returns:
    An `AuthorClassifier`.

  Raises:
    ValueError: If there are not as many mails as authors, fewer than two
      different authors, no feature, or a number is out of range.

  >>> model = fit_authorship(["so long!", "so on!", "umm", "umm..."], [*"aabb"])
  >>> predict_authorship(model, ["so so!"]).round(1).tolist()
  [[0.7, 0.3]]
  """
  mails = texts.listed(mails, "mails")
  authors = texts.listed(authors, "authors")
  texts.check_lengths(mails, "mails", authors, "authors")
  names = tuple(sorted(set(authors)))
  if len(names) < 2:
    raise ValueError(f"There must be at least two authors, got {len(names)}.")
  found = [arguments.whole("orders", order) for order in np.ravel(orders)]
  if len(found) != 2 or found[0] > found[1]:
    raise ValueError(
      f"orders must ascend in two whole numbers from 1 on, got {orders}."
    )
  low, high = found
  least = arguments.whole("least", least)
  arguments.finite("penalty", penalty, 0, above=True)
  counts = [_character_counts(mail, low, high) for mail in mails]
  frequency = Counter(gram for count in counts for gram in count)
  kept = sorted(gram for gram, df in frequency.items() if df >= least)
  if not kept:
    raise ValueError(f"No n-gram of {low} to {high} occurs in {least} mails.")
  features = {gram: i for i, gram in enumerate(kept)}
  df = np.array([frequency[gram] for gram in kept])
  idf = np.log((1 + len(mails)) / (1 + df)) + 1
  rows = _tf_idf(counts, features, idf)
  labels = np.array([names.index(author) for author in authors])
  balance = len(mails) / (len(names) * np.bincount(labels))
  # Weights are a sum of rows, so that their products are all one has to know.
  residual, bias = _regression(
    _products(rows, len(kept)), labels, balance[labels], penalty
  )
  weights = np.zeros((len(kept), len(names)))
  for columns, values, r in zip(*rows, residual, strict=True):
    weights[columns] -= values[:, None] * r / penalty
  return AuthorClassifier(names, features, idf, weights, bias, (low, high))


def predict_authorship(
  classifier: AuthorClassifier, mails: Sequence[str]
) -> np.ndarray:
  """Returns how likely each author is to have written each text.

  Args:
    classifier: An `AuthorClassifier`.
    mails: [N] texts, treated as those that it was fitted to.

  Returns:
    [N, A] float64; a text without a known n-gram has the softmax of the biases.
  """
  low, high = classifier.orders
  counts = [
    _character_counts(x, low, high) for x in texts.listed(mails, "mails")
  ]
  rows = _tf_idf(counts, classifier.features, classifier.idf)
  logits = [v @ classifier.weights[c] for c, v in zip(*rows, strict=True)]
  shape = len(logits), len(classifier.authors)
  return _softmax(np.reshape(logits, shape) + classifier.bias)


def authorship_report(
  classifier: AuthorClassifier, mails: Sequence[str], authors: Sequence[str]
) -> Authorship:
  """Returns whom texts are given to, and how often rightly.

  Args:
    classifier: An `AuthorClassifier`.
    mails: [N] texts: held-out ones for an upper reference, generated ones, or
      those of an untuned model for a control.
    authors: [N], who wrote each, or whom its model was tuned to.

  Returns:
    An `Authorship`; among equally likely authors the first counts.

  Raises:
    ValueError: If there is no mail, there are not as many mails as authors, or
      an author is not one of the classifier's.
  """
  mails = texts.listed(mails, "mails")
  authors = texts.listed(authors, "authors")
  texts.check_lengths(mails, "mails", authors, "authors")
  texts.check_some(mails, "mails")
  names = classifier.authors
  for author in authors:
    if author not in names:
      raise ValueError(
        f"The classifier does not know the author {author!r}, only"
        f" {', '.join(names)}."
      )
  labels = np.array([names.index(author) for author in authors])
  found = predict_authorship(classifier, mails).argmax(axis=1)
  confusion = np.zeros((len(names), len(names)), np.int64)
  np.add.at(confusion, (labels, found), 1)
  right = confusion.diagonal()
  with np.errstate(invalid="ignore"):
    precision, recall = (right / confusion.sum(axis=axis) for axis in (0, 1))
  return Authorship(
    accuracy=float(right.sum() / len(mails)),
    chance=1 / len(names),
    confusion=confusion,
    precision=precision,
    recall=recall,
    authors=names,
    found=found,
  )


def _character_counts(text: str, low: int, high: int) -> Counter:
  return Counter(
    text[i : i + n]
    for n in range(low, high + 1)
    for i in range(len(text) - n + 1)
  )


def _tf_idf(counts: list[Counter], features: dict, idf: np.ndarray) -> _Rows:
  rows = _Rows([], [])
  for count in counts:
    known = {features[gram]: n for gram, n in count.items() if gram in features}
    columns = np.fromiter(known, np.int64, len(known))
    values = np.fromiter(known.values(), np.float64, len(known))
    values = (1 + np.log(values)) * idf[columns]
    rows.columns.append(columns)
    rows.values.append(values / max(np.linalg.norm(values), 1e-300))
  return rows


def _products(rows: _Rows, width: int) -> np.ndarray:
  """Returns the inner products [N, N] of the rows."""
  count = len(rows.columns)
  owner = np.repeat(np.arange(count), [len(c) for c in rows.columns])
  columns, values = (np.concatenate(part) for part in rows)
  products = np.zeros((count, count))
  for start in range(0, width, _BLOCK):
    inside = (columns >= start) & (columns < start + _BLOCK)
    block = np.zeros((count, _BLOCK))
    block[owner[inside], columns[inside] - start] = values[inside]
    products += block @ block.T
  return products


def _regression(
  products: np.ndarray, labels: np.ndarray, balance: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
  """Fits a multinomial logistic regression by Newton's method.

  In the space that the rows span; steps by conjugate gradients.

  Args:
    products: [N, N], inner products of the rows.
    labels: [N] integers.
    balance: [N], the weight of each row in the loss.
    penalty: The weight of the squares.

  Returns:
    [N, A], the weighted residual p - y of each row, of which the weights are
    the sum, times minus one over the penalty; and the biases [A].
  """
  scales, vectors = np.linalg.eigh(products)
  rows = vectors * np.sqrt(np.maximum(scales, 0.0))
  rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
  ridge = np.full((rows.shape[1], 1), penalty)
  ridge[-1] = 0.0
  target = np.eye(labels.max() + 1)[labels]
  weight = balance[:, None]

  def loss(theta):
    logits = rows @ theta
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) + top
    entropy = weight * (total - (logits * target).sum(axis=1, keepdims=True))
    return entropy.sum() + 0.5 * (ridge * theta**2).sum()

  theta = np.zeros((rows.shape[1], target.shape[1]))
  for _ in range(100):
    share = _softmax(rows @ theta)
    residual = weight * (share - target)
    slope = rows.T @ residual + ridge * theta
    if np.abs(slope).max() < 1e-9:
      break

    def curved(step, share=share):
      change = share * (rows @ step)
      change -= share * change.sum(axis=1, keepdims=True)
      return rows.T @ (weight * change) + ridge * step

    step = _conjugate_gradients(curved, -slope)
    before, size = loss(theta), 1.0
    descent = (slope * step).sum()
    while size > 1e-8 and loss(theta + size * step) > (
      before + 1e-4 * size * descent
    ):
      size /= 2
    if size <= 1e-8:
      break  # Rounding hides any further descent.
    theta = theta + size * step
  residual = weight * (_softmax(rows @ theta) - target)
  return residual, theta[-1] - theta[-1].mean()


def _conjugate_gradients(product, target: np.ndarray) -> np.ndarray:
  """Solves product(x) = target, to a millionth."""
  x = np.zeros_like(target)
  rest, direction = target, target
  square = (rest**2).sum()
  goal = 1e-12 * square
  for _ in range(2 * target.size):
    if square <= goal:
      break
    image = product(direction)
    length = square / (direction * image).sum()
    x = x + length * direction
    rest = rest - length * image
    square, old = (rest**2).sum(), square
    direction = rest + square / old * direction
  return x


def _softmax(logits: np.ndarray) -> np.ndarray:
  shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
  return shifted / shifted.sum(axis=1, keepdims=True)
