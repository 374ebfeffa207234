"""The report of an audit, made of its results alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from effjax.studies import curves, elements, figures
from effjax.studies.audit import card, decisions, hurt
from effjax.studies.audit.shown import (
  SMALL,
  array,
  interval,
  level,
  number,
  points,
)

_MOST_PARTITIONS = 4
_NAMES = {"model": "compressed", "reference": "dense"}
_WAYS = {
  "reference": "dense model",
  "model": "compressed model as it is",
  "adjusted": "compressed model, thresholds adjusted",
}


def summary(results: dict[str, Any]) -> str:
  """Says in a few sentences what was found.

  Args:
    results: Of `audit`, or read from `results.json`.

  Returns:
    Text for a report.
  """
  flips = results["flips"]["overall"]
  if not flips["decisions"]:
    return (
      "Every attribute has NaN outputs in one of the models: nothing can be"
      " said."
    )
  text = (
    f"The compressed model decides **{flips['rate']['estimate']:.2%}** of"
    f" {flips['decisions']:,} decisions otherwise than the dense one"
    f" ({_counted(results['samples'], 'sample')},"
    f" {_counted(len(results['attributes']), 'attribute')})."
  )
  if not results["labels"]:
    return text + (
      " There are no labels: what is right, and who is hurt, cannot be said,"
      " only where the two disagree."
    )
  text += (
    f" {flips['broken']:,} right ones turned wrong, {flips['mended']:,} wrong"
    " ones right."
  )
  accuracy = _row(results, "accuracy")
  text += (
    f" Mean accuracy went from {accuracy['reference']:.2%} to"
    f" {accuracy['model']:.2%}."
  )
  worst = results["worst"]
  if worst["significant"]:
    first = worst["pairs"][0]
    number_of = f"{worst['significant']} of {worst['tested']}"
    text += (
      f"\n\nIn {number_of} pairs of group and attribute errors grew more than"
      f" everyone's, beyond chance; most for **{first['group']}** in"
      f" **{first['attribute']}**: from {first['error_reference']:.1%} to"
      f" {first['error_model']:.1%} of {first['support']:,} samples."
    )
  else:
    text += (
      f"\n\nIn none of {worst['tested']} pairs of group and attribute did"
      " errors grow more than everyone's beyond chance. Small groups may hide a"
      " change."
    )
  return text


def from_results(
  results: dict[str, Any], pictures: Mapping[str, Any] | None = None
) -> list[elements.Section]:
  """Makes the sections of a report.

  Args:
    results: Of `audit`, or read from `results.json`.
    pictures: From the id of a sample to its pixels, shown beside the surest
      contradictions; None shows ids only.

  Returns:
    The sections.
  """
  sections = [
    elements.Section("Both models", [_overall(results)]),
    elements.Section(
      "Who is hurt" if results["labels"] else "Where they disagree",
      hurt.who(results),
    ),
  ]
  if results["calibration"]:
    sections.append(_calibration(results))
  sections.append(decisions.section(results, pictures or {}))
  sections.append(_mitigation(results))
  sections.append(card.section(results, SMALL))
  return sections


def provenance(results: dict[str, Any]) -> dict[str, Any]:
  """Gathers what a reader needs to repeat the audit.

  Args:
    results: The content of `results.json`.

  Returns:
    Names to values.
  """
  kept = ("command", "date", "versions", "files", "resamples", "seed", "level")
  return {name: results[name] for name in kept if name in results}


def _counted(number_of: int, what: str) -> str:
  return f"{number_of:,} {what}{'' if number_of == 1 else 's'}"


def _row(results: dict[str, Any], name: str) -> dict[str, Any]:
  return next(row for row in results["overall"] if row["quantity"] == name)


def _overall(results: dict[str, Any]) -> elements.Table:
  change: dict[str, float] = {}
  for row in results["overall"]:
    if row["partition"] is not None:
      size = abs(number(row["difference"]["estimate"]))
      before = change.get(row["partition"], 0.0)
      change[row["partition"]] = max(before, 0.0 if np.isnan(size) else size)
  shown = sorted(change, key=lambda name: -change[name])[:_MOST_PARTITIONS]
  rows: list[Any] = []
  for partition in (None, *(name for name in change if name in shown)):
    if partition is not None:
      rows.append(f"between groups of {partition}")
    rows += [
      [
        row["title"],
        interval(row["difference"]),
        number(row["reference"]),
        number(row["model"]),
      ]
      for row in results["overall"]
      if row["partition"] == partition
    ]
  notes = [
    f"Means over attributes that both models define. Differences: paired"
    f" {level(results)} intervals of {results['resamples']:,} bootstrap"
    " resamples of the samples; those of AUC and calibration error to first"
    " order.",
  ]
  if len(change) > len(shown):
    notes.append(
      f"Shown are the {len(shown)} partitions with the largest change of"
      f" {len(change)}; results.json has the others."
    )
  if not results["scored"]:
    notes.append(
      "AUC, calibration, Brier score and uncertainty need logits or"
      " probabilities."
    )
  if not results["labels"]:
    notes.append("Accuracy and all gaps but that of the rates need labels.")
  elif not results["train"]:
    notes.append(
      "Bias amplification is not defined without training labels and groups;"
      " shown is directional amplification, with signs from these labels."
    )
  columns = [
    "measure",
    elements.Column("difference", digits=4),
    elements.Column("dense", digits=4),
    elements.Column("compressed", digits=4),
  ]
  return elements.Table(columns, rows, notes=notes)


def _calibration(results: dict[str, Any]) -> elements.Section:
  found = results["calibration"]
  plots = [_diagram(found["pooled"], "All attributes")]
  if "worst" in found:
    name = found["worst"]["attribute"]
    plots.append(_diagram(found["worst"], name))
  return elements.Section(
    "Do probabilities still mean what they say?", [elements.Plots(plots)]
  )


def _diagram(curve: dict[str, Any], what: str) -> elements.Plot:
  series, errors = {}, {}
  for who in ("reference", "model"):
    parts = [
      array(curve[who][name]) for name in ("confidence", "frequency", "count")
    ]
    series[_NAMES[who]] = tuple(parts)
    gap = np.abs(np.nan_to_num(parts[0] - parts[1]))
    errors[who] = float((gap * parts[2]).sum() / max(parts[2].sum(), 1.0))
  title = (
    f"{what}: calibration error"
    f" {errors['reference']:.3f} dense, {errors['model']:.3f} compressed"
  )
  figure = curves.reliability_diagram(series, title=title)
  return elements.Plot(
    figure,
    alt=f"Reliability diagram. {title}",
    caption="Ten bins; the area of a point grows with its share of the"
    " samples. Below the diagonal probabilities are too high.",
  )


def _mitigation(results: dict[str, Any]) -> elements.Section:
  found = results["mitigation"]
  parts: list[Any] = []
  if "decisions" in found:
    digits = lambda title: elements.Column(title, digits=4)
    names = ("accuracy", "worst_accuracy", "equalized_odds")
    rows = [
      [_WAYS[way], *(number(found["decisions"][way][n]) for n in names)]
      for way in _WAYS
      if way in found["decisions"]
    ]
    columns = ["decisions of the", digits("accuracy")]
    columns += [digits("worst-group accuracy"), digits("equalized odds gap")]
    parts.append(
      elements.Table(
        columns,
        rows,
        notes=[
          "Means over attributes, and over the partitions. Thresholds are moved"
          " on validation data to the rate of positive labels there, without"
          " use of groups."
        ],
      )
    )
  if "override" in found:
    parts.append(_override(found["override"]))
  if found["needs"]:
    parts.append("\n".join(f"- {need}" for need in found["needs"]))
  return elements.Section("What may help without training", parts)


def _override(found: dict[str, Any]) -> elements.Plot:
  budgets = 100 * array(found["budgets"])
  chosen = 100 * array(found["susceptible"]["worst_accuracy"])
  control = 100 * array(found["control"]["worst_accuracy"])
  gain = chosen[-1] - chosen[0]
  title = (
    f"Deciding the {budgets[-1]:g}\u00a0% least sure by the dense model moves"
    f" worst-group accuracy by {points(gain / 100)}"
  )
  figure = figures.lines_with_bands(
    budgets.tolist(),
    {
      "least sure": (chosen, chosen, chosen),
      "at random": (control.mean(0), control.min(0), control.max(0)),
    },
    title=title,
    xlabel="decisions taken from the dense model, %",
    ylabel="worst-group accuracy, %",
  )
  return elements.Plot(
    figure,
    alt=title,
    caption="Samples about which the dense model itself is least sure, against"
    f" as many at random (mean and range of {len(control)} draws). Only the"
    " dense model tells which they are, so both must be run, or its decisions"
    " stored.",
  )
