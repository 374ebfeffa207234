"""Populations against each other: exemplars, churn, calibration.

The seeds of an arm are a population. What its members disagree about by chance
is the measure of what pruning changes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax import metrics
from effjax.studies import curves, elements
from effjax.studies.bias.problems import Problem

Logits = dict[tuple[str, float, int], tuple[np.ndarray, np.ndarray]]


def count(
  logits: Logits, seeds: Sequence[int], arm: str, sparsity: float
) -> dict[str, Any]:
  """Count the decisions on which pruned models vote otherwise than dense ones.

  Args:
    logits: From (arm, sparsity, seed) to validation and test logits [N, A].
    seeds: The seeds.
    arm: The arm.
    sparsity: Its sparsity.

  Returns:
    The number of decisions, of exemplars (the modes differ), of those that a
    binomial null corrected by Benjamini and Hochberg leaves, of those on which
    every pruned model differs from the first dense one; the share of decisions
    that differ between dense models of two seeds, and between the dense and the
    pruned model of a seed.
  """
  decided = lambda *model: np.stack(
    [logits[(*model, seed)][1] > 0 for seed in seeds]
  )
  dense, sparse = decided("dense", 0.0), decided(arm, sparsity)
  found = metrics.exemplars(dense, sparse)
  churn = metrics.baseline_churn(dense).mean
  flips = [np.mean(d != s) for d, s in zip(dense, sparse, strict=True)]
  total = lambda chosen: int(np.count_nonzero(chosen))
  return {
    "arm": arm,
    "sparsity": sparsity,
    "decisions": int(dense[0].size),
    "exemplars": total(found.pie),
    "corrected": total(found.corrected),
    "all_disagree": total(found.all_disagree),
    "churn": float(np.mean(churn)),
    "flips": float(np.mean(flips)),
  }


def calibration(
  logits: Logits,
  seeds: Sequence[int],
  problem: Problem,
  models: Sequence[tuple[str, float]],
) -> list[dict[str, Any]]:
  """Compute reliability diagrams over all attributes and seeds.

  Args:
    logits: See `count`.
    seeds: The seeds.
    problem: The data.
    models: Arms with their sparsities.

  Returns:
    For each of them arm, sparsity, and by bin confidence, frequency and count.
  """
  metric, rows = metrics.calibration_error(), []
  labels = problem.labels["test"].reshape(-1, 1)
  for arm, sparsity in models:
    state = metric.empty
    for seed in seeds:
      test = logits[arm, sparsity, seed][1].reshape(-1, 1)
      state = metric.update(state, logits=test, labels=labels)
    curve = metrics.reliability_curve(state)
    rows.append(
      {
        "arm": arm,
        "sparsity": sparsity,
        "confidence": np.asarray(curve.confidence[0], float).tolist(),
        "frequency": np.asarray(curve.frequency[0], float).tolist(),
        "count": np.asarray(curve.count[0]).tolist(),
      }
    )
  return rows


def section(
  results: dict[str, Any], titles: dict[str, str]
) -> elements.Section | None:
  """Show exemplars, churn and reliability diagrams.

  Args:
    results: The content of `results.json`.
    titles: Names of the arms.

  Returns:
    A section, or None where nothing is pruned.
  """
  votes = results.get("votes")
  if not votes:
    return None
  columns: list[Any] = ["sparsity"]
  columns += [
    elements.Column("exemplars", "%", digits=2, scale=100),
    elements.Column("beyond chance", "%", digits=2, scale=100),
    elements.Column("all pruned models differ", "%", digits=2, scale=100),
    elements.Column("flips, same seed", "%", digits=2, scale=100),
    elements.Column("churn of dense models", "%", digits=2, scale=100),
  ]
  lines: list[Any] = []
  for arm in dict.fromkeys(row["arm"] for row in votes):
    lines.append(titles[arm])
    for row in votes:
      if row["arm"] != arm:
        continue
      share = lambda name, row=row: row[name] / row["decisions"]
      lines.append(
        [
          f"{100 * row['sparsity']:g} %",
          *map(share, ("exemplars", "corrected", "all_disagree")),
          row["flips"],
          row["churn"],
        ]
      )
  seeds = len(results["seeds"])
  table = elements.Table(
    columns,
    lines,
    caption="Exemplars are decisions on which most pruned models decide"
    f" otherwise than most dense ones ({seeds} seeds each); beyond chance are"
    " those that remain when dense models disagree as often (binomial null,"
    " Benjamini and Hochberg at 5 %). Churn is how often dense models of two"
    " seeds disagree: flips up to there need no pruning.",
  )
  series: dict[str, Any] = {}
  for row in results["calibration"]:
    name = titles[row["arm"]]
    if row["sparsity"]:
      name = f"{name}, {100 * row['sparsity']:g} %"
    series[name] = tuple(
      np.array(row[key], float) for key in ("confidence", "frequency", "count")
    )
  title = "Do probabilities mean what they say, dense and pruned?"
  plot = elements.Plot(
    curves.reliability_diagram(series, title=title),
    alt="share of positive labels against predicted probability",
    caption="All attributes and seeds together; a point is a bin, its area the"
    " share of decisions in it. On the diagonal a probability is right.",
  )
  return elements.Section("More than chance?", [table, elements.Plots([plot])])
