"""The blocks of README.md on edits in synthetic worlds."""

from collections.abc import Mapping
from typing import Any

from launch.cells import interval, origin

# What the plots are called, for those who do not see them.
_PLOTS = {
  "arms": "edited facts and facts preserved, by arm",
  "pruning": "edited facts that outlast pruning",
  "relearning": "how soon old facts come back, by arm",
  "nested": "nested facts that follow an edit, by what was trained",
  "rank": "low rank beside full rank, by how full models are",
  "blocks": "some blocks beside all, by how full models are",
}


def table(results: Mapping[str, Any], name: str = "edit") -> str:
  """Render the study of edits as Markdown.

  Args:
    results: The content of its `results.json`.
    name: The name of the block.

  Returns:
    What was found, plots, and tables of arms, of claims, of compression, and
    of nested facts where the world has some.
  """
  from effjax.studies.edit import page

  lines = [
    page.summary(results),
    "",
    " ".join(
      f'<img src="launch/results/{name}_{quantity}.svg" width="49%"'
      f' alt="{_PLOTS[quantity]}">'
      for quantity in results["plots"]
    ),
    "",
    *_arms(results, page.MIXES),
    "",
    *_claims(results, page.MIXES),
    "",
    *_closed_forms(results),
    *_relearned(results, page.MIXES),
    *_nested(results, page.MIXES),
    *_compressed(results, page.MIXES),
    "",
    # What an earlier process did is not in the time of the last one.
    origin({**results, "seconds": None}),
  ]
  return "\n".join(lines) + "\n"


