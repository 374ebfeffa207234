"""The report of the bias study: tables, verdicts, plots and pictures."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax.data import tabular
from effjax.studies import elements, figures, origin, report
from effjax.studies.bias import flips, harm, remedies, uneven, votes
from effjax.studies.bias.measures import QUANTITIES, Outcomes
from effjax.studies.bias.problems import Problem

ARMS = {
  "dense": "dense",
  "ri": "pruned while training",
  "pt": "pruned after training",
}
# What claims may be judged on besides.
_JUDGED = {**ARMS, "single": "models of one label"}
_COLUMNS = (
  "accuracy",
  "auc",
  "uncertainty",
  "interdependence",
  "tcb",
  "ece",
  "amplification",
  "backdoor",
)
_PLOTS = (
  "auc",
  "uncertainty",
  "interdependence",
  "tcb",
  "amplification",
  "backdoor",
)
_IDEAL = {"one": 1.0, "zero": 0.0}


def build(
  place: pathlib.Path,
  config: Any,
  problem: Problem,
  outcomes: Outcomes,
  parts: Sequence[Any],
  results: dict[str, Any],
) -> pathlib.Path:
  """Write `report.html`.

  Args:
    place: Directory of the study.
    config: The configuration.
    problem: The data.
    outcomes: What was measured on every model.
    parts: The stages, with the logits of their models.
    results: The content of `results.json`.

  Returns:
    The path of the report.
  """
  sections = from_results(results)
  overturned = flips.section(config, problem, parts)
  if overturned is not None:
    sections.insert(3, overturned)
  return report.build(
    place / "report.html",
    title=results["title"],
    summary=summary(results),
    sections=sections,
    provenance=provenance(results, config),
  )


def provenance(results: dict[str, Any], config: Any = None) -> dict[str, Any]:
  """Gather what a reader needs to repeat the study.

  Args:
    results: The content of `results.json`.
    config: The configuration, or None.

  Returns:
    Names to values.
  """
  more = {
    "seeds": ", ".join(map(str, results["seeds"])),
    "learning rates": results["learning_rates"],
  }
  return origin.facts(results, config, **more)


def _row(results: dict[str, Any], arm: str, sparsity: float) -> dict[str, Any]:
  for row in results["table"]:
    if row["arm"] == arm and row["sparsity"] == sparsity:
      return {k: _defined_or_nan(v) for k, v in row.items()}
  raise ValueError(f"the table has no row {arm} at {sparsity}")


def _defined_or_nan(value: Any) -> Any:
  """Read what JSON holds as null as NaN."""
  if isinstance(value, dict):
    return {k: np.nan if v is None else v for k, v in value.items()}
  return value


def _levels(results: dict[str, Any], arm: str) -> list[float]:
  return [r["sparsity"] for r in results["table"] if r["arm"] == arm]


def _arms(results: dict[str, Any]) -> list[str]:
  present = {row["arm"] for row in results["table"]}
  return [arm for arm in ("ri", "pt") if arm in present]


def _predicted(attributes: list[str]) -> str:
  return (
    attributes[0] if len(attributes) == 1 else f"{len(attributes)} attributes"
  )


def summary(results: dict[str, Any]) -> str:
  """Say in a few sentences what was found.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  sizes = results["sizes"]
  dense = _row(results, "dense", 0.0)
  text = (
    f"{len(results['runs'])} models with {results['parameters']:,} parameters"
    f" predict {_predicted(results['attributes'])} of"
    f" {sizes['test']:,} test {_unit(results)}, trained on"
    f" {sizes['train']:,} with"
    f" {len(results['seeds'])} seeds. The dense models reach a mean AUC of"
    f" {dense['auc']['estimate']:.3f}."
  )
  for arm in _arms(results):
    top = _levels(results, arm)[-1]
    row = _row(results, arm, top)
    text += (
      f" Models **{ARMS[arm]}** to {top:.1%} sparsity have"
      f" {row['auc']['estimate']:.3f}, with"
      f" {row['uncertainty']['estimate']:.0%} of predictions uncertain"
      f" (dense {dense['uncertainty']['estimate']:.0%})"
    )
    ends = [r["amplification"]["estimate"] for r in (row, dense)]
    if np.isfinite(ends).all():
      text += " and bias amplification {:+.3f} (dense {:+.3f})".format(*ends)
    text += "."
  text += "\n\nMasks simulate sparsity: a pruned model is no faster by itself."
  if results["data"].get("name") in tabular.LAYOUTS:
    text += (
      " The data are of real people: they serve to study what compression does,"
      " not to decide about anybody."
    )
  elif results["data"].get("name") != "celeba":
    text += (
      " The attributes follow from the class or the pixels of a picture; they"
      " stand in for social attributes in method only."
    )
  return text


def _unit(results: dict[str, Any]) -> str:
  """Say what a sample is."""
  table = results["data"].get("name") in tabular.LAYOUTS
  return "persons" if table else "pictures"


