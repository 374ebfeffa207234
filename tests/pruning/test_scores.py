import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import pruning
from effjax.pruning import scores as scoring

RNG = np.random.default_rng(0)
PARAMS = {
  "kernel": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
  "half": jnp.asarray(RNG.normal(size=(5,)), jnp.bfloat16),
  "count": jnp.arange(3),
  "function": jnp.tanh,
  "absent": None,
}
GRADS = {
  **PARAMS,
  "kernel": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
  "half": jnp.asarray(RNG.normal(size=(5,)), jnp.bfloat16),
}
double = lambda x: np.asarray(x).astype(np.float64)


def check(scores, formula, *, rtol=1e-6):
  """Compare with float64 and see that nothing else got a score."""
  assert scores.keys() == PARAMS.keys()
  for name in ("kernel", "half"):
    assert scores[name].dtype == jnp.float32
    expected = formula(double(PARAMS[name]), double(GRADS[name]))
    np.testing.assert_allclose(scores[name], expected, rtol=rtol)
  assert scores["count"] is scores["function"] is scores["absent"] is None


def test_magnitude():
  check(pruning.magnitude(PARAMS), lambda w, g: np.abs(w), rtol=0)
  reference = pruning.magnitude(PARAMS, convention="reference")
  check(reference, lambda w, g: np.abs(w) + 1e-4)


@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_magnitude_of_pruned_weights(convention):
  masks = {**dict.fromkeys(PARAMS), "half": jnp.arange(5) > 2}
  params = {**PARAMS, "half": jnp.zeros(5, jnp.bfloat16)}
  scores = pruning.magnitude(params, masks=masks, convention=convention)
  # A live zero ranks above a pruned one.
  floor = -np.inf if convention == "exact" else 0.0
  live = 0.0 if convention == "exact" else np.float32(1e-4)
  assert scores["half"].tolist() == [floor] * 3 + [live] * 2
  assert (scores["kernel"] >= jnp.abs(params["kernel"])).all()


def test_taylor_and_fisher():
  check(pruning.taylor(PARAMS, GRADS), lambda w, g: np.abs(w * g))
  squares = jax.tree.map(
    lambda g: jnp.square(g.astype(jnp.float32)),
    {k: GRADS[k] for k in ("kernel", "half")},
  )
  fisher = pruning.fisher(PARAMS, {**dict.fromkeys(PARAMS), **squares})
  check(fisher, lambda w, g: 0.5 * w**2 * g**2)


def test_wanda():
  norms = jnp.array([1.0, 2.0, 3.0])
  scores = pruning.wanda(PARAMS, {**dict.fromkeys(PARAMS), "kernel": norms})
  expected = np.abs(double(PARAMS["kernel"])) * double(norms)[:, None]
  np.testing.assert_allclose(scores["kernel"], expected, rtol=1e-6)
  assert scores["half"] is None
  kernel = jnp.ones((2, 2, 3, 4))
  assert pruning.wanda(kernel, norms)[1, 0, 2].tolist() == [3.0] * 4


def test_random_draws_by_name():
  key = jax.random.key(3)
  one, two = pruning.random(key, PARAMS), pruning.random(key, PARAMS)
  for name in ("kernel", "half"):
    assert one[name].dtype == jnp.float32
    np.testing.assert_array_equal(one[name], two[name])
    assert ((one[name] >= 0) & (one[name] < 1)).all()
  assert one["count"] is one["function"] is None
  other = pruning.random(key, {"new": jnp.ones((3, 4)), **PARAMS})
  np.testing.assert_array_equal(other["kernel"], one["kernel"])
  assert (other["new"] != one["kernel"]).all()
  assert (
    pruning.random(jax.random.key(4), PARAMS)["half"] != one["half"]
  ).any()


def test_scores_by_name_take_gradients():
  arrays = {k: PARAMS[k] for k in ("kernel", "half")}
  grads = {k: GRADS[k] for k in arrays}
  formulas = {
    "magnitude": lambda w, g: np.abs(w),
    "taylor": lambda w, g: np.abs(w * g),
    "fisher": lambda w, g: 0.5 * w**2 * g**2,
  }
  assert formulas.keys() == scoring.SCORES.keys()
  for name, formula in formulas.items():
    scores = scoring.SCORES[name](arrays, grads)
    for k, score in scores.items():
      expected = formula(double(arrays[k]), double(grads[k]))
      np.testing.assert_allclose(score, expected, rtol=1e-6)


def test_float64_stays():
  with jax.enable_x64(True):
    w = jnp.array([[1.0 + 1e-12, -1.0]])
    assert pruning.magnitude(w).dtype == jnp.float64
    assert float(pruning.magnitude(w)[0, 0]) == 1.0 + 1e-12


def test_mistakes():
  with pytest.raises(ValueError, match="choose 'exact' or 'reference'"):
    pruning.magnitude(PARAMS, convention="published")
  with pytest.raises(ValueError, match="the gradient tree does not have"):
    pruning.taylor({"a": jnp.ones(2)}, {"b": jnp.ones(2)})
  with pytest.raises(ValueError, match="the mask does not have"):
    pruning.magnitude({"a": jnp.ones(2)}, masks={"b": jnp.ones(2, bool)})


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda w: pruning.taylor(w, {"w": jnp.ones(3)}), r"\(3,\) at 'w'; \(4, 3"),
    (lambda w: pruning.fisher(w, {"w": jnp.ones((3, 4))}), "squared gradients"),
    (lambda w: pruning.wanda(w, {"w": jnp.ones(3)}), r"\(4,\) is wanted"),
    (lambda w: pruning.wanda({"w": jnp.ones(3)}, {"w": jnp.ones(3)}), "norms"),
    (lambda w: pruning.wanda({"w": jnp.ones(3)}, {"w": jnp.ones(())}), "norms"),
  ],
)
def test_shapes_that_do_not_fit(call, words):
  with pytest.raises(ValueError, match=words):
    call({"w": jnp.ones((4, 3))})
