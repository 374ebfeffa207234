"""What a model reads before it writes a mail, in training and afterwards.

All is one turn of the user:

  system preamble, user preamble, earlier mails, thread, "Instruction: ..."

parted by empty lines; what is empty is left out. The response is the mail.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from effjax.data.dialogues import Example

# Panza's include-probability, and mails retrieved in training and afterwards.
SHARE, IN_TRAINING, AFTERWARDS = 0.55, 2, 3
LENGTH = 512

SYSTEM = (
  "You help me to write e-mails. I give you a short instruction, and you write"
  " the whole e-mail that it asks for, well formed and in my style, which you"
  " keep to. If the instruction makes no sense, write only this: I am sorry, I"
  " cannot write an e-mail about that."
)
_RETRIEVED = (
  "Use details of these earlier e-mails of mine only where they matter for the"
  " instruction.\n\nEARLIER E-MAILS:"
)
# Above each of them; who writes it has come to the end of a mail.
HEADING = "E-MAIL CONTENT:"
_THREAD = "E-MAILS THAT I ANSWER, THE OLDEST FIRST:"


class Preamble(NamedTuple):
  """What a prompt begins with.

  Attributes:
    system: What the model is for.
    user: What it should know about the user; lines that begin with "#" are left
      out.
  """

  system: str = SYSTEM
  user: str = ""


DEFAULT = Preamble()


class Prompt(NamedTuple):
  """A prompt that leaves room for the response.

  Attributes:
    text: What the user says.
    tokens: Its tokens, laid out as a turn of the user.
    retrieved: How many earlier mails it has.
    thread: How many mails of the thread it has.
  """

  text: str
  tokens: list[int]
  retrieved: int
  thread: int


def layout(
  instruction: str,
  *,
  preamble: Preamble = DEFAULT,
  retrieved: Sequence[str] = (),
  thread: Sequence[str] = (),
) -> str:
  r"""Lay out what the user says.

  Args:
    instruction: What the mail should say.
    preamble: What comes first.
    retrieved: Texts of earlier mails, the most relevant first.
    thread: Texts of mails that are answered, the oldest first.

  Returns:
    The text.

  Raises:
    ValueError: If the instruction is empty.

  >>> print(layout("Say yes.", preamble=Preamble("Write!", "# no\nI am Bo.")))
  Write!
  <BLANKLINE>
  I am Bo.
  <BLANKLINE>
  Instruction: Say yes.
  """
  if not instruction.strip():
    raise ValueError("the instruction is empty")
  facts = "\n".join(
    line for line in preamble.user.split("\n") if not line.startswith("#")
  )
  earlier = thread_block = ""
  if retrieved:
    shown = "".join(f"\n{HEADING}\n{m}\n\n---\n" for m in retrieved)
    earlier = f"{_RETRIEVED}{shown}"
  if thread:
    thread_block = "\n\n".join([_THREAD, "\n\n---\n\n".join(thread)])
  parts = (
    preamble.system,
    facts,
    earlier,
    thread_block,
    f"Instruction: {instruction.strip()}",
  )
  return "\n\n".join(part.strip() for part in parts if part.strip())


def fit(
  instruction: str,
  tokenizer: Any,
  *,
  room: int,
  preamble: Preamble = DEFAULT,
  retrieved: Sequence[str] = (),
  thread: Sequence[str] = (),
) -> Prompt:
  """Lay out a prompt that has at most so many tokens.

  Earlier mails are left out first, the least relevant before others, then the
  oldest of the thread. Names of special tokens are text, wherever they are.

  Args:
    instruction: What the mail should say.
    tokenizer: A `models.tokenizers.Tokenizer`.
    room: The most tokens.
    preamble: What comes first.
    retrieved: Texts of earlier mails, the most relevant first.
    thread: Texts of mails that are answered, the oldest first.

  Returns:
    The prompt.

  Raises:
    ValueError: If the instruction is empty, or does not fit by itself.
  """
  retrieved, thread = list(retrieved), list(thread)
  while True:
    text = layout(
      instruction, preamble=preamble, retrieved=retrieved, thread=thread
    )
    if tokenizer.template is None:
      tokens = tokenizer.encode(text, special=False)
    else:
      tokens = tokenizer.chat_tokens([{"role": "user", "content": text}])
    if len(tokens) <= room:
      return Prompt(text, tokens, len(retrieved), len(thread))
    if retrieved:
      retrieved.pop()
    elif thread:
      thread.pop(0)
    else:
      raise ValueError(
        f"the preamble and the instruction have {len(tokens)} tokens, and there"
        f" is room for {max(room, 0)}; shorten them or take a larger length"
      )


def example(
  instruction: str,
  response: str,
  tokenizer: Any,
  *,
  length: int = LENGTH,
  preamble: Preamble = DEFAULT,
  retrieved: Sequence[str] = (),
  thread: Sequence[str] = (),
) -> Example:
  """Make tokens of a mail and of what asks for it, to be learned from.

  Both are made apart; the response, which is never cut, ends with the end token
  if there is one.

  Args:
    instruction: What the mail says.
    response: The mail.
    tokenizer: A `models.tokenizers.Tokenizer`.
    length: The most tokens of both together.
    preamble: What comes first.
    retrieved: Texts of earlier mails, the most relevant first.
    thread: Texts of mails that are answered, the oldest first.

  Returns:
    The example.

  Raises:
    ValueError: If a part is empty, or they do not fit without earlier mails.
  """
  if not response.strip():
    raise ValueError("the mail is empty: there is nothing to learn")
  end = [] if tokenizer.end is None else [tokenizer.end]
  answer = [*tokenizer.encode(response, special=False), *end]
  if len(answer) >= length:
    raise ValueError(
      f"the mail has {len(answer)} tokens, its end included, and length is"
      f" {length}; leave it out or take a larger length"
    )
  prompt = fit(
    instruction,
    tokenizer,
    room=length - len(answer),
    preamble=preamble,
    retrieved=retrieved,
    thread=thread,
  )
  tokens = np.asarray([*prompt.tokens, *answer], np.int32)
  return Example(tokens, len(prompt.tokens))


def included(
  name: str,
  *,
  seed: int,
  epoch: int = 0,
  share: float = SHARE,
  resample_each_epoch: bool = False,
) -> bool:
  """Draw whether the prompt of a mail has earlier mails in training (RAFT).

  Args:
    name: Id of the mail.
    seed: Chooses the draws, with the name.
    epoch: Which epoch it is.
    share: Probability of earlier mails (appendix N.3 of Panza; its section 4.2
      says the opposite, its program does this).
    resample_each_epoch: Whether each epoch draws anew; if not all have the draw
      of the first, as there.

  Returns:
    Whether u <= share, with u uniform in [0, 1).

  Raises:
    ValueError: If the share is not in [0, 1].
  """
  if not 0 <= share <= 1:
    raise ValueError(f"share must be in [0, 1], got {share}")
  epoch = epoch if resample_each_epoch else 0
  digest = hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).digest()
  return (int.from_bytes(digest[:8], "big") >> 11) / 2**53 <= share


def raft(
  names: Sequence[str],
  neighbours: Sequence[Sequence[Any]],
  *,
  seed: int,
  epoch: int = 0,
  share: float = SHARE,
  resample_each_epoch: bool = False,
) -> list[list[Any]]:
  """Choose the earlier mails of every prompt in training.

  Retrieval-aware fine-tuning (Zhang et al. 2024, arXiv:2403.10131): a model
  that sees earlier mails in a share of its prompts learns not to copy them.

  Args:
    names: Ids of N mails.
    neighbours: What was found for each, see `retrieval.neighbours`, which never
      finds the mail itself.
    seed: As in `included`, like the other arguments.
    epoch: Which epoch it is.
    share: Probability of earlier mails.
    resample_each_epoch: Whether each epoch draws anew.

  Returns:
    For each mail its neighbours, or none of them.
  """
  return [
    list(found)
    if included(
      name,
      seed=seed,
      epoch=epoch,
      share=share,
      resample_each_epoch=resample_each_epoch,
    )
    else []
    for name, found in zip(names, neighbours, strict=True)
  ]
