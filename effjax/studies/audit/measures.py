"""The measures of an audit: two models on the same samples, group by group."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from effjax import metrics
from effjax.studies.audit import details, fairness, mitigation
from effjax.studies.audit.outputs import Outputs, decided, invalid, rounded
from effjax.studies.audit.terms import BINS, terms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
  """A row of the overall table.

  Attributes:
    title: What it is called.
    needs: What it cannot do without: "labels", "scores" or both.
    better: "higher", "lower" or "" where neither is.
  """

  title: str
  needs: tuple[str, ...] = ()
  better: str = ""


QUANTITIES = {
  "accuracy": Quantity(title="accuracy", needs=("labels",), better="higher"),
  "auc": Quantity(title="AUC", needs=("labels", "scores"), better="higher"),
  "ece": Quantity(
    title="calibration error", needs=("labels", "scores"), better="lower"
  ),
  "brier": Quantity(
    title="Brier score", needs=("labels", "scores"), better="lower"
  ),
  "uncertainty": Quantity(
    title="uncertain predictions", needs=("scores",), better="lower"
  ),
  "positive_rate": Quantity(title="positive rate"),
}


def audit(
  outputs: Outputs,
  *,
  title: str = "Audit of a compressed model",
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Measures what compression did, and to whom.

  Args:
    outputs: Of both models. Without labels there are disagreement, rates of
      positive decisions and divergence by group only.
    title: A title for the report.
    resamples: The number of bootstrap resamples behind each interval.
    seed: The seed of the resamples.
    level: The coverage of the intervals.

  Returns:
    Plain dicts, lists, numbers and strings: `overall` (one row a measure),
    `by_attribute`, `by_group`, `flips`, `worst` (pairs of group and attribute),
    `calibration`, `exemplars`, `mitigation`, and what they rest on. NaN is what
    is undefined.

  Raises:
    ValueError: If `resamples` or `level` is out of range.
  """
  key = jax.random.key(seed)
  labels = outputs.labels
  if labels is None:
    # Groups are compared with the reference in place of the truth.
    labels = decided(outputs.reference)
  name = "logits" if outputs.scored else "predictions"
  model, dense = (
    {name: x, "labels": labels} for x in (outputs.outputs, outputs.reference)
  )
  parts = fairness.parts(outputs, labels)
  compared = fairness.compare(
    key,
    parts,
    model,
    dense,
    resamples=resamples,
    level=level,
  )
  values = [
    _values({**one, f"reference_{name}": other[name]}, rates, outputs)
    for one, other, rates in (
      (model, dense, compared.model),
      (dense, model, compared.reference),
    )
  ]
  flips = values[0]["flips"]
  overall = _overall(
    key, outputs, values, compared, resamples=resamples, level=level
  )
  return {
    "study": "audit",
    "title": title,
    "kind": outputs.kind,
    "labels": outputs.labels is not None,
    "train": outputs.train is not None,
    "scored": outputs.scored,
    "samples": outputs.rows,
    "attributes": list(outputs.attributes),
    "groups": _groups(outputs),
    "resamples": resamples,
    "seed": seed,
    "level": level,
    "notes": list(outputs.notes),
    "undefined": undefined(outputs),
    "overall": overall,
    "by_attribute": {
      quantity: {"model": rounded(x), "reference": rounded(values[1][quantity])}
      for quantity, x in values[0].items()
      if quantity in QUANTITIES
    },
    "by_group": details.by_group(outputs, compared, values[0]),
    "flips": details.flips(outputs, flips),
    "worst": details.worst(outputs, compared, flips, level),
    "calibration": details.calibration(outputs, values),
    "exemplars": details.exemplars(outputs),
    "mitigation": mitigation.measure(
      jax.random.fold_in(key, 1), outputs, parts, compared
    ),
  }


def undefined(outputs: Outputs) -> list[dict[str, Any]]:
  """Says of which attributes and groups nothing, or not all, can be said.

  Args:
    outputs: What is audited.

  Returns:
    Dicts of the name, what is wrong and how often.
  """
  found = []
  for who, x in (("model", outputs.outputs), ("reference", outputs.reference)):
    count = np.isnan(x).sum(axis=0) if outputs.scored else np.zeros(x.shape[1])
    found += [
      {
        "name": outputs.attributes[a],
        "reason": f"NaN outputs of the {who}: its results are undefined",
        "count": int(count[a]),
      }
      for a in np.flatnonzero(count)
    ]
  if outputs.labels is not None:
    positives = outputs.labels.sum(axis=0)
    found += [
      {
        "name": outputs.attributes[a],
        "reason": f"all {outputs.rows} labels are"
        f" {'1' if positives[a] else '0'}: no AUC, and no rate of the other",
        "count": int(outputs.rows),
      }
      for a in np.flatnonzero((positives == 0) | (positives == outputs.rows))
    ]
  support = outputs.groups.members.sum(axis=0)
  found += [
    {"name": outputs.groups.names[g], "reason": "an empty group", "count": 0}
    for g in np.flatnonzero(support == 0)
  ]
  return found + [
    {"name": name, "reason": "samples in none of its groups", "count": count}
    for name, count in outputs.groups.missing.items()
    if count
  ]


