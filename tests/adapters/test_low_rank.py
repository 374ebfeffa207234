"""Low-rank adapters against float64 NumPy, over kernels of any layout."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters
from effjax.adapters import layouts
from tests.adapters.draws import KEY, close, draw, start

# Layout, shape, and how a kernel is written as [..., I, O] by hand.
KERNELS = {
  "dense": ("io", (5, 4), lambda w: w),
  "torch": ("oi", (4, 5), lambda w: w.T),
  "conv": ("iiio", (3, 2, 2, 4), lambda w: w.reshape(12, 4)),
  "torch conv": ("oiii", (4, 2, 3, 2), lambda w: w.reshape(4, 12).T),
  "query": ("ioo", (6, 2, 3), lambda w: w.reshape(6, 6)),
  "output": ("iio", (2, 3, 5), lambda w: w.reshape(6, 5)),
  "scanned": ("bio", (3, 5, 4), lambda w: w),
  "scanned last": ("iob", (5, 4, 2), lambda w: w.transpose(2, 0, 1)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_values(name):
  word, shape, by_hand = KERNELS[name]
  params = {"kernel": draw(*shape)}
  batch, inputs, outputs = layouts.sizes(word, shape)
  table = {kind: getattr(adapters, kind) for kind in ("lora", "dora")}
  table = {k: make(2, alpha=3, layout=word) for k, make in table.items()}
  thetas = {k: start(adapter, params)[0] for k, adapter in table.items()}

  @jax.jit
  def work(params, thetas):
    matrix = layouts.to_matrix(params["kernel"], word)
    places = jnp.arange(0 if batch else matrix.size)
    return (
      matrix,
      layouts.from_matrix(matrix, word, shape),
      layouts.matrix_indices(places, word, shape),
      {k: table[k].apply(params, thetas[k], {})["kernel"] for k in table},
    )

  matrix, back, places, found = work(params, thetas)
  by_hand_matrix = by_hand(params["kernel"])
  np.testing.assert_array_equal(matrix, by_hand_matrix)
  np.testing.assert_array_equal(back, params["kernel"])
  assert matrix.shape == (*batch, inputs, outputs)
  if not batch:
    flat = np.asarray(matrix).reshape(-1)[places]
    np.testing.assert_array_equal(flat, params["kernel"].reshape(-1))
  for kind, theta in thetas.items():
    role = {
      k.rpartition("/")[2]: x.astype(np.float64) for k, x in theta.items()
    }
    expected = by_hand_matrix + 1.5 * role["lora_a"] @ role["lora_b"]
    if kind == "dora":
      norms = np.linalg.norm(expected, axis=-2, keepdims=True)
      expected = role["magnitude"][..., None, :] * expected / norms
    close(by_hand(np.asarray(found[kind])), expected, atol=1e-5)


def test_beginnings():
  params = {"a": draw(200, 3), "b": draw(200, 50)}

  @jax.jit
  def work(one, two):
    lora = adapters.lora(3)
    gaussian = adapters.lora(3, initial="gaussian")
    some = {"b": params["b"]}
    return [
      lora.init(one, params)[0],
      gaussian.init(one, params)[0],
      lora.init(one, some)[0],
      lora.init(two, some)[0],
    ]

  uniform, gaussian, alone, other = (
    {k: np.asarray(x) for k, x in theta.items()}
    for theta in work(KEY, jax.random.key(1))
  )
  a = uniform["b/lora_a"]
  assert abs(np.abs(a).max() * math.sqrt(200) - 1) < 0.02
  assert not np.any(uniform["b/lora_b"])
  assert abs(np.std(gaussian["b/lora_a"]) * 3 - 1) < 0.1
  # A kernel keeps its draw when others come or go.
  np.testing.assert_array_equal(alone["b/lora_a"], a)
  assert np.any(other["b/lora_a"] != a)


def test_beginnings_from_the_kernel():
  w = draw(6, 5)
  options = {
    "pissa": {"alpha": 3, "initial": "pissa"},
    "stable": {"alpha": 3, "initial": "pissa", "rank_stabilized": True},
    "olora": {"initial": "olora"},
  }
  table = {name: adapters.lora(2, **o) for name, o in options.items()}
  start = jax.jit(lambda: {k: x.init(KEY, {"w": w}) for k, x in table.items()})
  found = jax.tree.map(np.asarray, start())
  left, values, right = np.linalg.svd(w.astype(np.float64))
  best = left[:, :2] * values[:2] @ right[:2]
  for name, scale in (("pissa", 1.5), ("stable", 3 / math.sqrt(2))):
    theta, fixed = found[name]
    a, b = theta["w/lora_a"], theta["w/lora_b"]
    close(scale * a @ b, best, atol=1e-5)
    # Both factors bear the roots.
    close(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=1))
    np.testing.assert_array_equal(fixed["w/initial_a"], a)
  q, r = np.linalg.qr(w.T.astype(np.float64))
  theta, _ = found["olora"]
  product = theta["w/lora_a"] @ theta["w/lora_b"]
  close(product, (q[:, :2] @ r[:2]).T, atol=1e-5)


def test_dead_columns_of_dora():
  w, x = draw(4, 3), draw(2, 4)
  w[:, 1] = 0
  adapter = adapters.dora(2)

  @jax.jit
  def work(key):
    theta, fixed = adapter.init(key, {"w": w})
    loss = lambda t: jnp.sum(adapter.apply({"w": w}, t, fixed)["w"] ** 2)
    part = adapters.parts(adapter, {"w": w}, theta, fixed)["w"]
    return jax.grad(loss)(theta), adapters.dense(x, jnp.asarray(w), part)

  slopes, y = work(KEY)
  assert all(np.all(np.isfinite(slope)) for slope in slopes.values())
  close(y, x @ w)


PARAMS = {"a": {"kernel": draw(4, 3), "bias": draw(3)}}


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: adapters.lora(4), r"rank 4 is larger than 'a/kernel'.*at most 3"),
    (lambda: adapters.lora(0), r"rank of '\.\*' must be a whole.*got 0"),
    (lambda: adapters.lora([("a.*", 2.0)]), r"rank of 'a\.\*' must be a whole"),
    *(
      (
        lambda alpha=alpha: adapters.lora(2, alpha=alpha),
        "alpha of .* must be a finite number above 0",
      )
      for alpha in (-1, 0, np.inf, np.nan, "two")
    ),
    (lambda: adapters.lora(2, initial="pisa"), "pissa"),
    (lambda: adapters.lora(2, where=".*kernle"), "a/kernel"),
    (lambda: adapters.lora([("b.*", 2)]), "rules of rank"),
    (lambda: adapters.lora(2, layout="ioo"), "3 letters"),
    (lambda: adapters.lora(2, layout="iio o"), "not a word"),
    (lambda: adapters.ia3("both"), "neither"),
  ],
)
def test_bad_input(make, words):
  with pytest.raises(ValueError, match=words):
    make().init(KEY, PARAMS)


def test_integers_of_numpy_are_ranks():
  masks = {"a": {"kernel": draw(4, 3) > 0, "bias": None}}
  for given in (np.int64(2), np.int32(2), jnp.int32(2)):
    for make in (
      adapters.lora,
      lambda rank: adapters.lora([(".*kernel", rank)]),
      lambda rank: adapters.lora(rank, initial="gaussian"),
      lambda rank: adapters.dora(rank, rank_stabilized=True),
      lambda rank: adapters.rosa(rank, masks),
    ):
      found, wanted = (make(rank).init(KEY, PARAMS)[0] for rank in (given, 2))
      assert found.keys() == wanted.keys()
      for key, x in wanted.items():
        np.testing.assert_array_equal(found[key], x)
  weights = {"kernel": draw(64, 4)}
  _, found = adapters.loftq(weights, 2, iterations=np.int64(2))
  _, wanted = adapters.loftq(weights, 2, iterations=2)
  np.testing.assert_array_equal(found["kernel/lora_a"], wanted["kernel/lora_a"])


def test_unknown_axes_are_asked_for():
  params = {"q": draw(4, 2, 3), "i": np.ones((2, 2), np.int32)}
  with pytest.raises(ValueError, match="'bio' for stacked"):
    adapters.lora(1).init(KEY, params)
  with pytest.raises(ValueError, match="change floating leaves"):
    adapters.lora(1, where="i").init(KEY, params)


def test_theta_must_fit():
  adapter = adapters.lora(2)
  theta, fixed = start(adapter, PARAMS)
  less = {key: x for key, x in theta.items() if "lora_b" not in key}
  with pytest.raises(ValueError, match="theta lacks 'a/kernel/lora_b'"):
    adapter.apply(PARAMS, less, fixed)
  more = {**theta, "b/kernel/lora_a": draw(2, 2)}
  with pytest.raises(ValueError, match="theta holds 'b/kernel/lora_a'"):
    adapter.merge(PARAMS, more, fixed)
  with pytest.raises(ValueError, match="fixed holds"):
    adapter.apply(PARAMS, theta, theta)
  other = {**theta, "a/kernel/lora_b": draw(1, 3)}
  with pytest.raises(ValueError, match=r"\(2, 3\) is wanted"):
    adapter.apply(PARAMS, other, fixed)
  nan = {**theta, "a/kernel/lora_b": draw(2, 3) * np.nan}
  with pytest.raises(ValueError, match="'a/kernel' is not finite"):
    adapter.merge(PARAMS, nan, fixed)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_loftq_brings_the_base_back_nearest(kind):
  params = {"a": {"kernel": draw(32, 16)}, "bias": draw(16), "b": draw(8, 4, 6)}
  options = {"alpha": 3.0, "where": "a/.*|b", "layout": [("b", "bio")]}
  rank = [("a/.*", 4), ("b", 2)]
  base, theta = adapters.loftq(params, rank, kind, iterations=1, **options)
  # Once: the best product of what plain rounding lost.
  plain = adapters.quantize(
    params, kind, where=options["where"], layout=options["layout"]
  )
  np.testing.assert_array_equal(
    base["a"]["kernel"].codes, plain["a"]["kernel"].codes
  )
  adapter = adapters.lora(rank, **options)
  plain = adapters.dequantize(plain)
  merged = adapter.merge(adapters.dequantize(base), theta, {})
  for path, r in (("a", 4), ("b", 2)):
    pick = lambda tree, path=path: np.asarray(
      tree["a"]["kernel"] if path == "a" else tree["b"], np.float64
    )
    lost = pick(params) - pick(plain)
    values = np.linalg.svd(lost, compute_uv=False)
    wanted = np.sqrt((values[..., r:] ** 2).sum())
    left = np.linalg.norm(pick(merged) - pick(params))
    np.testing.assert_allclose(left, wanted, rtol=1e-4)
  np.testing.assert_array_equal(merged["bias"], params["bias"])
  # More often comes nearer still.
  base, theta = adapters.loftq(params, rank, kind, iterations=5, **options)
  again = adapter.merge(adapters.dequantize(base), theta, {})
  far = lambda tree: np.linalg.norm(tree["a"]["kernel"] - params["a"]["kernel"])
  assert far(again) < far(merged)
  with pytest.raises(ValueError, match="iterations must be"):
    adapters.loftq(params, 2, iterations=0)
  with pytest.raises(ValueError, match="floating kernels, got quantised"):
    adapters.loftq(base, rank, **options)
