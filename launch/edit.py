r"""Change facts that a language model knows, and see what else moves.

  python -m launch.edit --set "The capital of France is|Rome"
  python -m launch.edit --set "The capital of France is|Rome" --method lora \
    --rank 4 --save rome.safetensors
  python -m launch.edit --apply rome.safetensors --output edited/
  python -m launch.edit --model edited/ --undo rome.safetensors --output back/

Shows the probability and the rank of the new and of the old object before and
after: for the fact, for the same in other words, and for neighbours, facts that
should stay. Of facts that are known to it (effjax/studies/edit/facts.py) the
program has those prompts itself; for others give --paraphrase and --neighbour.
--save writes the weights that changed, before and after, so that --undo brings
them back bit by bit. The first edit of a layer takes some minutes, in which
the model writes texts that say what other inputs look like; they are kept in
the user's cache. Exit status: 0 done; 2 a user's error.
"""

import argparse
import json
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
    _edit,
    arguments,
    hint="; pip install 'effjax[language]' brings it",
  )


def _parser() -> configuring.Parser:
  parser = configuring.describe("edit", __doc__)
  add = parser.add_argument
  add(
    "--model",
    default="smollm2",
    help="a name, a .gguf file, or a directory with config.json (default:"
    " %(default)s)",
  )
  several = lambda name, shape, text: add(
    name, action="append", default=[], metavar=shape, help=text
  )
  several(
    "--set", '"PROMPT|OBJECT"', "the new object of a fact; may be repeated"
  )
  several(
    "--subject",
    "TEXT",
    "whom the prompt is about, in the order of --set; by default its only name",
  )
  several(
    "--old",
    "OBJECT",
    "the old object, likewise; by default the one that is known, or the"
    " likeliest word",
  )
  several(
    "--paraphrase", "PROMPT", "the fact in other words, of a single --set"
  )
  several(
    "--neighbour", '"PROMPT|OBJECT"', "a fact that should stay; may be repeated"
  )
  add(
    "--method",
    default="rome",
    help="rome, memit, emmet, alphaedit, ft, ft-l or lora (default:"
    " %(default)s)",
  )
  add(
    "--rank",
    type=int,
    help="of LoRA; changes by other methods are cut to it (default: 1 for"
    " lora, else as they are)",
  )
  add(
    "--layer",
    type=int,
    help="whose MLP is edited (default: a third of the way)",
  )
  add(
    "--spread",
    type=int,
    default=1,
    help="how many layers memit edits, up to --layer (default: %(default)s)",
  )
  add("--tokens", type=int, default=12, help="length of the texts shown")
  add("--seed", type=int, default=0, help="of all random draws")
  add("--save", metavar="FILE", help="where the change goes, .safetensors")
  add("--apply", metavar="FILE", help="a change of --save, made first")
  add("--undo", metavar="FILE", help="a change of --save, taken back first")
  add("--output", metavar="DIR", help="where the edited model goes")
  add("--directory", metavar="DIR", help="where the weights lie")
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _edit(options: argparse.Namespace) -> None:
  """Edit, show, write."""
  from effjax import editing
  from effjax.studies import language
  from effjax.studies.edit import language_records

  wanted = _wanted(options)
  model = language.load(options.model, directory=options.directory)
  for path in filter(None, (options.undo, options.apply)):
    change = language_records.read(path)
    act = language_records.redo if path is options.apply else editing.undo
    model = model._replace(params=act(model.params, change.record))
    done = "made" if path is options.apply else "taken back"
    print(f"{done}: {', '.join(change.edits)}", flush=True)
  edited = model
  if wanted:
    edited = _change(options, model, wanted)
  if options.output:
    path = language.save(options.output, edited)
    print(f"written to {path}; talk to it with")
    print(f"  python -m launch.chat --model {path}")


