import jax
import numpy as np
import pytest

from effjax import metrics
from effjax.studies.bias import measures
from effjax.studies.bias.arms import Member
from effjax.studies.bias.problems import Problem

SIZES = {"train": 900, "validation": 300, "test": 400}
ATTRIBUTES = ("bald", "young", "smiling", "never")
GROUPS = ("young", "mark_square")


def make_problem(marked):
  rng = np.random.default_rng(0)
  labels, members = {}, {}
  for split, size in SIZES.items():
    young = rng.random(size) < 0.4
    rates = np.stack(
      [0.2 + 0.3 * young, young, np.full(size, 0.6), np.zeros(size)], 1
    )
    labels[split] = rng.random((size, 4)) < rates
    labels[split][:, 1] = young
    square = rng.random(size) < 0.1 + 0.7 * labels[split][:, 2]
    members[split] = np.stack([young, square], 1)
  return Problem(
    attributes=ATTRIBUTES,
    groups=GROUPS,
    marked=marked,
    labels=labels,
    memberships=members,
    shape=(2, 2, 1),
    train=None,
    pictures=None,
    provenance={},
  )


@pytest.fixture(scope="module")
def measured():
  problem = make_problem({"mark_square": "smiling"})
  rng = np.random.default_rng(1)
  logits = {
    split: rng.normal(
      2.0 * problem.labels[split] - 1.5, 1.5, problem.labels[split].shape
    ).astype(np.float32)
    for split in ("validation", "test")
  }
  values = measures.make_measure(problem)(logits["validation"], logits["test"])
  return problem, logits, values


def test_every_quantity_is_there(measured):
  _, _, values = measured
  assert set(measures.QUANTITIES) <= set(values)
  assert values["amplification"].shape == (2, 4)
  assert values["backdoor"].shape == (1,)
  for name in set(values) - {"backdoor"}:
    assert values[name].shape[-1] == 4, name


def test_values_are_those_of_the_metrics(measured):
  problem, logits, values = measured
  batch = {
    "logits": logits["test"],
    "labels": problem.labels["test"],
    "groups": problem.memberships["test"],
  }
  train = problem.labels["train"], problem.memberships["train"]
  threshold = metrics.adjust_thresholds(
    logits["validation"], problem.labels["validation"]
  )
  expected = {
    "uncertainty": metrics.uncertainty(),
    "interdependence": metrics.interdependence(),
    "ece": metrics.calibration_error(),
  }
  for end, t in (("", 0.0), ("_adjusted", threshold)):
    expected |= {
      f"accuracy{end}": metrics.accuracy(t),
      f"tcb{end}": metrics.threshold_calibration_bias(train[0], threshold=t),
      f"amplification{end}": metrics.bias_amplification(*train, threshold=t),
    }
  each = lambda: {k: metrics.compute(m, **batch) for k, m in expected.items()}
  for name, direct in jax.jit(each)().items():
    np.testing.assert_allclose(values[name], direct, rtol=1e-6, err_msg=name)


def test_values_are_those_of_plain_counting(measured):
  problem, logits, values = measured
  test, labels = logits["test"], problem.labels["test"]
  np.testing.assert_allclose(
    values["accuracy"], ((test > 0) == labels).mean(0), rtol=1e-6
  )
  p = 1 / (1 + np.exp(-test.astype(float)))
  np.testing.assert_allclose(
    values["uncertainty"], (np.abs(p - 0.5) < 0.4).mean(0), rtol=1e-6
  )
  above = lambda a: (
    test[labels[:, a], a][:, None] > test[~labels[:, a], a]
  ).mean()
  np.testing.assert_allclose(
    values["auc"][:3], [above(a) for a in range(3)], rtol=1e-5
  )
  assert np.isnan(values["auc"][3])  # nobody has it
  mark, smiles = problem.memberships["test"][:, 1], labels[:, 2]
  share = mark[test[:, 2] > 0].mean() - mark[smiles].mean()
  np.testing.assert_allclose(values["backdoor"], [share], rtol=1e-5)


def test_thresholds_come_from_validation(measured):
  problem, logits, values = measured
  positives = problem.labels["validation"].sum(0)
  ordered = -np.sort(-logits["validation"], axis=0)
  for a in range(3):
    decided = logits["test"][:, a] > ordered[positives[a] - 1, a]
    right = (decided == problem.labels["test"][:, a]).mean()
    assert values["accuracy_adjusted"][a] == pytest.approx(right)
  # Without positives in validation nothing is predicted.
  assert values["accuracy_adjusted"][3] == 1.0


def member(arm, sparsity, seed):
  return Member(arm=arm, sparsity=sparsity, seed=seed, learning_rate=0.1)


def some_outcomes():
  members, values = [], []
  for arm, sparsity in (("dense", 0.0), ("ri", 0.9), ("pt", 0.9), ("ri", 0.5)):
    for seed in (3, 1):
      members.append(member(arm, sparsity, seed))
      filled = {
        name: np.array([sparsity, np.nan, 1.0]) + seed
        for name in measures.QUANTITIES
      }
      filled["amplification"] = np.array(
        [[1.0, np.nan, np.nan], [3.0, seed, np.nan]]
      )
      values.append(filled)
  members.append(member("base", 0.0, 77))
  values.append(values[0])
  return measures.Outcomes(members, values)


def test_outcomes_by_seed_and_attribute():
  outcomes = some_outcomes()
  assert outcomes.seeds() == [1, 3]  # a base model is not compared
  assert outcomes.sparsities("ri") == [0.5, 0.9]
  np.testing.assert_allclose(
    outcomes.by_seed("ri", 0.5, "auc"), [1.75, 3.75], rtol=1e-12
  )
  np.testing.assert_allclose(
    outcomes.by_attribute("ri", 0.5, "amplification"),
    [[2.0, 1.0, np.nan], [2.0, 3.0, np.nan]],
  )
  with pytest.raises(ValueError, match=r"no model ri 0\.7 with seed 1"):
    outcomes.each("ri", 0.7, 1)


def test_table_has_a_row_for_each_arm_and_sparsity():
  rows = measures.table(some_outcomes())
  places = [(row["arm"], row["sparsity"]) for row in rows]
  assert places == [("dense", 0.0), ("ri", 0.5), ("ri", 0.9), ("pt", 0.9)]
  cell = rows[1]["auc"]
  assert cell["estimate"] == pytest.approx(2.75)
  half = metrics.seed_interval(np.array([1.75, 3.75])).high - 2.75
  assert cell["high"] - cell["estimate"] == pytest.approx(float(half))
  assert cell["count"] == 2


def test_mean_leaves_out_what_is_undefined():
  values = {"auc": np.array([0.5, np.nan, 0.7]), "tcb": np.array([np.inf])}
  found = measures.mean(values)
  assert found["auc"] == pytest.approx(0.6)
  assert np.isnan(found["tcb"])
  assert set(found) == {"auc", "tcb"}
