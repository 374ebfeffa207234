"""What the sender of a mail wrote: quotes, forwards and signatures taken off.

Convention "exact" knows English and German mail. "reference" is what the
published program of Panza does (PMLR 328:104-130, `extract_emails`): it also
takes genuine sentences away, and these are its rules, in this order:

  a forward marker anywhere in a text empties it;
  a line's depth is the number of ">" that it begins with; these, and white
    space after them, which unquoted lines lose too, are taken off;
  the group of the depth that comes first is the mail, the others the thread;
  from a line that begins with "On", if "wrote" follows anywhere, or with "Am",
    if "schrieb" does, the rest of its group is lost.
"""

import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

CONVENTIONS = ("exact", "reference")

_FORWARD = re.compile(
  r"-{3,}\s*(forwarded message|weitergeleitete nachricht|forwarded by .*)\s*-+"
  r"|begin forwarded message:|anfang der weitergeleiteten (nachricht|e-?mail):",
  re.I,
)
_REFERENCE_FORWARD = f"{'-' * 10} Forwarded message {'-' * 9}"
_REFERENCE_HEADER = re.compile(r"^On.*wrote.*|^Am.*schrieb.*", re.M | re.S)
_ORIGINAL = re.compile(
  r"-{3,}\s*(original (message|appointment)|ursprüngliche nachricht"
  r"|original-?nachricht)\s*-{3,}",
  re.I,
)
# A line that says who wrote what is quoted below it, and when.
_HEADER = re.compile(
  r"(on\b.*\d.*\b(wrote|writes)|am\b.*\d.*\bschrieb\b.*"
  r"|\d{4}-\d\d-\d\d \d{1,2}:\d\d.*<\S+@\S+>)\s*:",
  re.I,
)
_ANY_HEADER = re.compile(r".*\b(wrote|writes|schrieb\b.{0,80})\s*:", re.I)
# What only a header has: an address, a time of the day, a year.
_CERTAIN = re.compile(r"@|\b\d{1,2}:\d\d\b|\b(19|20)\d\d\b")
_HEADER_LINES, _HEADER_LENGTH = 3, 300
_FIELDS = (
  re.compile(r"\W*(from|von):", re.I),
  re.compile(r"\W*(sent|date|gesendet|datum):", re.I),
  re.compile(r"\W*(to|an):", re.I),
)
_FIRST_FIELD = re.compile(
  r"\W*(from|von|sent|date|gesendet|datum|subject|betreff):", re.I
)
_SENT_FROM = re.compile(
  r"(sent from (my|mail for) .*|get outlook for .*|von meinem .* gesendet"
  r"|holen sie sich outlook für .*|(laden sie )?outlook für .* herunter(laden)?"
  r"|gesendet (von|mit) (meinem|der|dem|mail) .*|diese nachricht wurde von"
  r" meinem .* gesendet.*)",
  re.I,
)
_LIST = re.compile(r"\s|[-*•–] |\(?\w{1,2}[.)] ")
# Lines are wrapped where the next word would pass a column from here on, and
# no line that a program wrapped is longer than the other number.
_NARROW, _WIDE = 64, 80


class Cleaned(NamedTuple):
  """What was found in a text.

  Attributes:
    text: What the sender wrote; "" if nothing.
    thread: What is quoted, the oldest first.
    forwarded: Whether the text hands on somebody else's mail.
  """

  text: str
  thread: tuple[str, ...]
  forwarded: bool


def clean(
  text: str,
  *,
  nfc: bool = True,
  unwrap: bool = False,
  convention: str = "exact",
) -> Cleaned:
  r"""Part what the sender of a mail wrote from what is quoted.

  Args:
    text: The text of a mail.
    nfc: Whether characters are composed (Unicode's form NFC).
    unwrap: Whether lines that a program has wrapped are joined again.
    convention: "exact", or "reference", which has neither of these options.

  Returns:
    The parts. A text that forwards a mail is empty, as nobody can tell where
    the sender's own words would end.

  Raises:
    ValueError: For an unknown convention.

  >>> clean("Fine.\n\nOn 3 May 2024, Ann wrote:\n> When?\n> > Soon.\n-- \nBo")
  Cleaned(text='Fine.', thread=('Soon.', 'When?'), forwarded=False)
  """
  check_convention(convention)
  if convention == "reference":
    return _reference(text)
  text = re.sub(r"\r\n?", "\n", text).replace("\ufeff", "")
  if nfc:
    text = unicodedata.normalize("NFC", text)
  lines = [_depth(line.rstrip()) for line in text.split("\n")]
  lines, rest, forwarded = _own_part(lines)
  if forwarded:
    return Cleaned("", (), True)
  groups: dict[int, list[str]] = {}
  for depth, line in lines:
    groups.setdefault(depth, []).append(line)
  own = _without_signature(groups.pop(0, []))
  quoted = [groups[depth] for depth in sorted(groups, reverse=True)]
  quoted.append([line for _, line in rest])
  thread = [_joined(part, unwrap) for part in quoted]
  return Cleaned(_joined(own, unwrap), tuple(filter(None, thread)), False)


def check_convention(convention: str) -> None:
  """Raise a ValueError for a convention that does not exist."""
  if convention not in CONVENTIONS:
    raise ValueError(
      f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}"
    )


