"""How unevenly pruning hurts: over attributes, over groups, beyond chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax import metrics
from effjax.studies import elements
from effjax.studies.bias.measures import Outcomes, mean_defined

# Corrected p-values below this count as more than chance.
LEVEL = 0.05


def measure(outcomes: Outcomes, arm: str, sparsity: float) -> dict[str, Any]:
  """Compare the pruned models of all seeds with the dense ones.

  Every attribute takes the place of a class. Welch's tests ask whether the
  accuracy of an attribute falls by more than the mean over attributes (Hooker
  et al. 2019), and whether the errors of a group grow by more than everyone's;
  p-values are corrected by Holm's rule for the number of attributes or groups.

  Args:
    outcomes: The measured values.
    arm: The arm.
    sparsity: Its sparsity.

  Returns:
    `cev` and `sde` (Blakeney et al. 2021) in squared percent and percent, the
    number of attributes in which they are `defined`, and for "attributes" and
    "groups" the `harm` (growth of the error rate beyond the mean) and the
    corrected p-values, lists of A and H numbers.
  """
  values = {
    name: [
      _stack(outcomes, arm, sparsity, name),
      _stack(outcomes, "dense", 0.0, name),
    ]
    for name in ("error", "group_error", "fpr", "fnr")
  }
  spread = metrics.cev_sde_of_rates(
    *(values[name][1].mean(0) for name in ("fpr", "fnr")),
    *(values[name][0] for name in ("fpr", "fnr")),
  )
  attributes = [x - x.mean() for x in values["error"]]
  groups = [
    mean_defined(many, -1) - everyone.mean(1, keepdims=True)
    for many, everyone in zip(
      values["group_error"], values["error"], strict=True
    )
  ]
  return {
    "arm": arm,
    "sparsity": sparsity,
    "cev": float(spread.cev),
    "sde": float(spread.sde),
    "defined": int(spread.count),
    "attributes": _tested(*attributes),
    "groups": _tested(*groups),
  }


def _stack(
  outcomes: Outcomes, arm: str, sparsity: float, name: str
) -> np.ndarray:
  """Read a measured value of every seed, [S, ...]."""
  return np.stack(
    [outcomes.each(arm, sparsity, seed)[name] for seed in outcomes.seeds()]
  )


def _tested(pruned: np.ndarray, dense: np.ndarray) -> dict[str, list[float]]:
  test = metrics.welch(pruned, dense)
  return {
    "harm": np.asarray(test.difference, float).tolist(),
    "p": np.asarray(metrics.holm(test.p), float).tolist(),
  }


def section(
  results: dict[str, Any], titles: dict[str, str]
) -> elements.Section | None:
  """Tabulate how unevenly the models of every arm are hurt.

  Args:
    results: The content of `results.json`.
    titles: Names of the arms.

  Returns:
    A section, or None where nothing is pruned.
  """
  found = results.get("uneven")
  if not found:
    return None
  names = results["attributes"], results["groups_compared"]["names"]
  # One attribute alone cannot be hurt more than the mean.
  several = len(names[0]) > 1
  lines: list[Any] = []
  for arm in dict.fromkeys(row["arm"] for row in found):
    lines.append(titles[arm])
    for row in found:
      if row["arm"] == arm:
        cells = [f"{100 * row['sparsity']:g} %"]
        if several:
          cells += [row["cev"], row["sde"], *_hurt(row["attributes"], names[0])]
        lines.append([*cells, *_hurt(row["groups"], names[1])])
  columns: list[Any] = ["sparsity"]
  caption = "A group"
  if several:
    columns += [
      elements.Column("combined error variance", digits=0),
      elements.Column("symmetric distance error", "%", digits=1),
      "attributes hurt more than the mean",
      "attributes hurt less",
    ]
    caption = (
      "Combined error variance and symmetric distance error say how unevenly"
      " the false positive and false negative rates of the attributes change,"
      " in percent of the dense models' rates. An attribute or group"
    )
  seeds = len(results["seeds"])
  caption += (
    " counts if its error rate grows by more, or less, than the mean: Welch's"
    f" test between {seeds} pruned and {seeds} dense models, p < {LEVEL:g}"
    " after Holm's correction; the one that changes most is named, with its"
    " change beyond the mean in percentage points."
  )
  columns += ["groups hurt more than everyone", "groups hurt less"]
  table = elements.Table(columns, lines, caption=caption)
  return elements.Section("Beyond chance", [table])


def _hurt(tested: dict[str, Any], names: Sequence[str]) -> tuple[str, str]:
  """Count and name what is hurt more, and less, than the mean."""
  harm = np.array(tested["harm"], float)
  sure = np.array(tested["p"], float) < LEVEL
  cells = []
  for sign in (1, -1):
    some = np.flatnonzero(sure & (sign * harm > 0))
    most = some[np.argsort(-sign * harm[some])][:1]
    words = [f"{names[i]} {100 * harm[i]:+.1f}" for i in most]
    cells.append(
      f"{len(some)} of {len(names)}" + "".join(f", {w}" for w in words)
    )
  return cells[0], cells[1]
