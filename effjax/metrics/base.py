"""What a metric is, and the few operations that every metric shares.

A metric is an empty state and three pure functions: `update`, `merge` and
`compute`. The state is a small tree of counts whose size does not depend on the
number of samples, so states add up over batches, devices and hosts. The laws
(tested for every metric of the package):

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

from effjax.metrics.cells import Cells, join


class Metric(NamedTuple):
  """A mergeable measurement; see the laws in the module's docstring.

  Attributes:
    empty: The state of no samples. Its leaves may be scalar zeros that take
      their shape in the first update; `start` gives them that shape.
    update: `(state, **batch) -> state`.
    merge: `(state, state) -> state`.
    compute: `state -> value`, NaN where the value is undefined.
    cells: How the state follows from counts of cells, so that a bootstrap can
      draw these; None where it has to draw rows.
  """

  empty: Any
  update: Callable[..., Any]
  merge: Callable[[Any, Any], Any]
  compute: Callable[[Any], Any]
  cells: Cells | None = None


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
  return Metric(empty, update, merge, compute, _join(metrics))


def add(a: Any, b: Any) -> Any:
  """Adds two states leaf by leaf; counts become float32 beside float32."""

  def leaf(x, y):
    dtype = x.dtype if x.dtype == y.dtype else jnp.float32
    return x.astype(dtype) + y.astype(dtype)

  return jax.tree.map(leaf, a, b)


def _join(metrics: Mapping[str, Metric]) -> Cells | None:
  """Returns the cells of a collection, None unless each metric has some."""
  parts = [metric.cells for metric in metrics.values()]
  if not parts or any(part is None for part in parts):
    return None
  joined = join(*parts)
  if joined is None:
    return None

  return _of_one_batch(joined, tuple(metrics))


def _of_one_batch(joined: Cells, names: tuple[str, ...]) -> Cells:
  """Gives every part of joined cells the same batch, and names their states."""

  def state(counts, kinds, sums, codes):
    states = joined.state(counts, kinds, sums, codes)
    return dict(zip(names, states, strict=True))

  each = lambda read: lambda **batch: read(*[batch] * len(names))
  coarser = joined.coarser
  if coarser is not None:
    coarser = _of_one_batch(coarser[0], names), coarser[1]
  return joined._replace(
    index=each(joined.index),
    values=None if joined.values is None else each(joined.values),
    state=state,
    coarser=coarser,
  )
