"""Edits and compression: tables, and what the report shows of them.

Intervals are Student's t over pretrained models, of averages over their edits.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effjax import metrics
from effjax.studies import elements, figures
from effjax.studies.edit import arms, interplay, intervals

_ORDERS = {
  "edited_first": "edited, then compressed",
  "compressed_first": "compressed, then edited",
}


def table(
  config: Any, sets: Sequence[str], families: Sequence[str], found: Mapping
) -> dict[str, Any]:
  """Sum up what `interplay.Interplay` found.

  Args:
    config: The configuration.
    sets: Names of the evaluation sets.
    families: Names of the families of facts.
    found: Its arrays, with a leading axis of models.

  Returns:
    `levels`, a row for each level of the models that nobody edited: `recall` of
    all facts, `old`, of those that edits are about, `preserved`, of those that
    edits should leave alone. `rows` by mix, arm and level: by order `edited`,
    `preserved` and `damage`, preserved without the edit minus with it;
    `survival`, the share that outlasts compression of edited facts that were
    recalled without it, minus that share of the same facts before anyone edited
    them; `harder`, what compression before an edit takes from its success;
    `costlier`, what it adds to the damage.
  """
  pick = lambda name: {
    "edited": name[..., sets.index("edited")],
    "preserved": np.asarray(
      metrics.preservation(
        {n: name[..., i] for i, n in enumerate(sets) if n in metrics.PRESERVED}
      ).mean,
      np.float64,
    ),
  }
  plain = pick(found["unedited"])  # [models, levels, edits]
  old = found["unedited"][..., sets.index("old")]
  titles = [level.title for level in interplay.levels(config.interplay)]
  levels = [
    {
      "level": title,
      "sparsity": config.interplay.sparsities[i - 1]
      if 0 < i <= len(config.interplay.sparsities)
      else 0.0,
      "recall": {
        family: intervals.over_models(found["recall"][:, i, f, None])
        for f, family in enumerate(families)
      },
      "old": intervals.over_models(old[:, i]),
      "preserved": intervals.over_models(plain["preserved"][:, i]),
    }
    for i, title in enumerate(titles)
  ]
  orders = {name: pick(found[name]) for name in interplay.ORDERS}
  rows = []
  for m, mix in enumerate(config.mixes):
    for a, arm in enumerate(config.interplay.arms):
      # [models, levels, edits]
      own = {
        name: {k: v[:, :, a, :, m] for k, v in order.items()}
        for name, order in orders.items()
      }
      last, first = own["edited_first"], own["compressed_first"]
      for i, title in enumerate(titles):
        row: dict[str, Any] = {"mix": mix, "arm": arm, "level": title}
        for name, order in own.items():
          row[name] = {
            k: intervals.over_models(v[:, i]) for k, v in order.items()
          }
          row[name]["damage"] = intervals.over_models(
            plain["preserved"][:, i] - order["preserved"][:, i]
          )
        row["survival"] = intervals.over_models(
          _kept(last["edited"], i) - _kept(old, i)
        )
        damage = plain["preserved"] - first["preserved"]
        row["costlier"] = intervals.over_models(damage[:, i] - damage[:, 0])
        row["harder"] = intervals.over_models(
          first["edited"][:, 0] - first["edited"][:, i]
        )
        rows.append(row)
  return {
    "arms": [
      {"name": n, "title": arms.find(n).title} for n in config.interplay.arms
    ],
    "levels": levels,
    "rows": rows,
    "failed": int(found["failed"].sum()),
  }


def _kept(values: np.ndarray, level: int) -> np.ndarray:
  """Divide accuracies [models, levels, edits] at a level by those without."""
  dense = values[:, 0]
  safe = np.where(dense > 0, dense, 1.0)
  return np.where(dense > 0, values[:, level] / safe, np.nan)


def section(results: Mapping[str, Any], mixes: Mapping[str, str]) -> Any:
  """Make the section of the report.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    The section.
  """
  found = results["interplay"]
  parts: list[Any] = [elements.Prose(summary(results, mixes))]
  parts.append(plot(results, mixes))
  parts.append(_unedited(found, len(results["seeds"])))
  parts += [
    _orders(results, mix, mixes.get(mix, mix)) for mix in results["mixes"]
  ]
  return elements.Section("Pruning and quantising", parts)


def summary(results: Mapping[str, Any], mixes: Mapping[str, str]) -> str:
  """Say which intervals lie on one side of zero.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    Text.
  """
  found = results["interplay"]
  titles = {arm["name"]: arm["title"] for arm in found["arms"]}
  questions = (
    (
      "survival",
      "Edited facts outlast compression better than the same facts did before"
      " anyone edited them",
      "worse",
    ),
    ("harder", "Compressed models are harder to edit", "easier"),
    ("costlier", "An edit damages a compressed model more", "less"),
  )
  lines = []
  for name, text, opposite in questions:
    # By side of zero the levels, by arm and mix.
    sides: dict[int, dict[str, list[str]]] = {1: {}, -1: {}}
    asked = 0
    for row in found["rows"]:
      low, high = (elements.number(row[name][end]) for end in ("low", "high"))
      if row["level"] == "dense" or math.isnan(
        elements.number(row[name]["estimate"])
      ):
        continue
      asked += 1
      if low > 0 or high < 0:
        where = f"{titles[row['arm']]}, {mixes.get(row['mix'], row['mix'])}"
        side = sides[1 if low > 0 else -1]
        side.setdefault(where, []).append(row["level"])
    told = [
      f"{word} in {sum(map(len, side.values()))} of {asked} settings ("
      + "; ".join(f"{k}: {', '.join(v)}" for k, v in side.items())
      + ")"
      for word, side in (("so", sides[1]), (opposite, sides[-1]))
      if side
    ]
    lines.append(
      f"- **{text}**: "
      + (", ".join(told) or f"undecided in all {asked} settings")
      + "."
    )
  return (
    "A setting is an arm at its tuned learning rate, a mix and a level of"
    " compression; it counts where the interval over models leaves out zero. A"
    " model that compression took its facts from has less to be damaged."
    "\n\n" + "\n".join(lines)
  )


def plot(results: Mapping[str, Any], mixes: Mapping[str, str]) -> elements.Plot:
  """Draw what is recalled of edited facts, the more is pruned after the edit.

  Args:
    results: The content of `results.json`.
    mixes: What the mixes are called.

  Returns:
    The plot, of the first mix.
  """
  found, mix = results["interplay"], results["mixes"][0]
  places = [
    i
    for i, row in enumerate(found["levels"])
    if row["sparsity"] or row["level"] == "dense"
  ]
  wanted = [found["levels"][i] for i in places]
  series: dict[str, Any] = {
    "the same facts, not edited": elements.ends(row["old"] for row in wanted)
  }
  for arm in found["arms"]:
    rows = [
      row
      for row in found["rows"]
      if row["mix"] == mix and row["arm"] == arm["name"]
    ]
    series[f"edited: {arm['title']}"] = elements.ends(
      [rows[i]["edited_first"]["edited"] for i in places]
    )
  title = "Edits and pruning: edited facts beside those learned before"
  return elements.Plot(
    figures.lines_with_bands(
      [row["sparsity"] for row in wanted],
      series,
      title=title,
      xlabel="weights of each kernel pruned after the edit",
      ylabel="share of facts recalled",
      scale="sparsity",
      ylim=(0.0, 1.02),
    ),
    alt=title,
    caption=f"Trained {mixes.get(mix, mix)}; {len(results['seeds'])} models,"
    f" {results['reported']} edits of {results['facts_edited']} facts each;"
    " bands are intervals of 95 % of Student's t over models, which"
    " do not know that shares end at 0 and 1.",
  )


def _unedited(found: Mapping[str, Any], models: int) -> elements.Table:
  families = list(found["levels"][0]["recall"])
  return elements.Table(
    [
      "level",
      *(elements.Column(f"recall of {f}", digits=2) for f in families),
      elements.Column("facts that edits are about", digits=2),
      elements.Column("facts that should stay", digits=2),
    ],
    [
      [
        row["level"],
        *(row["recall"][f] for f in families),
        row["old"],
        row["preserved"],
      ]
      for row in found["levels"]
    ],
    f"What {models} compressed models recall that nobody edited.",
    [
      "Pruned are the smallest weights of each kernel of a block, at once and"
      " without training afterwards; or, relearned, step by step while the"
      " model is trained on all facts again, before any edit."
    ],
  )


def _orders(results: Mapping[str, Any], mix: str, title: str) -> Any:
  found = results["interplay"]
  rows: list[Any] = []
  for arm in found["arms"]:
    rows.append(arm["title"])
    for row in found["rows"]:
      if (row["mix"], row["arm"]) == (mix, arm["name"]):
        last, first = (row[name] for name in _ORDERS)
        rows.append(
          [
            row["level"],
            last["edited"],
            last["preserved"],
            row["survival"],
            first["edited"],
            first["preserved"],
            first["damage"],
            row["harder"],
          ]
        )
  number = lambda text: elements.Column(text, digits=2)
  return elements.Table(
    [
      "level",
      number("edited, then compressed: edited"),
      number("preserved"),
      number("outlast more than the same facts unedited"),
      number("compressed, then edited: edited"),
      number("preserved"),
      number("damage by the edit"),
      number("success lost by compression"),
    ],
    rows,
    f"Trained {title}.",
    [
      "Outlast: the share still recalled, of edited facts that were recalled"
      " without compression, minus that share of the same facts before anyone"
      " edited them. Learning rates are those tuned on dense models.",
      "Damage is what the unedited model recalls at this level of the facts"
      " that should stay, minus what it recalls after the edit; below 0,"
      " training brought back what compression had taken.",
      "Full fine-tuning has no numbers for a quantised base, whose weights it"
      " would not leave quantised.",
    ],
  )
