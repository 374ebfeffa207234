"""What a metric is, and the few operations that every metric shares.

A metric is four pure functions' worth of data: `empty`, `update`, `merge` and
`compute`. The state between them is a small tree of counts whose size does not
depend on the number of samples, so states add up over batches, devices and
hosts. The laws (tested for every metric of the package):

*   `empty` is an identity of `merge`;
*   `merge` is associative and commutative;
*   any split of the rows into batches gives the same state;
*   rows of weight 0 never matter, even when they hold NaN;
*   `jit` changes nothing.

A batch is a set of named arrays, of which a metric takes those it needs:

    logits       [N, A]  floating; a decision is `logits > threshold`
    predictions  [N, A]  bool; decisions made elsewhere, used before logits
    labels       [N, A]  bool (or numbers, positive where above 0)
    groups       [N, G]  bool; column g = membership in group g
    weights      [N]     bool or integers: counted exactly; or floating

Without floating weights every count is an int32, exact up to 2^31 rows in a
state and 2^24 rows in a batch. A NaN logit in a row that counts makes the
results of its attribute NaN: it is neither dropped nor read as "negative".
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
# Whole numbers up to here are exact in float32.
_EXACT_ROWS = 2**24
# The arrays with a column for each attribute.
_WIDE = ("logits", "predictions", "labels")


class Metric(NamedTuple):
  """A mergeable measurement; see the laws in the module's docstring.

  Attributes:
    empty: The state of no samples. Its leaves may be scalar zeros that take
      their shape in the first update; `start` gives them that shape.
    update: `(state, **batch) -> state`.
    merge: `(state, state) -> state`.
    compute: `state -> value`, NaN where the value is undefined.
  """

  empty: Any
  update: Callable[..., Any]
  merge: Callable[[Any, Any], Any]
  compute: Callable[[Any], Any]


def start(metric: Metric, **batch: Any) -> Any:
  """Returns the empty state with the shapes that `batch` gives it.

  A `lax.scan` over batches needs a carry of constant shape; so does a compiled
  update that is to be compiled once.

  Args:
    metric: The metric.
    **batch: One batch, or its `jax.ShapeDtypeStruct`s.

  Returns:
    A state.
  """
  shapes = jax.eval_shape(
    lambda batch: metric.update(metric.empty, **batch), batch
  )
  return jax.tree.map(
    lambda leaf, like: jnp.broadcast_to(leaf, like.shape).astype(like.dtype),
    metric.empty,
    shapes,
  )


def compute(metric: Metric, **batch: Any) -> Any:
  """Returns the value of a metric on one batch.

  >>> import numpy as np
  >>> from effjax import metrics
  >>> logits = np.array([[2.0], [-1.0], [0.5], [-3.0]], np.float32)
  >>> labels = np.array([[True], [True], [True], [False]])
  >>> metrics.compute(metrics.accuracy(), logits=logits, labels=labels)
  Array([0.75], dtype=float32)
  """
  return _compute(metric.update, metric.compute, metric.empty, batch)


# One program instead of dozens of single operations: what a notebook waits for
# is compilation.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _compute(update, compute, empty, batch):
  return compute(update(empty, **batch))


def evaluate(metric: Metric, batches: Iterable[Mapping[str, Any]]) -> Any:
  """Returns the value of a metric over batches, with one compiled update.

  Args:
    metric: The metric.
    batches: Mappings from array names to arrays. No batch at all gives the
      value of the empty state.

  Returns:
    What `metric.compute` returns.
  """
  update = jax.jit(lambda state, batch: metric.update(state, **batch))
  state = None
  for batch in batches:
    if state is None:
      state = start(metric, **batch)
    state = update(state, dict(batch))
  return metric.compute(metric.empty if state is None else state)


def collection(metrics: Mapping[str, Metric]) -> Metric:
  """Joins named metrics into one that returns a dict of their values.

  Args:
    metrics: The metrics by name.

  Returns:
    A metric whose state and value are dicts with the same names.
  """
  metrics = dict(metrics)

  def update(state, **batch):
    return {
      name: metric.update(state[name], **batch)
      for name, metric in metrics.items()
    }

  def merge(a, b):
    return {n: metric.merge(a[n], b[n]) for n, metric in metrics.items()}

  def compute(state):
    return {n: metric.compute(state[n]) for n, metric in metrics.items()}

  empty = {n: metric.empty for n, metric in metrics.items()}
  return Metric(empty, update, merge, compute)


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
  concrete = not isinstance(ids, jax.core.Tracer)
  ids = jnp.asarray(ids)
  if ids.ndim != 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
    raise ValueError(
      f"ids must be a vector of integers, got {ids.dtype}{list(ids.shape)}."
    )
  if concrete and ids.size:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= groups:
      raise ValueError(
        f"ids run from {low} to {high}, but groups={groups} allows 0 to"
        f" {groups - 1}."
      )
  return ids[:, None] == jnp.arange(groups, dtype=ids.dtype)[None, :]


class Batch(NamedTuple):
  """The checked arrays of a batch; None for what a metric did not ask for.

  Attributes:
    logits: [N, A] float32.
    predictions: [N, A] bool.
    labels: [N, A] bool.
    groups: [N, G] bool.
    weights: [N] int32 or float32.
    invalid: [A] int32, the number of NaN logits in rows that count.
  """

  logits: Array | None
  predictions: Array | None
  labels: Array | None
  groups: Array | None
  weights: Array
  invalid: Array


def read(
  batch: Mapping[str, Any],
  *needs: str,
  threshold: Any = 0.0,
) -> Batch:
  """Checks the shapes of a batch and fills in what follows from them.

  Args:
    batch: Named arrays; those that are not needed are ignored.
    *needs: Of "logits", "predictions", "labels", "groups".
    threshold: Scalar or [A]; turns logits into predictions.

  Returns:
    The arrays with fixed types, and weights of 1 where none are given.

  Raises:
    ValueError: If an array is missing or its shape disagrees with the others.
  """
  given = {name for name, array in batch.items() if array is not None}
  if "predictions" in needs and "predictions" not in given:
    needs = tuple("logits" if n == "predictions" else n for n in needs)
    decide = True
  else:
    decide = False
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
  logits, invalid = None, jnp.zeros(width, jnp.int32)
  if "logits" in arrays:
    logits = arrays["logits"].astype(jnp.float32)
    invalid = count((weights != 0).astype(jnp.int32), jnp.isnan(logits))
  bools = {
    name: positive(arrays[name])
    for name in ("predictions", "labels", "groups")
    if name in arrays
  }
  if decide:
    bools["predictions"] = decisions(logits, threshold)
  return Batch(
    logits,
    bools.get("predictions"),
    bools.get("labels"),
    bools.get("groups"),
    weights,
    invalid,
  )


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


def add(a: Any, b: Any) -> Any:
  """Adds two states leaf by leaf; counts become float32 beside float32."""

  def leaf(x, y):
    dtype = x.dtype if x.dtype == y.dtype else jnp.float32
    return x.astype(dtype) + y.astype(dtype)

  return jax.tree.map(leaf, a, b)


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
