"""How far a compressed model's probabilities are from the dense model's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax.metrics import base, counting
from effjax.metrics.groups import with_everyone

Array = jax.Array


class Divergences(NamedTuple):
  """Sums of divergences; the last row of [G + 1] is everyone.

  Attributes:
    total: [G + 1, A] float32, the (weighted) sum over samples.
    members: [G + 1], samples.
    invalid: [A] or [], the number of samples with a NaN logit.
  """

  total: Array
  members: Array
  invalid: Array


class Divergence(NamedTuple):
  """Mean divergence of the compressed from the dense model, in nats.

  Attributes:
    by_group: [G, A] (or [G] over classes), NaN in an empty group.
    overall: [A] (or []), over all samples.
    support: [G, A] (or [G]), the number of samples.
  """

  by_group: Array
  overall: Array
  support: Array


def divergence() -> base.Metric:
  """Makes the mean KL(dense || compressed) of each binary output.

  With p and q the sigmoids of the two logits, a sample counts p log(p/q) +
  (1-p) log((1-p)/(1-q)), from log-sigmoids, and from a series where the logits
  nearly agree. It is infinite where q rules out what p allows.

  Returns:
    A metric of (logits, reference_logits, groups) with value `Divergence`.

  >>> import numpy as np
  >>> from effjax import metrics
  >>> value = metrics.compute(
  ...   metrics.divergence(), logits=np.array([[0.0]], np.float32),
  ...   reference_logits=np.array([[30.0]], np.float32), groups=[[True]]
  ... )
  >>> round(float(value.overall[0]), 4)  # log 2
  0.6931
  """

  def update(state: Divergences, **batch) -> Divergences:
    read = counting.read(batch, "logits", "reference_logits", "groups")
    each = _bernoulli_divergence(read.reference_logits, read.logits)
    return base.add(state, _divergences(each, read))

  zero = jnp.zeros((), jnp.int32)
  empty = Divergences(jnp.zeros(()), zero, zero)
  return base.Metric(empty, update, base.add, _mean_divergence)


def class_divergence(
  logits: Any, reference_logits: Any, groups: Any, *, weights: Any = None
) -> Divergence:
  """Returns the mean KL(dense || compressed) between softmax outputs.

  Args:
    logits: [N, C], of the compressed model.
    reference_logits: [N, C], of the dense one.
    groups: [N, G] bool, membership.
    weights: [N], as in a batch.

  Returns:
    A `Divergence` of [G] and []. A NaN logit in a row that counts makes every
    value NaN.

  Raises:
    ValueError: If the shapes disagree.
  """
  return _class_divergence(
    {
      "logits": logits,
      "reference_logits": reference_logits,
      "groups": groups,
      "weights": weights,
    }
  )


@jax.jit
def _class_divergence(batch: dict[str, Any]) -> Divergence:
  read = counting.read(batch, "logits", "reference_logits", "groups")
  dense = jax.nn.log_softmax(read.reference_logits)
  pruned = jax.nn.log_softmax(read.logits)
  terms = _expected(jnp.exp(dense), dense, pruned)
  each = jnp.sum(terms, axis=1, keepdims=True)
  value = _mean_divergence(_divergences(jnp.maximum(each, 0.0), read))
  return Divergence(*(x[..., 0] for x in value))


def _expected(share: Array, dense: Array, pruned: Array) -> Array:
  """Returns p (log p - log q), 0 where p is 0, from p, log p and log q."""
  return jnp.where(share == 0.0, 0.0, share * (dense - pruned))


def _bernoulli_divergence(dense: Array, pruned: Array) -> Array:
  dense_decay, pruned_decay = (jnp.exp(-jnp.abs(z)) for z in (dense, pruned))
  # log sigmoid(z) = min(z, 0) - tail and log sigmoid(-z) = -max(z, 0) - tail.
  dense_tail, pruned_tail = map(jnp.log1p, (dense_decay, pruned_decay))
  likely, rare = 1.0 / (1.0 + dense_decay), dense_decay / (1.0 + dense_decay)
  p = jnp.where(dense < 0, rare, likely)
  q = jnp.where(dense < 0, likely, rare)
  value = _expected(
    p,
    jnp.minimum(dense, 0.0) - dense_tail,
    jnp.minimum(pruned, 0.0) - pruned_tail,
  ) + _expected(
    q,
    -jnp.maximum(dense, 0.0) - dense_tail,
    -jnp.maximum(pruned, 0.0) - pruned_tail,
  )
  # For close logits the two terms cancel. Then the divergence is the remainder
  # of the Taylor series of softplus, whose coefficients are the cumulants of a
  # Bernoulli variable.
  step = pruned - dense
  bracket = 1.0 + step * (q - p) / 3.0 + step**2 * (1.0 - 6.0 * p * q) / 12.0
  series = p * q * step**2 / 2.0 * bracket
  value = jnp.where(jnp.abs(step) < 0.1, series, value)
  return jnp.maximum(value, 0.0)


def _divergences(each: Array, read: counting.Batch) -> Divergences:
  """Sums [N, A] divergences over the samples of each group."""
  groups = with_everyone(read.groups)
  live = (read.weights != 0)[:, None]
  weights = read.weights.astype(jnp.float32)
  # In a product an infinite term would reach every group.
  finite = jnp.where(live & jnp.isfinite(each), each, 0.0)
  total = counting.cooccurrence(weights, groups, finite)
  infinite = counting.cooccurrence(read.rows, groups, jnp.isposinf(each))
  return Divergences(
    jnp.where(infinite > 0, jnp.inf, total),
    counting.count(read.rows, groups),
    jnp.sum(live & jnp.isnan(each), axis=0, dtype=jnp.int32),
  )


def _mean_divergence(state: Divergences) -> Divergence:
  if not state.members.ndim:
    state = Divergences(*map(jnp.broadcast_to, state, ((2, 1), (2,), (1,))))
  support = jnp.broadcast_to(state.members[..., None], state.total.shape)
  valid = state.invalid[..., None, :] == 0
  value = counting.ratio(state.total, support)
  value = jnp.where(valid & (support > 0), value, jnp.nan)
  return Divergence(value[..., :-1, :], value[..., -1, :], support[..., :-1, :])
