"""What might help without training: moved thresholds, overridden decisions."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.studies.audit import fairness
from effjax.studies.audit.outputs import Outputs, decided, invalid, rounded

BUDGETS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
_DRAWS = 3


def measure(
  key: jax.Array,
  outputs: Outputs,
  parts: Sequence[fairness.Part],
  compared: fairness.Comparison,
) -> dict[str, Any]:
  """Tries what can be tried with the outputs at hand.

  Args:
    key: A random key, for the control of overriding.
    outputs: What is audited.
    parts: Its groups.
    compared: The rates of both models.

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
  ways = {"reference": compared.reference, "model": compared.model}
  if outputs.validation is not None:
    thresholds, moved = _moved(*outputs.validation, outputs.outputs)
    # A NaN threshold would decide "negative" in silence.
    usable = ~np.isnan(np.asarray(thresholds))
    if not usable.all():
      needs.append(
        f"{int((~usable).sum())} attributes have NaN validation outputs; their"
        " thresholds stay at 1/2."
      )
    # As logits, for which the program of the comparison is compiled already.
    adjusted = np.where(moved, 1.0, -1.0)
    adjusted = np.where(usable & known, adjusted, outputs.outputs)
    batch = {"logits": adjusted.astype(np.float32), "labels": outputs.labels}
    ways["adjusted"] = fairness.measure(parts, batch)
  found: dict[str, Any] = {"needs": needs}
  found["decisions"] = {way: _summary(tree) for way, tree in ways.items()}
  if outputs.scored:
    model, dense = (
      decided(x)[:, known] for x in (outputs.outputs, outputs.reference)
    )
    curve = metrics.override_curve(
      key,
      _worst(fairness.layout(outputs.groups)),
      {
        "predictions": model,
        "labels": outputs.labels[:, known],
        "groups": outputs.groups.members,
      },
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


def _summary(tree: Any) -> dict[str, float]:
  """Returns means over attributes, and over partitions, where defined."""
  mean = lambda x: float(np.nanmean(x)) if np.isfinite(x).any() else np.nan
  over = lambda name: mean(np.stack([x[name] for x in tree["gaps"].values()]))
  return {
    "accuracy": mean(tree["everyone"]["accuracy"]),
    "worst_accuracy": over("worst_accuracy"),
    "equalized_odds": over("equalized_odds"),
  }


@functools.lru_cache(maxsize=16)
def _worst(partitions: fairness.Layout) -> metrics.Metric:
  """Makes accuracy and worst-group accuracy, means like those of `_summary`."""
  rates = metrics.group_rates()

  def compute(state):
    found = rates.compute(state)
    worst = [
      jnp.nanmin(found.accuracy[np.array(columns)], axis=0)
      for _, columns in partitions
    ]
    return {
      "accuracy": jnp.nanmean(found.overall.accuracy),
      "worst_accuracy": jnp.nanmean(jnp.stack(worst)),
    }

  return rates._replace(compute=compute)


@jax.jit
def _moved(labels, validation, logits):
  """Returns thresholds of validation data, and the decisions they make."""
  thresholds = metrics.adjust_thresholds(validation, labels)
  return thresholds, metrics.decisions(logits, thresholds)
