"""Texts to tokens and back, and the layout of conversations.

The work is done by the libraries `tokenizers` and `jinja2`; here they are set
up by what a file of weights says.
"""

import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Kinds of tokens in the metadata of a GGUF file.
_CONTROL, _USER_DEFINED = 3, 4
# Names in GGUF files of ways to cut a text before merging.
_BYTES = ("gpt-2", "gpt2")
_DIGITS = ("smollm",)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
  """Turns texts into tokens and back.

  Attributes:
    backend: the tokenizer of the library `tokenizers`.
    begin: token that starts a text; None if there is none.
    end: token that ends a text or an answer; None if there is none.
    template: layout of conversations, in the language of jinja2; None if there
      is none.
  """

  backend: Any
  begin: int | None = None
  end: int | None = None
  template: str | None = None

  def encode(
    self, text: str, *, special: bool = True, framed: bool = False
  ) -> list[int]:
    """Return the tokens of a text.

    Args:
      text: The text.
      special: Whether names of special tokens in the text become these tokens;
        if not, they are text like any other: so should be read what others
        wrote.
      framed: Whether the tokenizer may add what it begins and ends a text with.

    Returns:
      The tokens.

    Raises:
      ValueError: If the text holds half a character.
    """
    backend = self.backend if special else self._plain
    try:
      return list(backend.encode(text, add_special_tokens=framed).ids)
    except TypeError:
      raise ValueError(
        "A text holds half a character, which is none."
      ) from None

  @functools.cached_property
  def _plain(self) -> Any:
    """The tokenizer without special tokens."""
    found = type(self.backend).from_str(self.backend.to_str())
    found.encode_special_tokens = True  # as text
    return found

  @functools.cached_property
  def _special(self) -> re.Pattern:
    """The names of special tokens, the longest first."""
    added = self.backend.get_added_tokens_decoder().values()
    names = {str(token.content) for token in added if token.special}
    ordered = sorted(names, key=lambda name: -len(name))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")

  def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
    """Return the text of tokens; special ones are shown if `special`."""
    tokens = [int(token) for token in tokens]
    return self.backend.decode(tokens, skip_special_tokens=not special)

  def chat(
    self, messages: Sequence[Mapping[str, str]], *, reply: bool = True
  ) -> str:
    """Lay out a conversation.

    Args:
      messages: Each with a `role`, such as "system", "user" or "assistant",
        and a `content`.
      reply: Whether the beginning of an answer follows.

    Returns:
      The text, special tokens included.

    Raises:
      ValueError: If there is no template, it refuses the messages, or these are
        not of that kind.
    """
    if self.template is None:
      raise ValueError("The model has no template of conversations.")
    for number, message in enumerate(messages):
      for key in ("role", "content"):
        if not isinstance(message.get(key), str):
          raise ValueError(f"Message {number} has no text {key!r}.")
    name = lambda token: (
      "" if token is None else self.backend.id_to_token(token)
    )
    try:
      return _compiled(self.template).render(
        messages=[dict(message) for message in messages],
        add_generation_prompt=reply,
        bos_token=name(self.begin),
        eos_token=name(self.end),
      )
    except Exception as error:  # whatever a template does
      raise ValueError(
        f"The template of conversations refuses the messages: {error}"
      ) from error

  def chat_tokens(
    self, messages: Sequence[Mapping[str, str]], *, reply: bool = True
  ) -> list[int]:
    """Return the tokens of a conversation, see `chat`.

    Only the template gives special tokens: their names in a message are text
    like any other, so nothing that is said can end a turn or begin another.

    Args:
      messages: As in `chat`.
      reply: Whether the beginning of an answer follows.

    Returns:
      The tokens.

    Raises:
      ValueError: As `chat` does.
    """
    said = "".join(str(value) for m in messages for value in m.values())
    # Of these characters, which stand for nothing, one that nobody has used.
    mark = next(c for c in map(chr, range(0xFDD0, 0xFDF0)) if c not in said)
    broken = [
      {
        key: self._special.sub(lambda m: f"{m[0][0]}{mark}{m[0][1:]}", value)
        if isinstance(value, str)
        else value
        for key, value in message.items()
      }
      for message in messages
    ]
    text = self.chat(broken, reply=reply)
    found: list[int] = []
    start = 0
    for match in self._special.finditer(text):
      between = text[start : match.start()].replace(mark, "")
      found += self.encode(between, special=False)
      found.append(self.backend.token_to_id(match[0]))
      start = match.end()
    between = text[start:].replace(mark, "")
    return found + self.encode(between, special=False)

  def stream(self) -> Callable[[Sequence[int]], str]:
    """Return a function that gives the text that further tokens add.

    A character may be spread over several tokens: its text comes with the last
    of them.
    """
    tokens: list[int] = []
    # Where the text that is given next begins, and from where tokens are
    # decoded: a decoder may treat the first of them in another way.
    begun, given = 0, 0

    def step(more: Sequence[int]) -> str:
      nonlocal begun, given
      tokens.extend(int(token) for token in more)
      before = self.decode(tokens[begun:given])
      text = self.decode(tokens[begun:])
      if text.endswith("\N{REPLACEMENT CHARACTER}") or len(text) <= len(before):
        return ""
      begun, given = given, len(tokens)
      return text[len(before) :]

    return step


