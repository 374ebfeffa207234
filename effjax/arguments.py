"""What arguments must be: whole or finite numbers, shares, axes, arrays.

Only what is known before a program is traced is looked at.
"""

import operator
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def whole(name: str, value: Any, least: int = 1) -> int:
  """Checks a whole number, such as a count or a size.

  Args:
    name: What to call it in an error.
    value: An integer of Python, NumPy or jax; 2.0 is none.
    least: The smallest that is allowed.

  Returns:
    An integer of Python.

  Raises:
    ValueError: If it is another thing, traced or too small.

  >>> whole("step", np.int64(3))
  3
  """
  try:
    number = operator.index(value)
  except TypeError:
    number = None
  if number is None or number < least:
    raise ValueError(
      f"{name} must be a whole number of at least {least}, got {_shown(value)}."
    )
  return number


def finite(name: str, value: Any, least: float, *, above: bool = False) -> Any:
  """Checks a number, or an array of them, that need not be known yet.

  Args:
    name: What to call it in an error.
    value: A number or an array; traced, it passes.
    least: The smallest that is allowed.
    above: Whether it must lie above that.

  Returns:
    The value.

  Raises:
    ValueError: If it is no number, is not finite or is too small.

  >>> finite("radius", 0.5, 0)
  0.5
  """
  if isinstance(value, jax.core.Tracer):
    return value
  try:
    # NumPy would read a text as a number.
    known = np.asarray(np.nan if isinstance(value, str) else value, np.float64)
  except (OverflowError, TypeError, ValueError):
    known = np.asarray(np.nan)
  large = known > least if above else known >= least
  if not np.all(large & (known < np.inf)):
    bound = f"above {least}" if above else f"of at least {least}"
    raise ValueError(
      f"{name} must be a finite number {bound}, got {_shown(value)}."
    )
  return value


def share(
  name: str, value: Any, most: float = 1.0, *, below: bool = False
) -> None:
  """Checks a share of something: a number above 0 and at most 1.

  Args:
    name: What to call it in an error.
    value: A number, static.
    most: The largest that is allowed, where that is less.
    below: Whether it must lie below that.

  Raises:
    ValueError: If it is no number or lies outside.

  >>> share("level", 0.5)
  """
  try:
    inside = bool(0 < value < most if below else 0 < value <= most)
  except (TypeError, ValueError):
    inside = False
  if not inside:
    end = ")" if below else "]"
    raise ValueError(
      f"{name} must lie in (0, {most:g}{end}, got {_shown(value)}."
    )


def axes(
  given: Sequence[int], x: Any, *, ascend: bool = True
) -> tuple[int, ...]:
  """Checks axes of examples.

  Args:
    given: Distinct positions in the shape of x, from 1 on.
    x: [B, ...].
    ascend: Whether they must ascend; they do in what is returned.

  Returns:
    The axes as integers of Python.

  Raises:
    ValueError: If there is no such axis or none at all, or two are alike or in
      the wrong order.

  >>> axes([1, 2], np.ones((5, 4, 3)))
  (1, 2)
  """
  try:
    found = list(map(operator.index, given))
  except TypeError:
    found = []
  inside = all(0 < axis < x.ndim for axis in found)
  order = sorted(set(found))
  if not found or not inside or (found if ascend else sorted(found)) != order:
    raise ValueError(
      f"axes must {'ascend' if ascend else 'differ'} in whole numbers from 1 to"
      f" at most {x.ndim - 1} for x {list(x.shape)}, got {_shown(given)}."
    )
  return tuple(order)


def floating(name: str, value: Any, wanted: str) -> jax.Array:
  """Checks an array of floating point numbers.

  Args:
    name: What to call it in an error.
    value: An array of rank 1 or more.
    wanted: What it is, with its shape, for an error.

  Returns:
    The array.

  Raises:
    ValueError: If its rank is 0 or its numbers are of another type.

  >>> floating("x", np.ones(2, np.float32), "a batch [B]").shape
  (2,)
  """
  array = jnp.asarray(value)
  if not array.ndim or not jnp.issubdtype(array.dtype, jnp.floating):
    raise ValueError(
      f"{name} must be {wanted} of floating point numbers, got"
      f" {array.dtype}{list(array.shape)}."
    )
  return array


def _shown(value: Any) -> str:
  return textwrap.shorten(repr(value), 60)
