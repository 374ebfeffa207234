"""Attribution by taking parts of the input away: no gradients are needed.

What is taken away becomes the baseline. A part is a window, a group of
features, or drawn at random (`rise`, and `effjax.attribution.surrogate`).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.attribution import copies as repeated

Array = jax.Array
Model = repeated.Model
# Keeps the quotient of `rise` finite where no mask shows a pixel.
_UNSEEN = 1e-4


def occlusion(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  window: int | Sequence[int],
  strides: int | Sequence[int] | None = None,
  baseline: Any = None,
  axes: Sequence[int] = (1, 2),
  chunk_size: int | None = None,
) -> Array:
  """Returns by how much the logit falls when a window is covered.

  The window starts at 0, s, 2s, ... along each axis until it reaches the end,
  where it is clipped; a pixel gets the mean over the windows that cover it.
  Zeiler and Fergus 2014, arXiv:1311.2901, section 2.

  Args:
    f: `(params, x) -> logits [B, A]`, hashable, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    window: Size of the window, one number or one for each axis. It spans the
      other axes.
    strides: Its steps, at most its size; None for its size.
    baseline: None for 0, a number, or an array of the shape of an example or of
      x.
    axes: The spatial axes of x, ascending: (1, 2) for [B, H, W, C].
    chunk_size: How many windows are evaluated together; None for all.

  Returns:
    Maps like x, constant along the other axes.

  Raises:
    ValueError: As for `saliency`, or if the window, its steps or the axes do
      not fit.

  >>> f = lambda w, x: x.sum((2, 3)) @ w
  >>> x = jnp.ones((1, 4, 1, 1))
  >>> w = jnp.array([[1.0], [2.0], [3.0], [4.0]])
  >>> occlusion(f, w, x, 0, window=(2, 1))[0, :, 0, 0].tolist()
  [3.0, 3.0, 7.0, 7.0]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  axes = arguments.axes(axes, x)
  window = _per_axis("window", window, axes)
  strides = window if strides is None else _per_axis("strides", strides, axes)
  for axis, size, stride in zip(axes, window, strides, strict=True):
    if not 1 <= size <= x.shape[axis]:
      raise ValueError(
        f"the window must be 1 to {x.shape[axis]} long along axis {axis} of x"
        f" {list(x.shape)}, got {size}."
      )
    if not 1 <= stride <= size:
      raise ValueError(
        f"the stride along axis {axis} must be 1 to {size}, the size of the"
        f" window, so that every pixel is covered; got {stride}."
      )
  baseline = repeated.read_baseline(x, baseline)
  return _occlusion(
    f, params, x, target, baseline, window, strides, axes, chunk_size
  )


