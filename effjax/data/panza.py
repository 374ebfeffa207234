"""The mails of three persons that the study Panza published.

Research only: the user brings the files, and neither they nor adapters trained
on them are passed on.
"""

import numpy as np

from effjax.data import cleaning, mailboxes, mails
from effjax.data.registry import Source

_COLUMNS = {"texts": "email", "subjects": "subject", "dates": "date"}


def read(content: bytes, place: str) -> dict[str, np.ndarray]:
  """Read the file of a person.

  Args:
    content: The file's content.
    place: Its name, for messages.

  Returns:
    texts, subjects and dates [N], arrays of texts; "" where there is none.

  Raises:
    ValueError: If a line is damaged.
  """
  rows = list(mailboxes.entries(content, place))
  return {
    name: np.array([row[key] for row in rows], object)
    for name, key in _COLUMNS.items()
  }


def letters(source: Source, *, unwrap: bool = True) -> tuple[mails.Mail, ...]:
  """Return a person's mails.

  They were cleaned when they were published; line ends, and what signatures and
  quotes were left, are taken care of as `cleaning.clean` does.

  Args:
    source: `data.source("panza", NAME, directory=...)` with the name "david",
      "isabel" or "marcus".
    unwrap: Whether lines that a program has wrapped are joined again, as nearly
      all are.

  Returns:
    The mails in the order of the file; only Marcus' have dates.
  """
  columns = (source.arrays[name] for name in _COLUMNS)
  return tuple(
    mails.mail(
      cleaning.clean(text, unwrap=unwrap).text, subject=subject, date=date
    )
    for text, subject, date in zip(*columns, strict=True)
  )
