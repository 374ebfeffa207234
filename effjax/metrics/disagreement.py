"""How much models disagree among themselves, whatever the labels say."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import counting

Array = jax.Array


def churn(first: Any, second: Any, *, weights: Any = None) -> Array:
  """Returns the share of samples on which two models decide differently.

  Args:
    first: [N] or [N, A], bool or class ids.
    second: Like `first`.
    weights: [N], as in a batch.

  Returns:
    [] or [A] float32, NaN without samples. Symmetric in the two models.

  Raises:
    ValueError: If the shapes differ, or values are neither bool nor integers.

  >>> import numpy as np
  >>> float(churn(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])))
  0.5
  """
  first, second = _read_decisions(first), _read_decisions(second)
  if first.shape != second.shape or first.dtype != second.dtype:
    raise ValueError(
      "Both models need predictions of one shape and kind, got"
      f" {first.dtype}{list(first.shape)} and"
      f" {second.dtype}{list(second.shape)}."
    )
  if first.ndim not in (1, 2):
    raise ValueError(
      "The predictions of a model must have shape [N] or [N, A], got"
      f" {list(first.shape)}."
    )
  weights, total = _read_weights(weights, first.shape[0])
  differ = counting.count(weights, first != second)
  return counting.ratio(differ, jnp.broadcast_to(total, differ.shape))


class PairChurn(NamedTuple):
  """Churn between all pairs of a population.

  Attributes:
    mean: [] or [A], the mean over pairs; NaN for fewer than two models.
    pairs: [P] or [P, A], the churn of each pair (0, 1), (0, 2), ... (1, 2) ...;
      P = M (M - 1) / 2.
    support: [], the number of samples.
  """

  mean: Array
  pairs: Array
  support: Array


def baseline_churn(predictions: Any, *, weights: Any = None) -> PairChurn:
  """Returns how much models that differ in their seed alone disagree.

  The flips of a compressed model mean something only where they exceed this
  churn of dense models against each other.

  Args:
    predictions: [M, N] or [M, N, A] of M models, bool or class ids.
    weights: [N], as in a batch.

  Returns:
    A `PairChurn`.

  Raises:
    ValueError: If the array has another rank, or holds neither bool nor
      integers.
  """
  predictions = _read_decisions(predictions)
  if predictions.ndim not in (2, 3):
    raise ValueError(
      "The predictions of a population must have shape [M, N] or [M, N, A],"
      f" got {list(predictions.shape)}."
    )
  models, rows, *shape = predictions.shape
  weights, total = _read_weights(weights, rows)
  first, second = np.triu_indices(models, 1)

  def column(decisions):  # [M, N] bool: a product does all pairs at once
    lost = counting.cooccurrence(weights, decisions.T, ~decisions.T)
    return lost[first, second] + lost[second, first]

  if predictions.dtype == jnp.bool_:
    columns = predictions.reshape(models, rows, math.prod(shape))
    differ = jax.lax.map(column, jnp.moveaxis(columns, 2, 0)).T
    differ = differ.reshape(len(first), *shape)
  else:
    differ = jax.lax.map(
      lambda pair: counting.count(
        weights, predictions[pair[0]] != predictions[pair[1]]
      ),
      (jnp.asarray(first), jnp.asarray(second)),
    )
  pairs = counting.ratio(differ, jnp.broadcast_to(total, differ.shape))
  mean = jnp.sum(pairs, axis=0) / (len(first) or jnp.nan)
  return PairChurn(mean, pairs, total)


def _read_decisions(predictions: Any) -> Array:
  predictions = jnp.asarray(predictions)
  if predictions.dtype == jnp.bool_:
    return predictions
  if not jnp.issubdtype(predictions.dtype, jnp.integer):
    raise ValueError(
      "predictions must be bool or class ids, got"
      f" {predictions.dtype}{list(predictions.shape)}; make decisions of logits"
      " with `decisions`."
    )
  return predictions.astype(jnp.int32)


def _read_weights(weights: Any, rows: int) -> tuple[Array | None, Array]:
  """Returns weights, None for ones, and their sum."""
  if weights is None:
    return None, jnp.asarray(rows, jnp.int32)
  weights = counting.read_weights(weights, rows)
  if weights.shape != (rows,):
    raise ValueError(
      f"weights must have shape [{rows}], one for each sample, got"
      f" {list(weights.shape)}."
    )
  return weights, jnp.sum(weights)
