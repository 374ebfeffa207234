"""Closed forms beside fine-tuning on the new facts alone: table and report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effjax.studies import elements, figures
from effjax.studies.edit import closed_forms, findings, intervals

# Closed forms are given no fact but those that change.
MIX = "edit_only"


def table(
  config: Any,
  forms: Sequence[closed_forms.Form],
  values: findings.Values,
  beside: findings.Values,
) -> dict[str, Any]:
  """Sum up every closed form, at the learning rate that was chosen for it.

  Args:
    config: The configuration: `tuning`, `mixes`, `arms` and
      `closed_forms.rates`.
    forms: The closed forms.
    values: Their measures [models, forms, rates, edits].
    beside: Measures of the arms that are fine-tuned, see `findings`.

  Returns:
    `forms`, their names and titles; `rates`; `rows`, as those of
    `findings.table`, with `more`, the score beyond that of the best arm that is
    fine-tuned on the new facts alone, which is `best`: both at rates that were
    chosen on other edits, as is the arm. Intervals of `more` are Student's t
    over models.
  """
  names, tuning = [form.name for form in forms], config.tuning
  # One mix, measured once.
  values = {k: v[..., None, None] for k, v in values.items()}
  rows = findings.table(names, (MIX,), values, tuning) if names else []
  best = None
  if rows and MIX in config.mixes:
    mix = list(config.mixes).index(MIX)
    found = findings.scores(beside, "end")[..., mix]
    tuned = found[..., :tuning].mean(axis=(0, 3))  # arms, rates
    arm, rate = np.unravel_index(np.argmax(tuned), tuned.shape)
    best = {"arm": config.arms[arm], "rate": int(rate)}
    theirs = found[:, arm, rate, tuning:]
    own = findings.scores(values, "end")[..., 0]
    for i, row in enumerate(rows):
      gap = own[:, i, row["rate"], tuning:] - theirs
      row["more"] = intervals.over_models(gap)
  return {
    "forms": [{"name": form.name, "title": form.title} for form in forms],
    "rates": list(config.closed_forms.rates),
    "best": best,
    "rows": rows,
  }


def sections(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the section of the report, none where there is no closed form.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections.
  """
  if not results["closed_forms"]["rows"]:
    return []
  return [
    elements.Section(
      "Closed forms",
      [elements.Prose(summary(results)), plot(results), _table(results)],
    )
  ]


def summary(results: Mapping[str, Any]) -> str:
  """Say how the best closed form compares with fine-tuning.

  Args:
    results: The content of `results.json`.

  Returns:
    Text.
  """
  found = results["closed_forms"]
  first = findings.best(found["rows"])
  titles = _titles(results)
  told = (
    f"{titles[first['arm']]} has the best score of"
    f" {len(found['rows'])} closed forms,"
    f" {elements.number(first['score']['estimate']):.2f}."
  )
  if not found["best"]:
    return told
  ends = {k: elements.number(first["more"][k]) for k in elements.ENDS}
  result = "no clear difference"
  if ends["low"] > 0:
    result = "better beyond chance"
  elif ends["high"] < 0:
    result = "worse beyond chance"
  return (
    f"{told} Beside the best arm that is fine-tuned on the new facts alone,"
    f" {titles[found['best']['arm']]}, its score differs by"
    f" {ends['estimate']:+.2f} ({ends['low']:+.2f} to {ends['high']:+.2f} over"
    f" models): {result}."
  )


def plot(results: Mapping[str, Any]) -> elements.Plot:
  """Draw closed forms above the arms that are fine-tuned on new facts alone.

  Args:
    results: The content of `results.json`.

  Returns:
    The plot.
  """
  found = results["closed_forms"]
  beside = [row for row in results["table"] if row["mix"] == MIX]
  beside.sort(key=lambda row: -elements.number(row["score"]["estimate"]))
  rows = [*found["rows"], *beside[:4]]
  titles = _titles(results)
  title = "Closed forms, and the best of fine-tuning on the new facts alone"
  series: dict[str, Any] = {
    "edited facts": elements.ends(row["efficacy"] for row in rows),
    "facts preserved": elements.ends(row["preservation"] for row in rows),
  }
  return elements.Plot(
    figures.dot_intervals(
      [titles[row["arm"]] for row in rows],
      series,
      title=title,
      xlabel="share of facts recalled",
      xlim=(-0.02, 1.02),
    ),
    alt=title,
    caption=f"{results['reported']} edits of each of {len(results['seeds'])}"
    " models; intervals of 95 % by resampling edits and models. Of fine-tuning"
    " the four arms with the best scores are shown.",
  )


def _table(results: Mapping[str, Any]) -> elements.Table:
  found, titles = results["closed_forms"], _titles(results)
  nested = any("follow" in row["sets"] for row in found["rows"])
  columns = [
    "closed form",
    elements.Column("learning rate of values"),
    *(elements.Column(text, digits=2) for text in findings.TOLD),
    *([elements.Column("S-NO follow", digits=2)] if nested else []),
    elements.Column("score", digits=2),
    elements.Column("score beyond fine-tuning", digits=2),
  ]
  rows = [
    [
      titles[row["arm"]],
      found["rates"][row["rate"]],
      *(row[name] for name in findings.TOLD.values()),
      *([row["sets"].get("follow")] if nested else []),
      row["score"],
      row.get("more"),
    ]
    for row in found["rows"]
  ]
  notes = [
    "Learning rates of the search for values were chosen on other edits, by the"
    " score. Keys are read at a token of the prompt, the last one of the"
    " subject or the last one of all; ROME stores facts one after another, the"
    " others all at once. What other keys look like is known from all sentences"
    " of the world, those about preserved facts included.",
    *findings.edge_notes(found["rows"], titles),
  ]
  if found["best"]:
    notes.append(
      "The last column compares with"
      f" {titles[found['best']['arm']]}, the arm that is best on the edits for"
      " tuning; intervals of Student's t over models."
    )
  return elements.Table(
    columns, rows, "One down projection changed, by closed forms.", notes
  )


def _titles(results: Mapping[str, Any]) -> dict[str, str]:
  own = {
    form["name"]: form["title"] for form in results["closed_forms"]["forms"]
  }
  return findings.titles(results) | own
