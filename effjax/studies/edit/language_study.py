"""The study of edits of a language model; it reads from top to bottom.

Facts that the model knows are edited one at a time, each from the base, by
every method. Learning rates are chosen on other facts.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from effjax.io import files
from effjax.studies import language
from effjax.studies.edit import (
  facts,
  language_cases,
  language_findings,
  language_page,
  language_records,
  language_tuning,
)
from effjax.studies.results import publish
from effjax.training import workdir as workdirs


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/edit/smollm2.py`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: If the configuration asks for something that does not exist, or
      the model knows too few facts.
    FileNotFoundError: If the weights are not on this machine.
  """
  for method in config.methods:
    language_records.check_method(method)
  place = pathlib.Path(workdir)
  workdirs.start(place, config)
  model = language.load(config.model, directory=config.directory or None)
  known, others = language_cases.known(model, candidates(config))
  reported, tuned = split(known, config.facts, config.tuning)
  print(
    f"{len(known)} facts are known, {len(reported)} are edited; not known:"
    f" {', '.join(fact.prompt for fact in others) or 'none'}",
    flush=True,
  )
  editor = language_cases.Editor(model, config)
  journal = Journal(place / "cases.jsonl", editor)
  tried = {
    method: [
      [journal.case("tuning", fact, method, rate) for fact in tuned]
      for rate in config.rates[method]
    ]
    for method in config.methods
    if method in language_tuning.METHODS
  }
  chosen = {
    method: language_findings.choose(config.rates[method], cases)
    for method, cases in tried.items()
  }
  cases = [
    journal.case("reported", fact, method, chosen.get(method))
    for fact in reported
    for method in config.methods
  ]
  results = {
    "study": "edit_language",
    "title": config.title,
    "model": config.model,
    "layer": editor.layer,
    "rank": config.rank,
    "steps": config.steps,
    "tuning": len(tuned),
    "not_known": [fact.prompt for fact in others],
    "facts": len(reported),
    "rates": chosen,
    "tried": language_findings.rates(config.rates, tried),
    **language_findings.gather(config.methods, cases),
    "examples": _examples(place, editor, reported, config, chosen),
    "cores": os.cpu_count(),
    "data": {"name": "facts", "facts": [fact.prompt for fact in reported]},
    "environment": json.loads((place / "environment.json").read_text()),
  }
  return publish(place, results, language_page, config)


def candidates(config: Any) -> Sequence[facts.Fact]:
  """List the facts that a configuration gives, by default all there are."""
  if not config.wanted:
    return facts.spread(len(facts.table()))
  return [facts.Fact(*own[:4], *map(tuple, own[4:])) for own in config.wanted]


def split(
  known: Sequence[facts.Fact], count: int, tuning: int
) -> tuple[list[facts.Fact], list[facts.Fact]]:
  """Choose facts to report, and others to choose learning rates by.

  Args:
    known: The facts that the model knows.
    count: How many are reported, at most.
    tuning: How many choose learning rates.

  Returns:
    Facts to report and facts to tune on.

  Raises:
    ValueError: If there are too few.
  """
  if len(known) <= tuning:
    raise ValueError(
      f"the model knows {len(known)} of the facts; {tuning} to choose learning"
      " rates by and at least one to report are needed"
    )
  first = len(known) - tuning
  return list(known[: min(count, first)]), list(known[first:])


class Journal:
  """Cases in a file, a line each; one that is there is not made again."""

  def __init__(self, path: pathlib.Path, editor: language_cases.Editor):
    """Read what there is.

    Args:
      path: The file.
      editor: Makes what is not there.
    """
    self.path, self.editor = path, editor
    self._kept = {}
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for line in lines:
      try:
        case = json.loads(line)
      except ValueError:
        continue  # the line that an interruption cut
      self._kept[_name(case["part"], case)] = case
    if lines:
      # A cut line must not swallow the next one.
      text = "".join(f"{json.dumps(case)}\n" for case in self._kept.values())
      files.write_text(path, text)

  def case(
    self, part: str, fact: facts.Fact, method: str, rate: float | None
  ) -> dict[str, Any]:
    """Return a case, see `language_cases.Editor.case`."""
    named = {"prompt": fact.prompt, "method": method, "rate": rate}
    if (kept := self._kept.get(_name(part, named))) is not None:
      return kept
    case = {"part": part, **self.editor.case(fact, method, rate)}
    with self.path.open("a", encoding="utf-8") as file:
      file.write(f"{json.dumps(case)}\n")
    said = case.get("failed") or (
      f"P new {case['probability']:.3f}, {case['seconds']:.1f} s"
    )
    at = "" if rate is None else f", rate {rate:g}"
    print(f"{part}: {fact.prompt} ({method}{at}): {said}", flush=True)
    return case


def _name(part: str, case: dict[str, Any]) -> tuple[Any, ...]:
  return part, case["prompt"], case["method"], case["rate"]


def _examples(place, editor, reported, config, chosen) -> list[dict[str, Any]]:
  """Write what the model says before and after the first edits."""
  path = place / "examples.json"
  if path.exists():
    return json.loads(path.read_text("utf-8"))
  found = []
  for fact in reported[: config.examples]:
    after = {}
    for method in config.methods:
      try:
        after[method] = editor.texts(
          fact, method, chosen.get(method), config.shown_tokens
        )
      except ValueError:
        continue  # it failed, which the table says
    found.append(
      {
        "prompt": fact.prompt,
        "old": fact.true,
        "new": fact.new,
        "before": editor.written(fact, config.shown_tokens),
        "after": after,
      }
    )
  files.write_json(path, found)
  return found
