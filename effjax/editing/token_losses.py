"""Losses of labelled tokens, and means of what counts.

Rows of logits that do not count are zeroed before they are used, not after: a
NaN in one of them would reach the gradient through a loss that is left out.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import arguments

Array = jax.Array


def wide(x: Array) -> Array:
  """Return an array as float32, or as float64 where it is that.

  Args:
    x: The array.

  Returns:
    The same numbers.
  """
  return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def fixed(reference: Any, like: Array) -> Array:
  """Return what a reference model gives, without gradients.

  Args:
    reference: Its logits or activations.
    like: Those of the model that is trained.

  Returns:
    The reference.

  Raises:
    ValueError: If the shapes differ.
  """
  reference = jax.lax.stop_gradient(jnp.asarray(reference))
  if reference.shape != like.shape:
    raise ValueError(
      f"the reference has shape {reference.shape}, the model {like.shape}"
    )
  return reference


def checked(
  logits: Any, labels: Any, *, shifted: bool = True
) -> tuple[Array, Array]:
  """Check logits or activations, and labels.

  Args:
    logits: [B, T, V], or activations [B, T, D].
    labels: [B, T]; a negative one is ignored.
    shifted: Whether the labels are classes of the logits before them.

  Returns:
    The logits as they are, and the labels: [B, T - 1] where they are classes,
    else [B, T].

  Raises:
    ValueError: If shapes do not fit, labels are not whole numbers, or one is
      known to be no class.
  """
  logits = jnp.asarray(logits)
  given = jnp.asarray(labels)
  if logits.ndim != 3 or given.shape != logits.shape[:2]:
    raise ValueError(
      f"logits must be [B, T, V] and labels [B, T], got shapes {logits.shape}"
      f" and {given.shape}"
    )
  if not jnp.issubdtype(given.dtype, jnp.integer):
    raise ValueError(f"labels must be whole numbers, got {given.dtype}")
  if not shifted:
    return logits, given
  size = logits.shape[-1]
  if not isinstance(labels, jax.core.Tracer):
    largest = np.max(np.asarray(labels)[:, 1:], initial=-1)
    if largest >= size:
      raise ValueError(
        f"labels must be below the {size} classes of the logits (negative ones"
        f" are ignored), got {largest}"
      )
  return logits, given[:, 1:]


def token_losses(logits: Any, labels: Any) -> tuple[Array, Array]:
  """Compute the losses of tokens.

  Args:
    logits: [B, T, V].
    labels: [B, T].

  Returns:
    The losses [B, T - 1], 0 where a label is ignored, and which count.

  Raises:
    ValueError: As for `checked`.
  """
  logits, labels = checked(logits, labels)
  counted = labels >= 0
  losses = optax.softmax_cross_entropy_with_integer_labels(
    jnp.where(counted[..., None], wide(logits)[:, :-1], 0.0),
    jnp.where(counted, labels, 0),
  )
  return jnp.where(counted, losses, 0.0), counted


def gained(
  logits: Any, reference_logits: Any, labels: Any
) -> tuple[Array, Array]:
  """Compute by how much the losses of texts grew.

  Args:
    logits: [B, T, V].
    reference_logits: [B, T, V].
    labels: [B, T].

  Returns:
    N - N_ref [B], and which texts have labels.

  Raises:
    ValueError: As for `checked`, or if the shapes of both differ.
  """
  logits = jnp.asarray(logits)
  reference = fixed(reference_logits, logits)
  now, counted = token_losses(logits, labels)
  before, _ = token_losses(reference, labels)
  return jnp.sum(now - before, axis=-1), jnp.any(counted, axis=-1)


def preference(margin: Array, labelled: Array, beta: Any) -> Array:
  """Compute -(2/b) mean log sigmoid(b margin).

  Args:
    margin: [B].
    labelled: bool [B], which texts count.
    beta: b.

  Returns:
    The loss [].

  Raises:
    ValueError: If b is known not to be finite and above 0.
  """
  arguments.finite("beta", beta, 0, above=True)
  return -2.0 / beta * mean(jax.nn.log_sigmoid(beta * margin), labelled)


def mean_of_texts(activations: Array, target: Array, labels: Any) -> Array:
  """Average squared distances over labelled positions, then over texts.

  Args:
    activations: [B, T, D].
    target: [B, T, D], or what broadcasts to it.
    labels: [B, T], without a shift.

  Returns:
    The mean over texts that have labels [].

  Raises:
    ValueError: As for `checked`.
  """
  activations, labels = checked(activations, labels, shifted=False)
  h = wide(activations)
  counted = labels >= 0
  gaps = jnp.where(counted[..., None], h - target.astype(h.dtype), 0.0)
  squares = jnp.mean(gaps**2, axis=-1)
  number = jnp.sum(counted, axis=-1).astype(h.dtype)
  each = jnp.sum(squares, axis=-1) / jnp.maximum(number, 1.0)
  return mean(each, number > 0)


def mean(values: Array, counted: Array) -> Array:
  """Average what counts.

  Args:
    values: An array.
    counted: bool of the same shape.

  Returns:
    The mean [], NaN if nothing counts.
  """
  number = jnp.sum(counted, dtype=jnp.int32).astype(values.dtype)
  return jnp.sum(jnp.where(counted, values, 0.0)) / number
