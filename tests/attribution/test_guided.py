"""Guided backpropagation and deconvolution against replaced rectifiers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from effjax import attribution
from tests.attribution import golden, networks

METHODS = {
  "guided": attribution.guided_backprop,
  "deconvolution": attribution.deconvolution,
}
RECTIFIERS = {
  "relu": jax.nn.relu,
  "maximum": lambda x: jnp.maximum(x, 0),
  "maximum_of_array": lambda x: jnp.maximum(jnp.zeros_like(x), x),
  "where": lambda x: jnp.where(x > 0, x, 0),
  "where_not": lambda x: jnp.where(x <= 0, jnp.zeros_like(x), x),
  "times_step": lambda x: x * (x > 0).astype(x.dtype),
  "compiled": jax.jit(lambda x: jnp.maximum(x, 0)),
  "remat": jax.checkpoint(jax.nn.relu),
  "relu6": jax.nn.relu6,
  "clip": lambda x: jnp.clip(x, 0, 6),
  "clamp": lambda x: jax.lax.clamp(0.0, x, 6.0),
}
OTHERS = {
  "leaky": jax.nn.leaky_relu,
  "softplus": jax.nn.softplus,
  "gelu": jax.nn.gelu,
  "silu": jax.nn.silu,
  "elu": jax.nn.elu,
  "tanh": jnp.tanh,
  "absolute": jnp.abs,
  "shifted": lambda x: jnp.maximum(x, 1),
  "identity": lambda x: x,
}


def replaced(method):
  """Returns a rectifier whose derivative is the method's rule."""

  @jax.custom_vjp
  def relu(x):
    return jnp.maximum(x, 0)

  def backward(x, g):
    gate = x > 0 if method == "guided" else jnp.ones_like(x, bool)
    return (jnp.where(gate, jnp.maximum(g, 0), 0),)

  relu.defvjp(lambda x: (relu(x), x), backward)
  return relu


def gradient(f, params, x, target):
  total = lambda x: jnp.sum(f(params, x)[jnp.arange(len(x)), target])
  return jax.grad(total)(x)


def test_agrees_with_captum():
  values = golden.load()

  @jax.jit
  def compute(params, x):
    args = golden.network, params, x, values["target"]
    return [method(*args) for method in METHODS.values()]

  guided, deconvolution = compute(golden.params(), values["x"])
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
  close(guided, values["guided_backprop"])
  close(deconvolution, values["deconvolution"])


# Without a gate, what ties in a pool get would matter: the first of them takes
# all of it here, while `jnp.maximum` shares it.
@pytest.mark.parametrize(
  ("method", "name"),
  [("guided", "resnet"), ("deconvolution", "mobilenet")],
)
def test_is_the_gradient_of_the_network_with_replaced_rectifiers(
  method, name, monkeypatch
):
  f, params, x, target, *_ = networks.linen(name)
  maps = METHODS[method](f, params, x, target)
  monkeypatch.setattr(nn, "relu", replaced(method))
  # Not the compiled function, which holds the rectifiers of before.
  f = f.__wrapped__
  expected = jax.jit(functools.partial(gradient, f))(params, x, target)
  assert np.abs(expected).max() > 1e-3
  np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RECTIFIERS)
def test_finds_rectifiers_of_any_form(name):
  x = jnp.array([[-1.5, 0.0, 0.5, 2.0, 7.0]])
  weights = jnp.array([3.0, 3.0, -2.0, 4.0, 5.0])

  def f(weights, x):
    return jnp.sum(RECTIFIERS[name](x) * weights[None], axis=1, keepdims=True)

  capped = name in ("relu6", "clip", "clamp")
  guided = [0.0, 0.0, 0.0, 4.0, 0.0 if capped else 5.0]
  maps = attribution.guided_backprop(f, weights, x, 0)
  np.testing.assert_array_equal(maps, [guided])
  maps = attribution.deconvolution(f, weights, x, 0)
  np.testing.assert_array_equal(maps, [[3.0, 3.0, 0.0, 4.0, 5.0]])


@pytest.mark.parametrize("name", OTHERS)
def test_leaves_other_functions_alone(name):
  x = jnp.array([[-1.5, -0.1, 0.5, 2.0, 7.0]])
  f = lambda w, x: OTHERS[name](x) @ w
  w = jnp.array([[1.0], [-1.0], [2.0], [-3.0], [1.0]])
  maps = attribution.guided_backprop(f, w, x, 0)
  expected = jax.jit(functools.partial(gradient, f))(w, x, 0)
  np.testing.assert_allclose(maps, expected, rtol=1e-5)


def test_one_pruned_copy_for_each_example():
  networks.assert_explains_copies(attribution.guided_backprop)


def test_a_model_that_closes_over_its_parameters():
  f, params, x, target = networks.plain_case()
  closed = lambda _, x: f(params, x)
  np.testing.assert_allclose(
    attribution.guided_backprop(closed, None, x, target),
    attribution.guided_backprop(f, params, x, target),
    rtol=1e-6,
  )


