"""What the bias study finds beyond its table: repairs, omens, claims T7 to T9.

Plain dicts for `results.json`: an interval is a dict of estimate, low, high and
count.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from effjax import metrics
from effjax.studies.bias import claims, measures, repairs, uneven, votes
from effjax.studies.bias.problems import Problem
from effjax.studies.bias.variants import Variant

# Where the random controls and decisions of the repairs come from.
_SEED = 0


def interval(
  values: np.ndarray, reference: np.ndarray | None = None
) -> dict[str, float]:
  """Sum up values by seed, or their paired difference from others.

  Args:
    values: [S].
    reference: [S], of the same seeds, or None.

  Returns:
    Estimate, low, high and count.
  """
  found = metrics.seed_interval(values, reference=reference)
  return {k: float(v) for k, v in found._asdict().items()}


def gather(
  config: Any,
  problem: Problem,
  outcomes: measures.Outcomes,
  parts: Sequence[Any],
  variants: Sequence[Variant],
) -> dict[str, Any]:
  """Compute what is found at the sparsity in focus, and judge T7 to T9.

  Args:
    config: The configuration; `report.focus` is the sparsity.
    problem: The data.
    outcomes: The measured values.
    parts: The stages, with the logits of their models.
    variants: The variants that were run.

  Returns:
    `groups_compared` and `verdicts`; with pruned models `repairs`, `foretold`,
    `uneven`, `votes`, `calibration` and `one_or_many` too.
  """
  arms = [arm for arm in ("ri", "pt") if outcomes.sparsities(arm)]
  found: dict[str, Any] = {"groups_compared": _groups(problem)}
  found["verdicts"] = []
  if not arms:
    return found
  logits, seeds = repairs.logits_of(parts), outcomes.seeds()
  near = lambda levels: min(levels, key=lambda s: abs(s - config.report.focus))
  verdicts: list[claims.Verdict] = []
  found["foretold"] = [
    _foretold(problem, outcomes, logits, arm, sparsity, verdicts)
    for arm in arms
    for sparsity in outcomes.sparsities(arm)
  ]
  found["uneven"] = [
    uneven.measure(outcomes, arm, sparsity)
    for arm in arms
    for sparsity in outcomes.sparsities(arm)
  ]
  found["votes"] = [
    votes.count(logits, seeds, arm, sparsity)
    for arm in arms
    for sparsity in outcomes.sparsities(arm)
  ]
  shown = [(arm, near(outcomes.sparsities(arm))) for arm in arms]
  found["calibration"] = votes.calibration(
    logits, seeds, problem, [("dense", 0.0), *shown]
  )
  arm = arms[-1]
  focus = near(outcomes.sparsities(arm))
  found["repairs"] = _repairs(
    problem, logits, seeds, variants, arm, focus, verdicts
  )
  found["one_or_many"] = [
    _one_or_many(outcomes, problem, variant, sparsity, verdicts)
    for variant in variants
    if variant.attributes
    for sparsity in variant.sparsities
    if sparsity == 0 or sparsity in outcomes.sparsities("ri")
  ]
  found["verdicts"] = [dataclasses.asdict(v) for v in verdicts]
  return found


def _groups(problem: Problem) -> dict[str, Any]:
  whole = measures.sides(problem)
  return {
    "names": list(whole.names),
    "supports": whole.members.sum(0).tolist(),
    "families": {name: list(c) for name, c in whole.families.items()},
  }


def _foretold(
  problem: Problem,
  outcomes: measures.Outcomes,
  logits: repairs.Logits,
  arm: str,
  sparsity: float,
  verdicts: list[claims.Verdict],
) -> dict[str, Any]:
  flips = repairs.flips_foretold(logits, outcomes.seeds(), arm, sparsity)
  gains = repairs.gain_foretold(problem, outcomes, logits, arm, sparsity)
  if sparsity in (0.95, 0.98, 0.99):
    verdicts.append(
      claims.verdict(
        "T7",
        "low confidence of the dense model tells which decisions flip at"
        f" {sparsity:.0%} sparsity",
        "area under the ROC curve",
        arm,
        metrics.seed_interval(flips),
        above=0.75,
      )
    )
  return {
    "arm": arm,
    "sparsity": sparsity,
    "flips": interval(flips),
    "gains": {name: interval(values) for name, values in gains.items()},
  }


def _repairs(
  problem: Problem,
  logits: repairs.Logits,
  seeds: Sequence[int],
  variants: Sequence[Variant],
  arm: str,
  sparsity: float,
  verdicts: list[claims.Verdict],
) -> dict[str, Any]:
  compared = repairs.compare(
    jax.random.key(_SEED),
    problem,
    logits,
    seeds,
    variants,
    arm=arm,
    sparsity=sparsity,
  )
  rows, curve = compared["rows"], compared["curve"]
  at = repairs.BUDGETS.index(repairs.BUDGET)
  verdicts.append(
    claims.verdict(
      "T8",
      f"overriding the {repairs.BUDGET:.0%} of decisions of which the dense"
      " model is least sure lowers the size of bias amplification more than"
      f" overriding random ones, at {sparsity:.0%} sparsity",
      "mean |BA|, least sure − random",
      arm,
      metrics.seed_interval(
        curve["susceptible"][:, at], reference=curve["random"][:, at]
      ),
      below=0.0,
    )
  )
  return {
    "arm": arm,
    "sparsity": sparsity,
    "rows": [
      {
        "name": name,
        **{k: interval(v) for k, v in scores.items()},
        "change": {
          k: interval(v, rows["pruned"][k]) for k, v in scores.items()
        },
      }
      for name, scores in rows.items()
    ],
    "families": [
      {
        "name": family,
        **{k: interval(v[:, i]) for k, v in compared["families"].items()},
      }
      for i, family in enumerate(measures.sides(problem).families)
    ],
    "budgets": list(repairs.BUDGETS),
    "curve": {
      name: [interval(column) for column in values.T]
      for name, values in curve.items()
    },
  }


def _one_or_many(
  outcomes: measures.Outcomes,
  problem: Problem,
  variant: Variant,
  sparsity: float,
  verdicts: list[claims.Verdict],
) -> dict[str, Any]:
  both = repairs.one_or_many(outcomes, problem, variant, sparsity)
  level = f"{sparsity:.0%} sparsity" if sparsity else "no sparsity"
  verdicts.append(
    claims.verdict(
      "T9",
      f"models of one label amplify bias more than joint ones at {level}",
      "bias amplification, one label − joint",
      variant.name,
      metrics.seed_interval(both["single"], reference=both["joint"]),
      above=0.0,
    )
  )
  return {
    "sparsity": sparsity,
    "attributes": list(variant.attributes),
    **{name: interval(values) for name, values in both.items()},
    "difference": interval(both["single"], both["joint"]),
  }
