"""Shares of samples per attribute: accuracy, positive rate, uncertainty."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import base, cells, counting

Array = jax.Array


class Share(NamedTuple):
  """A share with its numerator and denominator; the state of its metric.

  Attributes:
    count: [A], the (weighted) number of samples that qualify.
    total: [], the number of samples.
    invalid: [A] or [], the number of NaN logits among them.
  """

  count: Array
  total: Array
  invalid: Array


def share(
  qualifies: Callable[[counting.Batch], Array],
  *needs: str,
  threshold: Any = 0.0,
) -> base.Metric:
  """Makes the metric "share of samples for which something holds".

  Args:
    qualifies: From a checked batch to [N, A] bool.
    *needs: The arrays that it reads; see `counting.read`.
    threshold: Scalar or [A]; where the decisions come from logits.

  Returns:
    A metric of value [A] float32, NaN without samples or with a NaN logit.
    Its state is a `Share`.
  """

  def update(state: Share, **batch) -> Share:
    read = counting.read(batch, *needs, threshold=threshold)
    new = Share(
      counting.count(read.rows, qualifies(read)),
      jnp.sum(read.weights),
      read.invalid,
    )
    return base.add(state, new)

  def compute(state: Share) -> Array:
    value = counting.ratio(state.count, state.total)
    return jnp.where(state.invalid > 0, jnp.nan, value)

  def columns(**batch):
    read = counting.read(batch, *needs, threshold=threshold)
    chosen = qualifies(read)
    return None, (chosen, cells.invalid(read.logits, chosen))

  def from_counts(counts, groups, chosen, invalid):
    return Share(
      cells.total(counts, groups, chosen),
      jnp.sum(counts[0]),
      cells.total(counts, groups, invalid),
    )

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(
    Share(zero, zero, zero),
    update,
    base.add,
    compute,
    cells.of_columns(2, columns, from_counts),
  )


def accuracy(threshold: Any = 0.0) -> base.Metric:
  """Makes the share of right decisions per attribute.

  Args:
    threshold: Scalar or [A]; a logit strictly above it is a positive decision.
      Not used where the batch holds predictions.

  Returns:
    A metric of (predictions or logits, labels) with value [A].
  """
  return share(
    lambda batch: batch.predictions == batch.labels,
    "predictions",
    "labels",
    threshold=threshold,
  )


def positive_rate(threshold: Any = 0.0) -> base.Metric:
  """Makes the share of positive decisions per attribute.

  Args:
    threshold: Scalar or [A], as in `accuracy`.

  Returns:
    A metric of (predictions or logits) with value [A].
  """
  return share(
    lambda batch: batch.predictions, "predictions", threshold=threshold
  )


def uncertainty(cut: float = 0.4) -> base.Metric:
  """Makes the share of undecided outputs, abs(sigmoid(z) - 1/2) < cut.

  The comparison is made on logits, where it is exact: abs(z) < logit(1/2+cut).
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023).

  Args:
    cut: Half the width of the undecided interval of probabilities, in (0, 1/2];
      0.4 means 0.1 < p < 0.9.

  Returns:
    A metric of (logits) with value [A].

  Raises:
    ValueError: If `cut` is outside (0, 1/2].
  """
  edge = undecided_below(cut)
  return share(lambda batch: jnp.abs(batch.logits) < edge, "logits")


def undecided_below(cut: float) -> np.float32:
  """Returns the size of a logit below which the output is undecided.

  Args:
    cut: Half the width of the undecided interval, as in `uncertainty`.

  Returns:
    logit(1/2 + cut), computed in float64; infinite for 1/2.

  Raises:
    ValueError: If `cut` is outside (0, 1/2].
  """
  arguments.share("cut", cut, 0.5)
  with np.errstate(divide="ignore"):
    return np.float32(np.log((0.5 + cut) / np.float64(0.5 - cut)))
