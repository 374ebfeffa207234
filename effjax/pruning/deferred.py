"""Scores that are computed where they are read.

An update of the masks inside a training step must not store one score for every
weight: the memory of a program is mapped anew at each of its steps once it is
large, whether or not the branch that needs it runs.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Deferred:
  """An elementwise function of arrays of one shape, not applied yet.

  In a tree it stands where an array of scores would stand.

  Attributes:
    function: Takes equal parts of the operands and returns that part of the
      result.
    operands: Arrays [...] of one shape.

  >>> live = Deferred(jnp.abs, (jnp.array([[-1.0, 2.0], [3.0, -4.0]]),))
  >>> live.read(1, 2).tolist()
  [2.0, 3.0]
  """

  function: Callable[..., jax.Array]
  operands: tuple[jax.Array, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the operands and of the result."""
    return self.operands[0].shape

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return len(self.shape)

  @property
  def size(self) -> int:
    """Number of entries."""
    return math.prod(self.shape)

  @property
  def dtype(self) -> jnp.dtype:
    """Type of the result."""
    return jax.eval_shape(self.function, *self.operands).dtype

  def then(self, function: Callable, other: jax.Array) -> "Deferred":
    """Apply one more function, of the result and another array.

    Args:
      function: An elementwise function of both.
      other: The array [...].

    Returns:
      The outcome, not computed yet.
    """
    both = lambda *x: function(self.function(*x[:-1]), x[-1])
    return Deferred(both, (*self.operands, other))

  def whole(self) -> jax.Array:
    """Compute all entries.

    Returns:
      The array [...].
    """
    return self.function(*self.operands)

  def flat(self) -> "Deferred":
    """Lay the operands out in C order, once, for reading in a loop.

    Returns:
      The same scores as [n].
    """
    return Deferred(self.function, tuple(x.reshape(-1) for x in self.operands))

  def part(self, entries: slice) -> jax.Array:
    """Compute the entries of a static slice, counted in C order.

    Args:
      entries: Which.

    Returns:
      The entries [n].
    """
    return self.function(*(x.reshape(-1)[entries] for x in self.operands))

  def read(self, start: jax.Array | int, size: int) -> jax.Array:
    """Compute some entries from a traced position on, counted in C order.

    Args:
      start: The first of them, int32 [].
      size: How many, n.

    Returns:
      The entries [n].
    """
    return self.function(
      *(
        jax.lax.dynamic_slice(x.reshape(-1), (start,), (size,))
        for x in self.operands
      )
    )


Groups = Sequence[Sequence[Deferred]]


def as_deferred(scores: Any) -> Any:
  """Give scores that are stored the same form.

  Args:
    scores: A tree of arrays, or of functions of arrays not applied yet.

  Returns:
    The same tree, all of it to be read.

  >>> as_deferred([jnp.ones(3)])[0].size
  3
  """
  return jax.tree.map(
    lambda x: x if isinstance(x, Deferred) else Deferred(_same, (x,)), scores
  )


def _same(x: jax.Array) -> jax.Array:
  return x
