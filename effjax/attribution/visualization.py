"""Images that a model, or a part of it, responds to most.

An image is found by gradient ascent in coordinates in which natural images are
uncorrelated: its spectrum, divided by the frequency, and the principal axes of
colours. At every step the model sees it shifted, turned and scaled at random,
so that only what survives this is drawn.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates

Array = jax.Array
Objective = Callable[[Array], Array]

# Principal axes of the colours of ImageNet, times the square roots of their
# variances; rows are red, green and blue.
_COLOURS = np.array(
  [[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]]
)
_COLOURS = _COLOURS / np.linalg.norm(_COLOURS, axis=0).max()


class Transforms(NamedTuple):
  """What happens to the image before a model sees it, drawn at every step.

  Attributes:
    shift: The number of whole pixels, about 0, to shift by first.
    scales: Factors to scale by.
    angles: Degrees to turn by.
    jitter: As `shift`, after the others.
    fill: What is seen outside the image.
  """

  shift: int = 8
  scales: tuple[float, ...] = tuple(1 + (i - 5) / 50 for i in range(11))
  angles: tuple[float, ...] = (*range(-10, 11), 0, 0, 0, 0, 0)
  jitter: int = 4
  fill: float = 0.5


TRANSFORMS = Transforms()


def visualize(
  key: Array,
  objective: Objective,
  *,
  shape: Sequence[int] = (224, 224, 3),
  steps: int = 512,
  learning_rate: float = 0.05,
  scale: float = 0.01,
  transforms: Transforms | None = TRANSFORMS,
) -> Array:
  """Returns an image that makes an objective large.

  Olah et al. 2017, doi:10.23915/distill.00007, with the constants of lucid and
  its successors. There the image is padded by 12 pixels, shifted, scaled,
  turned and shifted again, one resampling after the other, and the model sees
  sizes that vary; here one bilinear sampling does all, in the size of the
  image, about its middle, and `transforms.fill` is seen outside.

  Args:
    key: A random key.
    objective: From an image [H, W, C] float32, with values in (0, 1), to a
      number, say a logit. If the model wants other values, the objective
      changes them. It must be hashable, and is compiled anew if it is made
      anew; it may hold traced parameters under an outer `jit` or `vmap`.
    shape: [H, W, C]. Three channels are red, green and blue; any other number
      is taken as it is, without colours.
    steps: Of Adam.
    learning_rate: Of Adam.
    scale: Standard deviation of the first spectrum.
    transforms: What to draw at each step; None for nothing.

  Returns:
    An image [H, W, C] float32 in (0, 1).

  Raises:
    ValueError: If the shape, an option or what the objective returns does not
      fit.

  >>> brightness = lambda image: jnp.mean(image)
  >>> image = visualize(
  ...   jax.random.key(0), brightness, shape=(4, 4, 1), transforms=None
  ... )
  >>> bool(jnp.mean(image) > 0.7)
  True
  """
  image, _ = ascend(
    key,
    objective,
    shape=shape,
    steps=steps,
    learning_rate=learning_rate,
    scale=scale,
    transforms=transforms,
  )
  return image


def ascend(
  key: Array,
  objective: Objective,
  *,
  shape: Sequence[int],
  steps: int,
  learning_rate: float,
  scale: float,
  transforms: Transforms | None,
) -> tuple[Array, Array]:
  """Returns the image of `visualize` and what the objective was on the way.

  Args:
    key: As for `visualize`, like all others.
    objective: What to make large.
    shape: [H, W, C].
    steps: Of Adam.
    learning_rate: Of Adam.
    scale: Standard deviation of the first spectrum.
    transforms: What to draw at each step.

  Returns:
    The image [H, W, C], and the objective before each step, [steps].

  Raises:
    ValueError: As for `visualize`.
  """
  shape = tuple(shape)
  if len(shape) != 3 or min(shape) < 1:
    raise ValueError(f"shape must be [H, W, C], got {list(shape)}.")
  if steps < 0:
    raise ValueError(f"steps must be at least 0, got {steps}.")
  if transforms is not None:
    transforms = _read(transforms)
  value = jax.eval_shape(objective, jax.ShapeDtypeStruct(shape, jnp.float32))
  if getattr(value, "shape", None) != () or not jnp.issubdtype(
    value.dtype, jnp.floating
  ):
    raise ValueError(
      "objective must return one floating point number for an image"
      f" {list(shape)}, got {value}."
    )
  numbers = jnp.float32(learning_rate), jnp.float32(scale)
  return _ascend(key, objective, shape, steps, transforms, *numbers)


def image_of(spectrum: Array, shape: Sequence[int]) -> Array:
  """Returns the image of a spectrum in decorrelated coordinates.

  Args:
    spectrum: [2, H, W // 2 + 1, C], the real and the imaginary part.
    shape: [H, W, C].

  Returns:
    [H, W, C] in (0, 1).

  >>> image_of(jnp.zeros((2, 4, 3, 3)), (4, 4, 3))[0, 0].tolist()
  [0.5, 0.5, 0.5]
  """
  height, width, channels = shape
  rows, columns = np.fft.fftfreq(height), np.fft.rfftfreq(width)
  frequency = np.hypot(rows[:, None], columns[None])
  weights = 1 / np.maximum(frequency, 1 / max(height, width)) / 4
  scaled = spectrum * jnp.asarray(weights, spectrum.dtype)[None, :, :, None]
  image = jnp.fft.irfft2(
    jax.lax.complex(scaled[0], scaled[1]),
    s=(height, width),
    axes=(0, 1),
    norm="ortho",
  )
  if channels == 3:
    colours = jnp.asarray(_COLOURS.T, image.dtype)
    image = jnp.matmul(image, colours, precision="highest")
  return jax.nn.sigmoid(image)


def placements(uniforms: Array, transforms: Transforms) -> Array:
  """Returns affine maps from what is seen to the image.

  The image is shifted, scaled, turned and shifted again about its middle; a map
  takes a pixel (row, column) that is seen to the place in the image.

  Args:
    uniforms: [..., 6] in [0, 1): for rows and columns of the first shift, the
      factor, the angle, rows and columns of the second shift.
    transforms: What to choose from.

  Returns:
    [..., 2, 3]; coordinates are relative to the middle, the last column is
    added.

  >>> twice = Transforms(shift=4, scales=(2.0,), angles=(0.0,), jitter=1)
  >>> jnp.abs(placements(jnp.zeros(6), twice)).tolist()
  [[0.5, 0.0, 2.0], [0.0, 0.5, 2.0]]
  """
  choose = lambda u, table: jnp.asarray(table, u.dtype)[
    jnp.minimum((u * len(table)).astype(jnp.int32), len(table) - 1)
  ]
  about = lambda number: tuple(k - number // 2 for k in range(number))
  first = choose(uniforms[..., :2], about(transforms.shift))
  last = choose(uniforms[..., 4:], about(transforms.jitter))
  factor = choose(uniforms[..., 2], transforms.scales)
  angle = choose(uniforms[..., 3], np.deg2rad(transforms.angles))
  cos, sin = jnp.cos(angle) / factor, jnp.sin(angle) / factor
  back = jnp.stack(
    [jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], axis=-2
  )
  moved = jnp.sum(back * last[..., None, :], axis=-1)
  return jnp.concatenate([back, -(moved + first)[..., None]], axis=-1)


def resample(image: Array, placement: Array, fill: float) -> Array:
  """Samples an image bilinearly at the places of an affine map.

  Args:
    image: [H, W, C].
    placement: [2, 3] of `placements`.
    fill: The value of pixels outside.

  Returns:
    [H, W, C].

  >>> image = jnp.array([[[1.0], [2.0], [3.0]]])
  >>> shift = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
  >>> resample(image, shift, 0.0)[0, :, 0].tolist()
  [1.5, 2.5, 1.5]
  """
  sides = image.shape[:2]
  middle = jnp.asarray([(n - 1) / 2 for n in sides], image.dtype)
  rows, columns = (jnp.arange(n, dtype=image.dtype) for n in sides)
  rows, columns = rows[:, None] - middle[0], columns[None] - middle[1]
  places = [
    line[0] * rows + line[1] * columns + (line[2] + m)
    for line, m in zip(placement, middle, strict=True)
  ]
  sample = lambda channel: map_coordinates(
    channel, places, order=1, mode="constant", cval=fill
  )
  return jax.vmap(sample, in_axes=2, out_axes=2)(image)


def _read(transforms: Transforms) -> Transforms:
  """Checks transforms and makes them hashable."""
  transforms = transforms._replace(
    scales=tuple(transforms.scales), angles=tuple(transforms.angles)
  )
  if not transforms.scales or min(transforms.scales) <= 0:
    raise ValueError(
      f"scales must be one or more positive factors, got {transforms.scales}."
    )
  if not transforms.angles:
    raise ValueError("angles must be one or more; (0,) turns nothing.")
  if min(transforms.shift, transforms.jitter) < 1:
    raise ValueError(
      "shift and jitter must be at least 1, which shifts nothing; got"
      f" {transforms.shift} and {transforms.jitter}."
    )
  return transforms


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _ascend(key, objective, shape, steps, transforms, learning_rate, scale):
  start_key, place_key = jax.random.split(key)
  height, width, channels = shape
  size = (2, height, width // 2 + 1, channels)
  spectrum = scale * jax.random.normal(start_key, size)
  optimizer = optax.adam(learning_rate)
  places = None
  if transforms is not None:
    uniforms = jax.random.uniform(place_key, (steps, 6))
    places = placements(uniforms, transforms)

  def loss(spectrum, place):
    image = image_of(spectrum, shape)
    if transforms is not None:
      image = resample(image, place, transforms.fill)
    return -objective(image).astype(jnp.float32)

  def step(state, place):
    spectrum, moments = state
    value, slope = jax.value_and_grad(loss)(spectrum, place)
    # Adam counts steps in integers.
    with jax.numpy_dtype_promotion("standard"):
      change, moments = optimizer.update(slope, moments)
    return (optax.apply_updates(spectrum, change), moments), -value

  start = spectrum, optimizer.init(spectrum)
  (spectrum, _), values = jax.lax.scan(step, start, places, length=steps)
  return image_of(spectrum, shape), values
