"""Proper scoring rules of probabilities, and their entropy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.metrics import base, blocks, counting, reliability

Array = jax.Array


class Mean(NamedTuple):
  """A mean over samples; the state of its metric.

  Attributes:
    sum: [A] float32, the (weighted) sum.
    total: [], the number of samples.
    invalid: [A] or [], the number of NaN logits among them.
  """

  sum: Array
  total: Array
  invalid: Array


class Moments(NamedTuple):
  """The state of `brier_score`."""

  reliability: reliability.Reliability
  spread: reliability.Spread


class Brier(NamedTuple):
  """A Brier score and its parts.

  value = reliability - resolution + uncertainty + within.

  Attributes:
    value: [A], the mean of (p - y)^2.
    reliability: [A], the mean squared distance of a bin's mean p from its
      frequency of positives; 0 is calibrated.
    resolution: [A], the variance of the frequencies of the bins; more is
      better.
    uncertainty: [A], the variance of the labels.
    within: [A], the mean of var(p) - 2 cov(p, y) inside the bins. It vanishes
      where all probabilities of a bin are equal.
    support: [A], the number of samples.
  """

  value: Array
  reliability: Array
  resolution: Array
  uncertainty: Array
  within: Array
  support: Array


def mean(score: Callable[[counting.Batch], Array], *needs: str) -> base.Metric:
  """Makes the metric "mean over samples of something".

  Args:
    score: From a checked batch to [N, A] float32. It is called on blocks of
      rows.
    *needs: The arrays that it reads; see `counting.read`.

  Returns:
    A metric of value [A] float32, NaN without samples or with a NaN logit. Its
    state is a `Mean`.
  """

  def update(state: Mean, **batch) -> Mean:
    read = counting.read(batch, *needs)

    def add(total, weights, *arrays):
      part = read._replace(**dict(zip(needs, arrays, strict=True)))
      live = (weights != 0)[:, None]
      values = score(part) * weights[:, None].astype(jnp.float32)
      return total + counting.long_sum(jnp.where(live, values, 0.0).T)

    zeros = jnp.zeros(read.invalid.shape)
    arrays = (getattr(read, name) for name in needs)
    total = blocks.fold(add, zeros, read.weights, *arrays)
    return base.add(state, Mean(total, jnp.sum(read.weights), read.invalid))

  def compute(state: Mean) -> Array:
    value = counting.ratio(state.sum, state.total)
    return jnp.where(state.invalid > 0, jnp.nan, value)

  zero = jnp.zeros((), jnp.int32)
  empty = Mean(jnp.zeros((), jnp.float32), zero, zero)
  return base.Metric(empty, update, base.add, compute)


def negative_log_likelihood() -> base.Metric:
  """Makes the mean of -log p(label), in nats, from logits.

  log(1 + exp(-z)) for a positive label and log(1 + exp(z)) for a negative one:
  neither overflows nor rounds to log 0. A wrong logit of infinite size gives an
  infinite value.

  Returns:
    A metric of (logits, labels) with value [A].
  """
  return mean(
    lambda batch: jax.nn.softplus(
      jnp.where(batch.labels, -batch.logits, batch.logits)
    ),
    "logits",
    "labels",
  )


def entropy() -> base.Metric:
  """Makes the mean entropy of the decisions' probabilities, in nats.

  -p log p - (1 - p) log(1 - p) with p = sigmoid(z); at most log 2.

  Returns:
    A metric of (logits) with value [A].
  """

  def binary(batch: counting.Batch) -> Array:
    size = jnp.abs(batch.logits)
    doubt = jax.nn.sigmoid(-size)
    # A finite size times a probability of 0, never infinity times 0.
    size = jnp.where(jnp.isinf(size), 0.0, size)
    return jnp.log1p(jnp.exp(-jnp.abs(batch.logits))) + size * doubt

  return mean(binary, "logits")


def softmax_entropy(logits: Any) -> Array:
  """Returns the entropy of softmax(logits) along the last axis, in nats.

  Args:
    logits: [..., C]; minus infinity is a class of probability 0.

  Returns:
    [...] float32, between 0 and log C.

  >>> softmax_entropy([[0.0, 0.0], [90.0, 0.0]]).round(4).tolist()
  [0.6930999755859375, 0.0]
  """
  logits = jnp.asarray(logits).astype(jnp.float32)
  logs = jax.nn.log_softmax(logits, axis=-1)
  terms = jnp.exp(logs) * jnp.where(jnp.isneginf(logs), 0.0, logs)
  return jnp.abs(jnp.sum(terms, axis=-1))


def brier_score(bins: int = 10, *, details: bool = False) -> base.Metric:
  """Makes the Brier score of p = sigmoid(z), with its parts.

  With bins b of equal width, shares w_b = n_b / n, means p_b and y_b, and the
  overall frequency y of positives:
  reliability = sum w_b (p_b - y_b)^2, resolution = sum w_b (y_b - y)^2,
  uncertainty = y (1 - y), and what is left because p varies inside a bin:
  within = sum w_b (var_b(p) - 2 cov_b(p, y)). The score is their signed sum
  whatever the number of bins. Murphy, "A New Vector Partition of the
  Probability Score" (J. Appl. Meteor. 1973); the last term: Stephenson, Coelho,
  Jolliffe, "Two Extra Components in the Brier Score Decomposition" (Weather and
  Forecasting 2008).

  Args:
    bins: The number of bins; p = 1 belongs to the last.
    details: Return a `Brier` with the parts.

  Returns:
    A metric of (logits, labels) with value [A], or a `Brier`; NaN without
    samples or with a NaN logit.

  Raises:
    ValueError: If `bins` is below 1.
  """
  bins = arguments.whole("bins", bins)

  def update(state: Moments, **batch) -> Moments:
    read = counting.read(batch, "logits", "labels")
    new = reliability.measure(
      reliability.positive_class,
      read.logits,
      read.labels,
      read.rows,
      bins,
    )
    return base.add(state, Moments(*new))

  def compute(state: Moments) -> Any:
    parts = _parts(state, bins)
    return parts if details else parts.value

  zero = jnp.zeros((), jnp.float32)
  empty = Moments(reliability.empty(), reliability.Spread(zero, zero))
  return base.Metric(empty, update, base.add, compute)


def _parts(state: Moments, bins: int) -> Brier:
  binned, spread = state
  if not binned.count.ndim:
    nan = jnp.full((), jnp.nan)
    return Brier(*[nan] * 5, support=binned.count)
  closed = reliability.close(binned)
  square, product = _close(binned, spread, bins)
  count = closed.count.astype(jnp.float32)
  some = jnp.maximum(count, 1e-30)
  total = jnp.sum(count, axis=-1)
  valid = (total > 0) & (binned.invalid == 0)
  positives = closed.positives.astype(jnp.float32)
  frequency = positives / some
  overall = jnp.sum(positives, axis=-1) / total
  mean = closed.offset / some
  variance = square - closed.offset * mean
  covariance = product - positives * mean
  distance = mean + reliability.middles(bins, count.shape) - frequency

  def average(x):
    return jnp.where(valid, jnp.sum(x, axis=-1) / total, jnp.nan)

  parts = {
    "reliability": average(count * distance**2),
    "resolution": average(count * (frequency - overall[:, None]) ** 2),
    "uncertainty": jnp.where(valid, overall * (1.0 - overall), jnp.nan),
    "within": average(variance - 2.0 * covariance),
  }
  value = (
    parts["reliability"]
    - parts["resolution"]
    + parts["uncertainty"]
    + parts["within"]
  )
  support = jnp.sum(binned.count, axis=-1)
  return Brier(value, **parts, support=support)


def _close(
  binned: reliability.Reliability, spread: reliability.Spread, bins: int
) -> tuple[Array, Array]:
  """Adds the samples with p = 1 to the last bin, half a bin off its middle."""
  half = 0.5 / bins
  square = binned.count[:, -1].astype(jnp.float32) * half**2
  product = binned.positives[:, -1].astype(jnp.float32) * half
  return (
    spread.square[:, :-1].at[:, -1].add(square),
    spread.product[:, :-1].at[:, -1].add(product),
  )
