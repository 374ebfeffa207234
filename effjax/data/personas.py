"""Made-up persons who write mails by habit, for tests and demonstrations.

What a mail says, and the instruction that asks for it, are drawn from a small
grammar that all persons share; how it is said are a person's habits.
"""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from effjax.data import batches, mails

NAMES = ("Ada", "Ben", "Chloe", "Dev", "Elif", "Farid", "Gwen", "Hugo", "Ines")
_SLOTS = {
  "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
  "time": ("nine", "ten", "half past eleven", "two", "four"),
  "event": ("meeting", "call", "workshop", "review", "dinner", "rehearsal"),
  "thing": ("report", "budget", "draft", "contract", "photo album", "menu"),
  "place": ("the library", "the old office", "the station", "room twelve"),
  "number": ("three", "five", "eight", "twelve", "twenty"),
}


class Act(NamedTuple):
  """Something that can be said in a mail.

  Attributes:
    instruction: What asks for it.
    ways: Sentences that say it, without their capital and full stop.
  """

  instruction: str
  ways: tuple[str, ...]


ACTS = (
  Act(
    "Tell {who} that the {event} moves to {day} at {time}.",
    (
      "the {event} is moved to {day} at {time}",
      "I am moving our {event} to {day} at {time}",
    ),
  ),
  Act(
    "Ask {who} to send the {thing} by {day}.",
    (
      "could you send me the {thing} by {day}?",
      "I will need the {thing} by {day}, can you send it?",
    ),
  ),
  Act(
    "Thank {who} for the {thing} and say that it was read on {day}.",
    (
      "thank you for the {thing}, I have read it on {day}",
      "many thanks for the {thing}, which I have read on {day}",
    ),
  ),
  Act(
    "Invite {who} to the {event} at {place} on {day}.",
    (
      "would you like to come to the {event} at {place} on {day}?",
      "there is a {event} at {place} on {day}, and you are invited",
    ),
  ),
  Act(
    "Tell {who} that you will be late for the {event} on {day}.",
    (
      "I will be late for the {event} on {day}",
      "do not wait for me at the {event} on {day}, I will be late",
    ),
  ),
  Act(
    "Say sorry to {who} for missing the {event} and propose {day} at {time}.",
    (
      "I am sorry that I have missed the {event}, would {day} at {time} do?",
      "please excuse that I was not at the {event}, is {day} at {time} good?",
    ),
  ),
  Act(
    "Tell {who} that {number} people come to the {event} at {place}.",
    (
      "we will be {number} people for the {event} at {place}",
      "there are {number} of us now for the {event} at {place}",
    ),
  ),
  Act(
    "Ask {who} whether the {thing} is at {place}.",
    (
      "do you know if the {thing} is still at {place}?",
      "I am looking for the {thing}, is it at {place}?",
    ),
  ),
)
_MORE = (
  "I have told the others about it already",
  "please let me know if that does not suit you",
  "I am going to bring the rest of the papers with me",
  "there is no need to hurry, any time this week is good",
  "I will call you as soon as I know more about it",
  "it is going to take about an hour, not longer",
  "I do not think that anything else has changed since then",
  "you can always reach me in the afternoon if you like",
  "we are looking forward to seeing you there",
  "I would like to hear what you think about it",
)
# What is said shorter by those who like it so.
_SHORTER = (
  ("I am ", "I'm "),
  ("I will ", "I'll "),
  ("I have ", "I've "),
  ("I would ", "I'd "),
  ("we are ", "we're "),
  ("it is ", "it's "),
  ("do not ", "don't "),
  ("does not ", "doesn't "),
  ("we will ", "we'll "),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Persona:
  """Habits of a person who writes mails.

  Attributes:
    name: What the person is called.
    greetings: Beginnings, "{who}" in them for who is written to; "" for none.
    closings: Ends, "{me}" in them for the person's name; "" for none.
    sentences: The fewest and the most sentences after what has to be said.
    exclaims: Share of statements that end with an exclamation mark.
    trails_off: Share of statements that end with three dots.
    emoji: Signs that are put behind a sentence.
    emoji_share: Share of sentences behind which one is.
    capitals: Whether sentences begin with a capital.
    contracts: Whether "I am" is written "I'm", and the like.
    paragraphs: Whether each sentence stands on a line of its own.
  """

  name: str
  greetings: tuple[str, ...] = ("Hi {who},",)
  closings: tuple[str, ...] = ("{me}",)
  sentences: tuple[int, int] = (1, 3)
  exclaims: float = 0.0
  trails_off: float = 0.0
  emoji: tuple[str, ...] = ()
  emoji_share: float = 0.0
  capitals: bool = True
  contracts: bool = False
  paragraphs: bool = False

  @property
  def address(self) -> str:
    """The person's address, in a domain that nobody has."""
    return f"{self.name.lower()}@example.org"


PERSONAS: Mapping[str, Persona] = {
  "robin": Persona(
    name="Robin",
    greetings=("Dear {who},", "Good morning {who},"),
    closings=("Kind regards,\n{me}", "Yours sincerely,\n{me}"),
    sentences=(2, 4),
  ),
  "sunny": Persona(
    name="Sunny",
    greetings=("Hey {who}!!", "Hiya {who}!"),
    closings=("xoxo {me}", "Hugs, {me}"),
    sentences=(1, 3),
    exclaims=0.8,
    emoji=("😊", "🎉", "👍"),
    emoji_share=0.5,
    contracts=True,
  ),
  "kim": Persona(
    name="Kim",
    greetings=("",),
    closings=("- k", "k"),
    sentences=(1, 1),
    trails_off=0.5,
    capitals=False,
    contracts=True,
    paragraphs=True,
  ),
}


class Written(NamedTuple):
  """A mail of a made-up person.

  Attributes:
    mail: The mail.
    instruction: What asks for it.
    who: To whom it is written.
  """

  mail: mails.Mail
  instruction: str
  who: str


def write(key: Any, persona: Persona, count: int) -> list[Written]:
  """Write mails of a person.

  Args:
    key: Typed random key.
    persona: Who writes.
    count: How many mails.

  Returns:
    Mails, no text twice, with dates a few hours or days apart.

  Raises:
    ValueError: If the count is negative, or so many different mails cannot be
      found.

  >>> import jax
  >>> (written,) = write(jax.random.key(3), PERSONAS["kim"], 1)
  >>> print(written.mail.text)
  I'll need the draft by Friday, can you send it?
  please let me know if that doesn't suit you...
  <BLANKLINE>
  - k
  >>> written.instruction
  'Ask Ben to send the draft by Friday.'
  """
  if count < 0:
    raise ValueError(f"count must be at least 0, got {count}")
  generator = batches.generator_of(key)
  moment = datetime.datetime(2024, 1, 2, 9, tzinfo=datetime.UTC)
  found: list[Written] = []
  seen: set[str] = set()
  for _ in range(20 * count + 100):
    if len(found) == count:
      return found
    moment += datetime.timedelta(minutes=int(generator.integers(90, 4000)))
    each = _write(generator, persona, moment.isoformat())
    if each.mail.id not in seen:
      seen.add(each.mail.id)
      found.append(each)
  raise ValueError(
    f"{persona.name} cannot write {count} different mails, only {len(found)};"
    " give the person more habits"
  )


def _write(
  generator: np.random.Generator, persona: Persona, date: str
) -> Written:
  pick = lambda options: options[int(generator.integers(len(options)))]
  slots = {name: pick(options) for name, options in _SLOTS.items()}
  slots["who"] = pick(tuple(n for n in NAMES if n != persona.name))
  act = pick(ACTS)
  least, most = persona.sentences
  count = int(generator.integers(least, most + 1))
  order = generator.permutation(len(_MORE))[:count]
  said = [pick(act.ways).format(**slots), *(_MORE[i] for i in order)]
  sentences = [_sentence(generator, persona, text) for text in said]
  body = ("\n" if persona.paragraphs else " ").join(sentences)
  greeting = pick(persona.greetings).format(who=slots["who"])
  closing = pick(persona.closings).format(me=persona.name)
  text = "\n\n".join(part for part in (greeting, body, closing) if part)
  subject = f"{slots['event']} on {slots['day']}"
  mail = mails.mail(text, subject=subject, date=date)
  return Written(mail, act.instruction.format(**slots), slots["who"])


def _sentence(
  generator: np.random.Generator, persona: Persona, text: str
) -> str:
  """Say a sentence as a person does."""
  mark, sign = generator.random(2)
  if persona.contracts:
    for long, short in _SHORTER:
      text = text.replace(long, short)
      text = text.replace(long.capitalize(), short.capitalize())
  if persona.capitals:
    text = text[0].upper() + text[1:]
  if not text.endswith("?"):
    if mark < persona.exclaims:
      text += "!"
    elif mark < persona.exclaims + persona.trails_off:
      text += "..."
    elif persona.capitals:
      text += "."
  if persona.emoji and sign < persona.emoji_share:
    text += f" {persona.emoji[int(generator.integers(len(persona.emoji)))]}"
  return text
