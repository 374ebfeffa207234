"""The report of the study of edits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from effjax.studies import elements, figures, origin
from effjax.studies.edit import (
  closed_forms_page,
  findings,
  interplay_page,
  nesting,
  relearning_page,
)

MIXES = {
  "behemoth": "with other facts mixed in",
  "edit_only": "on the new facts alone",
}

# Of whom success is drawn against preservation: by rank, and by blocks.
_SHOWN = ("full", "full_attention", "full_mlp", "lora1", "lora4", "lora64")
_STOPS = {"end": "the end", "first success": "first success"}
# Related facts, none of which is trained on.
_RELATED = {
  "with_same_value": "same relation, and the value of an edited fact",
  "with_same_rel": "same relation, other values",
  "same_edges_diff_rel": "edited subjects, other relations",
}


def summary(results: Mapping[str, Any]) -> str:
  """Say in a few sentences what was found.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  told = []
  for claim in results["claims"]:
    if claim["protocol"] == "tuned" and claim["stop"] == "end":
      told.append(
        f"{claim['text']}, {_mix(claim['mix'])}: **{claim['result']}**"
      )
  if len(results["seeds"]) < 2:
    told.append("one pretrained model says nothing of others")
  failed = results["failed"]
  lost = f" {failed} runs diverged." if failed else ""
  return (
    f"{results['facts_edited']} facts at a time were changed in"
    f" {len(results['seeds'])} small language models that knew their world"
    f" ({results['density']:.2g} bits of facts for each parameter of a block),"
    f" by {len(results['arms'])} arms at {len(results['grid'])} learning"
    f" rates{beyond(results)}: {results['count']} runs of {results['steps']}"
    f" steps.{lost} With the learning rate of each arm chosen on other"
    " edits:\n\n" + "\n".join(f"- {line}" for line in told)
  )


def beyond(results: Mapping[str, Any]) -> str:
  """Say whether some arms were tried beyond the grid of learning rates.

  Args:
    results: The content of `results.json`, or a part with `rates` and `grid`.
  """
  wider = len(results["rates"]) > len(results["grid"])
  return ", and beyond them where the best was the last" if wider else ""