def _depth(line: str) -> tuple[int, str]:
  """Return how often a line is quoted, and the line without its marks."""
  marks = re.match(r"(?:>[ \t]?)+", line)
  if marks is None:
    return 0, line
  return marks.group().count(">"), line[marks.end() :]


def _own_part(lines: Sequence[tuple[int, str]]) -> tuple[list, list, bool]:
  """Take headers of quotes away and stop at a mail that is not quoted.

  Returns:
    The lines to that mail, those of that mail, and whether it is forwarded.
  """
  found: list[tuple[int, str]] = []
  place = 0
  while place < len(lines):
    depth, line = lines[place]
    if depth == 0:
      if _FORWARD.fullmatch(line.strip()):
        return [], [], True
      if _ORIGINAL.fullmatch(line.strip()) or _is_block(lines, place):
        if found and not found[-1][1].strip("_ "):
          found.pop()  # the rule above it
        return found, list(lines[place:]), False
    count, quoted = _header(lines, place)
    if count and not quoted:
      return found, list(lines[place + count :]), False
    if not count:
      found.append(lines[place])
    place += max(count, 1)
  return found, [], False


def _header(lines: Sequence[tuple[int, str]], place: int) -> tuple[int, bool]:
  """Return the length of a header of a quote, and whether `>` follows it."""
  depth, first = lines[place]
  if not first.strip():
    return 0, False
  joined = ""
  for count in range(1, _HEADER_LINES + 1):
    if place + count > len(lines) or lines[place + count - 1][0] != depth:
      break
    line = lines[place + count - 1][1].strip()
    joined = f"{joined} {line}".strip()
    if not line or len(joined) > _HEADER_LENGTH:
      break
    known = _HEADER.fullmatch(joined)
    if not known and not (count == 1 and _ANY_HEADER.fullmatch(joined)):
      continue
    after = _next_depth(lines, place + count)
    if after is not None and after > depth:
      return count, True
    if known and after is None:
      return count, True
    if known and _CERTAIN.search(joined):
      # Some programs put the header among the lines that it is of.
      return count, depth > 0
  return 0, False


def _next_depth(lines: Sequence[tuple[int, str]], place: int) -> int | None:
  """Return the depth of the next line that is not empty."""
  while place < len(lines):
    depth, line = lines[place]
    if line.strip():
      return depth
    place += 1
  return None


def _is_block(lines: Sequence[tuple[int, str]], place: int) -> bool:
  """Say whether a mail begins here as Outlook quotes it."""
  if not _FIRST_FIELD.match(lines[place][1]):
    return False
  near = [line for depth, line in lines[place : place + 6] if depth == 0]
  return all(any(field.match(line) for line in near) for field in _FIELDS)


def _without_signature(lines: Sequence[str]) -> list[str]:
  """Cut where the signature begins, and what a device has added."""
  found: list[str] = []
  for line in lines:
    if line.rstrip() == "--":
      break
    found.append(line)
  while found and (
    not found[-1].strip() or _SENT_FROM.fullmatch(found[-1].strip())
  ):
    found.pop()
  return found


def _joined(lines: Sequence[str], unwrap: bool) -> str:
  if unwrap:
    lines = _unwrapped(lines)
  return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _unwrapped(lines: Sequence[str]) -> list[str]:
  """Join lines of a paragraph that end only because they were full."""
  found: list[str] = []
  full = False
  for line, after in itertools.pairwise([*lines, ""]):
    if full:
      found[-1] += f" {line.strip()}"
    else:
      found.append(line)
    word = after.split(" ")[0]
    full = (
      bool(line.strip() and after.strip())
      and not _LIST.match(after)
      and len(line) <= _WIDE
      and len(line) + 1 + len(word) > _NARROW
    )
  return found


def _reference(text: str) -> Cleaned:
  if _REFERENCE_FORWARD in text:
    return Cleaned("", (), True)
  groups: dict[int, list[str]] = {}
  for line in text.split("\n"):
    marks = len(line) - len(line.lstrip(">"))
    groups.setdefault(marks, []).append(line[marks:].lstrip())
  parts = ["\n".join(group).strip() for group in groups.values()]
  parts = [_REFERENCE_HEADER.sub("", part, count=1).strip() for part in parts]
  return Cleaned(parts[0], tuple(reversed(parts[1:])), False)


def normalized(text: str) -> str:
  r"""Return what mails that count as the same have in common.

  >>> normalized("Hello\r\n  World ") == normalized("hello world")
  True
  """
  return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def identifier(text: str) -> str:
  """Return the name of a text: 16 digits of the SHA-256 of `normalized`."""
  return hashlib.sha256(normalized(text).encode()).hexdigest()[:16]


def language(text: str) -> str:
  """Return the most likely language of a text, as ISO 639-1 names it.

  Raises:
    ModuleNotFoundError: If the library py3langid is not installed.

  >>> language("Thank you for the notes, I will read them on Monday.")
  'en'
  """
  return _identifier().classify(text)[0]


@functools.cache
def _identifier() -> Any:
  try:
    from py3langid import langid
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "telling the language of mails needs the library py3langid: pip install"
      ' "effjax[mail]"'
    ) from error
  return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