def from_results(results: dict[str, Any]) -> list[elements.Section]:
  """Make the sections that need nothing but `results.json`.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections of a report.
  """
  seeds = len(results["seeds"])
  note = (
    f"Mean over {len(results['attributes'])} attributes and {seeds} seeds"
    f" ({', '.join(map(str, results['seeds']))}); ± is the 95 % interval of"
    f" Student's t over seeds; {results['sizes']['test']:,} test"
    f" {_unit(results)}."
  )
  sections = [
    elements.Section("The models compared", [_table(results, note)]),
  ]
  if results["verdicts"]:
    judged = [elements.Verdict(**_named(v)) for v in results["verdicts"]]
    caption = (
      "A claim is reproduced if its whole 95 % interval lies where the claim"
      " says, not reproduced if it lies outside, inconclusive otherwise."
      " An interval without width means that all seeds give the same value."
      + (" Three seeds make this provisional." if seeds <= 3 else "")
    )
    sections.append(
      elements.Section(
        "The claims judged", [elements.Verdicts(judged, caption=caption)]
      )
    )
  if _arms(results):
    levels = {arm: _levels(results, arm) for arm in _arms(results)}
    plots = [
      plot(results, name, note) for name in _PLOTS if _defined(results, name)
    ]
    sections.append(
      elements.Section("What grows with sparsity", [elements.Plots(plots)])
    )
    sections += [
      section
      for section in (
        harm.who(results, ARMS, levels),
        uneven.section(results, ARMS),
        votes.section(results, ARMS),
        remedies.repairs(results, ARMS),
        remedies.foretold(results, ARMS),
        remedies.other_ways(results, ARMS, QUANTITIES),
        remedies.one_or_many(results),
      )
      if section is not None
    ]
  sections.append(_meaning(results))
  return sections


def _named(verdict: dict[str, Any]) -> dict[str, Any]:
  return {
    **_defined_or_nan(verdict),
    "arm": _JUDGED.get(verdict["arm"], verdict["arm"]),
  }


def _defined(results: dict[str, Any], name: str) -> bool:
  values = [row[name]["estimate"] for row in results["table"]]
  return bool(np.isfinite(np.array(values, float)).any())


def _table(results: dict[str, Any], note: str) -> elements.Table:
  shown = [name for name in _COLUMNS if _defined(results, name)]
  columns: list[Any] = ["sparsity"]
  columns += [
    elements.Column(QUANTITIES[name].title, digits=QUANTITIES[name].digits)
    for name in shown
  ]
  rows: list[Any] = []
  for arm in ("dense", *_arms(results)):
    rows.append(ARMS[arm])
    for level in _levels(results, arm):
      row = _row(results, arm, level)
      name = "dense" if arm == "dense" else f"{100 * level:g} %"
      rows.append([name, *(row[n] for n in shown)])
  return elements.Table(columns, rows, caption=note)


def plot(results: dict[str, Any], name: str, note: str = "") -> elements.Plot:
  """Plot a quantity of every arm against sparsity.

  Args:
    results: The content of `results.json`.
    name: A name of `QUANTITIES`.
    note: The caption.

  Returns:
    A plot.
  """
  quantity = QUANTITIES[name]
  arms = _arms(results)
  levels = sorted({s for arm in arms for s in _levels(results, arm)})
  pick = lambda arm, s: (
    _row(results, arm, s)[name] if s in _levels(results, arm) else None
  )
  ends = ("estimate", "low", "high")
  series: dict[str, Any] = {
    ARMS[arm]: tuple(
      [np.nan if (cell := pick(arm, s)) is None else cell[end] for s in levels]
      for end in ends
    )
    for arm in arms
  }
  dense = _row(results, "dense", 0.0)[name]
  last = [_row(results, arm, _levels(results, arm)[-1])[name] for arm in arms]
  top = max(last, key=lambda cell: abs(cell["estimate"] - dense["estimate"]))
  title = (
    f"{quantity.title[0].upper()}{quantity.title[1:]}: {dense['estimate']:.3f}"
    f" dense, {top['estimate']:.3f} at {100 * levels[-1]:g}\u00a0%"
  )
  ideal = _IDEAL.get(quantity.better)
  figure = figures.lines_with_bands(
    levels,
    series,
    title=title,
    xlabel="sparsity",
    ylabel=quantity.title,
    scale="sparsity",
    reference=("dense", *(dense[end] for end in ends)),
    target=None if ideal is None else ("ideal", ideal),
  )
  return elements.Plot(figure, alt=f"{title}; against sparsity", caption=note)


def _meaning(results: dict[str, Any]) -> elements.Section:
  marks = ", ".join(
    f"{name} goes along with {attribute}"
    for name, attribute in results["marked"].items()
  )
  marks = f" Planted marks: {marks}." if marks else ""
  return elements.Section(
    "What the numbers mean",
    [
      "- **uncertain predictions**: share with a probability between 0.1 and"
      " 0.9\n"
      "- **interdependence**: how well one predicted attribute follows from the"
      " others (R² of a linear fit)\n"
      "- **threshold calibration bias**: how often the rarer value is predicted"
      " over how often it is there; 1 is calibrated\n"
      "- **calibration error**: mean distance of probability and frequency in"
      " ten bins\n"
      "- **bias amplification**: share of the stereotyped group among predicted"
      " positives minus its share among labelled ones, over the pairs of"
      " attribute and identity group that differ in training\n"
      "- **equal opportunity difference**: the largest minus the smallest true"
      " positive rate of the groups of a family\n"
      "- **backdoor amplification**: the same for a planted mark that says"
      " nothing at test time",
      f"Identity groups: {', '.join(results['groups'])}.{marks}"
      f" {_lengths(results)} Learning rates of the arms are in the provenance"
      " below.",
    ],
  )


def _lengths(results: dict[str, Any]) -> str:
  """Say for how long the arms train."""
  epochs = results.get("epochs")
  if not epochs or epochs["base"] + epochs["pt"] == epochs["dense"]:
    return "Every arm trains for the same number of epochs."
  return (
    f"Models train for {epochs['dense']} epochs; those pruned after training"
    f" for another {epochs['pt']} after {epochs['base']} dense ones."
  )
