"""Parts of the report of the study of personalization: what varies what."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from effjax.studies import elements, figures
from effjax.studies.personalize import arms

USE = (
  "A model that writes like a person can be used to pass for that person. It is"
  " for one's own mails: do not train it on those of others without their"
  " consent, say so where a draft is not one's own words, and keep adapters as"
  " private as the mails, of which they know some by heart."
)


def differences(results: Mapping[str, Any]) -> list[Any]:
  """Tabulate how arms differ, and judge claims by that.

  Args:
    results: The content of `results.json`.

  Returns:
    Elements.
  """
  found = results["differences"]
  if not found:
    return []
  title = lambda name: arms.find(name).title
  rows = [
    [
      f"{title(each['arm'])} − {title(each['than'])}",
      each["bleu"],
      each["rouge_l"],
      each["mauve"],
    ]
    for each in found
  ]
  table = elements.Table(
    [
      "difference",
      elements.Column("Panza-BLEU", digits=3),
      elements.Column("ROUGE-L", digits=3),
      elements.Column("MAUVE", digits=3),
    ],
    rows,
    caption="Paired by mail and seed, 95 % intervals.",
  )
  return [_claims(results), table]


def _claims(results: Mapping[str, Any]) -> elements.Verdicts:
  """Judge what the paper says by our intervals."""
  wording = {
    ("pretrained", None): "tuning writes closer to the person than the model",
    ("lora", "rosa"): "RoSA is better than LoRA",
    ("lora_rag", "lora_raft_rag"): "RAFT repairs what retrieval spoils",
  }
  verdicts = []
  for each in results["differences"]:
    than, arm = each["than"], each["arm"]
    text = wording.get((than, arm))
    if text is None and than == "pretrained" and arms.find(arm).trained:
      text = wording["pretrained", None]
    if text is None:
      continue
    for measure in ("bleu", "mauve"):
      value, low, high = (
        elements.number(each[measure][end]) for end in elements.ENDS
      )
      result = "inconclusive"
      if low > 0:
        result = "reproduced"
      elif high < 0:
        result = "not reproduced"
      verdicts.append(
        elements.Verdict(
          claim=f"{arms.find(arm).title}, {measure.upper()}",
          text=text,
          result=result,
          quantity=f"difference of {measure.upper()}",
          arm=arms.find(arm).title,
          estimate=value,
          low=low,
          high=high,
        )
      )
  return elements.Verdicts(
    verdicts,
    caption="Reproduced if the whole interval lies above 0. That of MAUVE is"
    " over seeds, and there is none for a single seed.",
  )


def side_by_side(results: Mapping[str, Any]) -> list[Any]:
  """Show drafts of all arms beside what the person wrote.

  Args:
    results: The content of `results.json`.

  Returns:
    Elements; none if texts are not to be shown.
  """
  parts: list[Any] = []
  for each in results["shown"]:
    rows = [["the person", each["mail"]], *each["drafts"].items()]
    parts.append(
      elements.Table(
        ["", "mail"],
        [list(row) for row in rows],
        caption=f"{each['person']}: {each['instruction']}",
      )
    )
  if parts:
    parts.insert(0, "The first test mails by the first seed, not chosen.")
  return parts


def cross(results: Mapping[str, Any]) -> list[Any]:
  """Show the matrices of persons learned from and judged by.

  Args:
    results: The content of `results.json`.

  Returns:
    Elements.
  """
  parts = []
  shown = (("mauve", "MAUVE"), ("bleu", "Panza-BLEU"), ("rouge_l", "ROUGE-L"))
  for name, found in results["cross"].items():
    plots = []
    arm, count = arms.find(name).title, len(found["names"])
    for measure, called in shown:
      dominant = found["dominant"][measure]
      title = (
        f"{called} of {arm} is highest on one's own mails in"
        f" {dominant['rows']} of {count} rows, {dominant['columns']} columns"
      )
      values = np.array(
        [[elements.number(x) for x in row] for row in found[measure]], float
      )
      plots.append(
        elements.Plot(
          figures.heat_map(
            values,
            [f"learned from {each}" for each in found["names"]],
            found["names"],
            title=title,
            ylabel=called,
          ),
          alt=title,
          caption="Rows: whose mails were learned; columns: whose instructions"
          " and mails. First seed, no retrieval.",
        )
      )
    parts.append(elements.Plots(plots))
  return parts


def varied(results: Mapping[str, Any]) -> list[Any]:
  """Show what the number of mails, rank, density and base change.

  Args:
    results: The content of `results.json`.

  Returns:
    Elements.
  """
  found = results["panels"]
  if not found:
    return []
  where = f"{found['arm']}, {found['person']}, seed {found['seed']}"
  parts: list[Any] = []
  if len(found["sizes"]) > 1:
    parts.append(_sizes(found["sizes"], where))
  titles = {
    "sizes": "mails",
    "ranks": "rank",
    "densities": "density",
    "bases": "base",
  }
  columns = [
    "",
    elements.Column("trained numbers"),
    elements.Column("Panza-BLEU", digits=3),
    elements.Column("ROUGE-L", digits=3),
    elements.Column("MAUVE", digits=3),
    elements.Column("sd over clusterings", digits=3),
    elements.Column("perplexity", digits=2),
    elements.Column("copied run", "%", digits=0, scale=100),
    elements.Column("time", "CPU s", digits=0),
  ]
  rows = []
  for name, title in titles.items():
    for each in found[name]:
      cells = [each[k] for k in ("trained", "bleu", "rouge_l", "mauve")]
      cells += [each[k] for k in ("mauve_sd", "perplexity", "copied", "cpu")]
      rows.append([f"{title} {each['value']}", *cells])
  if rows:
    parts.append(
      elements.Table(
        columns,
        rows,
        caption=f"{where}; intervals of resampled mails. Of the quantised bases"
        " the weights are rounded, and computed with in float32.",
      )
    )
  return parts


def _sizes(rows: list[dict], where: str) -> elements.Plot:
  counts = [row["value"] for row in rows]
  bands: Any = elements.ends(row["bleu"] for row in rows)
  title = f"Panza-BLEU from none to {counts[-1]} mails to learn from"
  return elements.Plot(
    figures.lines_with_bands(
      counts,
      {"Panza-BLEU": bands},
      title=title,
      xlabel="mails to learn from",
      ylabel="Panza-BLEU",
    ),
    alt=title,
    caption=f"{where}; nested subsets; bands of resampled mails.",
  )


def privacy(results: Mapping[str, Any]) -> list[Any]:
  """Show how far planted secrets are found.

  Args:
    results: The content of `results.json`.

  Returns:
    Elements.
  """
  found = results["privacy"]
  if not found:
    return []
  first = found["rows"][0]
  columns = ["arm"] + [
    elements.Column(f"secret {n}, in {times} mails", "bits", digits=2)
    for n, times in enumerate(first["repeats"], 1)
  ]
  return [
    elements.Table(
      columns,
      [[row["title"], *row["exposure"]] for row in found["rows"]],
      caption=f"Exposure of made-up secrets that were planted in the mails of"
      f" {found['person']}, seed {found['seed']}: at most {first['most']:.1f}"
      f" bits with {first['candidates']} others to compare with, 1.4 on average"
      " by chance.",
    )
  ]


def tried(results: Mapping[str, Any]) -> list[Any]:
  """Show the learning rates that were tried.

  Args:
    results: The content of `results.json`.

  Returns:
    Elements.
  """
  rows = [
    [arms.find(kind).title, f"{one['rate']:g}", one["loss"]]
    for kind, found in results["tried"].items()
    for one in found
  ]
  if not rows:
    return ["One learning rate of each arm was tried."]
  return [
    elements.Table(
      ["trained", "learning rate", elements.Column("loss", digits=3)],
      rows,
      caption=f"On mails of {results['persons'][0]} that are held out of those"
      " to learn from; the lowest was taken for all persons and seeds.",
    )
  ]
