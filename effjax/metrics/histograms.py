"""Binned scores of positives and negatives: what an area rests on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.metrics import blocks, cells, counting
from effjax.metrics.groups import with_everyone

Array = jax.Array
# Scores are binned by abs(z) + 1, whose octaves 1, 2, 4, ... 256 are split
# evenly: both signs, eight octaves.
_OCTAVES = 8
# A bootstrap joins neighbouring bins to so many of equal mass; to more of them
# for two models, whose difference may be far smaller than the spread of either;
# and to no fewer.
_MASSES, _PAIRED, _LEAST = 64, 512, 16


class Histogram(NamedTuple):
  """How often positives and negatives fall into each bin of scores.

  Attributes:
    negatives: [A, B]; of `group_auc` [G + 1, A, B], last that of all rows.
    positives: Likewise.
    invalid: [A] or [G + 1, A], the number of NaN scores.
  """

  negatives: Array
  positives: Array
  invalid: Array


def check_bins(bins: int) -> None:
  """Raises a ValueError unless `bins` is 16 times a power of two, to 2^20."""
  bins = arguments.whole("bins", bins, 2 * _OCTAVES)
  steps = bins // (2 * _OCTAVES)
  if steps * 2 * _OCTAVES != bins or steps & (steps - 1):
    raise ValueError(f"bins must be 16 times a power of two, got {bins}.")
  if bins > 2**20:
    raise ValueError(f"bins must be at most {2**20}, got {bins}.")


def histogram(
  logits: Array, labels: Array, weights: Array, bins: int
) -> Histogram:
  """Counts the rows of a batch by bin of score.

  Args:
    logits: [N, A] float32.
    labels: [N, A] bool.
    weights: [N] int32 or float32.
    bins: The number of bins, see `check_bins`.

  Returns:
    A `Histogram` of [A, B].
  """
  attributes = logits.shape[1]
  # The bins of negatives, those of positives, and a cell for NaN.
  width = 2 * bins + 1

  def add(counts, logits, labels, weights):
    start = width * jnp.arange(attributes, dtype=jnp.int32)[None, :]
    invalid = jnp.isnan(logits)
    cell = _bin(logits, bins) + jnp.where(labels, bins, 0)
    cell = start + jnp.where(invalid, 2 * bins, cell)
    rows = (weights != 0).astype(weights.dtype)
    amount = jnp.where(invalid, rows[:, None], weights[:, None])
    return counts.at[cell].add(amount, mode="promise_in_bounds")

  counts = jnp.zeros(attributes * width, weights.dtype)
  counts = blocks.fold(add, counts, logits, labels, weights)
  counts = counts.reshape(attributes, width)
  return Histogram(
    counts[:, :bins],
    counts[:, bins:-1],
    counts[:, -1].astype(jnp.int32),
  )


def masses(bins: int, *, by_group: bool) -> cells.Cells:
  """Makes the cells of a `Histogram`: neighbouring bins, joined to equal mass.

  The mass of a bin is the mean of the shares of it among the positives and the
  negatives of each group, so that all of them are resolved. A resample takes
  the scores of a cell as tied, where real ones are less than 1/64 of a
  population apart.

  Args:
    bins: The number of bins of the histogram.
    by_group: Whether there is one for each group.

  Returns:
    The cells of the metrics with this state.
  """

  def make(number):
    def place(**batch):
      needs = ("logits", "labels") + ("groups",) * by_group
      read = counting.read(batch, *needs)
      groups = with_everyone(read.groups) if by_group else None

      def inside(weights):
        return histogram(read.logits, read.labels, weights, bins)

      if by_group:
        found = blocks.each_group(inside, read.weights, read.groups)
      else:
        found = jax.tree.map(lambda x: x[None], inside(read.weights))
      mass = sum(
        x / jnp.maximum(jnp.sum(x, axis=-1, keepdims=True), 1e-30)
        for x in (y.astype(jnp.float32) for y in found[:2])
      )
      through = jnp.cumsum(jnp.sum(mass, axis=0), axis=-1)
      before = jnp.pad(through[:, :-1], ((0, 0), (1, 0))) / through[:, -1:]
      # A class may be absent, and a hair be missing of 1.
      joined = jnp.nan_to_num(before * number).astype(jnp.int32)
      joined = jnp.minimum(joined, number - 1)
      bin_ = _bin(read.logits, bins)
      return (
        groups,
        jnp.take_along_axis(joined.T, bin_, axis=0),
        read.labels,
        jnp.isnan(read.logits),
      )

    def state(counts, sums, invalid):
      del sums
      return Histogram(counts[..., 0, :], counts[..., 1, :], invalid)

    return cells.of_bins(number, place, state, least=_LEAST, ordered=True)

  return make(_MASSES)._replace(paired=make(_PAIRED))


def _bin(logits: Array, bins: int) -> Array:
  """Returns the bin of each logit, monotone in the logit."""
  half = bins // 2
  shift = 23 - (half // _OCTAVES).bit_length() + 1
  # The bits of a positive float, read as an integer, order like its value and
  # are piecewise linear in it: a logarithm that costs one shift.
  bits = jax.lax.bitcast_convert_type(jnp.abs(logits) + 1.0, jnp.int32)
  step = jnp.minimum((bits >> shift) - (0x3F800000 >> shift), half - 1)
  return jnp.where(logits < 0, half - 1 - step, half + step)
