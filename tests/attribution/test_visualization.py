"""Feature visualisation: its coordinates, its transforms, what it finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from effjax import attribution
from effjax.attribution import visualization

KEY = jax.random.key(0)
STILL = attribution.Transforms(1, (1.0,), (0.0,), 1)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(6, 8, 3), (5, 7, 3), (4, 4, 1), (3, 5, 2)])
def test_image_of_a_spectrum_by_numpy(shape):
  height, width, channels = shape
  parts = RNG.normal(size=(2, height, width // 2 + 1, channels))
  rows = np.fft.fftfreq(height)
  columns = np.arange(width // 2 + 1) / width
  frequency = np.sqrt(rows[:, None] ** 2 + columns[None] ** 2)
  divisor = np.maximum(frequency, 1 / max(shape[:2]))[:, :, None]
  pixels = np.fft.irfft2(
    (parts[0] + 1j * parts[1]) / divisor,
    s=(height, width),
    axes=(0, 1),
    norm="ortho",
  )
  pixels = pixels / 4
  if channels == 3:
    axes = np.array([[0.26, 0.09, 0.02], [0.27, 0, -0.05], [0.27, -0.09, 0.03]])
    pixels = pixels @ (axes / np.sqrt((axes**2).sum(0)).max()).T
  expected = 1 / (1 + np.exp(-pixels))
  spectrum = parts.astype(np.float32)
  ours = jax.jit(visualization.image_of, static_argnums=1)(spectrum, shape)
  np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


placements = jax.jit(visualization.placements, static_argnums=1)
resample = jax.jit(visualization.resample, static_argnums=2)


def seen(image, factor, angle, first, last):
  """Returns what is seen after shift, scaling, turn and shift of pixels."""
  transforms = attribution.Transforms(17, (factor,), (angle,), 17)
  places = np.array([*first, -8, -8, *last], np.float32)
  return resample(image, placements((places + 8.5) / 17, transforms), 0.5)


def by_scipy(image, factor, angle, first, last):
  cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
  back = np.array([[cos, sin], [-sin, cos]]) / factor
  middle = (np.array(image.shape[:2]) - 1) / 2
  offset = middle - back @ (middle + last) - first
  sample = functools.partial(
    scipy.ndimage.affine_transform,
    matrix=back,
    offset=offset,
    order=1,
    mode="grid-constant",
    cval=0.5,
  )
  channels = [sample(image[:, :, c]) for c in range(image.shape[2])]
  return np.stack(channels, axis=2)


@pytest.mark.parametrize(
  "case",
  [
    (1.0, 0.0, (2, -3), (0, 0)),
    (1.1, 0.0, (0, 0), (0, 0)),
    (0.9, 10.0, (0, 0), (1, -2)),
    (1.04, -7.0, (-4, 3), (1, 1)),
    (1.0, 90.0, (0, 0), (0, 0)),
  ],
)
def test_transforms_agree_with_scipy(case):
  image = RNG.normal(size=(9, 9, 2)).astype(np.float32)
  ours = np.asarray(seen(image, *case))
  np.testing.assert_allclose(ours, by_scipy(image, *case), atol=2e-5)
  factor, angle = case[:2]
  if angle == 90:
    np.testing.assert_allclose(ours, np.rot90(image, 1), atol=1e-5)
  if factor == 1 and not angle:
    np.testing.assert_array_equal(ours[2:, :6], image[:-2, 3:])
    np.testing.assert_array_equal(ours[:2], 0.5)


def test_transforms_are_drawn_from_their_tables():
  transforms = attribution.Transforms()
  uniforms = jax.random.uniform(KEY, (2000, 6))
  places = np.asarray(placements(uniforms, transforms), float)
  factors = 1 / np.sqrt(np.linalg.det(places[:, :, :2]))
  assert len(np.unique(factors.round(3))) == 11
  assert np.abs(factors.mean() - 1) < 0.01
  angles = np.rad2deg(np.arctan2(places[:, 0, 1], places[:, 0, 0])).round()
  values, counts = np.unique(angles, return_counts=True)
  np.testing.assert_array_equal(values, np.arange(-10, 11))
  # Six of the 26 entries turn nothing.
  np.testing.assert_allclose(counts[10] / 2000, 6 / 26, atol=0.03)
  # The shifts: whole pixels, -4 to 3 and then -2 to 1.
  offsets = np.einsum(
    "nij,nj->ni", np.linalg.inv(places[:, :, :2]), places[:, :, 2]
  )
  assert np.abs(offsets).max() < (4 + 4) * 1.5


SLOPES = RNG.normal(size=(8, 8, 3)).astype(np.float32)


def total(image):
  return jnp.sum(image * SLOPES)


ascend = functools.partial(
  visualization.ascend,
  objective=total,
  shape=(8, 8, 3),
  steps=40,
  learning_rate=0.02,
  scale=0.01,
)


def test_objective_rises_step_by_step():
  image, values = map(np.asarray, ascend(KEY, transforms=STILL))
  assert (np.diff(values) > 0).all()
  assert np.sum(image * SLOPES) > values[-1]
  assert image.min() > 0
  assert image.max() < 1


def test_of_linear_models_under_vmap_over_their_parameters():
  """A model of its own for each key, closed over; grey images."""
  smooth = scipy.ndimage.gaussian_filter(
    RNG.normal(size=(2, 16, 16)), (0, 2, 2)
  )
  weights = (smooth / smooth.std())[..., None].astype(np.float32)
  transforms = attribution.Transforms(2, (0.98, 1.0), (-2.0, 2.0), 1)

  def draw(key, w):
    f = lambda w, x: jnp.sum(x * w[None], axis=(1, 2))
    objective = lambda image: f(w, image[None])[0, 0]
    return attribution.visualize(
      key, objective, shape=(16, 16, 1), steps=30, transforms=transforms
    )

  keys = jnp.stack([KEY, KEY])
  images = np.asarray(jax.vmap(draw)(keys, weights))
  assert images.shape == weights.shape
  found = np.corrcoef(images.reshape(2, -1), weights.reshape(2, -1))[:2, 2:]
  assert found.diagonal().min() > 0.6
  assert np.abs(found[[0, 1], [1, 0]]).max() < 0.4


def test_keys_and_no_transforms():
  draw = lambda seed, transforms: np.asarray(
    ascend(jax.random.key(seed), transforms=transforms)[0]
  )
  one, same, other = (draw(seed, STILL) for seed in (0, 0, 1))
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 1e-4
  np.testing.assert_allclose(draw(0, None), one, atol=1e-4)


def test_errors():
  mean = jnp.mean
  draw = functools.partial(attribution.visualize, KEY)
  for message, objective, options in [
    (r"\[H, W, C\]", mean, {"shape": (4, 4)}),
    ("steps", mean, {"steps": -1}),
    ("one floating point number", lambda image: image[0, 0], {}),
    ("one floating point number", lambda image: 1, {}),
    ("positive factors", mean, {"transforms": STILL._replace(scales=(0.0,))}),
    ("angles", mean, {"transforms": STILL._replace(angles=())}),
    ("at least 1", mean, {"transforms": STILL._replace(jitter=0)}),
  ]:
    with pytest.raises(ValueError, match=message):
      draw(objective, **{"shape": (4, 4, 3), **options})
