"""Rates of groups and the gaps between them, of one model or of two."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.metrics import intervals, resampling
from effjax.studies.audit.groups import Groups
from effjax.studies.audit.outputs import Outputs

GAPS = {
  "demographic_parity": "demographic parity gap",
  "equal_opportunity": "equal opportunity gap",
  "equalized_odds": "equalized odds gap",
  "predictive_parity": "predictive parity gap",
}
# A bootstrap draws cells of so many combinations of groups at most.
_MOST_KINDS = 64


class Comparison(NamedTuple):
  """Rates and gaps of two models; trees of float arrays.

  Attributes:
    model: `rates`, each [G, A]; `gaps`, for each partition, each [A];
      `everyone`, the accuracy and the positive rate [A].
    reference: The same of the reference.
    difference: An `Interval` of such trees, model minus reference; beside them
      `means` over the attributes (or pairs) that both models define.
  """

  model: Any
  reference: Any
  difference: metrics.Interval


Layout = tuple[tuple[str, tuple[int, ...]], ...]


def layout(groups: Groups) -> Layout:
  """Returns the columns of each partition."""
  names = dict.fromkeys(groups.partitions)
  return tuple((name, tuple(groups.columns(name))) for name in names)


def metric(
  partitions: Layout, amplification: metrics.Metric | None = None
) -> metrics.Metric:
  """Makes the rates of groups and the gaps between them.

  Args:
    partitions: Of `layout`.
    amplification: A `metrics.bias_amplification`; None returns in its place the
      rate of positive decisions minus that of positive labels.

  Returns:
    A metric like `metrics.group_rates` with a value like `Comparison.model`.
  """
  rates = metrics.group_rates()

  def compute(state):
    found = rates.compute(state)
    error = 1.0 - found.accuracy
    if amplification is None:
      amplified = found.selection_rate - found.base_rate
    else:
      amplified = amplification.compute(state)
    values = {
      "error": error,
      "excess": error - (1.0 - found.overall.accuracy)[None],
      "fnr": found.fnr,
      "fpr": found.fpr,
      "selection_rate": found.selection_rate,
      "amplification": amplified,
    }
    apart = {name: gaps(found, columns) for name, columns in partitions}
    everyone = {
      "accuracy": found.overall.accuracy,
      "positive_rate": found.overall.selection_rate,
    }
    return {"rates": values, "gaps": apart, "everyone": everyone}

  return rates._replace(compute=compute)


# The same metric for the same groups, so that a second audit compiles nothing.
_shared = functools.lru_cache(maxsize=16)(metric)


def gaps(
  rates: metrics.GroupRates, columns: Sequence[int]
) -> dict[str, jax.Array]:
  """Returns the gaps between some of the groups, and their worst accuracy.

  Those of `metrics.disparities` that are shown; the others cost compilation.

  Args:
    rates: Of all groups, [G, A].
    columns: The groups of a partition.

  Returns:
    The names of `GAPS` and `worst_accuracy`, each [A].
  """
  place = np.array(columns)
  apart = lambda x: metrics.gap(x[place]).difference
  tpr, fpr = apart(rates.tpr), apart(rates.fpr)
  accuracy = rates.accuracy[place]
  return {
    "demographic_parity": apart(rates.selection_rate),
    "equal_opportunity": tpr,
    "equalized_odds": jnp.maximum(tpr, fpr),
    "predictive_parity": apart(rates.precision),
    "worst_accuracy": jnp.nanmin(accuracy, axis=0),
  }


class Part(NamedTuple):
  """Groups whose rates are measured together.

  Attributes:
    groups: The groups.
    metric: Of `metric`.
    sign: [G, A], what turns the change of rates into directional amplification;
      None where there is training data.
  """

  groups: Groups
  metric: metrics.Metric
  sign: np.ndarray | None


def parts(outputs: Outputs, labels: np.ndarray) -> list[Part]:
  """Returns all groups as one part, or each partition if combinations are many.

  Args:
    outputs: What is audited.
    labels: [N, A] bool.
  """
  found = []
  for groups in _shares(outputs.groups):
    trained = outputs.train
    if trained is None:
      # The state of no samples has the signs, which follow from these labels.
      directional = metrics.directional_bias_amplification(
        labels, groups.members, details=True
      )
      sign = jax.jit(lambda s, of=directional.compute: of(s).sign)
      sign = np.asarray(sign(directional.empty), np.float32)
      found.append(Part(groups, _shared(layout(groups)), sign))
      continue
    place = [outputs.groups.names.index(name) for name in groups.names]
    amplification = metrics.bias_amplification(
      trained.labels, trained.members[:, place]
    )
    found.append(Part(groups, metric(layout(groups), amplification), None))
  return found


def measure(parts: Sequence[Part], batch: dict[str, Any]) -> Any:
  """Measures one model.

  Args:
    parts: Of `parts`.
    batch: Its outputs and the labels.

  Returns:
    A tree like `Comparison.model`, of NumPy arrays.
  """
  values = [
    metrics.compute(part.metric, **batch, groups=part.groups.members)
    for part in parts
  ]
  return _joined(parts, values, axis=0)


def compare(
  key: jax.Array,
  parts: Sequence[Part],
  model: dict[str, Any],
  reference: dict[str, Any],
  *,
  resamples: int,
  level: float,
) -> Comparison:
  """Compares the groups' rates of two models, with paired intervals.

  Args:
    key: A random key.
    parts: Of `parts`.
    model: The outputs of the compressed model, and the labels.
    reference: The same of the dense one, on the same samples.
    resamples: How many resamples of the rows, the same for both models and all
      attributes.
    level: The coverage.

  Returns:
    The `Comparison`.
  """
  samples = []
  for part in parts:
    batches = [
      {**batch, "groups": part.groups.members} for batch in (model, reference)
    ]
    plan = resampling.prepare(part.metric, *batches, joint=True)
    samples.append(resampling.draw(key, plan, resamples))
  first, second = (measure(parts, batch) for batch in (model, reference))
  drawn = _joined(parts, samples, axis=1)
  estimate = jax.tree.map(lambda a, b: a - b, first, second)
  known = jax.tree.map(lambda x: ~np.isnan(x), estimate)
  estimate["means"] = _means(estimate, known, 0)
  drawn["means"] = _means(drawn, known, 1)
  return Comparison(first, second, _interval(estimate, drawn, level))


def mean_where_both(x: Any, other: Any) -> float:
  """Returns the mean of what is defined in both arrays, NaN for nothing."""
  known = ~np.isnan(x) & ~np.isnan(other)
  return float(x[known].mean(dtype=np.float64)) if known.any() else np.nan


def _interval(estimate: Any, drawn: Any, level: float) -> metrics.Interval:
  """Returns the percentile interval of trees, sorted as one matrix."""
  leaves, structure = jax.tree.flatten(estimate)
  columns = jax.tree.leaves(drawn)
  whole = intervals.percentile(
    np.concatenate([np.ravel(x) for x in leaves]),
    np.concatenate([x.reshape(len(x), -1) for x in columns], axis=1),
    level,
  )
  borders = np.cumsum([np.size(x) for x in leaves])[:-1]

  def tree(flat):
    parts = np.split(np.asarray(flat), borders)
    shaped = zip(parts, leaves, strict=True)
    return structure.unflatten([x.reshape(np.shape(y)) for x, y in shaped])

  return metrics.Interval(*map(tree, whole))


def _shares(groups: Groups) -> list[Groups]:
  """Returns all groups, or each partition if combinations are many."""
  kinds = np.unique(np.packbits(groups.members, axis=1), axis=0)
  if len(kinds) <= _MOST_KINDS:
    return [groups]
  parts = []
  for name in dict.fromkeys(groups.partitions):
    columns = groups.columns(name)
    parts.append(
      groups._replace(
        names=tuple(groups.names[i] for i in columns),
        partitions=(name,) * len(columns),
        members=groups.members[:, columns],
      )
    )
  return parts


def _joined(parts: Sequence[Part], trees: Sequence[Any], axis: int) -> Any:
  """Joins the values of parts along the axis of groups, as NumPy arrays."""
  trees = [jax.tree.map(np.asarray, tree) for tree in trees]
  for part, tree in zip(parts, trees, strict=True):
    if part.sign is not None:
      rates = tree["rates"]
      rates["amplification"] = part.sign * rates["amplification"]
  return {
    "rates": jax.tree.map(
      lambda *x: np.concatenate(x, axis), *[tree["rates"] for tree in trees]
    ),
    "gaps": {n: gap for tree in trees for n, gap in tree["gaps"].items()},
    "everyone": trees[0]["everyone"],
  }


def _means(tree: Any, known: Any, leading: int) -> Any:
  """Returns the means over attributes (and groups) that both models define."""

  def mean(x, where):
    flat = x.reshape(*x.shape[:leading], -1)
    used = where.reshape(-1) & ~np.isnan(flat)
    total = np.where(used, flat, 0.0).sum(axis=-1)
    count = used.sum(axis=-1)
    value = total / np.maximum(count, 1)
    return np.where(count > 0, value, np.nan).astype(np.float32)

  means = {"gaps": jax.tree.map(mean, tree["gaps"], known["gaps"])}
  pairs = (x["rates"]["amplification"] for x in (tree, known))
  return means | {"amplification": mean(*pairs)}
