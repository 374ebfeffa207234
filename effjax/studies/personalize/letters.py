"""The mails of one person and what asks for them, to learn and to be judged by.

letters = make("me", split.train, split.test, instructions, kind="bm25")
learned = examples(letters, tokenizer, raft=Raft())
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.data.mails import Mail
from effjax.studies.personalize import prompts, retrieval


class Letters(NamedTuple):
  """Mails of a person.

  Attributes:
    name: What the person is called in results.
    train: Mails to learn from.
    test: Other mails, to be judged by.
    instructions: What asks for each mail, by its id.
    preamble: What prompts begin with.
    index: Of the mails to learn from, searched for earlier mails; None if
      nothing is ever retrieved.
    tuned: How the threshold of the index does; None if it was not tuned.
  """

  name: str
  train: tuple[Mail, ...]
  test: tuple[Mail, ...]
  instructions: Mapping[str, str]
  preamble: prompts.Preamble = prompts.DEFAULT
  index: retrieval.Index | None = None
  tuned: retrieval.Tuned | None = None


class Raft(NamedTuple):
  """How earlier mails come into prompts of training (RAFT).

  Attributes:
    share: Probability that a prompt has some.
    count: The most that it has.
    resample_each_epoch: Whether each epoch draws anew which prompts have some;
      if not all have the draw of the first, as in Panza's program.
  """

  share: float = prompts.SHARE
  count: int = prompts.IN_TRAINING
  resample_each_epoch: bool = False


class Learned(NamedTuple):
  """What a model learns from.

  Attributes:
    examples: Prompts and mails as tokens.
    too_long: How many mails were left out because they are too long.
    retrieved: How many prompts have earlier mails.
    tokens: How many tokens of mails there are, those of prompts not counted.
    variants: From an epoch to the examples as they are in it, none longer than
      in `examples`; None if all epochs have the same.
    beginning: How many tokens all of them begin with, variants included, see
      `packing.common_beginning`.
  """

  examples: list[Example]
  too_long: int
  retrieved: int
  tokens: int
  variants: Callable[[int], list[Example]] | None = None
  beginning: int = 0


def make(
  name: str,
  train: Sequence[Mail],
  test: Sequence[Mail],
  instructions: Mapping[str, str],
  *,
  preamble: prompts.Preamble = prompts.DEFAULT,
  kind: str | None = None,
  encode: retrieval.Encode | None = None,
  false_hits: float = 0.05,
) -> Letters:
  """Put together what belongs to a person.

  Args:
    name: What the person is called in results.
    train: Mails to learn from.
    test: Mails to be judged by; may be none.
    instructions: What asks for each of them, by its id.
    preamble: What prompts begin with.
    kind: One of `retrieval.KINDS`; None to retrieve nothing.
    encode: As in `retrieval.build`.
    false_hits: The share of wrong mails that may be found for an instruction:
      the threshold is chosen on the mails to learn from.

  Returns:
    The letters.

  Raises:
    ValueError: If there is nothing to learn from, a mail has no instruction, or
      one is in both parts.
  """
  train, test = tuple(train), tuple(test)
  if not train:
    raise ValueError(f"{name} has no mail to learn from")
  lacking = sum(mail.id not in instructions for mail in (*train, *test))
  if lacking:
    raise ValueError(
      f"{lacking} of {len(train) + len(test)} mails of {name} have no"
      " instruction"
    )
  both = {mail.id for mail in train} & {mail.id for mail in test}
  if both:
    raise ValueError(
      f"{len(both)} mails of {name} are to be learned from and to be judged by"
    )
  index = tuned = None
  if kind is not None:
    index = retrieval.build(train, kind=kind, encode=encode)
    if len(train) > 1:
      queries = [instructions[mail.id] for mail in train]
      index, tuned = retrieval.tune(index, queries, false_hits=false_hits)
  return Letters(name, train, test, instructions, preamble, index, tuned)


def examples(
  letters: Letters,
  tokenizer: Any,
  *,
  raft: Raft | None = None,
  length: int = prompts.LENGTH,
  seed: int = 0,
) -> Learned:
  """Make what a model learns from.

  Args:
    letters: The letters.
    tokenizer: A `models.tokenizers.Tokenizer`.
    raft: How earlier mails come into prompts; None for prompts without.
    length: The most tokens of a prompt and its mail.
    seed: Of the draws of RAFT.

  Returns:
    Examples in the order of the mails; `retrieved` is that of the first epoch.

  Raises:
    ValueError: If earlier mails are wanted without an index, or all mails are
      too long.
  """
  train = letters.train
  encode = lambda earlier: _encoded(letters, train, earlier, tokenizer, length)
  plain: list[list[str]] = [[] for _ in train]
  if raft is None:
    return _learned(encode(plain), plain)
  index = _index(letters)
  hits = retrieval.neighbours(index, raft.count)
  texts = [[index.mails[hit.place].text for hit in row] for row in hits]
  draw = functools.partial(
    prompts.raft,
    [mail.id for mail in train],
    texts,
    seed=seed,
    share=raft.share,
    resample_each_epoch=raft.resample_each_epoch,
  )
  drawn = draw(epoch=0)
  if not raft.resample_each_epoch:
    return _learned(encode(drawn), drawn)
  # A mail is too long with earlier mails, which may be left out, if it is
  # without.
  pairs = list(zip(encode(plain), encode(texts), strict=True))

  def variants(epoch: int) -> list[Example]:
    chosen = zip(pairs, draw(epoch=epoch), strict=True)
    return [each for pair, t in chosen if (each := pair[bool(t)]) is not None]

  longest = [
    None if a is None or b is None else max(a, b, key=lambda e: len(e.tokens))
    for a, b in pairs
  ]
  every = [each for pair in pairs for each in pair if each is not None]
  return _learned(longest, drawn)._replace(
    variants=variants, beginning=packing.common_beginning(every)
  )


def held_out(
  letters: Letters,
  tokenizer: Any,
  *,
  retrieve: int = 0,
  length: int = prompts.LENGTH,
) -> Learned:
  """Make examples of the mails to be judged by; see `examples`.

  Args:
    letters: The letters.
    tokenizer: A `models.tokenizers.Tokenizer`.
    retrieve: The most earlier mails in a prompt, found by the instruction.
    length: The most tokens of a prompt and its mail.

  Returns:
    Examples in the order of the mails.

  Raises:
    ValueError: As `examples` does.
  """
  said = [letters.instructions[mail.id] for mail in letters.test]
  earlier = found(letters, said, retrieve)
  made = _encoded(letters, letters.test, earlier, tokenizer, length)
  return _learned(made, earlier)


def found(
  letters: Letters, instructions: Sequence[str], count: int
) -> list[list[str]]:
  """Find earlier mails for instructions.

  Args:
    letters: The letters.
    instructions: Q instructions.
    count: The most mails for each; 0 needs no index.

  Returns:
    For each instruction texts of mails, the most relevant first.

  Raises:
    ValueError: If there is no index.
  """
  if not count:
    return [[] for _ in instructions]
  index = _index(letters)
  hits = retrieval.search(index, instructions, count)
  return [[index.mails[hit.place].text for hit in row] for row in hits]


def _index(letters: Letters) -> retrieval.Index:
  if letters.index is None:
    raise ValueError(
      f"earlier mails of {letters.name} are wanted, but there is no index of"
      " them; give make(kind=...)"
    )
  return letters.index


def _encoded(
  letters: Letters,
  mails: Sequence[Mail],
  earlier: Sequence[Sequence[str]],
  tokenizer: Any,
  length: int,
) -> list[Example | None]:
  """Make examples, None of mails that are too long even by themselves."""
  made: list[Example | None] = []
  error = None
  for mail, texts in zip(mails, earlier, strict=True):
    try:
      example = prompts.example(
        letters.instructions[mail.id],
        mail.text,
        tokenizer,
        length=length,
        preamble=letters.preamble,
        retrieved=texts,
      )
    except ValueError as problem:
      example, error = None, problem
    made.append(example)
  if all(example is None for example in made):
    raise ValueError(f"no mail of {letters.name} can be learned: {error}")
  return made


def _learned(
  made: Sequence[Example | None], earlier: Sequence[Sequence[str]]
) -> Learned:
  """Count what was made, from the earlier mails of each prompt."""
  found = [example for example in made if example is not None]
  retrieved = sum(
    bool(texts)
    for example, texts in zip(made, earlier, strict=True)
    if example is not None
  )
  tokens = sum(len(example.tokens) - example.prompt for example in found)
  beginning = packing.common_beginning(found)
  return Learned(
    found, len(made) - len(found), retrieved, tokens, beginning=beginning
  )
