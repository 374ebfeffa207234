"""Texts as metrics take them: cleaned, in sets of references, in pairs.

These functions run on the host. Predictions are a sequence of texts; references
hold, for each prediction, one text or several.
"""

import math
import string
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean_text(text: str) -> str:
  r"""Returns a text without ASCII punctuation, in lower case, on one line.

  Punctuation is deleted, not replaced by a blank; other signs, such as curly
  quotes and dashes, stay.

  Args:
    text: The text.

  Returns:
    Its words, one blank between two.

  >>> clean_text("Hi Anna,\n\nan  e-mail: don't!")
  'hi anna an email dont'
  """
  return " ".join(text.translate(_NO_PUNCTUATION).lower().split())


def reference_sets(
  instructions: Sequence[str], mails: Sequence[str]
) -> dict[str, list[str]]:
  """Groups the mails that answer the same instruction, as its references.

  Args:
    instructions: [N] texts.
    mails: [N] texts, written by the author.

  Returns:
    The mails of every distinct instruction, both in the order of appearance.

  Raises:
    ValueError: If there are not as many mails as instructions.

  >>> reference_sets(["a", "b", "a"], ["1", "2", "3"])
  {'a': ['1', '3'], 'b': ['2']}
  """
  instructions = listed(instructions, "instructions")
  mails = listed(mails, "mails")
  check_lengths(instructions, "instructions", mails, "mails")
  sets: dict[str, list[str]] = {}
  for instruction, mail in zip(instructions, mails, strict=True):
    sets.setdefault(instruction, []).append(mail)
  return sets


def length_ratio(
  predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> np.ndarray:
  """Returns how much longer predictions are than what the author wrote.

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them where a mail has several: then the
      one whose length is closest counts, the first among ties.

  Returns:
    [N] ratios of numbers of words, between white space; NaN where the reference
    has none.

  Raises:
    ValueError: If the texts are as `panza_bleu` refuses them.

  >>> length_ratio(["one two three"], ["one two"]).tolist()
  [1.5]
  """
  ratios = []
  for text, several in paired(predictions, references):
    length = len(text.split())
    wanted = closest(length, [len(other.split()) for other in several])
    ratios.append(length / wanted if wanted else math.nan)
  return np.array(ratios)


def listed(values: Iterable[str], name: str) -> list[str]:
  """Returns texts as a list.

  Args:
    values: The texts.
    name: What to call them in an error.

  Returns:
    The list.

  Raises:
    ValueError: If they are one text, or something else is among them.
  """
  if isinstance(values, str):
    raise ValueError(f"{name} must be a list of texts, got a single text.")
  values = list(values)
  for i, value in enumerate(values):
    if not isinstance(value, str):
      raise ValueError(
        f"{name}[{i}] must be a text, got a {type(value).__name__}."
      )
  return values


def paired(
  predictions: Iterable[str], references: Iterable[str | Iterable[str]]
) -> list[tuple[str, list[str]]]:
  """Returns every prediction with the list of its references.

  Args:
    predictions: [N] texts.
    references: [N] texts or lists of texts.

  Returns:
    [N] pairs.

  Raises:
    ValueError: If there is no prediction, one has no reference, or their
      numbers differ.
  """
  predictions = listed(predictions, "predictions")
  if isinstance(references, str):
    raise ValueError("references must be a list of texts, got a single text.")
  references = list(references)
  check_lengths(predictions, "predictions", references, "references")
  check_some(predictions, "predictions")
  pairs = []
  for i, several in enumerate(references):
    name = f"references[{i}]"
    if isinstance(several, str):
      several = [several]
    elif not isinstance(several, Iterable):
      raise ValueError(
        f"{name} must be a text or a list of texts, got a"
        f" {type(several).__name__}."
      )
    several = listed(several, name)
    check_some(several, name)
    pairs.append((predictions[i], several))
  return pairs


def ngrams(tokens: Sequence[Hashable], order: int) -> Counter:
  """Counts the n-grams of a sequence.

  Args:
    tokens: The tokens.
    order: n.

  Returns:
    The count of each n-gram, which is a tuple.
  """
  return Counter(zip(*(tokens[i:] for i in range(order)), strict=False))


def clipped(found: Mapping[Any, int], wanted: Mapping[Any, int]) -> int:
  """Returns how many counts are found in both.

  Args:
    found: Counts.
    wanted: Counts.

  Returns:
    The sum of the smaller counts.
  """
  return sum(
    min(count, wanted[gram]) for gram, count in found.items() if gram in wanted
  )


def closest(length: int, others: Sequence[int]) -> int:
  """Returns the length that is closest to a length, the first among ties.

  Args:
    length: That of a prediction.
    others: Those of its references.

  Returns:
    One of them.
  """
  return min(others, key=lambda other: abs(length - other))


def check_some(values: Sequence, name: str) -> None:
  """Raises a ValueError if there is nothing in `values`."""
  if not values:
    raise ValueError(f"{name} must hold at least one text.")


def check_lengths(
  first: Sequence, first_name: str, second: Sequence, second_name: str
) -> None:
  """Raises a ValueError unless there are as many of both."""
  if len(first) != len(second):
    raise ValueError(
      f"{len(first)} {first_name} and {len(second)} {second_name} cannot be"
      " paired: there must be as many of both."
    )
