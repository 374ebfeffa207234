"""The persons of the study: whose mails are learned, and what asks for them.

Made-up persons may be shown. Mails of real ones, and what was made of them, are
never written into results or reports; instructions made of them are kept in a
directory that is the user's alone.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from effjax import data
from effjax.data import mails as mails_lib
from effjax.data import panza, personas, spam_assassin
from effjax.data.mails import Mail, Split
from effjax.studies import language
from effjax.studies.personalize import letters, playback, prompts, retrieval
from effjax.studies.text import meant

SYNTHETIC = "synthetic"
WAYS = ("given", "model", "extracted")


class Person(NamedTuple):
  """A person of the study.

  Attributes:
    name: In results; of real authors a number.
    signature: The name that mails are signed with; "" if it is not known.
    split: Mails to learn from and to be judged by.
    given: Instructions that came with the mails, by id.
    found: How many mails there were.
  """

  name: str
  signature: str
  split: Split
  given: Mapping[str, str]
  found: int


def find(config: Any) -> list[Person]:
  """Find the persons that a config names.

  Args:
    config: The part `data`: `kind`, `directory`, `persons`, `mails`, `share`,
      `order`, `seed`, `test`.

  Returns:
    The persons, in that order.

  Raises:
    ValueError: If there is no such kind or person, or too few mails.
    FileNotFoundError: If the mails are not on this machine.
  """
  if config.kind not in KINDS:
    raise ValueError(
      f"there are no mails of the kind {config.kind!r}"
      f"{meant(config.kind, KINDS)}; known are {', '.join(KINDS)}"
    )
  if not config.persons:
    raise ValueError("data.persons names nobody")
  found = []
  for name, signature, mails, given in KINDS[config.kind](config):
    kept = mails[: config.mails] if config.mails else mails
    split = mails_lib.split(
      kept, config.share, order=config.order, seed=config.seed
    )
    if config.test:
      split = split._replace(test=split.test[: config.test])
    found.append(Person(name, signature, split, given, len(mails)))
  return found


def _synthetic(config: Any) -> list[tuple]:
  """Make mails of made-up persons."""
  found = []
  for name in config.persons:
    if name not in personas.PERSONAS:
      raise ValueError(
        f"there is no made-up person {name!r}{meant(name, personas.PERSONAS)};"
        f" known are {', '.join(personas.PERSONAS)}"
      )
    number = list(personas.PERSONAS).index(name)
    key = jax.random.fold_in(jax.random.key(config.seed), number)
    persona = personas.PERSONAS[name]
    written = personas.write(key, persona, config.mails)
    given = {each.mail.id: each.instruction for each in written}
    mails = tuple(each.mail for each in written)
    found.append((name, persona.name, mails, given))
  return found


def _panza(config: Any) -> list[tuple]:
  """Read mails of the persons that Panza has published."""
  found = []
  for name in config.persons:
    source = data.source("panza", name, directory=config.directory or None)
    found.append((name, name.capitalize(), panza.letters(source), {}))
  return found


def _spam_assassin(config: Any) -> list[tuple]:
  """Read mails of authors, who are numbers here."""
  source = data.source(
    "spam_assassin", "all", directory=config.directory or None
  )
  authors = list(spam_assassin.authors(source).values())
  found = []
  for name in config.persons:
    prefix, _, number = name.partition("_")
    place = int(number) if number.isdigit() else 0
    if prefix != "author" or not 1 <= place <= len(authors):
      raise ValueError(
        f"there is no author {name!r}; known are author_1 to"
        f" author_{len(authors)}, who wrote most first"
      )
    found.append((name, "", authors[place - 1], {}))
  return found


KINDS: Mapping[str, Callable[[Any], list[tuple]]] = {
  SYNTHETIC: _synthetic,
  "panza": _panza,
  "spam_assassin": _spam_assassin,
}


def instructed(
  person: Person,
  config: Any,
  model: language.Language | None,
  place: pathlib.Path,
) -> tuple[dict[str, str], dict[str, int]]:
  """Find out what asks for the mails of a person.

  Args:
    person: The person.
    config: `instructions`: "given" (with the mails), "model" (what the model
      says they follow) or "extracted" (by rules).
    model: The model.
    place: Where instructions are kept, for the user alone.

  Returns:
    Instructions by the id of their mail, and how they came about.

  Raises:
    ValueError: If there is no such way, or none came with the mails.
  """
  way = config.instructions
  if way not in WAYS:
    raise ValueError(
      f"instructions must be one of {', '.join(WAYS)}, got {way!r}"
    )
  mails: Sequence[Mail] = (*person.split.train, *person.split.test)
  if way == "given" and any(mail.id not in person.given for mail in mails):
    raise ValueError(
      f"no instructions came with the mails of {person.name}; take"
      " instructions='model' or 'extracted'"
    )
  place.mkdir(mode=0o700, parents=True, exist_ok=True)
  made = playback.instructions(
    jax.random.key(config.data.seed) if way == "model" else None,
    model if way == "model" else None,
    mails,
    path=place / f"{person.name}.jsonl",
    given=person.given if way == "given" else None,
    progress=lambda done, count: print(
      f"instructions of {person.name}: {done} of {count}", flush=True
    ),
  )
  return {name: each.text for name, each in made.items()}, playback.counts(made)


def letters_of(
  person: Person,
  instructions: Mapping[str, str],
  config: Any,
  encode: retrieval.Encode | None,
  train: Sequence[Mail] | None = None,
  test: Sequence[Mail] | None = None,
) -> letters.Letters:
  """Put together what belongs to a person of the study.

  Args:
    person: The person.
    instructions: What asks for the mails.
    config: `retrieval`.
    encode: As in `retrieval.build`.
    train: Other mails to learn from, or None.
    test: Other mails to be judged by, or None.

  Returns:
    The letters.
  """
  facts = f"My name is {person.signature}." if person.signature else ""
  return letters.make(
    person.name,
    person.split.train if train is None else train,
    person.split.test if test is None else test,
    instructions,
    preamble=prompts.Preamble(user=facts),
    kind=config.retrieval.kind or None,
    encode=encode,
    false_hits=config.retrieval.false_hits,
  )
