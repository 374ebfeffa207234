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
    model: `rates`, each [G, A]; `gaps`, for each partition, each [A].
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
    return {"rates": values, "gaps": apart}

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


def compare(
  key: jax.Array,
  outputs: Outputs,
  model: dict[str, Any],
  reference: dict[str, Any],
  *,
  sign: np.ndarray,
  resamples: int,
  level: float,
) -> Comparison:
  """Compares the groups' rates of two models, with paired intervals.

  Args:
    key: A random key.
    outputs: What is audited.
    model: The batch of the compressed model.
    reference: That of the dense one, the same samples.
    sign: [G, A], 1 where group and attribute go along with each other in the
      labels, -1 where they avoid each other; turns the change of rates into
      directional amplification where there is no training data.
    resamples: How many resamples of the rows, the same for both models and all
      attributes.
    level: The coverage.

  Returns:
    The `Comparison`.
  """
  values, samples, trained = [], [], outputs.train
  for groups in _shares(outputs.groups):
    place = [outputs.groups.names.index(name) for name in groups.names]
    if trained is None:
      one = _shared(layout(groups))
    else:
      members = trained.members[:, place]
      amplification = metrics.bias_amplification(trained.labels, members)
      one = metric(layout(groups), amplification)
    batches = [
      {**batch, "groups": groups.members} for batch in (model, reference)
    ]
    values.append([metrics.compute(one, **batch) for batch in batches])
    plan = resampling.prepare(one, *batches, joint=True)
    samples.append(resampling.draw(key, plan, resamples))
  first, second = (
    _joined([pair[i] for pair in values], axis=0) for i in (0, 1)
  )
  drawn = _joined(samples, axis=1)
  if trained is None:
    for tree in (first, second, drawn):
      rates = tree["rates"]
      rates["amplification"] = rates["amplification"] * sign.astype(np.float32)
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


def _joined(trees: list[Any], axis: int) -> Any:
  """Joins the values of shares of the groups, as NumPy arrays."""
  trees = [jax.tree.map(np.asarray, tree) for tree in trees]
  rates = jax.tree.map(
    lambda *x: np.concatenate(x, axis), *[tree["rates"] for tree in trees]
  )
  gaps = {name: gap for tree in trees for name, gap in tree["gaps"].items()}
  return {"rates": rates, "gaps": gaps}


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
