import functools

import jax
import numpy as np
import pytest
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator

from effjax import metrics
from effjax.metrics import tradeoffs

PEER = {
  "demographic_parity": "demographic_parity",
  "true_positive_rate": "true_positive_rate_parity",
  "true_negative_rate": "true_negative_rate_parity",
  "false_positive_rate": "false_positive_rate_parity",
  "false_negative_rate": "false_negative_rate_parity",
  "equalized_odds": "equalized_odds",
}
SIMPLE = [name for name in PEER if name != "equalized_odds"]
CASES = [(name, "accuracy") for name in PEER]
CASES += [(name, "balanced_accuracy") for name in PEER]
CASES += [
  ("demographic_parity", "true_positive_rate"),
  ("false_negative_rate", "selection_rate"),
  ("true_positive_rate", "true_positive_rate"),
  ("false_positive_rate", "true_negative_rate"),
]


class Scores(BaseEstimator):
  """An estimator whose scores are its only input."""

  def __sklearn_is_fitted__(self):
    return True

  def predict(self, x):
    return x[:, 0]

  def fit(self, x, y):
    return self


def peer(scores, labels, groups, constraint, objective, **options):
  suffix = "_score" if "accuracy" in objective else ""
  optimizer = ThresholdOptimizer(
    estimator=Scores(),
    constraints=PEER[constraint],
    objective=objective + suffix,
    prefit=True,
    predict_method="predict",
    **options,
  )
  optimizer.fit(scores[:, None], labels.astype(int), sensitive_features=groups)
  return lambda scores, groups: optimizer._pmf_predict(
    scores[:, None], sensitive_features=groups
  )[:, 1]


@functools.cache
def data(seed, rows=240, decimals=None, separation=1.0):
  """Three groups of unequal size, base rate and quality of scores."""
  rng = np.random.default_rng(seed)
  groups = rng.choice(3, rows, p=[0.6, 0.3, 0.1])
  groups[:6] = [0, 0, 1, 1, 2, 2]
  labels = rng.random(rows) < np.array([0.5, 0.2, 0.7])[groups]
  labels[:6] = [0, 1, 0, 1, 0, 1]
  scores = rng.normal(size=rows) + labels * separation * (1 + groups)
  if decimals is not None:
    scores = scores.round(decimals)
  return scores.astype(np.float32).astype(np.float64), labels, groups


def probability(rule, scores, groups):
  with jax.enable_x64(True):
    return np.asarray(metrics.parity_probability(rule, scores, groups))


