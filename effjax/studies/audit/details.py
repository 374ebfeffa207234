"""The details of an audit: groups, flips, the worst pairs, exemplars."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from effjax import metrics
from effjax.studies.audit import chance, fairness
from effjax.studies.audit.outputs import Outputs, decided, invalid, rounded

EXEMPLARS = 24
WORST = 10


def by_group(
  outputs: Outputs, compared: fairness.Comparison, values: dict[str, Any]
) -> dict[str, Any]:
  """Returns what is known of each group and attribute, [G, A].

  Args:
    outputs: What is audited.
    compared: The rates of groups.
    values: Of the model, with `flips` and `divergence`.
  """
  rates = {"selection_rate": "selection_rate_change"}
  if outputs.labels is not None:
    rates |= {
      "error": "error_change",
      "excess": "excess_error",
      "fnr": "fnr_change",
      "fpr": "fpr_change",
    }
  found = {
    shown: {
      end: rounded(getattr(compared.difference, end)["rates"][name])
      for end in ("estimate", "low", "high")
    }
    for name, shown in rates.items()
  }
  for name in ("selection_rate", "error")[: 1 + (outputs.labels is not None)]:
    found[name] = {
      "model": rounded(compared.model["rates"][name]),
      "reference": rounded(compared.reference["rates"][name]),
    }
  found["flip_rate"] = rounded(values["flips"].by_group.rate)
  if "divergence" in values:
    found["divergence"] = rounded(values["divergence"].by_group)
    found["divergence_of_everyone"] = rounded(values["divergence"].overall)
  return found


def flips(outputs: Outputs, flips: metrics.Flips) -> dict[str, Any]:
  """Returns counts of changed decisions, of everyone and of each group."""
  names = ["lost", "gained"]
  if outputs.labels is not None:
    names += ["broken", "mended"]
  known = ~invalid(outputs)

  def counts(name):
    parts = (getattr(rates, name) for rates in (flips.overall, flips.by_group))
    return [x[..., known].sum(axis=-1) for x in parts]

  total = counts("support")
  numbers = {name: counts(name) for name in names}
  changed = [
    a + b for a, b in zip(*(numbers[n] for n in names[:2]), strict=True)
  ]
  # One program for everyone and each group.
  interval = jax.jit(metrics.wilson)(
    np.r_[changed[0], changed[1]], np.r_[total[0], total[1]]
  )
  found = {}
  for i, (name, rows) in enumerate(
    (("overall", 0), ("by_group", slice(1, None)))
  ):
    found[name] = {n: rounded(x[i]) for n, x in numbers.items()}
    found[name]["decisions"] = rounded(total[i])
    found[name]["rate"] = {
      end: rounded(np.asarray(getattr(interval, end))[rows])
      for end in ("estimate", "low", "high")
    }
  found["by_attribute"] = {
    name: rounded(getattr(flips.overall, name)) for name in names
  }
  return found


def worst(
  outputs: Outputs,
  compared: fairness.Comparison,
  flips: metrics.Flips,
  level: float,
) -> dict[str, Any]:
  """Returns the pairs of group and attribute whose errors grow most.

  Of each pair a test asks how often a group of as many samples, drawn from
  everyone, would have as many more broken decisions than mended ones; Holm
  corrects for all pairs that have samples. Pairs that pass come first.
  """
  if outputs.labels is None:
    return {"pairs": [], "tested": 0, "significant": 0}
  found, everyone = flips.by_group, flips.overall
  p = chance.of_drawn_groups(
    found.broken,
    found.mended,
    found.support,
    (everyone.broken, everyone.mended, everyone.support),
  )
  p = np.where(invalid(outputs), np.nan, p)
  adjusted = np.asarray(metrics.holm(p))
  rates = {
    end: getattr(compared.difference, end)["rates"]
    for end in ("estimate", "low", "high")
  }
  excess, change = rates["estimate"]["excess"], rates["estimate"]["error"]
  hurt = (excess > 0) & (change > 0)
  certain = hurt & (adjusted <= 1.0 - level)
  order = np.lexsort((-np.nan_to_num(excess).ravel(), ~certain.ravel()))
  order = [i for i in order if hurt.flat[i]][:WORST]
  before = compared.reference["rates"]["error"]
  pairs = []
  for i in order:
    g, a = np.unravel_index(i, excess.shape)
    cell = lambda name, g=g, a=a: {
      end: float(rates[end][name][g, a]) for end in rates
    }
    pairs.append(
      {
        "group": outputs.groups.names[g],
        "attribute": outputs.attributes[a],
        "support": int(found.support[g, a]),
        "error_reference": float(before[g, a]),
        "error_model": float(before[g, a] + change[g, a]),
        "excess_error": cell("excess"),
        "error_change": cell("error"),
        "fnr_change": cell("fnr"),
        "fpr_change": cell("fpr"),
        "broken": int(found.broken[g, a]),
        "mended": int(found.mended[g, a]),
        "p": float(p[g, a]),
        "p_holm": float(adjusted[g, a]),
      }
    )
  return {
    "pairs": pairs,
    "tested": int((~np.isnan(p)).sum()),
    "significant": int(certain.sum()),
  }


def calibration(
  outputs: Outputs, values: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Returns reliability diagrams, pooled and of the attribute that lost most.

  Args:
    outputs: What is audited.
    values: Of the model and the reference, with the state `reliability`.
  """
  known = ~invalid(outputs)
  if "reliability" not in values[0] or not known.any():
    return {}
  change = np.where(known, values[0]["ece"] - values[1]["ece"], -np.inf)
  worst = int(np.argmax(change))

  shown = [np.flatnonzero(known), *([worst],) * (len(known) > 1)]

  def curves(state):
    pooled = type(state)(
      *(
        np.stack([x[columns].sum(axis=0) for columns in shown]).astype(x.dtype)
        for x in state
      )
    )
    return jax.jit(metrics.reliability_curve)(pooled)

  model, dense = (curves(value["reliability"]) for value in values)

  def both(i):
    return {
      who: {name: rounded(x[i]) for name, x in curve._asdict().items()}
      for who, curve in (("model", model), ("reference", dense))
    }

  found: dict[str, Any] = {"pooled": both(0)}
  if len(known) > 1:
    found["worst"] = {"attribute": outputs.attributes[worst], **both(1)}
  return found


