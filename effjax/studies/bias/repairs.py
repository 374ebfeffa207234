"""What can be done about the bias of pruned models, and what foretells it.

Everything here is computed from logits. Repairs of the decisions (thresholds,
overrides) are made of the arm "pt" at one sparsity, beside its variants that
are trained by another loss; predictions from the dense model are made of all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.studies.bias import measures
from effjax.studies.bias.problems import Problem
from effjax.studies.bias.variants import Variant

BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2)
BUDGET = 0.05  # the one that claim T8 is about
# What a repair is judged by.
SCORES = ("accuracy", "amplification_size", "tcb_distance", "equal_opportunity")
LOSSES = {
  "distillation": "distilled from the dense model",
  "performance_weighted": "loss weighted by dense performance",
  "label_balanced": "labels balanced after pruning",
}

Scores = dict[str, np.ndarray]
Logits = dict[tuple[str, float, int], tuple[np.ndarray, np.ndarray]]


def logits_of(parts: Sequence[Any]) -> Logits:
  """Index the logits of all models of all labels.

  Args:
    parts: The stages.

  Returns:
    From (arm, sparsity, seed) to validation and test logits, each [N, A].
  """
  return {
    (m.arm, m.sparsity, m.seed): (validation, test)
    for part in parts
    if not part.attributes
    for m, validation, test in zip(
      part.members, part.validation, part.test, strict=True
    )
  }


def make_scores(problem: Problem) -> Callable[[Any], dict[str, jax.Array]]:
  """Make the function that scores decisions, whatever made them.

  Args:
    problem: The data.

  Returns:
    `scores(predictions [N, A])` on the test split -> accuracy [], the size of
    bias amplification of every pair [G, A], the mean distance of threshold
    calibration bias from 1 [], and the equal opportunity difference of each
    family [F]; means over what is defined.
  """
  train, groups = problem.labels["train"], problem.memberships["train"]
  whole = measures.sides(problem)
  gaps = measures.make_gaps(whole.families)
  labels = jnp.asarray(problem.labels["test"])
  members = jnp.asarray(problem.memberships["test"])
  parted = jnp.asarray(whole.members)
  metric = metrics.collection(
    {
      "accuracy": metrics.accuracy(),
      "amplification": metrics.bias_amplification(train, groups),
      "tcb": metrics.threshold_calibration_bias(train),
    }
  )

  @jax.jit
  def scores(predictions: jax.Array) -> dict[str, jax.Array]:
    batch = dict(predictions=predictions, labels=labels, groups=members)
    value = metric.compute(metric.update(metric.empty, **batch))
    rates = metrics.compute(
      metrics.group_rates(),
      predictions=predictions,
      labels=labels,
      groups=parted,
    )
    return {
      "accuracy": jnp.mean(value["accuracy"]),
      "amplification_size": jnp.abs(value["amplification"]),
      "tcb_distance": jnp.nanmean(jnp.abs(value["tcb"] - 1)),
      "equal_opportunity": jnp.nanmean(gaps(rates)["equal_opportunity"], 1),
    }

  return scores


def compare(
  key: jax.Array,
  problem: Problem,
  logits: Logits,
  seeds: Sequence[int],
  variants: Sequence[Variant],
  *,
  arm: str,
  sparsity: float,
) -> dict[str, Any]:
  """Repair the decisions of an arm in every way there is.

  Args:
    key: A random key, for controls and for decisions at random.
    problem: The data.
    logits: See `logits_of`.
    seeds: The seeds.
    variants: The variants, of which those with another loss are repairs too.
    arm: The arm to be repaired.
    sparsity: Its sparsity.

  Returns:
    `rows`: from the name of a repair to its scores by seed, each [S]; `curve`:
    from "susceptible" and "random" to the sizes of bias amplification by seed
    and budget, [S, B]; `families`: what thresholds by group do in each family,
    the equal opportunity difference of "pruned" and "repaired" decisions and
    the change of "accuracy", [S, F].
  """
  scores = make_scores(problem)
  losses = {
    v.name: LOSSES[v.loss]
    for v in variants
    if v.loss in LOSSES and sparsity in v.sparsities
  }
  rows: dict[str, list[Any]] = {}
  curve: dict[str, list[Any]] = {"susceptible": [], "random": []}
  families: dict[str, list[np.ndarray]] = {}

  def note(name: str, score: dict[str, Any], pairs: np.ndarray) -> None:
    means = {k: _mean(score[k]) for k in SCORES if k != "amplification_size"}
    means["amplification_size"] = _mean(score["amplification_size"], pairs)
    rows.setdefault(name, []).append(means)

  for seed in seeds:
    own = jax.random.fold_in(key, seed)
    _, dense = logits["dense", 0.0, seed]
    validation, test = logits[arm, sparsity, seed]
    trusted, decided = dense > 0, test > 0
    before = scores(decided)
    # Where nothing was predicted positive a repair makes new pairs defined; the
    # old ones are compared.
    pairs = np.isfinite(before["amplification_size"])
    note("dense", scores(trusted), pairs)
    note("pruned", before, pairs)
    threshold = metrics.adjust_thresholds(
      validation, problem.labels["validation"]
    )
    adjusted = scores(metrics.decisions(test, threshold))
    note("thresholds adjusted", adjusted, pairs)
    grouped = _by_group(
      jax.random.fold_in(own, 0), problem, validation, test, scores
    )
    size = measures.mean_defined(grouped["amplification_size"])
    note("thresholds by group", {**grouped, "amplification_size": size}, pairs)
    for name, values in (
      ("pruned", before["equal_opportunity"]),
      ("repaired", grouped["equal_opportunity"]),
      ("accuracy", grouped["accuracy"] - before["accuracy"]),
    ):
      families.setdefault(name, []).append(np.asarray(values, np.float64))
    sizes = {"susceptible": [], "random": []}
    for budget in BUDGETS:
      chosen = {
        "susceptible": metrics.susceptible(dense, budget=budget),
        "random": metrics.random_susceptible(
          jax.random.fold_in(own, 1), dense.shape, budget
        ),
      }
      for name, some in chosen.items():
        score = scores(metrics.override(decided, trusted, some))
        sizes[name].append(_mean(score["amplification_size"], pairs))
        if budget == BUDGET:
          words = {"susceptible": "least sure", "random": "random"}[name]
          row = f"{100 * budget:g} % {words} overridden by dense"
          note(row, score, pairs)
    for name, values in sizes.items():
      curve[name].append(values)
    for name, words in losses.items():
      note(words, scores(logits[name, sparsity, seed][1] > 0), pairs)
  return {
    "rows": {
      name: {k: np.array([s[k] for s in values]) for k in SCORES}
      for name, values in rows.items()
    },
    "curve": {name: np.array(values) for name, values in curve.items()},
    "families": {name: np.stack(values) for name, values in families.items()},
  }


def _mean(values: Any, among: np.ndarray | None = None) -> float:
  """Average what is defined, of all values or of some."""
  values = np.asarray(values)
  return float(
    measures.mean_defined(values if among is None else values[among], None)
  )


def _by_group(
  key: jax.Array,
  problem: Problem,
  validation: np.ndarray,
  test: np.ndarray,
  scores: Callable,
) -> dict[str, Any]:
  """Fit thresholds of equal opportunity to each of the F families.

  An attribute that a group has always or never keeps the threshold 0.

  Returns:
    Scores of the decisions by the thresholds of a family, [F, ...], of equal
    opportunity that of the family itself.
  """
  fitted = measures.sides(problem, "validation")
  applied = measures.sides(problem)
  labels, found = problem.labels["validation"], []
  for number, (family, columns) in enumerate(fitted.families.items()):
    members = fitted.members[:, list(columns)]
    within = members.T.astype(np.int64) @ labels
    whole = members.sum(0)[:, None]
    fit = ((within > 0) & (within < whole)).all(0)
    decided = test > 0
    if fit.any():
      rule = metrics.parity_thresholds(
        validation[:, fit],
        labels[:, fit],
        members,
        constraint="true_positive_rate",
      )
      decided[:, fit] = metrics.parity_decisions(
        jax.random.fold_in(key, number),
        rule,
        test[:, fit],
        applied.members[:, list(applied.families[family])],
      )
    score = dict(scores(decided))
    score["equal_opportunity"] = score["equal_opportunity"][number]
    found.append(score)
  return {k: np.stack([np.asarray(s[k]) for s in found]) for k in SCORES}


def flips_foretold(
  logits: Logits, seeds: Sequence[int], arm: str, sparsity: float
) -> np.ndarray:
  """How well low confidence of the dense model tells which decisions flip.

  Args:
    logits: See `logits_of`.
    seeds: The seeds.
    arm: The arm.
    sparsity: Its sparsity.

  Returns:
    The area under the ROC curve over all decisions, [S].
  """
  found = []
  for seed in seeds:
    dense, sparse = (
      logits["dense", 0.0, seed][1],
      logits[arm, sparsity, seed][1],
    )
    area = metrics.flip_auroc(dense, (dense > 0) != (sparse > 0))
    found.append(float(area.pooled))
  return np.array(found)


def gain_foretold(
  problem: Problem,
  outcomes: measures.Outcomes,
  logits: Logits,
  arm: str,
  sparsity: float,
) -> dict[str, np.ndarray]:
  """How well criteria of the dense model rank the gains of bias.

  Args:
    problem: The data.
    outcomes: The measured values.
    logits: See `logits_of`.
    arm: The arm.
    sparsity: Its sparsity.

  Returns:
    From the name of a criterion to Spearman's correlation over attributes with
    the growth of bias amplification (mean over groups), [S].
  """
  metric = metrics.dense_criteria(
    problem.labels["train"], problem.memberships["train"]
  )
  gains = outcomes.by_attribute(
    arm, sparsity, "amplification"
  ) - outcomes.by_attribute("dense", 0.0, "amplification")
  found: dict[str, list[float]] = {}
  for seed, gain in zip(outcomes.seeds(), gains, strict=True):
    criteria = metrics.compute(
      metric,
      logits=logits["dense", 0.0, seed][1],
      labels=problem.labels["test"],
      groups=problem.memberships["test"],
    )
    size = measures.mean_defined(criteria.amplification)
    for name, values in (
      ("dense uncertainty", criteria.uncertainty),
      ("dense bias amplification", size),
      ("skew of the labels", criteria.skew),
    ):
      ranked = metrics.rank_correlation(
        None, np.asarray(values, np.float32), gain.astype(np.float32)
      )
      found.setdefault(name, []).append(float(ranked.value))
  return {name: np.array(values) for name, values in found.items()}


def one_or_many(
  outcomes: measures.Outcomes,
  problem: Problem,
  single: Variant,
  sparsity: float,
) -> dict[str, np.ndarray]:
  """Compare joint models with models of one label, on the labels of both.

  Args:
    outcomes: The measured values.
    problem: The data.
    single: The variant of one label.
    sparsity: Of both.

  Returns:
    The mean bias amplification of "single" and "joint" models, each [S].
  """
  columns = [problem.attributes.index(name) for name in single.attributes]
  joint = ("ri", sparsity) if sparsity else ("dense", 0.0)
  found: dict[str, list[float]] = {"single": [], "joint": []}
  for seed in outcomes.seeds():
    alone = outcomes.each(single.name, sparsity, seed)["amplification"]
    together = outcomes.each(*joint, seed)["amplification"][:, columns]
    both = np.isfinite(alone) & np.isfinite(together)
    for name, values in (("single", alone), ("joint", together)):
      mean = values[both].mean() if both.any() else np.nan
      found[name].append(float(mean))
  return {name: np.array(values) for name, values in found.items()}
