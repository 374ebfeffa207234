"""Sections of the bias report on remedies: what helps, and what foretells.

Made of `results.json` alone; results without variants lack some of them.
"""

from typing import Any

import numpy as np

from effjax.studies import elements, figures

_SCORES = {
  "accuracy": elements.Column("accuracy", digits=4),
  "amplification_size": elements.Column("mean |bias amplification|", digits=4),
  "tcb_distance": elements.Column(
    "distance of threshold calibration bias from 1", digits=3
  ),
  "equal_opportunity": elements.Column(
    "equal opportunity difference", digits=3
  ),
}
_VARIANT_COLUMNS = (
  "accuracy",
  "auc",
  "uncertainty",
  "tcb",
  "amplification",
  "equal_opportunity",
)


def other_ways(
  results: dict[str, Any], titles: dict[str, str], quantities: Any
) -> elements.Section | None:
  """Tabulate the variants beside the arm that they follow.

  Args:
    results: The content of `results.json`.
    titles: Names of the arms.
    quantities: Titles and digits of the quantities.

  Returns:
    A section, or None where there are no variants.
  """
  rows = results.get("variants")
  if not rows:
    return None
  columns: list[Any] = ["variant"]
  columns += [
    elements.Column(quantities[name].title, digits=quantities[name].digits)
    for name in _VARIANT_COLUMNS
  ]
  lines: list[Any] = []
  for level in sorted({row["sparsity"] for row in rows}):
    lines.append(f"{100 * level:g} % sparsity" if level else "dense")
    beside = [row for row in results["table"] if row["sparsity"] == level]
    for row in [*beside, *(r for r in rows if r["sparsity"] == level)]:
      cells = [row[name] for name in _VARIANT_COLUMNS]
      lines.append([titles.get(row["arm"], row["arm"]), *cells])
  return elements.Section(
    "Other masks, scores and losses",
    [
      elements.Table(
        columns,
        lines,
        caption="Every variant is pruned after training in as many epochs, with"
        " a learning rate of its own. Masks of N:M and of channels spare the"
        " first and the last layer, as does the unstructured one beside them."
        " Models of one label are measured on their labels only.",
      )
    ],
  )


def repairs(
  results: dict[str, Any], titles: dict[str, str]
) -> elements.Section | None:
  """Show what each repair does to bias and to accuracy.

  Args:
    results: The content of `results.json`.
    titles: Names of the arms.

  Returns:
    A section, or None where nothing is pruned.
  """
  found = results.get("repairs")
  if not found:
    return None
  level = f"{100 * found['sparsity']:g} %"
  table = elements.Table(
    ["repair", *_SCORES.values()],
    [[row["name"], *(row[k] for k in _SCORES)] for row in found["rows"]],
    caption=f"Models {titles[found['arm']]} to {level} sparsity; means over"
    f" attributes, groups and {len(results['seeds'])} seeds with 95 %"
    " intervals. Thresholds are chosen on validation data; thresholds by group"
    " equalise true positive rates in one family of groups after another, at"
    " random where they must.",
  )
  changed = [r for r in found["rows"] if r["name"] not in ("dense", "pruned")]
  plots = []
  for score, words in (
    ("amplification_size", "change of mean |bias amplification|"),
    ("accuracy", "change of accuracy"),
  ):
    change = [_ends(row["change"][score]) for row in changed]
    size = [abs(c[0]) if np.isfinite(c[0]) else -1.0 for c in change]
    most = int(np.argmax(size))
    title = f"{changed[most]['name']}: {words} {change[most][0]:+.4f}"
    title = title[0].upper() + title[1:]
    figure = figures.dot_intervals(
      [row["name"] for row in changed],
      {"change": tuple(np.array(change).T)},
      title=title,
      xlabel=f"{words} against the pruned models",
      reference=0.0,
    )
    plots.append(elements.Plot(figure, alt=f"{title}; by repair"))
  plots.append(curve(results))
  parts = [table, elements.Plots(plots), _families(found)]
  return elements.Section("What repairs it", [x for x in parts if x])


def _families(found: dict[str, Any]) -> elements.Table | None:
  """Tabulate what thresholds by group do in each family."""
  if not found.get("families"):
    return None
  return elements.Table(
    [
      "groups of",
      elements.Column("equal opportunity difference, pruned", digits=3),
      elements.Column("thresholds by group", digits=3),
      elements.Column("change of accuracy", digits=4),
    ],
    [
      [row["name"], row["pruned"], row["repaired"], row["accuracy"]]
      for row in found["families"]
    ],
    caption="Thresholds that equalise the true positive rates of the groups of"
    " one family, chosen on validation data: what they do to that family on"
    " test data, means over attributes.",
  )


