"""Mailboxes: the mails that their owner wrote, cleaned.

`read` knows mbox, maildir, Gmail's Takeout, .eml and .jsonl files. Nothing
leaves the machine, and no text is written anywhere.
"""

import collections
import email.message
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from effjax.data import cleaning, mailboxes
from effjax.data.mails import Mail as Mail
from effjax.data.mails import Split as Split
from effjax.data.mails import latest as latest
from effjax.data.mails import mail as mail
from effjax.data.mails import split as split
from effjax.data.mails import unique

# The fewest mails that a model can be trained on and judged by.
LEAST = 10
# Why messages are left out.
REASONS = {
  "not_owner": "not from the owner",
  "draft": "not sent yet",
  "no_date": "without a date",
  "cant_decode_utf8": "with a broken encoding",
  "html_only": "without plain text",
  "forwarded": "forwarded",
  "empty": "empty",
  "short": "too short",
  "non_english": "not in English",
  "duplicate": "said before",
}


class Mailbox(NamedTuple):
  """What was read of a mailbox.

  Attributes:
    mails: Mails in the order of the mailbox, no text twice.
    counts: How many were left out, by each of `REASONS`.
    messages: How many messages there are.
    owner: Addresses of the owner; empty where messages have no senders.
    guessed: Whether the owner is the most frequent sender because none was
      named.
  """

  mails: tuple[Mail, ...]
  counts: Mapping[str, int]
  messages: int
  owner: tuple[str, ...] = ()
  guessed: bool = False


def read(
  path: str | os.PathLike,
  *,
  kind: str | None = None,
  owner: str | Sequence[str] | None = None,
  words: int = 10,
  english: bool = True,
  nfc: bool = True,
  unwrap: bool = False,
  least: int = 1,
  convention: str = "exact",
) -> Mailbox:
  """Read the mails that the owner of a mailbox wrote.

  Args:
    path: A file or directory.
    kind: One of `mailboxes.KINDS`; by default what it looks like.
    owner: Addresses of the owner; by default the most frequent sender, of
      equals the first. Lines of .jsonl have no senders.
    words: The fewest words of a mail.
    english: Whether only mails in English are kept.
    nfc: Whether characters are composed (Unicode's form NFC).
    unwrap: Whether lines that a program has wrapped are joined again.
    least: The fewest mails; training wants `LEAST`.
    convention: "exact", or "reference": what Panza's program does, see
      `cleaning` and `mailboxes.body`; mails without a date are left out, copies
      are kept, a message may give several mails, and one that is left out may
      count for two reasons. Languages are told by py3langid in both.

  Returns:
    The mails, and how many messages were left out and why.

  Raises:
    FileNotFoundError: If there is no such mailbox.
    ValueError: If it is no mailbox, damaged or empty, no message is from the
      owner, or there are fewer than `least` mails; the message says why.
  """
  cleaning.check_convention(convention)
  path = pathlib.Path(path)
  found = mailboxes.kind_of(path)
  kind = found if kind is None else kind
  if kind not in mailboxes.KINDS:
    raise ValueError(
      f"there is no mailbox of the kind {kind!r}; known are"
      f" {', '.join(mailboxes.KINDS)}"
    )
  counts = dict.fromkeys(REASONS, 0)
  addresses, guessed = (), False
  # Messages of each sender; None stands for none.
  senders: collections.Counter = collections.Counter()
  if kind == "jsonl":
    drafts = _of_entries(path, senders)
  else:
    guessed = owner is None
    if owner is None:
      addresses = (_most_frequent(path, kind),)
    else:
      addresses = _addresses(owner, convention)
    drafts = _of_messages(path, kind, addresses, senders, counts, convention)
  mails = []
  for draft in drafts:
    options = {"nfc": nfc, "unwrap": unwrap, "convention": convention}
    cleaned = cleaning.clean(draft.text, **options)
    if cleaned.forwarded:
      counts["forwarded"] += 1
      if convention == "exact":
        continue
    reason = _reason(cleaned.text, words, english, convention)
    if reason:
      counts[reason] += 1
      continue
    mails.append(
      mail(
        cleaned.text,
        subject=draft.subject,
        date=draft.date,
        thread=cleaned.thread or draft.thread,
      )
    )
  messages = senders.total()
  if messages and counts["not_owner"] == messages:
    raise ValueError(_not_from(path, addresses, senders))
  if convention == "exact":
    kept = unique(mails)
    counts["duplicate"] = len(mails) - len(kept)
    mails = kept
  result = Mailbox(tuple(mails), counts, messages, addresses, guessed)
  _enough(path, result, least)
  return result


def read_mbox(path: str | os.PathLike, **options) -> Mailbox:
  """Read a file of messages, as most programs keep them; see `read`."""
  return read(path, kind="mbox", **options)


def read_maildir(path: str | os.PathLike, **options) -> Mailbox:
  """Read a directory with a file for each message; see `read`."""
  return read(path, kind="maildir", **options)


def read_takeout(path: str | os.PathLike, **options) -> Mailbox:
  """Read what Google exports: .zip, .tgz or its folder; see `read`."""
  return read(path, kind="takeout", **options)


def read_eml(path: str | os.PathLike, **options) -> Mailbox:
  """Read a message, or a directory of .eml files; see `read`."""
  return read(path, kind="eml", **options)