@pytest.mark.parametrize(("constraint", "objective"), CASES)
@pytest.mark.parametrize("decimals", [None, 0])
def test_probabilities_equal_fairlearn(constraint, objective, decimals):
  scores, labels, groups = data(0, decimals=decimals)
  rule = metrics.parity_thresholds(
    scores, labels, groups, constraint=constraint, objective=objective
  )
  expected = peer(scores, labels, groups, constraint, objective)
  others, _, their_groups = data(9)
  for s, g in ((scores, groups), (others, their_groups)):
    np.testing.assert_allclose(
      probability(rule, s, g), expected(s, g), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("constraint", PEER)
@pytest.mark.parametrize("seed", range(4))
def test_small_and_useless_scores_equal_fairlearn(constraint, seed):
  # Few samples, heavy ties, scores without or against the labels; a coarse grid
  # meets points of the hull exactly.
  scores, labels, groups = data(
    seed, rows=24, decimals=0, separation=[0.0, -1.0, 1.0, 9.0][seed]
  )
  rule = metrics.parity_thresholds(
    scores, labels, groups, constraint=constraint, grid=24
  )
  expected = peer(scores, labels, groups, constraint, "accuracy", grid_size=24)
  np.testing.assert_allclose(
    probability(rule, scores, groups),
    expected(scores, groups),
    rtol=0,
    atol=1e-9,
  )


@pytest.mark.parametrize("constraint", PEER)
def test_constant_scores_equal_fairlearn(constraint):
  _, labels, groups = data(1, rows=40)
  scores = np.zeros(40)
  rule = metrics.parity_thresholds(
    scores, labels, groups, constraint=constraint
  )
  expected = peer(scores, labels, groups, constraint, "accuracy")
  np.testing.assert_allclose(
    probability(rule, scores, groups),
    expected(scores, groups),
    rtol=0,
    atol=1e-9,
  )


def rates(p, labels):
  """Expected rates of decisions that are positive with probability p."""
  return {
    "demographic_parity": p.mean(),
    "true_positive_rate": p[labels].mean(),
    "true_negative_rate": 1 - p[~labels].mean(),
    "false_positive_rate": p[~labels].mean(),
    "false_negative_rate": 1 - p[labels].mean(),
  }


@pytest.mark.parametrize("constraint", PEER)
def test_the_constraint_holds_and_the_objective_is_reached(constraint):
  scores, labels, groups = data(2, decimals=1)
  rule = metrics.parity_thresholds(
    scores, labels, groups, constraint=constraint
  )
  p = probability(rule, scores, groups)
  each = [rates(p[groups == g], labels[groups == g]) for g in range(3)]
  equal = (
    ["true_positive_rate", "false_positive_rate"]
    if constraint == "equalized_odds"
    else [constraint]
  )
  for name in equal:
    np.testing.assert_allclose(
      [r[name] for r in each], each[0][name], rtol=0, atol=1e-12
    )
  np.testing.assert_allclose(each[0][equal[-1]], rule.rate, atol=1e-12)
  accuracy = np.where(labels, p, 1 - p).mean()
  np.testing.assert_allclose(accuracy, rule.objective, atol=1e-12)
  # Deciding everything negatively meets every constraint.
  assert accuracy >= max(labels.mean(), (~labels).mean()) - 1e-12


@pytest.mark.parametrize("constraint", ["demographic_parity", "equalized_odds"])
def test_no_mixture_of_two_thresholds_is_better(constraint):
  # All pairs of thresholds in both groups, mixed so that the rate agrees.
  rng = np.random.default_rng(3)
  groups = np.repeat([0, 1], 7)
  labels = np.tile([0, 1, 1, 0, 1, 0, 1], 2) == 1
  scores = rng.normal(size=14)
  rule = metrics.parity_thresholds(
    scores, labels, groups, constraint=constraint, grid=50
  )

  def best(g, x):
    s, y = scores[groups == g], labels[groups == g]
    cuts = np.concatenate([[-np.inf], np.sort(s)])
    decided = (s[None] > cuts[:, None]).astype(float)
    value = -np.inf
    for a in decided:
      for b in decided:
        ra, rb = (rates(d, y)[rate] for d in (a, b))
        if ra <= x + 1e-12 and rb >= x - 1e-12 and rb > ra:
          p = a + (x - ra) / (rb - ra) * (b - a)
          value = max(value, score(p, y))
    return value

  if constraint == "demographic_parity":
    rate = constraint
    score = lambda p, y: np.where(y, p, 1 - p).mean()
    values = [(best(0, x) + best(1, x)) / 2 for x in np.linspace(0, 1, 51)]
  else:
    rate = "false_positive_rate"
    score = lambda p, y: p[y].mean()
    values = [
      (min(best(0, x), best(1, x)) * 8 + (1 - x) * 6) / 14
      for x in np.linspace(0, 1, 51)
    ]
  np.testing.assert_allclose(rule.objective, max(values), atol=1e-12)


def test_several_attributes_are_fitted_one_by_one():
  one, two = data(4), data(5)
  groups = one[2]
  scores, labels = (
    np.stack([a, b], 1) for a, b in zip(one[:2], two[:2], strict=True)
  )
  labels[:6] = one[1][:6, None]
  rule = metrics.parity_thresholds(
    scores, labels, groups, constraint="equalized_odds"
  )
  assert rule.p0.shape == (3, 2)
  assert rule.rate.shape == (2,)
  p = metrics.parity_probability(rule, scores, groups)
  for a in range(2):
    alone = metrics.parity_thresholds(
      scores[:, a], labels[:, a], groups, constraint="equalized_odds"
    )
    np.testing.assert_array_equal(alone.left, rule.left[:, a])
    np.testing.assert_array_equal(
      metrics.parity_probability(alone, scores[:, a], groups), p[:, a]
    )


def test_float32_decides_as_float64_does():
  # Neighbouring float32 numbers: their midpoint is not one, and rounds up to
  # the higher of the two in half of the cases.
  low = np.float32(1.0) + np.arange(64, dtype=np.float32) * np.float32(2**-23)
  for i in range(62):
    scores = low[[i, i + 1, i, i + 1]]
    labels = np.array([False, True, False, True])
    rule = metrics.parity_thresholds(scores, labels, np.array([0, 0, 1, 1]))
    for _ in range(2):
      p = metrics.parity_probability(rule, scores, np.array([0, 0, 1, 1]))
      np.testing.assert_array_equal(p, labels)


def test_jit_and_one_hot_groups_change_nothing():
  scores, labels, groups = data(6)
  scores = scores.astype(np.float32)
  members = np.asarray(metrics.one_hot(groups, 3))
  rule = metrics.parity_thresholds(
    scores, labels, members, constraint="equalized_odds"
  )
  assert rule.count.tolist() == members.sum(axis=0).tolist()
  expected = metrics.parity_probability(rule, scores, groups)
  # Fusion may round the mixture differently.
  np.testing.assert_allclose(
    jax.jit(metrics.parity_probability)(rule, scores, members),
    expected,
    rtol=0,
    atol=2e-7,
  )
  np.testing.assert_allclose(
    expected, probability(rule, scores.astype(np.float64), groups), atol=1e-6
  )


def test_a_group_without_samples_stays_undefined():
  scores, labels, groups = data(7)
  members = np.asarray(metrics.one_hot(2 * groups, 6))
  for constraint in ("demographic_parity", "equalized_odds"):
    full = metrics.parity_thresholds(
      scores, labels, groups, constraint=constraint
    )
    rule = metrics.parity_thresholds(
      scores, labels, members, constraint=constraint
    )
    assert rule.count[[1, 3, 5]].tolist() == [0, 0, 0]
    assert np.isnan(rule.p0[[1, 3, 5]]).all()
    np.testing.assert_array_equal(rule.left[::2], full.left)
    np.testing.assert_array_equal(rule.ignored[::2], full.ignored)
    p = metrics.parity_probability(rule, scores[:4], np.array([0, 1, 4, 5]))
    assert np.isnan(p).tolist() == [False, True, False, True]


def test_what_has_no_probability():
  scores, labels, groups = data(7)
  rule = metrics.parity_thresholds(scores, labels, groups)
  members = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]]) > 0
  p = metrics.parity_probability(
    rule, np.array([0, 0, 0, np.nan], np.float32), members
  )
  assert np.isnan(p).tolist() == [False, True, True, True]
  decided = metrics.parity_decisions(
    None, rule, np.full(4, np.nan, np.float32), members
  )
  assert not decided.any()


