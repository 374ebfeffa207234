"""Make text with a language model: prefill, then token after token.

Prompts are padded to few lengths, and so is the cache, so that few programs are
compiled. What is read before any prompt, such as a long instruction, can be
kept as a `Prefix`.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.models import decoding, llama, streaming
from effjax.models.sampling import Sampling
from effjax.models.tokenizers import Tokenizer

GREEDY = Sampling()
# Steps between looks at the texts for a stop string, where nobody watches.
_BETWEEN_LOOKS = 8
# Steps after which sequences that have ended are left out, and the number of
# sequences below which that saves less than another program costs.
_BETWEEN_CUTS, _FEW = 32, 8


class Generated(NamedTuple):
  """What was made of a prompt.

  Attributes:
    tokens: the new tokens; the last one may be one of `eos`.
    text: their text, up to a stop string; None without a tokenizer.
    reason: why it ends: "eos", "stop", "length" (as many as were asked for) or
      "context" (the model has no more positions).
  """

  tokens: tuple[int, ...]
  text: str | None
  reason: str


class Piece(NamedTuple):
  """What is new of one of the texts in the making.

  Attributes:
    row: number of the prompt.
    tokens: its new tokens.
    text: what they add to its text; "" without a tokenizer, and while it might
      be the beginning of a stop string or a part of a character.
    end: the whole of it, once it is complete.
  """

  row: int
  tokens: tuple[int, ...]
  text: str
  end: Generated | None


class Prefix(NamedTuple):
  """Tokens that a model has read before a prompt.

  Attributes:
    tokens: the tokens.
    cache: what the model keeps of them, for one sequence.
    used: slots of the cache that they take, padding included.
  """

  tokens: tuple[int, ...]
  cache: llama.Cache
  used: int


def read_prefix(
  module: llama.Llama,
  params: Any,
  tokens: Sequence[int],
  *,
  prefix: Prefix | None = None,
  room: int = 0,
  parts: Mapping[str, Any] | None = None,
) -> Prefix:
  """Read what comes before prompts, once.

  Args:
    module: The model.
    params: Its parameters.
    tokens: The tokens, after those of `prefix`.
    prefix: What was read before.
    room: Slots for what comes after. Where they suffice, one prompt is
      continued without a copy of the cache in another size, and so by programs
      that are compiled once for all lengths of the prefix.
    parts: As in `llama.Llama`.

  Returns:
    What to give to `generate`; longer by these tokens than `prefix`.

  Raises:
    ValueError: If there are no tokens, or they do not fit in the context.
  """
  past = () if prefix is None else prefix.tokens
  _check(module.config, [tokens], len(past))
  padded, lengths = decoding.padded([tokens])
  _, cache, used = _read(module, params, padded, lengths, prefix, room, parts)
  return Prefix((*past, *map(int, tokens)), cache, used)


def _read(module, params, padded, lengths, prefix, room, parts) -> Any:
  """Read prompts; returns logits, the cache, and how many slots are used."""
  past, used, size, before = 0, 0, 0, None
  if prefix is not None:
    past, used, before = len(prefix.tokens), prefix.used, prefix.cache
    size = before.positions.shape[1]
  used += padded.shape[1]
  size = max(size, decoding.slots(used + room))
  logits, cache = decoding.prefill(
    module, size, params, padded, lengths, before, np.int32(past), parts
  )
  return logits, cache, used


def generate(
  key: jax.Array | None,
  module: llama.Llama,
  params: Any,
  prompts: Sequence[Sequence[int]],
  *,
  max_tokens: int = 128,
  sampling: Sampling = GREEDY,
  eos: Sequence[int] = (),
  stop: Sequence[str] = (),
  tokenizer: Tokenizer | None = None,
  prefix: Prefix | None = None,
  parts: Mapping[str, Any] | None = None,
) -> list[Generated]:
  """Continue prompts of any lengths together.

  A prompt's continuation does not depend on the others beyond rounding, nor do
  its random draws, which depend on the key and its number in the list.

  Args:
    key: Typed random key; None where the largest logit is taken.
    module: The model.
    params: Its parameters.
    prompts: Tokens of each prompt, after those of `prefix`.
    max_tokens: The most tokens to make of each.
    sampling: How tokens are chosen; the most likely ones by default.
    eos: Tokens that end a text.
    stop: Strings that end a text, and are left out of it.
    tokenizer: Makes texts of the tokens; needed for `stop`.
    prefix: What all prompts begin with, from `read_prefix`.
    parts: As in `llama.Llama`.

  Returns:
    What was made of each prompt.

  Raises:
    ValueError: If a prompt is empty, longer than the context of the model, or
      holds what is no token, or the arguments do not fit together.
  """
  pieces = stream(
    key,
    module,
    params,
    prompts,
    max_tokens=max_tokens,
    sampling=sampling,
    eos=eos,
    stop=stop,
    tokenizer=tokenizer,
    prefix=prefix,
    parts=parts,
    every=_BETWEEN_LOOKS if stop else max_tokens,
  )
  ends = {piece.row: piece.end for piece in pieces if piece.end is not None}
  return [ends[row] for row in range(len(prompts))]


def stream(
  key: jax.Array | None,
  module: llama.Llama,
  params: Any,
  prompts: Sequence[Sequence[int]],
  *,
  max_tokens: int = 128,
  sampling: Sampling = GREEDY,
  eos: Sequence[int] = (),
  stop: Sequence[str] = (),
  tokenizer: Tokenizer | None = None,
  prefix: Prefix | None = None,
  parts: Mapping[str, Any] | None = None,
  every: int = 1,
) -> Iterator[Piece]:
  """Continue prompts and yield what is new as it comes; see `generate`.

  Args:
    key: As in `generate`, like the other arguments.
    module: The model.
    params: Its parameters.
    prompts: Tokens of each prompt.
    max_tokens: The most tokens to make of each.
    sampling: How tokens are chosen.
    eos: Tokens that end a text.
    stop: Strings that end a text.
    tokenizer: Makes texts of the tokens.
    prefix: What all prompts begin with.
    parts: As in `llama.Llama`.
    every: Tokens that are made of each prompt before the next look.

  Returns:
    An iterator of what is new. What is wrong with the arguments is told before
    the first piece is asked for.
  """
  if key is None and sampling.temperature > 0:
    raise ValueError(
      f"A temperature of {sampling.temperature} needs a random key, got None."
    )
  if tokenizer is None and stop:
    raise ValueError("Stop strings need a tokenizer, got None.")
  for name, value in (("max_tokens", max_tokens), ("every", every)):
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}.")
  past = 0 if prefix is None else len(prefix.tokens)
  _check(module.config, prompts, past)
  # A token that is made of the last position needs none of its own.
  room = [module.config.context - past - len(p) + 1 for p in prompts]
  writers = [
    streaming.Writer(
      limit=min(max_tokens, left),
      full="length" if max_tokens <= left else "context",
      eos=tuple(eos),
      stop=tuple(stop),
      tokenizer=tokenizer,
    )
    for left in room
  ]
  if not len(prompts):
    return iter(())
  most = min(max_tokens, max(room))  # the context holds no more
  steps = functools.partial(
    _states, key, module, params, prompts, most, sampling, eos, prefix
  )
  return _pieces(steps(parts), writers, every, most)


def _pieces(
  states: Any, writers: list[streaming.Writer], every: int, most: int
) -> Iterator[Piece]:
  """Yield what is new of each text until all are complete."""
  next(states)
  made = 0
  while not all(writer.reason for writer in writers):
    done = np.array([writer.reason is not None for writer in writers])
    tokens = states.send((min(made + every, most), done))
    for row, writer in enumerate(writers):
      if writer.reason is not None:
        continue
      count = len(writer.tokens)
      text = writer.add(tokens[row, made:].tolist())
      new, end = tuple(writer.tokens[count:]), None
      if writer.reason is not None:
        end = Generated(tuple(writer.tokens), writer.text, writer.reason)
      yield Piece(row, new, text, end)
    made = tokens.shape[1]


def _states(
  key, module, params, prompts, max_tokens, sampling, eos, prefix, parts
) -> Any:
  """Make tokens, up to the number that is sent.

  A generator: it is sent that number and the rows that are done, [B], which get
  no more of them, and it yields all tokens made so far [B, n].
  """
  padded, lengths = decoding.padded(prompts)
  past = () if prefix is None else prefix.tokens
  logits, cache, _ = _read(
    module, params, padded, lengths, prefix, max_tokens, parts
  )
  kind = decoding.Kind(
    greedy=sampling.temperature == 0,
    top_k=sampling.top_k,
    top_p=sampling.top_p is not None,
    penalised=sampling.repetition_penalty != 1,
  )
  key = jax.random.key(0) if key is None else key
  numbers = decoding.Numbers(
    keys=decoding.row_keys(key, len(prompts)),
    temperature=jnp.float32(sampling.temperature),
    top_p=jnp.float32(sampling.top_p or 1.0),
    penalty=jnp.float32(sampling.repetition_penalty),
    eos=jnp.asarray(tuple(eos), jnp.int32),
  )
  seen = np.zeros((len(prompts), module.config.vocabulary), bool)
  for row, prompt in enumerate(prompts):
    seen[row, [*past, *prompt]] = True
  state = decoding.begin(
    kind,
    cache,
    logits,
    seen if kind.penalised else seen[:, :0],
    len(past) + lengths - 1,
    numbers,
  )
  rows, ended = np.arange(len(prompts)), np.zeros(len(prompts), bool)
  made = np.zeros(state.tokens.shape, np.int32)
  limit, done = yield
  while True:
    # What stands in for nobody, behind the others, has ended from the start.
    ended[: len(rows)] |= done[rows]
    state = state._replace(done=jnp.asarray(ended))
    step = min(limit, int(state.count) + _BETWEEN_CUTS)
    state = decoding.extend(
      module, kind, params, state, numbers, np.int32(step), parts
    )
    count, ended = int(state.count), np.array(state.done)
    made[rows, :count] = np.asarray(state.tokens)[: len(rows), :count]
    left = np.flatnonzero(~ended[: len(rows)])
    if count >= limit or not left.size:
      limit, done = yield made[:, :count]
    size = max(_FEW, 1 << (left.size - 1).bit_length())
    if left.size and 2 * size <= len(ended):
      chosen = np.resize(left, size)
      state, numbers = decoding.take(
        module.scan_layers, state, numbers, jnp.asarray(chosen)
      )
      rows, ended = rows[left], np.arange(size) >= left.size


def _check(
  config: llama.Config, prompts: Sequence[Sequence[int]], past: int
) -> None:
  """Reject prompts that the model cannot read."""
  for row, prompt in enumerate(prompts):
    if not len(prompt):
      raise ValueError(f"Prompt {row} is empty; expected at least one token.")
    if past + len(prompt) > config.context:
      before = f" after {past} tokens of a prefix" if past else ""
      raise ValueError(
        f"Prompt {row} has {len(prompt)} tokens{before}, but the context of the"
        f" model holds {config.context}; shorten it."
      )
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= config.vocabulary:
      raise ValueError(
        f"Prompt {row} has the token {low if low < 0 else high}, expected whole"
        f" numbers from 0 to {config.vocabulary - 1}."
      )
