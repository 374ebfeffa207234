"""Probabilities and labels in equal-width bins: what calibration rests on."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import blocks, cells, counting
from effjax.metrics.groups import with_everyone

Array = jax.Array
# A bootstrap draws parts of bins, inside which probabilities count as equal;
# twice as many for two models, whose difference may be small.
_PARTS = 4
# Entries of a block of rows, whose cells and terms stay in the cache.
_ENTRIES = 40960


class Reliability(NamedTuple):
  """What falls into each bin of probability; the last column holds p = 1.

  Attributes:
    count: [..., A, B + 1], the number of samples.
    positives: [..., A, B + 1], those with a positive label.
    offset: [..., A, B + 1] float32, the sum of p minus the middle of the bin.
      It stays near 0, where a float32 sum of p itself would lose digits.
    invalid: [..., A] or [], the number of NaN probabilities.
  """

  count: Array
  positives: Array
  offset: Array
  invalid: Array


class Spread(NamedTuple):
  """Second moments within the bins of a `Reliability`.

  Attributes:
    square: [A, B + 1] float32, the sum of squared offsets.
    product: [A, B + 1] float32, the sum of offsets of positive labels.
  """

  square: Array
  product: Array


class Curve(NamedTuple):
  """A reliability diagram.

  Attributes:
    confidence: [..., A, B], the mean probability in a bin, NaN if empty.
    frequency: [..., A, B], the share of positive labels in a bin, NaN if
      empty.
    count: [..., A, B], the number of samples in a bin.
  """

  confidence: Array
  frequency: Array
  count: Array


def positive_class(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Returns the probability of the positive label, and the label."""
  return jax.nn.sigmoid(logits), labels


