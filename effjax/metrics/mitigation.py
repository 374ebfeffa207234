"""Overrides of the decisions that a compressed model is likely to get wrong.

The dense model alone tells which samples are susceptible: those about which it
is undecided itself. There the decision of a trusted source replaces that of the
sparse model. The sets and budgets are ours; no published program defines them.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import base, classification, counting

Array = jax.Array


def susceptible(
  dense_logits: Any, *, cut: float | None = None, budget: float | None = None
) -> Array:
  """Chooses the samples about which the dense model is undecided.

  Args:
    dense_logits: [N, A] or [N].
    cut: Choose abs(sigmoid(z) - 1/2) < cut, compared on logits as in
      `uncertainty`; the number of samples follows.
    budget: Or choose this share in [0, 1] of the samples, for each attribute
      floor(budget N + 1e-9) of them: those with the smallest abs(z), and the
      lower index among equals.

  Returns:
    Bool like `dense_logits`, True = susceptible. A NaN is never below a cut,
    and comes last within a budget.

  Raises:
    ValueError: Unless exactly one of `cut` and `budget` is given, in its range.

  >>> import numpy as np
  >>> logits = np.array([3.0, -0.5, 0.5, -4.0], np.float32)
  >>> susceptible(logits, budget=0.25).tolist()
  [False, True, False, False]
  >>> susceptible(logits, cut=0.4).tolist()
  [False, True, True, False]
  """
  logits = jnp.asarray(dense_logits)
  _check_samples("dense_logits", logits.shape)
  if (cut is None) == (budget is None):
    raise ValueError(
      f"Give either cut or budget, got cut={cut} and budget={budget}."
    )
  if cut is not None:
    edge = classification.undecided_below(cut)
    return jnp.abs(logits.astype(jnp.float32)) < edge
  return _chosen(logits, _sizes(budget, logits.shape[0]))


def random_susceptible(
  key: Array,
  shape: Sequence[int],
  budget: float | None = None,
  *,
  count: Any = None,
) -> Array:
  """Chooses as many samples at random: the control of `susceptible`.

  Args:
    key: A random key. Attributes are drawn independently, and a larger set of
      the same key contains the smaller one.
    shape: (N, A) or (N,).
    budget: The share of samples, as in `susceptible`.
    count: Or their number, a scalar or [A], static or traced; that of a cut
      is `chosen.sum(axis=0)`.

  Returns:
    Bool of the given shape with exactly that many True for each attribute.

  Raises:
    ValueError: Unless exactly one of `budget` and `count` is given, or if
      `count` has another shape.

  >>> import jax
  >>> int(random_susceptible(jax.random.key(0), (40, 2), 0.1).sum())
  8
  """
  shape = tuple(shape)
  _check_samples("shape", shape)
  if (budget is None) == (count is None):
    raise ValueError(
      f"Give either budget or count, got budget={budget} and count={count}."
    )
  count = _sizes(budget, shape[0]) if count is None else count
  count = jnp.asarray(count, jnp.int32)
  if count.shape not in ((), shape[1:]):
    raise ValueError(
      f"count must be a number or have shape {list(shape[1:])}, one for each"
      f" attribute, got {list(count.shape)}."
    )
  return _drawn(key, shape, count)


# Compiled whole: what a notebook waits for is compilation of single operations.
@jax.jit
def _chosen(logits, count):
  return _smallest(_doubt(logits), count)


@functools.partial(jax.jit, static_argnums=1)
def _drawn(key, shape, count):
  return _smallest(jax.random.bits(key, shape, jnp.uint32), count)


def override(
  sparse_predictions: Any, trusted_predictions: Any, chosen: Any
) -> Array:
  """Replaces the chosen decisions by trusted ones.

  Args:
    sparse_predictions: [N, A] or [N] bool, decisions of the compressed model.
    trusted_predictions: Like them: decisions of the dense model, or labels.
    chosen: Like them, bool.

  Returns:
    Bool like the predictions.

  Raises:
    ValueError: If the shapes differ.
  """
  arrays = {
    "sparse_predictions": jnp.asarray(sparse_predictions),
    "trusted_predictions": jnp.asarray(trusted_predictions),
    "chosen": jnp.asarray(chosen),
  }
  _check_equal({name: x.shape for name, x in arrays.items()})
  sparse, trusted, chosen = map(counting.positive, arrays.values())
  return jnp.where(chosen, trusted, sparse)


class OverrideCurve(NamedTuple):
  """A metric against the budget of overridden decisions.

  Attributes:
    count: [B] int32, the number of samples overridden for each attribute.
    susceptible: The values where the susceptible samples are overridden; a tree
      like the metric's value, with leaves [B, ...].
    control: The values where random sets of equal size are; leaves [D, B, ...]
      for D draws. The sets of one draw are nested.
  """

  count: Array
  susceptible: Any
  control: Any


def override_curve(
  key: Array,
  metric: base.Metric,
  batch: Mapping[str, Any],
  trusted_predictions: Any,
  dense_logits: Any,
  *,
  budgets: Any,
  draws: int = 10,
) -> OverrideCurve:
  """Measures decisions of which a growing share is overridden.

  One compiled program measures every budget, with random sets as the control.

  Args:
    key: A random key, for the control.
    metric: A metric of predictions, such as `bias_amplification`; or a
      `collection` of several.
    batch: Named arrays with the decisions of the sparse model as `predictions`
      [N, A], and what else the metric reads. Every row counts in a budget.
    trusted_predictions: [N, A] bool, as in `override`.
    dense_logits: [N, A], which order the samples as in `susceptible`.
    budgets: [B], shares in [0, 1].
    draws: The number of random sets for each budget.

  Returns:
    An `OverrideCurve`.

  Raises:
    ValueError: If the batch has no predictions, the shapes differ, a budget is
      outside [0, 1], or `draws` is below 1.
  """
  if batch.get("predictions") is None:
    raise ValueError(
      "The batch has no predictions, which are what is overridden; it holds"
      f" {', '.join(sorted(batch)) or 'nothing'}. Make them of logits by"
      " `decisions`."
    )
  draws = arguments.whole("draws", draws)
  batch = {name: x for name, x in batch.items() if x is not None}
  trusted, logits = jnp.asarray(trusted_predictions), jnp.asarray(dense_logits)
  shape = np.shape(batch["predictions"])
  _check_samples("predictions", shape)
  _check_equal(
    {
      "predictions": shape,
      "trusted_predictions": trusted.shape,
      "dense_logits": logits.shape,
    }
  )
  sizes = _sizes(budgets, shape[0])
  if sizes.ndim != 1:
    raise ValueError(
      f"budgets must have shape [B], got {list(sizes.shape)}: for one budget"
      " give a list of one."
    )
  count = jnp.asarray(sizes)
  values = _curve(
    metric.update,
    metric.compute,
    draws,
    key,
    metric.empty,
    batch,
    trusted,
    logits,
    count,
  )
  return OverrideCurve(count, *values)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _curve(update, compute, draws, key, empty, batch, trusted, logits, counts):
  doubt = _doubt(logits)

  def sweep(draw):
    drawn = jax.random.bits(
      jax.random.fold_in(key, draw), doubt.shape, doubt.dtype
    )
    # One body for both keeps the metric from being compiled twice.
    keys = jnp.where(draw == 0, doubt, drawn)

    def value(count):
      predictions = override(
        batch["predictions"], trusted, _smallest(keys, count)
      )
      return compute(update(empty, **{**batch, "predictions": predictions}))

    return jax.lax.map(value, counts)

  values = jax.lax.map(sweep, jnp.arange(1 + draws, dtype=jnp.int32))
  return tuple(
    jax.tree.map(lambda x, part=part: x[part], values)
    for part in (0, slice(1, None))
  )


def _sizes(budget: Any, rows: int) -> np.ndarray:
  """Returns floor(budget rows + 1e-9) in float64, int32 like `budget`."""
  if isinstance(budget, jax.core.Tracer):
    raise ValueError(
      "A budget is static: the number of samples follows from it exactly, in"
      " float64 on the host."
    )
  share = np.asarray(budget, np.float64)
  if not np.all((share >= 0.0) & (share <= 1.0)):
    raise ValueError(f"A budget is a share in [0, 1], got {budget}.")
  return np.floor(share * rows + 1e-9).astype(np.int32)


def _doubt(logits: Array) -> Array:
  """Returns unsigned integers in the order of abs(z), NaN last."""
  if logits.dtype != jnp.float64:
    logits = logits.astype(jnp.float32)
  unsigned = jnp.dtype(f"uint{8 * logits.dtype.itemsize}")
  # The bits of a positive float, read as an integer, order like its value.
  keys = jax.lax.bitcast_convert_type(jnp.abs(logits), unsigned)
  last = jnp.full((), np.iinfo(unsigned).max, unsigned)
  return jnp.where(jnp.isnan(logits), last, keys)


def _smallest(keys: Array, count: Array) -> Array:
  """Marks the `count` smallest keys of each column, lower index first.

  The largest of them is found bit by bit, which reads the keys once for each
  bit: far less work than sorting them.

  Args:
    keys: [N, ...] unsigned.
    count: [...] int32, or a scalar.

  Returns:
    Bool like `keys`.
  """
  bits = 8 * keys.dtype.itemsize

  def step(i, largest):
    bit = jnp.ones((), keys.dtype) << (bits - 1 - i).astype(keys.dtype)
    below = jnp.sum(keys < (largest | bit)[None], axis=0, dtype=jnp.int32)
    return jnp.where(below < count, largest | bit, largest)

  start = jnp.zeros(keys.shape[1:], keys.dtype)
  largest = jax.lax.fori_loop(0, bits, step, start)[None]
  below, equal = keys < largest, keys == largest
  left = count - jnp.sum(below, axis=0, dtype=jnp.int32)
  place = jnp.cumsum(equal, axis=0, dtype=jnp.int32)
  return below | (equal & (place <= left[None]))


def _check_samples(name: str, shape: Sequence[int]) -> None:
  if len(shape) not in (1, 2):
    raise ValueError(f"{name} must be [N] or [N, A], got {list(shape)}.")


def _check_equal(shapes: Mapping[str, Sequence[int]]) -> None:
  if len(set(map(tuple, shapes.values()))) > 1:
    text = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    raise ValueError(f"The arrays must have the same shape, got {text}.")
