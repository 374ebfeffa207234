"""Drafts: what a model writes when it is asked for mails."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.data.mails import Mail
from effjax.models import generation, sampling
from effjax.studies import language
from effjax.studies.personalize import letters as lettering
from effjax.studies.personalize import prompts

# As Panza samples; its program draws, although it speaks of a beam search.
SAMPLING = sampling.Sampling(temperature=0.7, top_k=50, top_p=0.7)
CONVENTIONS = ("exact", "reference")
_PREFACE = "Here is the email:\n"
# In this order, each everywhere, from wherever it begins to the line's end.
_ANYWHERE = tuple(
  re.compile(pattern)
  for pattern in (r"SUBJECT:.*\n", r"Subject:.*\n", r"E-MAIL CONTENT:.*\n")
)
_ANNOUNCED = r"here is the e-?mail:[ \t]*|subject:.*|e-mail content:.*"
_LINES = re.compile(rf"^[ \t]*(?:{_ANNOUNCED})(?:\n|\Z)", re.I | re.M)


class Draft(NamedTuple):
  """What a model made of an instruction.

  Attributes:
    text: The mail as it came.
    reason: Why it ends, see `generation.Generated`.
    retrieved: How many earlier mails the prompt had.
    seed: The seed, the number of the batch and the row in it, from which its
      random draws follow.
  """

  text: str
  reason: str
  retrieved: int
  seed: tuple[int, int, int]


def write(
  model: language.Language,
  params: Any,
  letters: lettering.Letters,
  mails: Sequence[Mail] | None = None,
  *,
  seed: int = 0,
  retrieve: int = 0,
  max_tokens: int = 256,
  batch: int = 8,
  length: int = prompts.LENGTH,
  sampled: sampling.Sampling = SAMPLING,
  progress: Callable[[int, int], None] | None = None,
) -> list[Draft]:
  """Have a model write mails.

  Args:
    model: The model.
    params: Its parameters, adapters merged.
    letters: Whose mails, what asks for them, and earlier ones.
    mails: The mails whose instructions are followed; by default those to be
      judged by.
    seed: Of the random draws.
    retrieve: The most earlier mails in a prompt.
    max_tokens: The most tokens of a draft.
    batch: Drafts that are made together.
    length: The most tokens of a prompt.
    sampled: How tokens are chosen.
    progress: Called after each batch with the drafts made and all of them.

  Returns:
    A draft for each mail.

  Raises:
    ValueError: If a prompt is too long, or earlier mails are wanted without an
      index.
  """
  mails = letters.test if mails is None else mails
  said = [letters.instructions[mail.id] for mail in mails]
  room = min(length, model.module.config.context - max_tokens)
  asked = [
    prompts.fit(
      instruction,
      model.tokenizer,
      room=room,
      preamble=letters.preamble,
      retrieved=texts,
    )
    for instruction, texts in zip(
      said, lettering.found(letters, said, retrieve), strict=True
    )
  ]
  # What all prompts begin with is read once.
  whole = [Example(np.array(ask.tokens), len(ask.tokens)) for ask in asked]
  head = packing.common_beginning(whole) if len(whole) > 1 else 0
  prefix = None
  if head:
    first = asked[0].tokens[:head]
    prefix = generation.read_prefix(model.module, params, first)
  # Prompts of like length go together.
  order = sorted(range(len(asked)), key=lambda i: len(asked[i].tokens))
  made: list[Draft | None] = [None] * len(asked)
  for number, start in enumerate(range(0, len(order), batch)):
    rows = order[start : start + batch]
    # All batches have one size, so that few programs are compiled.
    padded = [*rows, *[rows[-1]] * (min(batch, len(order)) - len(rows))]
    key = jax.random.fold_in(jax.random.key(seed), number)
    answers = generation.generate(
      key,
      model.module,
      params,
      [asked[i].tokens[head:] for i in padded],
      max_tokens=max_tokens,
      sampling=sampled,
      eos=model.eos,
      tokenizer=model.tokenizer,
      prefix=prefix,
    )
    for row, (i, answer) in enumerate(zip(rows, answers, strict=False)):
      made[i] = Draft(
        answer.text or "",
        answer.reason,
        asked[i].retrieved,
        (seed, number, row),
      )
    if progress is not None:
      progress(start + len(rows), len(order))
  return [draft for draft in made if draft is not None]


def cleaned(text: str, *, convention: str = "exact") -> str:
  r"""Return a draft without what is no part of a mail.

  Args:
    text: The draft.
    convention: "exact": whole lines that announce a mail, name its subject or
      repeat the heading of earlier mails are left out; "reference": what
      Panza's program removes, wherever in a line it begins, if a line follows.

  Returns:
    The mail.

  Raises:
    ValueError: If there is no such convention.

  >>> cleaned("Subject: tea\nOn the Subject: yes.\nBo")
  'On the Subject: yes.\nBo'
  >>> cleaned("Subject: tea\nOn the Subject: yes.\nBo", convention="reference")
  'On the Bo'
  """
  if convention not in CONVENTIONS:
    raise ValueError(
      f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}"
    )
  if convention == "exact":
    return _LINES.sub("", text).strip()
  text = text.replace(_PREFACE, "")
  for pattern in _ANYWHERE:
    text = pattern.sub("", text)
  return text
