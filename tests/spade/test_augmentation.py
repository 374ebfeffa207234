"""Random copies: colours against the standard library, boxes by their laws."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import spade
from effjax.spade import augmentation

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 500)
crop = jax.jit(augmentation.crop_and_resize, static_argnums=2)


@pytest.mark.parametrize("turn", [-0.3, 0.0, 0.23, 0.5])
def test_hue_is_that_of_colorsys(turn):
  rng = np.random.default_rng(0)
  pixels = rng.random((40, 3)).astype(np.float32)
  pixels[:6] = [
    [0, 0, 0],
    [1, 1, 1],
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
    [1, 1, 0],
  ]
  expected = []
  for pixel in pixels.astype(float):
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
  turned = augmentation.turn_hue(jnp.asarray(pixels), turn)
  np.testing.assert_allclose(turned, expected, atol=2e-6)


def boxes(rows, columns, area=(0.2, 1.0), aspect=(3 / 4, 4 / 3)):
  draw = lambda key: augmentation.crop_box(key, rows, columns, area, aspect)
  return np.asarray(jax.jit(jax.vmap(draw))(KEYS))


def test_boxes_lie_inside_and_keep_the_limits():
  top, left, height, width = boxes(30, 40).T
  assert np.all(top >= 0)
  assert np.all(left >= 0)
  assert np.all(top + height <= 30)
  assert np.all(left + width <= 40)
  for side in (top, left, height, width):
    np.testing.assert_array_equal(side, np.round(side))
  share = height * width / 1200
  # Sides are rounded to whole pixels.
  assert share.min() > 0.18
  assert share.max() <= 1.0
  assert share.min() < 0.25
  assert share.max() > 0.9
  aspect = width / height
  assert aspect.min() > 0.69
  assert aspect.max() < 1.45
  # Both borders are reached, and no side is favoured.
  assert abs(np.mean(left / np.maximum(40 - width, 1)) - 0.5) < 0.08
  assert (left == 0).any()
  assert (left + width == 40).any()


def test_a_box_that_never_fits_is_central():
  top, left, height, width = boxes(4, 40, area=(1.0, 1.0)).T
  assert set(height) == {4.0}
  assert set(width) == {5.0}
  assert set(top) == {0.0}
  assert set(left) == {17.0}
  top, left, height, width = boxes(40, 4, area=(1.0, 1.0)).T
  assert set(height) == {5.0}
  assert set(width) == {4.0}
  assert set(top) == {17.0}


def test_crop_reads_the_box():
  image = jnp.arange(48.0).reshape(6, 8, 1)
  box = jnp.array([1.0, 2.0, 3.0, 4.0])
  same = crop(image, box, (3, 4))
  np.testing.assert_allclose(same, image[1:4, 2:6], rtol=1e-6)
  # Linear images stay linear, away from the border.
  larger = crop(image, box, (6, 8))[..., 0]
  np.testing.assert_allclose(np.diff(larger[2:4], axis=0), 4.0, rtol=1e-5)
  smaller = crop(jnp.ones((6, 8, 1)), jnp.array([0.0, 0.0, 6.0, 8.0]), (2, 2))
  np.testing.assert_allclose(smaller, 1.0, rtol=1e-6)


def test_parts_can_be_switched_off():
  image = jax.random.uniform(KEY, (6, 6, 3))
  copy = spade.augment(
    KEY,
    image,
    area=(1.0, 1.0),
    aspect=(1.0, 1.0),
    flip=0.0,
    brightness=0.0,
    hue=0.0,
  )
  np.testing.assert_allclose(copy, image, atol=1e-6)
  mirrored = spade.augment(
    KEY,
    image,
    area=(1.0, 1.0),
    aspect=(1.0, 1.0),
    flip=1.0,
    brightness=0.0,
    hue=0.0,
  )
  np.testing.assert_allclose(mirrored, image[:, ::-1], atol=1e-6)


def test_copies_vary_and_stay_inside_the_limits():
  image = jax.random.uniform(KEY, (8, 8, 3), minval=-1.0)
  make = lambda key: spade.augment(key, image, limits=(-1.0, 1.0))
  copies = np.asarray(jax.jit(jax.vmap(make))(KEYS[:50]))
  assert copies.min() >= -1.0
  assert copies.max() <= 1.0
  assert len({c.tobytes() for c in copies}) == 50
  grey = spade.augment(KEY, image[..., :1].astype(jnp.bfloat16), size=(4, 6))
  assert grey.shape == (4, 6, 1)
  assert grey.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  "options",
  [
    {"area": (0.0, 1.0)},
    {"aspect": (2.0, 1.0)},
    {"flip": 1.5},
    {"hue": 0.6},
    {"brightness": -0.1},
    {"limits": (1.0, 1.0)},
    {"area": 0.5},
    {"size": 3},
    {"size": (2.5, 3)},
    {"size": (0, 3)},
  ],
)
def test_bad_numbers_are_named(options):
  with pytest.raises(ValueError, match=next(iter(options))):
    spade.augment(KEY, jnp.ones((4, 4, 3)), **options)


def test_a_batch_is_refused():
  with pytest.raises(ValueError, match="one floating image"):
    spade.augment(KEY, jnp.ones((2, 4, 4, 3)))
