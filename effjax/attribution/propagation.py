"""Walks from the logits to x, unit by unit, with the rule of a method."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from effjax.attribution.copies import widen
from effjax.attribution.units import Unit, Units

Array = jax.Array
# From a unit and what each of its results got (None for nothing), to what each
# of its inputs gets.
Rule = Callable[[Unit, Sequence[Array | None]], Sequence[Array | None]]


def evaluate(
  unit: Unit, values: Sequence[Array], known: dict[int, Array]
) -> list[Array]:
  """Computes the results of a unit anew.

  Args:
    unit: A unit.
    values: All values.
    known: Values, by number, to take instead.

  Returns:
    The results.
  """
  known = dict(known)
  for node in unit.nodes:
    operands = [known[i] if i in known else values[i] for i in node.inputs]
    known.update(zip(node.outputs, node.evaluate(*operands), strict=True))
  return [known[i] for i in unit.outputs]


def pull_back(
  unit: Unit,
  values: Sequence[Array],
  cotangents: Sequence[Array | None],
  at: dict[int, Array] | None = None,
) -> list[Array | None]:
  """Applies the transposed derivative of a unit.

  Args:
    unit: A unit.
    values: All values.
    cotangents: One for each result, None for zero.
    at: Inputs, by number, to take the derivative at instead.

  Returns:
    One array for each input, float32 at least; None for inputs that are not
    floating.
  """
  at = at or {}
  floating = lambda array: jnp.issubdtype(array.dtype, jnp.floating)
  moving = [i for i in unit.inputs if floating(values[i])]
  if not moving:
    return [None] * len(unit.inputs)

  def function(*arrays):
    known = {**at, **dict(zip(moving, arrays, strict=True))}
    return [y for y in evaluate(unit, values, known) if floating(y)]

  results, pull = jax.vjp(function, *[at.get(i, values[i]) for i in moving])
  given = [
    c
    for c, i in zip(cotangents, unit.outputs, strict=True)
    if floating(values[i])
  ]
  pulled = pull(
    [
      jnp.zeros_like(y) if c is None else c.astype(y.dtype)
      for c, y in zip(given, results, strict=True)
    ]
  )
  table = dict(zip(moving, map(widen, pulled), strict=True))
  return [table.get(i) for i in unit.inputs]


def walk(
  units: Units, start: Array, rule: Rule, until: int = -1
) -> dict[int, Array]:
  """Passes what the logits got back to x, unit by unit.

  Args:
    units: A model.
    start: [B, A], what the logits get.
    rule: What a unit does.
    until: The number of the first value that matters.

  Returns:
    What every value on the way got, by number, as a sum over those that use it.
  """
  got = {units.graph.output: start}
  for first in sorted(units.makers, reverse=True):
    unit = units.makers[first]
    shares = [got.get(i) for i in unit.outputs]
    if first <= until or all(share is None for share in shares):
      continue
    passed = rule(unit, shares)
    for number, share in zip(unit.inputs, passed, strict=True):
      if share is not None:
        got[number] = got[number] + share if number in got else share
  return got


def map_of(units: Units, got: dict[int, Array], x: Array) -> Array:
  """Returns what x got, in its shape and type; 0 if nothing reached it."""
  share = got.get(units.graph.x)
  return jnp.zeros_like(x) if share is None else share.astype(x.dtype)
