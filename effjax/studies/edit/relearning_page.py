"""What the report tells of old facts that are taught again."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from effjax.studies import elements, figures
from effjax.studies.edit import findings

_SOON = 0.5  # of the steps that new facts take
_FEW = 3  # arms that are named


def section(
  results: Mapping[str, Any], mixes: Mapping[str, str]
) -> elements.Section:
  """Make the section of the report.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    The section.
  """
  return elements.Section(
    "Is the old value gone?",
    [
      elements.Prose(summary(results, mixes)),
      plot(results, mixes),
      _table(results, mixes),
    ],
  )


def summary(results: Mapping[str, Any], mixes: Mapping[str, str]) -> str:
  """Say after which edits the old facts come back sooner than new ones.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    Text.
  """
  lines = []
  for mix in results["mixes"]:
    rows = [row for row in results["relearning"] if row["mix"] == mix]
    parts = [
      _told(text, [row for row in rows if holds(*_interval(row))], results)
      for text, holds in _TOLD.items()
    ]
    ratios = [elements.number(row["ratio"]["estimate"]) for row in rows]
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    span = f" {min(known):.2f} to {max(known):.2f} of" if known else ""
    lines.append(
      f"- Edited {mixes.get(mix, mix)}, by {len(rows)} arms: in{span} the steps"
      f" that new facts take; {', '.join(parts)}."
    )
  return (
    "Old facts were taught to edited models again, and new facts to the models"
    " before the edit, by one recipe. Where old facts come back at once, the"
    " edit has only hidden them; where they take as long as new ones, it has"
    " erased them. Old facts come back:\n\n"
    + "\n".join(lines)
    + "\n\nIt counts where the interval over models leaves out 1, or one half."
  )


# By interval of the ratio; the second leaves out what the first has.
_TOLD = {
  "in less than half of them": lambda low, high: high < _SOON,
  "sooner, but not surely in half": lambda low, high: _SOON <= high < 1,
  "later": lambda low, high: low > 1,
}


def _interval(row: Mapping[str, Any]) -> list[float]:
  return [elements.number(row["ratio"][end]) for end in ("low", "high")]


def _told(text: str, rows: Sequence[Mapping], results: Mapping) -> str:
  titles = findings.titles(results)
  few = 0 < len(rows) <= _FEW
  names = f" ({'; '.join(titles[row['arm']] for row in rows)})" if few else ""
  return f"{text} after {len(rows)}{names}"


def plot(results: Mapping[str, Any], mixes: Mapping[str, str]) -> elements.Plot:
  """Draw how many steps old facts take, as a share of what new ones take.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    The plot.
  """
  titles = findings.titles(results)
  by = {
    mix: [row for row in results["relearning"] if row["mix"] == mix]
    for mix in results["mixes"]
  }
  series: dict[str, Any] = {
    mixes.get(mix, mix): elements.ends(row["ratio"] for row in rows)
    for mix, rows in by.items()
  }
  title = "How soon old facts come back"
  first = by[results["mixes"][0]]
  return elements.Plot(
    figures.dot_intervals(
      [titles[row["arm"]] for row in first],
      series,
      title=title,
      xlabel="steps until old facts are recalled, as a share of those that new"
      " facts take",
      reference=1.0,
      xlim=(0, None),
    ),
    alt=title,
    caption=f"{len(results['seeds'])} models, at most {results['reported']}"
    " edits of each, of which those count that held; intervals of 95 % of"
    " Student's t over models.",
  )


def _table(
  results: Mapping[str, Any], mixes: Mapping[str, str]
) -> elements.Table:
  titles = findings.titles(results)
  rows: list[Any] = []
  for mix in results["mixes"]:
    rows.append(f"Trained {mixes.get(mix, mix)}")
    rows += [
      [
        titles[row["arm"]],
        row["steps"],
        row["fresh_steps"],
        row["ratio"],
        row["edits"],
        row["never"],
      ]
      for row in results["relearning"]
      if row["mix"] == mix
    ]
  return elements.Table(
    [
      "edited by",
      elements.Column("steps until old facts are back", digits=1),
      elements.Column("steps for new facts", digits=1),
      elements.Column("ratio", digits=2),
      elements.Column("edits"),
      elements.Column("never back"),
    ],
    rows,
    "Old facts taught to edited models, new facts to models before the edit:"
    " full fine-tuning of all blocks at one learning rate, all facts in every"
    " step.",
    [
      "Edits at the learning rate tuned for the score; those that had not held"
      " to the last fact are left out. Facts that never came back have no"
      " ratio."
    ],
  )