def _arms(results: Mapping[str, Any], mixes: Mapping[str, str]) -> list[str]:
  from effjax.studies.edit import findings, page

  titles = findings.titles(results)
  names = results["mixes"]
  heads = [
    head
    for mix in names
    for head in (
      f"{mixes[mix]}: learning rate",
      "edited",
      "preserved",
      "score",
    )
  ]
  lines = [f"| arm | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
  found = {(row["mix"], row["arm"]): row for row in results["table"]}
  for arm, title in titles.items():
    cells = [title]
    for mix in names:
      row = found[mix, arm]
      rate = f"{results['rates'][row['rate']]:g}"
      cells.append(rate + (" (edge)" if row["at_the_edge"] else ""))
      cells += [
        interval(row[k], 2) for k in ("efficacy", "preservation", "score")
      ]
    lines.append(f"| {' | '.join(cells)} |")
  seeds = ", ".join(map(str, results["seeds"]))
  note = (
    f"Shares of facts recalled; mean over {results['reported']} edits of"
    f" {results['facts_edited']} facts in each of the models of seeds {seeds},"
    " ± half of the 95 % interval by resampled models and edits. Preserved"
    " facts were never trained on. The score is the harmonic mean of both."
    f" Learning rates from {min(results['grid']):g} to"
    f" {max(results['grid']):g}{page.beyond(results)}"
  )
  edges = any(row["at_the_edge"] for row in results["table"])
  return [
    *lines,
    "",
    note + ("; edge: the best is the last." if edges else "."),
  ]


def _claims(results: Mapping[str, Any], mixes: Mapping[str, str]) -> list[str]:
  texts = list(dict.fromkeys(row["text"] for row in results["claims"]))
  lines = [
    f"| trained | learning rate | measured at | {' | '.join(texts)} |",
    "|---" * (3 + len(texts)) + "|",
  ]
  settings: dict[tuple, dict[str, str]] = {}
  for row in results["claims"]:
    where = mixes[row["mix"]], row["protocol"], row["stop"]
    settings.setdefault(where, {})[row["text"]] = (
      f"**{row['result']}**: {interval(row['difference'], 3)}, higher in"
      f" {100 * row['share']['estimate']:.0f} % of {row['settings']}"
    )
  for where, cells in settings.items():
    lines.append(f"| {' | '.join([*where, *(cells[t] for t in texts)])} |")
  return [
    *lines,
    "",
    "Difference of scores, ± half of the 95 % interval of Student's t over"
    f" models, not corrected for {len(results['claims'])} comparisons; settings"
    " are models, and learning rates where these are matched.",
  ]


def _relearned(
  results: Mapping[str, Any], mixes: Mapping[str, str]
) -> list[str]:
  from effjax.studies.edit import relearning_page

  if not results["relearning"]:
    return []
  return [relearning_page.summary(results, mixes), ""]


def _closed_forms(results: Mapping[str, Any]) -> list[str]:
  from effjax.studies.edit import closed_forms_page

  found = results.get("closed_forms", {"rows": []})
  if not found["rows"]:
    return []
  titles = {form["name"]: form["title"] for form in found["forms"]}
  lines = [
    closed_forms_page.summary(results),
    "",
    "| closed form | learning rate of values | edited | preserved | score |"
    " score beyond fine-tuning |",
    "|---|---|---|---|---|---|",
  ]
  for row in found["rows"]:
    rate = f"{found['rates'][row['rate']]:g}"
    cells = [interval(row[k], 2) for k in ("efficacy", "preservation", "score")]
    more = interval(row["more"], 2) if "more" in row else "–"
    name = titles[row["arm"]]
    edge = " (edge)" if row["at_the_edge"] else ""
    lines.append(f"| {name} | {rate}{edge} | {' | '.join(cells)} | {more} |")
  return [
    *lines,
    "",
    "One down projection is changed, by keys read at the last token of the"
    " subject or of the prompt; the second moment of keys is that of all"
    " sentences of the world, preserved facts included. The last column"
    " compares, by ± half of the 95 % interval of Student's t over models, with"
    " the arm that is best on other edits when fine-tuned on the new facts"
    " alone, all that closed forms are"
    " given too.",
    "",
  ]


def loads(results: Mapping[str, Any]) -> str:
  """Render the study of load as Markdown.

  Args:
    results: The content of its `results.json`.

  Returns:
    What was found, plots, and a table.
  """
  from effjax.studies.edit import findings, load_page
  from effjax.studies.edit.page import MIXES

  titles = findings.titles(results)
  heads = [f"{load['density']:.2g} bits" for load in results["loads"]]
  lines = [
    load_page.summary(results),
    "",
    " ".join(
      f'<img src="launch/results/edit_load_{quantity}.svg" width="49%"'
      f' alt="{_PLOTS[quantity]}">'
      for quantity in results["plots"]
    ),
    "",
    f"| beside full, all blocks | trained | {' | '.join(heads)} |",
    "|---" * (2 + len(heads)) + "|",
  ]
  for claim, (text, _) in findings.CLAIMS.items():
    for mix in results["mixes"]:
      cells = [
        f"{interval(row['difference'], 3)} ({titles[row['arms'][0]]})"
        for row in load_page.rows(results, claim, mix)
      ]
      lines.append(f"| {text} | {MIXES[mix]} | {' | '.join(cells)} |")
  seeds = ", ".join(map(str, results["seeds"]))
  lines += [
    "",
    "Difference of scores at learning rates chosen on other edits, and the arm"
    f" that was chosen so; models of seeds {seeds}, {results['reported']} edits"
    " of each, ± half of the 95 % interval of Student's t over models.",
    "",
    # As above.
    origin({**results, "seconds": None}),
  ]
  return "\n".join(lines) + "\n"


def _compressed(
  results: Mapping[str, Any], mixes: Mapping[str, str]
) -> list[str]:
  from effjax.studies.edit import interplay_page

  found = results["interplay"]
  mix = results["mixes"][0]
  heads = [
    head
    for arm in found["arms"]
    for head in (
      f"{arm['title']}, then compressed: edited",
      "preserved",
      f"compressed, then {arm['title']}: edited",
      "preserved",
    )
  ]
  lines = [
    interplay_page.summary(results, mixes),
    "",
    f"| level | unedited: facts of edits | preserved | {' | '.join(heads)} |",
    "|---" * (3 + len(heads)) + "|",
  ]
  rows = {
    (row["arm"], row["level"]): row
    for row in found["rows"]
    if row["mix"] == mix
  }
  for level in found["levels"]:
    cells = [level["level"]]
    cells += [interval(level[k], 2) for k in ("old", "preserved")]
    for arm in found["arms"]:
      row = rows[arm["name"], level["level"]]
      cells += [
        interval(row[order][k], 2)
        for order in ("edited_first", "compressed_first")
        for k in ("edited", "preserved")
      ]
    lines.append(f"| {' | '.join(cells)} |")
  return [
    *lines,
    "",
    f"Trained {mixes[mix]}; shares of facts recalled, ± half of the 95 %"
    " interval of Student's t over models. Pruned are the smallest weights of"
    " each kernel, at once, or, relearned, step by step while the model is"
    " trained on all facts again; they stay zero while facts are edited. A"
    " quantised base is edited by an adapter only.",
  ]


def _nested(results: Mapping[str, Any], mixes: Mapping[str, str]) -> list[str]:
  from effjax.studies.edit import findings, nesting

  if not results["nested"]:
    return []
  titles = findings.titles(results)
  lines = [
    nesting.summary(results, mixes),
    "",
    "| arm | trained | edited | S-NO follow | S-NO stay |"
    " O-NO of the old object | O-NO of the new |",
    "|---|---|---|---|---|---|---|",
  ]
  for row in results["nested"]:
    cells = [
      interval(row[k], 2)
      for k in ("edited", "follow", "stay", "old_object", "new_object")
    ]
    lines.append(
      f"| {titles[row['arm']]} | {mixes[row['mix']]} | {' | '.join(cells)} |"
    )
  return [
    *lines,
    "",
    "S-NO: nested facts of edited subjects whose old and new values differ;"
    " O-NO: those of the objects. ± half of the 95 % interval of Student's t"
    " over models.",
    "",
  ]
