"""Reads the named arrays of a batch and counts rows exactly."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments

Array = jax.Array
_EXACT_ROWS = 2**24  # whole numbers up to here are exact in float32
# The arrays with a column for each attribute.
_WIDE = (
  *("logits", "predictions", "labels"),
  *("reference_logits", "reference_predictions"),
)
# The arrays with a column for each group.
_GROUPED = ("groups", "group_predictions")
# Counting by bits: a byte holds so many counts of 8 rows; shorter batches and
# more columns on the left are left to matrix products.
_BYTES = 31
_LEAST_ROWS = 4096
_MOST_COLUMNS = 64


def one_hot(ids: Any, groups: int) -> Array:
  """Returns the membership columns of a partition.

  Args:
    ids: [N] integers in [0, groups); traced ones outside are in no group.
    groups: The number of columns, static: empty groups have one too.

  Returns:
    [N, groups] bool.

  Raises:
    ValueError: If ids or groups are no whole numbers, or an id lies outside.

  >>> one_hot([1, 0, 1], 3).astype(int).tolist()
  [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
  """
  groups = arguments.whole("groups", groups, 0)
  ids = read_ids("ids", ids, groups, unit="groups")
  # Narrower types cannot number all groups.
  numbers = jnp.arange(groups, dtype=jnp.int32)
  return ids.astype(jnp.int32)[:, None] == numbers[None, :]


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
  # NumPy looks at concrete values even while something else is being traced.
  traced = isinstance(ids, jax.core.Tracer)
  ids = ids if traced else np.asarray(ids)
  if ids.ndim != ndim or not jnp.issubdtype(ids.dtype, jnp.integer):
    kind = {1: "a vector", 2: "a matrix"}.get(ndim, f"an array of rank {ndim}")
    raise ValueError(
      f"{name} must be {kind} of integers, got {ids.dtype}{list(ids.shape)}."
    )
  if not traced and ids.size:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= number:
      raise ValueError(
        f"{name} run from {low} to {high}, but {unit}={number} allows 0 to"
        f" {number - 1}."
      )
  return jnp.asarray(ids)


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
    group_predictions: [N, G] bool.
    rows: What `count` and `tally` take as weights: None where every row counts
      once, [N] bool where some do (both are fast), else `weights`.
  """

  logits: Any
  predictions: Any
  labels: Any
  groups: Any
  weights: Array
  invalid: Array
  reference_logits: Any = None
  reference_predictions: Any = None
  group_predictions: Any = None
  rows: Any = None


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
      "reference_logits", "reference_predictions", "group_predictions".
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
    if name.endswith("predictions") and name in _WIDE and name not in given
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
  counted, live = arrays.get("weights"), None
  if counted is not None:
    live = weights != 0
    counted = counted if counted.dtype == jnp.bool_ else weights
  width = next((x.shape[1] for n, x in arrays.items() if n in _WIDE), 1)
  invalid = jnp.zeros(width, jnp.int32)
  for name, array in arrays.items():
    if name.endswith("logits"):
      arrays[name] = array.astype(jnp.float32)
      invalid = invalid + count(live, jnp.isnan(arrays[name]))
    elif name != "weights":
      arrays[name] = positive(array)
  if reference_threshold is None:
    reference_threshold = threshold
  for name, source in decide.items():
    reference = name.startswith("reference")
    cut = reference_threshold if reference else threshold
    arrays[name] = decisions(arrays[source], cut)
  fields: dict[str, Any] = {name: arrays.get(name) for name in Batch._fields}
  fields |= {"weights": weights, "invalid": invalid, "rows": counted}
  return Batch(**fields)


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
  dtype = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
  logits, threshold = logits.astype(dtype), jnp.asarray(threshold, dtype)
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


def count(weights: Array | None, columns: Array) -> Array:
  """Sums the weights of the rows in which each column is true.

  Args:
    weights: [N] as for `tally`.
    columns: [N, ...] bool.

  Returns:
    [...] in the type of the weights.
  """
  rows, *shape = columns.shape
  flat = columns.reshape(rows, math.prod(shape))
  sums = cooccurrence(weights, None, flat)[0]
  return sums.reshape(shape)


def cooccurrence(
  weights: Array | None, left: Array | None, right: Array
) -> Array:
  """Sums the weights of the rows in which two columns are both true.

  Args:
    weights: [N] as for `tally`.
    left: [N, P] bool, or None for one column that is always true.
    right: [N, Q] bool; or float32 beside float32 weights, to be summed.

  Returns:
    [P, Q] in the type of the weights.
  """
  return tally(weights, left, lambda x: (x,), right)[0]


def tally(
  weights: Array | None,
  left: Array | None,
  terms: Callable[..., tuple[Array, ...]],
  *columns: Array,
) -> tuple[Array, ...]:
  """Counts the rows in which a column on the left and a term are both true.

  Args:
    weights: [N] int32 or float32; bool for rows that count once or not at all;
      None if all count once. The last two are counted by bits.
    left: [N, P] bool, or None for one column that is always true.
    terms: From the columns to arrays like them by `&`, `|`, `^` and `~`; it is
      called on bools or on bytes that hold 8 rows each.
    *columns: [N, Q] bool.

  Returns:
    For each term [P, Q] in the type of the weights, int32 for None and bool.

  >>> x, y = jnp.array([[True], [True]]), jnp.array([[True], [False]])
  >>> [int(n[0, 0]) for n in tally(None, None, lambda x, y: (x, x & ~y), x, y)]
  [2, 1]
  """
  rows = columns[0].shape[0]
  if left is None:
    left = jnp.ones((rows, 1), jnp.bool_)
  if weights is not None and weights.dtype != jnp.bool_:
    return tuple(_products(weights, left, x) for x in terms(*columns))
  if weights is not None:
    left = left & weights[:, None]
  head = rows - rows % (8 * _BYTES)
  if (
    rows < _LEAST_ROWS
    or left.shape[1] > _MOST_COLUMNS
    or any(map(is_sharded, (left, *columns)))
  ):
    head = 0
  ones = jnp.ones(rows - head, jnp.int32)
  rest = terms(*(x[head:] for x in columns))
  counts = tuple(_products(ones, left[head:], x) for x in rest)
  if not head:
    return counts
  bits = jax.lax.optimization_barrier(
    tuple(_pack(x[:head]) for x in (left, *columns))
  )
  return tuple(
    n + _common_bits(bits[0], x)
    for n, x in zip(counts, terms(*bits[1:]), strict=True)
  )


def _products(weights: Array, left: Array, right: Array) -> Array:
  """Sums by a matrix product.

  Products of 0 and 1 are exact in every matrix unit, and their float32 sums
  stay exact up to 2^24.
  """
  factor = jnp.where(left, weights.astype(jnp.float32)[:, None], 0.0)
  sums = jnp.matmul(
    factor.T,
    right.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
    out_sharding=jax.P(None, None) if is_sharded(right) else None,
  )
  return sums if weights.dtype == jnp.float32 else sums.astype(weights.dtype)


def _pack(columns: Array) -> Array:
  """Packs [N, Q] bool into bytes [_BYTES, M, Q] of 8 rows.

  Bit k of byte [b, m] is row (8 b + k) M + m: all operands are contiguous, so
  that the compiler can use whole vectors whatever Q is.
  """
  rows, width = columns.shape
  slices = columns.reshape(_BYTES, 8, rows // (8 * _BYTES), width)
  slices = slices.astype(jnp.uint8)
  bits = (slices[:, bit] << jnp.uint8(bit) for bit in range(8))
  return functools.reduce(jnp.bitwise_or, bits)


@jax.jit
def _common_bits(left: Array, right: Array) -> Array:
  """Counts the bits that each two of [B, M, P] and [B, M, Q] share."""
  # Up to 8 * 31 fits into a byte, and bytes are added 32 or 64 at a time.
  shared = jnp.zeros((), jnp.uint8)
  for x, y in zip(left, right, strict=True):
    shared += jax.lax.population_count(x[:, :, None] & y[:, None, :])
  return jnp.sum(shared, axis=0, dtype=jnp.int32)


def is_sharded(x: Array) -> bool:
  """Whether the type of an array says that its rows are on several devices."""
  return any(axis is not None for axis in jax.typeof(x).sharding.spec[:1])


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
  count = -(-terms.shape[-1] // block)
  padding = [*[(0, 0)] * (terms.ndim - 1), (0, count * block - terms.shape[-1])]
  parts = jnp.pad(terms, padding).reshape(*terms.shape[:-1], count, block)
  return jnp.sum(jnp.sum(parts, axis=-1), axis=-1)


def _check_shapes(arrays: Mapping[str, Array]) -> None:
  shapes = ", ".join(f"{n} {list(x.shape)}" for n, x in arrays.items())
  for name, x in arrays.items():
    ndim = 1 if name == "weights" else 2
    if x.ndim != ndim:
      letters = "[N, G]" if name in _GROUPED else "[N, A]"
      letters = "[N]" if name == "weights" else letters
      raise ValueError(f"{name} must have shape {letters}, got {shapes}.")
  if len({x.shape[0] for x in arrays.values()}) > 1:
    raise ValueError(f"The arrays disagree in the number of rows: {shapes}.")
  for family, things in ((_WIDE, "attributes"), (_GROUPED, "groups")):
    widths = {x.shape[1] for n, x in arrays.items() if n in family}
    if len(widths) > 1:
      raise ValueError(
        f"The arrays disagree in the number of {things}: {shapes}."
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
