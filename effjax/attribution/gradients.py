"""Attribution by gradients, at an example and along a path to it.

Every method explains the logit of a target class, before any softmax, of each
example by itself: the model must not mix examples (batch normalisation by
running statistics, no dropout). Maps keep the shape and type of x, channels
included; `reduce_channels` is a step of its own. All are compiled, sums are
float32 at least, and leading axes come by `vmap`, of parameters too:

    jax.vmap(lambda p, x, t: saliency(f, p, x[None], t[None])[0])(ps, xs, ts)
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.attribution import copies as repeated

Array = jax.Array
Model = repeated.Model

RULES = ("gauss_legendre", "trapezoid", "middle", "left", "right")
REDUCTIONS = {
  "sum": jnp.sum,
  "abs_sum": lambda maps, axis: jnp.abs(jnp.sum(maps, axis)),
  "sum_abs": lambda maps, axis: jnp.sum(jnp.abs(maps), axis),
  "max_abs": lambda maps, axis: jnp.max(jnp.abs(maps), axis),
}


def reduce_channels(maps: Any, how: str, *, axis: int = -1) -> Array:
  """Removes the channels of maps.

  Args:
    maps: [..., C] floating, where `axis` is -1.
    how: A key of `REDUCTIONS`: "sum", "abs_sum" (the size of the sum),
      "sum_abs" (the sum of sizes) or "max_abs".
    axis: The axis of the channels.

  Returns:
    Maps without that axis, summed in float32 at least, of the type of `maps`.

  Raises:
    ValueError: If there is no such reduction, or the maps are not floating.

  >>> reduce_channels(jnp.array([[1.0, -3.0]]), "abs_sum").tolist()
  [2.0]
  """
  if how not in REDUCTIONS:
    raise ValueError(
      f"how must be one of {', '.join(REDUCTIONS)}, got {how!r}."
    )
  maps = arguments.floating("maps", maps, "an array [..., C]")
  reduced = REDUCTIONS[how](repeated.widen(maps), axis)
  return reduced.astype(maps.dtype)


def saliency(
  f: Model, params: Any, x: Any, target: Any, *, abs: bool = True
) -> Array:
  """Returns the gradient of the target's logit, or its absolute value.

  Simonyan et al. 2014, arXiv:1312.6034.

  Args:
    f: `(params, x) -> logits [B, A]`. It must be hashable; a function that is
      made anew for each call is compiled for each call, and what it closes
      over, such as an nnx model, is taken as it was the first time: give what
      changes as params.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    abs: Whether to drop the signs.

  Returns:
    Maps like x.

  Raises:
    ValueError: If a shape or type does not fit, or a target that has a value is
      out of range. Under `jit` such a target gives an undefined map.

  >>> f = lambda w, x: x @ w
  >>> w = jnp.array([[1.0, 0.0], [-2.0, 3.0]])
  >>> saliency(f, w, jnp.ones((1, 2)), 0).tolist()
  [[1.0, 2.0]]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  slope = _gradient(f, params, x, target)
  return jnp.abs(slope) if abs else slope


