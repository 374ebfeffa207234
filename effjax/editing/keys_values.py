"""Keys and values of an edit, and what other keys look like.

The key of a fact is what enters the down projection of the MLP at the last
token of the subject, its value what leaves it. Both are read from a model by
whoever has one; here they are averaged, normalised and optimised.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from effjax import arguments

Array = jax.Array


class Value(NamedTuple):
  """A value that was searched for.

  Attributes:
    value: [O], v0 + delta.
    delta: [O], d.
    loss: [], of the last evaluation; it is that of `delta`.
    evaluations: int32 [], how often the loss was evaluated.
    reached: bool [], the loss fell below the limit.
  """

  value: Array
  delta: Array
  loss: Array
  evaluations: Array
  reached: Array


def second_moment(gram: Array, count: Any) -> Array:
  """Normalise a sum of outer products of keys: C = E[k k^T].

  Keys are not centred. A stream of batches is summed first, say by
  `pruning.input_gram`, whose results add up over batches and devices.

  Args:
    gram: Sum of outer products [I, I].
    count: Number of keys in it, a number or traced.

  Returns:
    The second moment [I, I], float32 or wider, exactly symmetric.

  Raises:
    ValueError: If the matrix is not square, or the count not finite and above
      0.

  >>> second_moment(jnp.array([[4.0]]), 2).tolist()
  [[2.0]]
  """
  gram = _wide(gram)
  if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
    raise ValueError(f"a Gram matrix is [I, I], got shape {gram.shape}")
  arguments.finite("the number of keys", count, 0, above=True)
  return 0.5 * (gram + gram.T) / jnp.asarray(count).astype(gram.dtype)


def average_keys(keys: Array, *, where: Array | None = None) -> Array:
  """Average the keys of a fact over its contexts.

  Args:
    keys: [..., P, I], in P contexts: the bare prompt, and the prompt behind
      other texts.
    where: bool [..., P], the contexts that there are; None = all.

  Returns:
    The keys [..., I], float32 or wider; NaN without a context. The closed forms
    take several keys as columns, `average_keys(keys).T`.

  Raises:
    ValueError: If the shapes do not fit.

  >>> average_keys(jnp.array([[1.0, 0.0], [3.0, 0.0]])).tolist()
  [2.0, 0.0]
  """
  keys = _wide(keys)
  if keys.ndim < 2:
    raise ValueError(f"keys are [..., P, I], got shape {keys.shape}")
  where = jnp.ones(keys.shape[:-1], bool) if where is None else where
  where = jnp.asarray(where)
  if where.shape != keys.shape[:-1] or where.dtype != jnp.bool_:
    raise ValueError(
      f"where must be bool {keys.shape[:-1]}, got {where.dtype} {where.shape}"
    )
  number = jnp.sum(where, axis=-1, dtype=jnp.int32).astype(keys.dtype)
  total = jnp.sum(jnp.where(where[..., None], keys, 0.0), axis=-2)
  return total / number[..., None]


def optimize_value(
  loss: Callable[[Array], Array],
  v0: Array,
  *,
  divergence: Callable[[Array], Array] | None = None,
  evaluations: int = 20,
  learning_rate: Any = 0.5,
  weight_decay: Any = 0.5,
  kl: Any = 0.0625,
  clamp: Any = 4.0,
  stop: Any = 0.05,
) -> Value:
  """Search for the value that makes a model say the new object.

  Minimises loss(d) + kl divergence(d) + weight_decay |d| / |v0|^2 over d, from
  0, by Adam. After each step |d| is held at clamp |v0| at most; the search ends
  when the total falls below `stop`, or after the last evaluation, which no step
  follows. Meng et al., "Locating and Editing Factual Associations in GPT"
  (arXiv 2202.05262), as published: the defaults are those of GPT-2 XL, MEMIT
  has a clamp of 0.75.

  Args:
    loss: From d [O], added to the output at the token of the key, to the
      mean loss of the new object over contexts [].
    v0: The output before the edit [O].
    divergence: From d to KL(now || before) on a prompt of the subject alone [];
      none by default.
    evaluations: How often the loss is evaluated at most.
    learning_rate: Of Adam.
    weight_decay: What the length of d weighs.
    kl: What the divergence weighs.
    clamp: Longest d, in lengths of v0; infinity for any.
    stop: The total that is good enough.

  Returns:
    The value. If a loss is not finite the search ends there.

  Raises:
    ValueError: If v0 is no vector or zero, nothing may be evaluated, or the
      clamp is negative or NaN.

  >>> wanted = jnp.array([1.0, 2.0])
  >>> found = optimize_value(
  ...   lambda d: jnp.sum((d - wanted) ** 2), jnp.ones(2), weight_decay=0.0
  ... )
  >>> bool(found.reached), int(found.evaluations) < 20
  (True, True)
  """
  v0 = _wide(v0)
  if v0.ndim != 1:
    raise ValueError(f"a value is a vector [O], got shape {v0.shape}")
  evaluations = arguments.whole("evaluations", evaluations)
  if not (isinstance(clamp, float) and clamp == math.inf):
    arguments.finite("clamp", clamp, 0)
  length = jnp.linalg.norm(v0)
  if not isinstance(length, jax.core.Tracer) and not length > 0:
    raise ValueError(
      f"the value before the edit has length {length}; its length is the unit"
      " of decay and clamp"
    )

  def total(d):
    terms = loss(d) + weight_decay * _length(d) / length**2
    return terms if divergence is None else terms + kl * divergence(d)

  optimizer = optax.scale_by_adam()
  start = jnp.zeros_like(v0)
  unknown = jnp.full((), jnp.inf, jax.eval_shape(total, start).dtype)
  state = (start, optimizer.init(start), unknown, start, jnp.int32(0))

  def unfinished(state):
    _, _, now, _, count = state
    # Neither below the limit nor NaN.
    more = (now >= stop) & jnp.isfinite(now) & (count < evaluations)
    return more | (count == 0)

  def step(state):
    d, moments, _, slope, count = state
    # optax mixes the count of steps with floats.
    with jax.numpy_dtype_promotion("standard"):
      update, later = optimizer.update(slope, moments)
    # No step yet in the first round: the model is compiled once, here.
    keep = lambda new, old: jnp.where(count == 0, old, new)
    moved = d - learning_rate * update
    limit, size = clamp * length, _length(moved)
    moved = jnp.where(size > limit, moved * (limit / size), moved)
    d = keep(moved, d)
    now, slope = jax.value_and_grad(total)(d)
    return d, jax.tree.map(keep, later, moments), now, slope, count + 1

  d, _, now, _, count = lax.while_loop(unfinished, step, state)
  return Value(v0 + d, d, now, count, now < stop)


def _wide(x: Any) -> Array:
  x = jnp.asarray(x)
  return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _length(d: Array) -> Array:
  """Return the length of a vector, whose slope at 0 is 0."""
  squares = jnp.sum(d**2)
  safe = jnp.where(squares > 0, squares, 1.0)
  return jnp.where(squares > 0, jnp.sqrt(safe), 0.0)
