"""The section of the bias report on who is hurt, made of `results.json`."""

from typing import Any

import numpy as np

from effjax import metrics
from effjax.studies import elements, figures
from effjax.studies.bias import measures

_FEW = 30  # samples of a group that is not named as the one that pays most


def by_seed(
  results: dict[str, Any], arm: str, sparsity: float, quantity: str
) -> np.ndarray:
  """Read a quantity of every seed.

  Args:
    results: The content of `results.json`.
    arm: The arm.
    sparsity: Its sparsity.
    quantity: What `measures.make_measure` returns.

  Returns:
    [S, ...], NaN where undefined.
  """
  found = {
    run["seed"]: np.array(run["by_attribute"][quantity], float)
    for run in results["runs"]
    if (run["arm"], run["sparsity"]) == (arm, sparsity)
  }
  return np.stack([found[seed] for seed in results["seeds"]])


def excess(
  results: dict[str, Any], arm: str, sparsity: float
) -> metrics.Interval:
  """Compute by how much more the errors of each group grow than everyone's.

  Args:
    results: The content of `results.json`.
    arm: The arm.
    sparsity: Its sparsity.

  Returns:
    An interval over seeds of [H], means over attributes.
  """
  read = lambda arm, sparsity: (
    by_seed(results, arm, sparsity, "group_error")
    - by_seed(results, arm, sparsity, "error")[:, None]
  )
  change = read(arm, sparsity) - read("dense", 0.0)
  return metrics.seed_interval(measures.mean_defined(change, -1))


def groups(
  results: dict[str, Any], arm: str, levels: list[float], title: str
) -> elements.Plot:
  """Plot which groups pay more than others, by sparsity.

  Args:
    results: The content of `results.json`.
    arm: The arm.
    levels: Its sparsities.
    title: What the arm is called.

  Returns:
    A heat map.
  """
  found = [excess(results, arm, level) for level in levels]
  estimate = 100 * np.stack([x.estimate for x in found], axis=1)
  half = 50 * np.stack([x.high - x.low for x in found], axis=1)
  names = results["groups_compared"]["names"]
  supports = results["groups_compared"]["supports"]
  order = np.argsort(-np.nan_to_num(estimate[:, -1], nan=-np.inf))
  worst = next((i for i in order if supports[i] >= _FEW), order[0])
  message = (
    f"At {100 * levels[-1]:g}\u00a0% the errors of {names[worst]} grow by"
    f" {estimate[worst, -1]:.1f} points more than everyone's"
  )
  note = lambda x: f"±{x:.1f}" if np.isfinite(x) else ""
  figure = figures.heat_map(
    estimate[order],
    [f"{names[i]}, n = {supports[i]:,}" for i in order],
    [f"{100 * level:g} %" for level in levels],
    title=message,
    ylabel="excess error, percentage points",
    centre=0.0,
    digits=1,
    notes=[[note(x) for x in half[i]] for i in order],
  )
  return elements.Plot(
    figure,
    alt=f"{message}; group by sparsity",
    caption=f"Models {title}: growth of the error rate of a group minus that"
    " of everyone, against the dense models of the same seeds, mean over"
    f" attributes; ± is half of the 95 % interval over {len(results['seeds'])}"
    " seeds, for these samples: it does not say what others of a group would"
    f" meet. The title leaves out groups of fewer than {_FEW}.",
  )


def who(
  results: dict[str, Any],
  titles: dict[str, str],
  levels: dict[str, list[float]],
) -> elements.Section:
  """Show which attributes and groups pay most.

  Args:
    results: The content of `results.json`.
    titles: Names of the arms.
    levels: For each pruned arm its sparsities.

  Returns:
    A section.
  """
  names = np.array(results["attributes"])
  arms = list(levels)
  level = min(levels[arms[0]], key=lambda s: abs(s - 0.98))
  plots = []
  for quantity, words in (
    ("auc", "change of AUC against dense"),
    ("amplification", "change of bias amplification against dense"),
  ):
    changes = {arm: _change(results, arm, level, quantity) for arm in arms}
    first = changes[arms[0]].estimate
    order = np.argsort(np.where(np.isfinite(first), first, np.inf))
    order = order[np.isfinite(first[order])]
    if not len(order):
      continue
    worst = order[0] if quantity == "auc" else order[-1]
    title = (
      f"At {100 * level:g}\u00a0% sparsity {names[worst]} changes most:"
      f" {first[worst]:+.3f}"
    )
    figure = figures.dot_intervals(
      names[order].tolist(),
      {
        titles[arm]: (c.estimate[order], c.low[order], c.high[order])
        for arm, c in changes.items()
      },
      title=title,
      xlabel=words,
      reference=0.0,
    )
    plots.append(
      elements.Plot(
        figure,
        alt=f"{title}; {words} by attribute",
        caption=f"Paired differences, mean and 95 % interval over"
        f" {len(results['seeds'])} seeds.",
      )
    )
  if "groups_compared" in results:
    plots += [groups(results, arm, levels[arm], titles[arm]) for arm in arms]
  return elements.Section("Who is hurt", [elements.Plots(plots)])


def _change(
  results: dict[str, Any], arm: str, level: float, quantity: str
) -> metrics.Interval:
  """The paired change against dense of every attribute."""

  def values(arm: str, sparsity: float) -> np.ndarray:
    found = by_seed(results, arm, sparsity, quantity)
    # What is measured by group is averaged over the groups.
    return found if found.ndim == 2 else measures.mean_defined(found, 1)

  return metrics.seed_interval(
    values(arm, level), reference=values("dense", 0.0)
  )
