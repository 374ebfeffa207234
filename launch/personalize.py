"""Teach a small language model to write e-mails as you do, on this machine.

  python -m launch.personalize --mailbox Sent.mbox --name me
  python -m launch.personalize --mailbox Takeout.zip --name me --quick
  python -m launch.write --adapter me "tell the team that I will be late"

The mailbox may be mbox, maildir, Gmail's Takeout, .eml or .jsonl. Your mails
are cleaned, the model says what each one follows, an adapter learns to write
them from that, and mails that it has not seen judge it. Nothing leaves this
machine. The same command goes on where it stopped; a hundred mails take less
than an hour on two cores. WORKDIR/adapter holds what was learned, and no text;
WORKDIR/private holds your mails, for you alone.

Only for mails of your own, or of a person who agreed: a model that writes like
somebody can be used to pose as that person. Exit status: 0 done; 1 a loss is
not finite; 2 a user's error; 130 or 143 stopped by SIGINT or SIGTERM.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from launch import configuring, memory

# What --quick takes where nothing else is given.
_QUICK = {"epochs": 1.0, "mails": 60, "tested": 4, "instructions": "extracted"}
_USUAL = {"epochs": 5.0, "mails": 200, "tested": 16, "instructions": "model"}


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    The exit status, see the top of this file.
  """
  return configuring.command(
    _parser(),
    _personalize,
    arguments,
    required=("--mailbox", "--name"),
    hint="; pip install 'effjax[language,mail]' brings it",
  )


def _parser() -> configuring.Parser:
  parser = configuring.describe("personalize", __doc__)
  add = parser.add_argument
  add("--mailbox", metavar="PATH", help="mails that you sent, among others")
  add("--name", help="what the adapter is called: letters, digits, - and _")
  add(
    "--owner",
    metavar="ADDRESS",
    action="append",
    default=[],
    help="your address; may be given again (default: the most frequent sender)",
  )
  add("--workdir", metavar="DIR", help="(default: runs/personalize/NAME)")
  add(
    "--arm",
    default="lora_raft_rag",
    help="what is trained (lora, dora, rosa or full), with _raft if some"
    " prompts of training have earlier mails, and _rag if those of drafts have"
    " (default: %(default)s)",
  )
  add(
    "--about",
    metavar="TEXT",
    default="",
    help='what the model should know of you, such as "My name is Ann."',
  )
  add(
    "--model",
    default="smollm2",
    help="the base: a name, a .gguf file, or a directory with config.json"
    " (default: %(default)s)",
  )
  for name, kind, text in (
    ("epochs", float, "how often every mail is learned from"),
    ("mails", int, "the most mails, of which the latest are taken; 0 for all"),
    (
      "tested",
      int,
      "mails that judge the model and are not learned from, a fifth at most; 0"
      " for none",
    ),
  ):
    add(
      f"--{name}",
      type=kind,
      metavar="N",
      help=f"{text} (default: {_USUAL[name]:g}; {_QUICK[name]:g} with --quick)",
    )
  add(
    "--instructions",
    metavar="WAY",
    help="model: the base says what each mail follows; extracted: rules do; or"
    " a file with an object a line (default: model; extracted with --quick)",
  )
  add(
    "--retriever",
    help="minilm or bm25 (default: minilm if its weights are there)",
  )
  add(
    "--resample_each_epoch",
    action="store_true",
    help="with _raft, each epoch draws anew which prompts have earlier mails",
  )
  number = lambda name, kind, default, text: add(
    name, type=kind, default=default, help=f"{text} (default: %(default)s)"
  )
  number("--rank", int, 8, "of low-rank adapters")
  number("--density", float, 0.01, "share of the weights in rosa's sparse part")
  number("--length", int, 512, "tokens of a prompt and its mail")
  number("--max_tokens", int, 256, "the most tokens of a draft")
  number("--seed", int, 0, "of all random draws")
  add(
    "--learning_rate",
    type=float,
    metavar="X",
    help="the highest (default: what suits the arm)",
  )
  add("--quick", action="store_true", help="see what it does, in minutes")
  add("--directory", metavar="DIR", help="where the weights lie")
  add(
    "--jax_cache_dir",
    metavar="DIR",
    help="keep compiled programs here for the next run; must not be writable"
    " by everybody",
  )
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _personalize(options: argparse.Namespace) -> None:
  """Go through the stages; say at each what is left."""
  plan, place = _plan(options)

  from effjax.studies import language
  from effjax.studies.adapters import plans
  from effjax.studies.personalize import folders, pipeline, saving

  pipeline.check(plan)
  plans.check(pipeline.planned(plan), sys.maxsize)
  if options.jax_cache_dir is not None:
    configuring.keep_programs(options.jax_cache_dir)
  show = _Left()
  mailbox = folders.digest(plan.mailbox)
  cleaned = pipeline.clean(folders.Folder(place), plan, mailbox)
  show.stage("clean")
  print(cleaned.said)
  train, test = cleaned.split
  print(
    f"{len(train)} mails to learn from, {len(test)} to judge the model by",
    flush=True,
  )
  model = language.load(plan.model, directory=plan.directory)
  folder = folders.make(place)
  pipeline.start(folder, plan, mailbox, model)
  pipeline.keep(folder, plan, mailbox, cleaned)
  try:
    show.stage("playback: what each mail follows")
    said, counts = pipeline.ask(
      folder, plan, model, cleaned.split, show.progress
    )
    print(", ".join(f"{n} {name}" for name, n in counts.items() if n))
    own = pipeline.gather(plan, cleaned.split, said)
    show.stage(f"train: {plan.arm}")
    trained = pipeline.train(
      folder,
      plan,
      model,
      own,
      lambda chosen, theta: print(
        plans.summary(model.params, theta, chosen.adapter), flush=True
      ),
    )
    saving.save(folder, plan, model, own, trained)
    show.stage("evaluate")
    found = pipeline.evaluate(
      folder, plan, model, own, trained.tuned, show.progress
    )
  except (KeyboardInterrupt, SystemExit):  # the latter after a checkpoint
    print("stopped; the same command goes on from here", flush=True)
    raise
  _table(found)
  show.stage("ready")
  print(f"what was learned: {folder.adapter}, which holds no text of a mail")
  print(f"your mails, for you alone: {folder.private}")
  words = _command(options, folder)
  print("write with")
  print(f'  {words} "tell the team that I will be late"')
  print(f"  {words} --serve", flush=True)


