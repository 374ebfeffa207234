"""Do facts follow that depend on an edited one, and where must one edit?

In a nested world the object of a fact has an object of its own. When a subject
gets another object, its nested object (S-NO) should follow, and the facts about
the objects themselves (O-NO) should stay. Measured are edited subjects whose
old and new nested objects differ; the rest follow whatever happens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from effjax.studies import elements, figures
from effjax.studies.edit import findings, intervals

# By block: all, the first, the last, and parts of all.
ARMS = (
  "full",
  "full_layer0",
  "full_layer1",
  "full_attention",
  "full_mlp",
  "lora4",
  "lora4_attention",
  "lora4_mlp",
)
# What is told of an arm, and the set whose accuracy it is.
_SETS = {
  "edited": "edited",
  "follow": "follow",
  "stay": "stay",
  "old_object": "same_obj_nested_obj_edges",
  "new_object": "remapped_obj_nested_obj_edges",
}


def table(
  names: Sequence[str],
  mixes: Sequence[str],
  values: findings.Values,
  tuning: int,
) -> list[dict[str, Any]]:
  """Sum up what nested facts do, by the blocks that were trained.

  Args:
    names: The arms.
    mixes: The mixes.
    values: Measures, see `findings`.
    tuning: See `findings.chosen_rates`.

  Returns:
    Rows by mix and arm, none in a world without nested objects: `edited`;
    `follow`, `stay` and `other`, shares of nested facts of edited subjects with
    the new value, the old one, and neither; `old_object`, `new_object`, what is
    recalled of nested facts of these; `more`, what follows beyond full
    fine-tuning of all blocks. Intervals are Student's t over models.
  """
  if "set/follow" not in values:
    return []
  best = findings.chosen_rates(values, tuning)
  rows = []
  for m, mix in enumerate(mixes):
    take = lambda name, arm, m=m: values[f"set/{name}"][
      :, names.index(arm), best[names.index(arm), m], tuning:, m, -1
    ]
    for arm in [name for name in ARMS if name in names]:
      found = {
        k: take(v, arm) for k, v in _SETS.items() if f"set/{v}" in values
      }
      found["other"] = 1 - found["follow"] - found["stay"]
      if findings.REFERENCE in names:
        beside = take("follow", findings.REFERENCE)
        found["more"] = found["follow"] - beside
      rows.append(
        {
          "mix": mix,
          "arm": arm,
          **{k: intervals.over_models(v) for k, v in found.items()},
        }
      )
  return rows


def section(results: Mapping[str, Any], mixes: Mapping[str, str]) -> Any:
  """Make the section of the report.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    The section.
  """
  parts: list[Any] = [
    elements.Prose(summary(results, mixes)),
    plot(results, mixes),
  ]
  parts += [_table(results, mix, mixes.get(mix, mix)) for mix in _own(results)]
  return elements.Section("Facts that depend on edited ones", parts)


def summary(results: Mapping[str, Any], mixes: Mapping[str, str]) -> str:
  """Say which blocks let fewer or more facts follow than all together.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    Text.
  """
  titles = findings.titles(results)
  sides: dict[str, list[str]] = {"more": [], "fewer": []}
  asked = 0
  for row in results["nested"]:
    if row["arm"] == findings.REFERENCE or "more" not in row:
      continue
    asked += 1
    where = f"{titles[row['arm']]}, {mixes.get(row['mix'], row['mix'])}"
    if elements.number(row["more"]["low"]) > 0:
      sides["more"].append(where)
    if elements.number(row["more"]["high"]) < 0:
      sides["fewer"].append(where)
  decided = [f"{k} follow with {'; '.join(v)}" for k, v in sides.items() if v]
  return (
    "Beside full fine-tuning of all blocks: "
    + ("; ".join(decided) or "no restriction differs")
    + f" (intervals over models that leave out zero, of {asked} comparisons)."
  )


def plot(results: Mapping[str, Any], mixes: Mapping[str, str]) -> elements.Plot:
  """Draw what follows and what stays, in the first mix.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    The plot.
  """
  mix = _own(results)[0]
  rows = [row for row in results["nested"] if row["mix"] == mix]
  titles = findings.titles(results)
  series: dict[str, Any] = {
    "follow the edit": elements.ends(row["follow"] for row in rows),
    "stay as they were": elements.ends(row["stay"] for row in rows),
  }
  title = "Nested facts of edited subjects, by what was trained"
  return elements.Plot(
    figures.dot_intervals(
      [titles[row["arm"]] for row in rows],
      series,
      title=title,
      xlabel="share of nested facts of edited subjects",
      xlim=(-0.02, 1.02),
    ),
    alt=title,
    caption=f"Trained {mixes.get(mix, mix)}; {len(results['seeds'])} models,"
    f" {results['reported']} edits of {results['facts_edited']} facts each;"
    " intervals of 95 % of Student's t over models, which do not know that"
    " shares end at 0 and 1.",
  )


def _table(results: Mapping[str, Any], mix: str, title: str) -> elements.Table:
  titles = findings.titles(results)
  columns = {
    "edited": "edited",
    "follow": "S-NO follow",
    "stay": "S-NO stay",
    "other": "S-NO neither",
    "more": "follow beyond full, all blocks",
    "old_object": "O-NO of the old object",
    "new_object": "O-NO of the new object",
  }
  return elements.Table(
    ["arm", *(elements.Column(text, digits=2) for text in columns.values())],
    [
      [titles[row["arm"]], *(row.get(name) for name in columns)]
      for row in results["nested"]
      if row["mix"] == mix
    ],
    f"Nested facts, trained {title}.",
    [
      "S-NO are nested facts of edited subjects whose old and new values"
      " differ, O-NO those of the objects, which no edit is about. Intervals of"
      " 95 % of"
      " Student's t over models; learning rates as tuned for the score."
    ],
  )


def _own(results: Mapping[str, Any]) -> list[str]:
  there = {row["mix"] for row in results["nested"]}
  return [mix for mix in results["mixes"] if mix in there]
