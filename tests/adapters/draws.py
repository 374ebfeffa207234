"""Random parameters and theta, of NumPy: nothing is compiled for them."""

import jax
import numpy as np

# Of the generator that compiles fastest.
KEY = jax.random.key(0, impl="rbg")


def draw(*shape, seed=0):
  """Draw a float32 array."""
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def start(adapter, params, seed=1):
  """Draw any theta that fits, and make what is fixed."""
  init = lambda: adapter.init(KEY, params)
  shapes, fixed = jax.eval_shape(init)
  rng = np.random.default_rng(seed)
  theta = {
    key: rng.normal(size=shapes[key].shape).astype(np.float32) / 2
    for key in sorted(shapes)
  }
  return theta, jax.jit(init)()[1] if fixed else {}


def merged(adapter, params, theta, fixed):
  """Merge in one program; that of eager mode is checked elsewhere."""
  return jax.jit(adapter.merge)(params, theta, fixed)


def add(one, two):
  """Add two trees."""
  return jax.tree.map(lambda a, b: np.asarray(a) + np.asarray(b), one, two)


def close(one, two, rtol=1e-5, atol=1e-6):
  """Check that two trees are close."""
  near = lambda a, b: np.testing.assert_allclose(
    np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=atol
  )
  jax.tree.map(near, one, two)


def equal(one, two):
  """Check that two trees are equal, types included."""
  assert jax.tree.structure(one) == jax.tree.structure(two)
  for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)