def input_x_gradient(f: Model, params: Any, x: Any, target: Any) -> Array:
  """Returns the gradient of the target's logit times the input.

  Shrikumar et al. 2016, arXiv:1605.01713.

  Args:
    f: `(params, x) -> logits [B, A]`, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `saliency`.

  >>> f = lambda w, x: x @ w
  >>> w = jnp.array([[1.0, 0.0], [-2.0, 3.0]])
  >>> input_x_gradient(f, w, jnp.array([[2.0, 5.0]]), [1]).tolist()
  [[0.0, 15.0]]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  return x * _gradient(f, params, x, target)


def integrated_gradients(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  baseline: Any = None,
  steps: int = 50,
  rule: str = "gauss_legendre",
  multiply: bool = True,
  normalise_weights: bool = False,
  chunk_size: int | None = None,
) -> Array:
  """Returns the gradient averaged from a baseline to x, times their difference.

  (x - b) sum_i w_i grad f(b + a_i (x - b)), Sundararajan et al. 2017,
  arXiv:1703.01365. The maps sum to f(x) - f(b) up to what
  `convergence_delta` measures. Points and weights are those of captum: with
  the trapezoid rule the weights sum to 1 - 1/steps, unless normalised.

  Args:
    f: `(params, x) -> logits [B, A]`, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    baseline: None for 0, a number, or an array of the shape of an example or of
      x.
    steps: Points on the path.
    rule: One of `RULES`.
    multiply: Whether to multiply by x - b.
    normalise_weights: Whether to scale the weights to a sum of 1.
    chunk_size: How many points are evaluated together; None for all.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `saliency`, or if there is no such rule, or the steps are
      too few.

  >>> f = lambda w, x: (x**2) @ w
  >>> x = jnp.array([[3.0, 1.0]])
  >>> integrated_gradients(f, jnp.array([[1.0], [2.0]]), x, 0, steps=2).tolist()
  [[9.0, 2.0]]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  points, weights = path_points(rule, steps)
  if normalise_weights:
    weights = weights / weights.sum()
  return _integrated_gradients(
    f,
    params,
    x,
    target,
    repeated.read_baseline(x, baseline),
    points.astype(repeated.wide(x.dtype)),
    weights.astype(repeated.wide(x.dtype)),
    multiply,
    chunk_size,
  )


def path_points(rule: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the points and weights of a rule of integration over [0, 1].

  Args:
    rule: One of `RULES`.
    steps: The number of points.

  Returns:
    Points and weights, [steps] float64 each.

  Raises:
    ValueError: If there is no such rule, or the steps are too few.

  >>> [a.tolist() for a in path_points("trapezoid", 3)]
  [[0.0, 0.5, 1.0], [0.16666666666666666, 0.3333333333333333, 0.16666666666666666]]
  """  # noqa: E501
  least = 2 if rule == "trapezoid" else 1
  if rule not in RULES:
    raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}.")
  steps = arguments.whole(f"the steps of the {rule} rule", steps, least)
  if rule == "gauss_legendre":
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + points) / 2, weights / 2
  ends = {
    "trapezoid": (0, 1),
    "middle": (0.5 / steps, 1 - 0.5 / steps),
    "left": (0, 1 - 1 / steps),
    "right": (1 / steps, 1),
  }[rule]
  weights = np.full(steps, 1 / steps)
  if rule == "trapezoid":
    weights[[0, -1]] /= 2
  return np.linspace(*ends, steps), weights


def convergence_delta(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  maps: Any,
  *,
  baseline: Any = None,
) -> Array:
  """Returns by how much maps miss completeness: sum(maps) - (f(x) - f(b)).

  Args:
    f: `(params, x) -> logits [B, A]`, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    maps: Like x, of `integrated_gradients` or another complete method.
    baseline: That of the method.

  Returns:
    [B] float32 at least.

  Raises:
    ValueError: As for `saliency`, or if the maps are not like x.

  >>> f = lambda w, x: x @ w
  >>> x, w = jnp.ones((1, 2)), jnp.array([[1.0], [2.0]])
  >>> convergence_delta(f, w, x, 0, x * w.T).tolist()
  [0.0]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  maps = jnp.asarray(maps)
  if maps.shape != x.shape:
    raise ValueError(
      f"maps must have the shape of x {list(x.shape)}, got {list(maps.shape)}."
    )
  baseline = repeated.read_baseline(x, baseline)
  return _delta(f, params, x, target, maps, baseline)


_gradient = jax.jit(repeated.gradient, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 7, 8))
def _integrated_gradients(
  f, params, x, target, baseline, points, weights, multiply, chunk_size
):
  start = repeated.widen(baseline)
  step = repeated.widen(x) - start

  def term(i):
    point = (start + points[i] * step).astype(x.dtype)
    slope = repeated.gradient(f, params, point, target)
    return weights[i] * repeated.widen(slope)

  total = repeated.add(term, points.shape[0], chunk_size)
  return (step * total if multiply else total).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _delta(f, params, x, target, maps, baseline):
  rise, floor = (
    repeated.widen(repeated.target_logits(f, params, z, target))
    for z in (x, baseline)
  )
  total = jnp.sum(repeated.widen(maps), axis=tuple(range(1, maps.ndim)))
  return total - (rise - floor).astype(total.dtype)
