"""Decisions that differ between the models, and the surest of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from effjax.studies import elements
from effjax.studies.audit.shown import MOST_ROWS, level, mean, number


def section(
  results: dict[str, Any], pictures: Mapping[str, Any]
) -> elements.Section:
  """Shows how many decisions differ, in which direction and for whom.

  Args:
    results: Of `audit`.
    pictures: From the id of a sample to its pixels; may be empty.

  Returns:
    A section.
  """
  found, labelled = results["flips"], results["labels"]
  names = [("lost", "positive to negative"), ("gained", "negative to positive")]
  if labelled:
    names += [("broken", "right to wrong"), ("mended", "wrong to right")]
  groups = [("everyone", results["samples"])]
  groups += [(group["name"], group["support"]) for group in results["groups"]]
  both = lambda cells, name: [cells[0][name], *cells[1][name]]
  cells = found["overall"], found["by_group"]
  total = both(cells, "decisions")
  counts = [both(cells, name) for name, _ in names]
  rates = [cell["rate"] for cell in cells]
  rate = [both(rates, end) for end in ("estimate", "low", "high")]
  order = sorted(
    range(1, len(total)), key=lambda i: -np.nan_to_num(number(rate[0][i]))
  )
  share = lambda count, i: count[i] / total[i] if total[i] else float("nan")
  nats = []
  if results["scored"]:
    inside = results["by_group"]
    nats = [inside["divergence_of_everyone"], *inside["divergence"]]
  rows = [
    [
      *groups[i],
      tuple(number(end[i]) for end in rate),
      *(share(count, i) for count in counts),
      *([mean(nats[i])] if nats else ()),
    ]
    for i in (0, *order[:MOST_ROWS])
  ]
  percent = lambda title: elements.Column(title, "%", digits=2, scale=100)
  table = elements.Table(
    [
      "group",
      "samples",
      percent("differ"),
      *(percent(title) for _, title in names),
      *([elements.Column("divergence", "nats", digits=4)] if nats else ()),
    ],
    rows,
    notes=[
      f"Shares of all decisions, over attributes. {level(results)} intervals"
      " of Wilson, which take the decisions on one sample as independent."
      + (" Divergence: mean KL(dense || compressed)." if nats else "")
    ],
  )
  return elements.Section(
    "Decisions that differ", [table, *_exemplars(results, pictures)]
  )


def _exemplars(results: dict[str, Any], pictures) -> list[Any]:
  found = results["exemplars"]
  if not found:
    return ["The models agree on every decision."]
  word = lambda x: "yes" if x else "no"
  how = (
    "The decisions that both models are surest of, and contradict each other"
    if results["scored"]
    else "The first decisions that differ"
  )
  gallery = [
    elements.Picture(
      pictures[e["id"]],
      caption=f"{e['attribute']}: {word(e['reference'])} → {word(e['model'])}",
    )
    for e in found
    if e["id"] in pictures
  ]
  if gallery:
    return [elements.Gallery(gallery, caption=f"{how}: dense → compressed.")]
  rows = [
    [
      e["id"],
      e["attribute"],
      f"{word(e['reference'])} → {word(e['model'])}",
      "\u2013" if e["label"] is None else word(e["label"]),
      ", ".join(e["groups"][:4]),
    ]
    for e in found[:12]
  ]
  columns = ["sample", "attribute", "dense → compressed", "label", "groups"]
  return [elements.Table(columns, rows, caption=f"{how}.")]
