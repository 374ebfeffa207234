"""Localisation and faithfulness of maps: published values and edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from effjax import attribution, metrics
from tests.attribution import golden

GOLDEN = golden.load("metrics")
MAPS, MASKS = GOLDEN["saliency"], GOLDEN["mask"]
KEY = jax.random.key(0)


def measure(maps, masks):
  return {
    "auc": metrics.pixel_auc(maps, masks),
    "auc_abs": metrics.pixel_auc(maps, masks, abs=True),
    "pointing_game": metrics.pointing_game(maps, masks),
    "rank_accuracy": metrics.rank_accuracy(maps, masks),
    "mass_accuracy_abs": metrics.mass_accuracy(maps, masks),
  }


def test_golden_in_float64():
  with jax.enable_x64(True):
    found = measure(MAPS, MASKS)
  for name, ours in found.items():
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, GOLDEN[name], rtol=0, atol=1e-12)


def test_golden_in_float32_and_vmap():
  maps = MAPS.astype(np.float32)
  mapped = jax.jit(jax.vmap(measure))(maps[None], MASKS[None])
  for name, ours in measure(maps, MASKS).items():
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, GOLDEN[name], rtol=0, atol=5e-7)
    np.testing.assert_allclose(mapped[name][0], ours, rtol=1e-6)


def test_peers_where_definitions_agree():
  """Ties, the constant map and signed mass are where quantus differs."""
  found = measure(MAPS.astype(np.float32), MASKS)
  for name, peer, rows in [
    ("auc", "AUC", range(6)),
    ("pointing_game", "PointingGame", range(4)),
    ("rank_accuracy", "RelevanceRankAccuracy", range(4)),
  ]:
    expected = GOLDEN[f"quantus_{peer}"][list(rows)]
    np.testing.assert_allclose(found[name][: len(rows)], expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_area_agrees_with_scikit_learn(seed):
  rng = np.random.default_rng(seed)
  maps = rng.normal(size=(4, 50)).round([0, 1, 6][seed]).astype(np.float32)
  masks = rng.random((4, 50)) < 0.3
  expected = [
    sklearn.metrics.roc_auc_score(m, s)
    for m, s in zip(masks, maps, strict=True)
  ]
  area = metrics.pixel_auc(maps, masks)
  np.testing.assert_allclose(area, expected, atol=1e-7)
  np.testing.assert_allclose(metrics.pixel_auc(-maps, masks), 1 - area, 1e-6)


@pytest.mark.parametrize("pixels", [300 * 300, 310 * 310])
def test_areas_of_large_images(pixels):
  """Below and above the number of pixels that int32 sums allow."""
  rng = np.random.default_rng(0)
  maps = rng.normal(size=(1, pixels)).round(2).astype(np.float32)
  masks = rng.random((1, pixels)) < 0.5
  maps = np.where(masks, maps + 3, maps)
  expected = sklearn.metrics.roc_auc_score(masks[0], maps[0])
  area = metrics.pixel_auc(maps, masks)
  np.testing.assert_allclose(area, expected, rtol=0, atol=1e-7)


def test_edges():
  # Rows: a constant map, an empty mask, a full mask, NaN, -0 beside 0.
  maps = [[0, 0, 0, 0], [3, 1, 2, 0], [3, 1, 2, 0], [1, np.nan, 0, 0]]
  maps = np.array([*maps, [-0.0, 0, 0, -1]], np.float32)
  masks = np.array(
    [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
  ).astype(bool)
  nan = np.nan
  expected = {
    "auc": [0.5, nan, nan, nan, 2 / 3],
    "auc_abs": [0.5, nan, nan, nan, 1 / 3],
    "pointing_game": [0, nan, 1, nan, 0],
    "rank_accuracy": [0.5, nan, 1, nan, 0],
    "mass_accuracy_abs": [0, 0, 1, nan, 0],
  }
  for name, found in measure(maps, masks).items():
    np.testing.assert_allclose(found, expected[name], rtol=1e-6, err_msg=name)


NETWORK = (golden.network, golden.params())
X, TARGET = GOLDEN["idm_x"], GOLDEN["idm_target"]


def curves(name, count):
  return np.stack([GOLDEN[f"{name}_{i}"] for i in range(count)])


def test_map_and_blur():
  maps = attribution.saliency(*NETWORK, X, TARGET)
  maps = attribution.reduce_channels(maps, "sum", axis=1)
  np.testing.assert_allclose(maps, GOLDEN["idm_saliency"], atol=2e-6)
  blur = metrics.gaussian_blur(X, axes=(2, 3))
  np.testing.assert_allclose(blur, GOLDEN["idm_blur"], atol=1e-6)
  point = np.zeros((1, 23, 23, 1), np.float32)
  point[0, 11, 11] = 1
  kernel = metrics.gaussian_blur(point)
  np.testing.assert_allclose(
    kernel[0, 6:17, 6:17, 0], GOLDEN["blur_kernel_11_sigma5"], atol=1e-7
  )


@functools.cache
def protocol(chunk_size, blurred):
  return metrics.insertion_deletion(
    *NETWORK,
    X,
    TARGET,
    GOLDEN["idm_saliency"],
    insert_into=GOLDEN["idm_blur"] if blurred else None,
    axes=(2, 3),
    chunk_size=chunk_size,
  )


def test_insertion_and_deletion():
  zero, blur = protocol(None, False), protocol(None, True)
  for name, curve, area in [
    ("deletion_zero", zero.deletion, zero.deletion_auc),
    ("insertion_zero", zero.insertion, zero.insertion_auc),
    ("insertion_blur", blur.insertion, blur.insertion_auc),
  ]:
    np.testing.assert_allclose(curve, curves(f"{name}_curve", 4), atol=1e-6)
    np.testing.assert_allclose(area, curves(f"{name}_auc", 4), atol=1e-6)
  assert zero.shares[0] == 0
  assert zero.shares[-1] == 1
  np.testing.assert_allclose(zero.insertion[:, -1], zero.deletion[:, 0], 1e-6)


def test_curves_do_not_depend_on_chunks():
  for a, b in zip(protocol(10, False), protocol(None, False), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_uneven_steps_and_ties():
  """Seven pixels in steps of three; the first of equals goes first."""
  f = lambda w, x: jnp.concatenate([x @ w, jnp.zeros_like(x[:, :1])], axis=1)
  w = np.array([5, 4, 3, 2, 1, -1, -2], np.float32)[:, None]
  x = np.ones((2, 7), np.float32)
  maps = np.array([[0] * 7, [0, 0, 0, 0, 0, 1, 1]], np.float32)
  found = metrics.insertion_deletion(f, w, x, 0, maps, step=3, axes=(1,))
  kept = np.ones((2, 4, 7))
  kept[0, 1, :3] = kept[0, 2, :6] = 0
  kept[1, 1, [5, 6, 0]] = kept[1, 2, [5, 6, 0, 1, 2, 3]] = 0
  kept[:, 3] = 0
  expected = 1 / (1 + np.exp(-(kept @ w)[..., 0]))
  np.testing.assert_allclose(found.deletion, expected, rtol=1e-5)
  shares = np.array([0, 3, 6, 7]) / 7
  np.testing.assert_allclose(found.shares, shares, rtol=1e-6)
  np.testing.assert_allclose(
    found.deletion_auc, np.trapezoid(expected, shares), rtol=1e-5
  )
  maps[0, 2] = np.nan
  found = metrics.insertion_deletion(f, w, x, 0, maps, step=3, axes=(1,))
  assert np.isnan(found.deletion_auc).tolist() == [True, False]


def double(x):
  return 2 * x


def test_sensitivity():
  """A linear map moves by as much as x does, a constant one not at all."""
  x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
  run = functools.partial(metrics.sensitivity, KEY, radius=0.1, samples=50)
  moved = run(double, x)
  assert (moved > 0.1).all()
  assert (moved <= 0.2 * np.sqrt(8)).all()
  relative = run(double, x, relative=True, chunk_size=7)
  np.testing.assert_allclose(
    relative, moved / np.linalg.norm(2 * x, axis=1), rtol=1e-5
  )
  assert np.isnan(run(jnp.zeros_like, x, relative=True)).all()


def linear(w, x):
  return x @ w


def test_infidelity():
  w = np.array([[2.0], [-1.0], [0.5]], np.float32)
  x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  run = functools.partial(metrics.infidelity, KEY, linear, w, x, 0)
  exact = np.broadcast_to(w.T, x.shape)
  np.testing.assert_allclose(run(exact), 0, atol=1e-10)
  # E (I . (map - w))^2 = sigma^2 |map - w|^2
  wrong = run(0 * exact, sigma=2.0, samples=20000, chunk_size=5000)
  np.testing.assert_allclose(wrong, 4 * 5.25, rtol=0.05)
  np.testing.assert_allclose(run(3 * exact, scaled=True), 0, atol=1e-10)
  np.testing.assert_allclose(
    run(0 * exact, scaled=True), run(0 * exact), rtol=1e-5
  )


def test_infidelity_of_given_perturbations():
  """With I = x, a map that is complete for baseline 0 is faithful."""
  w = np.array([[2.0], [-1.0], [0.5]], np.float32)
  x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
  run = functools.partial(
    metrics.infidelity, KEY, quadratic, w, x, 0, perturb=whole, samples=2
  )
  np.testing.assert_allclose(run(x * w.T), 0, atol=1e-9)
  expected = np.square(x**2 @ w)[:, 0]
  np.testing.assert_allclose(run(0 * x), expected, rtol=1e-4)


def quadratic(w, x):
  return (x**2) @ w


def whole(key, x):
  del key
  return x


def test_mistakes_are_named():
  x = np.ones((2, 4, 4, 3), np.float32)
  f = lambda w, x: x[:, 0, 0]
  run = functools.partial(metrics.insertion_deletion, f, 0.0, x)
  for message, call in [
    ("reduce_channels", lambda: metrics.pixel_auc(x, x[..., 0] > 0)),
    ("hold pixels", lambda: metrics.rank_accuracy(x[0, 0, 0], x[0, 0, 0] > 0)),
    ("0 to 2", lambda: run(3, x[..., 0])),
    ("2 of them", lambda: run(np.array([0, 1, 1]), x[..., 0])),
    ("reduce_channels", lambda: run(0, x)),
    ("of x", lambda: metrics.infidelity(KEY, f, 0.0, x, 0, x[0])),
  ]:
    with pytest.raises(ValueError, match=message):
      call()


IMAGES = np.ones((2, 4, 4, 3), np.float32)
PIXELS = IMAGES.astype(np.uint8)


def corner(w, x):
  del w
  return x[:, 0, 0].astype(jnp.float32)


MEASURES = {
  "insertion_deletion": lambda x=IMAGES, **options: metrics.insertion_deletion(
    corner, 0.0, x, 0, IMAGES[..., 0], **options
  ),
  "gaussian_blur": lambda x=IMAGES, **options: metrics.gaussian_blur(
    x, **options
  ),
  "sensitivity": lambda x=IMAGES, **options: metrics.sensitivity(
    KEY, double, x, **options
  ),
  "infidelity": lambda x=IMAGES, **options: metrics.infidelity(
    KEY, corner, 0.0, x, 0, IMAGES, **options
  ),
}


@pytest.mark.parametrize(
  ("name", "message", "options"),
  [
    ("insertion_deletion", "axes must ascend", {"axes": (2, 1)}),
    ("insertion_deletion", "axes must ascend", {"axes": (-3, -2)}),
    ("insertion_deletion", "axes must ascend", {"axes": (1, 7)}),
    ("insertion_deletion", "axes must ascend", {"axes": (1, 1)}),
    ("insertion_deletion", "x must be", {"x": PIXELS, "insert_into": 0.5}),
    ("insertion_deletion", "step must be a whole", {"step": 0}),
    ("insertion_deletion", "step must be a whole", {"step": 2.5}),
    ("insertion_deletion", "chunk_size must be a whole", {"chunk_size": 0}),
    ("insertion_deletion", "chunk_size must be a whole", {"chunk_size": 2.5}),
    ("gaussian_blur", "axes must differ", {"axes": (-3, -2)}),
    ("gaussian_blur", "axes must differ", {"axes": (1, 7)}),
    ("gaussian_blur", "axes must differ", {"axes": (1, 1)}),
    ("gaussian_blur", "size must be odd", {"size": 4}),
    ("gaussian_blur", "size must be a whole", {"size": 3.0}),
    ("gaussian_blur", "size must be a whole", {"size": -1}),
    ("gaussian_blur", "sigma must be a finite number above 0", {"sigma": 0.0}),
    ("gaussian_blur", "sigma must be a finite", {"sigma": -1.0}),
    ("gaussian_blur", "sigma must be a finite", {"sigma": np.inf}),
    ("gaussian_blur", "x must be a batch .* got uint8", {"x": PIXELS}),
    ("sensitivity", "samples must be a whole", {"samples": 0}),
    ("sensitivity", "samples must be a whole", {"samples": 2.0}),
    ("sensitivity", "chunk_size must be a whole", {"chunk_size": 2.5}),
    ("sensitivity", "radius must be a finite", {"radius": -1.0}),
    ("sensitivity", "radius must be a finite", {"radius": np.nan}),
    ("sensitivity", "x must be a batch .* got uint8", {"x": PIXELS}),
    ("infidelity", "samples must be a whole", {"samples": 2.0}),
    ("infidelity", "sigma must be a finite", {"sigma": 0.0}),
    ("infidelity", "x must be a batch .* got uint8", {"x": PIXELS}),
  ],
)
def test_options_that_do_not_fit(name, message, options):
  with pytest.raises(ValueError, match=message):
    MEASURES[name](**options)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("insertion_deletion", {"step": 3, "chunk_size": 2}),
    ("gaussian_blur", {"size": 3, "sigma": 2}),
    ("sensitivity", {"samples": 3, "chunk_size": 2, "radius": 0}),
    ("infidelity", {"samples": 3, "chunk_size": 2}),
  ],
)
def test_numbers_of_numpy_are_whole(name, options):
  numpy = {option: np.int64(number) for option, number in options.items()}
  found, expected = MEASURES[name](**numpy), MEASURES[name](**options)
  for ours, same in zip(found, expected, strict=True):
    np.testing.assert_array_equal(ours, same)


def test_the_order_of_blurred_axes_does_not_matter():
  x = np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)
  np.testing.assert_array_equal(
    metrics.gaussian_blur(x, axes=(2, 1)), metrics.gaussian_blur(x)
  )


def test_a_radius_may_be_mapped():
  x = np.ones((2, 3), np.float32)
  run = lambda radius: metrics.sensitivity(KEY, double, x, radius=radius)
  radii = np.array([0.0, 0.1], np.float32)
  found = jax.vmap(run)(radii)
  np.testing.assert_allclose(found, [run(r) for r in radii], rtol=1e-6)


def test_maps_of_any_type_are_read_alike():
  f = lambda w, x: jnp.stack([jnp.sum(x, (1, 2)) * w, 0 * x[:, 0, 0]], 1)
  x = jnp.arange(4.0).reshape(1, 2, 2)
  maps = np.array([[[0, 1], [2, 3]]])
  curves = [
    metrics.insertion_deletion(f, 1.0, x, 0, maps.astype(kind), step=1)
    for kind in (np.float32, np.int32, np.uint8)
  ]
  for found in curves[1:]:
    np.testing.assert_array_equal(found.deletion, curves[0].deletion)


def test_relative_to_a_map_of_nothing():
  explain = lambda x: jax.nn.relu(x - 1.0)
  key, x = jax.random.key(0), jnp.ones((2, 3))
  found = metrics.sensitivity(key, explain, x, relative=True)
  assert np.isnan(found).all()


@pytest.mark.parametrize("size", [2e-38, 1e-32, 1.0, 3e38])
def test_mass_of_maps_of_any_size(size):
  maps = np.array([[size, -size, size, 0.0]], np.float32)
  mask = np.array([[True, False, True, True]])
  found = metrics.mass_accuracy(maps, mask)
  np.testing.assert_allclose(found, [2 / 3], rtol=1e-6)
