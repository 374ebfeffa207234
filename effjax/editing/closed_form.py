"""Closed-form edits: the least change of a matrix that maps keys to values.

A linear layer W [O, I] is read as a memory: W k is what it returns for the key
k. An edit is a delta D [O, I] with (W + D) k = v, or nearly so, that moves the
outputs of other keys as little as their second moment C = E[k k^T] allows:

    c = editing.second_moment(gram, count)
    delta = editing.rome(w, c, k, v)
    delta = editing.memit(w, c, keys, values, lam=15_000)

Keys K [I, n] and values V [O, n] are columns. Everything is float32 at the
highest precision of products, or float64 where w or c is that; matrices are
factored, never inverted.

Outside of jit a covariance that cannot be factored is a ValueError; under jit
the delta is NaN throughout.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax import arguments
from effjax.editing.solving import (
  compiled,
  damped,
  demand,
  factor,
  not_negative,
  operands,
  product,
  singular,
  solve,
)

Array = jax.Array

_KEYS = ("consistent", "prompt", "original")


def rome(
  w: Array,
  c: Array,
  k: Array,
  v: Array,
  *,
  key: str | None = None,
  prompt_key: Array | None = None,
  damping: Any = 0.0,
  convention: str = "exact",
) -> Array:
  """Store one value under one key, by a change of rank 1.

  D = (v - W k) u^T / (k.u) with u = C^-1 k, whose norm cancels. Meng et al.,
  "Locating and Editing Factual Associations in GPT" (arXiv 2202.05262), eq. 2;
  the published program takes another key in u than elsewhere, which Gupta et
  al. (arXiv 2403.07175) find to be what makes sequences of edits collapse.

  Args:
    w: Weights [O, I].
    c: Second moment of the keys [I, I], see `second_moment`.
    k: The key, averaged over contexts [I].
    v: The wanted output [O].
    key: Which key is used: "consistent", k throughout (r-ROME); "prompt", the
      prompt key throughout (p-ROME); "original", k in u, the prompt key in the
      residual and the denominator, so that (W + D) prompt_key = v.
    prompt_key: The key of the bare prompt [I], for "prompt" and "original".
    damping: What is added to the diagonal of C, as a share of its mean.
    convention: "exact" means key="consistent", "reference" key="original",
      unless `key` says otherwise.

  Returns:
    The delta [O, I]; NaN under jit where C is singular.

  Raises:
    ValueError: If shapes do not fit, a key is missing, damping is negative, C
      is singular or not finite, or the key is orthogonal to u.
  """
  if convention not in ("exact", "reference"):
    raise ValueError(
      f"convention {convention!r} is unknown; choose 'exact' or 'reference'"
    )
  if key is None:
    key = "consistent" if convention == "exact" else "original"
  if key not in _KEYS:
    raise ValueError(f"there is no key {key!r}: choose from {_KEYS}")
  if key != "consistent" and prompt_key is None:
    raise ValueError(
      f"key={key!r} needs prompt_key, the key [I] of the bare prompt; without"
      " one use key='consistent'"
    )
  asked = k if key == "consistent" else prompt_key
  spread = prompt_key if key == "prompt" else k
  asked, spread, v = map(jnp.asarray, (asked, spread, v))
  if asked.ndim != 1 or spread.shape != asked.shape or v.ndim != 1:
    raise ValueError(
      f"keys must be [I] and the value [O], got shapes {spread.shape},"
      f" {asked.shape} and {v.shape}; memit and emmet take several"
    )
  w, c, asked, v = operands(w, c, asked, v)
  # The key in u need not be the one that is asked for.
  demand(
    jnp.all(jnp.isfinite(spread)),
    "the keys of an edit must be finite: NaN or infinity",
  )
  damping = not_negative("damping", damping, w.dtype)
  delta, good, met = _rome(w, c, asked[:, 0], spread, v[:, 0], damping)
  demand(good, singular(c))
  demand(
    met,
    "the key is zero, or orthogonal to C^-1 k: nothing can be stored under it",
  )
  return delta


def memit(
  w: Array,
  c: Array,
  keys: Array,
  values: Array,
  lam: Any,
  *,
  layers: int = 1,
  damping: Any = 0.0,
) -> Array:
  """Store many values at once, weighed against all other keys.

  D = R K^T (lam C + K K^T)^-1, the least squares of the residuals R = (V - W K)
  / layers and of the outputs of other keys, which count lam times. Meng et al.,
  "Mass-Editing Memory in a Transformer" (arXiv 2210.07229), equation 14.
  Where n < I the same is solved as R (K^T C^-1 K + lam)^-1 K^T C^-1, exact
  for small lam too, with `emmet` as its limit; if C is singular, as it stands.

  Args:
    w: Weights [O, I].
    c: Second moment of the keys [I, I].
    keys: Keys [I, n], or one [I].
    values: Wanted outputs [O, n], or one [O].
    lam: What other keys weigh, a number or traced; 0 or more.
    layers: How many layers are still to be edited, this one included: the
      residual is spread evenly over them. For the next one, keys and outputs
      are computed anew. Static.
    damping: What is added to the diagonal of C, as a share of its mean.

  Returns:
    The delta [O, I]; NaN under jit where the system is singular.

  Raises:
    ValueError: If shapes do not fit, a number is out of range, or the system
      is singular or not finite.
  """
  w, c, keys, values = operands(w, c, keys, values)
  layers = arguments.whole("layers", layers)
  lam = not_negative("lam", lam, w.dtype)
  damping = not_negative("damping", damping, w.dtype)
  delta, good = _memit(w, c, keys, values, lam, layers, damping)
  demand(good, f"lam C + K K^T is singular: {singular(c)}, or a larger lam")
  return delta


def emmet(
  w: Array, c: Array, keys: Array, values: Array, *, damping: Any = 0.0
) -> Array:
  """Store many values at once, each of them exactly.

  D = R (K^T C^-1 K)^-1 K^T C^-1 with R = V - W K: of all changes with (W + D) K
  = V the one that moves other outputs least; `rome` for a single key. Gupta et
  al., "A Unified Framework for Model Editing" (arXiv 2403.14236).

  Args:
    w: Weights [O, I].
    c: Second moment of the keys [I, I].
    keys: Keys [I, n], or one [I]; linearly independent.
    values: Wanted outputs [O, n], or one [O].
    damping: What is added to the diagonal of C, as a share of its mean.

  Returns:
    The delta [O, I]; NaN under jit where C is singular or keys are dependent.

  Raises:
    ValueError: If shapes do not fit, damping is negative, C is singular or not
      finite, or the keys are linearly dependent.
  """
  w, c, keys, values = operands(w, c, keys, values)
  damping = not_negative("damping", damping, w.dtype)
  delta, good, independent = _emmet(w, c, keys, values, damping)
  demand(good, singular(c))
  demand(
    independent,
    f"the {keys.shape[1]} keys of {keys.shape[0]} inputs are linearly"
    " dependent, and cannot all get their values: leave out those that occur"
    " twice, or use memit",
  )
  return delta


def alphaedit(
  w: Array,
  c: Array | None,
  keys: Array,
  values: Array,
  *,
  previous: Array | None = None,
  ridge: Any = 10.0,
  threshold: Any = 2e-2,
  projection: Array | None = None,
  layers: int = 1,
) -> Array:
  """Store values by a change that other keys cannot notice.

  D^T = (P (K K^T + K_p K_p^T) + ridge)^-1 P K R^T with P the projection onto
  the directions in which keys hardly ever point, see `null_space`, hence D P =
  D. Fang et al., "AlphaEdit" (arXiv 2410.02355); the ridge is 10 in the
  published settings.

  Args:
    w: Weights [O, I].
    c: Second moment of the keys [I, I]; not read where `projection` is given.
    keys: Keys [I, n], or one [I].
    values: Wanted outputs [O, n], or one [O].
    previous: Keys [I, m] of earlier edits, whose outputs shall stay.
    ridge: What the size of the change weighs, a number or traced; above 0.
    threshold: Singular values of C below it count as none, absolutely.
    projection: P [I, I], if it is at hand.
    layers: How many layers share the residual, see `memit`.

  Returns:
    The delta [O, I]; zeros under jit where no direction is free, NaN where the
    ridge is not positive and the system singular.

  Raises:
    ValueError: If shapes do not fit, a number is out of range, or no direction
      is free.
  """
  given = c if projection is None else projection
  if given is None:
    raise ValueError("alphaedit needs c, or the projection made of it")
  w, given, keys, values = operands(w, given, keys, values)
  layers = arguments.whole("layers", layers)
  arguments.finite("ridge", ridge, 0, above=True)
  if projection is None:
    given = null_space(given, threshold)
  known = keys
  if previous is not None:
    previous = jnp.asarray(previous).astype(w.dtype)
    if previous.ndim != 2 or previous.shape[0] != w.shape[1]:
      raise ValueError(
        f"previous keys must be [{w.shape[1]}, m], got {previous.shape}"
      )
    known = jnp.concatenate([keys, previous], axis=1)
  ridge = jnp.asarray(ridge).astype(w.dtype)
  delta, good = _alphaedit(w, given, keys, values, known, ridge, layers)
  demand(good, f"the ridge {ridge} is lost beside the keys: use a larger one")
  return delta


def null_space(c: Array, threshold: Any = 2e-2) -> Array:
  """Project onto the directions in which keys hardly ever point.

  Args:
    c: Second moment of the keys [I, I].
    threshold: Singular values below it count as none, absolutely.

  Returns:
    P = U0 U0^T [I, I] with U0 the singular vectors of those.

  Raises:
    ValueError: If the matrix is not square, or no singular value is below the
      threshold (which under jit gives zeros).
  """
  c = jnp.asarray(c)
  if c.ndim != 2 or c.shape[0] != c.shape[1]:
    raise ValueError(f"the covariance must be [I, I], got shape {c.shape}")
  wide = jnp.float64 if c.dtype == jnp.float64 else jnp.float32
  projection, smallest = _null_space(c.astype(wide), threshold)
  demand(
    smallest < threshold,
    f"no singular value of the covariance lies below threshold={threshold}: no"
    " direction is free of other keys; use a larger threshold, or memit",
  )
  return projection


def sequential(
  w: Array,
  edits: Sequence[tuple[Array, Array]],
  edit: Callable[[Array, Array, Array], Array],
) -> list[Array]:
  """Edit a matrix several times, each time on top of what was done before.

  Args:
    w: Weights [O, I].
    edits: Pairs of keys and values, as `edit` takes them.
    edit: From (w, keys, values) to a delta, such as a closed form with the
      covariance filled in.

  Returns:
    The delta of each edit; their sum is the whole change.
  """
  deltas = []
  for keys, values in edits:
    deltas.append(edit(w, keys, values))
    w = w + deltas[-1].astype(w.dtype)
  return deltas


@compiled
def _rome(w, c, asked, spread, v, damping):
  lower, good = factor(damped(c, damping))
  u = solve(lower, spread.astype(w.dtype))
  # The norm cancels, and a small covariance makes it large.
  u = u / jnp.linalg.norm(u)
  reach = product(asked, u)
  right = (v - product(w, asked)) / reach
  # What rounding alone makes of orthogonal vectors; u has length 1.
  least = 4 * jnp.finfo(w.dtype).eps * jnp.linalg.norm(asked)
  return right[:, None] * u[None, :], good, (jnp.abs(reach) > least) | ~good


@compiled
def _memit(w, c, keys, values, lam, layers, damping):
  c = damped(c, damping)
  residual = (values - product(w, keys)) / layers

  def direct():
    lower, good = factor(lam * c + product(keys, keys.T))
    return solve(lower, product(keys, residual.T)).T, good

  if keys.shape[1] >= keys.shape[0]:
    return direct()
  delta, good, regular = _dual(c, keys, residual, lam)
  return lax.cond(good & regular, lambda: (delta, good), direct)


@compiled
def _emmet(w, c, keys, values, damping):
  residual = values - product(w, keys)
  return _dual(damped(c, damping), keys, residual, 0.0)


def _dual(c, keys, residual, lam):
  """Solve R (K^T C^-1 K + lam)^-1 K^T C^-1, and say what is regular."""
  lower, good = factor(c)
  reached = solve(lower, keys)
  gram = product(keys.T, reached)
  gram = gram + lam * jnp.eye(keys.shape[1], dtype=gram.dtype)
  small, regular = factor(gram)
  delta = product(solve(small, residual.T).T, reached.T)
  return delta, good, regular | ~good


@compiled
def _null_space(c, threshold):
  values, vectors = jnp.linalg.eigh(c)
  values = jnp.abs(values)
  free = jnp.where(values[None, :] < threshold, vectors, 0.0)
  return product(free, free.T), jnp.min(values, initial=jnp.inf)


@compiled
def _alphaedit(w, projection, keys, values, known, ridge, layers):
  residual = (values - product(w, keys)) / layers
  # A solution lies in the range of P, where P A P is the same and symmetric.
  seen = product(projection, known)
  eye = jnp.eye(w.shape[1], dtype=w.dtype)
  lower, good = factor(product(seen, seen.T) + ridge * eye)
  stored = product(product(projection, keys), residual.T)
  return product(solve(lower, stored).T, projection), good
