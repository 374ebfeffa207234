"""The blocks of README.md on personalization."""

from collections.abc import Mapping
from typing import Any

from launch.cells import interval, origin


def table(results: Mapping[str, Any], name: str = "personalize") -> str:
  """Render the study of personalization as Markdown.

  Args:
    results: The content of its `results.json`.
    name: The name of the block.

  Returns:
    What was found, its plot, a table of arms, and what varies what.
  """
  from effjax.studies.personalize import page, published

  feature = results["feature"]
  lines = [
    page.summary(results),
    "",
    *(
      f'<img src="launch/results/{name}_{quantity}.svg" width="60%"'
      f' alt="{quantity}">'
      for quantity in results["plots"]
    ),
    "",
    "| arm | trained numbers | Panza-BLEU | ROUGE-L |"
    f" MAUVE, {feature} | perplexity | copied run | CPU s |"
    " *Panza-BLEU, 8B* |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for row in results["table"]:
    theirs = published.LLAMA_3.get(row["arm"])
    cells = [
      row["title"],
      f"{row['trained']:,} ({100 * row['share']:.3g} %)"
      if row["trained"]
      else "",
      interval(row["bleu"], 3),
      interval(row["rouge_l"], 3),
      interval(row["mauve"], 3),
      interval(row["perplexity"], 2),
      interval(row["copied"], 2),
      f"{row['cpu']:.0f}" if row["trained"] and row["cpu"] else "",
      f"*{theirs[0]:.3f}*" if theirs else "",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  lines += ["", *_sentences(results), f"{_note(results)} {origin(results)}"]
  return "\n".join(lines) + "\n"


def _sentences(results: Mapping[str, Any]) -> list[str]:
  """Say what differs, and what the panels show, each in a paragraph."""
  parts = [
    _differences(results),
    _cross(results),
    _varied(results),
    _privacy(results),
  ]
  return [line for part in parts if part for line in (part, "")]


def _differences(results: Mapping[str, Any]) -> str:
  from effjax.studies import elements
  from effjax.studies.personalize import arms

  pairs = [x for x in results["differences"] if x["than"] != "pretrained"]
  if not pairs:
    return ""
  shown = "; ".join(
    f"{arms.find(each['arm']).title} − {arms.find(each['than']).title}"
    f" {interval(each['bleu'], 3)} ({interval(each['mauve'], 2)})"
    for each in pairs
  )
  beyond = {
    measure: sum(elements.beyond_zero(each[measure]) for each in pairs)
    for measure in ("bleu", "mauve")
  }
  return (
    f"Differences of Panza-BLEU, paired by mail (of MAUVE, by seed): {shown}."
    f" Beyond chance are {beyond['bleu']} ({beyond['mauve']}) of {len(pairs)}."
  )


def _cross(results: Mapping[str, Any]) -> str:
  from effjax.studies.personalize import arms

  found = []
  for name, matrix in results["cross"].items():
    count = len(matrix["names"])
    own = ", ".join(
      f"{called} in {matrix['dominant'][measure]['rows']} of {count} rows and"
      f" {matrix['dominant'][measure]['columns']} of {count} columns"
      for measure, called in (("bleu", "BLEU"), ("mauve", "MAUVE"))
    )
    found.append(f"{arms.find(name).title}: {own}")
  if not found:
    return ""
  return (
    "One person's model and another's mails, where one's own are best:"
    f" {'; '.join(found)}."
  )


# What panels vary.
_VARIED = {
  "sizes": "the mails learned from",
  "ranks": "rank",
  "densities": "density of the sparse part",
  "bases": "how the weights are kept that are not trained",
}


def _varied(results: Mapping[str, Any]) -> str:
  panels, parts = results["panels"], []
  for name, called in _VARIED.items():
    rows = panels.get(name) or []
    if rows:
      curve = ", ".join(
        f"{row['value']}: {interval(row['bleu'], 3)}" for row in rows
      )
      parts.append(f"by {called}: {curve}")
  if not parts:
    return ""
  return (
    f"Panza-BLEU of {panels['arm']} ({panels['person']}, one seed)"
    f" {'; '.join(parts)}."
  )


def _privacy(results: Mapping[str, Any]) -> str:
  rows = (results["privacy"] or {}).get("rows") or []
  if not rows:
    return ""
  first = rows[0]
  shown = "; ".join(
    f"{row['title']} {', '.join(f'{bits:.1f}' for bits in row['exposure'])}"
    for row in rows
  )
  return (
    "Exposure in bits of secrets planted in"
    f" {', '.join(map(str, first['repeats']))} mails (at most"
    f" {first['most']:.1f}, by chance 1.4): {shown}."
  )


def _note(results: Mapping[str, Any]) -> str:
  from effjax.studies.personalize import page

  tests = sum(each["test"] for each in results["data"]["people"].values())
  return (
    f"{tests} mails of {', '.join(results['persons'])}, seeds"
    f" {', '.join(map(str, results['seeds']))}, {results['epochs']:g} epochs"
    " for every arm. ± half of the 95 % interval: of BLEU and ROUGE-L over"
    " resampled mails and seeds, of others Student's t over seeds. MAUVE has"
    f" {page.buckets(results)} buckets: it takes few values,"
    " and differences below 0.1 mean nothing. CPU seconds are those of"
    " training. The column in italics is another class of model, with 8 billion"
    " parameters and other persons (CPAL 2026, PMLR 328)."
  )
