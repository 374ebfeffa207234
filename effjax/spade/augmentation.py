"""Random copies of one image: crops, mirror images, other colours.

The transformations of SPADE (arXiv 2310.04519), by which one example becomes a
batch that says what its layers react to.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from effjax import arguments
from effjax.models import products

_TRIES = 10  # boxes drawn until one fits


def augment(
  key: jax.Array,
  image: jax.Array,
  *,
  size: tuple[int, int] | None = None,
  area: tuple[float, float] = (0.2, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
  flip: float = 0.5,
  brightness: float = 0.5,
  hue: float = 0.3,
  limits: tuple[float, float] = (0.0, 1.0),
) -> jax.Array:
  """Make a random copy of an image.

  A box of random area and aspect ratio is cut out and resized, perhaps
  mirrored; brightness and hue change in random order. Resizing averages over
  the pixels that fall together and reads a little across the border of the box.

  Args:
    key: A random key.
    image: [H, W, C], before any normalisation; hue is changed if C is 3.
    size: Rows and columns of the copy; by default those of the image.
    area: Least and largest share of the image that the box covers.
    aspect: Least and largest width over height of the box, drawn evenly by
      their logarithms.
    flip: Chance of a mirror image.
    brightness: The pixels are multiplied by 1 - brightness to 1 + brightness.
    hue: The hue is turned by -hue to hue of a full turn, at most 0.5.
    limits: Least and largest value of a pixel; brighter ones are cut off.

  Returns:
    The copy [*size, C] of the type of the image.

  Raises:
    ValueError: If the image is not [H, W, C] floating or a number is out of
      range.

  >>> augment(jax.random.key(0), jnp.ones((8, 8, 3)), size=(4, 4)).shape
  (4, 4, 3)
  """
  image = jnp.asarray(image)
  if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
    raise ValueError(
      "augment needs one floating image [H, W, C], got"
      f" {image.dtype} {image.shape}; map it over several by jax.vmap, one key"
      " each"
    )
  _check(area, aspect, flip, brightness, hue, limits)
  wanted = image.shape[:2] if size is None else size
  if not _is_pair(wanted):
    raise ValueError(f"size must be (rows, columns), got {size!r}")
  rows, columns = (arguments.whole("size", number) for number in wanted)
  at_box, at_flip, at_order, at_brightness, at_hue = jax.random.split(key, 5)
  box = crop_box(at_box, image.shape[0], image.shape[1], area, aspect)
  wide = image.astype(products.wide(image.dtype))
  copy = crop_and_resize(wide, box, (rows, columns))
  mirrored = jax.random.bernoulli(at_flip, flip)
  copy = jnp.where(mirrored, copy[:, ::-1], copy)
  low, high = limits
  factor = jax.random.uniform(
    at_brightness, (), copy.dtype, 1.0 - brightness, 1.0 + brightness
  )
  brighter = lambda x: jnp.clip(x * factor, low, high)
  if image.shape[2] != 3 or not hue:
    return brighter(copy).astype(image.dtype)
  turn = jax.random.uniform(at_hue, (), copy.dtype, -hue, hue)
  turned = lambda x: (
    low + (high - low) * turn_hue((x - low) / (high - low), turn)
  )
  copy = lax.cond(
    jax.random.bernoulli(at_order),
    lambda x: turned(brighter(x)),
    lambda x: brighter(turned(x)),
    jnp.clip(copy, low, high),
  )
  return copy.astype(image.dtype)


def crop_box(
  key: jax.Array,
  rows: int,
  columns: int,
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> jax.Array:
  """Draw a box inside an image.

  The first of ten draws that fits is taken; if none does, the largest central
  box within the limits of the aspect ratio.

  Args:
    key: A random key.
    rows: H.
    columns: W.
    area: Least and largest share of the image.
    aspect: Least and largest width over height.

  Returns:
    Top, left, height and width, whole numbers in float32 [4].

  >>> crop_box(jax.random.key(0), 8, 8, (1.0, 1.0), (1.0, 1.0)).tolist()
  [0.0, 0.0, 8.0, 8.0]
  """
  at_area, at_ratio, at_place = jax.random.split(key, 3)
  share = jax.random.uniform(at_area, (_TRIES,), minval=area[0], maxval=area[1])
  ratio = jnp.exp(
    jax.random.uniform(
      at_ratio,
      (_TRIES,),
      minval=math.log(aspect[0]),
      maxval=math.log(aspect[1]),
    )
  )
  pixels = share * (rows * columns)
  widths = jnp.round(jnp.sqrt(pixels * ratio))
  heights = jnp.round(jnp.sqrt(pixels / ratio))
  fits = (widths > 0) & (widths <= columns) & (heights > 0) & (heights <= rows)
  first = jnp.argmax(fits)
  known = min(max(columns / rows, aspect[0]), aspect[1])
  if columns / rows > known:
    central = rows, round(rows * known)
  else:
    central = round(columns / known), columns
  height = jnp.where(fits[first], heights[first], float(central[0]))
  width = jnp.where(fits[first], widths[first], float(central[1]))
  room = jnp.stack([rows - height, columns - width])
  place = jnp.floor(jax.random.uniform(at_place, (2,)) * (room + 1.0))
  # The largest float below 1 times a large number may round up to it.
  place = jnp.minimum(place, room)
  place = jnp.where(fits[first], place, jnp.floor(room / 2))
  return jnp.concatenate([place, jnp.stack([height, width])])


def crop_and_resize(
  image: jax.Array, box: jax.Array, size: tuple[int, int]
) -> jax.Array:
  """Cut a box out of an image and resize it.

  Args:
    image: [H, W, C].
    box: Top, left, height and width [4], in pixels.
    size: Rows and columns of the result.

  Returns:
    The box, interpolated linearly and averaged where it shrinks [*size, C].

  >>> image = jnp.arange(4.0).reshape(2, 2, 1)
  >>> box = jnp.array([0.0, 1.0, 2.0, 1.0])
  >>> crop_and_resize(image, box, (2, 1))[..., 0].tolist()
  [[1.0], [3.0]]
  """
  scale = jnp.asarray(size, box.dtype) / box[2:]
  return jax.image.scale_and_translate(
    image,
    (*size, image.shape[2]),
    (0, 1),
    scale.astype(image.dtype),
    (-box[:2] * scale).astype(image.dtype),
    method="linear",
    antialias=True,
  )


def turn_hue(image: jax.Array, turn: jax.Array | float) -> jax.Array:
  """Turn the hue of all pixels; lightness and saturation of HSV stay.

  Args:
    image: Red, green and blue from 0 to 1, [..., 3].
    turn: By how much of a full turn.

  Returns:
    The image [..., 3].

  >>> turn_hue(jnp.array([1.0, 0.0, 0.0]), 1 / 3).round(3).tolist()
  [0.0, 1.0, 0.0]
  """
  value = jnp.max(image, axis=-1)
  spread = value - jnp.min(image, axis=-1)
  red, green, blue = (image[..., i] for i in range(3))
  divisor = jnp.where(spread > 0, spread, 1.0)
  sixth = jnp.where(
    value == red,
    (green - blue) / divisor,
    jnp.where(
      value == green,
      2.0 + (blue - red) / divisor,
      4.0 + (red - green) / divisor,
    ),
  )
  sixth = sixth + 6.0 * turn

  def channel(place: float) -> jax.Array:
    # How far it lies below the value, by its distance on the circle.
    offset = (sixth + place) % 6.0
    below = jnp.clip(jnp.minimum(offset, 4.0 - offset), 0.0, 1.0)
    return value - spread * below

  return jnp.stack([channel(place) for place in (5.0, 3.0, 1.0)], axis=-1)


def _is_pair(value: Any) -> bool:
  return isinstance(value, list | tuple) and len(value) == 2


def _check(area, aspect, flip, brightness, hue, limits) -> None:
  for name, pair, most in (("area", area, 1.0), ("aspect", aspect, math.inf)):
    if not _is_pair(pair) or not 0.0 < pair[0] <= pair[1] <= most:
      raise ValueError(
        f"{name} must be two positive numbers in order"
        f"{' up to 1' if most == 1.0 else ''}, got {pair!r}"
      )
  for name, value, most in (
    ("flip", flip, 1.0),
    ("brightness", brightness, 1.0),
    ("hue", hue, 0.5),
  ):
    if not 0.0 <= value <= most:
      raise ValueError(f"{name} must be from 0 to {most}, got {value!r}")
  if not _is_pair(limits) or not limits[0] < limits[1]:
    raise ValueError(f"limits must be two numbers in order, got {limits!r}")