def every_class(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Returns the softmax probability of each class, and whether it is right."""
  return jax.nn.softmax(logits, axis=1), labels


def top_class(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Returns the largest softmax probability, [N, 1], and whether it is right.

  Among equal logits the first class is the top.
  """
  top = jnp.argmax(logits, axis=1)[:, None]
  probability, labels = every_class(logits, labels)
  pick = lambda x: jnp.take_along_axis(x, top, axis=1)
  return pick(probability), pick(labels)


def measure(
  outcomes, logits: Array, labels: Array, weights: Array | None, bins: int
) -> tuple[Reliability, Spread]:
  """Sorts the rows of a batch into bins.

  Args:
    outcomes: One of the three functions above.
    logits: [N, A] float32.
    labels: [N, A] bool.
    weights: [N] as for `counting.tally`; whole weights are exact where those of
      a few hundred rows sum to less than 2^24.
    bins: The number of bins B.

  Returns:
    A `Reliability` and a `Spread`, whose cost is nothing where it is unused.
  """
  columns = jax.eval_shape(outcomes, logits, labels)[0].shape[1]
  # The bins of negatives and those of positives; the last of each is for NaN.
  width = bins + 2
  shape = (columns, 2, width)

  def add(sums, logits, labels, *weights):
    probability, labels = outcomes(logits, labels)
    index, offset = _split(probability, bins)
    # Without a sign, an index is not looked at for being negative.
    start = 2 * width * jnp.arange(columns, dtype=jnp.uint32)[None, :]
    side = jnp.where(labels, jnp.uint32(width), jnp.uint32(0))
    cell = start + index.astype(jnp.uint32) + side
    amount = jnp.ones_like(offset)
    if weights:
      (weight,) = (w.astype(jnp.float32)[:, None] for w in weights)
      live = (weight != 0).astype(jnp.float32)
      amount = jnp.where(index > bins, live, weight)
    # A complex number carries two sums through one scatter.
    terms = jax.lax.complex(amount, offset * amount)
    zeros = jnp.zeros(math.prod(shape), terms.dtype)
    pair = zeros.at[cell].add(terms, mode="promise_in_bounds")
    square = zeros.real.at[cell].add(
      offset * offset * amount, mode="promise_in_bounds"
    )
    return tuple(
      x + y.reshape(shape).astype(x.dtype)
      for x, y in zip(sums, (pair.real, pair.imag, square), strict=True)
    )

  given = () if weights is None else (weights,)
  exact = weights is None or weights.dtype != jnp.float32
  sums = tuple(
    jnp.zeros(shape, dtype)
    for dtype in (jnp.int32 if exact else jnp.float32, jnp.float32, jnp.float32)
  )
  rows = max(1, _ENTRIES // max(1, logits.shape[1]))
  sums = blocks.fold(add, sums, logits, labels, *given, rows=rows)
  count, invalid = sums[0][..., :-1], sums[0][..., -1]
  # Offsets are in widths of a bin, and 0 where p = 1.
  offset, square = (
    x[..., :-1].at[..., -1].set(0.0) / bins**power
    for power, x in enumerate(sums[1:], 1)
  )
  return Reliability(
    jnp.sum(count, axis=1),
    count[:, 1],
    jnp.sum(offset, axis=1),
    jnp.sum(invalid, axis=1).astype(jnp.int32),
  ), Spread(jnp.sum(square, axis=1), offset[:, 1])


def parts_of_bins(outcomes, bins: int, *, by_group: bool) -> cells.Cells:
  """Makes the cells of a `Reliability`: parts of each bin.

  The offsets of a part are replaced by their mean. A resample loses their
  spread, at most 1/12 of the squared width of a part.

  Args:
    outcomes: As in `measure`.
    bins: The number of bins B.
    by_group: Whether there is a state for each group.

  Returns:
    The cells of the metrics with this state.
  """

  def split(**batch):
    read = counting.read(batch, "logits", "labels")
    probability, labels = outcomes(read.logits, read.labels)
    return *_split(probability, bins), labels

  def values(**batch):
    index, offset, _ = split(**batch)
    return jnp.where(index < bins, offset / bins, 0.0)

  def state(counts, sums, invalid):
    counts, sums = (
      jnp.sum(x.reshape(*x.shape[:-1], bins + 1, -1), axis=-1)
      for x in (counts, sums)
    )
    return Reliability(
      jnp.sum(counts, axis=-2),
      counts[..., 1, :],
      jnp.sum(sums, axis=-2),
      invalid,
    )

  def make(parts):
    def place(**batch):
      groups = None
      if by_group:
        groups = with_everyone(counting.read(batch, "groups").groups)
      index, offset, labels = split(**batch)
      part = jnp.floor((offset + 0.5) * parts)
      place = (parts * index + part).astype(jnp.int32)
      return groups, place, labels, index > bins

    return cells.of_bins(
      parts * (bins + 1), place, state, least=bins + 1, values=values
    )

  return make(_PARTS)._replace(paired=make(2 * _PARTS))


def empty() -> Reliability:
  """Returns the state of no samples."""
  zero = jnp.zeros((), jnp.int32)
  return Reliability(zero, zero, jnp.zeros((), jnp.float32), zero)


def reliability_curve(state: Reliability) -> Curve:
  """Returns the reliability diagram of a state of `calibration_error`.

  Args:
    state: The state after at least one batch.

  Returns:
    A `Curve` over the B bins; p = 1 counts into the last.
  """
  bins = state.count.shape[-1] - 1
  state = close(state)
  mean = counting.ratio(state.offset, state.count)
  mean = mean + middles(bins, mean.shape)
  frequency = counting.ratio(state.positives, state.count)
  return Curve(mean, frequency, state.count)


def middles(bins: int, shape: tuple[int, ...]) -> Array:
  """Returns the middles of the bins in the last axis; that of p = 1 is 1."""
  middle = [*((np.arange(bins) + 0.5) / bins), 1.0]
  return jnp.broadcast_to(jnp.asarray(middle[: shape[-1]], jnp.float32), shape)


def close(state: Reliability) -> Reliability:
  """Adds the samples with p = 1 to the last bin."""
  bins = state.count.shape[-1] - 1
  # Their offset is counted from 1, the bin's from its own middle.
  shift = state.count[..., -1].astype(jnp.float32) * (0.5 / bins)

  def fold(x, extra):
    return x[..., :-1].at[..., -1].add(extra)

  return Reliability(
    fold(state.count, state.count[..., -1]),
    fold(state.positives, state.positives[..., -1]),
    fold(state.offset, state.offset[..., -1] + shift),
    state.invalid,
  )


def _split(probability: Array, bins: int) -> tuple[Array, Array]:
  """Returns the bin as a float, and the distance from its middle in widths.

  The bin of p = 1 is B, where the distance means nothing; that of NaN is B + 1.
  """
  place = jnp.where(probability <= 1.0, probability * bins, bins + 1.0)
  index = jnp.floor(place)
  return index, place - index - 0.5
