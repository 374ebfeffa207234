"""The report of the study of adapters."""

from collections.abc import Mapping
from typing import Any

from effjax.studies import elements, figures, origin


def summary(results: Mapping[str, Any]) -> str:
  """Say in a few sentences what was found.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  table = results["table"]
  best = min(table, key=lambda row: row["after"]["estimate"])
  count = len(results["seeds"])
  judged = (
    f"**{results['lowered']} of {len(table)} arms lower it beyond chance**"
    if count > 1
    else "one seed says nothing of chance"
  )
  return (
    f"{results['model']} learned to go on with tales of the brothers Grimm in"
    f" {results['steps']} steps of {results['rows']} rows of"
    f" {results['length']} tokens. Its loss on tales that it never saw was"
    f" {results['base']['test']:.3f} before; {judged}. The lowest is"
    f" {best['after']['estimate']:.3f}, by {best['title']},"
    f" which trains {100 * best['share']:.3g} % of the numbers.{_edges(table)}"
  )


def _edges(table: Any) -> str:
  """Name the arms whose learning rate may not be the best."""
  found = [row["title"] for row in table if row["at_the_edge"]]
  if not found:
    return ""
  return (
    f" The learning rate of {', '.join(found)} is at the edge of those that"
    " were tried: another might be better still."
  )


def from_results(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the sections of the report.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections.
  """
  return [
    elements.Section("What was learned", [plot(results), _table(results)]),
    elements.Section("What it writes", _texts(results)),
    elements.Section("Learning rates", [_tried(results)]),
    elements.Section("The tales", [_tales(results)]),
  ]


def plot(results: Mapping[str, Any]) -> elements.Plot:
  """Draw the loss of every arm on tales that it never saw.

  Args:
    results: The content of `results.json`.

  Returns:
    The plot.
  """
  table, before = results["table"], results["base"]["test"]
  best = min(table, key=lambda row: row["after"]["estimate"])
  title = f"The held-out loss falls furthest by {best['title']}"
  series: dict[str, Any] = {
    "after": elements.ends(row["after"] for row in table)
  }
  return elements.Plot(
    figures.dot_intervals(
      [row["title"] for row in table],
      series,
      title=title,
      xlabel="held-out loss, nats a token; the line is the loss before",
      reference=before,
    ),
    alt=f"{title}; before it was {before:.3f}",
    caption=_caption(results),
  )


def _caption(results: Mapping[str, Any]) -> str:
  sizes = results["data"]["dialogues"]
  return (
    f"Mean over the tokens of {sizes['test']} responses, and over seeds"
    f" {', '.join(map(str, results['seeds']))}; 95 % intervals of Student's t"
    " over seeds, which differ in initial values and in the order of the"
    " dialogues. The tales are the same: for others the intervals are too"
    " narrow."
  )


def _table(results: Mapping[str, Any]) -> elements.Table:
  columns = [
    "arm",
    elements.Column("trained numbers"),
    elements.Column("of all", "%", digits=2, scale=100),
    elements.Column("held-out loss", digits=3),
    elements.Column("change", digits=3),
    elements.Column("time", "CPU s", digits=0),
  ]
  rows: list[Any] = [
    ["before", 0, 0.0, results["base"]["test"], 0.0, None],
    *(
      [
        row["title"],
        row["trained"],
        row["share"],
        row["after"],
        row["change"],
        row["cpu"]["estimate"],
      ]
      for row in results["table"]
    ),
  ]
  return elements.Table(
    columns,
    rows,
    caption=_caption(results),
    notes=[
      "The time is that of training, compilation included; that of RoSA"
      " includes its warm-up and the choice of its places.",
    ],
  )


def _texts(results: Mapping[str, Any]) -> list[Any]:
  shown = results["shown"]
  rows = [
    ["the tale", shown["response"]],
    ["before", results["base"]["text"]],
    *([row["title"], row["text"]] for row in results["table"]),
  ]
  return [
    elements.Prose(shown["prompt"]),
    elements.Table(
      ["", "what comes next"],
      rows,
      caption="The most likely tokens, by the first seed, cut off; one test"
      " dialogue, not chosen.",
    ),
  ]


def _tried(results: Mapping[str, Any]) -> elements.Table:
  rows = [
    [row["title"], f"{one['rate']:g}", one["validation"]]
    for row in results["table"]
    for one in results["tried"][row["arm"]]
  ]
  return elements.Table(
    ["arm", "learning rate", elements.Column("validation loss", digits=3)],
    rows,
    caption="On other tales, by the first seed; the lowest was taken. Before"
    f" it was {results['base']['validation']:.3f}.",
  )


def _tales(results: Mapping[str, Any]) -> elements.Table:
  found = results["data"]
  rows = [
    [part, found["dialogues"][part], "; ".join(titles)]
    for part, titles in found["tales"].items()
  ]
  return elements.Table(
    ["part", "dialogues", "tales"],
    rows,
    caption="A dialogue is a passage and what comes after it; no tale is in two"
    f" parts. {found['too_long']} dialogues were left out as too long.",
  )


def provenance(
  results: Mapping[str, Any], config: Any = None
) -> dict[str, Any]:
  """Gather what a reader needs to repeat the study.

  Args:
    results: The content of `results.json`.
    config: The configuration, or None.

  Returns:
    Names to values.
  """
  rates = {row["title"]: row["rate"] for row in results["table"]}
  return origin.facts(results, config, rates=rates)
