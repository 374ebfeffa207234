"""Places of sparse weights, what is trained at them, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax import adapters
from tests.adapters.draws import KEY, close, draw, merged, start


def largest(values, count):
  """Find the largest of a flat array; of equal ones the first."""
  mask = np.zeros(values.size, bool)
  mask[np.argsort(-np.abs(values), kind="stable")[:count]] = True
  return mask


def test_counts_and_ties():
  # Rounded values tie.
  grads = {"a": draw(10, 10).round(1), "b": draw(3, 7, seed=1).round(1)}
  counts = {
    (0.29, "exact"): (29, 6),
    (0.29, "reference"): (28, 6),  # 0.29 * 100 is less than 29 in float64
    (1.0, "exact"): (100, 21),
  }
  for (density, convention), numbers in counts.items():
    found = adapters.sparse_masks(grads, density, convention=convention)
    for key, number in zip("ab", numbers, strict=True):
      expected = largest(grads[key].reshape(-1), number)
      np.testing.assert_array_equal(found[key].reshape(-1), expected)
  # A float32 is the decimal number that it is written as, too.
  for density, number in ((0.7, 70), (0.01, 1), (0.29, 29)):
    for kind in (np.float32, jnp.float32, np.float64):
      found = adapters.sparse_masks({"a": grads["a"]}, kind(density))
      assert np.sum(found["a"]) == number
  found = adapters.sparse_masks(grads, 0.1, scope="global")
  flat = [
    np.concatenate([x["a"].ravel(), x["b"].ravel()]) for x in (found, grads)
  ]
  np.testing.assert_array_equal(flat[0], largest(flat[1], 12))


def test_stacked_kernels_get_the_same_share():
  grads = {
    "w": draw(3, 4, 5) * np.arange(1, 4, dtype=np.float32)[:, None, None]
  }
  layout = [("w", "bio")]
  choose = lambda grads: adapters.sparse_masks(grads, 0.2, layout=layout)
  masks = jax.tree.map(np.asarray, jax.jit(choose)(grads))
  assert masks["w"].sum(axis=(1, 2)).tolist() == [4, 4, 4]
  adapter = adapters.rosa(2, masks, layout=layout)
  theta, fixed = start(adapter, grads)
  assert theta["w/sparse"].shape == fixed["w/indices"].shape == (3, 4)
  theta = {
    key: np.ones_like(x) if "sparse" in key else 0 * x
    for key, x in theta.items()
  }
  found = merged(adapter, grads, theta, fixed)
  close(found["w"] - grads["w"], masks["w"])
  whole = {"w": np.abs(grads["w"]) > 1}
  with pytest.raises(ValueError, match="same number is wanted"):
    adapters.shira(whole, layout=layout).init(KEY, grads)


def test_training_moves_only_the_places():
  params = {"w": draw(4, 5)}
  mask = draw(4, 5, seed=1) > 0.5
  adapter = adapters.shira({"w": mask})
  theta, fixed = start(adapter, params)
  assert np.all(np.diff(fixed["w/indices"]) > 0)

  @jax.jit
  def slopes(theta):
    loss = lambda t: jnp.sum(jnp.cos(adapter.apply(params, t, fixed)["w"]))
    return jax.grad(loss)(theta), adapter.merge(params, theta, fixed)

  found, tuned = slopes(theta)
  np.testing.assert_array_equal(tuned["w"] != params["w"], mask)
  close(tuned["w"][mask] - params["w"][mask], theta["w/sparse"])
  close(found["w/sparse"], -np.sin(tuned["w"])[mask])


@pytest.mark.parametrize("mode", ["mean_squared", "mean"])
def test_collecting_is_a_mean_over_examples(mode):
  params = {"w": draw(3, 2), "b": draw(2)}
  x = draw(6, 3, seed=1)
  loss = lambda p, x: jnp.mean(jnp.sin(x @ p["w"] + p["b"][None]))

  @jax.jit
  def work(x):
    first = adapters.collect(loss, params, x[:4], mode=mode)
    return (
      adapters.collect(loss, params, x[4:], mode=mode, state=first),
      adapters.collect(loss, params, x, mode=mode, micro_batch=2),
    )

  found, pairs = work(x)
  # By hand, d/dW of mean_o sin(x W + b) is x_i cos(...)_o / 2.
  wide = lambda a: np.asarray(a, np.float64)
  cosines = np.cos(wide(x) @ wide(params["w"]) + wide(params["b"]))
  grads = wide(x)[:, :, None] * cosines[:, None] / 2
  square = lambda g: g**2 if mode == "mean_squared" else g
  assert found.mean["b"] is None
  assert int(found.count) == 6
  close(found.mean["w"], square(grads).mean(axis=0))
  halves = grads.reshape(3, 2, 3, 2).mean(axis=1)
  close(pairs.mean["w"], square(halves).mean(axis=0))


@given(st.integers(0, 20), st.integers(1, 4), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_agendas(warm_up, batches, loaded, alone):
  name = "spa_only" if alone else f"wl{warm_up}"
  found = adapters.agenda(
    name, density=0.1, gradient_batches=batches, masks_loaded=loaded
  )
  begin = (0 if alone else warm_up) + (0 if loaded else batches)
  assert found.masks_at == begin
  texts = [found.text(t) for t in range(begin + 3)]
  lora = [] if alone else ["lora"]
  assert texts[begin:] == ["+".join([*lora, "spa"])] * 3
  collecting = ["+".join([*lora, "grad_collection"])]
  expected = ["lora"] * (0 if alone else warm_up)
  assert texts[:begin] == expected + collecting * (0 if loaded else batches)


def test_agendas_by_name():
  only = adapters.agenda("lora_only", density=0)
  assert (only.text(0), only.text(99), only.masks_at) == ("lora", "lora", None)
  default, short = (
    adapters.agenda(name, density=0.1) for name in ("default", "df")
  )
  assert default == short == adapters.agenda("wl0", density=0.1)
  bad = (
    ("lora_only", 0.1, "no other"),
    ("wl16", 0, "'lora_only'"),
    ("spa", 0.1, "spa_only"),
    ("wl", 0.1, "'wlN'"),
    ("wl16", 2, "outside"),
    ("wl16", None, "density must be a finite number"),
    ("wl16", "few", "density must be a finite number"),
  )
  for name, density, words in bad:
    with pytest.raises(ValueError, match=words):
      adapters.agenda(name, density=density)
  for batches in (1.5, 0):
    with pytest.raises(ValueError, match="gradient_batches must be a whole"):
      adapters.agenda("wl2", density=0.1, gradient_batches=batches)


def test_bad_input():
  grads = {"a": draw(4, 4), "b": draw(100, 100)}
  with pytest.raises(ValueError, match="none of the 16 weights of 'a'"):
    adapters.sparse_masks({"a": grads["a"]}, 0.01)
  with pytest.raises(ValueError, match="outside"):
    adapters.sparse_masks(grads, 0.0)
  for density in (None, "few", np.nan):
    with pytest.raises(ValueError, match="density must be a finite number"):
      adapters.sparse_masks(grads, density)
  with pytest.raises(ValueError, match="neither 'layer' nor"):
    adapters.sparse_masks(grads, 0.1, scope="layers")
  empty = {"a": np.zeros((4, 4), bool), "b": None}
  with pytest.raises(ValueError, match="the mask of 'a' is empty"):
    adapters.shira(empty).init(KEY, grads)
  with pytest.raises(ValueError, match="nothing to train"):
    adapters.shira({"a": None, "b": None}).init(KEY, grads)
  with pytest.raises(ValueError, match=r"\(2, 2\), the leaf \(4, 4\)"):
    adapters.shira({"a": empty["a"][:2, :2], "b": None}).init(KEY, grads)
  lists = {"a": empty["a"].tolist(), "b": None}
  with pytest.raises(ValueError, match="mask of 'a' must be an array, got li"):
    adapters.shira(lists).init(KEY, grads)
  loss = lambda p, x: jnp.sum(p["a"])
  with pytest.raises(ValueError, match="micro_batch must be a whole number"):
    adapters.collect(loss, grads, draw(4, 2), micro_batch=2.0)
  for batch in (1.0, {"x": draw(4, 2), "y": np.float32(1)}):
    with pytest.raises(ValueError, match=r"arrays of shapes .*\(\)"):
      adapters.collect(loss, grads, batch)
  with pytest.raises(ValueError, match="micro_batch=3"):
    adapters.collect(loss, grads, draw(4, 2), micro_batch=3)
  with pytest.raises(ValueError, match="mean_squared"):
    adapters.collect(loss, grads, draw(4, 2), mode="means_quared")
  with pytest.raises(ValueError, match="outside of jit"):
    jax.eval_shape(
      lambda m: adapters.shira(m).init(KEY, grads["a"]), empty["a"]
    )


@pytest.mark.parametrize("ratio", [0.5, np.inf, np.nan, None, "large"])
def test_ratios_that_cannot_be(ratio):
  with pytest.raises(ValueError, match="ratio must be a finite number of at"):
    adapters.lora_plus(ratio)