def feature_ablation(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  groups: Any,
  number: int | None = None,
  baseline: Any = None,
  chunk_size: int | None = None,
) -> Array:
  """Returns by how much the logit falls when a group of features is absent.

  Args:
    f: `(params, x) -> logits [B, A]`, hashable, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    groups: Integers from 0, of the shape of an example or of the rank of x;
      axes may have length 1. Features of one number are absent together.
    number: How many groups there are; needed where `groups` is traced.
    baseline: As for `occlusion`.
    chunk_size: How many groups are evaluated together; None for all.

  Returns:
    Maps like x, constant in each group.

  Raises:
    ValueError: As for `saliency`, or if the groups do not fit.

  >>> f = lambda w, x: x @ w
  >>> w = jnp.array([[1.0], [2.0], [3.0]])
  >>> x = jnp.ones((1, 3))
  >>> feature_ablation(f, w, x, 0, groups=np.array([0, 1, 0])).tolist()
  [[4.0, 2.0, 4.0]]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  groups, number = read_groups("groups", x, groups, number)
  baseline = repeated.read_baseline(x, baseline)
  return _ablation(f, params, x, target, groups, baseline, number, chunk_size)


def rise(
  key: Array,
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  masks: int = 4000,
  cells: int = 7,
  probability: float = 0.5,
  baseline: Any = None,
  axes: Sequence[int] = (1, 2),
  chunk_size: int | None = 100,
) -> Array:
  """Returns the mean logit of randomly masked copies in which a pixel shows.

  A mask is a coarse grid of zeros and ones, enlarged smoothly and cropped at a
  random offset. Petsiuk et al. 2018, arXiv:1806.07421; the sum is divided by
  how often the pixel showed, as in xplique, not by its expectation. The paper
  averages probabilities: give an `f` that ends in a softmax for that.

  Args:
    key: A random key.
    f: `(params, x) -> logits [B, A]`, hashable, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    masks: The number of masks of each example.
    cells: Cells of the grid along each axis.
    probability: That a cell shows.
    baseline: As for `occlusion`.
    axes: The spatial axes of x, ascending: (1, 2) for [B, H, W, C].
    chunk_size: How many masks are evaluated together; None for all.

  Returns:
    Maps like x, constant along the other axes.

  Raises:
    ValueError: As for `saliency`, or if an option is out of range.

  >>> f = lambda w, x: x[:, 3:4, 3, 0]
  >>> x = jnp.ones((1, 8, 8, 1))
  >>> maps = rise(jax.random.key(0), f, 0.0, x, 0, masks=50, cells=4)
  >>> divmod(int(maps.argmax()), 8)
  (3, 3)
  """
  f, params, x, target = repeated.read(f, params, x, target)
  axes = arguments.axes(axes, x)
  cells = arguments.whole("cells", cells)
  if not 0 < probability <= 1:
    raise ValueError(f"probability must be in (0, 1], got {probability}.")
  baseline = repeated.read_baseline(x, baseline)
  options = (masks, cells, float(probability), axes, chunk_size)
  return _rise(key, f, params, x, target, baseline, *options)


def grid(
  shape: Sequence[int], cells: int = 7, *, axes: Sequence[int] = (1, 2)
) -> np.ndarray:
  """Returns groups that cut examples into a regular grid of rectangles.

  Args:
    shape: The shape of x, [B, ...].
    cells: Rectangles along each axis; their sizes differ by at most 1.
    axes: The spatial axes of x.

  Returns:
    Integers of the rank of x, of length 1 along all axes but the spatial ones.

  Raises:
    ValueError: If an axis has fewer pixels than cells, or there is no such
      axis.

  >>> grid((1, 2, 4, 3), 2)[0, :, :, 0].tolist()
  [[0, 0, 1, 1], [2, 2, 3, 3]]
  """
  groups = np.zeros((1,) * len(shape), np.int32)
  cells = arguments.whole("cells", cells)
  for axis in axes:
    if not 0 < axis < len(shape) or cells > shape[axis]:
      raise ValueError(
        f"a grid of {cells} cells along axis {axis} does not fit the shape"
        f" {list(shape)}."
      )
    index = np.arange(shape[axis], dtype=np.int32) * cells // shape[axis]
    spread = [1] * len(shape)
    spread[axis] = shape[axis]
    groups = groups * cells + index.reshape(spread)
  return groups


def read_groups(
  name: str, x: Array, groups: Any, number: int | None
) -> tuple[Array, int]:
  """Checks an array of group numbers.

  Args:
    name: What to call it in an error.
    x: [B, ...].
    groups: Integers of the shape of an example or of the rank of x.
    number: How many groups there are, or None to take it from the values.

  Returns:
    The groups [B, ...] int32, and their number.

  Raises:
    ValueError: If the type or shape does not fit, or a value is out of range.
  """
  traced = isinstance(groups, jax.core.Tracer)
  array = groups if traced else np.asarray(groups)
  full = repeated.of_rank(array, x)
  if full is None or not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(
      f"{name} must be integers of a shape that fits x {list(x.shape)}, got"
      f" {array.dtype}{list(array.shape)}."
    )
  if number is not None:
    number = arguments.whole("number", number)
  if traced and number is None:
    raise ValueError(
      f"{name} is traced, so its largest value is not known: give number=."
    )
  if not traced and array.size:
    low, high = int(array.min()), int(array.max())
    number = high + 1 if number is None else number
    if low < 0 or high >= number:
      raise ValueError(
        f"{name} runs from {low} to {high}, but number={number} allows 0 to"
        f" {number - 1}."
      )
  full = jnp.asarray(full).astype(jnp.int32)
  return jnp.broadcast_to(full, x.shape), number or 1


def of_groups(values: Array, groups: Array) -> Array:
  """Gives every feature the value of its group.

  Args:
    values: [B, G].
    groups: [B, ...] integers below G.

  Returns:
    [B, ...].
  """
  flat = groups.reshape(groups.shape[0], math.prod(groups.shape[1:]))
  return jnp.take_along_axis(values, flat, axis=1).reshape(groups.shape)


def _per_axis(name: str, value: Any, axes: tuple) -> tuple[int, ...]:
  values = tuple(value) if np.ndim(value) else (value,) * len(axes)
  if len(values) != len(axes):
    raise ValueError(
      f"{name} must be one number or {len(axes)} for the axes {axes}, got"
      f" {values}."
    )
  return tuple(arguments.whole(name, number) for number in values)


def _along(row: Array, axis: int, ndim: int) -> Array:
  return row.reshape([-1 if a == axis else 1 for a in range(ndim)])


def _logits(f, params, x, target):
  return repeated.widen(repeated.target_logits(f, params, x, target))


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))
def _occlusion(
  f, params, x, target, baseline, window, strides, axes, chunk_size
):
  covers = []
  for axis, size, stride in zip(axes, window, strides, strict=True):
    length = x.shape[axis]
    starts = stride * np.arange(-(-(length - size) // stride) + 1)[:, None]
    pixels = np.arange(length)[None, :]
    covers.append((starts <= pixels) & (pixels < starts + size))
  counts = tuple(cover.shape[0] for cover in covers)

  def covered(i):
    index = jnp.unravel_index(i, counts)
    rows = [
      _along(jnp.asarray(cover)[k], axis, x.ndim)
      for cover, k, axis in zip(covers, index, axes, strict=True)
    ]
    hidden = functools.reduce(jnp.logical_and, rows)
    return _logits(f, params, jnp.where(hidden, baseline, x), target)

  after = repeated.each(covered, math.prod(counts), chunk_size)
  falls = _logits(f, params, x, target)[None] - after
  falls = falls.reshape(*counts, x.shape[0])
  # The first axis becomes the last, so that the axes come round in order.
  for cover in covers:
    weights = jnp.asarray(cover / cover.sum(0), falls.dtype)
    falls = jnp.tensordot(falls, weights, (0, 0), precision="highest")
  kept = (0, *axes)
  shape = [x.shape[a] if a in kept else 1 for a in range(x.ndim)]
  return jnp.broadcast_to(falls.reshape(shape), x.shape).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(0, 6, 7))
def _ablation(f, params, x, target, groups, baseline, number, chunk_size):
  def ablated(g):
    absent = jnp.where(groups == g, baseline, x)
    return _logits(f, params, absent, target)

  after = repeated.each(ablated, number, chunk_size)
  falls = _logits(f, params, x, target)[:, None] - after.T
  return of_groups(falls, groups).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(1, 6, 7, 8, 9, 10))
def _rise(
  key,
  f,
  params,
  x,
  target,
  baseline,
  masks,
  cells,
  probability,
  axes,
  chunk_size,
):
  sizes = tuple(x.shape[a] for a in axes)
  enlarged = tuple(int(size * (1 + 1 / cells)) for size in sizes)
  shape = [x.shape[a] if a in (0, *axes) else 1 for a in range(x.ndim)]
  dtype = repeated.wide(x.dtype)

  rooms = np.array([e - s + 1 for e, s in zip(enlarged, sizes, strict=True)])
  grid_shape = (cells,) * len(axes)

  def draw(k):
    # One call: each call of a generator takes long to compile.
    points = jax.random.uniform(k, (cells ** len(axes) + len(axes),), dtype)
    shown = points[: -len(axes)].reshape(grid_shape) < probability
    offset = jnp.floor(points[-len(axes) :] * rooms.astype(dtype))
    smooth = jax.image.resize(shown.astype(dtype), enlarged, "bilinear")
    return jax.lax.dynamic_slice(smooth, offset.astype(jnp.int32), sizes)

  def term(i):
    mask = jax.vmap(draw)(repeated.keys(key, i, x.shape[0])).reshape(shape)
    hidden = repeated.widen(baseline)
    seen = hidden + mask * (repeated.widen(x) - hidden)
    logits = _logits(f, params, seen.astype(x.dtype), target)
    return mask * _along(logits, 0, x.ndim), mask

  total, shown = repeated.add(term, masks, chunk_size)
  maps = total / (shown + _UNSEEN)
  return jnp.broadcast_to(maps, x.shape).astype(x.dtype)
