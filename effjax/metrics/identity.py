"""What tells who wrote a mail without any style: names, sign-off, addresses."""

import re
from collections.abc import Sequence

from effjax.metrics import salutations, texts

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*")
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_DATE = r"\d{1,4}([./-])\d{1,2}\1\d{2,4}(?!\d)"
# Seven digits or more, with the signs that people put between them.
_PHONE = re.compile(
  rf"(?<![\w.])(?!{_DATE})\+?\(?\d(?:[ ./()-]{{0,2}}\d){{6,}}(?!\w)"
)
_SIGNATURE = re.compile(r"^-- ?$.*", re.MULTILINE | re.DOTALL)


def remove_identity(text: str, names: Sequence[str]) -> str:
  r"""Returns a mail without what names its author, for authorship tests.

  Nearly all mails end with the name of their author: a classifier that sees it
  measures nothing. Removed are what stands below a line "--", the closing and
  what stands below it, a last line that holds nothing but names or initials,
  the names everywhere else, with digits behind them, addresses of mail and web,
  and numbers of seven digits or more, such as those of telephones, but for
  dates. A postal address stays.

  Args:
    text: The mail.
    names: The names of all authors, whose parts of two letters or more are
      removed as well, as whole words in any case. Use one list for all mails: a
      gap where a name stood must not tell the authors apart.

  Returns:
    The rest.

  Raises:
    ValueError: If `names` is not a list of texts.

  >>> remove_identity("Hi Tom, call 030 123-4567.\n\nBest,\nAnn", ["Ann Lee"])
  'Hi Tom, call .'
  >>> remove_identity("It is Lee's turn.\nann l.", ["Ann Lee"])
  "It is 's turn."
  """
  names = texts.listed(names, "names")
  parts = {part for name in names for part in (name, *name.split())}
  text = _SIGNATURE.sub("", text.replace("\r\n", "\n"))
  text = _without_names_below(salutations.without_closing(text), parts)
  for pattern in (_ADDRESS, _LINK, _PHONE):
    text = pattern.sub("", text)
  # The longest first: a name goes as a whole.
  for part in sorted(parts, key=lambda part: (-len(part), part)):
    if sum(map(str.isalpha, part)) > 1:
      whole = rf"(?<!\w){re.escape(part)}\d*(?!\w)"
      text = re.sub(whole, "", text, flags=re.IGNORECASE)
  # Gaps would tell where something stood.
  text = re.sub(r"[ \t]+", " ", text)
  text = re.sub(r" ?\n ?", "\n", text)
  return re.sub(r"\n{3,}", "\n\n", text).strip()


def _without_names_below(text: str, parts: set[str]) -> str:
  """Removes last lines that hold nothing but names and their initials."""
  known = {word for part in parts for word in re.findall(r"\w+", part.lower())}
  known |= {word[0] for word in known}
  lines = text.rstrip().split("\n")
  while lines:
    words = re.findall(r"\w+", lines[-1].lower())
    # A last line of signs, such as a smile, is style.
    if lines[-1].strip() and not (words and known.issuperset(words)):
      break
    lines.pop()
  return "\n".join(lines)
