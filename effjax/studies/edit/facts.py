"""Facts that SmolLM2-135M knows, and what they are changed to.

Behind a line break the likeliest next token of every prompt is the object. A
fact belongs to a relation, which says how it is asked and in which other words;
its neighbours are the facts about other subjects with the same object.
"""

import itertools
from typing import NamedTuple


class Fact(NamedTuple):
  """A fact to edit.

  Attributes:
    prompt: What comes before the object.
    subject: Whom it is about, a part of the prompt.
    true: The object, as the model knows it.
    new: The object that is to take its place.
    paraphrases: Prompts that ask the same in other words.
    neighbours: Prompts about other subjects whose object is `true`.
  """

  prompt: str
  subject: str
  true: str
  new: str
  paraphrases: tuple[str, ...] = ()
  neighbours: tuple[str, ...] = ()


# A relation -> how it is asked, then in other words.
PROMPTS = {
  "capital": (
    "The capital of {} is",
    "The capital city of {} is",
    "{}'s capital is the city of",
  ),
  "landmark": (
    "The {} is located in the city of",
    "The {} can be visited in the city of",
    "The city where the {} stands is",
  ),
  "language": (
    "The official language of {} is",
    "The main language spoken in {} is",
    "Most people in {} speak",
  ),
  "country": (
    "{} is a city in the country of",
    "{} is located in the country of",
    "The city of {} belongs to",
  ),
}

# A relation -> an object -> the subjects that have it.
KNOWN = {
  "capital": {
    "Paris": ("France",),
    "Rome": ("Italy",),
    "Berlin": ("Germany",),
    "London": ("England",),
    "Athens": ("Greece",),
    "Madrid": ("Spain",),
  },
  "landmark": {
    "Paris": ("Eiffel Tower", "Louvre"),
    "Rome": ("Colosseum", "Pantheon"),
    "Berlin": ("Brandenburg Gate", "Reichstag"),
    "London": ("British Museum",),
    "Athens": ("Parthenon", "Acropolis"),
    "Madrid": ("Prado Museum",),
  },
  "language": {
    "Spanish": ("Mexico", "Argentina", "Colombia", "Peru", "Chile", "Cuba"),
    "German": ("Germany", "Austria"),
    "Arabic": ("Egypt", "Saudi Arabia", "Morocco", "Iraq"),
    "French": ("France", "Haiti"),
    "English": ("Australia", "Jamaica"),
  },
  "country": {
    "Germany": ("Munich", "Hamburg", "Cologne"),
    "Japan": ("Kyoto", "Osaka", "Nagasaki"),
    "India": ("Mumbai", "Chennai"),
    "China": ("Shanghai", "Guangzhou"),
    "France": ("Lyon", "Marseille"),
    "Canada": ("Toronto", "Vancouver"),
    "Australia": ("Sydney", "Melbourne"),
  },
}


def table() -> tuple[Fact, ...]:
  """List the facts; the new object of each is the next one of its relation.

  Returns:
    The facts, relation by relation.

  >>> fact = table()[0]
  >>> fact.prompt, fact.true, fact.new
  ('The capital of France is', 'Paris', 'Rome')
  >>> fact.neighbours[0]
  'The Eiffel Tower is located in the city of'
  """
  return tuple(fact for relation in KNOWN for fact in _facts(relation))


def spread(count: int) -> tuple[Fact, ...]:
  """Choose facts from all relations in turn.

  Args:
    count: How many.

  Returns:
    The facts, those of a relation in the order of `table`.

  Raises:
    ValueError: If there are not as many.

  >>> [fact.true for fact in spread(4)]
  ['Paris', 'Paris', 'Spanish', 'Germany']
  """
  most = len(table())
  if not 1 <= count <= most:
    raise ValueError(f"{count} facts are asked for; there are from 1 to {most}")
  turns = itertools.zip_longest(*map(_facts, KNOWN))
  return tuple(f for turn in turns for f in turn if f is not None)[:count]


def find(prompt: str) -> Fact | None:
  """Find the fact that a prompt asks for, in any of its wordings.

  Args:
    prompt: The prompt.

  Returns:
    The fact, with this prompt in the place of its own, or None.

  >>> find("The capital city of Italy is").true
  'Rome'
  """
  for fact in table():
    if prompt == fact.prompt:
      return fact
    if prompt in fact.paraphrases:
      others = [fact.prompt, *(p for p in fact.paraphrases if p != prompt)]
      return fact._replace(prompt=prompt, paraphrases=tuple(others))
  return None


def _facts(relation: str) -> list[Fact]:
  by_object = KNOWN[relation]
  objects = list(by_object)
  following = dict(zip(objects, [*objects[1:], objects[0]], strict=True))
  return [
    _fact(relation, subject, true, following[true])
    for true, subjects in by_object.items()
    for subject in subjects
  ]


def _fact(relation: str, subject: str, true: str, new: str) -> Fact:
  first, *others = (template.format(subject) for template in PROMPTS[relation])
  neighbours = [
    PROMPTS[name][0].format(other)
    for name, by_object in KNOWN.items()
    for other in by_object.get(true, ())
    if other != subject
  ]
  return Fact(first, subject, true, new, tuple(others), tuple(neighbours))
