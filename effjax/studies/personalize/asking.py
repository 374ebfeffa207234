"""What a model is asked about a mail, and whether its answer can be used.

A model shall say which order a mail follows. It sees five mails that nobody has
sent, with their instructions, and its answer is begun with the marker: so even
small models keep to the form, if not to the facts.
"""

import re
from typing import Any

from effjax.studies.personalize import extraction, ranking

MARKER = "Instruction:"
_ASK = (
  "Sum up my e-mail, in one to three sentences at most, as an order to somebody"
  " who is to write this very e-mail: who should be told, asked, thanked or"
  " invited, and what about? Keep the facts that matter, use your own words,"
  f' and begin with "{MARKER}".\n\nE-MAIL:\n'
)
_SHOWN = (
  (
    "Dear Maria,\n\nthe keys are still with you. Could you bring them on"
    " Sunday, please? I will be at home all day.\n\nBest wishes,\nTom",
    "Ask Maria to bring the keys on Sunday.",
  ),
  (
    "Hey Jo, thanks for the cake!! It was great. See you all at the lake next"
    " week. L.",
    "Thank Jo for the cake and say that you will meet at the lake next week.",
  ),
  (
    "Hi all,\n\nthe train is late again, so I will not be there before eleven."
    " Please start without me.\n\nPaul",
    "Tell everybody that the train is late, and that they should start without"
    " you, as you come at eleven.",
  ),
  (
    "Good morning Mr. Lee,\n\nwe open the new shop on May 4 and would be happy"
    " if you came. There will be music from five on.\n\nAnne Hill",
    "Invite Mr. Lee to the opening of the new shop on May 4, with music from"
    " five on.",
  ),
  (
    "sorry, I forgot your birthday yesterday... can I make it up with lunch on"
    " Saturday?",
    "Say sorry for forgetting the birthday and propose lunch on Saturday.",
  ),
)
_FEWEST, _MOST = 3, 60  # words of an instruction
_RUN, _COPIED = 4, 0.5  # the share of runs of so many words that the mail has
_INVENTED = 0.5  # the share of telling words that the mail has not
_ENDINGS = re.compile(r"(ing|ed|es|s)$")
# What instructions say of any mail.
_ORDER_WORDS = """
  answer apologise apologize ask confirm email everybody everyone explain
  inform invite mail mention message offer propose recipient remind reply
  request sender suggest
"""
_ORDERS = frozenset(_ORDER_WORDS.split())


def question(text: str) -> str:
  """Return what a model is asked about a mail."""
  return f"{_ASK}{text.strip()}"


def tokens(tokenizer: Any, text: str) -> list[int]:
  """Return what a model reads of a mail, the beginning of its answer included.

  All mails have the same beginning. Names of special tokens in a mail are text.

  Args:
    tokenizer: A `models.tokenizers.Tokenizer`.
    text: The mail.

  Returns:
    The tokens.
  """
  begun = tokenizer.encode(MARKER, special=False)
  if tokenizer.template is None:
    shown = "".join(
      f"{question(mail)}\n\n{MARKER} {order}\n\n\n" for mail, order in _SHOWN
    )
    asked = f"{shown}{question(text)}\n\n"
    return [*tokenizer.encode(asked, special=False), *begun]
  messages = []
  for mail, order in _SHOWN:
    messages.append({"role": "user", "content": question(mail)})
    messages.append({"role": "assistant", "content": f"{MARKER} {order}"})
  messages.append({"role": "user", "content": question(text)})
  return [*tokenizer.chat_tokens(messages), *begun]


def parse(answer: str) -> str | None:
  r"""Return the instruction of an answer; None if it has not the form.

  The marker must be there exactly once; what is behind it counts, to the end of
  its paragraph.

  >>> parse("Sure! Instruction: Tell Ann\nthat all is well.\n\nDone.")
  'Tell Ann that all is well.'
  >>> parse("Tell Ann that all is well.") is None
  True
  """
  if answer.count(MARKER) != 1:
    return None
  behind = answer.split(MARKER)[1].strip()
  text = " ".join(re.split(r"\n\s*\n", behind)[0].split()).strip('"“”* ')
  return text or None


def fault(instruction: str | None, text: str) -> str | None:
  """Say what is wrong with an instruction.

  Args:
    instruction: The instruction; None if an answer had none.
    text: The mail.

  Returns:
    None, or the first that is true of

    - "form": there is none;
    - "short" or "long": it has fewer than 3 words or more than 60;
    - "copied": half of its runs of four words are the mail's;
    - "repeated": a run of four words is there twice;
    - "act": it says that the mail thanks, apologises, invites or congratulates,
      and nothing in the mail does;
    - "invented": the mail has fewer than half of its telling words, or none.

  >>> fault("Thank Ann for the cake.", "Ann, where is the cake for the party?")
  'act'
  """
  if instruction is None:
    return "form"
  said, written = ranking.words(instruction), ranking.words(text)
  if len(said) < _FEWEST:
    return "short"
  if len(said) > _MOST:
    return "long"
  known, own = set(_runs(written)), _runs(said)
  if own and sum(run in known for run in own) / len(own) >= _COPIED:
    return "copied"
  if len(set(own)) < len(own):
    return "repeated"
  act = extraction.act(instruction)
  if act not in ("Tell", "Ask", "Write to") and act not in extraction.acts(
    text
  ):
    return "act"
  held = {_stem(word) for word in written}
  telling = [
    word for word in said if not extraction.common(word) and word not in _ORDERS
  ]
  found = sum(_stem(word) in held for word in telling)
  if not found or found < (1 - _INVENTED) * len(telling):
    return "invented"
  return None


def _runs(words: list[str]) -> list[tuple[str, ...]]:
  return list(zip(*(words[i:] for i in range(_RUN)), strict=False))


def _stem(word: str) -> str:
  """Return a word without its most frequent endings."""
  return _ENDINGS.sub("", word) if len(word) > 4 else word
