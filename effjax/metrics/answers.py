"""Labelled tokens of texts, and averages that leave out what is absent.

Logits are [B, T, V] and labels [B, T]; the logits at t predict the label at
t + 1. Labels of -100 (any negative number) are ignored, and so is the one at
position 0, which nothing predicts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array


class Tokens(NamedTuple):
  """What a model makes of the tokens that follow the first.

  Attributes:
    losses: [B, T - 1], negative log-likelihoods, 0 where ignored.
    correct: [B, T - 1], 1 if the label has the highest logit, the first of
      equal ones, else 0; NaN where logits are or where a traced label is not
      below V, 0 where ignored.
    counted: [B, T - 1] bool, the token has a label.
  """

  losses: Array
  correct: Array
  counted: Array


def tokens(logits: Any, labels: Any, *, drop_last: bool = False) -> Tokens:
  """Returns losses and correctness of labelled tokens.

  Args:
    logits: [B, T, V].
    labels: [B, T] integers.
    drop_last: Leave out the last labelled token of each text, the end of text
      of published programs.

  Returns:
    The `Tokens`.

  Raises:
    ValueError: If the shapes do not fit, or labels are no integers or not
      below V.
  """
  counted = labelled(logits, labels, drop_last=drop_last)
  size = jnp.shape(logits)[-1]
  shape = jnp.shape(labels)
  # Nothing predicts the first token, which may hold anything.
  check_below(
    "labels", labels, size, np.broadcast_to(np.arange(shape[1]) > 0, shape)
  )
  logits, labels = wide(logits)[:, :-1], token_ids("labels", labels)[:, 1:]
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.where(counted, labels, 0)
  )
  correct = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
  unknown = jnp.any(jnp.isnan(logits), axis=-1) | (labels >= size)
  correct = jnp.where(unknown, jnp.nan, wide(correct))
  return Tokens(
    jnp.where(counted, losses, 0.0), jnp.where(counted, correct, 0.0), counted
  )


def labelled(logits: Any, labels: Any, *, drop_last: bool = False) -> Array:
  """Returns which of the tokens that follow the first have a label.

  Args:
    logits: [B, T, V], of which the shape is looked at.
    labels: [B, T] integers.
    drop_last: Leave out the last labelled token of each text.

  Returns:
    Bool [B, T - 1].

  Raises:
    ValueError: If the shapes do not fit or labels are no integers.
  """
  labels, shape = token_ids("labels", labels), jnp.shape(logits)
  if len(shape) != 3 or labels.shape != shape[:2]:
    raise ValueError(
      "logits must be [B, T, V] and labels [B, T], got"
      f" {list(shape)} and {list(labels.shape)}."
    )
  counted = labels[:, 1:] >= 0
  if drop_last:
    after = jnp.cumsum(counted[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1]
    counted &= after > 1
  return counted


def token_ids(name: str, ids: Any) -> Array:
  """Returns ids in a type that can number all of what they are compared with.

  Args:
    name: What to call them in an error.
    ids: [...] integers of any type.

  Returns:
    [...] int32, or int64 where they take 8 bytes.

  Raises:
    ValueError: If they are no integers.

  >>> token_ids("ids", np.array([200], np.uint8)).dtype.name
  'int32'
  """
  ids = jnp.asarray(ids)
  if not jnp.issubdtype(ids.dtype, jnp.integer):
    raise ValueError(
      f"{name} must be integers, got {ids.dtype}{list(ids.shape)}."
    )
  return ids.astype(jnp.int64 if ids.dtype.itemsize == 8 else jnp.int32)


def check_below(
  name: str,
  ids: Any,
  number: int,
  where: Any = None,
  *,
  least: int | None = None,
) -> None:
  """Checks the range of ids.

  Args:
    name: What to call them in an error.
    ids: [...] integers; traced, they pass.
    number: What they must be below.
    where: Bool, of leading axes of `ids`: which are looked at; traced, all of
      them pass. None = all.
    least: The smallest that is allowed; None = negative ones are ignored.

  Raises:
    ValueError: If one lies outside.
  """
  leaves = jax.tree.leaves((ids, where))
  if any(isinstance(x, jax.core.Tracer) for x in leaves):
    return
  ids = np.asarray(ids)
  seen = ids if where is None else ids[np.asarray(where)]
  if not seen.size:
    return
  low, high = int(seen.min()), int(seen.max())
  if high >= number or (least is not None and low < least):
    allowed = "be negative or" if least is None else f"be {least} or more and"
    raise ValueError(
      f"{name} must {allowed} below {number}, got {low} to {high}."
    )


def answer_nll(logits: Any, labels: Any) -> Array:
  """Returns the loss of answers per token.

  Args:
    logits: [B, T, V].
    labels: [B, T], -100 = ignored; the logits at t predict the label at t + 1.

  Returns:
    The mean negative log-likelihood of the labelled tokens [B], NaN without
    any.

  Raises:
    ValueError: If the shapes do not fit, or labels are no integers or not
      below V.
  """
  found = tokens(logits, labels)
  return mean(found.losses, found.counted, axis=-1)


def wide(x: Any) -> Array:
  """Returns numbers as float32 or wider; bool and integers as jax's floats."""
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return x.astype(jax.dtypes.canonicalize_dtype(float))
  return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def stack(*values: Any) -> Array:
  """Returns arrays of one shape along a new first axis, of the widest type."""
  found = [wide(x) for x in values]
  double = any(x.dtype == jnp.float64 for x in found)
  return jnp.stack([x.astype(jnp.float64) if double else x for x in found])


def mean(values: Any, where: Any = None, axis: int | None = None) -> Array:
  """Returns the mean of what is there, NaN if nothing is.

  Args:
    values: [...], bool or numbers.
    where: [...] bool, of the same shape, or None for all.
    axis: The axis to reduce; all by default.

  Returns:
    The mean, float32 or wider.

  >>> mean(jnp.array([1.0, jnp.nan]), jnp.array([True, False])).item()
  1.0
  """
  values = wide(values)
  where = present(where, values.shape)
  total = jnp.sum(jnp.where(where, values, 0.0), axis=axis)
  return total / jnp.sum(where, axis=axis, dtype=jnp.int32).astype(values.dtype)


def present(where: Any, shape: tuple[int, ...]) -> Array:
  """Returns a mask of that shape; None means that all is there.

  Args:
    where: [...] bool, or None.
    shape: The shape that it must have.

  Returns:
    The mask.

  Raises:
    ValueError: If it has another shape or is not bool.
  """
  if where is None:
    return jnp.ones(shape, bool)
  where = jnp.asarray(where)
  if where.shape != shape or where.dtype != jnp.bool_:
    raise ValueError(
      f"where must be bool{list(shape)}, got {where.dtype}{list(where.shape)}."
    )
  return where


def harmonic_mean(values: Any, axis: int = -1) -> Array:
  """Returns the harmonic mean, 0 if a value is 0.

  Args:
    values: [...], 0 or more.
    axis: The axis to reduce.

  Returns:
    The mean, float32 or wider; NaN with a NaN or a negative value, or without
    values.
  """
  values = wide(values)
  valid = jnp.all(values >= 0, axis=axis)
  zero = jnp.any(values == 0, axis=axis)
  total = jnp.sum(1.0 / jnp.where(values > 0, values, 1.0), axis=axis)
  result = jnp.where(zero, 0.0, values.shape[axis] / total)
  return jnp.where(valid & (total > 0), result, jnp.nan)
