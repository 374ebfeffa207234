"""Prompts and objects as tokens: what an edit of a language model reads.

Every prompt is read behind a line break, since the first token of a text is
like no other: much attention rests on it, whatever it is.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.models import llama
from effjax.models.tokenizers import Tokenizer

START = "\n"
# Words at the beginning of a sentence that are no subject.
_ORDINARY = frozenset(
  [
    *("a", "an", "the", "in", "on", "at", "of", "to", "from", "for", "by"),
    *("with", "who", "what", "where", "when", "which", "whose", "how", "most"),
    *("many", "some", "every", "people", "there", "this", "that", "it"),
  ]
)


class Asked(NamedTuple):
  """Objects after prompts, as tokens.

  Attributes:
    tokens: int32 [B, T], different beginnings, 0 behind their ends.
    rows: int32 [M], which beginning each question has.
    starts: int32 [M], the token that predicts the first one of the object.
    objects: int32 [M, Q], tokens of the object, -1 behind its end.
  """

  tokens: Any
  rows: Any
  starts: Any
  objects: Any


class Scores(NamedTuple):
  """What a model thinks of objects after prompts.

  Attributes:
    nll: [M], negative log-likelihood per token.
    probability: [M], of the whole object.
    rank: int32 [M], place of its first token among all, 1 = the likeliest.
  """

  nll: Any
  probability: Any
  rank: Any


def encode(tokenizer: Tokenizer, prompt: str) -> list[int]:
  """Return the tokens of a prompt behind a line break."""
  return tokenizer.encode(START + prompt, special=False)


def encode_object(tokenizer: Tokenizer, text: str) -> list[int]:
  """Return the tokens of an object, a blank before it."""
  return tokenizer.encode(f" {text.strip()}", special=False)


def locate(tokenizer: Tokenizer, prompt: str, subject: str) -> int:
  """Find the last token of a subject.

  Args:
    tokenizer: The tokenizer.
    prompt: The prompt.
    subject: A part of it; where it occurs several times, the last one.

  Returns:
    The place of the token in `encode(tokenizer, prompt)`.

  Raises:
    ValueError: If the subject is not in the prompt.
  """
  at = prompt.rfind(subject) if subject.strip() else -1
  if at < 0:
    raise ValueError(f"the subject {subject!r} is not in the prompt {prompt!r}")
  end = len(START) + at + len(subject.rstrip())
  spans = tokenizer.backend.encode(
    START + prompt, add_special_tokens=False
  ).offsets
  return max(i for i, (start, _) in enumerate(spans) if start < end)


def guess_subject(prompt: str) -> str:
  """Guess whom a prompt is about: its only name.

  Args:
    prompt: The prompt.

  Returns:
    The name, words that begin with capitals.

  Raises:
    ValueError: If there is no name or more than one.

  >>> guess_subject("The capital of New Zealand is")
  'New Zealand'
  """
  found, run = [], []
  for i, word in enumerate([*prompt.split(), ""]):
    bare = re.sub(r"('s|’s)?[.,;:!?\"”’')]*$", "", word).lstrip("\"“‘'(")
    named = bare[:1].isupper() and not (i == 0 and bare.lower() in _ORDINARY)
    if named:
      run.append(bare)
    if run and not (named and bare == word):
      found.append(" ".join(run))
      run = []
  candidates = list(dict.fromkeys(found))
  if len(candidates) != 1:
    what = "no name" if not found else f"the names {', '.join(candidates)}"
    raise ValueError(
      f"the prompt {prompt!r} has {what}; say with --subject whom it is about"
    )
  return candidates[0]


def ask(
  tokenizer: Tokenizer,
  pairs: Sequence[tuple[str, str]],
  *,
  questions: int = 0,
  length: int = 0,
  width: int = 1,
) -> Asked:
  """Lay out questions; what several of them begin with is read once.

  Args:
    tokenizer: The tokenizer.
    pairs: Prompts and their objects.
    questions: Least number of questions and of beginnings, which is filled up,
      so that few programs are compiled.
    length: Least number of tokens of a beginning, likewise.
    width: Least number of tokens of an object, likewise.

  Returns:
    The questions, those that fill up at the end.
  """
  begun = {prompt: encode(tokenizer, prompt) for prompt, _ in pairs}
  objects = [encode_object(tokenizer, text) for _, text in pairs]
  beginnings: dict[tuple[int, ...], int] = {}
  rows, starts = [], []
  for (prompt, _), own in zip(pairs, objects, strict=True):
    whole = (*begun[prompt], *own[:-1])
    rows.append(beginnings.setdefault(whole, len(beginnings)))
    starts.append(len(begun[prompt]) - 1)
  extra = [0] * max(questions - len(pairs), 0)
  width = max([width, *map(len, objects)])
  held = np.full((len(pairs) + len(extra), width), -1, np.int32)
  for line, own in zip(held, objects, strict=False):
    line[: len(own)] = own
  return Asked(
    padded(list(beginnings), least=questions, length=length),
    np.array(rows + extra, np.int32),
    np.array(starts + extra, np.int32),
    held,
  )


def padded(
  texts: Sequence[Sequence[int]], *, least: int = 0, length: int = 0
) -> np.ndarray:
  """Put texts below each other, their lengths a multiple of 8.

  Args:
    texts: Tokens of each.
    least: Least number of rows.
    length: Least number of columns.

  Returns:
    int32 [B, T], 0 where nothing is.
  """
  longest = max([length, *map(len, texts)])
  found = np.zeros((max(least, len(texts)), -(-longest // 8) * 8), np.int32)
  for row, text in zip(found, texts, strict=False):
    row[: len(text)] = text
  return found


def score(module: llama.Llama, params: Any, asked: Asked) -> Scores:
  """Ask a model.

  Args:
    module: The model.
    params: Its parameters.
    asked: The questions.

  Returns:
    The scores, NumPy arrays.
  """
  return Scores(*map(np.asarray, _score(module, params, asked)))


@functools.partial(jax.jit, static_argnums=0)
def _score(module: llama.Llama, params: Any, asked: Asked) -> Scores:
  logs, first = object_logs(module, params, asked)
  there = jnp.asarray(asked.objects) >= 0
  number = jnp.maximum(jnp.sum(there, axis=1, dtype=jnp.int32), 1)
  token = jnp.maximum(jnp.asarray(asked.objects)[:, :1], 0)
  own = jnp.take_along_axis(first, token, axis=1)
  above = jnp.sum(first > own, axis=1, dtype=jnp.int32)
  whole = jnp.sum(logs, axis=1)
  return Scores(-whole / number.astype(whole.dtype), jnp.exp(whole), above + 1)


def object_logs(
  module: llama.Llama, params: Any, asked: Asked, parts: Any = None
) -> tuple[jax.Array, jax.Array]:
  """Return log-probabilities of objects token by token.

  Args:
    module: The model.
    params: Its parameters.
    asked: The questions.
    parts: As in `llama.Llama`.

  Returns:
    [M, Q], 0 where nothing is asked, and those of all tokens in the place of
    the first one, [M, V].
  """
  hidden: Any = module.apply(
    {"params": params}, jnp.asarray(asked.tokens), parts=parts, method="hidden"
  )
  objects = jnp.asarray(asked.objects)
  steps = jnp.arange(objects.shape[1], dtype=jnp.int32)
  places = jnp.asarray(asked.starts)[:, None] + steps[None]
  chosen = hidden[jnp.asarray(asked.rows)[:, None], places]
  logits: Any = module.apply({"params": params}, chosen, method="logits")
  logs = jax.nn.log_softmax(logits)
  own = jnp.take_along_axis(logs, jnp.maximum(objects, 0)[..., None], axis=-1)
  return jnp.where(objects >= 0, own[..., 0], 0.0), logs[:, 0]