def _wanted(options: argparse.Namespace) -> list[Any]:
  """Read the facts, without the model: what is wrong is told at once."""
  from effjax.studies.edit import facts, language_prompts, language_records

  if not (options.set or options.apply or options.undo):
    raise ValueError(
      '--set is missing: the fact to edit, such as --set "The capital of'
      ' France is|Rome"'
    )
  if options.save and not options.set:
    raise ValueError("--save needs an edit to write: give --set too")
  if options.output and pathlib.Path(options.output).exists():
    raise FileExistsError(
      f"there is something at --output {options.output} already; choose another"
    )
  if options.rank is not None and options.rank < 1:
    raise ValueError(f"--rank must be at least 1, got {options.rank}")
  if options.tokens < 1:
    raise ValueError(f"--tokens must be at least 1, got {options.tokens}")
  language_records.check_method(options.method)
  for name in ("subject", "old"):
    if len(getattr(options, name)) not in (0, len(options.set)):
      raise ValueError(
        f"--{name} is given {len(getattr(options, name))} times for"
        f" {len(options.set)} of --set; give one for each, in their order"
      )
  if options.paraphrase and len(options.set) != 1:
    raise ValueError("--paraphrase belongs to a single --set")
  if options.neighbour and not options.set:
    raise ValueError("--neighbour needs --set")
  for text in options.neighbour:
    _pair("--neighbour", text)
  found = []
  for i, text in enumerate(options.set):
    prompt, new = _pair("--set", text)
    fact = facts.find(prompt) or facts.Fact(prompt, "", "", new)
    subject = options.subject[i] if options.subject else fact.subject
    subject = subject or language_prompts.guess_subject(prompt)
    if subject not in prompt:
      raise ValueError(
        f"the subject {subject!r} is not in the prompt {prompt!r}"
      )
    old = options.old[i].strip() if options.old else fact.true
    if new == old:
      raise ValueError(
        f"{prompt!r} is to become {new!r}, which it is already; choose another"
        " object"
      )
    fact = fact._replace(subject=subject, true=old, new=new)
    if options.paraphrase:
      fact = fact._replace(paraphrases=tuple(options.paraphrase))
    found.append(fact)
  prompts = [fact.prompt for fact in found]
  twice = next((p for p in prompts if prompts.count(p) > 1), None)
  if twice is not None:
    raise ValueError(f"{twice!r} is set twice; it can have one object only")
  return found


def _pair(name: str, text: str) -> tuple[str, str]:
  """Read PROMPT|OBJECT."""
  prompt, bar, new = (part.strip() for part in text.partition("|"))
  if not (prompt and bar and new):
    lacks = "no '|'" if not bar else "no object" if prompt else "no prompt"
    raise ValueError(
      f"{name} {text!r} has {lacks}; expected PROMPT|OBJECT, such as"
      ' "The capital of France is|Rome"'
    )
  return prompt, new


def _change(options: argparse.Namespace, model: Any, wanted: list[Any]) -> Any:
  """Edit a model and show what changed."""
  from effjax import editing
  from effjax.studies.edit import language_records

  wanted = [language_records.completed(model, fact) for fact in wanted]
  neighbours = [_pair("--neighbour", text) for text in options.neighbour]
  layer = language_records.check_layer(model, options.layer, options.spread)
  asked = language_records.questions(wanted, neighbours)
  before = language_records.answers(model, asked)
  texts = language_records.continued(model, wanted, options.tokens)
  print(
    f"{options.method} on {options.model}, layer {layer} ...",
    file=sys.stderr,
    flush=True,
  )
  delta = language_records.edit(
    model,
    options.method,
    wanted,
    layer=layer,
    spread=options.spread,
    rank=options.rank,
    seed=options.seed,
  )
  params, record = editing.apply(model.params, delta)
  edited = model._replace(params=params)
  after = language_records.answers(edited, asked)
  for line in language_records.lines(asked, before, after):
    print(line)
  written = language_records.continued(edited, wanted, options.tokens)
  for fact, first, second in zip(wanted, texts, written, strict=True):
    print(f"\n{fact.prompt}\n  before: {first}\n  after:  {second}")
  print(f"\nchanged: {language_records.summary(delta)}", flush=True)
  if options.save:
    edits = [f"{fact.prompt}|{fact.new}" for fact in wanted]
    notes = {"base": model.digest, "method": options.method}
    language_records.write(
      options.save, record, {**notes, "edits": json.dumps(edits)}
    )
    print(f"change written to {options.save}")
  return edited


if __name__ == "__main__":
  memory.use_huge_pages()
  sys.exit(main())
