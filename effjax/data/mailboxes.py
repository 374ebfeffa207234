"""Messages of mailboxes of several kinds, one after the other.

Nothing is unpacked to disk, and of a message no more than its beginning is
read: texts come before attachments, which may be as large as they like.
"""

import codecs
import contextlib
import email
import email.errors
import email.header
import email.message
import email.utils
import os
import pathlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from effjax.data import json_lines

KINDS = ("mbox", "maildir", "takeout", "eml", "jsonl")
# The most bytes of a message that are read.
MOST = 4 << 20
_LINE = 1 << 16
_FIELD = re.compile(rb"[!-9;-~]+:")
_ENVELOPE = re.compile(rb"From \S+ .*\d\d:\d\d.*\d{4}")
_ESCAPED = re.compile(rb"^>(>*From )", re.M)
_DAMAGED = (EOFError, OSError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


class Body(NamedTuple):
  """The texts of a message.

  Attributes:
    texts: Its texts; in convention "exact" one, or none.
    broken: How many texts cannot be decoded.
    html: Whether it has a text for browsers, and no plain one.
  """

  texts: tuple[str, ...]
  broken: int = 0
  html: bool = False


def kind_of(path: str | os.PathLike) -> str:
  """Tell the kind of a mailbox.

  Args:
    path: A file or a directory.

  Returns:
    One of `KINDS`.

  Raises:
    FileNotFoundError: If there is nothing.
    ValueError: If it is of no known kind.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(f"there is no file or directory {path}")
  if path.is_dir():
    if (path / "cur").is_dir() or _maildir_files(path):
      return "maildir"
    for kind, suffix in (("takeout", "mbox"), ("eml", "eml")):
      if any(path.rglob(f"*.{suffix}")):
        return kind
    raise ValueError(
      f"{path} is no mailbox: it has neither the folders cur/ and new/ of a"
      " maildir, nor files .mbox or .eml"
    )
  if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
    return "takeout"
  with path.open("rb") as file:
    first = file.read(_LINE).removeprefix(b"\xef\xbb\xbf").lstrip()
  if path.suffix in (".jsonl", ".json") or first[:1] == b"{":
    return "jsonl"
  if first.startswith(b"From ") or (not first and path.suffix == ".mbox"):
    return "mbox"
  if path.suffix == ".eml" or _FIELD.match(first):
    return "eml"
  raise ValueError(
    f"{path} is no mailbox; known are mbox, maildir, Takeout (.zip, .tgz or its"
    " folder), .eml and .jsonl"
  )


def raw(path: str | os.PathLike, kind: str) -> Iterator[bytes]:
  """Yield the messages of a mailbox as they are stored, cut after `MOST` bytes.

  Args:
    path: The mailbox.
    kind: One of `KINDS`, but not "jsonl".

  Yields:
    Messages, those of a maildir in the order of the names of its files.

  Raises:
    ValueError: If an archive is damaged or has no mailbox.
  """
  path = pathlib.Path(path)
  if kind == "mbox":
    with path.open("rb") as stream:
      yield from _split(stream)
  elif kind == "takeout":
    yield from _takeout(path)
  else:
    files = _maildir_files(path) if kind == "maildir" else _eml_files(path)
    for name in files:
      with name.open("rb") as stream:
        yield stream.read(MOST)


def entries(content: bytes, place: str) -> Iterator[dict[str, Any]]:
  """Yield the objects of a file with one a line.

  Args:
    content: The file's content; empty lines are passed over.
    place: Where it comes from, for messages.

  Yields:
    Dicts whose "email" (or "text") is a text, as are "subject" and "date" if
    they are there; "thread" is a list of texts.

  Raises:
    ValueError: If a line is no such object, naming it.
  """
  holding = " with 'email' or 'text'"
  lines = json_lines.objects(content, place, holding=holding)
  for place, entry in lines:
    text = entry.get("email", entry.get("text"))
    if not isinstance(text, str):
      raise ValueError(f"{place} has no text 'email' or 'text'")
    found = {"email": text}
    for name in ("subject", "date"):
      if not isinstance(entry.get(name) or "", str):
        raise ValueError(f"{place}: {name!r} must be a text")
      found[name] = entry.get(name) or ""
    thread = entry.get("thread") or []
    if not isinstance(thread, list) or not all(
      isinstance(part, str) for part in thread
    ):
      raise ValueError(f"{place}: 'thread' must be a list of texts")
    yield {**found, "thread": thread}


def _maildir_files(path: pathlib.Path) -> list[pathlib.Path]:
  found = [*path.rglob("cur/*"), *path.rglob("new/*")]
  return sorted(
    (name for name in found if name.is_file() and name.name[0] != "."),
    key=lambda name: (name.parent.parent, name.name),
  )


def _eml_files(path: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path.rglob("*.eml")) if path.is_dir() else [path]


def _takeout(path: pathlib.Path) -> Iterator[bytes]:
  """Yield the messages of every .mbox of an archive or a folder."""
  count = 0
  try:
    for stream in _streams(path):
      count += 1
      yield from _split(stream)
  except _DAMAGED as error:
    raise ValueError(
      f"{path} is truncated or damaged ({error}); export it again"
    ) from error
  if not count:
    raise ValueError(f"{path} holds no .mbox: it is no export of mail")


def _streams(path: pathlib.Path) -> Iterator[BinaryIO]:
  if path.is_dir():
    for name in sorted(path.rglob("*.mbox")):
      with name.open("rb") as stream:
        yield stream
  elif zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      for name in sorted(archive.namelist()):
        if name.endswith(".mbox"):
          with archive.open(name) as stream:
            yield stream  # pyrefly: ignore[invalid-yield]
  else:
    with tarfile.open(path) as archive:
      for member in archive:
        stream = archive.extractfile(member)
        if member.name.endswith(".mbox") and stream is not None:
          yield stream  # pyrefly: ignore[invalid-yield]


def _split(stream: BinaryIO) -> Iterator[bytes]:
  """Cut an mbox where a line that begins with "From " is followed by a field.

  The library `mailbox` wants a file that it can seek in; here archives are read
  as they are. A line of a text that happens to begin so cuts no message.
  """
  kept: list[bytes] | None = None
  held = None  # a line that may part two messages
  size, blank, begun = 0, True, True

  def keep(line: bytes) -> None:
    nonlocal size
    if kept is not None and size < MOST:
      kept.append(line)
      size += len(line)

  for number, line in enumerate(iter(lambda: stream.readline(_LINE), b"")):
    if not number:
      line = line.removeprefix(codecs.BOM_UTF8)
    if held is not None:
      if _FIELD.match(line):
        if kept is not None:
          yield _joined(kept)
        kept, size = [], 0
      else:
        keep(held)
      held = None
    if begun and line.startswith(b"From ") and (blank or _ENVELOPE.match(line)):
      held = line
    else:
      keep(line)
    blank, begun = not line.strip(), line.endswith(b"\n")
  if kept is not None:
    yield _joined(kept)


def _joined(lines: list[bytes]) -> bytes:
  return _ESCAPED.sub(rb"\1", b"".join(lines))


def header(message: email.message.Message, name: str) -> str:
  """Return a field of a message in plain characters; "" if it is absent."""
  value = message.get(name)
  if value is None:
    return ""
  # What cannot be decoded is shown as it is stored.
  with contextlib.suppress(LookupError, ValueError, email.errors.MessageError):
    value = email.header.make_header(email.header.decode_header(value))
  return " ".join(str(value).split())


def head(content: bytes) -> email.message.Message:
  """Parse the fields of a stored message, and nothing else."""
  end = re.search(rb"\r?\n\r?\n", content)
  return email.message_from_bytes(content[: end.start()] if end else content)


def senders(message: email.message.Message) -> tuple[str, ...]:
  """Return the addresses that a message is from, in small letters."""
  # Read before it is decoded: a name may hold what looks like an address.
  field = " ".join(str(message.get("From", "")).split())
  found = email.utils.getaddresses([field])
  return tuple(address.casefold() for _, address in found if "@" in address)


def is_draft(message: email.message.Message) -> bool:
  """Say whether Gmail's labels call a message a draft, in English or German."""
  labels = re.split(r"\s*,\s*", header(message, "X-Gmail-Labels").casefold())
  return bool({"drafts", "draft", "entwürfe", "entwurf"} & set(labels))


def date(message: email.message.Message) -> str | None:
  """Return when a message was sent, as ISO 8601 writes it; None if unknown."""
  try:
    found = email.utils.parsedate_to_datetime(header(message, "Date"))
  except (ValueError, TypeError, IndexError, OverflowError):
    return None
  return found.isoformat()


def body(content: bytes, *, convention: str = "exact") -> Body:
  """Return the texts of a stored message.

  Args:
    content: The message.
    convention: "exact": one text, of all parts that are shown, decoded as they
      say; of alternatives the plain one. "reference": every plain text is one
      of its own, attached ones and those of attached messages too, and all are
      decoded as UTF-8.

  Returns:
    The texts.
  """
  message = email.message_from_bytes(content)
  if convention == "reference":
    return _reference_body(message)
  found, html, broken = [], False, 0
  for part in _shown(message):
    if part.get_content_type() == "text/html":
      html = True
      continue
    try:
      found.append(_decoded(part))
    except (UnicodeError, LookupError, ValueError):
      broken += 1
  if broken:
    return Body((), 1)
  if not found:
    return Body((), html=html)
  return Body(("\n".join(found),))


def _shown(part: email.message.Message) -> list[email.message.Message]:
  """Return the texts of a part that are no attachments, in their order."""
  if part.get_content_disposition() == "attachment" or part.get_filename():
    return []
  if part.get_content_type() in ("text/plain", "text/html"):
    return [part]
  if part.get_content_maintype() != "multipart" or not part.is_multipart():
    return []
  children: Any = part.get_payload()
  inner = [_shown(child) for child in children]
  found = [text for texts in inner for text in texts]
  plain = [p for p in found if p.get_content_type() == "text/plain"]
  if part.get_content_subtype() == "alternative" and plain:
    return plain
  return found


def _decoded(part: email.message.Message) -> str:
  content: Any = part.get_payload(decode=True) or b""
  charset = part.get_content_charset() or "utf-8"
  if charset in ("us-ascii", "ascii"):
    charset = "utf-8"  # what programs that say so often write
  try:
    return content.decode(charset)
  except LookupError:
    return content.decode("utf-8")


def _reference_body(message: email.message.Message) -> Body:
  texts, broken = [], 0
  for part in message.walk():
    if part.get_content_type() != "text/plain":
      continue
    content: Any = part.get_payload(decode=True)
    try:
      texts.append(content.decode("utf-8"))
    except (AttributeError, UnicodeDecodeError):
      broken += 1
  return Body(tuple(texts), broken)
