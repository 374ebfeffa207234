"""Values and derivatives of the building blocks against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from effjax.models import layers

# A part of the largest value: sums of some hundred float32 terms, taken in
# another order by every processor.
_ROUNDING = 4e-6

# (image, window, strides, padding, inputs, outputs); every branch of the
# products occurs: few pixels, one channel, image smaller than the window, the
# kernel gradient as a convolution (windows of 64 numbers and more), patches,
# parts of a batch of large images, the input gradient of few channels, and the
# row too many of kernels of more than 256 channels by channels.
CONVOLUTIONS = [
  ((2, 2), (3, 3), 1, 1, 8, 5),
  ((4, 4), (3, 3), 2, 1, 3, 8),
  ((4, 3), (1, 1), 2, 0, 6, 4),
  ((9, 12), (3, 3), 1, "SAME", 8, 8),
  ((12, 9), (3, 3), 1, "VALID", 8, 4),
  ((8, 8), (1, 1), 1, 0, 8, 4),
  ((9, 10), (3, 3), 2, 1, 8, 6),
  ((13, 12), (7, 7), 2, 3, 3, 4),
  ((7, 8), (3, 3), 2, "SAME", 1, 4),
  ((9, 9), (2, 3), (1, 2), ((0, 2), (1, 0)), 4, 4),
  ((10, 10), (3, 3), 1, ((2, 0), (0, 1)), 8, 8),
  ((6, 6), (5, 5), 3, (2, 0), 2, 3),
  ((5, 6), (3, 3), 1, 2, 8, 4),
  ((16, 17), (3, 3), 1, 1, 8, 4),
  ((17, 16), (3, 4), (2, 3), ((0, 1), (2, 0)), 8, 4),
  ((8, 9), (1, 1), 2, 0, 3, 8),
  ((9, 10), (3, 3), 2, ((-1, 2), (1, -1)), 3, 8),
  ((11, 8), (3, 2), (2, 1), ((0, 4), (3, 0)), 2, 6),
  ((9, 8), (3, 3), 1, 1, 24, 16),
  ((12, 9), (5, 3), 1, "SAME", 20, 20),
]


def _operands(
  image, window, inputs, outputs, dtype=np.float32, groups=1, batch=2
):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(batch, *image, inputs))
  kernel = rng.normal(size=(*window, inputs // groups, outputs))
  return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def _value_and_gradients(implementation, x, kernel, **options):
  def convolve(x, kernel):
    return layers.convolution(
      x, kernel, implementation=implementation, **options
    )

  def run(x, kernel):
    y, pullback = jax.vjp(convolve, x, kernel)
    weights = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
    return y, *pullback(weights.astype(y.dtype))

  return jax.jit(run)(x, kernel)


def _assert_close(actual, expected, tolerance):
  for a, b in zip(actual, expected, strict=True):
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize(
  ("image", "window", "strides", "padding", "inputs", "outputs"), CONVOLUTIONS
)
def test_products_equal_xla(image, window, strides, padding, inputs, outputs):
  operands = _operands(image, window, inputs, outputs, batch=8)
  options = {"strides": strides, "padding": padding}
  expected = _value_and_gradients("xla", *operands, **options)
  for implementation in ("products", "patches"):
    found = _value_and_gradients(implementation, *operands, **options)
    _assert_close(found, expected, _ROUNDING)


@pytest.mark.parametrize(
  ("image", "window", "strides", "padding"),
  [
    ((6, 7), (3, 3), 1, 1),
    ((7, 6), (3, 3), 2, 1),
    ((8, 8), (5, 3), (2, 1), "SAME"),
    ((2, 2), (3, 3), 1, ((0, 2), (1, 1))),
    ((17, 3), (3, 3), 1, 1),
    ((33, 4), (2, 3), (1, 3), ((0, 1), (2, 2))),
    ((5, 6), (1, 1), 2, 0),
  ],
)
def test_depthwise_equals_xla(image, window, strides, padding):
  operands = _operands(image, window, 6, 6, groups=6)
  options = {"strides": strides, "padding": padding, "groups": 6}
  _assert_close(
    _value_and_gradients("products", *operands, **options),
    _value_and_gradients("xla", *operands, **options),
    _ROUNDING,
  )


@pytest.mark.parametrize(("groups", "outputs"), [(2, 8), (4, 8)])
def test_groups_are_separate_convolutions(groups, outputs):
  x, kernel = _operands((5, 5), (3, 3), 4, outputs, groups=groups)
  y = layers.convolution(x, kernel, groups=groups)
  parts = [
    layers.convolution(a, b)
    for a, b in zip(
      jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True
    )
  ]
  np.testing.assert_allclose(y, jnp.concatenate(parts, -1), atol=1e-5)


@pytest.mark.parametrize(
  ("image", "channels", "groups"),
  [((4, 4), 8, 1), ((4, 4), 8, 8), ((9, 9), 4, 1)],
)
def test_bfloat16_keeps_dtype_and_sums_in_float32(image, channels, groups):
  x, kernel = _operands(image, (3, 3), channels, channels, jnp.bfloat16, groups)
  options = {"padding": 1, "groups": groups}
  exact = _value_and_gradients(
    "xla", x.astype(jnp.float32), kernel.astype(jnp.float32), **options
  )
  rounded = _value_and_gradients("products", x, kernel, **options)
  # One rounding of the result (2^-9) and one of the incoming gradient.
  _assert_close(rounded, [a.astype(jnp.bfloat16) for a in exact], 2**-7)


def test_float64_stays_float64():
  with jax.enable_x64(True):
    operands = _operands((4, 4), (3, 3), 4, 4, np.float64)
    _assert_close(
      _value_and_gradients("products", *operands),
      _value_and_gradients("xla", *operands),
      1e-14,
    )


@pytest.mark.parametrize(
  ("image", "channels", "groups"),
  [((9, 9), 8, 1), ((9, 9), 8, 8), ((16, 16), 8, 1)],
)
def test_vmap_and_map_equal_a_loop(image, channels, groups):
  x, kernel = _operands(
    image, (3, 3), channels, channels, groups=groups, batch=8
  )
  xs = jnp.stack([x, 2 * x, x + 1])
  kernels = jnp.stack([kernel, kernel - 1, 3 * kernel])

  @jax.jit
  def gradients(x, kernel):
    return jax.grad(
      lambda x, k: jnp.sum(layers.convolution(x, k, groups=groups) ** 2),
      argnums=(0, 1),
    )(x, kernel)

  loop = [gradients(*each) for each in zip(xs, kernels, strict=True)]
  loop = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
  mapped = jax.lax.map(lambda each: gradients(*each), (xs, kernels))
  for batched in (jax.vmap(gradients)(xs, kernels), mapped):
    _assert_close(batched, loop, _ROUNDING)


@pytest.mark.parametrize(
  ("image", "groups"), [((4, 4), 1), ((5, 5), 1), ((4, 4), 8)]
)
def test_forward_mode_and_second_derivatives(image, groups):
  x, kernel = _operands(image, (3, 3), 8, 8, groups=groups)

  def loss(kernel, implementation):
    y = layers.convolution(
      x, kernel, groups=groups, implementation=implementation
    )
    return jnp.sum(jnp.sin(y))

  def curvature(implementation):
    gradient = jax.grad(loss)
    return jax.jvp(
      lambda kernel: gradient(kernel, implementation), (kernel,), (kernel,)
    )

  _assert_close(curvature("products"), curvature("xla"), 1e-5)
  _, slope = jax.jvp(lambda k: loss(k, "xla"), (kernel,), (kernel,))
  expected = jnp.vdot(jax.grad(loss)(kernel, "products"), kernel)
  np.testing.assert_allclose(slope, expected, rtol=1e-4)
  with pytest.raises(TypeError, match="custom_vjp"):
    jax.jvp(lambda k: loss(k, "products"), (kernel,), (kernel,))


@pytest.mark.parametrize(
  "options",
  [
    {"kernel_size": (3, 3), "strides": 2, "padding": 1},
    {"kernel_size": (3, 3), "padding": "VALID", "use_bias": False},
    {"kernel_size": (3, 3), "feature_group_count": 4},
    {"kernel_size": (1, 1), "feature_group_count": 2, "dtype": jnp.bfloat16},
  ],
)
def test_conv_takes_the_place_of_linen(options):
  key, x = jax.random.key(0), jnp.ones((2, 6, 6, 4))
  options = {"features": 4, "kernel_init": nn.initializers.normal(), **options}
  ours, theirs = layers.Conv(**options), nn.Conv(**options)
  variables = ours.init(key, x)
  assert jax.tree.all(
    jax.tree.map(
      lambda a, b: a.dtype == b.dtype and bool(jnp.array_equal(a, b)),
      variables,
      theirs.init(key, x),
    )
  )
  x = jax.random.normal(key, x.shape)
  _assert_close([ours.apply(variables, x)], [theirs.apply(variables, x)], 2**-7)


def test_initialisation_has_the_stated_deviation():
  kernel = layers.conv_init(jax.random.key(0), (3, 3, 64, 128))
  expected = np.sqrt(2 / (3 * 3 * 128))
  np.testing.assert_allclose(jnp.std(kernel), expected, rtol=0.02)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"padding": "same-ish"}, "padding must be"),
    ({"padding": (1, 2, 3)}, "padding must be"),
    ({"strides": 0}, "strides must be"),
    ({"groups": 3}, "do not fit"),
    ({"implementation": "fast"}, "auto, products, patches, xla"),
  ],
)
def test_mistakes_are_named(options, message):
  x, kernel = _operands((4, 4), (3, 3), 4, 4)
  with pytest.raises(ValueError, match=message):
    layers.convolution(x, kernel, **options)


def test_conv_names_indivisible_groups():
  with pytest.raises(ValueError, match="feature_group_count=3"):
    layers.Conv(4, 3, feature_group_count=3).init(
      jax.random.key(0), jnp.ones((1, 4, 4, 4))
    )


POOLS = [
  (2, None, "VALID"),
  (3, 2, 1),
  ((2, 3), 1, "SAME"),
  (3, (2, 1), ((0, 2), (1, 0))),
]


@pytest.mark.parametrize(("window", "strides", "padding"), POOLS)
def test_pools_equal_window_reductions(window, strides, padding):
  x = _operands((7, 8), (1, 1), 3, 1)[0]
  pair = lambda value: (value, value) if isinstance(value, int) else value
  steps = pair(window if strides is None else strides)
  pads = (
    padding if isinstance(padding, str) else tuple(map(pair, pair(padding)))
  )
  rows, columns = pair(window)

  def reduce(x, start, operation):
    ends = pads if isinstance(pads, str) else ((0, 0), *pads, (0, 0))
    window = (1, rows, columns, 1)
    return jax.lax.reduce_window(
      x, start, operation, window, (1, *steps, 1), ends
    )

  options = {"strides": strides, "padding": padding}
  for ours, reference in (
    (
      lambda x: layers.max_pool(x, window, **options),
      lambda x: reduce(x, -jnp.inf, jax.lax.max),
    ),
    (
      lambda x: layers.avg_pool(x, window, **options),
      lambda x: reduce(x, 0.0, jax.lax.add) / (rows * columns),
    ),
  ):
    # No ties among random numbers: the gradient is unique.
    def run(pool, x, reference=reference):
      y, pullback = jax.vjp(pool, x)
      return y, *pullback(jnp.cos(reference(x)))

    run = jax.jit(run, static_argnums=0)
    _assert_close(run(ours, x), run(reference, x), _ROUNDING)


@pytest.mark.parametrize(
  ("window", "strides", "padding"), [(2, 2, 0), (3, 2, 1)]
)
def test_the_first_of_tied_maxima_gets_the_gradient(window, strides, padding):
  # Few different numbers, and rims of -inf: almost every window has ties.
  x = jax.random.randint(jax.random.key(0), (2, 9, 8, 3), 0, 3)
  x = x.astype(jnp.float32)
  weights = jnp.arange(1.0, 1000.0)

  def total(pool, x):
    y = pool(x)
    return jnp.sum(y * weights[: y.size].reshape(y.shape))

  ours = functools.partial(
    layers.max_pool, window=window, strides=strides, padding=padding
  )
  pads = ((padding, padding),) * 2
  reference = functools.partial(
    nn.max_pool,
    window_shape=(window,) * 2,
    strides=(strides,) * 2,
    padding=pads,
  )
  np.testing.assert_array_equal(
    jax.grad(total, argnums=1)(ours, x),
    jax.grad(total, argnums=1)(reference, x),
  )


def _batch_norm(x, train, dtype=None, variables=None):
  module = layers.BatchNorm(dtype=dtype)
  if variables is None:
    variables = module.init(jax.random.key(0), x, train=True)
  return module.apply(variables, x, train=train, mutable=["batch_stats"])


def test_batch_norm_statistics():
  x = 100 + _operands((5, 4), (1, 1), 3, 1)[0]
  y, state = _batch_norm(x, train=True)
  values = np.asarray(x, np.float64).reshape(-1, 3)
  expected = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
  np.testing.assert_allclose(y.reshape(-1, 3), expected, atol=1e-4)
  stats = state["batch_stats"]
  np.testing.assert_allclose(stats["mean"], 0.1 * values.mean(0), rtol=1e-5)
  np.testing.assert_allclose(
    stats["var"], 0.9 + 0.1 * values.var(0, ddof=1), rtol=1e-4
  )


def test_batch_norm_evaluates_with_running_statistics():
  x = _operands((5, 4), (1, 1), 3, 1)[0]
  params = {"scale": jnp.array([1.0, 2, 3]), "bias": jnp.array([0.0, 1, 2])}
  stats = {"mean": jnp.array([1.0, 0, -1]), "var": jnp.array([4.0, 1, 9])}
  variables = {"params": params, "batch_stats": stats}
  y, state = _batch_norm(x, train=False, variables=variables)
  expected = (np.asarray(x) - [1, 0, -1]) / np.sqrt(np.array([4, 1, 9]) + 1e-5)
  np.testing.assert_allclose(y, expected * [1, 2, 3] + [0, 1, 2], atol=1e-5)
  assert jax.tree.all(
    jax.tree.map(jnp.array_equal, state["batch_stats"], stats)
  )


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
  x = _operands((5, 4), (1, 1), 3, 1, jnp.bfloat16)[0]
  y, state = _batch_norm(x, train=True)
  exact, _ = _batch_norm(x.astype(jnp.float32), train=True)
  assert y.dtype == jnp.bfloat16
  assert {a.dtype for a in jax.tree.leaves(state)} == {jnp.dtype("float32")}
  np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
