"""Occlusion, ablation, RISE and LIME: published values and known answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model

from effjax import attribution, models
from effjax.attribution import perturbation, surrogate
from tests.attribution import golden

GOLDEN = golden.load()
KEY = jax.random.key(0)
EXPLAIN = (golden.network, golden.params(), GOLDEN["x"], GOLDEN["target"])


def close(ours, name):
  np.testing.assert_allclose(ours, GOLDEN[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("window", "strides"), [(3, 1), (4, 4), (5, 3)])
def test_occlusion_agrees_with_captum(window, strides):
  maps = attribution.occlusion(
    *EXPLAIN, window=window, strides=strides, axes=(2, 3), chunk_size=60
  )
  close(maps, f"occlusion_w{window}_s{strides}")


def test_ablation_agrees_with_captum():
  maps = attribution.feature_ablation(
    *EXPLAIN, groups=GOLDEN["feature_mask_4x4"]
  )
  close(maps, "feature_ablation_4x4")


def product(w, x):
  """A function of pixels that is not linear."""
  flat = x.reshape(x.shape[0], -1)
  return jnp.tanh(flat @ w) + flat[:, :1] * flat[:, 1:2]


run_product = jax.jit(product)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 5, 7, 2)).astype(np.float32)
WEIGHTS = RNG.normal(size=(70, 4)).astype(np.float32) / 5
CLASSES = np.array([3, 0, 1])
ARGS = (product, WEIGHTS, IMAGES, CLASSES)


def logit(x):
  return np.asarray(run_product(WEIGHTS, np.asarray(x)))[range(3), CLASSES]


@pytest.mark.parametrize(
  ("window", "strides"), [((2, 3), (2, 2)), ((3, 7), (2, 1)), ((5, 4), None)]
)
def test_occlusion_by_loops(window, strides):
  """Also where the last window is clipped and the axes differ."""
  base = np.asarray(IMAGES[::-1])
  steps = strides or window
  total, count = np.zeros((3, 5, 7)), np.zeros((5, 7))
  starts = [
    range(0, -(-(n - w) // s) * s + 1, s)
    for n, w, s in zip((5, 7), window, steps, strict=True)
  ]
  for i in starts[0]:
    for j in starts[1]:
      part = np.s_[i : i + window[0], j : j + window[1]]
      covered = np.array(IMAGES)
      covered[:, *part] = base[:, *part]
      total[:, *part] += (logit(IMAGES) - logit(covered))[:, None, None]
      count[part] += 1
  maps = attribution.occlusion(
    *ARGS, window=window, strides=strides, baseline=base
  )
  expected = np.broadcast_to((total / count)[..., None], maps.shape)
  np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


def test_ablation_by_loops():
  """Groups that differ between examples, span channels, or have no pixel."""
  groups = np.random.default_rng(0).integers(0, 6, (3, 5, 7, 1))
  groups = np.where(groups == 4, 5, groups)
  expected = np.zeros(IMAGES.shape)
  for g in range(6):
    absent = np.broadcast_to(groups == g, IMAGES.shape)
    fall = logit(IMAGES) - logit(np.where(absent, 0.5, IMAGES))
    expected += np.where(absent, fall[:, None, None, None], 0)
  run = functools.partial(attribution.feature_ablation, *ARGS, baseline=0.5)
  maps = run(groups=groups)
  np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)
  traced = jax.jit(lambda g: run(groups=g, number=6, chunk_size=4))(groups)
  np.testing.assert_allclose(traced, maps, rtol=1e-5, atol=1e-6)


def test_grid():
  groups = attribution.grid((2, 5, 7, 3), 3)
  assert groups.shape == (1, 5, 7, 1)
  sizes = np.bincount(groups.ravel())
  assert sizes.shape == (9,)
  assert sizes.min() >= 2
  channels_first = attribution.grid((2, 3, 5, 7), 3, axes=(2, 3))
  np.testing.assert_array_equal(channels_first[0, 0], groups[0, :, :, 0])


def samples(kind, seed):
  rng = np.random.default_rng(seed)
  z = (rng.random((60, 8)) < 0.5).astype(np.float32)
  weights = rng.random(60).astype(np.float32) + 0.01
  if kind == "constant":
    z[:, 2], z[:, 5] = 0, 1
  if kind == "copied":
    z[:, 3] = z[:, 4]
  if kind == "few":
    z, weights = z[:6], weights[:6]
  w = np.array([2, -1, 0.3, 0, 0, 0.02, -0.2, 1], np.float32)
  y = z @ w + 3 + rng.normal(0, 0.1, len(z)).astype(np.float32)
  return z, y.astype(np.float32), weights


lasso, ridge = jax.jit(surrogate.lasso), jax.jit(surrogate.ridge)


def loss(z, y, weights, w, penalty):
  share = weights / weights.sum(dtype=np.float64)
  rest = y - z @ np.asarray(w, np.float64)
  rest = rest - share @ rest
  return share @ rest**2 / 2 + penalty * np.abs(w).sum(dtype=np.float64)


@pytest.mark.parametrize("penalty", [0.001, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("kind", ["plain", "constant", "copied"])
def test_lasso_agrees_with_scikit_learn(kind, penalty):
  z, y, weights = samples(kind, 0)
  peer = sklearn.linear_model.Lasso(penalty, tol=1e-12, max_iter=100000)
  expected = peer.fit(z.astype(float), y, sample_weight=weights).coef_
  ours = lasso(z, y, weights, penalty)
  # Equal columns may share their coefficient in any way.
  if kind != "copied":
    np.testing.assert_allclose(ours, expected, atol=1e-4)
  assert loss(z, y, weights, ours, penalty) <= (
    loss(z, y, weights, expected, penalty) + 1e-6
  )
  if penalty == 5.0:
    np.testing.assert_array_equal(ours, 0)


@pytest.mark.parametrize("kind", ["plain", "few"])
def test_ridge_agrees_with_scikit_learn(kind):
  z, y, weights = samples(kind, 1)
  # Scikit-learn sums the squares, here they are averaged and halved.
  peer = sklearn.linear_model.Ridge(0.05 * weights.sum(dtype=np.float64))
  expected = peer.fit(z.astype(float), y, sample_weight=weights).coef_
  np.testing.assert_allclose(ridge(z, y, weights, 0.05), expected, atol=2e-5)


def linear(w, x):
  return x.reshape(x.shape[0], -1) @ w


@pytest.mark.parametrize("regression", surrogate.REGRESSIONS)
def test_lime_recovers_a_linear_model(regression):
  """Its coefficients are the sums of w (x - b) over the segments."""
  x = RNG.normal(size=(2, 4, 6, 1)).astype(np.float32)
  w = RNG.normal(size=(24, 3)).astype(np.float32)
  segments = attribution.grid(x.shape, 2)
  contributions = (x - 0.5) * w[:, [2, 0]].T.reshape(x.shape)
  expected = np.zeros(x.shape)
  for g in range(4):
    inside = np.broadcast_to(segments == g, x.shape)
    sums = (contributions * inside).sum((1, 2, 3), keepdims=True)
    expected += sums * inside
  maps = attribution.lime(
    KEY,
    linear,
    w,
    x,
    [2, 0],
    segments=segments,
    baseline=0.5,
    samples=100,
    penalty=1e-5,
    regression=regression,
  )
  np.testing.assert_allclose(maps, expected, atol=2e-3)


def test_lime_weighs_and_penalises_as_described():
  """One example, its draws repeated here, the fit by scikit-learn."""
  segments = attribution.grid(IMAGES.shape, 2)
  maps = attribution.lime(KEY, *ARGS, segments=segments, samples=40, width=0.5)
  key = lambda i: jax.random.fold_in(jax.random.fold_in(KEY, i), 1)
  draw = jax.jit(jax.vmap(lambda i: jax.random.bernoulli(key(i), 0.5, (4,))))
  keep = np.asarray(draw(np.arange(40)))
  x = IMAGES[1].astype(np.float64)
  seen = x * keep[:, segments[0]]
  logits = np.asarray(run_product(WEIGHTS, seen.astype(np.float32)))[:, 0]
  sizes = np.maximum(np.sqrt((seen**2).sum((1, 2, 3))), 1e-30)
  cosine = (seen * x).sum((1, 2, 3)) / sizes / np.sqrt((x**2).sum())
  weights = np.exp(-((1 - cosine) ** 2) / (2 * 0.5**2))
  peer = sklearn.linear_model.Lasso(0.01, tol=1e-12, max_iter=100000)
  fit = peer.fit(keep.astype(float), logits, sample_weight=weights)
  expected = np.broadcast_to(fit.coef_[segments[0]], x.shape)
  np.testing.assert_allclose(maps[1], expected, atol=1e-4)


def test_rise_of_a_single_pixel_and_of_a_constant():
  """The mean of M(i) M(j) over M(j) is largest at the pixel that counts."""

  def f(w, x):
    one, two = x[:, 2, 5, 0], -x[:, 6, 1, 1]
    return jnp.stack([one, two, jnp.full(len(x), 3.0)], axis=1)

  x = np.ones((3, 9, 8, 2), np.float32)
  maps = attribution.rise(KEY, f, 0.0, x, [0, 1, 2], masks=1500, cells=4)
  assert maps.shape == x.shape
  maps = np.asarray(maps)
  np.testing.assert_array_equal(maps[..., 0], maps[..., 1])
  first, second, constant = maps[..., 0]
  np.testing.assert_allclose(constant, 3, rtol=1e-3)
  assert np.unravel_index(first.argmax(), first.shape) == (2, 5)
  assert np.unravel_index(second.argmin(), second.shape) == (6, 1)
  # Far away the pixel shows half of the time whatever else does.
  np.testing.assert_allclose(first[8, 0], 0.5, atol=0.05)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("occlusion", {"window": 3, "strides": 2, "chunk_size": 4}),
    ("rise", {"masks": 4, "cells": 2, "chunk_size": 3}),
  ],
)
def test_numbers_of_numpy_are_whole(name, options):
  key = (KEY,) if name == "rise" else ()
  run = functools.partial(getattr(attribution, name), *key, *ARGS)
  numpy = {option: np.int64(number) for option, number in options.items()}
  np.testing.assert_array_equal(run(**numpy), run(**options))


def test_the_penalty_and_width_of_lime_may_be_traced():
  run = functools.partial(attribution.lime, KEY, *ARGS, samples=20)
  lime = jax.jit(lambda p, w: run(penalty=p, width=w))
  np.testing.assert_allclose(lime(0.02, 0.5), run(penalty=0.02, width=0.5))


def test_rise_of_full_masks():
  w, x = np.ones((36, 1), np.float32), np.ones((1, 6, 6, 1), np.float32)
  maps = attribution.rise(
    KEY, linear, w, x, 0, masks=5, cells=3, probability=1.0
  )
  np.testing.assert_allclose(maps, 36, rtol=1e-4)


METHODS = {
  "occlusion": functools.partial(attribution.occlusion, window=3, strides=2),
  "feature_ablation": functools.partial(
    attribution.feature_ablation, groups=attribution.grid(IMAGES.shape, 3)
  ),
  "rise": functools.partial(attribution.rise, KEY, masks=11, cells=2),
  "lime": functools.partial(attribution.lime, KEY, samples=30),
}


@pytest.mark.parametrize(
  "name",
  [
    "occlusion",
    "feature_ablation",
    pytest.param("rise", marks=pytest.mark.slow),
    pytest.param("lime", marks=pytest.mark.slow),
  ],
)
def test_jit_chunks_batches_parameters_and_types(name):
  method = METHODS[name]
  one = lambda w, x, t: method(product, w, x[None], t[None])[0]

  @jax.jit
  def compute(w, x, target):
    run = functools.partial(method, product)
    return {
      "chunks": run(w, x[:2], target[:2], chunk_size=4),
      "parameters": jax.vmap(one)(jnp.stack([w, -w, 2 * w]), x, target),
      "bfloat16": run(w.astype(jnp.bfloat16), x.astype(jnp.bfloat16), target),
    }

  found = jax.tree.map(np.asarray, compute(WEIGHTS, IMAGES, CLASSES))
  maps = np.asarray(method(*ARGS))
  assert maps.shape == IMAGES.shape
  assert maps.dtype == IMAGES.dtype
  np.testing.assert_allclose(found["chunks"], maps[:2], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    found["parameters"][0], maps[0], rtol=1e-4, atol=1e-5
  )
  assert np.abs(found["parameters"][1] - maps[1]).max() > 1e-3
  assert found["bfloat16"].dtype == jnp.bfloat16
  np.testing.assert_allclose(
    found["bfloat16"].astype(np.float32), maps, atol=0.15
  )


def test_a_model_of_the_library():
  module = models.build("cnn", outputs=3, features=(4, 6), hidden=8)
  x = RNG.normal(size=(2, 12, 12, 3)).astype(np.float32)
  variables = golden.variables(module, x)
  maps = attribution.occlusion(module.apply, variables, x, 1, window=12)
  here, there = (jax.jit(module.apply)(variables, z) for z in (x, 0 * x))
  change = (np.asarray(here) - there)[:, 1]
  expected = np.broadcast_to(change[:, None, None, None], x.shape)
  np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("name", "message", "options"),
  [
    ("occlusion", "1 to 5 long", {"window": 6}),
    ("occlusion", "every pixel is covered", {"window": 2, "strides": 3}),
    ("occlusion", "one number or 2", {"window": (2, 2, 2)}),
    ("occlusion", "axes must ascend", {"window": 2, "axes": (2, 1)}),
    ("occlusion", "axes must ascend", {"window": 2, "axes": (1, 4)}),
    ("occlusion", "baseline must", {"window": 2, "baseline": np.ones(3)}),
    ("feature_ablation", "shape that fits", {"groups": np.zeros(3, int)}),
    ("feature_ablation", "of a shape", {"groups": np.zeros(IMAGES.shape)}),
    ("feature_ablation", "from -1", {"groups": np.full((5, 7, 1), -1)}),
    (
      "feature_ablation",
      "allows 0 to 1",
      {"groups": np.full((5, 7, 1), 2), "number": 2},
    ),
    (
      "feature_ablation",
      "number must be a whole",
      {"groups": np.zeros((5, 7, 1), int), "number": 2.5},
    ),
    ("rise", "probability", {"probability": 0.0}),
    ("occlusion", "window must be a whole", {"window": 3.0}),
    ("occlusion", "window must be a whole", {"window": (3, 2.0)}),
    ("occlusion", "window must be a whole", {"window": None}),
    ("occlusion", "strides must be a whole", {"window": 3, "strides": 2.5}),
    ("occlusion", "chunk_size must be", {"window": 3, "chunk_size": 2.5}),
    ("rise", "copies must be a whole number of at least 1", {"masks": 0}),
    ("rise", "cells must be a whole number", {"cells": 2.5}),
    ("rise", "cells must be a whole number", {"cells": 0}),
    ("lime", "regression must be", {"regression": "ols"}),
    ("lime", "copies must be a whole number of at least 1", {"samples": 0}),
    ("lime", "penalty must be a finite", {"penalty": -1.0}),
    ("lime", "penalty must be a finite", {"penalty": np.nan}),
    ("lime", "width must be a finite number above 0", {"width": 0.0}),
  ],
)
def test_mistakes_are_named(name, message, options):
  key = (KEY,) if name in ("rise", "lime") else ()
  with pytest.raises(ValueError, match=message):
    getattr(attribution, name)(*key, *ARGS, **options)


def test_other_mistakes_are_named():
  with pytest.raises(ValueError, match="give segments="):
    attribution.lime(KEY, linear, jnp.ones((3, 1)), jnp.ones((2, 3)), 0)
  with pytest.raises(ValueError, match="give number="):
    jax.jit(lambda g: attribution.feature_ablation(*ARGS, groups=g))(
      np.zeros((5, 7, 1), np.int32)
    )
  with pytest.raises(ValueError, match="does not fit the shape"):
    perturbation.grid((1, 4, 4, 1), 5)
  with pytest.raises(ValueError, match="cells must be a whole number"):
    perturbation.grid((1, 4, 4, 1), 2.5)


def test_no_examples_have_no_maps():
  f = lambda w, x: x.reshape(len(x), 48) @ w
  w, x, target = jnp.ones((48, 2)), jnp.zeros((0, 4, 4, 3)), np.zeros(0, int)
  groups = np.zeros((4, 4, 3), int)
  for maps in (
    attribution.lime(KEY, f, w, x, target),
    attribution.feature_ablation(f, w, x, target, groups=groups),
    attribution.gradient_shap(KEY, f, w, x, target),
  ):
    assert maps.shape == x.shape
