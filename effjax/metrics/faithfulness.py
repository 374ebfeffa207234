"""How well maps tell what a model's output rests on, by asking the model.

`f(params, x) -> logits [B, A]` is hashable, and compiled for each new function;
`params` is a tree of arrays. Axes of x that the maps lack are channels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import answers, counting
from effjax.metrics.localization import descending_ranks

Array = jax.Array
Model = Callable[[Any, Array], Array]


class InsertionDeletion(NamedTuple):
  """The target's probability while pixels come or go, and the areas below.

  Attributes:
    shares: [S + 1], the share of pixels that have been changed.
    insertion: [B, S + 1], probabilities while pixels are inserted.
    deletion: [B, S + 1], probabilities while pixels are deleted.
    insertion_auc: [B], the area below, by trapezoids; a good map is high.
    deletion_auc: [B]; a good map is low.
  """

  shares: Array
  insertion: Array
  deletion: Array
  insertion_auc: Array
  deletion_auc: Array


def insertion_deletion(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  maps: Any,
  *,
  step: int = 8,
  insert_into: Any = None,
  delete_to: Any = None,
  axes: Sequence[int] = (1, 2),
  chunk_size: int | None = None,
) -> InsertionDeletion:
  """Returns how the target's probability follows the order of the maps.

  Pixels are changed in descending order of the map, the first among equals
  first, all channels at once. Petsiuk et al. 2018, arXiv:1806.07421.

  Args:
    f: The model.
    params: Its parameters.
    x: [B, ...] floating images.
    target: [B] integers, or one for all.
    maps: [B, ...] with the spatial axes of x, without channels.
    step: Pixels that change from one point of the curve to the next; the last
      step may be shorter.
    insert_into: What x is inserted into: None for 0, a number, or an array that
      broadcasts to x, as of `gaussian_blur`.
    delete_to: What deleted pixels become, likewise.
    axes: The spatial axes of x, ascending: (1, 2) for [B, H, W, C].
    chunk_size: Points evaluated together; None for all.

  Returns:
    Curves and areas, float32 at least; NaN for a map that holds NaN.

  Raises:
    ValueError: If a shape or an option does not fit, x is not floating, or a
      target that has a value is out of range.

  >>> f = lambda w, x: jnp.stack([x.sum((1, 2, 3)) * w, 0 * x[:, 0, 0, 0]], 1)
  >>> x = jnp.ones((1, 2, 2, 1))
  >>> curves = insertion_deletion(f, 1.0, x, 0, x[..., 0], step=2)
  >>> print(np.asarray(curves.deletion).round(2))
  [[0.98 0.88 0.5 ]]
  """
  x, target = _read(f, params, x, target)
  axes, step = arguments.axes(axes, x), arguments.whole("step", step)
  # Numbers without a sign have no descending order by their negatives.
  maps = answers.wide(maps)
  shape = x.shape[:1] + tuple(x.shape[a] for a in axes)
  if maps.shape != shape:
    raise ValueError(
      f"maps must have shape {list(shape)}, that of x {list(x.shape)} along the"
      f" axes {axes}, got {list(maps.shape)};"
      " attribution.reduce_channels removes the channels of maps."
    )
  insert_into, delete_to = (
    jnp.broadcast_to(jnp.asarray(0 if v is None else v, x.dtype), x.shape)
    for v in (insert_into, delete_to)
  )
  return _insertion_deletion(
    f, params, x, target, maps, insert_into, delete_to, step, axes, chunk_size
  )


def gaussian_blur(
  x: Any, *, size: int = 11, sigma: float = 5.0, axes: Sequence[int] = (1, 2)
) -> Array:
  """Returns images blurred along their spatial axes; outside they are 0.

  Args:
    x: [B, ...] floating.
    size: Taps of the kernel along each axis, odd.
    sigma: Its standard deviation in pixels, above 0; its taps sum to 1.
    axes: The spatial axes of x, in any order.

  Returns:
    Like x.

  Raises:
    ValueError: If x is not floating, or an option does not fit.

  >>> blurred = gaussian_blur(jnp.ones((1, 5, 5)), size=3)
  >>> print(np.asarray(blurred)[0, :2, 2].round(2))
  [0.67 1.  ]
  """
  x = arguments.floating("x", x, "a batch [B, ...]")
  axes = arguments.axes(axes, x, ascend=False)
  arguments.finite("sigma", sigma, 0, above=True)
  reach, odd = divmod(arguments.whole("size", size), 2)
  if not odd:
    raise ValueError(f"size must be odd, got {size}.")
  taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
  taps = (taps / np.sum(taps)).tolist()
  return _blurred(x, tuple(taps), axes)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _blurred(x: Array, taps: tuple[float, ...], axes: tuple[int, ...]) -> Array:
  reach = len(taps) // 2
  blurred = x.astype(_wide(x.dtype))
  for axis in axes:
    width = [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)]
    padded = jnp.pad(blurred, width)
    length = x.shape[axis]
    parts = [
      tap * jax.lax.slice_in_dim(padded, i, i + length, axis=axis)
      for i, tap in enumerate(taps)
    ]
    blurred = functools.reduce(jnp.add, parts)
  return blurred.astype(x.dtype)


def sensitivity(
  key: Array,
  explain: Callable[[Array], Array],
  x: Any,
  *,
  radius: float = 0.02,
  samples: int = 10,
  relative: bool = False,
  chunk_size: int | None = None,
) -> Array:
  """Returns how far maps move at most when x moves a little.

  The largest Euclidean distance between the map of x and those of samples drawn
  uniformly from the cube of that radius around x. Yeh et al. 2019,
  arXiv:1901.09392, definition 2.

  Args:
    key: A random key.
    explain: `x -> maps`, hashable, compiled for each new function.
    x: [B, ...] floating.
    radius: Half the side of the cube, at least 0.
    samples: Points drawn.
    relative: Whether to divide by the size of the map of x, as captum does.
    chunk_size: Points evaluated together; None for all.

  Returns:
    [B] float32 at least; NaN where relative to a map of 0.

  Raises:
    ValueError: If x is not floating, or an option is out of range.

  >>> x = jnp.ones((2, 3))
  >>> sensitivity(jax.random.key(0), jnp.zeros_like, x).tolist()
  [0.0, 0.0]
  """
  x = arguments.floating("x", x, "a batch [B, ...]")
  arguments.finite("radius", radius, 0)
  options = (arguments.whole("samples", samples), relative, chunk_size)
  return _sensitivity(key, explain, x, radius, *options)


def infidelity(
  key: Array,
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  maps: Any,
  *,
  perturb: Callable[[Array, Array], Array] | None = None,
  sigma: float = 0.1,
  samples: int = 100,
  scaled: bool = False,
  chunk_size: int | None = None,
) -> Array:
  """Returns the mean squared error of maps as linear models of the logit.

  E (I . map - (f(x) - f(x - I)))^2 over perturbations I. Yeh et al. 2019,
  arXiv:1901.09392, definition 1.

  Args:
    key: A random key.
    f: The model.
    params: Its parameters.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    maps: Like x.
    perturb: `(key, x) -> I` like x, hashable; None for normal noise.
    sigma: Standard deviation of that noise.
    samples: Perturbations drawn.
    scaled: Whether the maps are first multiplied by the number, one for each
      example, that makes the error smallest.
    chunk_size: Perturbations evaluated together; None for all.

  Returns:
    [B] float32 at least.

  Raises:
    ValueError: If a shape does not fit, x is not floating, there are no
      samples, or a target that has a value is out of range.

  >>> f = lambda w, x: x @ w
  >>> w, x = jnp.array([[2.0], [4.0]]), jnp.ones((1, 2))
  >>> infidelity(jax.random.key(0), f, w, x, 0, w.T).round(5).tolist()
  [0.0]
  """
  x, target = _read(f, params, x, target)
  maps, samples = jnp.asarray(maps), arguments.whole("samples", samples)
  arguments.finite("sigma", sigma, 0, above=True)
  if maps.shape != x.shape:
    raise ValueError(
      f"maps must have the shape of x {list(x.shape)}, got {list(maps.shape)}."
    )
  options = (perturb, samples, scaled, chunk_size)
  return _infidelity(key, f, params, x, target, maps, sigma, *options)


def _read(f: Model, params: Any, x: Any, target: Any) -> tuple[Array, Array]:
  x = arguments.floating("x", x, "a batch [B, ...]")
  logits = jax.eval_shape(f, params, x).shape
  if len(logits) != 2 or logits[0] != x.shape[0]:
    raise ValueError(
      f"f must return logits [{x.shape[0]}, A] for x {list(x.shape)}, got"
      f" {list(logits)}."
    )
  one = jnp.ndim(target) == 0
  target = counting.read_ids(
    "target", target, logits[1], ndim=1 - one, unit="logits"
  ).astype(jnp.int32)
  if not one and target.shape != x.shape[:1]:
    raise ValueError(
      f"target must be one integer or {x.shape[0]} of them, got"
      f" {list(target.shape)}."
    )
  return x, jnp.broadcast_to(target, x.shape[:1])


def _wide(dtype: Any) -> Any:
  return dtype if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def _pick(logits: Array, target: Array) -> Array:
  logits = logits.astype(_wide(logits.dtype))
  return jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]


def _each(function: Callable, count: int, chunk_size: int | None) -> Any:
  """Stacks the results of a function of a number."""
  if chunk_size is not None:
    chunk_size = arguments.whole("chunk_size", chunk_size)
  numbers = jnp.arange(count)
  if chunk_size is None or chunk_size >= count:
    return jax.vmap(function)(numbers)
  return jax.lax.map(function, numbers, batch_size=chunk_size)


@functools.partial(jax.jit, static_argnums=(0, 7, 8, 9))
def _insertion_deletion(
  f, params, x, target, maps, insert_into, delete_to, step, axes, chunk_size
):
  flat = maps.reshape(maps.shape[0], -1)
  pixels = flat.shape[1]
  ranks = descending_ranks(flat)
  shape = [x.shape[a] if a in (0, *axes) else 1 for a in range(x.ndim)]
  ranks = ranks.reshape(shape)
  count = -(-pixels // step)

  def point(i):
    changed = ranks < i * step

    def probability(start, end):
      logits = f(params, jnp.where(changed, end, start))
      logits = logits.astype(_wide(logits.dtype))
      return _pick(jax.nn.softmax(logits, axis=1), target)

    return probability(insert_into, x), probability(x, delete_to)

  curves = _each(point, count + 1, chunk_size)
  bad = jnp.any(jnp.isnan(flat), axis=1)[:, None]
  curves = [jnp.where(bad, jnp.nan, curve.T) for curve in curves]
  changed = jnp.minimum(jnp.arange(count + 1) * step, pixels)
  shares = changed.astype(curves[0].dtype) / pixels
  areas = [
    jnp.trapezoid(c, jnp.broadcast_to(shares, c.shape), axis=1) for c in curves
  ]
  return InsertionDeletion(shares, *curves, *areas)


@functools.partial(jax.jit, static_argnums=(1, 4, 5, 6))
def _sensitivity(key, explain, x, radius, samples, relative, chunk_size):
  dtype = _wide(x.dtype)
  wide = lambda maps: maps.astype(dtype).reshape(maps.shape[0], -1)
  centre = wide(explain(x))
  radius = jnp.asarray(radius, dtype)

  def distance(i):
    move = jax.random.uniform(
      jax.random.fold_in(key, i), x.shape, dtype, -radius, radius
    )
    maps = wide(explain((x.astype(dtype) + move).astype(x.dtype)))
    return jnp.linalg.norm(maps - centre, axis=1)

  largest = jnp.max(_each(distance, samples, chunk_size), axis=0)
  if not relative:
    return largest
  size = jnp.linalg.norm(centre, axis=1)
  return jnp.where(size > 0, largest / size, jnp.nan)


@functools.partial(jax.jit, static_argnums=(1, 7, 8, 9, 10))
def _infidelity(
  key, f, params, x, target, maps, sigma, perturb, samples, scaled, chunk_size
):
  dtype = _wide(x.dtype)
  logit = _pick(f(params, x), target)

  def sample(i):
    k = jax.random.fold_in(key, i)
    if perturb is None:
      noise = jax.random.normal(k, x.shape, dtype)
      change = jnp.asarray(sigma, dtype) * noise
    else:
      change = perturb(k, x).astype(dtype)
    moved = (x.astype(dtype) - change).astype(x.dtype)
    terms = change * maps.astype(dtype)
    fall = logit - _pick(f(params, moved), target)
    told = jnp.sum(terms, axis=tuple(range(1, x.ndim)))
    return told, fall.astype(dtype)

  told, fall = _each(sample, samples, chunk_size)
  if scaled:
    power = jnp.sum(told * told, axis=0)
    scale = jnp.sum(told * fall, axis=0) / jnp.where(power > 0, power, 1)
    told = scale[None] * told
  return jnp.mean(jnp.square(told - fall), axis=0)
