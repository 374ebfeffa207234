"""Draft an e-mail as its owner would write it, on this machine.

  python -m launch.write --adapter me "tell the team that I will be late"
  python -m launch.write --adapter me --method pretrained "thank Anna"
  python -m launch.write --adapter me --retrieve 3 "answer about the meeting"

The adapter is one of launch.personalize: its name, or a directory. Earlier
mails that the draft may use are named on the error stream by how well they fit.
Only for mails in your own name. Exit status: 0 done; 2 a user's error; 130
stopped by SIGINT.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from launch import configuring


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    The exit status, see the top of this file.
  """
  return configuring.command(
    _parser(),
    _write,
    arguments,
    required=("--adapter",),
    hint="; pip install 'effjax[language,mail]' brings it",
  )


def _parser() -> configuring.Parser:
  parser = configuring.describe("write", __doc__)
  add = parser.add_argument
  add("instruction", metavar="TEXT", help="what the mail should say")
  add("--adapter", metavar="NAME", help="a name or a directory")
  add(
    "--method",
    default="adapter",
    help="adapter, or pretrained: the model as it was (default: %(default)s)",
  )
  add(
    "--temperature",
    type=float,
    default=0.7,
    help="0 takes the most likely token (default: %(default)s)",
  )
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
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _write(options: argparse.Namespace) -> None:
  """Print a draft as it comes."""
  from effjax.studies.personalize import assistant, drafts, folders

  folder = folders.find(options.adapter)
  writer = assistant.Assistant(
    folder, model=options.model, directory=options.directory
  )
  asked = writer.ask(
    options.instruction,
    method=options.method,
    retrieve=options.retrieve,
    sampled=dataclasses.replace(
      drafts.SAMPLING, temperature=options.temperature
    ),
    max_tokens=options.max_tokens,
    seed=options.seed,
  )
  for found in asked.found:
    used = "in the prompt" if found.shown else "no room"
    subject = found.subject or "no subject"
    print(f"[{found.relevance:.2f}] {subject} ({used})", file=sys.stderr)
  for piece in asked.pieces:
    print(piece, end="", flush=True)
  print()


if __name__ == "__main__":
  sys.exit(main())