def _plan(options: argparse.Namespace) -> tuple[Any, Any]:
  """Turn options into a plan, and say where it is done."""
  import pathlib

  if not re.fullmatch(r"[A-Za-z0-9][\w-]*", options.name, re.ASCII):
    raise ValueError(
      f"--name {options.name!r} must be letters, digits, - and _, such as me"
    )
  chosen: dict[str, Any] = dict(_QUICK if options.quick else _USUAL)
  chosen |= {
    name: getattr(options, name)
    for name in chosen
    if getattr(options, name) is not None
  }

  from effjax.studies.personalize import folders, letters, pipeline, tuning

  raft = None
  if options.resample_each_epoch:
    if "_raft" not in options.arm:
      raise ValueError(
        f"--resample_each_epoch draws for an arm with _raft, such as"
        f" lora_raft_rag, and the arm is {options.arm}"
      )
    raft = letters.Raft(resample_each_epoch=True)
  retriever = options.retriever
  if retriever is None:
    retriever = _retriever(options.directory)
  plan = pipeline.Plan(
    mailbox=options.mailbox,
    owner=tuple(options.owner),
    model=options.model,
    directory=options.directory,
    arm=options.arm,
    recipe=tuning.Recipe(
      rank=options.rank,
      density=options.density,
      learning_rate=options.learning_rate,
      epochs=chosen.pop("epochs"),
      length=options.length,
      raft=raft,
    ),
    retriever=retriever,
    about=options.about,
    max_tokens=options.max_tokens,
    seed=options.seed,
    **chosen,
  )
  place = options.workdir or folders.HOME / options.name
  return plan, pathlib.Path(place)


def _retriever(directory: str | None) -> str:
  """Choose by what is on this machine, and say so."""
  from effjax import data

  try:
    data.locate("minilm", directory=directory)
  except FileNotFoundError:
    print(
      "earlier mails are found by their words (bm25); by their meaning after"
      " python -m launch.fetch minilm"
    )
    return "bm25"
  return "minilm"


class _Left:
  """Says which stage it is, and what is left of it."""

  STAGES = ("clean", "playback", "train", "evaluate", "ready")

  def __init__(self) -> None:
    self._of: tuple[str, int, float] | None = None

  def stage(self, text: str) -> None:
    """Begin a stage."""
    number = self.STAGES.index(re.split(r"\W", text)[0]) + 1
    print(f"\n[{number}/{len(self.STAGES)}] {text}", flush=True)

  def progress(self, name: str, done: int, count: int) -> None:
    """Say how much of something is done, and how long the rest will take."""
    now = time.monotonic()
    left = ""
    if self._of is None or self._of[0] != name:
      self._of = (name, done, now)  # programs were compiled: no measure
    elif done > self._of[1]:
      pace = (now - self._of[2]) / (done - self._of[1])
      minutes, seconds = divmod(round(pace * (count - done)), 60)
      left = f", {minutes}:{seconds:02d} left"
    print(f"{name}: {done} of {count}{left}", flush=True)


def _table(found: dict[str, dict[str, Any]]) -> None:
  """Print what the examination found."""
  if not found:
    return
  print(f"{'':24}{'BLEU':>8}{'ROUGE-L':>9}{'perplexity':>12}{'copied':>8}")
  for name, each in found.items():
    values = (each["bleu"], each["rouge_l"], each["perplexity"], each["copied"])
    bleu, rouge, perplexity, copied = (
      float("nan") if value is None else value for value in values
    )
    print(f"{name:24}{bleu:8.3f}{rouge:9.3f}{perplexity:12.1f}{copied:8.2f}")
  mails = next(iter(found.values()))["mails"]
  print(
    f"{mails} mails that were not learned from; copied is the longest run that"
    " stands in one that was, of the draft's length"
  )


def _command(options: argparse.Namespace, folder: Any) -> str:
  """Return the command that writes drafts, without what it is to write."""
  import shlex

  words = ["python", "-m", "launch.write", "--adapter"]
  words.append(str(folder.root) if options.workdir else options.name)
  if options.directory is not None:
    words += ["--directory", options.directory]
  return shlex.join(words)


if __name__ == "__main__":
  memory.use_huge_pages()
  sys.exit(main())
