"""The report of the study of load."""

from collections.abc import Mapping
from typing import Any

from effjax.studies import elements, figures
from effjax.studies.edit import findings, page

MIXES = page.MIXES
provenance = page.provenance
_PROTOCOL, _STOP = "tuned", "end"


def summary(results: Mapping[str, Any]) -> str:
  """Say at which loads the claims hold.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  densities = [load["density"] for load in results["loads"]]
  lines = []
  for claim, (text, _) in findings.CLAIMS.items():
    for mix in results["mixes"]:
      judged = rows(results, claim, mix)
      held = {
        result: [
          f"{density:.2g}"
          for density, row in zip(densities, judged, strict=True)
          if row["result"] == result
        ]
        for result in ("reproduced", "not reproduced", "inconclusive")
      }
      told = "; ".join(
        f"**{result}** at {', '.join(where)}"
        for result, where in held.items()
        if where
      )
      lines.append(f"- {text}, {MIXES[mix]}: {told}")
  wider = max(
    (page.beyond(results | load) for load in results["loads"]), key=len
  )
  return (
    f"Small language models, {len(results['seeds'])} for each of"
    f" {len(densities)} worlds, which fill them with"
    f" {min(densities):.2g} to {max(densities):.2g} bits of facts for each"
    f" parameter of a block, were edited by {len(results['arms'])} arms at"
    f" {len(results['grid'])} learning rates{wider},"
    f" {results['facts_edited']} facts at a time. With learning rates and arms"
    " chosen on other edits, by bits for a parameter:\n\n" + "\n".join(lines)
  )


def from_results(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the sections of the report.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections.
  """
  return [
    elements.Section(
      "By load",
      [
        part
        for claim in findings.CLAIMS
        for part in (plot(results, claim), _table(results, claim))
      ],
    ),
    elements.Section(
      "Every arm", [_arms(results, mix) for mix in results["mixes"]]
    ),
    elements.Section("Before the edits", [_pretrained(results)]),
  ]


def plot(results: Mapping[str, Any], claim: str) -> elements.Plot:
  """Draw by how much what a claim is about is better, by load.

  Args:
    results: The content of `results.json`.
    claim: A key of `findings.CLAIMS`.

  Returns:
    The plot.
  """
  title = {
    "rank": "Low rank beside full rank, as models fill up",
    "blocks": "Some blocks beside all, as models fill up",
  }[claim]
  series: dict[str, Any] = {
    MIXES[mix]: elements.ends(
      row["difference"] for row in rows(results, claim, mix)
    )
    for mix in results["mixes"]
  }
  return elements.Plot(
    figures.lines_with_bands(
      [load["density"] for load in results["loads"]],
      series,
      title=title,
      xlabel="bits of facts for each parameter of a block",
      ylabel="difference of scores; above 0 the claim holds",
      target=("equal", 0.0),
    ),
    alt=title,
    caption=f"{findings.CLAIMS[claim][0]}. The arm that stands for it and all"
    f" learning rates were chosen on other edits. Models of each load:"
    f" {len(results['seeds'])}; edits of each: {results['reported']}; intervals"
    " of 95 % of Student's t over models.",
  )


def _table(results: Mapping[str, Any], claim: str) -> elements.Table:
  titles = findings.titles(results)
  cells: list[Any] = []
  for mix in results["mixes"]:
    cells.append(f"Trained {MIXES[mix]}")
    for load, row in zip(
      results["loads"], rows(results, claim, mix), strict=True
    ):
      cells.append(
        [
          f"{load['density']:.2g} bits, {load['subjects']} subjects",
          titles[row["arms"][0]],
          row["difference"],
          row["result"],
        ]
      )
  return elements.Table(
    [
      "load",
      "chosen arm",
      elements.Column("score beyond full, all blocks", digits=3),
      "claim",
    ],
    cells,
    f"{findings.CLAIMS[claim][0]}: by load, at the end of training.",
    [
      "Reproduced where the interval lies above 0, not reproduced where it lies"
      f" below; no correction for {4 * len(results['loads'])} comparisons."
    ],
  )


def _arms(results: Mapping[str, Any], mix: str) -> elements.Table:
  titles = findings.titles(results)
  found = [
    {row["arm"]: row for row in load["table"] if row["mix"] == mix}
    for load in results["loads"]
  ]
  every = [row for rows_of in found for row in rows_of.values()]
  notes = ["Intervals of 95 % by resampling edits and models."]
  notes += findings.edge_notes(every, titles)
  heads = [
    elements.Column(f"{load['density']:.2g} bits", digits=2)
    for load in results["loads"]
  ]
  return elements.Table(
    ["arm", *heads],
    [
      [title, *(own[name]["score"] for own in found)]
      for name, title in titles.items()
    ],
    f"Score by load, trained {MIXES[mix]}; learning rates as tuned.",
    notes,
  )


def _pretrained(results: Mapping[str, Any]) -> elements.Table:
  return elements.Table(
    ["load", elements.Column("facts recalled", "%", digits=2, scale=100)],
    [
      [
        f"{load['density']:.2g} bits, seed {model['seed']}",
        min(model["recall"][family] for family in load["families"]),
      ]
      for load in results["loads"]
      for model in load["pretrained"]
    ],
    "Share of the facts of a world that a model recalls before any edit.",
  )


def rows(
  results: Mapping[str, Any], claim: str, mix: str
) -> list[Mapping[str, Any]]:
  """Take the judgements of a claim, at learning rates that were tuned.

  Args:
    results: The content of `results.json`.
    claim: A key of `findings.CLAIMS`.
    mix: What was trained on.

  Returns:
    A row for each load.
  """
  return [
    row
    for load in results["loads"]
    for row in load["claims"]
    if (row["claim"], row["mix"], row["protocol"], row["stop"])
    == (claim, mix, _PROTOCOL, _STOP)
  ]
