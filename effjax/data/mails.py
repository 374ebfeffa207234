"""Mails as they are learned from: named by their text, and split."""

import datetime
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from effjax.data import cleaning


class Mail(NamedTuple):
  """A mail that its owner wrote.

  Attributes:
    id: Name of its text, which does not depend on case and white space.
    text: What the owner wrote.
    subject: Its subject; "" if none.
    date: When it was sent, as ISO 8601 writes it; None if unknown.
    thread: What it answers, the oldest first.
  """

  id: str
  text: str
  subject: str = ""
  date: str | None = None
  thread: tuple[str, ...] = ()


class Split(NamedTuple):
  """Mails to learn from, and others to be judged on.

  Attributes:
    train: Mails to learn from.
    test: Other mails, none of the same text.
  """

  train: tuple[Mail, ...]
  test: tuple[Mail, ...]


def mail(
  text: str,
  *,
  subject: str = "",
  date: str | None = None,
  thread: Iterable[str] = (),
) -> Mail:
  """Make a mail of its text, from which it is named."""
  name = cleaning.identifier(text)
  return Mail(name, text, subject, date or None, tuple(thread))


def unique(mails: Iterable[Mail]) -> list[Mail]:
  """Return the first mail of each text, in their order."""
  kept: dict[str, Mail] = {}
  for each in mails:
    kept.setdefault(each.id, each)
  return list(kept.values())


def split(
  mails: Sequence[Mail],
  share: float = 0.2,
  *,
  order: str = "random",
  seed: int = 41,
) -> Split:
  """Split mails into those to learn from and those to be judged on.

  Of mails with the same text, case and white space aside, the first is taken:
  none is in both parts. Of the n that are left int(n (1 - share)) are to be
  learned from.

  Args:
    mails: The mails.
    share: Share of the test part, above 0 and below 1.
    order: "random", shuffled as Panza's program does with that seed; or
      "chronological": those to be judged on are the latest.
    seed: Chooses the random order.

  Returns:
    Both parts.

  Raises:
    ValueError: If the share or the order is none, a part would be empty, or
      dates are missing for a chronological split.
  """
  if not 0 < share < 1:
    raise ValueError(f"share must be between 0 and 1, got {share}")
  mails = unique(mails)
  if order == "chronological":
    undated = sum(_moment(each) is None for each in mails)
    if undated:
      raise ValueError(
        f"{undated} of {len(mails)} mails have no date, without which there is"
        " no chronological order; take order='random'"
      )
    mails.sort(key=lambda each: _moment(each) or 0.0)
  elif order == "random":
    random.Random(seed).shuffle(mails)
  else:
    raise ValueError(
      f"order must be 'random' or 'chronological', got {order!r}"
    )
  count = int(len(mails) * (1 - share))
  if not 0 < count < len(mails):
    raise ValueError(
      f"{len(mails)} different mails cannot be split with share={share}: a"
      " part would be empty"
    )
  return Split(tuple(mails[:count]), tuple(mails[count:]))


def latest(mails: Sequence[Mail], count: int) -> tuple[Mail, ...]:
  """Return the latest mails, in their order.

  Args:
    mails: The mails; if one has no date, the last ones count as the latest.
    count: How many, at least one.

  Returns:
    At most so many mails.
  """
  places = range(len(mails))
  moments = [_moment(each) for each in mails]
  known = [moment for moment in moments if moment is not None]
  if len(known) == len(mails):
    places = sorted(places, key=lambda i: known[i])
  return tuple(mails[i] for i in sorted(places[-count:]))


def _moment(each: Mail) -> float | None:
  """Return when a mail was sent, in seconds; dates without a zone are UTC."""
  if each.date is None:
    return None
  try:
    found = datetime.datetime.fromisoformat(each.date)
  except ValueError:
    return None
  if found.tzinfo is None:
    found = found.replace(tzinfo=datetime.UTC)
  return found.timestamp()
