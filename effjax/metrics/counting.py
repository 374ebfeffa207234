"""Reads the named arrays of a batch and counts rows exactly."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
# Whole numbers up to here are exact in float32.
_EXACT_ROWS = 2**24
# The arrays with a column for each attribute.
_WIDE = (
  "logits",
  "predictions",
  "labels",
  "reference_logits",
  "reference_predictions",
)


def one_hot(ids: Any, groups: int) -> Array:
  """Returns the membership columns of a partition.

  Args:
    ids: [N] integers in [0, groups). An id outside belongs to no group where
      the values are traced.
    groups: The number of columns; static, so that a group without samples keeps
      its column.

  Returns:
    [N, groups] bool.

  Raises:
    ValueError: If `ids` is not a vector of integers or holds an id outside.

  >>> one_hot([1, 0, 1], 3).astype(int).tolist()
  [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
  """
  ids = read_ids("ids", ids, groups, unit="groups")
  return ids[:, None] == jnp.arange(groups, dtype=ids.dtype)[None, :]


def read_ids(
  name: str, ids: Any, number: int, *, ndim: int = 1, unit: str = "classes"
) -> Array:
  """Checks an array of ids.

  Args:
    name: What to call the array in an error.
    ids: [...] integers.
    number: Where the values are concrete, they must lie in [0, number).
    ndim: The rank that the array must have.
    unit: What the ids number, for an error.

  Returns:
    The ids as an array.

  Raises:
    ValueError: If the rank or type is another, or an id lies outside.
  """
  concrete = not isinstance(ids, jax.core.Tracer)
  ids = jnp.asarray(ids)
  if ids.ndim != ndim or not jnp.issubdtype(ids.dtype, jnp.integer):
    kind = {1: "a vector", 2: "a matrix"}.get(ndim, f"an array of rank {ndim}")
    raise ValueError(
      f"{name} must be {kind} of integers, got {ids.dtype}{list(ids.shape)}."
    )
  if concrete and ids.size:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= number:
      raise ValueError(
        f"{name} run from {low} to {high}, but {unit}={number} allows 0 to"
        f" {number - 1}."
      )
  return ids


class Batch(NamedTuple):
  """The checked arrays of a batch; None for what a metric did not ask for.

  Attributes:
    logits: [N, A] float32.
    predictions: [N, A] bool.
    labels: [N, A] bool.
    groups: [N, G] bool.
    weights: [N] int32 or float32.
    invalid: [A] int32, the number of NaN logits in rows that count.
    reference_logits: [N, A] float32, those of the model compared with.
    reference_predictions: [N, A] bool.
  """

  logits: Any
  predictions: Any
  labels: Any
  groups: Any
  weights: Array
  invalid: Array
  reference_logits: Any = None
  reference_predictions: Any = None


def read(
  batch: Mapping[str, Any],
  *needs: str,
  threshold: Any = 0.0,
  reference_threshold: Any = None,
) -> Batch:
  """Checks the shapes of a batch and fills in what follows from them.

  Args:
    batch: Named arrays; those that are not needed are ignored.
    *needs: Of "logits", "predictions", "labels", "groups",
      "reference_logits", "reference_predictions".
    threshold: Scalar or [A]; turns logits into predictions.
    reference_threshold: The same for the reference; None means `threshold`.

  Returns:
    The arrays with fixed types, and weights of 1 where none are given.

  Raises:
    ValueError: If an array is missing or its shape disagrees with the others.
  """
  given = {name for name, array in batch.items() if array is not None}
  decide = {
    name: name.replace("predictions", "logits")
    for name in needs
    if name.endswith("predictions") and name not in given
  }
  needs = tuple(decide.get(name, name) for name in needs)
  missing = [name for name in needs if name not in given]
  if missing:
    raise ValueError(
      f"The batch has no {' and no '.join(missing)}; this metric reads"
      f" {', '.join(needs)}, and the batch holds"
      f" {', '.join(sorted(given)) or 'nothing'}."
    )
  arrays = {name: jnp.asarray(batch[name]) for name in needs}
  if "weights" in given:
    arrays["weights"] = jnp.asarray(batch["weights"])
  _check_shapes(arrays)
  rows = arrays[needs[0]].shape[0]
  weights = read_weights(arrays.get("weights"), rows)
  width = next((x.shape[1] for n, x in arrays.items() if n in _WIDE), 1)
  invalid = jnp.zeros(width, jnp.int32)
  for name, array in arrays.items():
    if name.endswith("logits"):
      arrays[name] = array.astype(jnp.float32)
      live = (weights != 0).astype(jnp.int32)
      invalid = invalid + count(live, jnp.isnan(arrays[name]))
    elif name != "weights":
      arrays[name] = positive(array)
  if reference_threshold is None:
    reference_threshold = threshold
  for name, source in decide.items():
    reference = name.startswith("reference")
    cut = reference_threshold if reference else threshold
    arrays[name] = decisions(arrays[source], cut)
  fields = {name: arrays.get(name) for name in Batch._fields}
  return Batch(**{**fields, "weights": weights, "invalid": invalid})


def decisions(
  logits: Any, threshold: Any = 0.0, *, inclusive: bool = False
) -> Array:
  """Returns the decision on each logit.

  Args:
    logits: [..., A].
    threshold: Scalar or [A].
    inclusive: Whether a logit equal to the threshold is positive.

  Returns:
    [..., A] bool: `logits > threshold`, or `>=`. False for NaN.
  """
  logits = jnp.asarray(logits)
  threshold = jnp.asarray(threshold, logits.dtype)
  if threshold.ndim:
    if threshold.shape != logits.shape[-1:]:
      raise ValueError(
        f"threshold has shape {list(threshold.shape)}, but the logits have"
        f" shape {list(logits.shape)}: give one number or one per attribute."
      )
    threshold = threshold.reshape((1,) * (logits.ndim - 1) + threshold.shape)
  return logits >= threshold if inclusive else logits > threshold


def read_weights(weights: Any, rows: int) -> Array:
  """Returns weights as float32 if floating, else as int32; 1 for None."""
  if weights is None:
    return jnp.ones(rows, jnp.int32)
  weights = jnp.asarray(weights)
  if jnp.issubdtype(weights.dtype, jnp.floating):
    return weights.astype(jnp.float32)
  return weights.astype(jnp.int32)


def positive(x: Array) -> Array:
  """Returns labels as bools: themselves, or whether a number is above 0."""
  return x if x.dtype == jnp.bool_ else x > 0


def count(weights: Array, columns: Array) -> Array:
  """Sums the weights of the rows in which each column is true.

  Args:
    weights: [N].
    columns: [N, ...] bool.

  Returns:
    [...] in the type of the weights.
  """
  flat = columns.reshape(columns.shape[0], -1)
  sums = cooccurrence(weights, None, flat)[0]
  return sums.reshape(columns.shape[1:])


def cooccurrence(weights: Array, left: Array | None, right: Array) -> Array:
  """Sums the weights of the rows in which two columns are both true.

  Args:
    weights: [N].
    left: [N, P] bool, or None for one column that is always true.
    right: [N, Q] bool.

  Returns:
    [P, Q] in the type of the weights. Products of 0 and 1 are exact in every
    matrix unit, and their float32 sums stay exact up to 2^24.
  """
  factor = weights.astype(jnp.float32)[:, None]
  if left is not None:
    factor = jnp.where(left, factor, 0.0)
  sums = jnp.matmul(
    factor.T, right.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
  )
  return sums if weights.dtype == jnp.float32 else sums.astype(weights.dtype)


def ratio(numerator: Array, denominator: Array) -> Array:
  """Divides in float32; 0/0 is NaN and x/0 is infinite."""
  return numerator.astype(jnp.float32) / denominator.astype(jnp.float32)


def long_sum(terms: Array, block: int = 512) -> Array:
  """Sums the last axis in two levels, so that float32 errors stay small.

  Args:
    terms: [..., N] float32.
    block: Terms of a partial sum.

  Returns:
    [...].
  """
  short = -terms.shape[-1] % block
  padding = [(0, 0)] * (terms.ndim - 1) + [(0, short)]
  parts = jnp.pad(terms, padding).reshape(*terms.shape[:-1], -1, block)
  return jnp.sum(jnp.sum(parts, axis=-1), axis=-1)


def _check_shapes(arrays: Mapping[str, Array]) -> None:
  shapes = ", ".join(f"{n} {list(x.shape)}" for n, x in arrays.items())
  for name, x in arrays.items():
    ndim = 1 if name == "weights" else 2
    if x.ndim != ndim:
      letters = {"weights": "[N]", "groups": "[N, G]"}.get(name, "[N, A]")
      raise ValueError(f"{name} must have shape {letters}, got {shapes}.")
  if len({x.shape[0] for x in arrays.values()}) > 1:
    raise ValueError(f"The arrays disagree in the number of rows: {shapes}.")
  widths = {x.shape[1] for n, x in arrays.items() if n in _WIDE}
  if len(widths) > 1:
    raise ValueError(
      f"The arrays disagree in the number of attributes: {shapes}."
    )
  rows = next(iter(arrays.values())).shape[0]
  if rows > _EXACT_ROWS:
    raise ValueError(
      f"A batch of {rows} rows is above {_EXACT_ROWS}, the most that are"
      " counted exactly; split it."
    )


def check_convention(convention: str) -> None:
  """Raises a ValueError unless `convention` is "exact" or "reference"."""
  if convention not in ("exact", "reference"):
    raise ValueError(
      f'convention must be "exact" or "reference", got {convention!r}.'
    )
