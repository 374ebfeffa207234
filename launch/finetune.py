"""Teach a language model to answer as your examples do.

  python -m launch.finetune --data my.jsonl --workdir runs/mine
  python -m launch.finetune --data my.jsonl --workdir runs/all --arm full

The file has a JSON object a line, {"prompt": "...", "response": "..."}. Some
dialogues are held out, and the loss on them is told before and after. What was
learned is written to WORKDIR/adapter as PEFT does, by the arms full and blocks
to WORKDIR/model. The same command again goes on where it stopped. Exit status:
0 done; 1 a loss is not finite; 2 a user's error; 130 or 143 stopped by SIGINT
or SIGTERM after saving.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from launch import configuring, memory


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    The exit status, see the top of this file.
  """
  return configuring.command(
    _parser(),
    _finetune,
    arguments,
    required=("--data", "--workdir"),
    hint="; pip install 'effjax[language]' brings it",
  )


def _parser() -> configuring.Parser:
  parser = configuring.describe("finetune", __doc__)
  add = parser.add_argument
  add("--data", metavar="FILE", help="dialogues, a JSON object a line")
  add(
    "--workdir",
    metavar="DIR",
    help="where everything is written; belongs to one command",
  )
  add(
    "--model",
    default="smollm2",
    help="a name, a .gguf file, or a directory with config.json (default:"
    " %(default)s)",
  )
  add(
    "--arm",
    default="lora",
    help="what is trained: lora, dora, rosa, full (all weights) or blocks (some"
    " layers) (default: %(default)s)",
  )
  number = lambda name, kind, default, text: add(
    name, type=kind, default=default, help=f"{text} (default: %(default)s)"
  )
  number("--rank", int, 8, "of low-rank adapters")
  number("--density", float, 0.01, "share of the weights in rosa's sparse part")
  add(
    "--layers",
    metavar="A:B",
    help="first and last layer that blocks trains (default: the last third)",
  )
  number("--steps", int, 100, "updates")
  number("--rows", int, 4, "rows of a batch")
  number("--length", int, 256, "tokens of a row, which hold several dialogues")
  add(
    "--learning_rate",
    type=float,
    metavar="X",
    help="the highest (default: what suits the arm)",
  )
  number("--dropout", float, 0.0, "share of inputs that low-rank paths drop")
  number("--held_out", float, 0.1, "share of the dialogues never trained on")
  number("--seed", int, 0, "of all random draws")
  add("--directory", metavar="DIR", help="where the weights lie")
  add(
    "--jax_cache_dir",
    metavar="DIR",
    help="keep compiled programs here for the next run; must not be writable"
    " by everybody",
  )
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _finetune(options: argparse.Namespace) -> None:
  """Train, and say what came of it."""
  from effjax.data import dialogues
  from effjax.studies import language
  from effjax.studies.adapters import finetuning, plans

  plan = plans.Plan(
    arm=options.arm,
    rank=options.rank,
    density=options.density,
    layers=_layers(options.layers),
    steps=options.steps,
    learning_rate=options.learning_rate,
    dropout=options.dropout,
    seed=options.seed,
  )
  if options.dropout and options.arm in ("full", "blocks"):
    raise ValueError(
      f"--dropout is of low-rank paths, which the arm {options.arm!r} has not"
    )
  for name in ("rows", "length"):
    if getattr(options, name) < 1:
      raise ValueError(
        f"--{name} must be at least 1, got {getattr(options, name)}"
      )
  # What is told without the weights is told first.
  plans.check(plan, sys.maxsize)
  found = dialogues.read(options.data)
  train, held = finetuning.split(len(found), options.held_out, options.seed)
  if options.jax_cache_dir is not None:
    configuring.keep_programs(options.jax_cache_dir)
  model = language.load(options.model, directory=options.directory)
  sizes = model.module.config
  plans.check(plan, sizes.layers)
  if options.length > sizes.context:
    raise ValueError(
      f"--length {options.length} is more than the {sizes.context} tokens that"
      f" {options.model} holds"
    )
  examples = dialogues.encode(found, model.tokenizer, length=options.length)
  _start(options, plan, model)
  print(f"{len(train)} dialogues to train on, {len(held)} held out", flush=True)
  tuner = finetuning.Tuner(
    model.module, model.params, [examples[i] for i in train]
  )
  measured: dict[str, Any] = {"train": len(train), "held_out": len(held)}
  loss = None
  if len(held):
    loss = finetuning.held_out(
      tuner.module,
      [examples[i] for i in held],
      length=options.length,
    )
    measured["before"] = loss(model.params)
    print(f"held-out loss before: {measured['before']:.4f}", flush=True)
  show = lambda chosen, trained: print(
    plans.summary(model.params, trained, chosen.adapter), flush=True
  )
  tuned = tuner.tune(
    plan,
    options.workdir,
    rows=options.rows,
    length=options.length,
    checkpoint_every=25,
    started=show,
  )
  if loss is not None:
    measured["after"] = loss(tuned.merged)
    print(
      f"held-out loss after: {measured['after']:.4f} (before:"
      f" {measured['before']:.4f})"
    )
  _save(options, model, tuned, measured)


def _layers(text: str | None) -> tuple[int, int] | None:
  """Read the range of layers."""
  if text is None:
    return None
  first, _, last = text.partition(":")
  try:
    return int(first), int(last or first)
  except ValueError:
    raise ValueError(
      f"--layers {text!r} must be the first and the last layer, such as 20:29"
    ) from None


def _start(options: argparse.Namespace, plan: Any, model: Any) -> None:
  """Make or re-enter the directory, which belongs to one command."""
  import dataclasses

  from effjax.io import files
  from effjax.training import workdir

  config = {
    "data": files.sha256(options.data),
    "model": model.digest,
    "rows": options.rows,
    "length": options.length,
    "held_out": options.held_out,
    "plan": dataclasses.asdict(plan),
  }
  workdir.start(options.workdir, config)


def _save(
  options: argparse.Namespace, model: Any, tuned: Any, measured: dict
) -> None:
  """Write what was learned, and say how to use it."""
  from effjax.io import files, save_peft
  from effjax.models import llama_weights
  from effjax.studies import language

  place = pathlib.Path(options.workdir)
  files.write_json(place / "results.json", {"arm": options.arm, **measured})
  where = (
    "" if options.directory is None else f" --directory {options.directory}"
  )
  if tuned.chosen.adapter is None:
    path = place / "model"
    merged = model._replace(params=tuned.merged)
    language.save(path, merged, overwrite=True)
    command = f"python -m launch.chat --model {path}"
  else:
    path = place / "adapter"
    save_peft(
      path,
      tuned.chosen.adapter,
      model.params,
      tuned.trained,
      tuned.frozen[1],
      names=llama_weights.stored_name,
      config={"base_model_name_or_path": options.model},
      overwrite=True,
    )
    command = (
      f"python -m launch.chat --model {options.model}{where} --adapter {path}"
    )
  print(f"written to {path}; talk to it with\n  {command}", flush=True)


if __name__ == "__main__":
  memory.use_huge_pages()
  sys.exit(main())
