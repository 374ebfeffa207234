"""Tales, and the dialogues that they are cut into."""

import csv
import io
import re
from collections.abc import Iterator

import numpy as np

from effjax.data.dialogues import Dialogue

# Where a sentence ends, or a clause that could be one, with its quotation mark.
_END = re.compile(r"([.!?;][’”'\")]*) ")
_HEADERS = 3  # lines of names, types and roles
_ASK = "Continue the tale: "


def read(content: bytes, place: str = "the file of tales") -> dict:
  """Read a table of texts as Orange writes it.

  Values are parted by tabulators; three lines of names, types and roles come
  before the rows.

  Args:
    content: The text.
    place: Where it comes from, for messages.

  Returns:
    titles [N] and texts [N], arrays of texts.

  Raises:
    ValueError: If a column is missing, a row has another length, or there is
      none.
  """
  lines = csv.reader(
    io.StringIO(content.decode("utf-8"), newline=""), delimiter="\t"
  )
  before = csv.field_size_limit(len(content) + 1)
  try:
    rows = [(lines.line_num, row) for row in lines if row]
  finally:
    csv.field_size_limit(before)
  names = rows[0][1] if rows else []
  for name in ("Title", "Content"):
    if name not in names:
      raise ValueError(f"{place} has no column {name!r}.")
  found = rows[_HEADERS:]
  for number, row in found:
    if len(row) != len(names):
      raise ValueError(
        f"{place}, line {number}: expected {len(names)} values, found"
        f" {len(row)}."
      )
  if not found:
    raise ValueError(f"{place} has no rows.")
  column = lambda name: np.array(
    [row[names.index(name)].strip() for _, row in found], object
  )
  return {"titles": column("Title"), "texts": column("Content")}


def sentences(text: str) -> list[str]:
  """Cut a text where sentences end.

  Args:
    text: The text.

  Returns:
    The sentences, white space between words made one blank.

  >>> sentences("Who is there?  ‘I,’ he said; and   wept.")
  ['Who is there?', '‘I,’ he said;', 'and wept.']
  """
  joined = " ".join(text.split())
  return [part for part in _END.sub("\\1\n", joined).split("\n") if part]


def dialogues(
  text: str, *, asked: int = 15, answered: int = 25
) -> list[Dialogue]:
  """Cut a tale into passages, and what comes after each.

  Args:
    text: The tale.
    asked: The fewest words of a passage.
    answered: The fewest words of what comes after it.

  Returns:
    Dialogues in the order of the tale, no sentence in two of them; the rest at
    its end is left out.

  >>> dialogues("One two. Three. Four five. Six.", asked=3, answered=2)
  [Dialogue(prompt='Continue the tale: One two. Three.', response='Four five.')]
  """
  parts = iter(sentences(text))
  found = []
  while passage := _passage(parts, asked):
    after = _passage(parts, answered)
    if after is None:
      break
    found.append(Dialogue(_ASK + passage, after))
  return found


def _passage(parts: Iterator[str], words: int) -> str | None:
  """Take sentences until there are so many words; None if there are not."""
  taken: list[str] = []
  count = 0
  for part in parts:
    taken.append(part)
    count += len(part.split())
    if count >= words:
      return " ".join(taken)
  return None