def test_half_precision_keeps_its_type():
  f = lambda w, x: jax.nn.relu(x @ w)
  x = jnp.ones((1, 2), jnp.bfloat16)
  maps = attribution.guided_backprop(f, jnp.eye(2, dtype=jnp.bfloat16), x, 0)
  assert maps.dtype == jnp.bfloat16
  assert maps.tolist() == [[1, 0]]


def test_errors_name_the_primitive_and_the_way_out():
  x = jnp.ones((1, 2))

  def loop(w, x):
    step = lambda h, _: (jax.nn.relu(h @ w), None)
    return jax.lax.scan(step, x, length=2)[0]

  with pytest.raises(ValueError, match=r"'scan'.*unrolled"):
    attribution.guided_backprop(loop, jnp.eye(2), x, 0)
  with pytest.raises(ValueError, match="do not depend on x"):
    attribution.guided_backprop(lambda w, x: w, x, x, 0)
  with pytest.raises(ValueError, match="target runs from 2"):
    attribution.deconvolution(lambda w, x: x @ w, jnp.eye(2), x, 2)


class Normed(nn.Module):
  """Two normalised layers, with rectifiers of their own."""

  norm: str

  @nn.compact
  def __call__(self, x):
    for _ in range(2):
      x = nn.Conv(8, (3, 3))(x)
      if self.norm == "group":
        x = nn.GroupNorm(2)(x)
      elif self.norm == "layer":
        x = nn.LayerNorm()(x)
      elif self.norm == "standardize":
        x = jax.nn.standardize(x)
      else:
        x = x * jax.nn.hard_sigmoid(jnp.mean(x, axis=(1, 2), keepdims=True))
      x = nn.relu(x)
    return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.parametrize(
  ("norm", "method"),
  [
    ("group", "guided"),
    ("layer", "deconvolution"),
    ("standardize", "guided"),
    ("gate", "deconvolution"),
  ],
)
def test_variances_and_gates_are_no_rectifiers(norm, method, monkeypatch):
  model = Normed(norm)
  x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
  params = model.init(jax.random.key(1), x)
  target = jnp.array([0, 2])
  maps = METHODS[method](model.apply, params, x, target)
  monkeypatch.setattr(nn, "relu", replaced(method))
  expected = gradient(model.apply, params, x, target)
  scale = np.abs(expected).max()
  assert scale > 1e-5
  np.testing.assert_allclose(maps / scale, expected / scale, atol=1e-5)


def test_a_variance_of_a_part_is_no_rectifier():
  mask = jnp.array([[True, True, False]])

  def f(w, x):
    mean = lambda x: jnp.mean(x, axis=1, keepdims=True, where=mask)
    return x * jnp.maximum(mean(jnp.square(x)) - jnp.square(mean(x)), 0) @ w

  w, x = jnp.array([[1.0], [-2.0], [1.0]]), jnp.array([[1.0, 3.0, 2.0]])
  maps = attribution.guided_backprop(f, w, x, 0)
  np.testing.assert_allclose(maps, gradient(f, w, x, 0), rtol=1e-5)


def test_sums_of_squares_are_no_rectifiers():
  def f(w, x):
    centred = x - jnp.mean(x, axis=1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=1, keepdims=True)
    variance = variance + jnp.sum(x**4, axis=1, keepdims=True)
    return x * jnp.maximum(variance, 0) @ w

  w, x = jnp.array([[1.0], [-2.0]]), jnp.array([[1.0, 3.0]])
  maps = attribution.guided_backprop(f, w, x, 0)
  np.testing.assert_allclose(maps, gradient(f, w, x, 0), rtol=1e-5)
  # Odd powers and differences with anything but a mean may be negative.
  for inner in (
    lambda x: x**3,
    lambda x: x * x - 2.0,
    lambda x: x * x - (3.0 - x) ** 2,
  ):
    f = lambda w, x, inner=inner: jax.nn.relu(inner(x)) @ w
    guided = attribution.guided_backprop(f, w, x[:, ::-1], 0)
    assert guided[0, 0] > 0
    assert guided[0, 1] == 0


def test_zeros_of_an_array_make_a_rectifier():
  zeros = np.zeros((1, 2), np.float32)
  f = lambda w, x: jnp.maximum(x, zeros) @ w
  w, x = jnp.array([[1.0], [-2.0]]), jnp.array([[1.0, 3.0]])
  maps = attribution.guided_backprop(f, w, x, 0)
  assert maps.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("method", METHODS)
def test_an_identity_keeps_its_own_derivative(method):
  @jax.custom_vjp
  def turned(x):
    return x

  turned.defvjp(lambda x: (x, None), lambda _, g: (-g,))
  build = lambda relu: lambda w, x: turned(relu(turned(x)) @ w)
  w, x = jnp.array([[1.0], [-2.0]]), jnp.array([[1.0, 3.0]])
  maps = METHODS[method](build(jax.nn.relu), w, x, 0)
  expected = gradient(build(replaced(method)), w, x, 0)
  np.testing.assert_array_equal(maps, expected)
  assert np.any(np.asarray(maps))
