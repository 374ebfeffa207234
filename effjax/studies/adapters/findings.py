"""What the study of adapters finds: a row for every arm."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax import metrics
from effjax.studies.adapters import plans


def gather(
  config: Any, base: dict[str, Any], outcomes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Sum outcomes up by arm.

  Args:
    config: The configuration: `arms`, `rates`, `seeds`.
    base: What was measured of the model as it is.
    outcomes: Of each run.

  Returns:
    `table`, a row for each arm, `tried`, losses by arm and learning rate, and
    `lowered`, how many arms lower the loss beyond chance.
  """
  table, tried = [], {}
  for arm in config.arms:
    own = [o for o in outcomes if o["arm"] == arm]
    first = [o for o in own if o["seed"] == config.seeds[0]]
    best = min(first, key=lambda o: o["validation"])
    runs = {o["seed"]: o for o in own if o["rate"] == best["rate"]}
    after = [runs[seed]["test"] for seed in config.seeds]
    rates = sorted(o["rate"] for o in first)
    table.append(
      {
        "arm": arm,
        "title": plans.TITLES[arm],
        "rate": best["rate"],
        # A better rate may lie beyond those that were tried.
        "at_the_edge": len(rates) > 1 and best["rate"] in (rates[0], rates[-1]),
        "trained": best["trained"],
        "share": best["trained"] / best["weights"],
        "after": interval(after),
        "change": interval(np.array(after) - base["test"]),
        "cpu": interval([runs[s]["seconds"]["cpu"] for s in config.seeds]),
        "text": best["text"],
      }
    )
    tried[arm] = [
      {"rate": o["rate"], "validation": o["validation"]}
      for o in sorted(first, key=lambda o: o["rate"])
    ]
  lowered = sum(
    bool(row["change"]["high"] < 0)
    for row in table
    if np.isfinite(row["change"]["high"])
  )
  return {
    "table": table,
    "tried": tried,
    "lowered": lowered,
    "runs": [{k: v for k, v in o.items() if k != "text"} for o in outcomes],
  }


def interval(values: Any) -> dict[str, float]:
  """Average over seeds, with Student's 95 % interval.

  Args:
    values: [S].

  Returns:
    `estimate`, `low`, `high`; the ends are NaN for one seed.
  """
  found = metrics.seed_interval(values)
  return {
    end: float(getattr(found, end)) for end in ("estimate", "low", "high")
  }