def exemplars(outputs: Outputs) -> list[dict[str, Any]]:
  """Returns the surest contradictions of the two models.

  A flip is as sure as the less sure of the models, by the size of its logit;
  decisions without logits come in the order of the rows.

  Args:
    outputs: What is audited.
  """
  first, second = decided(outputs.outputs), decided(outputs.reference)
  flipped = (first != second) & ~invalid(outputs)
  sure = np.ones(flipped.shape, np.float32)
  if outputs.scored:
    sure = np.minimum(np.abs(outputs.outputs), np.abs(outputs.reference))
  sure = np.where(flipped, sure, -1.0)
  order = np.argsort(-sure, axis=None, kind="stable")[:EXEMPLARS]
  found = []
  for i in order:
    row, a = (int(x) for x in np.unravel_index(i, flipped.shape))
    if not flipped[row, a]:
      break
    found.append(
      {
        "row": row,
        "id": str(row) if outputs.ids is None else str(outputs.ids[row]),
        "attribute": outputs.attributes[a],
        "reference": bool(second[row, a]),
        "model": bool(first[row, a]),
        "label": None
        if outputs.labels is None
        else bool(outputs.labels[row, a]),
        "logit": float(sure[row, a]) if outputs.scored else None,
        "groups": [
          outputs.groups.names[g]
          for g in np.flatnonzero(outputs.groups.members[row])
        ],
      }
    )
  return found
