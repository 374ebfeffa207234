"""One edit of a language model from facts to a table, and its file."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import editing
from effjax.io import safetensors
from effjax.models import generation
from effjax.studies import language
from effjax.studies.edit import (
  facts,
  language_edits,
  language_keys,
  language_prompts,
  language_tuning,
)
from effjax.studies.text import meant

METHODS = (*language_edits.METHODS, *language_tuning.METHODS)


class Question(NamedTuple):
  """What is asked before and after an edit.

  Attributes:
    kind: "fact", "in other words" or "neighbour".
    prompt: The prompt.
    new: The new object.
    old: The old one; of a neighbour its own.
  """

  kind: str
  prompt: str
  new: str
  old: str


@dataclasses.dataclass(frozen=True)
class Change:
  """What a file of `write` holds.

  Attributes:
    record: What undoes the edit.
    edits: The facts, "PROMPT|OBJECT".
    notes: All texts of the file.
  """

  record: editing.Record
  edits: tuple[str, ...]
  notes: Mapping[str, str]


def check_method(name: str) -> None:
  """Raise a ValueError unless there is a method of that name."""
  if name not in METHODS:
    raise ValueError(
      f"there is no method {name!r}{meant(name, METHODS)}; known are"
      f" {', '.join(METHODS)}"
    )


def check_layer(
  model: language.Language, layer: int | None, spread: int
) -> int:
  """Settle which layer is edited.

  Args:
    model: The model.
    layer: Its number, or None for the one at a third of the way.
    spread: How many layers are edited, up to that one.

  Returns:
    The layer.

  Raises:
    ValueError: If the model has no such layers.
  """
  count = model.module.config.layers
  if layer is None:
    layer = max(3 * count // 10, spread - 1)
  if not 0 <= layer < count or not 1 <= spread <= layer + 1:
    raise ValueError(
      f"layers {layer - spread + 1} to {layer} are none of this model, which"
      f" has those from 0 to {count - 1}"
    )
  return layer


def completed(model: language.Language, fact: facts.Fact) -> facts.Fact:
  """Ask the model for the old object, if it is not known.

  Args:
    model: The model.
    fact: The fact.

  Returns:
    The fact with its old object, the likeliest word.

  Raises:
    ValueError: If that is the new one already.
  """
  if not fact.true:
    (text,) = continued(model, [fact], 4)
    words = text.split()
    fact = fact._replace(true=words[0].strip(".,;:!?") if words else "")
  if fact.true == fact.new:
    raise ValueError(
      f"{fact.prompt!r} is {fact.new!r} to this model already; choose another"
      " object"
    )
  return fact


def questions(
  wanted: Sequence[facts.Fact], neighbours: Sequence[tuple[str, str]] = ()
) -> list[Question]:
  """List what is asked of facts, of other words, of neighbours.

  Args:
    wanted: The facts.
    neighbours: More prompts that should stay, with their objects.

  Returns:
    The questions, fact by fact.
  """
  found = []
  for fact in wanted:
    found.append(Question("fact", fact.prompt, fact.new, fact.true))
    for kind, prompts in (
      ("in other words", fact.paraphrases),
      ("neighbour", fact.neighbours),
    ):
      found += [Question(kind, p, fact.new, fact.true) for p in prompts]
  new = wanted[0].new if wanted else ""
  found += [Question("neighbour", p, new, own) for p, own in neighbours]
  return found


def answers(
  model: language.Language, asked: Sequence[Question]
) -> language_prompts.Scores:
  """Score the new object of every question, then the old ones.

  Args:
    model: The model.
    asked: The questions, M of them.

  Returns:
    Scores [2, M].
  """
  pairs = [(q.prompt, q.new) for q in asked]
  # A model that says nothing has no old object.
  pairs += [(q.prompt, q.old or q.new) for q in asked]
  rows = language_prompts.ask(model.tokenizer, pairs)
  found = language_prompts.score(model.module, model.params, rows)
  return language_prompts.Scores(*(x.reshape(2, -1) for x in found))


def continued(
  model: language.Language, wanted: Sequence[facts.Fact], count: int
) -> list[str]:
  """Go on with prompts by the likeliest tokens.

  Args:
    model: The model.
    wanted: The facts.
    count: How many tokens.

  Returns:
    One line for each.
  """
  made = generation.generate(
    None,
    model.module,
    model.params,
    [language_prompts.encode(model.tokenizer, f.prompt) for f in wanted],
    max_tokens=count,
    eos=model.eos,
    tokenizer=model.tokenizer,
  )
  return [" ".join((one.text or "").split()) for one in made]


def edit(
  model: language.Language,
  method: str,
  wanted: Sequence[facts.Fact],
  *,
  layer: int,
  spread: int = 1,
  rank: int | None = None,
  seed: int = 0,
) -> language_edits.Delta:
  """Edit facts by any method.

  Args:
    model: The model.
    method: One of `METHODS`.
    wanted: The facts.
    layer: The layer, of FT and LoRA not read.
    spread: How many layers MEMIT edits.
    rank: Of LoRA; to which other deltas are cut, None for not at all.
    seed: Of random draws.

  Returns:
    The delta.

  Raises:
    ValueError: If it cannot be done.
  """
  check_method(method)
  if method in language_tuning.METHODS:
    settings = language_tuning.Settings(layer=layer, rank=rank or 1, seed=seed)
    delta = language_tuning.tune(model, method, wanted, settings)
    if rank is None or method == "lora":
      return delta
    return editing.project(delta, rank)
  spread = spread if method == "memit" else 1
  how = language_edits.Settings(layer=layer, spread=spread)
  layers = range(layer - spread + 1, layer + 1)
  moments = language_keys.kept_moments(model, layers)
  before = language_keys.beginnings(jax.random.key(seed), model, 3)
  targets = [
    language_edits.find_target(model, fact, before, how) for fact in wanted
  ]
  delta = language_edits.close(model, method, targets, moments, how)
  return delta if rank is None else editing.project(delta, rank)


def lines(
  asked: Sequence[Question],
  before: language_prompts.Scores,
  after: language_prompts.Scores,
) -> list[str]:
  """Write what was asked, a line for each question.

  Args:
    asked: The questions.
    before: Their scores before.
    after: And after.

  Returns:
    The lines of a table, its head first.
  """
  rows = [("", "", "P new", "", "rank", "P old", "", "rank")]
  for i, q in enumerate(asked):
    cells = []
    for j, name in enumerate((q.new, q.old)):
      ends = [f"{float(x.probability[j, i]):.3f}" for x in (before, after)]
      ranks = [f"{int(x.rank[j, i])}" for x in (before, after)]
      cells += [name, " > ".join(ends), " > ".join(ranks)]
    rows.append((q.kind, q.prompt, *cells))
  widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
  return [
    "  ".join(
      cell.ljust(w) for cell, w in zip(row, widths, strict=True)
    ).strip()
    for row in rows
  ]


def summary(delta: language_edits.Delta) -> str:
  """Say what a delta changes: kernels, ranks, length."""
  spectra = editing.spectra(delta)
  ranks = {int(s.rank) for s in spectra.values()}
  low, high = min(ranks), max(ranks)
  rank = str(low) if low == high else f"{low} to {high}"
  paths = list(delta)
  what = paths[0] if len(paths) == 1 else f"{len(paths)} kernels"
  return f"{what}, rank {rank}, norm {float(editing.norm(delta)):.4g}"


def write(
  path: str | os.PathLike, record: editing.Record, notes: Mapping[str, str]
) -> None:
  """Write an edit so that it can be made again and taken back.

  Args:
    path: The file.
    record: What `editing.apply` returned.
    notes: Texts, with the digest of the base and the edits.
  """
  arrays = {f"before/{k}": np.asarray(v) for k, v in record.before.items()}
  arrays |= {f"after/{k}": np.asarray(v) for k, v in record.after.items()}
  safetensors.write(path, arrays, notes)


def read(path: str | os.PathLike) -> Change:
  """Read what `write` wrote.

  Args:
    path: The file.

  Returns:
    The change.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is another kind of file.
  """
  arrays = safetensors.read(path)
  notes = safetensors.read_metadata(path)
  take = lambda prefix: {
    name.removeprefix(prefix): jnp.asarray(value)
    for name, value in arrays.items()
    if name.startswith(prefix)
  }
  record = editing.Record(take("before/"), take("after/"))
  if "edits" not in notes or record.before.keys() != record.after.keys():
    raise ValueError(f"{path} holds no edit of launch.edit")
  return Change(record, tuple(json.loads(notes["edits"])), notes)


def redo(params: Any, record: editing.Record) -> Any:
  """Make an edit again, bit by bit.

  Args:
    params: Parameters as they were before it.
    record: The edit.

  Returns:
    The edited parameters.

  Raises:
    ValueError: If they are of another base.
  """
  back = editing.Record(record.after, record.before)
  try:
    return editing.undo(params, back)
  except ValueError as error:
    raise ValueError(
      "the change was made for another base, or for one that was edited since"
      f" ({error})"
    ) from None
