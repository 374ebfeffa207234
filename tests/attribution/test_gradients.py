"""Gradients and paths: published values, completeness, invariances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import attribution, models
from effjax.attribution import gradients, noise
from tests.attribution import golden

GOLDEN = golden.load()
PARAMS = golden.params()
X, TARGET = GOLDEN["x"], GOLDEN["target"]
KEY = jax.random.key(0)
CASES = [n for n in GOLDEN if n.startswith("ig_") and not n.endswith("_delta")]


def close(ours, name, atol=2e-6):
  np.testing.assert_allclose(ours, GOLDEN[name], rtol=0, atol=atol)


def explain(method, *args, **kwargs):
  return method(*args, golden.network, PARAMS, X, TARGET, **kwargs)


def test_gradients_agree_with_captum():
  close(jax.jit(golden.network)(PARAMS, X), "logits")
  close(explain(attribution.saliency), "saliency_abs")
  close(explain(attribution.saliency, abs=False), "saliency_signed")
  close(explain(attribution.input_x_gradient), "inputxgradient")


@pytest.mark.parametrize("case", CASES)
def test_integrated_gradients_agree_with_captum(case):
  parts = case.split("_")
  rule = "gauss_legendre" if parts[1] == "gausslegendre" else parts[2]
  steps = int(next(p for p in parts if p[0] == "n")[1:])
  baseline = GOLDEN["baseline"] if "base" in parts else None
  maps = explain(
    attribution.integrated_gradients,
    baseline=baseline,
    steps=steps,
    rule=rule,
    multiply="nomult" not in parts,
    chunk_size=7,
  )
  close(maps, case)
  if "nomult" in parts:
    return
  delta = explain(attribution.convergence_delta, maps=maps, baseline=baseline)
  close(delta, f"{case}_delta")


@functools.partial(jax.jit, static_argnums=(0, 1))
def under_noise(method, name, noise):
  signed = lambda z: attribution.saliency(
    golden.network, PARAMS, z, TARGET, abs=name == "nt_smoothgrad_abs"
  )
  return method(signed, jnp.asarray(X), lambda i: noise[:, i], 6, chunk_size=4)


@pytest.mark.parametrize(
  ("name", "method"),
  [
    ("nt_smoothgrad", noise.mean_over_noise),
    ("nt_smoothgrad_abs", noise.mean_over_noise),
    (
      "nt_smoothgrad_sq",
      functools.partial(noise.mean_over_noise, squared=True),
    ),
    ("nt_vargrad", noise.variance_over_noise),
  ],
)
def test_noise_agrees_with_captum(name, method):
  close(under_noise(method, name, jnp.asarray(GOLDEN[f"{name}_noise"])), name)


def test_gradient_shap_agrees_with_captum():
  chosen = GOLDEN["gshap_baselines"][GOLDEN["gshap_choice"].reshape(4, 5)]
  draws = GOLDEN["gshap_noise"], chosen, GOLDEN["gshap_alpha"]

  @jax.jit
  def compute(draws, x):
    draw = lambda i: tuple(array[:, i] for array in draws)
    slope = lambda z: attribution.saliency(
      golden.network, PARAMS, z, TARGET, abs=False
    )
    return noise.mean_over_paths(slope, x, draw, 5)

  close(compute(draws, X), "gshap")


def smooth(params, x):
  """A smooth function, whose integrals converge fast."""
  return jnp.tanh(x.reshape(x.shape[0], -1) @ params) ** 2


RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(6, 3)).astype(np.float32) / 3
SMALL = RNG.normal(size=(5, 2, 3)).astype(np.float32)
CLASSES = np.array([0, 2, 1, 1, 0])
METHODS = {
  "saliency": attribution.saliency,
  "input_x_gradient": attribution.input_x_gradient,
  "integrated_gradients": functools.partial(
    attribution.integrated_gradients, steps=7
  ),
  "smoothgrad": functools.partial(attribution.smoothgrad, KEY, copies=7),
  "vargrad": functools.partial(attribution.vargrad, KEY, copies=7),
  "gradient_shap": functools.partial(
    attribution.gradient_shap, KEY, copies=7, sigma=0.1
  ),
}
CHUNKED = [n for n in METHODS if "saliency" != n != "input_x_gradient"]
# What takes long to compile is also covered by the golden values.
LONG = ("smoothgrad", "vargrad", "gradient_shap")


def marked(names):
  """Mark the methods that take long to compile."""
  return [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
    for name in names
  ]


every_method = pytest.mark.parametrize("name", marked(METHODS))


@pytest.mark.parametrize("rule", gradients.RULES)
@pytest.mark.parametrize("steps", [2, 5])
def test_points_integrate_what_the_rule_promises(rule, steps):
  points, weights = gradients.path_points(rule, steps)
  assert points.min() >= 0
  assert points.max() <= 1
  total = 1 - 1 / steps if rule == "trapezoid" else 1
  np.testing.assert_allclose(weights.sum(), total, rtol=1e-14)
  if rule in ("middle", "gauss_legendre"):
    np.testing.assert_allclose(weights @ points, 0.5, rtol=1e-14)
  if rule == "gauss_legendre":
    power = 2 * steps - 1
    moment = weights @ points**power
    np.testing.assert_allclose(moment, 1 / (power + 1), rtol=1e-13)


@pytest.mark.parametrize("rule", gradients.RULES)
def test_integrated_gradients_are_complete(rule):
  options = {"baseline": SMALL[::-1], "rule": rule, "steps": 300}
  maps = attribution.integrated_gradients(
    smooth, WEIGHTS, SMALL, CLASSES, normalise_weights=True, **options
  )
  delta = attribution.convergence_delta(
    smooth, WEIGHTS, SMALL, CLASSES, maps, baseline=SMALL[::-1]
  )
  ends = 1e-2 if rule in ("left", "right", "trapezoid") else 1e-4
  np.testing.assert_allclose(delta, 0, atol=ends)
  assert np.abs(np.sum(maps, (1, 2))).max() > 0.1


def test_gradients_are_float64_where_x_is():
  with jax.enable_x64(True):
    weights, x = WEIGHTS.astype(np.float64), SMALL.astype(np.float64)
    maps = attribution.integrated_gradients(smooth, weights, x, CLASSES)
    delta = attribution.convergence_delta(smooth, weights, x, CLASSES, maps)
  assert maps.dtype == np.float64
  np.testing.assert_allclose(delta, 0, atol=1e-12)


@functools.cache
def variants(name):
  """Returns what one program computes in several ways."""
  method = METHODS[name]
  scales = np.arange(1, 6, dtype=np.float32)[:, None, None]
  one = lambda p, x, t: method(smooth, p, x[None], t[None])[0]

  @jax.jit
  def compute(weights, x, target):
    run = functools.partial(method, smooth)
    found = {
      "plain": run(weights, x, target),
      "bfloat16": run(
        weights.astype(jnp.bfloat16), x.astype(jnp.bfloat16), target
      ),
      "parameters": jax.vmap(one)(weights[None] * scales, x, target),
    }
    if name in CHUNKED:
      found["chunks"] = run(weights, x[:2], target[:2], chunk_size=3)
    return found

  found = compute(WEIGHTS, SMALL, CLASSES)
  return jax.tree.map(np.asarray, found)


@every_method
def test_eager_equals_jit_and_types_stay(name):
  maps = METHODS[name](smooth, WEIGHTS, SMALL, CLASSES)
  found = variants(name)
  assert maps.shape == SMALL.shape
  assert maps.dtype == SMALL.dtype
  same(found["plain"], maps)
  assert found["bfloat16"].dtype == jnp.bfloat16
  np.testing.assert_allclose(
    found["bfloat16"].astype(np.float32),
    maps,
    atol=0.05 * float(np.abs(maps).max()) + 0.02,
  )


def same(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every_method
def test_parameters_of_each_example(name):
  found = variants(name)
  same(found["parameters"][0], found["plain"][0])
  assert np.abs(found["parameters"] - found["plain"]).max() > 1e-3


@pytest.mark.parametrize("name", marked(CHUNKED))
def test_chunks_and_batches_change_nothing(name):
  found = variants(name)
  same(found["chunks"], found["plain"][:2])


def test_random_methods_depend_on_their_key():
  for name in ("smoothgrad", "vargrad", "gradient_shap"):
    method = getattr(attribution, name)
    args = (smooth, WEIGHTS, SMALL, CLASSES)
    options = {"sigma": 0.3, "copies": 3}
    keys = map(jax.random.key, (0, 0, 1))
    a, b, c = (np.asarray(method(key, *args, **options)) for key in keys)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_smoothgrad_of_other_methods_and_no_noise():
  args = (smooth, WEIGHTS, SMALL, CLASSES)
  options = {"sigma": 0.0, "copies": 3, "method": attribution.input_x_gradient}
  plain = attribution.input_x_gradient(*args)
  maps = attribution.smoothgrad(KEY, *args, **options)
  np.testing.assert_allclose(maps, plain, rtol=1e-5)
  maps = attribution.smoothgrad(KEY, *args, squared=True, **options)
  np.testing.assert_allclose(maps, plain**2, rtol=1e-5)
  variance = attribution.vargrad(KEY, *args, **options)
  np.testing.assert_allclose(variance, 0, atol=1e-12)


def test_smoothgrad_takes_a_sigma_for_each_example():
  args = (smooth, WEIGHTS, SMALL, CLASSES)
  sigma = np.array([0.0, 1, 0, 0, 0], np.float32)[:, None, None]
  maps = attribution.smoothgrad(KEY, *args, sigma=sigma, copies=3)
  plain = attribution.saliency(*args, abs=False)
  same = np.isclose(maps, plain, rtol=1e-5).all((1, 2))
  assert same.tolist() == [True, False, True, True, True]


def test_small_variances_do_not_cancel():
  """A large gradient with little variance."""
  f = lambda w, x: w * x + jnp.sin(x)
  args = (f, jnp.float32(1000.0), jnp.zeros((1, 1)), 0)
  options = {"sigma": 0.1, "copies": 2000}
  variance = attribution.vargrad(KEY, *args, **options)
  # cos(x) for x ~ N(0, s^2) has variance (1 - exp(-s^2))^2 / 2; the sum in
  # float32 is good to 1e-7 of 1000.
  np.testing.assert_allclose(variance, (1 - np.exp(-0.01)) ** 2 / 2, atol=2e-5)


def test_gradient_shap_of_a_linear_model():
  """Its expectation is (x - mean baseline) w, exact with one baseline."""
  f = lambda w, x: x.reshape(x.shape[0], -1) @ w
  baseline = np.ones((1, 2, 3), np.float32)
  maps = attribution.gradient_shap(
    KEY, f, WEIGHTS, SMALL, CLASSES, baselines=baseline, copies=3
  )
  slope = WEIGHTS[:, CLASSES].T.reshape(5, 2, 3)
  np.testing.assert_allclose(maps, (SMALL - 1) * slope, rtol=2e-5, atol=1e-6)
  pool = np.concatenate([baseline, -baseline])
  maps = attribution.gradient_shap(
    KEY, f, WEIGHTS, SMALL, CLASSES, baselines=pool, copies=4000
  )
  np.testing.assert_allclose(maps, SMALL * slope, atol=0.06)


@pytest.mark.parametrize(
  "name", ["cnn", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def test_models_of_the_library(name):
  sizes = {"features": (4, 6), "hidden": 8} if name == "cnn" else {"width": 4}
  module = models.build(name, outputs=3, **sizes)
  x = RNG.normal(size=(2, 16, 16, 3)).astype(np.float32)
  variables = golden.variables(module, x)
  f = lambda variables, x: module.apply(variables, x, train=False)

  @jax.jit
  def run(variables, x, target):
    maps = attribution.integrated_gradients(
      f, variables, x, target, steps=64, rule="middle", chunk_size=16
    )
    delta = attribution.convergence_delta(f, variables, x, target, maps)
    return maps, delta, f(variables, x) - f(variables, 0 * x)

  target = np.array([2, 0])
  maps, delta, change = run(variables, x, target)
  change = np.asarray(change)[np.arange(2), target]
  np.testing.assert_allclose(delta, 0, atol=0.1 * np.abs(change).max())
  np.testing.assert_allclose(maps.sum((1, 2, 3)) - delta, change, rtol=1e-3)


def test_parameters_may_hold_functions():
  """As those of equinox modules do."""
  params = {"weights": WEIGHTS, "activation": jnp.tanh, "power": 2}
  f = lambda p, x: (
    p["activation"](x.reshape(x.shape[0], -1) @ p["weights"]) ** 2
  )
  maps = attribution.saliency(f, params, SMALL, CLASSES)
  expected = attribution.saliency(smooth, WEIGHTS, SMALL, CLASSES)
  np.testing.assert_allclose(maps, expected, rtol=1e-6)


@pytest.mark.parametrize("how", attribution.REDUCTIONS)
def test_reductions(how):
  maps = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  expected = {
    "sum": maps.sum(1),
    "abs_sum": np.abs(maps.sum(1)),
    "sum_abs": np.abs(maps).sum(1),
    "max_abs": np.abs(maps).max(1),
  }[how]
  ours = attribution.reduce_channels(maps, how, axis=1)
  np.testing.assert_allclose(ours, expected, rtol=1e-6)


FEW = {"rule": "trapezoid", "steps": 1}


def test_mistakes_are_named():
  args = (smooth, WEIGHTS, SMALL, CLASSES)
  for method, message, arguments, options in [
    ("saliency", "0 to 2", (*args[:3], 3), {}),
    ("saliency", "0 to 2", (*args[:3], -1), {}),
    ("saliency", "one for each row", (*args[:3], [0, 1]), {}),
    ("saliency", "one for each row", (*args[:3], 0.5), {}),
    ("saliency", "allow 0 to 2", (*args[:3], 2**40), {}),
    ("saliency", "one for each row", (*args[:3], "a"), {}),
    ("saliency", "one for each row", (*args[:3], 2**70), {}),
    ("saliency", "one for each row", (*args[:3], None), {}),
    ("saliency", "floating", (*args[:2], np.ones((5, 6), int), 0), {}),
    ("saliency", "f must return", (lambda w, x: x, *args[1:]), {}),
    ("integrated_gradients", "rule must be", args, {"rule": "simpson"}),
    ("integrated_gradients", "at least 2, got", args, FEW),
    ("integrated_gradients", "at least 1, got", args, {"steps": 0}),
    ("integrated_gradients", "at least 1, got", args, {"steps": 2.5}),
    ("integrated_gradients", "baseline must", args, {"baseline": np.ones(4)}),
    ("integrated_gradients", "chunk_size", args, {"chunk_size": 0}),
    ("integrated_gradients", "chunk_size", args, {"chunk_size": 2.5}),
    ("convergence_delta", "shape of x", (*args, np.ones(3)), {}),
    ("smoothgrad", "copies", (KEY, *args), {"copies": 0}),
    ("smoothgrad", "copies must be a whole", (KEY, *args), {"copies": 2.0}),
    ("vargrad", "chunk_size must be", (KEY, *args), {"chunk_size": 2.5}),
    ("smoothgrad", "sigma", (KEY, *args), {"sigma": np.ones(4)}),
    ("gradient_shap", "baselines", (KEY, *args), {"baselines": np.ones(3)}),
  ]:
    with pytest.raises(ValueError, match=message):
      getattr(attribution, method)(*arguments, **options)
  with pytest.raises(ValueError, match="how must be"):
    attribution.reduce_channels(np.ones((1, 2)), "mean")


@pytest.mark.parametrize("kind", [np.int32, np.uint8, bool])
@pytest.mark.parametrize("how", attribution.REDUCTIONS)
def test_maps_that_are_not_floating_are_named(how, kind):
  with pytest.raises(ValueError, match=r"maps must be .* floating .*\[2, 3\]"):
    attribution.reduce_channels(np.ones((2, 3), kind), how)


def test_numbers_and_flags_among_the_parameters_are_kept():
  def f(params, x):
    if params["inference"]:
      x = x.reshape(-1, params["rows"], 2).sum(axis=1)
    return x * params["scale"] @ params["w"].astype(x.dtype)

  params = {"w": jnp.eye(2), "inference": True, "rows": 2, "scale": 3.0}
  x = jnp.ones((1, 4))
  for method in (attribution.saliency, attribution.guided_backprop):
    assert method(f, params, x, 0).tolist() == [[3.0, 0.0, 3.0, 0.0]]
    # Equal, but of another type: the program is another one.
    half = method(f, {**params, "scale": 3}, x.astype(jnp.bfloat16), 0)
    assert half.dtype == jnp.bfloat16