def read_jsonl(path: str | os.PathLike, **options) -> Mailbox:
  """Read a file with an object a line; see `mailboxes.entries` and `read`."""
  return read(path, kind="jsonl", **options)


def describe(mailbox: Mailbox) -> str:
  """Say in a sentence or two what was kept and what was left out.

  >>> describe(Mailbox((mail("Hi"),), {"short": 2}, 3, ("a@b.org",), True))
  '1 of 3 messages kept; left out: 2 too short. Taken as from a@b.org, the most\
 frequent sender.'
  """
  text = f"{len(mailbox.mails):,} of {mailbox.messages:,} messages kept"
  if any(mailbox.counts.values()):
    text += f"; left out: {_reasons(mailbox.counts)}"
  if mailbox.guessed:
    text += (
      f". Taken as from {', '.join(mailbox.owner)}, the most frequent sender"
    )
  return f"{text}."


class _Draft(NamedTuple):
  """A text that is not cleaned yet, and what goes with it."""

  text: str
  subject: str
  date: str | None
  thread: tuple[str, ...] = ()


def _of_entries(
  path: pathlib.Path, senders: collections.Counter
) -> Iterator[_Draft]:
  for entry in mailboxes.entries(path.read_bytes(), path.name):
    senders[None] += 1
    yield _Draft(
      entry["email"],
      entry["subject"],
      entry["date"] or None,
      tuple(entry["thread"]),
    )


def _of_messages(
  path: pathlib.Path,
  kind: str,
  owner: Sequence[str],
  senders: collections.Counter,
  counts: dict[str, int],
  convention: str,
) -> Iterator[_Draft]:
  """Yield the texts of the owner's messages; count all senders."""
  for content in mailboxes.raw(path, kind):
    head = mailboxes.head(content)
    senders[_first_sender(head)] += 1
    if not _is_from(head, owner, convention):
      counts["not_owner"] += 1
      continue
    if convention == "exact" and mailboxes.is_draft(head):
      counts["draft"] += 1
      continue
    date = mailboxes.date(head)
    if date is None and convention == "reference":
      counts["no_date"] += 1
      continue
    body = mailboxes.body(content, convention=convention)
    counts["cant_decode_utf8"] += body.broken
    if not body.texts and not body.broken:
      counts["html_only" if body.html else "empty"] += 1
    subject = mailboxes.header(head, "Subject")
    for text in body.texts:
      yield _Draft(text, subject, date)


def _first_sender(head: email.message.Message) -> str | None:
  return next(iter(mailboxes.senders(head)), None)


def _most_frequent(path: pathlib.Path, kind: str) -> str:
  """Return the sender of most messages, of equals the first."""
  senders = collections.Counter(
    _first_sender(mailboxes.head(content))
    for content in mailboxes.raw(path, kind)
  )
  if not senders:
    raise ValueError(f"{path} holds no message")
  del senders[None]
  if not senders:
    raise ValueError(f"no message of {path} says who it is from")
  return str(senders.most_common(1)[0][0])


def _is_from(
  head: email.message.Message, owner: Sequence[str], convention: str
) -> bool:
  if convention == "reference":
    sender = head.get("From")
    return sender is not None and any(name in str(sender) for name in owner)
  return any(sender in owner for sender in mailboxes.senders(head))


def _addresses(owner: str | Sequence[str], convention: str) -> tuple[str, ...]:
  """Check the owner's addresses."""
  names = (owner,) if isinstance(owner, str) else tuple(owner)
  if convention == "reference":
    return names  # any part of an address
  names = tuple(name.strip().casefold() for name in names)
  bad = next((name for name in names if "@" not in name), None)
  if bad is not None or not names:
    raise ValueError(
      "owner must be addresses such as me@example.org, got"
      f" {'none' if bad is None else repr(bad)}"
    )
  return names


def _not_from(
  path: pathlib.Path, owner: Sequence[str], senders: collections.Counter
) -> str:
  most = next((name for name, _ in senders.most_common() if name), None)
  hint = "" if most is None else f"; the most frequent sender is {most}"
  return f"no message of {path} is from {' or '.join(owner)}{hint}"


def _reason(
  text: str, words: int, english: bool, convention: str
) -> str | None:
  """Return why a text is left out; None if it is not."""
  if convention == "exact" and not text:
    return "empty"
  if len(text.split()) < words:
    return "short"
  if english and cleaning.language(text) != "en":
    return "non_english"
  return None if text.strip() else "empty"


def _reasons(counts: Mapping[str, int]) -> str:
  return ", ".join(f"{n:,} {REASONS[name]}" for name, n in counts.items() if n)


def _enough(path: pathlib.Path, mailbox: Mailbox, least: int) -> None:
  """Raise a ValueError if there are too few mails, saying why."""
  if not mailbox.messages:
    raise ValueError(f"{path} holds no message")
  count = len(mailbox.mails)
  if count >= max(least, 1):
    return
  why = _reasons(mailbox.counts)
  why = f": left out were {why}" if why else ""
  if not count and mailbox.counts["non_english"]:
    raise ValueError(f"no mail of the owner in {path} is in English{why}")
  raise ValueError(
    f"{path} has {count} usable mails of {mailbox.messages} messages, and at"
    f" least {max(least, 1)} are needed{why}"
  )
