"""How mails begin and end: greetings, closings, and whether two mails agree.

The rules are for English and German mail, on lines that are not wrapped.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from effjax.metrics import texts

GREETINGS = (
  *("hi", "hi there", "hello", "hey", "hey there", "dear", "greetings"),
  *("good morning", "good afternoon", "good evening", "good day"),
  *("hallo", "liebe", "lieber", "guten tag", "guten morgen", "guten abend"),
  *("sehr geehrte", "sehr geehrter", "moin", "servus"),
)
CLOSINGS = (
  *("best", "best regards", "best wishes", "all the best", "warm regards"),
  *("kind regards", "warmly", "regards", "many thanks", "thanks", "cheers"),
  *("thanks again", "thanks a lot", "thanks in advance", "thank you"),
  *("thank you very much", "thank you so much", "sincerely"),
  *("yours", "yours sincerely", "sincerely yours", "yours truly", "love"),
  *("take care", "talk soon", "see you", "see you soon", "see you then"),
  *("grüße", "viele grüße", "liebe grüße", "beste grüße", "schöne grüße"),
  *("herzliche grüße", "mit freundlichen grüßen", "gruß", "viele grüsse"),
  *("liebe grüsse", "mit freundlichen grüssen", "lg", "mfg", "vg", "danke"),
)
OTHER = "other"
# Lines of the end of a mail among which the closing is looked for.
_LAST_LINES = 4


class Agreement(NamedTuple):
  """Whether N predictions begin and end like a reference.

  Attributes:
    greeting: The share of equal greetings.
    closing: The share of equal closings.
    greetings: [N] bool, of each prediction.
    closings: [N] bool.
  """

  greeting: float
  closing: float
  greetings: np.ndarray
  closings: np.ndarray


def greeting(text: str, known: Sequence[str] = GREETINGS) -> str:
  r"""Returns the greeting that a mail begins with, without the name.

  Args:
    text: The mail.
    known: Greetings in lower case; the longest that the first line begins with
      counts.

  Returns:
    The greeting in lower case; "other" for a first line of at most four words
    that ends with a comma, colon or exclamation mark and has others below it;
    "" for a mail without one.

  >>> greeting("Good morning Anna,\nthe contract ..."), greeting("On Friday?")
  ('good morning', '')
  """
  lines = _lines(text)
  if not lines:
    return ""
  found = re.match(rf"({_either(known)})(?!\w)", lines[0], re.IGNORECASE)
  if found:
    return _plain(found[1])
  short = len(lines[0].split()) <= 4 and lines[0][-1] in ",:!"
  return OTHER if short and len(lines) > 1 else ""


def closing(text: str, known: Sequence[str] = CLOSINGS) -> str:
  r"""Returns the closing that a mail ends with, without the name.

  Args:
    text: The mail.
    known: Closings in lower case. The lowest of the last four lines that begins
      with one counts, if nothing but marks or words with a capital follow.

  Returns:
    The closing in lower case; "other" for a line of at most four words that
    ends with a comma and has one line of at most three below it; "" for a
    mail without one.

  >>> closing("See you!\n\nBest regards,\nDavid"), closing("Hi,\nbest of luck")
  ('best regards', '')
  """
  return _closing(_lines(text), known)[0]


def salutation_agreement(
  predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> Agreement:
  r"""Returns how often predictions greet and close as their author did.

  A mail without a greeting agrees with another one without.

  Args:
    predictions: [N] texts.
    references: [N] texts, or lists of them where a mail has several: then it is
      enough to agree with one.

  Returns:
    An `Agreement`.

  Raises:
    ValueError: If there is no prediction, a mail has no reference, or there are
      not as many predictions as references.

  >>> salutation_agreement(["Hi Tom,\nyes\nBest, A"], ["Hi,\nno"]).greeting
  1.0
  """
  pairs = texts.paired(predictions, references)
  greetings, closings = (
    np.array([part(text) in map(part, several) for text, several in pairs])
    for part in (greeting, closing)
  )
  return Agreement(
    float(greetings.mean()), float(closings.mean()), greetings, closings
  )


def without_closing(text: str, known: Sequence[str] = CLOSINGS) -> str:
  r"""Returns a mail without its closing and what stands below it.

  Args:
    text: The mail.
    known: Closings in lower case, as for `closing`.

  Returns:
    The lines above; all of them for a mail without a closing.

  >>> without_closing("See you at ten.\n\nBest,\nDavid")
  'See you at ten.'
  """
  below = _closing(_lines(text), known)[1]
  lines = text.rstrip().splitlines()
  while below:
    # Blank lines between them do not count.
    below -= bool(lines.pop().strip())
  return "\n".join(lines).rstrip()


def _closing(lines: list[str], known: Sequence[str]) -> tuple[str, int]:
  """Returns the closing and how many lines it begins above the end."""
  # The first line of a mail is not its closing.
  last = lines[1:][-_LAST_LINES:]
  for below, line in enumerate(reversed(last), 1):
    found = re.match(rf"({_either(known)})(?!\w)(.*)", line, re.IGNORECASE)
    if found and _ends(found[2]):
      return _plain(found[1]), below
  if len(last) > 1 and last[-2][-1] == ",":
    above, below = (len(line.split()) for line in last[-2:])
    if above <= 4 and below <= 3:
      return OTHER, 2
  return "", 0


def _ends(rest: str) -> bool:
  """Says whether what follows a closing is a mark, a name or nothing."""
  return all(word[0].isupper() for word in re.findall(r"[^\W\d_]\w*", rest))


def _either(known: Sequence[str]) -> str:
  phrases = sorted(known, key=len, reverse=True)
  return "|".join(r"\s+".join(map(re.escape, x.split())) for x in phrases)


def _lines(text: str) -> list[str]:
  return [line.strip() for line in text.splitlines() if line.strip()]


def _plain(phrase: str) -> str:
  return " ".join(phrase.lower().split())
