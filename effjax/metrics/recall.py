"""What a model says where the object of a fact belongs, and what moved there.

The slot is the position after a prompt: logits [M, V] for M prompts, ids [M] of
the objects. Words of several tokens have logits [M, W, V], teacher-forced, and
ids [M, W] in which negative ones are ignored: a word is right if all its tokens
are (then greedy decoding says it), its probability is the product of theirs.
`where` [M] bool leaves rows out, whatever they hold, and so do ids that are all
negative; without any row every mean is NaN, and so is the mean over a row whose
logits hold NaN. Logarithms are natural, ties go to the lowest id.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.metrics.answers import (
  check_below,
  mean,
  present,
  token_ids,
  wide,
)

Array = jax.Array


class SlotMetrics(NamedTuple):
  """Means over the rows, each []; None where an array was not given.

  Attributes:
    accuracy: The target has the highest logit.
    prob_target: Probability of the target.
    mean_rank_target: 1 + the number of ids with a higher logit.
    count: int32, the number of rows.
    old_recall: The old object has the highest logit; this and the next three
      are means over the rows that have an old object too.
    prob_old: Probability of the old object.
    margin: `prob_target` - `prob_old`.
    new_gt_old: The target is strictly more likely than the old object.
    prediction_agreement: The highest logit is where it was before.
    kl_pre_post: KL(before || after) in nats.
    tv_pre_post: Half the sum of the absolute changes of probabilities.
  """

  accuracy: Array
  prob_target: Array
  mean_rank_target: Array
  count: Array
  old_recall: Array | None = None
  prob_old: Array | None = None
  margin: Array | None = None
  new_gt_old: Array | None = None
  prediction_agreement: Array | None = None
  kl_pre_post: Array | None = None
  tv_pre_post: Array | None = None


class ByRelation(NamedTuple):
  """A table by relation.

  Attributes:
    mean: [R], NaN for a relation without rows.
    count: int32 [R].
  """

  mean: Array
  count: Array


def slot_metrics(
  logits: Any,
  targets: Any,
  *,
  old: Any = None,
  old_logits: Any = None,
  reference_logits: Any = None,
  where: Any = None,
) -> SlotMetrics:
  """Returns all measures of an object slot.

  Args:
    logits: [M, V] or [M, W, V], after the edit.
    targets: [M] or [M, W] integers, the new objects.
    old: The old objects, likewise.
    old_logits: The logits that go with them, where words have several tokens
      (those of the second token depend on the first); `logits` by default.
    reference_logits: Like `logits`, before the edit.
    where: [M] bool, the rows that count.

  Returns:
    `SlotMetrics`. Rank, divergence and distance of words of several tokens are
    means over their tokens.

  Raises:
    ValueError: If the shapes do not fit, or ids of rows that count are no
      integers or not below V.
  """
  z, ids, counted = _words("targets", logits, targets)
  rows = asked(targets, where)
  check_below("targets", targets, z.shape[-1], where)
  log_target = _log_probability(z, ids, counted)
  token = _take(z, ids)[..., None]
  rank = 1 + jnp.sum(z > token, axis=-1, dtype=jnp.int32)
  unknown = jnp.any(jnp.isnan(z) | jnp.isnan(token), axis=-1)
  rank = jnp.where(unknown, jnp.nan, wide(rank))
  found: dict[str, Any] = {
    "accuracy": mean(_right(z, ids, counted), rows),
    "prob_target": mean(jnp.exp(log_target), rows),
    "mean_rank_target": mean(mean(rank, counted, axis=-1), rows),
    "count": jnp.sum(rows, dtype=jnp.int32),
  }
  if old is not None:
    other = logits if old_logits is None else old_logits
    other, was, used = _words("old", other, old)
    both = asked(old, rows)
    check_below("old", old, other.shape[-1], rows)
    log_old = _log_probability(other, was, used)
    better = log_target > log_old
    if old_logits is None and z.shape[1] == 1:
      # Exact where probabilities would round to the same.
      better = _take(z, ids)[:, 0] > _take(z, was)[:, 0]
    found |= {
      "old_recall": mean(_right(other, was, used), both),
      "prob_old": mean(jnp.exp(log_old), both),
      "margin": mean(jnp.exp(log_target) - jnp.exp(log_old), both),
      "new_gt_old": mean(_known(better, z, other), both),
    }
  if reference_logits is not None:
    before, _, _ = _words("targets", reference_logits, targets)
    p, q = jax.nn.log_softmax(before), jax.nn.log_softmax(z)
    terms = jnp.where(jnp.exp(p) == 0, 0.0, jnp.exp(p) * (p - q))
    moved = 0.5 * jnp.sum(jnp.abs(jnp.exp(p) - jnp.exp(q)), axis=-1)
    each = lambda x: mean(mean(x, counted, axis=-1), rows)
    found |= {
      "prediction_agreement": mean(_agreed(z, before, counted), rows),
      "kl_pre_post": each(jnp.sum(terms, axis=-1)),
      "tv_pre_post": each(moved),
    }
  return SlotMetrics(**found)


def edit_success(logits: Any, targets: Any, *, where: Any = None) -> Array:
  """Returns the share of prompts whose answer is the target.

  On edited facts and their new objects this is the efficacy of an edit, on old
  objects what is remembered, on other facts what is preserved.

  Args:
    logits: [M, V] or [M, W, V].
    targets: [M] or [M, W] integers.
    where: [M] bool, the rows that count.

  Returns:
    The share [], NaN without rows.

  Raises:
    ValueError: If the shapes do not fit, or targets of rows that count are no
      integers or not below V.
  """
  z, ids, counted = _words("targets", logits, targets)
  rows = asked(targets, where)
  check_below("targets", targets, z.shape[-1], where)
  return mean(_right(z, ids, counted), rows)


def prediction_agreement(
  logits: Any,
  reference_logits: Any,
  *,
  targets: Any = None,
  where: Any = None,
) -> Array:
  """Returns the share of prompts whose answer is what it was.

  Args:
    logits: [M, V] or [M, W, V], after the edit.
    reference_logits: Likewise, before.
    targets: [M] or [M, W] integers, of which negative ones say what to leave
      out; None = nothing.
    where: [M] bool, the rows that count.

  Returns:
    The share [], NaN without rows.

  Raises:
    ValueError: If the shapes do not fit.
  """
  agreed = agreement(logits, reference_logits, targets)
  if targets is None:
    return mean(agreed, present(where, agreed.shape))
  return mean(agreed, asked(targets, where))


def agreement(logits: Any, reference_logits: Any, targets: Any = None) -> Array:
  """Returns 1 where an answer is what it was, 0 where not, NaN by NaN: [M]."""
  shapes = [list(jnp.shape(x)) for x in (logits, reference_logits)]
  if shapes[0] != shapes[1] or len(shapes[0]) not in (2, 3):
    raise ValueError(
      "logits and reference_logits must both be [M, V] or [M, W, V], got"
      f" {shapes[0]} and {shapes[1]}."
    )
  if targets is None:
    targets = jnp.zeros(shapes[0][:-1], jnp.int32)
  z, _, counted = _words("targets", logits, targets)
  before, _, _ = _words("targets", reference_logits, targets)
  return _agreed(z, before, counted)


def asked(targets: Any, where: Any = None) -> Array:
  """Returns which rows count and ask for a token: bool [M]."""
  there = jnp.asarray(targets) >= 0
  there = jnp.any(there, axis=-1) if there.ndim == 2 else there
  return present(where, there.shape) & there


def by_relation(
  values: Any, relations: Any, number: int, *, where: Any = None
) -> ByRelation:
  """Returns the mean of something for each relation.

  Args:
    values: [M], such as whether an answer is right.
    relations: [M] integers in [0, number).
    number: R, static.
    where: [M] bool, the rows that count.

  Returns:
    `ByRelation`. A relation outside is left out where it is traced.

  Raises:
    ValueError: If the shapes do not fit, `number` is no whole number, or
      relations of rows that count are no integers or outside.
  """
  number = arguments.whole("number", number, 0)
  given, values = relations, wide(values)
  relations = token_ids("relations", relations)
  if values.ndim != 1 or relations.shape != values.shape:
    raise ValueError(
      "values and relations must both be [M], got"
      f" {list(values.shape)} and {list(relations.shape)}."
    )
  rows = present(where, values.shape)
  check_below("relations", given, number, where, least=0)
  ids = jnp.arange(number, dtype=relations.dtype)
  inside = rows[None, :] & (relations[None, :] == ids[:, None])
  values = jnp.broadcast_to(values[None, :], inside.shape)
  count = jnp.sum(inside, axis=1, dtype=jnp.int32)
  return ByRelation(mean(values, inside, axis=1), count)


def _words(name: str, logits: Any, ids: Any) -> tuple[Array, Array, Array]:
  """Returns logits [M, W, V], ids [M, W] and which of them count."""
  z, ids = wide(logits), token_ids(name, ids)
  if z.ndim not in (2, 3) or ids.shape != z.shape[:-1]:
    raise ValueError(
      f"logits and {name} must be [M, V] and [M], or [M, W, V] and [M, W], got"
      f" {list(z.shape)} and {list(ids.shape)}."
    )
  if z.ndim == 2:
    z, ids = z[:, None, :], ids[:, None]
  return z, ids, ids >= 0


def _take(z: Array, ids: Array) -> Array:
  at = jnp.maximum(ids, 0)[..., None]
  return jnp.take_along_axis(z, at, axis=-1)[..., 0]


def _log_probability(z: Array, ids: Array, counted: Array) -> Array:
  logs = _take(jax.nn.log_softmax(z), ids)
  return jnp.sum(jnp.where(counted, logs, 0.0), axis=-1)


def _right(z: Array, ids: Array, counted: Array) -> Array:
  right = jnp.argmax(z, axis=-1).astype(ids.dtype) == ids
  outside = jnp.any(counted & (ids >= z.shape[-1]), axis=-1)
  answers = _known(jnp.all(right | ~counted, axis=-1), z)
  return jnp.where(outside, jnp.nan, answers)


def _agreed(z: Array, before: Array, counted: Array) -> Array:
  same = jnp.argmax(z, axis=-1) == jnp.argmax(before, axis=-1)
  return _known(jnp.all(same | ~counted, axis=-1), z, before)


def _known(answers: Array, *logits: Array) -> Array:
  """Returns answers [M] as numbers; those by NaN are not right nor wrong."""
  for z in logits:
    unknown = jnp.any(jnp.isnan(z), axis=(-2, -1))
    answers = jnp.where(unknown, jnp.nan, wide(answers))
  return wide(answers)
