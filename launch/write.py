"""Draft an e-mail as its owner would write it, on this machine.

  python -m launch.write --adapter me "tell the team that I will be late"
  python -m launch.write --adapter me --method pretrained "thank Anna"
  python -m launch.write --adapter me --retrieve 3 "answer about the meeting"
  python -m launch.write --adapter me --serve

The adapter is one of launch.personalize: its name, or a directory. Earlier
mails that the draft may use are named on the error stream by how well they fit.
--serve shows a page at 127.0.0.1, for you alone: its address holds a token.
Only for mails in your own name. Exit status: 0 done; 2 a user's error; 130
stopped by SIGINT.
"""

import argparse
import dataclasses
import sys
import threading
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from launch import configuring


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    The exit status, see the top of this file.
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  serves = "--serve" in arguments
  return configuring.command(
    _parser(),
    _serve if serves else _write,
    arguments,
    required=("--adapter",) if serves else ("--adapter", "TEXT"),
    hint="; pip install 'effjax[language,mail]' brings it",
  )


def _parser() -> configuring.Parser:
  parser = configuring.describe("write", __doc__)
  add = parser.add_argument
  add("instruction", nargs="?", metavar="TEXT", help="what it should say")
  add("--adapter", metavar="NAME", help="a name or a directory")
  add(
    "--method",
    default="adapter",
    help="adapter, or pretrained: the model as it was (default: %(default)s)",
  )
  add(
    "--temperature",
    type=float,
    help="how varied drafts are (default: 0.7)",
  )
  add("--greedy", action="store_true", help="take the most likely token always")
  add(
    "--retrieve",
    type=int,
    metavar="N",
    help="the most earlier mails in the prompt (default: as it has learned)",
  )
  add("--max_tokens", type=int, help="the most tokens (default: 256)")
  add("--seed", type=int, default=0, help="of the random draws")
  add("--model", help="another base than the one that was adapted")
  add("--directory", metavar="DIR", help="where its weights lie")
  add("--serve", action="store_true", help="show a page at 127.0.0.1")
  add("--port", type=int, default=8766, help="of the page; 0 for a free one")
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _temperature(options: argparse.Namespace) -> float:
  """Check how drafts are drawn."""
  from launch import writing

  given = options.temperature
  if options.greedy and given:
    raise ValueError(
      f"--greedy takes the most likely token always, and --temperature {given}"
      " does not; give one of them"
    )
  temperature = 0.0 if options.greedy else 0.7 if given is None else given
  writing.check(temperature, options.seed)
  return temperature


def _write(options: argparse.Namespace) -> None:
  """Print a draft as it comes."""
  temperature = _temperature(options)

  from effjax.studies.personalize import assistant, drafts, folders

  folder = folders.find(options.adapter)
  writer = assistant.Assistant(
    folder, model=options.model, directory=options.directory
  )
  if writer.missing:
    print(writer.missing, file=sys.stderr)
  asked = writer.ask(
    options.instruction,
    method=options.method,
    retrieve=options.retrieve,
    sampled=dataclasses.replace(drafts.SAMPLING, temperature=temperature),
    max_tokens=options.max_tokens,
    seed=options.seed,
  )
  for found in asked.found:
    used = "in the prompt" if found.shown else "no room"
    subject = _plain(found.subject) or "no subject"
    print(f"[{found.relevance:.2f}] {subject} ({used})", file=sys.stderr)
  for piece in asked.pieces:
    print(_plain(piece), end="", flush=True)
  print()


_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def _plain(text: str) -> str:
  r"""Return a text without what would command a terminal.

  >>> _plain("Re: \x1b[2Jtea\u00a0🙂\n")
  'Re: ?[2Jtea\xa0🙂\n'
  """
  commands = lambda c: (
    c not in "\n\t"
    and (
      unicodedata.category(c) in ("Cc", "Cs")
      # These turn the direction of what follows.
      or unicodedata.bidirectional(c) in _DIRECTIONS
    )
  )
  return "".join("?" if commands(c) else c for c in text)


def _serve(options: argparse.Namespace) -> None:
  """Show the page until it is stopped; the model is loaded meanwhile."""
  temperature = _temperature(options)
  if not 0 <= options.port <= 65535:
    raise ValueError(f"--port must be from 0 to 65535, got {options.port}")

  from effjax.studies.personalize import assistant, folders
  from launch import pages, writing

  folder = folders.find(options.adapter)
  service = writing.Service(
    folder,
    lambda: assistant.Assistant(
      folder, model=options.model, directory=options.directory
    ),
    instruction=options.instruction or "",
    method=options.method,
    retrieve=options.retrieve,
    temperature=temperature,
    max_tokens=options.max_tokens,
    seed=options.seed,
  )
  with pages.make_server(service, options.port) as server:
    print(f"{pages.address(server)}  (control-C stops it)", flush=True)
    loading = _Failing(service.load, server.shutdown)
    loading.start()
    server.serve_forever()
  if loading.error is not None:
    raise loading.error


class _Failing(threading.Thread):
  """Works in the background, and keeps what goes wrong."""

  def __init__(self, work: Callable[[], Any], stop: Callable[[], Any]):
    super().__init__(daemon=True)
    self._work, self._stop = work, stop
    self.error: Exception | None = None

  def run(self) -> None:
    try:
      self._work()
    except Exception as error:
      self.error = error
      self._stop()


if __name__ == "__main__":
  sys.exit(main())
