"""DeepLIFT: published values, completeness, pools by brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from effjax import attribution
from effjax.models import layers
from tests.attribution import golden, networks


@pytest.mark.parametrize("name", ["zero", "base"])
def test_agrees_with_captum(name):
  values = golden.load()
  maps = attribution.deep_lift(
    golden.network,
    golden.params(),
    values["x"],
    values["target"],
    baseline=values["baseline"] if name == "base" else None,
    maxpool="gradient",
  )
  np.testing.assert_allclose(maps, values[f"deeplift_{name}"], atol=2e-6)


def assert_complete(f, params, x, target, baseline=None, tolerance=1e-5):
  maps = attribution.deep_lift(f, params, x, target, baseline=baseline)
  assert maps.shape == x.shape
  delta = attribution.convergence_delta(
    f, params, x, target, maps, baseline=baseline
  )
  size = np.abs(maps).sum(axis=tuple(range(1, x.ndim)))
  assert size.min() > 1e-3
  np.testing.assert_array_less(np.abs(delta), tolerance * size + 1e-6)
  return maps


@pytest.mark.parametrize("name", ["cnn", "resnet", "mobilenet"])
def test_is_complete_for_models(name):
  f, params, x, target, *_ = networks.linen(name)
  assert_complete(f, params, x, target, 0.5 * x[::-1])


def test_is_complete_for_the_network_of_captum():
  values = golden.load()
  params, target = golden.params(), values["target"]
  baseline = values["baseline"]
  assert_complete(golden.network, params, values["x"], target, baseline)


def attention(params, x):
  """Softmax, layer normalisation, gates and products, without modules."""
  h = nn.LayerNorm(use_bias=False, use_scale=False).apply({}, x)
  q, k, v = h @ params["q"], h @ params["k"], h @ params["v"]
  weights = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k), axis=-1)
  h = x + jnp.einsum("bqk,bkd->bqd", weights, v)
  gate = jax.nn.sigmoid(jnp.mean(h, axis=1, keepdims=True))
  h = jax.nn.gelu(h) * gate
  return jnp.max(h, axis=1) @ params["out"]


FUNCTIONS = {
  "gram": lambda w, x: (x @ x.swapaxes(1, 2)).reshape(len(x), -1)[:, :3],
  "ratio": lambda w, x: x[:, 0] / (2 + x[:, 1] ** 2) / w[0, 0],
  "smallest": lambda w, x: jnp.min(x, axis=1) @ w,
  "largest of two": lambda w, x: jnp.maximum(x[:, 0] @ w, x[:, 1] @ w),
  "step": lambda w, x: (x[:, 0] > 0).astype(x.dtype) @ w,
  "softplus": lambda w, x: jax.nn.softplus(x[:, 0]) @ w,
}


@pytest.mark.parametrize("name", [*FUNCTIONS, "attention", "plain"])
def test_is_complete_for_functions(name):
  if name == "plain":
    f, params, x, target = networks.plain_case()
    assert_complete(f, params, x, target, x[::-1])
    return
  draw = networks.normals(5)
  x, baseline = draw(2, 3, 4), draw(2, 3, 4)
  if name == "attention":
    params = {part: draw(4, 4) for part in ("q", "k", "v", "out")}
    assert_complete(attention, params, x, 1, baseline, tolerance=1e-4)
  else:
    w = draw(4, 3)
    assert_complete(FUNCTIONS[name], w, x, 1, baseline)


def test_pools_split_a_change_between_old_and_new_maximum():
  f = lambda w, x: jnp.max(x, axis=1, keepdims=True) * w
  x, baseline = jnp.array([[1.0, 5.0, 2.0]]), jnp.array([[4.0, 1.0, 1.5]])
  maps = attribution.deep_lift(f, jnp.ones(1)[None], x, 0, baseline=baseline)
  # From 4 down to nothing at the first, up from 4 to 5 at the second.
  np.testing.assert_allclose(maps, [[0.0, 1.0, 0.0]], atol=1e-6)
  maps = attribution.deep_lift(f, jnp.ones((1, 1)), baseline, 0, baseline=x)
  np.testing.assert_allclose(maps, [[0.0, -1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("maxpool", ["rescale", "gradient"])
def test_a_chain_of_maxima_is_one_pool(maxpool):
  draw = networks.normals(7)
  x, baseline, w = draw(2, 7, 6, 2), draw(2, 7, 6, 2), draw(4 * 3 * 2, 2)

  def whole(w, x):
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    x = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)
    return x.reshape(len(x), -1) @ w

  def chain(w, x):
    x = layers.max_pool(x, 3, strides=2, padding=1)
    return x.reshape(len(x), -1) @ w

  explain = functools.partial(
    attribution.deep_lift, baseline=baseline, maxpool=maxpool
  )
  one, other = (explain(f, w, x, 1) for f in (whole, chain))
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_rescale_by_hand():
  rng = np.random.default_rng(0)
  w, v = rng.normal(size=(5, 7)), rng.normal(size=(7, 2))
  x, baseline = rng.normal(size=(2, 3, 5))
  z, z_b = x @ w, baseline @ w
  ratio = (np.maximum(z, 0) - np.maximum(z_b, 0)) / (z - z_b)
  expected = (ratio * v[:, 1]) @ w.T * (x - baseline)
  f = lambda p, x: jax.nn.relu(x @ p[0]) @ p[1]
  params = jnp.asarray(w, jnp.float32), jnp.asarray(v, jnp.float32)
  maps = attribution.deep_lift(
    f, params, x.astype(np.float32), 1, baseline=baseline.astype(np.float32)
  )
  np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


def test_no_change_gives_the_gradient_its_place_and_zero_maps():
  f, params, x, target = networks.plain_case()
  maps = attribution.deep_lift(f, params, x, target, baseline=x)
  np.testing.assert_array_equal(maps, jnp.zeros_like(x))


def test_one_pruned_copy_for_each_example():
  networks.assert_explains_copies(attribution.deep_lift)


def test_errors():
  x = jnp.array([[1.0, 2.0]])
  with pytest.raises(ValueError, match="primitive 'sort'"):
    attribution.deep_lift(lambda w, x: jnp.sort(x), None, x, 0)
  with pytest.raises(ValueError, match="rescale, gradient, got 'max'"):
    attribution.deep_lift(lambda w, x: x, None, x, 0, maxpool="max")
  with pytest.raises(ValueError, match="baseline must be"):
    attribution.deep_lift(lambda w, x: x, None, x, 0, baseline=jnp.ones(3))


@pytest.mark.parametrize(
  "spread",
  [
    lambda x: jnp.tile(x, (1, 2)),
    lambda x: jnp.concatenate([x, x], 1).at[:, 0].set(0.5),
    lambda x: jnp.concatenate([x, x], 1).at[:, 1].add(x[:, 0]),
    lambda x: jnp.concatenate([x, x], 1).at[jnp.arange(2), 3].set(x[:, 2]),
  ],
)
def test_moves_of_entries(spread):
  weights = jax.random.normal(jax.random.key(0), (12, 3))
  x = jax.random.normal(jax.random.key(1), (2, 6))
  f = lambda w, x: jax.nn.relu(spread(x)) @ w
  found = attribution.deep_lift(f, weights, x, 1)
  gap = (f(weights, x) - f(weights, jnp.zeros_like(x)))[:, 1]
  np.testing.assert_allclose(jnp.sum(found, 1), gap, atol=1e-5)
  assert attribution.lrp(f, weights, x, 1).shape == x.shape
