"""Talk to a language model that runs on this machine.

  python -m launch.chat
  python -m launch.chat --prompt "Write a short mail to Anna." --temperature 0
  python -m launch.chat --model path/to/weights.gguf
  python -m launch.chat --adapter runs/mine/adapter

Without --prompt it is a conversation: /new begins another one, /quit or the end
of the input ends it, control-C stops an answer. The first answer takes some
seconds, since programs are compiled; --jax_cache_dir keeps them. Exit status: 0
all went well; 2 a user's error; 130 stopped by SIGINT.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from launch import configuring

# Slots that the cache has for turns to come: programs are compiled anew when
# they are used up.
_ROOM = 512


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    The exit status, see the top of this file.
  """
  return configuring.command(
    _parser(),
    _talk,
    arguments,
    hint="; pip install 'effjax[language]' brings it",
  )


def _parser() -> configuring.Parser:
  parser = configuring.describe("chat", __doc__)
  add = parser.add_argument
  add(
    "--model",
    default="smollm2",
    help="a name, a .gguf file, or a directory with config.json (default:"
    " %(default)s)",
  )
  add(
    "--adapter",
    metavar="DIR",
    help="of launch.finetune or PEFT, made for this model",
  )
  add("--prompt", metavar="TEXT", help="answer this, and end")
  add("--system", metavar="TEXT", help="what the model is told beforehand")
  add("--max_tokens", type=int, default=256, help="length of an answer")
  add(
    "--temperature",
    type=float,
    default=0.2,
    help="0 takes the most likely token (default: %(default)s)",
  )
  add("--top_k", type=int, default=50, help="of the likeliest; 0 for all")
  add(
    "--top_p",
    type=float,
    default=0.9,
    help="of tokens with this probability together (default: %(default)s)",
  )
  add(
    "--repetition_penalty",
    type=float,
    default=1.1,
    help="above 1, tokens that were there before are less likely (default:"
    " %(default)s)",
  )
  add(
    "--stop",
    metavar="TEXT",
    action="append",
    default=[],
    help="ends an answer; may be given again",
  )
  add("--seed", type=int, default=0, help="of the random draws")
  add("--directory", metavar="DIR", help="where the weights lie")
  add(
    "--jax_cache_dir",
    metavar="DIR",
    help="keep compiled programs here for the next run; must not be writable"
    " by everybody",
  )
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _talk(options: argparse.Namespace) -> None:
  """Answer one prompt, or one after the other."""
  if options.max_tokens < 1:
    raise ValueError(
      f"--max_tokens must be at least 1, got {options.max_tokens}"
    )
  if not 0 <= options.seed < 2**32:
    raise ValueError(
      f"--seed must be from 0 to {2**32 - 1}, got {options.seed}"
    )
  if options.prompt is not None and not options.prompt.strip():
    raise ValueError("--prompt is empty; expected a text")

  from effjax.models.sampling import Sampling

  sampling = Sampling(
    temperature=options.temperature,
    top_k=options.top_k or None,
    top_p=options.top_p,
    repetition_penalty=options.repetition_penalty,
  )
  if options.jax_cache_dir is not None:
    configuring.keep_programs(options.jax_cache_dir)
  conversation = _Conversation(options, sampling)
  if options.prompt is not None:
    conversation.answer(options.prompt)
  else:
    _converse(conversation)


def _converse(conversation: "_Conversation") -> None:
  """Answer what is typed until the input ends."""
  shown = sys.stdin.isatty()
  if shown:
    print("/new begins another conversation, /quit ends this one")
  while True:
    try:
      text = input("> " if shown else "").strip()
    except EOFError:
      return
    if text == "/quit":
      return
    if text == "/new":
      conversation.clear()
    elif text:
      try:
        conversation.answer(text)
      except KeyboardInterrupt:
        print()
      except ValueError as error:  # a prompt that is too long, say
        print(f"chat: {error}", file=sys.stderr)


class _Conversation:
  """What has been said, and what the model has read of it."""

  def __init__(self, options: argparse.Namespace, sampling: Any):
    import jax

    from effjax.models import llama_weights
    from effjax.studies import language

    self.options, self.sampling = options, sampling
    found = language.load(options.model, directory=options.directory)
    if options.adapter is not None:
      found = language.with_adapter(found, options.adapter)
    self.tokenizer, self.eos = found.tokenizer, found.eos
    self.module, self.params = found.module, found.params
    if jax.default_backend() == "cpu":
      self.module, self.params = llama_weights.fuse(self.module, self.params)
    self.key = jax.random.key(options.seed)
    self.clear()

  def clear(self) -> None:
    """Begin another conversation."""
    system = self.options.system
    self.messages = (
      [] if system is None else [{"role": "system", "content": system}]
    )
    self.prefix, self.turn = None, 0

  def answer(self, text: str) -> None:
    """Print the answer to a text as it comes."""
    import jax

    from effjax.models import generation

    asked = [*self.messages, {"role": "user", "content": text}]
    most = self.options.max_tokens
    tokens = self.tokenizer.chat_tokens(asked)
    room = min(most + _ROOM, self.module.config.context)
    prefix = self._read(tokens[:-1], room)
    pieces = generation.stream(
      jax.random.fold_in(self.key, self.turn),
      self.module,
      self.params,
      [tokens[-1:]],
      max_tokens=most,
      sampling=self.sampling,
      eos=self.eos,
      stop=self.options.stop,
      tokenizer=self.tokenizer,
      prefix=prefix,
    )
    said = ""
    try:
      for piece in pieces:
        print(piece.text, end="", flush=True)
        said += piece.text
    finally:
      # An answer that is stopped stands as far as it went.
      self.messages = [*asked, {"role": "assistant", "content": said}]
      self.prefix, self.turn = prefix, self.turn + 1
    print()

  def _read(self, tokens: list[int], room: int) -> Any:
    """Have the model read what it has not read yet."""
    from effjax.models import generation

    prefix = self.prefix
    if prefix is not None and prefix.tokens != tuple(
      tokens[: len(prefix.tokens)]
    ):
      prefix = None
    start = 0 if prefix is None else len(prefix.tokens)
    if start == len(tokens):
      return prefix
    return generation.read_prefix(
      self.module,
      self.params,
      tokens[start:],
      prefix=prefix,
      room=room,
    )


if __name__ == "__main__":
  sys.exit(main())
