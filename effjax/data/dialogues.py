"""Prompts and the responses that a language model shall learn to give.

A file has one JSON object a line, with the texts "prompt" and "response". The
tokens of both are made apart, so that it is known which are the response.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from effjax.data import json_lines


class Dialogue(NamedTuple):
  """A prompt and its response.

  Attributes:
    prompt: What is asked.
    response: What shall be answered.
  """

  prompt: str
  response: str


class Example(NamedTuple):
  """A dialogue as tokens.

  Attributes:
    tokens: Those of the prompt, then those of the response, int32 [S].
    prompt: How many are the prompt's.
  """

  tokens: np.ndarray
  prompt: int


def read(path: str | os.PathLike) -> list[Dialogue]:
  """Read dialogues from a file.

  Args:
    path: A text file, UTF-8; empty lines are skipped.

  Returns:
    The dialogues in the order of the file.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If a line is no such object, naming the line, or there is none.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"there is no file {path}")
  found = []
  holding = " with 'prompt' and 'response'"
  lines = json_lines.objects(path.read_bytes(), path.name, holding=holding)
  for place, entry in lines:
    texts = []
    for name in Dialogue._fields:
      if name not in entry:
        raise ValueError(
          f"{place} has no {name!r}; it has {sorted(entry) or 'nothing'}"
        )
      if not isinstance(entry[name], str):
        raise ValueError(f"{place}: {name!r} must be a text")
      if any("\ud800" <= c <= "\udfff" for c in entry[name]):
        raise ValueError(f"{place}: {name!r} holds half a character")
      texts.append(entry[name])
    if not texts[1].strip():
      raise ValueError(f"{place}: 'response' is empty: nothing to learn")
    found.append(Dialogue(*texts))
  if not found:
    raise ValueError(f"{path} holds no dialogue")
  return found


def encode(
  dialogues: Sequence[Dialogue], tokenizer: Any, *, length: int
) -> list[Example]:
  """Turn dialogues into tokens.

  The prompt is laid out as what a user says where the tokenizer has a template
  of conversations; the response ends with the end token if there is one. Names
  of special tokens in a dialogue are text like any other.

  Args:
    dialogues: The dialogues.
    tokenizer: A `models.tokenizers.Tokenizer`.
    length: The most tokens of a dialogue.

  Returns:
    As many examples.

  Raises:
    ValueError: If a dialogue is longer: a response is never cut.
  """
  end = [] if tokenizer.end is None else [tokenizer.end]
  found = []
  for number, (prompt, response) in enumerate(dialogues, 1):
    if tokenizer.template is None:
      first = tokenizer.encode(prompt, special=False)
    else:
      first = tokenizer.chat_tokens([{"role": "user", "content": prompt}])
    tokens = [*first, *tokenizer.encode(response, special=False), *end]
    if len(tokens) > length:
      raise ValueError(
        f"dialogue {number} has {len(tokens)} tokens, {len(first)} of them in"
        f" its prompt, more than length={length}; shorten it or raise that"
      )
    if not first:
      raise ValueError(f"dialogue {number} has an empty prompt")
    found.append(Example(np.asarray(tokens, np.int32), len(first)))
  return found
