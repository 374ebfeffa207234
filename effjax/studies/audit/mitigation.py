"""What might help without training: moved thresholds, overridden decisions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.studies.audit import fairness
from effjax.studies.audit.outputs import Outputs, decided, invalid, rounded

BUDGETS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
_DRAWS = 3


def measure(key: jax.Array, outputs: Outputs) -> dict[str, Any]:
  """Tries what can be tried with the outputs at hand.

  Args:
    key: A random key, for the control of overriding.
    outputs: What is audited.

  Returns:
    `needs`, sentences on what is missing; `decisions`, from a way to decide to
    `accuracy`, `worst_accuracy` and `equalized_odds`; and `override`, a curve
    over budgets of decisions taken from the dense model.
  """
  needs = []
  if outputs.labels is None:
    return {"needs": ["Labels: without them no remedy can be judged."]}
  if outputs.validation is None:
    needs.append(
      "To move thresholds: the compressed model's logits or probabilities on"
      " validation data, and their labels."
    )
  if not outputs.scored:
    needs.append(
      "To override decisions: logits or probabilities of the dense model, which"
      " tell where it is unsure."
    )
  known = ~invalid(outputs)
  if not known.any():
    return {"needs": ["An attribute without NaN outputs."]}
  metric = summary(fairness.layout(outputs.groups))
  shared = {
    "labels": outputs.labels[:, known],
    "groups": outputs.groups.members,
  }
  model, dense = (
    decided(x)[:, known] for x in (outputs.outputs, outputs.reference)
  )
  ways = {"reference": dense, "model": model}
  if outputs.validation is not None:
    thresholds, moved = _moved(
      outputs.validation.outputs[:, known],
      outputs.validation.labels[:, known],
      outputs.outputs[:, known],
    )
    # A NaN threshold would decide "negative" in silence.
    usable = ~np.isnan(np.asarray(thresholds))
    ways["adjusted"] = np.where(usable, np.asarray(moved), model)
    if not usable.all():
      needs.append(
        f"{int((~usable).sum())} attributes have NaN validation outputs; their"
        " thresholds stay at 1/2."
      )
  found: dict[str, Any] = {"needs": needs}
  found["decisions"] = {
    way: jax.tree.map(
      lambda x: float(x), metrics.compute(metric, predictions=x, **shared)
    )
    for way, x in ways.items()
  }
  if outputs.scored:
    curve = metrics.override_curve(
      key,
      metric,
      {"predictions": model, **shared},
      dense,
      outputs.reference[:, known],
      budgets=BUDGETS,
      draws=_DRAWS,
    )
    found["override"] = {
      "budgets": list(BUDGETS),
      "count": rounded(curve.count),
      "susceptible": jax.tree.map(rounded, curve.susceptible),
      "control": jax.tree.map(rounded, curve.control),
    }
  return found


@functools.lru_cache(maxsize=16)
def summary(partitions: fairness.Layout) -> metrics.Metric:
  """Makes three numbers of a model's decisions.

  Args:
    partitions: Of `fairness.layout`.

  Returns:
    A metric of (predictions, labels, groups) with a dict of scalars: means over
    attributes (and partitions) of the accuracy, the accuracy of the worst group
    of a partition, and the equalized odds gap.
  """
  rates = metrics.group_rates()

  def compute(state):
    found = rates.compute(state)
    apart = [fairness.gaps(found, columns) for _, columns in partitions]
    mean = lambda name: jnp.nanmean(jnp.stack([x[name] for x in apart]))
    return {
      "accuracy": jnp.nanmean(found.overall.accuracy),
      "worst_accuracy": mean("worst_accuracy"),
      "equalized_odds": mean("equalized_odds"),
    }

  return rates._replace(compute=compute)


@jax.jit
def _moved(validation, labels, logits):
  """Returns thresholds of validation data, and the decisions they make."""
  thresholds = metrics.adjust_thresholds(validation, labels)
  return thresholds, metrics.decisions(logits, thresholds)