def test_decisions():
  # A group whose hull is the diagonal is decided at random at every rate.
  scores = np.array([0.0, 0.0, 0.0, 1.0, 2.0, 3.0])
  labels = np.array([0, 1, 1, 0, 1, 1])
  groups = np.array([0, 0, 0, 1, 1, 1])
  rule = metrics.parity_thresholds(
    scores, labels, groups, objective="balanced_accuracy", grid=3
  )
  p = metrics.parity_probability(rule, scores, groups)
  np.testing.assert_allclose(p, [2 / 3] * 3 + [0, 1, 1], atol=1e-6)
  np.testing.assert_array_equal(
    metrics.parity_decisions(None, rule, scores, groups), p >= 0.5
  )
  many = np.repeat(np.arange(6), 4000)
  drawn = metrics.parity_decisions(
    jax.random.key(0), rule, scores[many], groups[many]
  )
  again = metrics.parity_decisions(
    jax.random.key(0), rule, scores[many], groups[many]
  )
  np.testing.assert_array_equal(drawn, again)
  shares = np.asarray(drawn).reshape(6, -1).mean(axis=1)
  np.testing.assert_allclose(shares[:3], 2 / 3, atol=0.03)
  # Certain decisions are certain.
  np.testing.assert_array_equal(shares[3:], [0, 1, 1])


