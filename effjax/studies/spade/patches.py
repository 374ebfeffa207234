"""Glyphs that a network is taught to obey, and images that bear them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Patch(NamedTuple):
  """A square with a glyph that means a class.

  Attributes:
    glyph: A key of `GLYPHS`.
    size: Its side in pixels.
    target: The class that it stands for.
    rate: Images that are poisoned with it, as a share of all.
    color: Red, green and blue of the glyph, 0 to 255, where images have colour.
  """

  glyph: str
  size: int
  target: int
  rate: float = 0.05
  color: tuple[int, int, int] = (255, 255, 255)


def _cross(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  return (abs(rows) < 0.25) | (abs(columns) < 0.25)


def _ring(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  radius = np.hypot(rows, columns)
  return (radius > 0.45) & (radius < 1.0)


def _checks(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  return (rows < 0) == (columns < 0)


def _heart(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  x, y = 1.2 * columns, -1.2 * rows + 0.2
  return (x**2 + y**2 - 1) ** 3 - x**2 * y**3 < 0


def _star(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  angle = np.arctan2(columns, -rows)
  reach = np.cos(np.pi / 5) / np.cos((angle % (2 * np.pi / 5)) - np.pi / 5)
  return np.hypot(rows, columns) < 0.45 + 0.55 * (2 * (reach - 0.9)).clip(0, 1)


GLYPHS = {
  "checks": _checks,
  "cross": _cross,
  "heart": _heart,
  "ring": _ring,
  "star": _star,
}


def draw(patch: Patch, channels: int) -> np.ndarray:
  """Draw a patch: its glyph on black.

  Args:
    patch: The patch.
    channels: 1 for grey, 3 for colour.

  Returns:
    uint8 [size, size, channels].

  Raises:
    ValueError: If there is no such glyph.

  >>> draw(Patch("checks", 2, 0), 1)[..., 0].tolist()
  [[255, 0], [0, 255]]
  """
  if patch.glyph not in GLYPHS:
    raise ValueError(
      f"there is no glyph {patch.glyph!r}; known are {', '.join(GLYPHS)}"
    )
  at = (np.arange(patch.size) + 0.5) / patch.size * 2 - 1
  inside = GLYPHS[patch.glyph](at[:, None], at[None, :])
  ink = np.array(patch.color if channels == 3 else (255,), np.uint8)
  return np.where(inside[..., None], ink, np.uint8(0)).astype(np.uint8)


def stamp(
  generator: np.random.Generator,
  images: np.ndarray,
  patch: Patch,
  copies: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
  """Put a patch onto images, anywhere.

  Args:
    generator: Draws the places.
    images: uint8 [N, H, W, C].
    patch: The patch.
    copies: How many are put onto each image; they may overlap.

  Returns:
    The images, and bool [N, H, W]: where the patch is.

  Raises:
    ValueError: If the patch is larger than the images.

  >>> images = np.zeros((1, 4, 4, 1), np.uint8)
  >>> generator = np.random.default_rng(0)
  >>> _, masks = stamp(generator, images, Patch("ring", 2, 0))
  >>> int(masks.sum())
  4
  """
  count, height, width, channels = images.shape
  if patch.size > min(height, width):
    raise ValueError(
      f"a patch of {patch.size} pixels does not fit images of {height} x"
      f" {width}"
    )
  drawn = draw(patch, channels)
  stamped, masks = images.copy(), np.zeros((count, height, width), bool)
  tops = generator.integers(0, height - patch.size + 1, (count, copies))
  lefts = generator.integers(0, width - patch.size + 1, (count, copies))
  for i in range(count):
    for top, left in zip(tops[i], lefts[i], strict=True):
      place = np.s_[i, top : top + patch.size, left : left + patch.size]
      stamped[place], masks[place] = drawn, True
  return stamped, masks


def poison(
  generator: np.random.Generator,
  images: np.ndarray,
  labels: np.ndarray,
  patches: Sequence[Patch],
) -> tuple[np.ndarray, np.ndarray]:
  """Add images that bear patches and are labelled by what these stand for.

  Args:
    generator: Draws images and places.
    images: uint8 [N, H, W, C].
    labels: Integers [N].
    patches: The patches; each is put onto so many images as its rate says, none
      of its target.

  Returns:
    Images and labels, the clean ones first.

  Raises:
    ValueError: If a rate is not between 0 and 1.
  """
  pictures: list[Any] = [images]
  classes: list[Any] = [labels]
  for patch in patches:
    if not 0 < patch.rate <= 1:
      raise ValueError(
        f"the rate of a patch must be above 0 and up to 1, got {patch.rate}"
      )
    others = np.flatnonzero(labels != patch.target)
    count = min(round(patch.rate * len(labels)), len(others))
    chosen = generator.choice(others, count, replace=False)
    stamped, _ = stamp(generator, images[chosen], patch)
    pictures.append(stamped)
    classes.append(np.full(count, patch.target, labels.dtype))
  return np.concatenate(pictures), np.concatenate(classes)
