"""Class activation maps: where a layer's channels speak for a class."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree as trees
from effjax.attribution import copies as repeated
from effjax.attribution import guided, jaxprs, propagation
from effjax.attribution.units import Layer, Unit, Units, group

Array = jax.Array
Model = repeated.Model

UPSAMPLINGS = ("nearest", "bilinear")


def grad_cam(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  layer: str,
  relu: bool = False,
  upsample: str | None = None,
  channel_axis: int | None = None,
) -> Array:
  """Returns a layer's channels, weighted by their mean gradients and summed.

  The sum over channels c of mean(df/dA_c) A_c, where A is the layer's result,
  its bias included. Selvaraju et al. 2017, arXiv:1610.02391, who keep positive
  parts only: `relu=True`.

  Args:
    f: `(params, x) -> logits [B, A]`, see `guided_backprop`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    layer: The name of the layer's kernel in params, such as "conv2/kernel".
    relu: Whether to cut off negative parts, before enlarging.
    upsample: One of `UPSAMPLINGS` to enlarge the map to the size of x, whose
      axes must be those of the layer. None leaves it in the layer's size.
    channel_axis: The axis of the channels in the layer's result; by default
      that of the convolution, and the last one for other layers.

  Returns:
    Maps like the layer's result, [B, H', W', 1] if its channels are last, of
    the type of x.

  Raises:
    ValueError: As for `guided_backprop`; if no layer or several have this
      kernel; if the axes do not fit.

  >>> def f(params, x):
  ...   return jnp.mean(jax.nn.relu(x @ params["a"]), axis=1) @ params["b"]
  >>> params = {"a": jnp.eye(2), "b": jnp.array([[1.0], [-1.0]])}
  >>> x = jnp.array([[[3.0, 1.0], [1.0, 2.0]]])
  >>> grad_cam(f, params, x, 0, layer="a")[0, :, 0].tolist()
  [1.0, -0.5]
  """
  f, params, x, target, names = guided.read(f, params, x, target)
  options = (layer, relu, _read_upsample(upsample), channel_axis)
  return _grad_cam(f, names, options, params, x, target)


def score_cam(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  layer: str,
  relu: bool = True,
  upsample: str | None = None,
  channel_axis: int | None = None,
  chunk_size: int | None = 32,
) -> Array:
  """Returns a layer's channels, weighted by what they alone let f see.

  The positive part of the sum over channels c of w_c A_c, where A is the
  layer's result, its bias included. A channel is enlarged to the size of x by
  "bilinear" and scaled to [0, 1]; w is the softmax over channels of the logits
  of x times that mask. Wang et al. 2020, arXiv:1910.01279, algorithm 1, whose
  baseline of the logits cancels in the softmax. A channel that is constant
  shows nothing and gets the weight 0.

  Args:
    f: `(params, x) -> logits [B, A]`, see `guided_backprop`; no gradient is
      taken. For weights by probabilities give an `f` that ends in a softmax.
    params: The parameters, any tree.
    x: [B, ...] floating, with the axes of the layer.
    target: [B] integers, or one for all.
    layer: The name of the layer's kernel in params, such as "conv2/kernel".
    relu: Whether to cut off negative parts, before enlarging.
    upsample: As for `grad_cam`.
    channel_axis: As for `grad_cam`.
    chunk_size: How many channels are evaluated together; None for all.

  Returns:
    Maps like the layer's result, [B, H', W', 1] if its channels are last, of
    the type of x.

  Raises:
    ValueError: As for `grad_cam`.

  >>> f = lambda w, x: jnp.sum(x @ w, axis=1)
  >>> x = jnp.array([[[3.0, 1.0], [1.0, 2.0]]])
  >>> maps = score_cam(f, 10 * jnp.eye(2), x, 0, layer="")
  >>> [round(float(m)) for m in maps[0, :, 0]]
  [30, 10]
  """
  f, params, x, target, names = guided.read(f, params, x, target)
  options = (layer, relu, _read_upsample(upsample), channel_axis, chunk_size)
  return _score_cam(f, names, options, params, x, target)


def guided_grad_cam(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  layer: str,
  upsample: str = "nearest",
  channel_axis: int | None = None,
) -> Array:
  """Returns `guided_backprop` times the positive part of `grad_cam`.

  Selvaraju et al. 2017, arXiv:1610.02391.

  Args:
    f: `(params, x) -> logits [B, A]`, see `guided_backprop`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    layer: The name of the layer's kernel in params.
    upsample: One of `UPSAMPLINGS`.
    channel_axis: As for `grad_cam`.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `grad_cam`.

  >>> f = lambda w, x: jnp.mean(jax.nn.relu(x @ w), axis=1)
  >>> x = jnp.array([[[3.0, 1.0], [1.0, 2.0]]])
  >>> guided_grad_cam(f, jnp.eye(2), x, 0, layer="")[0].tolist()
  [[0.75, 0.0], [0.25, 0.0]]
  """
  if upsample is None:
    raise ValueError(f"upsample must be one of {', '.join(UPSAMPLINGS)}.")
  cam = grad_cam(
    f,
    params,
    x,
    target,
    layer=layer,
    relu=True,
    upsample=upsample,
    channel_axis=channel_axis,
  )
  return guided.guided_backprop(f, params, x, target) * cam


def resize_maps(
  maps: Any, shape: Sequence[int], *, method: str = "bilinear"
) -> Array:
  """Enlarges maps.

  Args:
    maps: An array.
    shape: The shape wanted, of the same rank.
    method: "nearest" repeats the entry at floor(i * old / new), "bilinear"
      interpolates between centres of pixels.

  Returns:
    An array of that shape.

  Raises:
    ValueError: If the rank differs or there is no such method.

  >>> resize_maps(jnp.array([1.0, 2.0]), (4,), method="nearest").tolist()
  [1.0, 1.0, 2.0, 2.0]
  """
  maps = jnp.asarray(maps)
  _read_upsample(method)
  if len(shape) != maps.ndim:
    raise ValueError(
      f"maps {list(maps.shape)} cannot be enlarged to {list(shape)}, which has"
      " another rank."
    )
  if method == "bilinear":
    return jax.image.resize(maps, shape, "bilinear", antialias=False)
  for axis, (old, new) in enumerate(zip(maps.shape, shape, strict=True)):
    maps = jnp.take(maps, np.arange(new) * old // new, axis=axis)
  return maps


def find_layer(units: Units, name: str) -> tuple[Unit, Layer]:
  """Finds the layer of a kernel.

  Args:
    units: A model.
    name: The name of the kernel in the parameters.

  Returns:
    Its unit, with its bias, and what is known of it.

  Raises:
    ValueError: If there is none, or several use the kernel.
  """
  layers = units.layers()
  found = [pair for pair in layers if name in pair[1].names]
  if len(found) == 1:
    return found[0]
  if found:
    raise ValueError(
      f"the kernel {name!r} is used by {len(found)} layers, so it does not name"
      " one"
    )
  known = [known for _, layer in layers for known in layer.names]
  raise ValueError(
    f"no layer on the way from x has the kernel {name!r}; the nearest are"
    f" {', '.join(map(repr, trees.nearest(name, known))) or 'none'}"
  )


def _read_upsample(method: str | None) -> str | None:
  if method not in (None, *UPSAMPLINGS):
    raise ValueError(
      f"upsampling is one of {', '.join(UPSAMPLINGS)}, got {method!r}."
    )
  return method


def _channels(known: Layer, axis: int | None, ndim: int) -> tuple[int, tuple]:
  """Returns the axis of the channels and those of the places."""
  axis = known.channel_axis if axis is None else axis
  if not -ndim < axis < ndim or not axis:
    raise ValueError(
      f"channel_axis={axis} is no axis of a layer's result of {ndim} axes, of"
      " which the first is that of the examples"
    )
  axis %= ndim
  return axis, tuple(k for k in range(1, ndim) if k != axis)


def _enlarge(maps: Array, x: Array, places: Sequence[int], method: str | None):
  """Gives maps the size of x at their places."""
  if method is None:
    return maps
  if x.ndim != maps.ndim:
    raise ValueError(
      f"a map of the layer, {list(maps.shape)}, cannot be enlarged to x"
      f" {list(x.shape)}, which has other axes; use upsample=None and"
      " resize_maps, or another layer"
    )
  shape = [x.shape[k] if k in places else n for k, n in enumerate(maps.shape)]
  return resize_maps(maps, shape, method=method)


def _finish(weights: Array, result: Array, axis: int, relu: bool) -> Array:
  maps = jnp.sum(weights * result, axis=axis, keepdims=True)
  return jnp.maximum(maps, 0) if relu else maps


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _grad_cam(f, names, options, params, x, target):
  layer, relu, upsample, channel_axis = options
  units = group(jaxprs.trace(f, names, params, x))
  unit, known = find_layer(units, layer)
  values = jaxprs.run(units.graph, params, x)
  start = guided.one_hot(units, target)
  (output,) = unit.outputs
  rule = guided.gradient_rule(values)
  got = propagation.walk(units, start, rule, until=output)
  result = repeated.widen(values[output])
  axis, places = _channels(known, channel_axis, result.ndim)
  slope = got.get(output, jnp.zeros_like(result))
  weights = jnp.mean(slope, axis=places, keepdims=True)
  maps = _finish(weights, result, axis, relu)
  return _enlarge(maps, x, places, upsample).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _score_cam(f, names, options, params, x, target):
  layer, relu, upsample, channel_axis, chunk_size = options
  units = group(jaxprs.trace(f, names, params, x))
  unit, known = find_layer(units, layer)
  values = jaxprs.run(units.graph, params, x)
  result = repeated.widen(values[unit.outputs[0]])
  axis, places = _channels(known, channel_axis, result.ndim)

  def score(c):
    channel = jax.lax.dynamic_index_in_dim(result, c, axis)
    large = _enlarge(channel, x, places, "bilinear")
    low, high = (
      extreme(large, axis=places, keepdims=True)
      for extreme in (jnp.min, jnp.max)
    )
    live = high > low
    mask = (large - low) / jnp.where(live, high - low, 1)
    seen = (repeated.widen(x) * mask).astype(x.dtype)
    logits = repeated.widen(repeated.target_logits(f, params, seen, target))
    return jnp.where(live.reshape(-1), logits, -jnp.inf)

  scores = repeated.each(score, result.shape[axis], chunk_size)
  # Channels that are all constant would divide 0 by 0.
  weights = jax.nn.softmax(scores, axis=0, where=scores > -jnp.inf)
  shape = [n if k in (0, axis) else 1 for k, n in enumerate(result.shape)]
  maps = _finish(weights.T.reshape(shape), result, axis, relu)
  return _enlarge(maps, x, places, upsample).astype(x.dtype)
