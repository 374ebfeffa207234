"""Mails of SpamAssassin's public corpus, by author.

The writers are real persons who wrote to public lists: they are known by a hash
of their address only, and no text belongs into logs, figures or reports.
"""

import email
import email.utils
import hashlib
import io
import re
import tarfile
from collections.abc import Sequence

import numpy as np

from effjax.data import mailboxes, mails
from effjax.data.registry import Source

# Wanted mail that is no trap for filters.
_FOLDERS = ("package/data/easy-ham-1/", "package/data/easy-ham-2/")
# Senders of this domain are robots, or were rewritten.
_ROBOTS = "spamassassin.taint.org"
_RULE = re.compile(r"-- ?$|_{20}|-{5}")
_FEWEST, _MOST = 60, 3000  # characters


def read(content: bytes, place: str = "the package of mails") -> dict:
  """Read the mails of persons out of the package that carries the corpus.

  Of a mail what is neither quoted nor below a signature or a rule is kept, if
  it has from 60 to 3,000 characters.

  Args:
    content: The package, a compressed tarball.
    place: Where it comes from, for messages.

  Returns:
    authors [N], subjects [N], dates [N] (ISO 8601, "" if unknown) and texts
    [N], arrays of texts.

  Raises:
    ValueError: If the package is damaged or has none of them.
  """
  rows = []
  try:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
      for member in archive:
        name = member.name
        if not (name.startswith(_FOLDERS) and name.endswith(".txt")):
          continue
        stream = archive.extractfile(member)
        row = None if stream is None else _mail(stream.read())
        if row is not None:
          rows.append((name, *row))
  except (tarfile.TarError, EOFError, OSError) as error:
    raise ValueError(f"{place} is truncated or damaged ({error}).") from error
  if not rows:
    raise ValueError(f"{place} has no mails of persons.")
  columns = zip(*sorted(rows), strict=True)
  names = ("files", "authors", "subjects", "dates", "texts")
  found = {
    name: np.array(column, object)
    for name, column in zip(names, columns, strict=True)
  }
  del found["files"]
  return found


def authors(
  source: Source, *, least: int = 30
) -> dict[str, tuple[mails.Mail, ...]]:
  """Return the mails of those who wrote many.

  Args:
    source: `data.source("spam_assassin", "all")`.
    least: The fewest mails of an author, no text counted twice.

  Returns:
    Mails by the author's hash, who wrote most first, of equals by hash.

  Raises:
    ValueError: If nobody wrote so many.
  """
  found: dict[str, list[mails.Mail]] = {}
  for author, subject, date, text in zip(
    *(source.arrays[k] for k in ("authors", "subjects", "dates", "texts")),
    strict=True,
  ):
    mail = mails.mail(text, subject=subject, date=date)
    found.setdefault(author, []).append(mail)
  several = {name: tuple(mails.unique(each)) for name, each in found.items()}
  kept = [name for name, each in several.items() if len(each) >= least]
  if not kept:
    most = max(map(len, several.values()))
    raise ValueError(
      f"no author wrote {least} mails; the most of one are {most}"
    )
  kept.sort(key=lambda name: (-len(several[name]), name))
  return {name: several[name] for name in kept}


def _mail(content: bytes) -> Sequence[str] | None:
  """Return author, subject, date and text of a mail; None if it is left out."""
  message = email.message_from_bytes(content)
  address = email.utils.parseaddr(mailboxes.header(message, "From"))[1]
  address = address.casefold()
  if "@" not in address or address.endswith(_ROBOTS):
    return None
  plain = next(
    (p for p in message.walk() if p.get_content_type() == "text/plain"), None
  )
  payload = None if plain is None else plain.get_payload(decode=True)
  if not isinstance(payload, bytes):
    return None
  text = _own(payload.decode("latin-1"))
  if not _FEWEST <= len(text) <= _MOST:
    return None
  author = hashlib.sha256(address.encode()).hexdigest()[:12]
  subject = mailboxes.header(message, "Subject")
  return author, subject, mailboxes.date(message) or "", text


def _own(text: str) -> str:
  kept = []
  for line in text.replace("\r\n", "\n").split("\n"):
    if _RULE.match(line):
      break
    if line.startswith(">") or line.rstrip().endswith("wrote:"):
      continue
    kept.append(line.rstrip())
  return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
