"""DeepLIFT: differences from a baseline, passed back by multipliers.

A multiplier is the change of the target's logit per change of a value between
the baseline and x. Those of each unit are chosen so that changes add up: the
maps sum to f(x) - f(baseline), whatever x and the baseline are.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from effjax.attribution import copies as repeated
from effjax.attribution import guided, jaxprs, propagation
from effjax.attribution.units import Unit, group

Array = jax.Array
Model = repeated.Model

POOLS = ("rescale", "gradient")
# A change below this counts as none: the derivative takes its place.
_SMALL = 1e-10


def deep_lift(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  baseline: Any = None,
  maxpool: str = "rescale",
) -> Array:
  """Returns the changes of the logit that changes of the input explain.

  The rescale rule of Shrikumar et al. 2017, arXiv:1704.02685: an elementwise
  function passes on its multiplier times (y - y_b) / (x - x_b), linear layers
  their transpose. Products of two values that depend on x take both at the
  middle between baseline and x, which is complete too.

  Args:
    f: `(params, x) -> logits [B, A]`, see `guided_backprop`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    baseline: None for 0, a number, or an array of the shape of an example or of
      x.
    maxpool: What pools of maxima do. "rescale" splits the change between the
      entries that are largest in x and in the baseline, so that maps are
      complete. "gradient" passes all to the one that is largest in x, as
      published code (captum 0.9) does for pools behind rectifiers.

  Returns:
    Maps like x; `convergence_delta` says by how much they miss completeness.

  Raises:
    ValueError: As for `guided_backprop`, or if x passes through a primitive
      that has no rule.

  >>> f = lambda w, x: jax.nn.relu(x - 1.0) @ w
  >>> w = jnp.array([[2.0], [1.0]])
  >>> deep_lift(f, w, jnp.array([[3.0, 0.5]]), 0).tolist()
  [[4.0, 0.0]]
  """
  if maxpool not in POOLS:
    raise ValueError(
      f"maxpool must be one of {', '.join(POOLS)}, got {maxpool!r}."
    )
  f, params, x, target, names = guided.read(f, params, x, target)
  baseline = repeated.read_baseline(x, baseline)
  return _deep_lift(f, names, maxpool, params, x, target, baseline)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _deep_lift(f, names, maxpool, params, x, target, baseline):
  # A stopped gradient is no stopped change.
  units = group(jaxprs.trace(f, names, params, x, stops=False))
  values = jaxprs.run(units.graph, params, x)
  others = jaxprs.run(units.graph, params, baseline)

  def rule(unit, got):
    if unit.kind in ("layer", "affine", "move", "sum"):
      return propagation.pull_back(unit, values, got)
    if unit.kind == "elementwise":
      return _rescale(unit, values, others, got)
    if unit.kind in ("maximum", "minimum"):
      if maxpool == "gradient":
        return propagation.pull_back(unit, values, got)
      return _pool(unit, values, others, got)
    if unit.kind == "product":
      return _product(unit, values, others, got)
    if unit.kind == "quotient":
      return _quotient(unit, values, others, got)
    if unit.kind == "stop":
      return [got[0]]
    raise ValueError(
      f"deep_lift has no rule for the primitive {unit.primitive!r} of values"
      " that depend on x; spell it with sums, products, maxima and elementwise"
      " functions, or use integrated_gradients, which is complete for any model"
    )

  start = guided.one_hot(units, target)
  got = propagation.walk(units, start, rule)
  change = repeated.widen(x) - repeated.widen(baseline)
  share = got.get(units.graph.x, jnp.zeros_like(change))
  return (share * change).astype(x.dtype)


def _change(
  number: int, values: Sequence[Array], others: Sequence[Array]
) -> Array:
  return repeated.widen(values[number]) - repeated.widen(others[number])


def _ratio(numerator: Array, change: Array, otherwise: Any) -> Array:
  """Divides by a change, and takes another value where there is none."""
  # A NaN is that of two infinities: padding of a pool, which did not change.
  small = ~(jnp.abs(change) >= _SMALL)
  return jnp.where(small, otherwise, numerator / jnp.where(small, 1, change))


def _rescale(
  unit: Unit,
  values: Sequence[Array],
  others: Sequence[Array],
  got: Sequence[Array],
) -> list[Array]:
  (source,), (output,) = unit.inputs, unit.outputs
  (slope,) = propagation.pull_back(unit, values, got)
  change = _change(source, values, others)
  return [_ratio(got[0] * _change(output, values, others), change, slope)]


def _pool(
  unit: Unit,
  values: Sequence[Array],
  others: Sequence[Array],
  got: Sequence[Array],
) -> list[Array | None]:
  """Splits a change into one at the old and one at the new extreme entry."""
  (output,) = unit.outputs
  y, y_other = repeated.widen(values[output]), repeated.widen(others[output])
  extreme = jnp.maximum if unit.kind == "maximum" else jnp.minimum
  between = extreme(y, y_other)
  here = propagation.pull_back(unit, values, [got[0] * (between - y_other)])
  there = propagation.pull_back(unit, others, [got[0] * (y - between)])
  return [
    None
    if a is None or b is None
    else _ratio(a + b, _change(number, values, others), 0)
    for number, a, b in zip(unit.inputs, here, there, strict=True)
  ]


def _middle(
  number: int, values: Sequence[Array], others: Sequence[Array]
) -> Array:
  mean = (repeated.widen(values[number]) + repeated.widen(others[number])) / 2
  return mean.astype(values[number].dtype)


def _product(
  unit: Unit,
  values: Sequence[Array],
  others: Sequence[Array],
  got: Sequence[Array],
) -> list[Array | None]:
  # a b - a' b' = (a - a') (b + b') / 2 + (b - b') (a + a') / 2.
  at = {i: _middle(i, values, others) for i in unit.inputs}
  return propagation.pull_back(unit, values, got, at)


def _quotient(
  unit: Unit,
  values: Sequence[Array],
  others: Sequence[Array],
  got: Sequence[Array],
) -> list[Array]:
  """Treats a / b as the product of a and the rescaled function 1 / b."""
  above, below = unit.nodes[-1].inputs
  here, there = repeated.widen(values[below]), repeated.widen(others[below])
  change = here - there
  middle = repeated.widen(_middle(above, values, others))
  slope = _ratio(1 / here - 1 / there, change, -1 / (here * here))
  shares = {above: got[0] * (1 / here + 1 / there) / 2}
  shares[below] = shares.get(below, 0) + got[0] * middle * slope
  return [shares[i] for i in unit.inputs]
