"""Scores of sparsities against the pieces they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from effjax import attribution, metrics, models, spade

KEY = jax.random.key(0)
RULES = [("stem/.*", None), (".*", 0.5)]
TARGET = jnp.array([0, 2, 1])


class Net(nn.Module):
  """A convolution and a dense layer."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(3, (3, 3), name="stem")(x))
    return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def net():
  module, x = Net(), jax.random.uniform(KEY, (3, 6, 5, 2))
  variables = module.init(jax.random.key(1), x)
  capture = models.capture(module, variables)
  f = lambda params, x: module.apply({"params": params}, x)
  return f, capture, variables["params"], x


def preprocess(x):
  return 2.0 * x - 1.0


def by_hand(net, method, reduce):
  """Maps of traced networks, one after the other."""
  f, capture, params, x = net
  traced = spade.trace(
    KEY, capture, params, x, RULES, copies=4, preprocess=preprocess
  )
  maps = []
  for i in range(3):
    own = jax.tree.map(lambda leaf, i=i: leaf[i], traced)
    found = method(f, own, preprocess(x[i : i + 1]), TARGET[i : i + 1])
    maps.append(attribution.reduce_channels(found, reduce)[0])
  return jnp.stack(maps)


@pytest.mark.parametrize(
  ("method", "reduce"),
  [(attribution.saliency, "sum_abs"), (attribution.lrp, "sum")],
)
def test_the_score_with_marks_is_their_pixel_auc(net, method, reduce):
  _, capture, params, x = net
  marks = np.zeros((3, 6, 5), bool)
  marks[0, :2], marks[1, 3:, 2:], marks[2, :, 0] = True, True, True
  options = dict(reduce=reduce, preprocess=preprocess, copies=4)
  score = spade.explanation_score(
    KEY, capture, params, x, TARGET, method, marks=marks, **options
  )
  maps = by_hand(net, method, reduce)
  expected = np.mean(metrics.pixel_auc(maps, marks))
  assert score(RULES) == pytest.approx(float(expected), abs=1e-6)
  assert score([("stem/.*", None), (".*", 0.9)]) != score(RULES)


def test_the_score_without_marks_is_an_area_of_insertion(net):
  f, capture, params, x = net
  score = spade.explanation_score(
    KEY,
    capture,
    params,
    x,
    TARGET,
    attribution.saliency,
    reduce="sum_abs",
    preprocess=preprocess,
    copies=4,
  )
  maps, inputs = by_hand(net, attribution.saliency, "sum_abs"), preprocess(x)
  curves = metrics.insertion_deletion(
    f,
    params,
    inputs,
    TARGET,
    maps,
    step=1,
    insert_into=metrics.gaussian_blur(inputs),
  )
  expected = float(np.mean(curves.insertion_auc))
  assert score(RULES) == pytest.approx(expected, abs=1e-6)


def test_sparsities_are_tuned_by_it(net):
  _, capture, params, x = net
  score = spade.explanation_score(
    KEY, capture, params, x, TARGET, attribution.saliency, copies=2
  )
  found = spade.tune(
    score, ["head/.*"], grid=(None, 0.3, 0.8), fixed=[("stem/.*", None)]
  )
  assert [share for (_, (_, share)), _ in found.history] == [0.3, 0.8]
  assert found.score == max(score for _, score in found.history)


@pytest.mark.parametrize(
  "marks", [np.ones((3, 6, 4), bool), np.ones((3, 6, 5), np.float32)]
)
def test_marks_that_do_not_fit_are_named(net, marks):
  _, capture, params, x = net
  with pytest.raises(ValueError, match=r"marks must be bool \[3, 6, 5\]"):
    spade.explanation_score(
      KEY, capture, params, x, TARGET, attribution.saliency, marks=marks
    )


@pytest.mark.parametrize("share", [0, 1])
def test_marks_that_tell_nothing_are_named(net, share):
  _, capture, params, x = net
  marks = np.zeros((3, 6, 5), bool)
  marks[:, 2] = True
  marks[1] = share
  with pytest.raises(ValueError, match=r"(nothing|all) of image 1 is marked"):
    spade.explanation_score(
      KEY, capture, params, x, TARGET, attribution.saliency, marks=marks
    )


@pytest.mark.parametrize("target", [[0, 1, 10], [0, 1, -1], [0, 1], 0.5])
def test_targets_that_are_none_are_named(net, target):
  _, capture, params, x = net
  marks = np.zeros((3, 6, 5), bool)
  marks[:, 2] = True
  with pytest.raises(ValueError, match="target"):
    spade.explanation_score(
      KEY, capture, params, x, target, attribution.saliency, marks=marks
    )


def test_one_target_for_all(net):
  _, capture, params, x = net
  one, each = (
    spade.explanation_score(
      KEY, capture, params, x, target, attribution.saliency, copies=2
    )
    for target in (1, [1, 1, 1])
  )
  assert one(RULES) == each(RULES)