def _ends(cell: dict[str, Any]) -> tuple[float, float, float]:
  """Read an interval; JSON holds as null what is undefined."""
  low, middle, high = (
    np.nan if cell[k] is None else cell[k] for k in ("low", "estimate", "high")
  )
  return middle, low, high


def curve(results: dict[str, Any]) -> elements.Plot:
  """Plot bias against the share of decisions that the dense model overrides.

  Args:
    results: The content of `results.json`.

  Returns:
    A plot of the least sure decisions and of random ones.
  """
  found = results["repairs"]
  level = f"{100 * found['sparsity']:g} %"
  names = {"susceptible": "least sure decisions", "random": "random decisions"}
  series = {
    names[name]: tuple(np.array([_ends(cell) for cell in cells]).T)
    for name, cells in found["curve"].items()
  }
  pruned = next(r for r in found["rows"] if r["name"] == "pruned")
  dense = next(r for r in found["rows"] if r["name"] == "dense")
  title = (
    f"Overriding by the dense model at {level}: |bias amplification| from"
    f" {_ends(pruned['amplification_size'])[0]:.3f}, dense"
    f" {_ends(dense['amplification_size'])[0]:.3f}"
  )
  figure = figures.lines_with_bands(
    [100 * b for b in found["budgets"]],
    series,
    title=title,
    xlabel="overridden decisions, %",
    ylabel="mean |bias amplification|",
    scale="log",
    reference=("dense", *_ends(dense["amplification_size"])),
  )
  return elements.Plot(
    figure,
    alt=f"{title}; against the budget",
    caption="The decisions of which the dense model is least sure, chosen"
    " without looking at the pruned one, against as many random ones; mean"
    f" and 95 % interval over {len(results['seeds'])} seeds.",
  )


def foretold(
  results: dict[str, Any], titles: dict[str, str]
) -> elements.Section | None:
  """Show what the dense model tells about the pruned one beforehand.

  Args:
    results: The content of `results.json`.
    titles: Names of the arms.

  Returns:
    A section, or None where nothing is pruned.
  """
  rows = results.get("foretold")
  if not rows:
    return None
  levels = sorted({row["sparsity"] for row in rows})
  arms = list(dict.fromkeys(row["arm"] for row in rows))
  at = {(row["arm"], row["sparsity"]): row for row in rows}
  series = {
    titles[arm]: tuple(
      np.array([_ends(at[arm, level]["flips"]) for level in levels]).T
    )
    for arm in arms
  }
  areas = [_ends(row["flips"])[0] for row in rows]
  title = (
    "Low confidence of the dense model foretells flips: area"
    f" {min(areas):.2f} to {max(areas):.2f}"
  )
  figure = figures.lines_with_bands(
    levels,
    series,
    title=title,
    xlabel="sparsity",
    ylabel="area under the ROC curve",
    scale="sparsity",
    target=("no use", 0.5),
  )
  criteria = list(rows[0]["gains"])
  table = elements.Table(
    ["sparsity", *(elements.Column(name, digits=2) for name in criteria)],
    [
      line
      for arm in arms
      for line in (
        titles[arm],
        *(
          [f"{100 * level:g} %"]
          + [at[arm, level]["gains"][name] for name in criteria]
          for level in levels
        ),
      )
    ],
    caption="Spearman's correlation over attributes of a criterion of the dense"
    " model with the growth of bias amplification; mean and 95 % interval over"
    f" {len(results['seeds'])} seeds.",
  )
  return elements.Section(
    "What the dense model foretells",
    [
      elements.Plots([elements.Plot(figure, alt=f"{title}; by sparsity")]),
      table,
    ],
  )


def one_or_many(results: dict[str, Any]) -> elements.Section | None:
  """Compare joint models with models of one label.

  Args:
    results: The content of `results.json`.

  Returns:
    A section, or None where there are no models of one label.
  """
  rows = results.get("one_or_many")
  if not rows:
    return None
  column = lambda title: elements.Column(title, digits=4)
  table = elements.Table(
    ["sparsity", *map(column, ("one label", "joint", "difference"))],
    [
      [
        f"{100 * row['sparsity']:g} %" if row["sparsity"] else "dense",
        row["single"],
        row["joint"],
        row["difference"],
      ]
      for row in rows
    ],
    caption="Mean bias amplification of models trained for one label each and"
    f" of joint ones, on {', '.join(rows[0]['attributes'])}; 95 % intervals"
    f" over {len(results['seeds'])} seeds, of the paired difference in the last"
    " column.",
  )
  return elements.Section("One model for each label, or one for all", [table])
