"""Every method of the study explains examples by parameters of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.spade import fashion
from effjax.studies.spade import explanations
from tests.studies.spade import small

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def net():
  module, x = small.Net(), jax.random.uniform(KEY, (2, 7, 7, 2))
  init = jax.jit(jax.vmap(module.init, in_axes=(0, None)))
  params = init(jax.random.split(KEY, 2), x)["params"]
  # Positive: no unit is dead, no map is empty.
  params = jax.tree.map(jnp.abs, params)
  f = lambda params, x: module.apply({"params": params}, x)
  made = explanations.methods(
    fashion.METHODS, layer="conv/kernel", side=7, samples=16
  )
  return f, params, x, made


def test_the_methods_are_those_of_the_configuration(net):
  assert tuple(net[3]) == fashion.METHODS
  with pytest.raises(ValueError, match="no method 'salience' in this study"):
    explanations.methods(["salience"], layer="", side=7, samples=16)


@pytest.mark.parametrize("name", fashion.METHODS)
def test_maps_have_no_channels(net, name):
  f, params, x, made = net
  found = explanations.maps(
    made[name], f, KEY, params, x, jnp.array([2, 0]), per_example=True
  )
  assert found.shape == (2, 7, 7)
  assert found.dtype == jnp.float32
  found = np.asarray(found)
  assert np.all(np.isfinite(found))
  assert np.all(np.ptp(found, axis=(1, 2)) > 0)
  if made[name].reduce == "sum_abs":
    assert np.all(found >= 0)


@pytest.mark.parametrize("name", ["saliency", "smoothgrad"])
def test_parameters_of_each_example_agree_with_a_loop(net, name):
  f, params, x, made = net
  targets = jnp.array([2, 0])
  run = lambda own, per_example: explanations.maps(
    made[name], f, KEY, own, x, targets, per_example=per_example
  )
  together = run(params, True)
  # Examples keep their random numbers, whatever the others are.
  for i in range(2):
    own = jax.tree.map(lambda leaf, i=i: leaf[i], params)
    np.testing.assert_allclose(run(own, False)[i], together[i], rtol=1e-5)
  assert np.abs(together[0] - run(own, False)[0]).max() > 1e-3


def test_lrp_is_not_turned_round_by_a_negative_logit():
  # A network that was pruned much may deny the class that is explained: what
  # speaks for the class must still be above what speaks against it.
  f = lambda w, x: x.reshape(len(x), -1) @ w
  w = jnp.array([3.0, -1.0, -1.0, -4.0])[:, None]
  made = explanations.methods(["lrp"], layer="", side=2, samples=1)["lrp"]
  found = explanations.maps(
    made, f, KEY, w, jnp.ones((1, 2, 2, 1)), jnp.array([0]), per_example=False
  )
  np.testing.assert_allclose(found.reshape(-1), w[:, 0], rtol=1e-5)
