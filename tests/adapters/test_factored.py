"""The factored form of a layer gives what the merged kernel gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters
from tests.adapters.draws import close, draw, start

PARAMS = {"w": draw(6, 5), "stack": draw(2, 6, 5, seed=1)}
MASKS = {"w": draw(6, 5, seed=2) > 0.8, "stack": None}
LAYOUT = [("stack", "bio")]
TABLE = {
  "lora": adapters.lora(2, alpha=3, layout=LAYOUT),
  "pissa": adapters.lora(2, alpha=3, initial="pissa", layout=LAYOUT),
  "dora": adapters.dora(2, alpha=3, layout=LAYOUT),
  "dora of pissa": adapters.dora(2, initial="pissa", where="w"),
  "outputs": adapters.ia3(layout=LAYOUT),
  "inputs": adapters.ia3("inputs", layout=LAYOUT),
  "rosa": adapters.rosa(2, MASKS, alpha=3),
  "sparse": adapters.rosa(0, MASKS),
}
X = draw(3, 4, 6, seed=3)


@functools.cache
def drawn(name):
  return start(TABLE[name], PARAMS)


def merged(name, theta):
  return X @ TABLE[name].apply(PARAMS, theta, drawn(name)[1])["w"]


def part_of(name, theta):
  return adapters.parts(TABLE[name], PARAMS, theta, drawn(name)[1])["w"]


def factored(name, theta, **options):
  kernel = PARAMS["w"]
  return adapters.dense(X, kernel, part_of(name, theta), **options)


@pytest.mark.parametrize("name", TABLE)
def test_outputs_and_gradients(name):
  ways = ("auto", "dense")[: 1 + (name in ("rosa", "sparse"))]
  forms = [
    functools.partial(merged, name),
    *(functools.partial(factored, name, gradient=way) for way in ways),
  ]

  @jax.jit
  def work(theta):
    loss = lambda f: lambda theta: jnp.sum(jnp.sin(f(theta)))
    return [(f(theta), jax.grad(loss(f))(theta)) for f in forms]

  expected, *found = work(drawn(name)[0])
  for one in found:
    close(one, expected, rtol=1e-4, atol=1e-4)


def test_inputs_have_gradients_and_the_kernel_has_none():
  theta, fixed = drawn("rosa")

  @jax.jit
  def slopes(x, w):
    part = part_of("rosa", theta)
    kernel = TABLE["rosa"].merge(PARAMS, theta, fixed)["w"]
    f = lambda x, w: jnp.sum(jnp.sin(adapters.dense(x, w, part)))
    plain = lambda w: jnp.sum(adapters.dense(x, w))
    whole = lambda x: jnp.sum(jnp.sin(x @ kernel))
    return jax.grad(f, (0, 1))(x, w), jax.grad(plain)(w), jax.grad(whole)(x)

  (of_x, of_w), of_plain, expected = slopes(X, PARAMS["w"])
  assert not np.any(of_w)
  assert np.any(of_plain)
  close(of_x, expected, rtol=1e-4, atol=1e-4)


def test_scanned_layers():
  theta, fixed = drawn("dora")

  @jax.jit
  def scanned(theta):
    part = adapters.parts(TABLE["dora"], PARAMS, theta, fixed)["stack"]
    step = lambda carry, layer: (carry, adapters.dense(X, *layer))
    _, found = jax.lax.scan(step, 0, (jnp.asarray(PARAMS["stack"]), part))
    return found, TABLE["dora"].merge(PARAMS, theta, fixed)["stack"]

  found, kernels = scanned(theta)
  expected = np.einsum("abi,lio->labo", X, kernels)
  close(found, expected, rtol=1e-4, atol=1e-4)


def test_half_precision():
  half = lambda x: jnp.asarray(x.astype(jnp.bfloat16))

  @jax.jit
  def work(theta):
    part = part_of("dora", theta)
    y = adapters.dense(half(X), half(PARAMS["w"]), part)
    return y, merged("dora", theta)

  found, expected = work(drawn("dora")[0])
  assert found.dtype == jnp.bfloat16
  close(found, expected, rtol=0.1, atol=0.1)


def test_dropout():
  theta, fixed = drawn("lora")
  split = functools.partial(
    adapters.parts, TABLE["lora"], PARAMS, theta, fixed, dropout=0.25
  )
  kernel, many = PARAMS["w"], np.ones((4000, 6), np.float32)

  @jax.jit
  def dense(key):
    return adapters.dense(many, jnp.asarray(kernel), split(key=key)["w"])

  found = np.asarray(dense(jax.random.key(1)), np.float64)
  np.testing.assert_array_equal(found, dense(jax.random.key(1)))
  assert np.any(found != dense(jax.random.key(2)))
  # The low-rank path loses a quarter of its inputs, the others are divided by
  # 3/4, and the mean is what it is without dropout; the base loses nothing.
  a, b = (theta[f"w/lora_{x}"].astype(np.float64) for x in "ab")
  delta = found - many @ kernel
  error = np.abs(delta.mean(axis=0) - 1.5 * (a @ b).sum(axis=0))
  assert np.max(error / (delta.std(axis=0) / np.sqrt(4000))) < 4
  # Of six inputs 2^6 choices may remain.
  choices = np.indices((2,) * 6).reshape(6, -1).T
  known = 1.5 / 0.75 * choices @ a @ b
  gap = np.abs(delta[:50, None] - known).max(axis=-1).min(axis=-1)
  assert gap.max() < 1e-4
  assert split(key=jax.random.key(1))["stack"].key.shape == (2,)
  with pytest.raises(ValueError, match="needs key="):
    split()


def test_bad_input():
  kernel = PARAMS["w"]
  with pytest.raises(ValueError, match=r"\(3, 4, 6\) and \(5, 6\)"):
    adapters.dense(X, PARAMS["w"].T)
  part = part_of("rosa", drawn("rosa")[0])
  with pytest.raises(ValueError, match="none of auto, dense"):
    adapters.dense(X, kernel, part, gradient="sparse")
  twice = adapters.chain(TABLE["lora"], TABLE["lora"])
  with pytest.raises(ValueError, match="no factored form together"):
    adapters.parts(twice, PARAMS, *start(twice, PARAMS))
  own = TABLE["lora"]._replace(apply=lambda params, theta, fixed: params)
  with pytest.raises(ValueError, match="was not made by this package"):
    adapters.parts(own, PARAMS, {}, {})
