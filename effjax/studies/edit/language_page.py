"""The report of the study of edits of a language model."""

from collections.abc import Mapping
from typing import Any

from effjax.studies import elements, figures, origin

TITLES = {
  "rome": "ROME",
  "memit": "MEMIT",
  "emmet": "EMMET",
  "alphaedit": "AlphaEdit",
  "ft": "FT",
  "ft-l": "FT-L",
  "lora": "LoRA",
}


def summary(results: Mapping[str, Any]) -> str:
  """Say in a few sentences what was found.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  best = max(results["table"], key=lambda row: row["score"]["estimate"])
  name = best["method"]
  # A method is told from the best where the paired interval excludes 0.
  equal, worse = [], []
  for each in results["differences"]:
    if name not in (each["method"], each["than"]):
      continue
    other = each["than"] if each["method"] == name else each["method"]
    told_apart = elements.beyond_zero(each["score"])
    (worse if told_apart else equal).append(TITLES[other])
  told = (
    f" It is beyond chance above {', '.join(worse)}"
    if worse
    else " No other method is beyond chance below it"
  ) + (f"; not told from {', '.join(equal)}." if equal and worse else ".")
  failed = results["failed"]
  lost = f" {failed} edit{'s' * (failed > 1)} failed." if failed else ""
  unknown = len(results["not_known"])
  left = (
    f"; {unknown} of the list were left out, since it does not know them"
    if unknown
    else ""
  )
  return (
    f"{results['facts']} facts that {results['model']} knows were changed, each"
    f" on its own{left}."
    f" The score, the harmonic mean of efficacy, paraphrases and neighbours,"
    f" is highest by **{TITLES[name]}: {best['score']['estimate']:.3f}**."
    f"{told}{lost}"
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
      "Success against preservation", [plot(results), _table(results)]
    ),
    elements.Section("How updates differ", [_updates(results)]),
    elements.Section("Which method is better", [_differences(results)]),
    elements.Section("What it says", _examples(results)),
    elements.Section("Learning rates", [_tried(results)]),
    elements.Section("What falls short", [elements.Prose(limits(results))]),
  ]


def limits(results: Mapping[str, Any]) -> str:
  """Say what the study does not show.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  edges = [
    TITLES[method]
    for method, own in results["tried"].items()
    if len(own) > 1
    and results["rates"][method] in (own[0]["rate"], own[-1]["rate"])
  ]
  edge = (
    f"\n- The learning rate of {', '.join(edges)} is at the edge of those that"
    " were tried."
    if edges
    else ""
  )
  return (
    f"- One model, one seed, {results['facts']} facts of four relations that"
    " share objects: chosen since the model knows them, they are no sample of"
    " all facts, and not independent."
    "\n- A fact has two paraphrases and at most five neighbours, so the shares"
    " of a fact are coarse."
    f"\n- All closed forms change layer {results['layer']} and seek one value;"
    " with one fact EMMET is ROME, and MEMIT differs by the weight of other"
    " keys alone."
    f"\n- Learning rates were chosen on {results['tuning']} facts."
    "\n- The perplexity is that of six short sentences." + edge
  )


def plot(results: Mapping[str, Any]) -> elements.Plot:
  """Draw success and preservation of every method.

  Args:
    results: The content of `results.json`.

  Returns:
    The plot.
  """
  table = results["table"]
  best = max(table, key=lambda row: row["score"]["estimate"])
  title = f"{TITLES[best['method']]} balances change and preservation best"
  series: dict[str, Any] = {
    called: elements.ends([row[name] for row in table])
    for name, called in (
      ("efficacy", "the fact"),
      ("paraphrases", "in other words"),
      ("neighbours", "neighbours"),
    )
  }
  return elements.Plot(
    figures.dot_intervals(
      [TITLES[row["method"]] for row in table],
      series,
      title=title,
      xlabel="share of prompts answered as they should be",
    ),
    alt=title,
    caption=_caption(results),
  )


def _caption(results: Mapping[str, Any]) -> str:
  return (
    f"Mean over {results['facts']} facts, each edited from the base; 95 %"
    " intervals of Student's t over facts, of the score by resampling them."
    " An answer counts where the object that should be said is likelier than"
    " the other one."
  )


def _table(results: Mapping[str, Any]) -> elements.Table:
  share = lambda title: elements.Column(title, "%", digits=0, scale=100)
  columns = [
    "method",
    elements.Column("score", digits=3),
    share("fact"),
    share("likeliest"),
    share("in other words"),
    share("neighbours"),
    share("neighbours still likeliest"),
    elements.Column("perplexity, ratio", digits=3),
  ]
  names = ("efficacy", "likeliest", "paraphrases", "neighbours")
  rows = [
    [
      TITLES[row["method"]],
      row["score"],
      *(row[name] for name in names),
      row["neighbours_kept"],
      row["perplexity"],
    ]
    for row in results["table"]
  ]
  return elements.Table(
    columns,
    rows,
    caption=_caption(results),
    notes=[
      "Likeliest: the new object begins with the likeliest of all tokens.",
      "Neighbours still likeliest: of those whose object was, before.",
      "The perplexity of sentences about other things, after over before.",
      "An edit that failed counts in the score, as one that did nothing, and"
      " in no other column.",
    ],
  )


def _updates(results: Mapping[str, Any]) -> elements.Table:
  rows = [
    [
      TITLES[row["method"]],
      row["norm"],
      row["rank"]["estimate"],
      row["seconds"],
      row["failed"],
    ]
    for row in results["table"]
  ]
  return elements.Table(
    [
      "method",
      elements.Column("norm", digits=2),
      elements.Column("rank", digits=0),
      elements.Column("time", "s", digits=1),
      "failed",
    ],
    rows,
    caption="Of the change of an edit; the rank is that of the kernel that"
    " moved most, the mean over facts. Wall time on a machine that did other"
    " things too, compilation included; that of closed forms includes the"
    " search for the value, which they share.",
  )


def _differences(results: Mapping[str, Any]) -> elements.Table:
  rows = [
    [f"{TITLES[each['method']]} − {TITLES[each['than']]}", each["score"]]
    for each in results["differences"]
  ]
  return elements.Table(
    ["methods", elements.Column("difference of the score", digits=3)],
    rows,
    caption="Paired by fact; 95 % intervals by resampling facts, not corrected"
    " for how many there are.",
  )


def _examples(results: Mapping[str, Any]) -> list[Any]:
  found: list[Any] = []
  for example in results["examples"]:
    prompts = list(example["before"])
    rows = [["before", *(example["before"][prompt] for prompt in prompts)]]
    rows += [
      [TITLES[method], *(texts[prompt] for prompt in prompts)]
      for method, texts in example["after"].items()
    ]
    found.append(
      elements.Table(
        ["", *prompts],
        rows,
        caption=f"{example['old']} becomes {example['new']}. The likeliest"
        " tokens, cut off; the first facts, not chosen.",
      )
    )
  return found


def _tried(results: Mapping[str, Any]) -> elements.Table:
  rows = [
    [TITLES[method], f"{one['rate']:g}", one["score"]]
    for method, own in results["tried"].items()
    for one in own
  ]
  return elements.Table(
    ["method", "learning rate", elements.Column("score", digits=3)],
    rows,
    caption=f"On {results['tuning']} other facts; the highest was taken, the"
    " lower rate of equals.",
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
  return origin.facts(results, config, rates=results["rates"])
