"""Bases of few bits: what is stored, how far it is off, adapters on it."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters
from effjax.adapters import quantized
from tests.adapters.draws import KEY, close, draw, equal, start


def test_levels_are_quantiles_of_a_normal_distribution():
  inverse = statistics.NormalDist().inv_cdf
  positive = [inverse(p) for p in np.linspace(0.9677083, 0.5, 9)[:8]]
  negative = [-inverse(p) for p in np.linspace(0.9677083, 0.5, 8)[:7]]
  levels = np.sort([*positive, 0.0, *negative]) / max(positive)
  np.testing.assert_allclose(quantized.LEVELS, levels, atol=1e-6)


def test_nf4():
  w = draw(70, 30)
  w[:3] = 0  # the first block is all zeros

  @jax.jit
  def work(w):
    packed = [adapters.quantize({"w": w}, double=d) for d in (False, True)]
    return [adapters.dequantize(p)["w"] for p in packed]

  found, double = work(w)
  flat = np.pad(w.astype(np.float64).reshape(-1), (0, -2100 % 64))
  blocks = flat.reshape(-1, 64)
  scale = np.abs(blocks).max(axis=1, keepdims=True)
  shares = blocks / np.where(scale > 0, scale, 1)
  levels = quantized.LEVELS.astype(np.float64)
  near = np.abs(shares[..., None] - levels).argmin(axis=-1)
  expected = (levels[near] * scale).reshape(-1)[:2100].reshape(70, 30)
  close(found, expected)
  # Scales of 8 bits lie within half a step of the largest deviation.
  step = np.abs(scale - scale.mean()).max() / 127
  close(double, expected, rtol=0, atol=step * 0.51)
  assert np.any(np.asarray(double) != expected)
  assert not np.any(double[:2])


def test_sizes():
  params = {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
  bits = lambda *args, **options: jax.eval_shape(
    lambda p: adapters.quantize(p, *args, **options), params
  )["w"]
  stored = lambda leaf: (
    8 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(leaf)) / 2**20
  )
  assert stored(bits("nf4")) == pytest.approx(4.127, abs=1e-3)
  assert stored(bits("nf4", double=False)) == pytest.approx(4.5)
  assert stored(bits("int8")) == pytest.approx(8, abs=0.04)
  assert stored(bits("int8", block=64)) == pytest.approx(8.5)


@pytest.mark.parametrize("block", [None, 8])
def test_int8(block):
  w = draw(6, 5)
  w[:, 2] = 0
  pack = jax.jit(lambda p: adapters.quantize(p, "int8", block=block))
  packed = pack({"w": w})
  assert packed["w"].codes.dtype == jnp.int8
  found = adapters.dequantize(packed)["w"]
  groups = w if block is None else np.pad(w.reshape(-1), (0, 2)).reshape(-1, 8)
  axis = 0 if block is None else 1
  scale = np.abs(groups).max(axis=axis, keepdims=True) / 127
  safe = np.where(scale > 0, scale, 1)
  expected = (np.round(groups / safe) * scale).reshape(-1)[:30].reshape(6, 5)
  close(found, expected)
  assert not np.any(found[:, 2])
  assert packed["w"].bits == pytest.approx(
    8 + 32 / 6 if block is None else 8 * 32 / 30 + 4 * 32 / 30
  )


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_adapters_on_a_quantised_base(kind):
  params = {"a": {"kernel": draw(8, 6)}, "b": {"kernel": draw(6, 4, seed=1)}}
  packed = jax.jit(lambda p: adapters.quantize(p, kind))(params)
  both = (adapters.lora(2, where="a/.*"), adapters.dora(2))
  thetas = [start(adapter, packed)[0] for adapter in both]
  x = draw(3, 8, seed=2)

  @jax.jit
  def work(packed, thetas):
    dense, out = adapters.dequantize(packed), []
    for adapter, theta in zip(both, thetas, strict=True):
      found = adapter.apply(packed, theta, {})
      part = adapters.parts(adapter, packed, theta, {})["a/kernel"]
      y = adapters.dense(x, packed["a"]["kernel"], part)
      begin = [adapter.init(KEY, base)[0] for base in (packed, dense)]
      out.append((found, adapter.merge(dense, theta, {}), y, begin))
    return out

  for found, expected, y, begin in work(packed, thetas):
    close(found, expected)
    close(y, x @ found["a"]["kernel"], atol=1e-5)
    equal(*begin)
  assert adapters.summary(packed, thetas[0]).weights == 72


def test_stacked_by_vmap():
  w = draw(3, 16, 8)

  @jax.jit
  def work(w):
    packed = jax.vmap(adapters.quantize)({"w": w})
    one = adapters.quantize({"w": w[1]})
    found = jax.vmap(adapters.dequantize)(packed)
    return found["w"][1], adapters.dequantize(one)["w"]

  np.testing.assert_array_equal(*work(w))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(0, 64), (3, 0)])
def test_leaves_without_weights(shape, double):
  params = {"k": jnp.zeros(shape, jnp.bfloat16)}
  found = adapters.dequantize(adapters.quantize(params, double=double))["k"]
  assert (found.shape, found.dtype) == (shape, jnp.bfloat16)


def test_bad_input():
  params = {"w": draw(4, 4), "i": np.ones((2, 2), np.int32)}
  with pytest.raises(ValueError, match="nf4"):
    adapters.quantize(params, "nf5")
  with pytest.raises(ValueError, match="block=3"):
    adapters.quantize(params, block=3)
  for block in (64.0, 0, "64"):
    with pytest.raises(ValueError, match="block must be a whole number"):
      adapters.quantize(params, block=block)
  with pytest.raises(ValueError, match="not floating"):
    adapters.quantize(params, where="i")