def _groups(outputs: Outputs) -> list[dict[str, Any]]:
  groups = outputs.groups
  support = groups.members.sum(axis=0).tolist()
  return [
    {"name": name, "partition": partition, "support": count}
    for name, partition, count in zip(
      groups.names, groups.partitions, support, strict=True
    )
  ]


def _values(
  batch: dict[str, Any], rates: Any, outputs: Outputs
) -> dict[str, Any]:
  """Measures one model beside the other, in one compiled program."""
  metric = _metric(outputs.labels is not None, outputs.scored)
  values, state = metrics.compute(
    metric, **batch, groups=outputs.groups.members
  )
  values = jax.tree.map(np.asarray, values) | rates["everyone"]
  if outputs.labels is None:
    del values["accuracy"]
  if "ece" in values:
    values["auc"] = np.asarray(
      metrics.auc_exact(batch["logits"], batch["labels"])
    )
    values["reliability"] = jax.tree.map(np.asarray, state["ece"])
  return values


@functools.lru_cache(maxsize=4)
def _metric(labelled: bool, scored: bool) -> metrics.Metric:
  """Makes the measures of one model, with their state for a diagram."""
  found = {"flips": metrics.flips()}
  if scored:
    found["uncertainty"] = metrics.uncertainty()
    found["divergence"] = metrics.divergence()
  if scored and labelled:
    found["brier"] = metrics.brier_score(BINS)
    found["ece"] = metrics.calibration_error(BINS)
  both = metrics.collection(found)
  return both._replace(compute=lambda s, of=both.compute: (of(s), s))


@functools.lru_cache(maxsize=1)
def _mean() -> metrics.Metric:
  return metrics.mean(lambda batch: batch.logits, "logits")


def _overall(
  key: jax.Array,
  outputs: Outputs,
  values: list[dict[str, Any]],
  compared: fairness.Comparison,
  *,
  resamples: int,
  level: float,
) -> list[dict[str, Any]]:
  """Returns the rows of the table of all measures."""
  intervals = _mean_intervals(key, outputs, resamples, level)
  rows = []
  for name, quantity in QUANTITIES.items():
    if name in values[0]:
      pair = [values[i][name] for i in (0, 1)]
      rows.append(_row(name, quantity.title, None, pair, intervals[name]))
  rows.append(
    {
      "quantity": "flips",
      "title": "decisions that differ",
      "partition": None,
      "model": float("nan"),
      "reference": float("nan"),
      "difference": intervals["flips"],
      "defined": int(np.sum(~invalid(outputs))),
    }
  )
  difference = compared.difference
  labelled = outputs.labels is not None
  for partition, gaps in compared.model["gaps"].items():
    for name, value in gaps.items():
      if not labelled and name != "demographic_parity":
        continue
      ends = {
        end: float(getattr(difference, end)["means"]["gaps"][partition][name])
        for end in ("estimate", "low", "high")
      }
      pair = [value, compared.reference["gaps"][partition][name]]
      shown = fairness.GAPS.get(name, "worst-group accuracy")
      rows.append(_row(name, shown, partition, pair, ends))
  if labelled:
    ends = {
      end: float(getattr(difference, end)["means"]["amplification"])
      for end in ("estimate", "low", "high")
    }
    pair = [
      x["rates"]["amplification"] for x in (compared.model, compared.reference)
    ]
    trained = outputs.train is not None
    shown = "bias amplification" if trained else "directional amplification"
    rows.append(_row("amplification", shown, None, pair, ends))
  return rows


def _row(name, title, partition, pair, ends) -> dict[str, Any]:
  return {
    "quantity": name,
    "title": title,
    "partition": partition,
    "model": fairness.mean_where_both(pair[0], pair[1]),
    "reference": fairness.mean_where_both(pair[1], pair[0]),
    "difference": ends,
    "defined": int(np.sum(~np.isnan(pair[0]) & ~np.isnan(pair[1]))),
  }


def _mean_intervals(
  key: jax.Array, outputs: Outputs, resamples: int, level: float
) -> dict[str, dict[str, float]]:
  """Returns paired intervals of means over attributes."""
  model = dict(terms(outputs.outputs, outputs.labels))
  dense = dict(terms(outputs.reference, outputs.labels))
  changed = decided(outputs.outputs) != decided(outputs.reference)
  model["flips"] = np.where(invalid(outputs), np.nan, changed)
  dense["flips"] = np.where(np.isnan(model["flips"]), np.nan, 0.0)
  columns = []
  for name in model:
    pair = model[name], dense[name]
    known = ~np.isnan(pair[0]).any(axis=0) & ~np.isnan(pair[1]).any(axis=0)
    columns.append(
      [
        x[:, known].mean(axis=1)
        if known.any()
        else np.full(outputs.rows, np.nan)
        for x in pair
      ]
    )
  first, second = (
    np.stack([pair[i] for pair in columns], axis=1).astype(np.float32)
    for i in (0, 1)
  )
  interval = metrics.bootstrap(
    key,
    _mean(),
    {"logits": first},
    resamples,
    paired={"logits": second},
    level=level,
  )
  ends = [np.asarray(getattr(interval, e)) for e in ("estimate", "low", "high")]
  return {
    name: dict(zip(("estimate", "low", "high"), map(float, cell), strict=True))
    for name, cell in zip(model, np.stack(ends, axis=1), strict=True)
  }