def from_results(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the sections of the report.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections.
  """
  mixes = results["mixes"]
  return [
    elements.Section("The claims", [_verdicts(results)]),
    elements.Section(
      "Success against preservation",
      [
        part
        for mix in mixes
        for part in (
          plot(results, mix),
          tradeoff(results, mix),
          _table(results, mix),
        )
      ],
    ),
    *closed_forms_page.sections(results),
    elements.Section("What else moves", [_side_effects(results)]),
    *([nesting.section(results, MIXES)] if results["nested"] else []),
    *(
      [relearning_page.section(results, MIXES)] if results["relearning"] else []
    ),
    interplay_page.section(results, MIXES),
    elements.Section("At the same learning rate", [_matched(results)]),
    elements.Section("Before the edits", [_pretrained(results)]),
  ]


def provenance(
  results: Mapping[str, Any], config: Any = None
) -> dict[str, Any]:
  """Gather what a reader needs to repeat the study.

  Args:
    results: The content of `results.json`.
    config: The configuration, or None.

  Returns:
    Names to values, see `origin.facts`.
  """
  seeds = ", ".join(map(str, results["seeds"]))
  return origin.facts(results, config, seeds=seeds)


def plot(results: Mapping[str, Any], mix: str) -> elements.Plot:
  """Draw how well every arm edits and what it preserves.

  Args:
    results: The content of `results.json`.
    mix: What was trained on.

  Returns:
    The plot.
  """
  rows = _rows(results, mix)
  best = findings.best(rows)
  titles = findings.titles(results)
  title = f"{titles[best['arm']]} has the best score, {_mix(mix)}"
  ends = lambda name: elements.ends(row[name] for row in rows)
  series: dict[str, Any] = {
    "edited facts": ends("efficacy"),
    "facts preserved": ends("preservation"),
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
    caption=_caption(results),
  )


def tradeoff(results: Mapping[str, Any], mix: str) -> elements.Plot:
  """Draw what every learning rate makes of success and preservation.

  Args:
    results: The content of `results.json`.
    mix: What was trained on.

  Returns:
    The plot, of arms that differ in rank or in blocks, with the front of all.
  """
  rows = [row for row in results["matched"] if row["mix"] == mix]
  means = lambda row, name: elements.ends(row[name])[0]
  points = [
    point
    for row in rows
    for point in zip(
      means(row, "preservation"), means(row, "efficacy"), strict=True
    )
    if not math.isnan(point[0])
  ]
  titles = findings.titles(results)
  title = f"What learning rates trade, {_mix(mix)}"
  series: dict[str, Any] = {
    titles[row["arm"]]: (
      elements.ends(row["preservation"]),
      elements.ends(row["efficacy"]),
    )
    for row in rows
    if row["arm"] in _SHOWN
  }
  return elements.Plot(
    figures.tradeoff(
      series,
      title=title,
      xlabel="share of facts preserved",
      ylabel="share of edited facts recalled",
      front=front(points),
    ),
    alt=f"{title}: success against preservation",
    caption="A point is an arm at a learning rate, whatever its score; the"
    " dashed line joins what no arm at any rate exceeds in both (arms that are"
    f" not drawn included). {_caption(results)}",
  )


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
  """Leave out points that another one exceeds, or equals in one of two aims.

  Args:
    points: Pairs, of which more is better in both.

  Returns:
    Those on the front of Pareto, once each, in order.

  >>> front([(0.1, 0.9), (0.5, 0.5), (0.5, 0.4), (0.2, 0.2)])
  [(0.1, 0.9), (0.5, 0.5)]
  """
  known = sorted(set(points))
  beats = lambda a, b: a[0] >= b[0] and a[1] >= b[1] and a != b
  return [one for one in known if not any(beats(o, one) for o in known)]


def _caption(results: Mapping[str, Any]) -> str:
  return (
    f"{results['reported']} edits of each of {len(results['seeds'])} models;"
    " intervals of 95 % by resampling edits and models. Preserved is the mean"
    " over sets of facts that were never trained on."
  )


def _table(results: Mapping[str, Any], mix: str) -> elements.Table:
  titles = findings.titles(results)
  told = [row["generalization"]["estimate"] for row in _rows(results, mix)]
  paraphrased = any(not math.isnan(elements.number(x)) for x in told)
  aggregate = "harmonic_egl" if paraphrased else "harmonic_el"
  columns = [
    "arm",
    elements.Column("learning rate"),
    *(elements.Column(text, digits=2) for text in findings.TOLD),
    elements.Column("preserved at first success", digits=2),
    elements.Column("score", digits=2),
    elements.Column(f"aggregate of {3 if paraphrased else 2}", digits=2),
  ]
  rows = [
    [
      titles[row["arm"]],
      results["rates"][row["rate"]],
      *(row[name] for name in findings.TOLD.values()),
      row["first_preservation"],
      row["score"],
      row[aggregate],
    ]
    for row in _rows(results, mix)
  ]
  notes = [
    "The score is the harmonic mean of edited and preserved; the aggregate that"
    f" of edited, {'paraphrases, ' * paraphrased}and the share of unedited"
    " facts that are answered as before, rightly or not.",
    *findings.edge_notes(_rows(results, mix), titles),
  ]
  return elements.Table(columns, rows, f"Trained {_mix(mix)}.", notes)


def _verdicts(results: Mapping[str, Any]) -> elements.Verdicts:
  titles = findings.titles(results)
  return elements.Verdicts(
    [
      elements.Verdict(
        claim=claim["claim"],
        text=f"{claim['text']}, {_mix(claim['mix'])}, {claim['protocol']}"
        f" learning rate, at {_STOPS[claim['stop']]}",
        result=claim["result"],
        quantity="difference of scores",
        arm="; ".join(titles[name] for name in sorted(set(claim["arms"]))),
        **{
          end: elements.number(claim["difference"][end])
          for end in elements.ENDS
        },
      )
      for claim in results["claims"]
    ],
    caption="Reproduced where the interval of the difference lies above 0, not"
    " reproduced where it lies below. Intervals of 95 % of Student's t over"
    " the pretrained models; there is none for one model, and no correction"
    " for the number of comparisons.",
  )


def _side_effects(results: Mapping[str, Any]) -> elements.Table:
  rows = [
    [
      f"{_RELATED[row['set']]}, {_mix(row['mix'])}",
      row["more"],
    ]
    for row in results["side_effects"]
  ]
  return elements.Table(
    ["facts", elements.Column("damage beyond unrelated facts", digits=3)],
    rows,
    "Accuracy on unrelated facts minus that on related ones, over all arms;"
    " above 0, related facts suffer more.",
  )


def _matched(results: Mapping[str, Any]) -> elements.Table:
  titles = findings.titles(results)
  rates = [f"{rate:g}" for rate in results["rates"]]
  rows: list[Any] = []
  for mix in results["mixes"]:
    rows.append(f"Trained {_mix(mix)}")
    rows += [
      [titles[row["arm"]], *row["score"]]
      for row in results["matched"]
      if row["mix"] == mix
    ]
  return elements.Table(
    ["arm", *(elements.Column(rate, digits=2) for rate in rates)],
    rows,
    f"Score at each learning rate{beyond(results)}.",
  )


def _pretrained(results: Mapping[str, Any]) -> elements.Table:
  families = list(results["pretrained"][0]["recall"])
  rows = [
    [f"seed {model['seed']}", *(model["recall"][f] for f in families)]
    for model in results["pretrained"]
  ]
  return elements.Table(
    [
      "model",
      *(elements.Column(f, "%", digits=2, scale=100) for f in families),
    ],
    rows,
    "Share of the facts of a world that a model recalls before any edit.",
  )


def _rows(results: Mapping[str, Any], mix: str) -> list[Any]:
  return [row for row in results["table"] if row["mix"] == mix]


def _mix(name: str) -> str:
  return MIXES.get(name, name)
