"""Merge an adapter into the weights of its base.

  python -m launch.merge --adapter runs/mine/adapter --output merged/

The output has config.json, tokenizer.json and model.safetensors, as Hugging
Face's libraries and `python -m launch.chat --model merged/` read them. An
adapter that was made for another base is refused. Exit status: 0 done; 2 a
user's error.
"""

import argparse
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
    _merge,
    arguments,
    required=("--adapter", "--output"),
    hint="; pip install 'effjax[language]' brings it",
  )


def _parser() -> configuring.Parser:
  parser = configuring.describe("merge", __doc__)
  add = parser.add_argument
  add(
    "--model",
    default="smollm2",
    help="the base: a name, a .gguf file, or a directory with config.json"
    " (default: %(default)s)",
  )
  add("--adapter", metavar="DIR", help="of launch.finetune or PEFT")
  add("--output", metavar="DIR", help="the directory to make")
  add("--directory", metavar="DIR", help="where the weights of the base lie")
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _merge(options: argparse.Namespace) -> None:
  """Read, merge and write."""
  import pathlib

  from effjax.studies import language

  if pathlib.Path(options.output).exists():
    raise FileExistsError(
      f"there is something at --output {options.output} already; choose another"
    )
  base = language.load(options.model, directory=options.directory)
  merged = language.with_adapter(base, options.adapter)
  path = language.save(options.output, merged)
  print(f"written to {path}; talk to it with")
  print(f"  python -m launch.chat --model {path}")


if __name__ == "__main__":
  sys.exit(main())
