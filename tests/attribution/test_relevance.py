"""Relevance propagation: published values, formulas, what is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import attribution
from effjax.attribution import jaxprs, relevance, rules
from effjax.attribution.units import group
from effjax.models import layers
from tests.attribution import golden, networks

REST = (".*", rules.epsilon(1e-9))
PUBLISHED = {
  "eps1e-9": "epsilon",
  "eps1e-2": rules.epsilon(1e-2),
  "gamma025_conv": [("conv.*", rules.gamma(0.25, 1e-9)), REST],
  "a1b0_conv_nobias": [
    ("conv.*", rules.positive_weights(1e-9, bias=False)),
    REST,
  ],
}


@functools.cache
def published():
  """Returns our maps for every published case, by one program."""
  values = golden.load()

  @jax.jit
  def compute(params, x):
    explain = functools.partial(
      attribution.lrp, golden.network, params, x, values["target"]
    )
    return {case: explain(rules=rule) for case, rule in PUBLISHED.items()}

  return compute(golden.params(), values["x"])


@pytest.mark.parametrize("case", PUBLISHED)
def test_agrees_with_captum(case):
  values, maps = golden.load(), published()[case]
  expected = values[f"lrp_captum_{case}"]
  weighted = case in ("gamma025_conv", "a1b0_conv_nobias")
  atol = 1e-5 * np.abs(expected).max() if weighted else 2e-6
  np.testing.assert_allclose(maps, expected, rtol=0, atol=atol)
  if case == "eps1e-9":
    logits = values["logits"][np.arange(4), values["target"]]
    delta = logits - np.sum(maps, axis=(1, 2, 3))
    np.testing.assert_allclose(
      delta, values[f"lrp_captum_{case}_delta"], atol=2e-6
    )


def plus(x):
  return np.maximum(x, 0)


def minus(x):
  return np.minimum(x, 0)


def stabilised(z, epsilon):
  return z + np.where(z < 0, -epsilon, epsilon)


def by_epsilon(x, w, b, r, e=1e-6):
  return x * ((r / stabilised(x @ w + b, e)) @ w.T)


def by_signs(x, w, r, part, other, b, e=1e-6):
  s = r / stabilised(plus(x) @ part(w) + minus(x) @ other(w) + b, e)
  return plus(x) * (s @ part(w).T) + minus(x) * (s @ other(w).T)


def by_generalised_gamma(x, w, b, r, g):
  z, total = x @ w + b, 0
  for keep, part, other in ((z > 0, plus, minus), (z < 0, minus, plus)):
    more, less = w + g * part(w), w + g * other(w)
    below = plus(x) @ more + minus(x) @ less + b + g * part(b)
    s = np.where(keep, r, 0) / stabilised(below, 1e-6)
    total = total + plus(x) * (s @ more.T) + minus(x) * (s @ less.T)
  return total


def safely(r, z):
  return np.divide(r, z, out=np.zeros_like(z), where=z != 0)


def by_separate(x, w, b, r):
  def term(x, w):
    return x * (safely(r, x @ w) @ w.T)

  return term(plus(x), plus(w)) + term(minus(x), minus(w))


def by_zbox(x, w, b, r, low, high):
  z = x @ w - low @ plus(w) - high @ minus(w)
  s = r / stabilised(z, 1e-6)
  return x * (s @ w.T) - low * (s @ plus(w).T) - high * (s @ minus(w).T)


def by_flat(x, w, b, r):
  return np.ones_like(x) * ((r / np.sum(w != 0, axis=0)) @ (w != 0).T)


def ends(x):
  low, high = (f(x, axis=1, keepdims=True) for f in (np.min, np.max))
  return low + 0 * x, high + 0 * x


# From x [B, I], w [I, O], b [O] and r [B, O], in float64.
FORMULAS = {
  "epsilon": (rules.epsilon(0.1), lambda *a: by_epsilon(*a, 0.1)),
  "gamma": (
    rules.gamma(0.3),
    lambda x, w, b, r: by_epsilon(x, w + 0.3 * plus(w), b, r),
  ),
  "generalised gamma": (
    rules.generalised_gamma(0.3),
    lambda *a: by_generalised_gamma(*a, 0.3),
  ),
  "zplus": (
    rules.zplus(),
    lambda x, w, b, r: by_signs(x, w, r, plus, minus, plus(b)),
  ),
  "alpha beta": (
    rules.alpha_beta(3.0, 2.0),
    lambda x, w, b, r: (
      3 * by_signs(x, w, r, plus, minus, plus(b))
      - 2 * by_signs(x, w, r, minus, plus, minus(b))
    ),
  ),
  "positive weights": (
    rules.positive_weights(bias=False),
    lambda x, w, b, r: by_epsilon(x, plus(w), 0, r),
  ),
  "separate": (rules.separate(), by_separate),
  "separate 2": (
    rules.separate(2.0),
    lambda x, w, b, r: 2 * by_separate(x, w, b, r) - crossed(x, w, r),
  ),
  "flat": (rules.flat(), by_flat),
  "wsquare": (
    rules.wsquare(),
    lambda x, w, b, r: (r / np.sum(w**2, axis=0)) @ (w**2).T,
  ),
  "zbox": (
    rules.zbox(-2.0, 3.0),
    lambda *a: by_zbox(*a, np.full_like(a[0], -2), np.full_like(a[0], 3)),
  ),
  "zbox of images": (rules.zbox(), lambda *a: by_zbox(*a, *ends(a[0]))),
}


def crossed(x, w, r):
  """The products of negative sign, each part with its denominator."""
  total = 0
  for a, v in ((plus(x), minus(w)), (minus(x), plus(w))):
    total = total + a * (safely(r, a @ v) @ v.T)
  return total


def operands():
  rng = np.random.default_rng(1)
  shapes = (3, 6), (6, 4), (4,), (3, 4)
  return [rng.normal(size=s).astype(np.float32) for s in shapes]


@functools.cache
def explained():
  """Returns the relevance by every rule, by one program."""

  @jax.jit
  def compute(x, w, b, r):
    linear = rules.Linear(x, w, b[None], jnp.matmul)
    return {
      n: rules.apply(rule, linear, r) for n, (rule, _) in FORMULAS.items()
    }

  return compute(*operands())


@pytest.mark.parametrize("name", FORMULAS)
def test_rules_follow_their_formulas(name):
  _, formula = FORMULAS[name]
  expected = formula(*[a.astype(np.float64) for a in operands()])
  np.testing.assert_allclose(explained()[name], expected, rtol=2e-3, atol=2e-4)


def conv_dense(strides, groups, x, w):
  return layers.convolution(
    x, w, strides=strides, padding=1, groups=groups, implementation="products"
  )


@pytest.mark.parametrize(
  ("size", "strides", "groups", "shape"),
  [
    (3, 1, 1, (3, 3, 2, 4)),
    pytest.param(6, 2, 2, (3, 3, 1, 2), marks=pytest.mark.slow),
    pytest.param(6, 1, 1, (3, 3, 2, 3), marks=pytest.mark.slow),
  ],
  ids=["few pixels", "depthwise", "many pixels"],
)
def test_convolutions_spelled_as_products_are_one_layer(
  size, strides, groups, shape
):
  draw = networks.normals(4)
  x, w = draw(1, size, size, 2), draw(*shape)
  run = functools.partial(conv_dense, strides, groups)
  f = lambda w, x: run(x, w).reshape(1, -1)
  # The convolution as a matrix: the same rules must give the same relevance.
  ones = np.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape[1:])
  matrix = np.asarray(jax.jit(run)(ones, w), np.float64).reshape(x.size, -1)
  flat_x = np.asarray(x, np.float64).reshape(1, -1)
  logits = flat_x @ matrix
  r = np.zeros_like(logits)
  r[0, 5] = logits[0, 5]
  zero = np.zeros(logits.shape[1])
  names = ("generalised gamma", "alpha beta", "separate")

  @jax.jit
  def compute(w, x):
    explain = functools.partial(attribution.lrp, f, w, x, 5)
    return {name: explain(rules=FORMULAS[name][0]) for name in names}

  for name, maps in compute(w, x).items():
    expected = FORMULAS[name][1](flat_x, matrix, zero, r).reshape(x.shape)
    np.testing.assert_allclose(maps, expected, rtol=2e-3, atol=1e-4)


def mixed(params, x):
  """A residual block, pools, a reshape and a concatenation, no biases."""
  run = functools.partial(layers.convolution, padding=1, implementation="xla")
  h = jax.nn.relu(run(x, params["conv1"]))
  h = jax.nn.relu(h + run(h, params["conv2"]))
  pools = [layers.max_pool(h, 2), layers.avg_pool(h, 2)]
  h = jnp.concatenate(pools, axis=3).reshape(len(x), -1)
  return h @ params["head"]


@functools.cache
def mixed_case():
  draw = networks.normals(6)
  shapes = {"conv1": (3, 3, 2, 4), "conv2": (3, 3, 4, 4), "head": (32, 3)}
  return {n: draw(*s) for n, s in shapes.items()}, draw(2, 4, 4, 2)


CONSERVING = {
  "epsilon": "epsilon",
  "gamma": rules.generalised_gamma(epsilon=1e-9),
  "box": [("conv1", rules.zbox(-3.0, 3.0)), (".*", rules.zplus(1e-9))],
  "flat": "epsilon_plus_flat",
}


def test_relevance_is_kept_without_biases():
  params, x = mixed_case()
  target = [0, 2]

  @jax.jit
  def compute(params, x):
    explain = functools.partial(attribution.lrp, mixed, params, x, target)
    maps = {name: explain(rules=rule) for name, rule in CONSERVING.items()}
    return maps, mixed(params, x)

  maps, logits = compute(params, x)
  logits = np.asarray(logits)[range(2), target]
  for name, found in maps.items():
    start = np.ones(2) if name == "flat" else logits
    total = np.sum(found, axis=(1, 2, 3))
    np.testing.assert_allclose(total, start, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_relevance_of_models_is_kept_where_shifts_pass_it(name):
  f, params, x, target, *_ = networks.linen(name)
  no_bias = lambda path, p: p * 0 if name_of(path) in BIASES[name] else p
  params = jax.tree_util.tree_map_with_path(no_bias, params)
  composite = attribution.Composite(
    convolution=rules.epsilon(1e-9), linear=rules.epsilon(1e-9), affine="pass"
  )
  maps = attribution.lrp(f, params, x, target, rules=composite)
  logits = np.asarray(f(params, x))[range(2), target]
  total = np.sum(maps, axis=(1, 2, 3))
  np.testing.assert_allclose(total, logits, rtol=2e-3)


def name_of(path):
  return jax.tree_util.keystr(path, simple=True, separator="/")


BIASES = {
  "cnn": {"conv1/bias", "conv2/bias", "dense/bias", "head/bias"},
  "resnet": {"head/bias"},
}


def test_composites_choose_by_kind_and_place():
  params, x = mixed_case()
  graph = jaxprs.trace(mixed, ["conv1", "conv2", "head"], params, x)
  units = group(graph)
  expected = {
    "epsilon_plus": [rules.zplus(), rules.zplus(), rules.epsilon()],
    "epsilon_plus_flat": [rules.flat(), rules.zplus(), rules.epsilon()],
    "epsilon_alpha2_beta1": [
      rules.alpha_beta(2, 1),
      rules.alpha_beta(2, 1),
      rules.epsilon(),
    ],
    "epsilon_gamma_box": [
      rules.zbox(),
      rules.generalised_gamma(),
      rules.epsilon(),
    ],
    "excitation_backprop": [rules.zplus()] * 3,
    "spade": [rules.zbox(epsilon=1e-9), rules.separate(), rules.separate()],
  }
  for name, chosen in expected.items():
    composite = attribution.COMPOSITES[name]
    assert list(relevance.choose(composite, units).values()) == chosen
  paths = attribution.Composite(
    paths=(("conv2", rules.flat()), ("conv.*", rules.gamma())),
    linear=rules.epsilon(),
  )
  chosen = [rules.gamma(), rules.flat(), rules.epsilon()]
  assert list(relevance.choose(paths, units).values()) == chosen


def test_spade_composite_by_hand():
  rng = np.random.default_rng(2)
  w, v = rng.normal(size=(4, 4)), rng.normal(size=(4, 2))
  x = np.abs(rng.normal(size=(1, 4)))
  h = plus(x @ w)
  y = h + x
  r = np.array([[0.0, (y @ v)[0, 1]]])
  r = by_separate(y, v, 0, r)
  main, skip = r * h / y, r * x / y
  expected = by_separate(x, w, 0, main) + skip
  f = lambda p, x: (jax.nn.relu(x @ p[0]) + x) @ p[1]
  params = jnp.asarray(w, jnp.float32), jnp.asarray(v, jnp.float32)
  composite = attribution.COMPOSITES["spade"]
  maps = attribution.lrp(
    f, params, jnp.asarray(x, jnp.float32), 1, rules="spade"
  )
  np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5)
  assert composite.first_convolution == rules.zbox(epsilon=1e-9)


def test_shifts_absorb_relevance_or_pass_it():
  f = lambda w, x: x * w[:1] + w[1:]
  w, x = jnp.array([[2.0], [3.0]]), jnp.array([[4.0]])
  assert attribution.lrp(f, w, x, 0, rules="epsilon").tolist() == [[8.0]]
  maps = attribution.lrp(f, w, x, 0, rules="epsilon_plus")
  assert maps.tolist() == [[1.0]]


def test_one_pruned_copy_for_each_example():
  networks.assert_explains_copies(
    functools.partial(attribution.lrp, rules="epsilon_gamma_box")
  )


def test_errors():
  x, w = jnp.array([[1.0, 2.0]]), jnp.eye(2)
  f = lambda w, x: x @ w
  with pytest.raises(ValueError, match="nearest are epsilon_plus"):
    attribution.lrp(f, w, x, 0, rules="epsilon_pluss")
  with pytest.raises(ValueError, match=r"no rule covers .*'k'.*conv"):
    attribution.lrp(
      lambda p, x: x @ p["k"], {"k": w}, x, 0, rules=[("conv", REST[1])]
    )
  norm = lambda w, x: x / jnp.sum(x, axis=1, keepdims=True)
  with pytest.raises(ValueError, match=r"primitive 'div'.*stop_gradient"):
    attribution.lrp(norm, w, x, 0)


@pytest.mark.parametrize(
  ("given", "shown"),
  [
    (None, "None"),
    (3, "3"),
    (("a", rules.flat()), "'a'"),
    (("ab", rules.flat()), "'ab'"),
    ([("a", rules.flat()), rules.flat()], "Rule"),
    ([(".*", "epsilon")], "'epsilon'"),
    ([(1, rules.flat())], "1"),
    ([("a", rules.flat(), 2)], "2"),
    ({"a": rules.flat()}, "'a'"),
  ],
)
def test_rules_that_are_no_pairs(given, shown):
  x, w = jnp.array([[1.0, 2.0]]), jnp.eye(2)
  with pytest.raises(ValueError, match=rf"rules must be pairs .*got .*{shown}"):
    attribution.lrp(lambda w, x: x @ w, w, x, 0, rules=given)


def test_a_stopped_factor_is_a_constant():
  def f(w, x):
    norm = jax.lax.stop_gradient(jnp.sum(x, axis=1, keepdims=True))
    return x / norm @ w

  w, x = jnp.array([[1.0], [3.0]]), jnp.array([[1.0, 3.0]])
  maps = attribution.lrp(f, w, x, 0, rules="epsilon")
  np.testing.assert_allclose(maps, [[0.25, 2.25]], rtol=1e-5)


@pytest.mark.parametrize("name", ["epsilon_plus", "excitation_backprop"])
def test_halves_do_not_overflow_where_a_sum_is_small(name):
  run = lambda dtype: attribution.lrp(
    lambda w, x: x @ w,
    jnp.array([[1.0, 0.0], [-1.0, 0.0]], dtype),
    jnp.array([[1e-5, 0.0], [1.0, 0.5]], dtype),
    0,
    rules=name,
  )
  np.testing.assert_allclose(run(jnp.float16), run(jnp.float32), rtol=2e-2)


@pytest.mark.parametrize("rule", ["epsilon", "epsilon_plus"])
def test_relevance_stays_in_bounds_through_log_softmax(rule):
  f = lambda w, x: jax.nn.log_softmax(x @ w)
  w, x = jnp.array([[1.0, 2.0], [3.0, -1.0]]), jnp.array([[1.0, 0.5]])
  logits = f(w, x)
  for target in range(2):
    maps = attribution.lrp(f, w, x, target, rules=rule)
    whole = float(logits[0, target]) if rule == "epsilon" else 1.0
    np.testing.assert_allclose(jnp.sum(maps), whole, rtol=1e-4)
  pooled = lambda w, x: jax.nn.logsumexp(x @ w, axis=1, keepdims=True)
  maps = attribution.lrp(pooled, w, x, 0, rules="epsilon")
  np.testing.assert_allclose(jnp.sum(maps), pooled(w, x)[0, 0], rtol=1e-4)
