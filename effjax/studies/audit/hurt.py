"""Who is hurt: groups and attributes whose errors grow."""

from typing import Any

import numpy as np

from effjax.studies import elements, figures
from effjax.studies.audit.shown import (
  MOST_COLUMNS,
  MOST_ROWS,
  SMALL,
  array,
  interval,
  level,
  number,
  points,
)


def who(results: dict[str, Any]) -> list[Any]:
  """Shows the groups and attributes that changed most."""
  labelled = results["labels"]
  found = results["by_group"]
  parts = [
    array(found["excess_error"][end]) if labelled else array(found["flip_rate"])
    for end in ("estimate", "low", "high")
  ]
  quantity = "excess error" if labelled else "share of decisions that differ"
  support = [group["support"] for group in results["groups"]]
  names = [
    f"{group['name']} ({group['support']:,})" for group in results["groups"]
  ]
  size = np.abs(np.nan_to_num(parts[0]))
  groups = np.argsort(-size.max(axis=1), kind="stable")
  attributes = np.argsort(-size.max(axis=0), kind="stable")
  shown: list[Any] = []
  if not np.isfinite(parts[0]).any():
    shown.append("Nothing is defined for any pair of group and attribute.")
  elif len(attributes) == 1:
    shown.append(_dots(results, parts, names, groups[:MOST_ROWS], quantity))
  else:
    shown.append(_map(results, parts, names, groups, attributes, quantity))
  if labelled:
    shown.append(_worst(results))
  small = [n for n, s in zip(names, support, strict=True) if s < SMALL]
  if small:
    shown.append(
      f"Groups of fewer than {SMALL} samples say little, and their intervals"
      f" are too narrow: {', '.join(small)}."
    )
  return shown


def _dots(results, parts, names, groups, quantity) -> elements.Plot:
  columns = [100 * part[groups, 0] for part in parts]
  top = int(np.nanargmax(parts[0][:, 0]))
  title = (
    f"{results['groups'][top]['name']}: {quantity}"
    f" {_size(results, parts[0][top, 0])}"
  )
  figure = figures.dot_intervals(
    [names[g] for g in groups],
    {quantity: tuple(columns)},
    title=title,
    xlabel=f"{quantity}, {_unit(results)}",
    reference=0.0,
  )
  return elements.Plot(
    figure, alt=f"{title}; by group", caption=_caption(results, quantity)
  )


def _map(results, parts, names, groups, attributes, quantity) -> elements.Plot:
  """Plots groups and attributes, the more numerous of them as rows."""
  value, low, high = (100 * part for part in parts)
  labels = results["attributes"]
  top = np.unravel_index(np.nanargmax(value), value.shape)
  title = (
    f"{results['groups'][top[0]]['name']}, {labels[top[1]]}: {quantity}"
    f" {_size(results, value[top] / 100)}"
  )
  wide = len(groups) > len(attributes)
  limits = (MOST_ROWS, MOST_COLUMNS) if wide else (MOST_COLUMNS, MOST_ROWS)
  groups, attributes = groups[: limits[0]], attributes[: limits[1]]
  cell = np.ix_(groups, attributes)
  value, low, high = value[cell], low[cell], high[cell]
  notes = [
    [
      ""
      if np.isnan(x) or np.isnan(y)
      else f"{x:.1f} to {y:.1f}".replace("-", "\u2212")
      for x, y in zip(*pair, strict=True)
    ]
    for pair in zip(low, high, strict=True)
  ]
  notes = np.array(notes)
  rows, columns = [names[g] for g in groups], [labels[a] for a in attributes]
  if not wide:
    rows, columns = columns, rows
    value, notes = value.T, notes.T
  figure = figures.heat_map(
    value,
    rows,
    columns,
    title=title,
    ylabel=f"{quantity}, {_unit(results)}; number of samples in brackets",
    centre=0.0 if results["labels"] else None,
    digits=1,
    notes=notes if results["labels"] else None,
  )
  # Names such as "race=White" are wider than the columns otherwise.
  figure.axes[0].tick_params(axis="x", labelsize=7)
  rest = (
    f" Shown are {len(groups)} of {len(results['groups'])} groups and"
    f" {len(attributes)} of {len(labels)} attributes, those with the largest"
    " values; results.json has all."
  )
  all_shown = len(groups) == len(names) and len(attributes) == len(labels)
  return elements.Plot(
    figure,
    alt=f"{title}; groups by attributes",
    caption=_caption(results, quantity) + ("" if all_shown else rest),
  )


def _unit(results: dict[str, Any]) -> str:
  return "percentage points" if results["labels"] else "%"


def _size(results: dict[str, Any], share: float) -> str:
  return points(share) if results["labels"] else f"{share:.1%}"


def _caption(results: dict[str, Any], quantity: str) -> str:
  if not results["labels"]:
    return f"The {quantity}, by group."
  return (
    "Excess error: growth of the group's error rate minus growth of everyone's,"
    f" in percentage points; paired {level(results)} bootstrap intervals, each"
    " for itself. Number of samples in brackets."
  )


def _worst(results: dict[str, Any]) -> elements.Table:
  worst = results["worst"]
  share = lambda title: elements.Column(title, "%", digits=1, scale=100)
  rows = [
    [
      f"{pair['group']}, {pair['attribute']}",
      pair["support"],
      number(pair["error_reference"]),
      number(pair["error_model"]),
      interval(pair["excess_error"]),
      number(pair["fnr_change"]["estimate"]),
      number(pair["fpr_change"]["estimate"]),
      pair["broken"],
      pair["mended"],
      _p(pair["p_holm"]),
    ]
    for pair in worst["pairs"]
  ]
  columns = [
    "group, attribute",
    "samples",
    share("dense error"),
    share("compressed error"),
    share("excess error"),
    share("FNR change"),
    share("FPR change"),
    "broken",
    "mended",
    elements.Column("p (Holm)"),
  ]
  return elements.Table(
    columns,
    rows,
    caption="The pairs of group and attribute that are hurt most"
    if rows
    else "No pair has an error that grew more than everyone's",
    notes=[
      "Broken: right in the dense model, wrong now; mended: the reverse. p: how"
      " often a group of as many samples, drawn from everyone, has as many more"
      " broken than mended decisions, corrected by Holm for"
      f" {worst['tested']} pairs. Pairs that pass come first, in order of the"
      " excess."
    ],
  )


def _p(value: Any) -> str:
  value = number(value)
  if np.isnan(value):
    return "\u2013"
  return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
