"""The networks that are explained instead of the dense one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.studies.spade import arms, trojans
from tests.studies.spade import small

KEY = jax.random.key(0)
RULES = [("conv/kernel", 0.5), (".*", 0.5)]
# The convolution has 18 inputs, the dense layer 32, the head 4.


@pytest.fixture(scope="module")
def net():
  module, x = small.Net(), jax.random.uniform(KEY, (2, 7, 7, 2))
  return arms.subject(module, dict(jax.jit(module.init)(KEY, x))), x


def test_a_subject_applies_its_parameters(net):
  subject, x = net
  logits, inputs = subject.capture(subject.params, x)
  np.testing.assert_allclose(
    subject.f(subject.params, x), logits, rtol=1e-5, atol=1e-6
  )
  assert inputs["head/kernel"].shape == (2, 4)


def test_rules_are_split_by_the_inputs_of_layers(net):
  subject, _ = net
  small_rules, large = map(dict, arms.split_by_size(subject, RULES, 20))
  assert small_rules == {
    "conv/kernel": 0.5,
    "dense/kernel": None,
    "head/kernel": 0.5,
  }
  assert large == {
    "conv/kernel": None,
    "dense/kernel": 0.5,
    "head/kernel": None,
  }
  kept = [("conv/.*", None), (".*", 0.9)]
  small_rules, large = map(dict, arms.split_by_size(subject, kept, 32))
  assert small_rules == {
    "conv/kernel": None,
    "dense/kernel": 0.9,
    "head/kernel": 0.9,
  }
  assert set(large.values()) == {None}


def test_the_exact_arm_takes_each_layer_from_its_solver(net, monkeypatch):
  subject, x = net
  asked = {}

  def trace(network, key, images, rules, config, solver):
    """Mark what a solver was asked to prune."""
    assert network is subject
    assert images is x
    assert jnp.array_equal(jax.random.key_data(key), jax.random.key_data(KEY))
    asked[solver] = rules = dict(rules)
    mark = {"exact_obs": 1.0, "sparsegpt": 2.0}[solver]
    return {
      layer: {
        "kernel": mark if rules[f"{layer}/kernel"] is not None else 0.0,
        "bias": 0.0,
      }
      for layer in network.params
    }

  monkeypatch.setattr(arms, "trace", trace)
  run = lambda rules, most: {
    layer: both["kernel"]
    for layer, both in arms.exact(
      subject, KEY, x, rules, small.config(exact_inputs=most)
    ).items()
  }
  assert run(RULES, 20) == {"conv": 1.0, "dense": 2.0, "head": 1.0}
  assert asked["exact_obs"]["dense/kernel"] is None
  kept = [("conv/.*", None), (".*", 0.5)]
  assert run(kept, 20) == {"conv": 0.0, "dense": 2.0, "head": 1.0}
  # Where one solver does all, it alone is asked.
  for most, solver, mark in ((0, "sparsegpt", 2.0), (32, "exact_obs", 1.0)):
    asked.clear()
    assert run(RULES, most) == {"conv": mark, "dense": mark, "head": mark}
    assert set(asked) == {solver}


@pytest.mark.parametrize("count", [20, 1203])
def test_a_sparse_head_replaces_the_last_layer(net, count, monkeypatch):
  subject, _ = net
  batches = []

  def fit(features, labels, classes, *, strength):
    batches.append((features, labels))
    return jnp.array([[1.0] * 3, [0.0] * 3] * 2), jnp.zeros(3)

  monkeypatch.setattr(arms.spade, "sparse_head", fit)
  images = jax.random.uniform(KEY, (count, 7, 7, 2))
  labels = np.arange(count) % 3
  params, zeros = arms.with_sparse_head(subject, "head", images, labels, 3, 0.1)
  assert zeros == 0.5
  assert params["conv"] is subject.params["conv"]
  assert params["head"]["kernel"].shape == (4, 3)
  ((features, met),) = batches
  assert len(features) == len(met) == (1000 if count > 500 else 20)
  _, inputs = subject.capture(subject.params, trojans.normalise(images[5:6]))
  np.testing.assert_allclose(
    features[5:6], inputs["head/kernel"], rtol=1e-4, atol=1e-5
  )


def test_copiers_are_the_same_object_for_the_same_limit():
  assert arms.copier(0.3) is arms.copier(0.3)
  assert arms.copier(0.3) is not arms.copier(0.4)