def test_a_group_of_one_class_is_named():
  scores, labels, groups = data(8)
  labels = labels | (groups == 1)
  with pytest.raises(ValueError, match="Group 1 has only positive labels:"):
    metrics.parity_thresholds(scores, labels, groups)
  both = np.stack([data(8)[1], ~labels], axis=1)
  with pytest.raises(
    ValueError, match="Group 1 has only negative labels of attribute 1:"
  ):
    metrics.parity_thresholds(np.stack([scores] * 2, 1), both, groups)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"scores": np.zeros(3)}, r"got \[3\] and \[4\]"),
    ({"scores": np.array([0, 1, np.nan, 2])}, "must be finite"),
    ({"scores": np.array([0, 1, np.inf, 2])}, "must be finite"),
    ({"groups": np.array([0, 1])}, r"for 4 samples, got \[2\]"),
    ({"groups": np.array([0, 0, 1, -1])}, "ids run from -1"),
    ({"groups": np.array([0.0, 0, 1, 1])}, "vector of integers"),
    ({"groups": np.ones((4, 2), bool)}, "exactly one group, but 4"),
    ({"constraint": "parity"}, "constraint must be one of demographic_parity"),
    ({"objective": "f1"}, "objective must be one of accuracy"),
    (
      {"constraint": "equalized_odds", "objective": "selection_rate"},
      "one of accuracy, balanced_accuracy for equalized_odds",
    ),
    ({"grid": 0}, "grid must be a whole number"),
    ({"grid": None}, "grid must be a whole number"),
  ],
)
def test_unusable_input_of_the_fit(change, message):
  given = {
    "scores": np.arange(4.0),
    "labels": np.array([0, 1, 0, 1]),
    "groups": np.array([0, 0, 1, 1]),
  } | change
  arrays = [given.pop(name) for name in ("scores", "labels", "groups")]
  with pytest.raises(ValueError, match=message):
    metrics.parity_thresholds(*arrays, **given)


def test_unusable_input_of_the_rule():
  scores, labels, groups = data(8)
  rule = metrics.parity_thresholds(scores, labels, groups)
  with pytest.raises(ValueError, match=r"3 groups and scores \[N\]; got"):
    metrics.parity_probability(rule, scores[:, None], groups)
  with pytest.raises(ValueError, match=r"scores \[240\] and groups \[240, 2\]"):
    metrics.parity_probability(rule, scores, np.ones((240, 2), bool))
  with pytest.raises(ValueError, match="ids run from 0 to 3"):
    metrics.parity_probability(rule, scores, np.minimum(groups * 2, 3))
  with pytest.raises(ValueError, match="cannot be fitted to"):
    metrics.parity_thresholds(scores[:0], labels[:0], groups[:0])


def test_hull_keeps_a_vertical_start_and_drops_points_on_chords():
  x, y = [0.0, 0.0, 0.5, 1.0, 1.0], [0.0, 0.5, 0.75, 0.9, 1.0]
  assert tradeoffs._hull(x, y) == [0, 1, 4]
  assert tradeoffs._hull(x, [0.0, 0.5, 0.76, 0.9, 1.0]) == [0, 1, 2, 4]