@functools.cache
def _compiled(template: str) -> Any:
  import jinja2
  from jinja2 import sandbox

  def refuse(message: str) -> None:
    raise jinja2.TemplateError(message)

  # It comes with the weights: it may format, and nothing else.
  environment = sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True
  )
  functions: dict[str, Any] = {
    "raise_exception": refuse,
    "strftime_now": lambda form: datetime.datetime.now().strftime(form),
  }
  environment.globals.update(functions)
  try:
    return environment.from_string(template)
  except jinja2.TemplateSyntaxError as error:
    raise ValueError(
      f"The template of conversations is not valid: {error}"
    ) from error


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
  """Make the tokenizer of a GGUF file: pairs of bytes, merged by rank.

  Bytes that have no token are dropped.

  Args:
    metadata: The entries of the file.

  Returns:
    The tokenizer.

  Raises:
    ValueError: If entries are missing, or the tokenizer is of another kind.
  """

  def get(key: str) -> Any:
    return metadata.get(f"tokenizer.ggml.{key}")

  kind, cut = get("model"), get("pre")
  if kind != "gpt2" or cut not in (*_BYTES, *_DIGITS):
    raise ValueError(
      f"The file has a tokenizer of the kind {kind!r} with the cuts {cut!r};"
      f" known is 'gpt2' with {', '.join((*_BYTES, *_DIGITS))}."
    )
  for key in ("tokens", "merges", "token_type"):
    if get(key) is None:
      raise ValueError(f"The file's metadata lack 'tokenizer.ggml.{key}'.")
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  vocabulary = {token: i for i, token in enumerate(get("tokens"))}
  pairs = [tuple(merge.split(" ")) for merge in get("merges")]
  bad = next((pair for pair in pairs if len(pair) != 2), None)
  if bad is not None:
    raise ValueError(f"The file's merges have {' '.join(bad)!r}, no pair.")
  try:
    model = models.BPE(vocabulary, pairs)
  except Exception as error:  # the library has no kind of its own
    raise ValueError(f"The file's merges do not fit: {error}") from error
  backend = tokenizers.Tokenizer(model)
  prefix = bool(get("add_space_prefix"))
  steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=prefix)]
  if cut in _DIGITS:
    steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
  backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
  backend.decoder = decoders.ByteLevel()
  added = lambda wanted, special: [
    tokenizers.AddedToken(token, normalized=False, special=special)
    for token, found in zip(get("tokens"), get("token_type"), strict=True)
    if found == wanted
  ]
  backend.add_special_tokens(added(_CONTROL, True))
  backend.add_tokens(added(_USER_DEFINED, False))
  return Tokenizer(
    backend=backend,
    begin=get("bos_token_id"),
    end=get("eos_token_id"),
    template=metadata.get("tokenizer.chat_template"),
  )


def from_json(
  content: str | bytes,
  *,
  length: int | None = None,
  begin: str | None = None,
  end: str | None = None,
  template: str | None = None,
) -> Tokenizer:
  """Make the tokenizer of a `tokenizer.json`.

  What such a file says of padding is passed over.

  Args:
    content: The file's content.
    length: Number of tokens to which texts are cut; None for all of them.
    begin: Name of the token that starts a text.
    end: Name of the token that ends a text.
    template: Layout of conversations.

  Returns:
    The tokenizer.

  Raises:
    ValueError: If the content is no such file, or a token is not in it.
  """
  import tokenizers

  text = content.decode() if isinstance(content, bytes) else content
  try:
    json.loads(text)
    backend = tokenizers.Tokenizer.from_str(text)
  except Exception as error:  # the library has no kind of its own
    raise ValueError(f"This is no tokenizer.json: {error}") from error
  backend.no_padding()
  backend.no_truncation()
  if length is not None:
    backend.enable_truncation(length)

  def number(name: str | None) -> int | None:
    found = None if name is None else backend.token_to_id(name)
    if name is not None and found is None:
      raise ValueError(f"The tokenizer has no token {name!r}.")
    return found

  return Tokenizer(
    backend=backend, begin=number(begin), end=number(end), template=template
  )
