"""What is measured on the predictions of every model, and summed up by arm."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.studies.bias.arms import Member
from effjax.studies.bias.problems import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
  """A measured quantity, for tables and axes.

  Attributes:
    title: What it is called.
    unit: Its unit, "" for a plain number.
    better: "higher", "lower", "one" (1 is perfect) or "zero".
    digits: Decimals in tables.
  """

  title: str
  unit: str = ""
  better: str = "higher"
  digits: int = 4


QUANTITIES = {
  "accuracy": Quantity(title="accuracy"),
  "auc": Quantity(title="AUC"),
  "uncertainty": Quantity(title="uncertain predictions", better="lower"),
  "interdependence": Quantity(title="interdependence (R²)", better="lower"),
  "tcb": Quantity(title="threshold calibration bias", better="one"),
  "ece": Quantity(title="calibration error", better="lower"),
  "amplification": Quantity(title="bias amplification", better="zero"),
  "backdoor": Quantity(title="backdoor amplification", better="zero"),
  "accuracy_adjusted": Quantity(title="accuracy, thresholds adjusted"),
  "tcb_adjusted": Quantity(
    title="threshold calibration bias, thresholds adjusted", better="one"
  ),
  "amplification_adjusted": Quantity(
    title="bias amplification, thresholds adjusted", better="zero"
  ),
  "demographic_parity": Quantity(
    title="demographic parity difference", better="lower"
  ),
  "equal_opportunity": Quantity(
    title="equal opportunity difference", better="lower"
  ),
  "equalized_odds": Quantity(title="equalized odds difference", better="lower"),
}


@dataclasses.dataclass(frozen=True)
class Sides:
  """Groups with their complements, so that every family parts the samples.

  Attributes:
    names: Names of the H groups; a group that stood alone has its complement.
    members: bool [N, H] of the test split.
    families: For each family the columns of its groups.
  """

  names: tuple[str, ...]
  members: np.ndarray
  families: dict[str, tuple[int, ...]]


def sides(problem: Problem, split: str = "test") -> Sides:
  """Complete the groups of a problem.

  Args:
    problem: The data.
    split: Which samples.

  Returns:
    Groups that part the samples, family by family.
  """
  names, families = list(problem.groups), {}
  columns = [problem.memberships[split]]
  for family, members in problem.families().items():
    if len(members) == 1:
      members = (*members, len(names))
      names.append(f"not {problem.groups[members[0]]}")
      columns.append(~problem.memberships[split][:, members[:1]])
    families[family] = members
  return Sides(tuple(names), np.concatenate(columns, axis=1), families)


def make_gaps(families: dict[str, tuple[int, ...]]):
  """Make the function that compares the groups of each family.

  Args:
    families: For each family the columns of its groups.

  Returns:
    `gaps(rates)` -> a dict of [F, A]: differences of selection rates, of true
    positive rates, and the larger one of true and false positive rates.
  """

  def gaps(rates: metrics.GroupRates) -> dict[str, jax.Array]:
    def over(name: str) -> jax.Array:
      rate = getattr(rates, name)
      return jnp.stack(
        [metrics.gap(rate[jnp.array(c)]).difference for c in families.values()]
      )

    tpr, fpr = over("tpr"), over("fpr")
    return {
      "demographic_parity": over("selection_rate"),
      "equal_opportunity": tpr,
      "equalized_odds": jnp.maximum(tpr, fpr),
    }

  return gaps


def make_measure(problem: Problem):
  """Make the function that measures one model.

  Args:
    problem: The data; labels of training set the stereotypes.

  Returns:
    `measure(validation_logits, test_logits)` -> a dict of arrays: [A] for each
    attribute, [G, A] for bias amplification, [K] for K planted marks, [F, A]
    for differences between the groups of F families, [H, A] for error rates of
    the groups of `sides`.
  """
  whole = sides(problem)
  parted, gaps = jnp.asarray(whole.members), make_gaps(whole.families)
  train, groups = problem.labels["train"], problem.memberships["train"]
  labels = jnp.asarray(problem.labels["test"])
  members = jnp.asarray(problem.memberships["test"])
  validation = jnp.asarray(problem.labels["validation"])
  marks = [problem.groups.index(name) for name in problem.marked]
  columns = [problem.attributes.index(a) for a in problem.marked.values()]

  def decided(threshold: jax.Array | float) -> metrics.Metric:
    return metrics.collection(
      {
        "accuracy": metrics.accuracy(threshold),
        "tcb": metrics.threshold_calibration_bias(train, threshold=threshold),
        "amplification": metrics.bias_amplification(
          train, groups, threshold=threshold
        ),
      }
    )

  ranked = metrics.collection(
    {
      "uncertainty": metrics.uncertainty(),
      "interdependence": metrics.interdependence(),
      "ece": metrics.calibration_error(),
      "positive_rate": metrics.positive_rate(),
      "backdoor": metrics.backdoor_amplification(),
    }
  )

  @jax.jit
  def measure(validation_logits: jax.Array, test_logits: jax.Array) -> dict:
    batch = dict(logits=test_logits, labels=labels, groups=members)
    values = {}
    for metric in (decided(0.0), ranked):
      values |= metric.compute(metric.update(metric.empty, **batch))
    if labels.shape[1] == 1:  # there are no others to depend on
      values["interdependence"] = jnp.full(1, jnp.nan)
    rates = metrics.compute(
      metrics.group_rates(), logits=test_logits, labels=labels, groups=parted
    )
    values |= gaps(rates) | {
      "error": 1 - rates.overall.accuracy,
      "fnr": rates.overall.fnr,
      "fpr": rates.overall.fpr,
      "group_error": 1 - rates.accuracy,
      "group_fnr": rates.fnr,
      "group_fpr": rates.fpr,
    }
    values["auc"] = metrics.auc_exact(test_logits, labels)
    values["backdoor"] = values["backdoor"][
      jnp.array(marks, int), jnp.array(columns, int)
    ]
    threshold = metrics.adjust_thresholds(validation_logits, validation)
    metric = decided(threshold)
    adjusted = metric.compute(metric.update(metric.empty, **batch))
    return values | {f"{k}_adjusted": v for k, v in adjusted.items()}

  return lambda *logits: jax.tree.map(np.asarray, measure(*logits))


def mean_defined(values: Any, axis: int | None = 0) -> np.ndarray:
  """Average what is defined.

  Args:
    values: [...], NaN or infinite where undefined.
    axis: Over which axis; None for all of them.

  Returns:
    float64 means of what is finite, NaN where nothing is.

  >>> mean_defined(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()
  [2.0, nan]
  """
  values = np.asarray(values, np.float64)
  defined = np.isfinite(values)
  count = defined.sum(axis)
  total = np.where(defined, values, 0.0).sum(axis)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mean(values: dict[str, np.ndarray]) -> dict[str, float]:
  """Average each quantity over attributes (and groups) where it is defined.

  Args:
    values: What `make_measure` returns for one model.

  Returns:
    One number for each of `QUANTITIES`, NaN where nothing is defined.

  >>> mean({"auc": np.array([0.5, np.nan])})
  {'auc': 0.5}
  """
  means = {}
  for name in QUANTITIES:
    if name not in values:
      continue
    means[name] = float(mean_defined(values[name], None))
  return means


@dataclasses.dataclass(frozen=True)
class Outcomes:
  """Measured values of all models.

  Attributes:
    members: The M models.
    values: For each what `make_measure` returned.
  """

  members: Sequence[Member]
  values: Sequence[dict[str, np.ndarray]]

  def seeds(self) -> list[int]:
    """The seeds of the arms that are compared, in ascending order."""
    return sorted({m.seed for m in self.members if m.arm != "base"})

  def sparsities(self, arm: str) -> list[float]:
    """The sparsities of an arm in ascending order."""
    return sorted({m.sparsity for m in self.members if m.arm == arm})

  def each(self, arm: str, sparsity: float, seed: int) -> dict[str, np.ndarray]:
    """The values of one model.

    Args:
      arm: Its arm.
      sparsity: Its sparsity.
      seed: Its seed.
    """
    for member, values in zip(self.members, self.values, strict=True):
      if (member.arm, member.sparsity, member.seed) == (arm, sparsity, seed):
        return values
    raise ValueError(f"there is no model {arm} {sparsity} with seed {seed}")

  def by_seed(self, arm: str, sparsity: float, quantity: str) -> np.ndarray:
    """A quantity averaged over attributes, [S].

    Args:
      arm: The arm.
      sparsity: Its sparsity.
      quantity: A name of `QUANTITIES`.
    """
    return np.array(
      [mean(self.each(arm, sparsity, seed))[quantity] for seed in self.seeds()]
    )

  def by_attribute(
    self, arm: str, sparsity: float, quantity: str
  ) -> np.ndarray:
    """A quantity for each attribute, [S, A]; a mean over groups if it has any.

    Args:
      arm: The arm.
      sparsity: Its sparsity.
      quantity: A name of `QUANTITIES`.
    """
    rows = []
    for seed in self.seeds():
      value = self.each(arm, sparsity, seed)[quantity]
      if value.ndim == 2:
        value = mean_defined(value)
      rows.append(value)
    return np.stack(rows)


def table(
  outcomes: Outcomes, arms: Sequence[str] = ("dense", "ri", "pt")
) -> list:
  """Sum up every arm at every sparsity.

  Args:
    outcomes: The measured values.
    arms: Which arms, in the order of the rows.

  Returns:
    Rows: dicts of arm, sparsity, and for each quantity a dict of estimate, low
    and high (Student's t interval over seeds) and count.
  """
  rows: list[dict[str, Any]] = []
  for arm in arms:
    for sparsity in outcomes.sparsities(arm):
      row: dict[str, Any] = {"arm": arm, "sparsity": sparsity}
      for name in QUANTITIES:
        interval = metrics.seed_interval(outcomes.by_seed(arm, sparsity, name))
        row[name] = {k: float(v) for k, v in interval._asdict().items()}
      rows.append(row)
  return rows
