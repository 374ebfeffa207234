import dataclasses

import jax
import ml_collections
import numpy as np
import pytest

from effjax.studies.bias import findings, harm, measures, repairs, stages, votes
from effjax.studies.bias.arms import Member
from effjax.studies.bias.variants import Variant
from tests.studies.bias import small

SEEDS = (3, 4, 5)
SINGLE = Variant(
  name="single", like="ri", sparsities=(0.0, 0.98), attributes=("third",)
)
DISTILLED = Variant(name="distilled", sparsities=(0.98,), loss="distillation")


def problem():
  """300 samples of three labels; groups go along with the first."""
  rng = np.random.default_rng(0)
  labels, groups = {}, {}
  for split in ("train", "validation", "test"):
    group = rng.random((300, 2)) < 0.5
    rates = np.array([0.3, 0.4, 0.6]) + 0.3 * group[:, :1]
    labels[split] = rng.random((300, 3)) < rates
    groups[split] = group
  return dataclasses.replace(
    small.problem(),
    groups=("sex=f", "mark"),
    labels=labels,
    memberships=groups,
  )


PROBLEM = problem()


def logits(rng, strength):
  """Noisy logits of the labels, [300, 3] for validation and test."""
  return [
    (
      strength * (2.0 * PROBLEM.labels[split] - 1) + rng.normal(size=(300, 3))
    ).astype(np.float32)
    for split in ("validation", "test")
  ]


def stage(arm, sparsity, strength, like="", columns=None):
  rng = np.random.default_rng(len(arm) + int(100 * sparsity))
  made = [logits(rng, strength) for _ in SEEDS]
  cut = slice(None) if columns is None else columns
  return stages.Stage(
    members=[
      Member(arm=arm, sparsity=sparsity, seed=s, learning_rate=1.0, like=like)
      for s in SEEDS
    ],
    validation=np.stack([m[0] for m in made])[..., cut],
    test=np.stack([m[1] for m in made])[..., cut],
    achieved=[sparsity] * len(SEEDS),
    states=[],
    attributes=() if columns is None else ("third",),
  )


PARTS = [
  stage("dense", 0.0, 2.0),
  stage("ri", 0.98, 0.7),
  stage("pt", 0.98, 0.7),
  stage("distilled", 0.98, 1.0, like="pt"),
  stage("single", 0.0, 2.0, like="ri", columns=[2]),
  stage("single", 0.98, 0.7, like="ri", columns=[2]),
]


@pytest.fixture(scope="module")
def outcomes():
  from effjax.studies.bias import problems

  members, values = [], []
  for part in PARTS:
    some = PROBLEM
    if part.attributes:
      some = problems.restrict(PROBLEM, part.attributes)
    measure = measures.make_measure(some)
    members += part.members
    values += [
      measure(v, t) for v, t in zip(part.validation, part.test, strict=True)
    ]
  return measures.Outcomes(members, values)


def test_sides_part_the_samples():
  whole = measures.sides(PROBLEM)
  assert whole.names == ("sex=f", "mark", "not sex=f", "not mark")
  assert whole.families == {"sex": (0, 2), "mark": (1, 3)}
  for columns in whole.families.values():
    assert (whole.members[:, list(columns)].sum(1) == 1).all()


def gap(predictions, labels, member):
  """Equal opportunity difference of one label, in float64."""
  rates = [predictions[side & labels].mean() for side in (member, ~member)]
  return abs(rates[0] - rates[1])


def test_scores_by_brute_force():
  predictions = PARTS[1].test[0] > 0
  found = repairs.make_scores(PROBLEM)(predictions)
  labels, members = PROBLEM.labels["test"], PROBLEM.memberships["test"]
  assert float(found["accuracy"]) == pytest.approx(
    (predictions == labels).mean(), abs=1e-6
  )
  wanted = [
    np.mean([gap(predictions[:, a], labels[:, a], m) for a in range(3)])
    for m in members.T
  ]
  np.testing.assert_allclose(found["equal_opportunity"], wanted, atol=1e-6)


@pytest.fixture(scope="module")
def compared():
  return repairs.compare(
    jax.random.key(0),
    PROBLEM,
    repairs.logits_of(PARTS),
    SEEDS,
    [DISTILLED, SINGLE],
    arm="pt",
    sparsity=0.98,
  )


def test_every_repair_is_scored_for_every_seed(compared):
  assert list(compared["rows"]) == [
    "dense",
    "pruned",
    "thresholds adjusted",
    "thresholds by group",
    "5 % least sure overridden by dense",
    "5 % random overridden by dense",
    "distilled from the dense model",
  ]
  for scores in compared["rows"].values():
    assert all(np.isfinite(scores[k]).all() for k in repairs.SCORES)
    assert all(scores[k].shape == (3,) for k in repairs.SCORES)
  assert compared["curve"]["random"].shape == (3, len(repairs.BUDGETS))


def test_repairs_do_what_they_are_made_for(compared):
  mean = lambda row, score: compared["rows"][row][score].mean()
  assert mean("dense", "accuracy") > mean("pruned", "accuracy")
  assert mean("thresholds adjusted", "tcb_distance") < mean(
    "pruned", "tcb_distance"
  )
  # Overrides by better decisions help.
  assert mean("5 % random overridden by dense", "accuracy") > mean(
    "pruned", "accuracy"
  )


def test_an_override_by_brute_force(compared):
  dense, sparse = PARTS[0].test[1], PARTS[2].test[1]
  decided = sparse > 0
  for a in range(3):
    chosen = np.argsort(np.abs(dense[:, a]), kind="stable")[:15]
    decided[chosen, a] = dense[chosen, a] > 0
  wanted = (decided == PROBLEM.labels["test"]).mean()
  row = compared["rows"]["5 % least sure overridden by dense"]
  assert row["accuracy"][1] == pytest.approx(wanted, abs=1e-6)


def test_only_pairs_of_the_pruned_decisions_are_compared():
  parts = list(PARTS)
  silent = np.array(PARTS[2].test)
  silent[:, :, 2] = -1.0  # the third label is never predicted
  parts[2] = dataclasses.replace(PARTS[2], test=silent)
  found = repairs.compare(
    jax.random.key(0),
    PROBLEM,
    repairs.logits_of(parts),
    SEEDS[:1],
    [],
    arm="pt",
    sparsity=0.98,
  )
  scores = repairs.make_scores(PROBLEM)
  defined = np.isfinite(scores(silent[0] > 0)["amplification_size"])
  assert not defined[:, 2].any()
  dense = np.asarray(scores(PARTS[0].test[0] > 0)["amplification_size"])
  assert found["rows"]["dense"]["amplification_size"][0] == pytest.approx(
    dense[defined].mean(), abs=1e-6
  )


def test_flips_foretold_by_brute_force():
  found = repairs.flips_foretold(repairs.logits_of(PARTS), SEEDS, "ri", 0.98)
  dense, sparse = PARTS[0].test[0].ravel(), PARTS[1].test[0].ravel()
  flips = (dense > 0) != (sparse > 0)
  doubt = -np.abs(dense.astype(np.float64))
  pairs = doubt[flips][:, None] - doubt[~flips][None, :]
  wanted = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
  assert found[0] == pytest.approx(wanted, abs=1e-5)


def test_one_or_many_compares_the_same_pairs(outcomes):
  found = repairs.one_or_many(outcomes, PROBLEM, SINGLE, 0.98)
  joint = outcomes.each("ri", 0.98, 3)["amplification"][:, 2]
  alone = outcomes.each("single", 0.98, 3)["amplification"][:, 0]
  both = np.isfinite(joint) & np.isfinite(alone)
  assert both.any()
  assert found["joint"][0] == pytest.approx(joint[both].mean())
  assert found["single"][0] == pytest.approx(alone[both].mean())


def test_findings(outcomes):
  config = ml_collections.ConfigDict(dict(report=dict(focus=0.98)))
  found = findings.gather(config, PROBLEM, outcomes, PARTS, [DISTILLED, SINGLE])
  claims = [(v["claim"], v["arm"]) for v in found["verdicts"]]
  assert claims == [
    ("T7", "ri"),
    ("T7", "pt"),
    ("T8", "pt"),
    ("T9", "single"),
    ("T9", "single"),
  ]
  assert found["groups_compared"]["supports"][0] == int(
    PROBLEM.memberships["test"][:, 0].sum()
  )
  pruned = next(r for r in found["repairs"]["rows"] if r["name"] == "pruned")
  assert pruned["change"]["accuracy"]["estimate"] == 0.0


def test_findings_of_dense_models_only(outcomes):
  dense = measures.Outcomes(outcomes.members[:3], outcomes.values[:3])
  found = findings.gather(None, PROBLEM, dense, PARTS[:1], [])
  assert set(found) == {"groups_compared", "verdicts"}


def test_excess_error_by_brute_force(outcomes):
  results = {
    "seeds": list(SEEDS),
    "runs": [
      {
        **dataclasses.asdict(m),
        "by_attribute": {k: v.tolist() for k, v in values.items()},
      }
      for m, values in zip(outcomes.members, outcomes.values, strict=True)
    ],
  }
  found = harm.excess(results, "ri", 0.98)
  labels, whole = PROBLEM.labels["test"], measures.sides(PROBLEM)
  by_seed = []
  for dense, sparse in zip(PARTS[0].test, PARTS[1].test, strict=True):
    wrong = [((z > 0) != labels).astype(float) for z in (dense, sparse)]
    by_seed.append(
      [
        (
          (wrong[1][m].mean(0) - wrong[0][m].mean(0))
          - (wrong[1].mean(0) - wrong[0].mean(0))
        ).mean()
        for m in whole.members.T
      ]
    )
  np.testing.assert_allclose(found.estimate, np.mean(by_seed, 0), atol=1e-6)


def test_votes_by_brute_force():
  found = votes.count(repairs.logits_of(PARTS), SEEDS, "ri", 0.98)
  dense, sparse = (np.stack([z > 0 for z in part.test]) for part in PARTS[:2])
  modes = [votes.sum(0) >= 2 for votes in (dense, sparse)]  # of three models
  assert found["exemplars"] == (modes[0] != modes[1]).sum()
  assert found["all_disagree"] == (sparse != dense[:1]).all(0).sum()
  assert 0 <= found["corrected"] <= found["exemplars"]
  assert found["flips"] == pytest.approx((dense != sparse).mean())
  pairs = [(dense[i] != dense[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
  assert found["churn"] == pytest.approx(np.mean(pairs), abs=1e-6)


def test_calibration_counts_every_decision():
  dense, pruned = votes.calibration(
    repairs.logits_of(PARTS), SEEDS, PROBLEM, [("dense", 0.0), ("ri", 0.98)]
  )
  assert sum(dense["count"]) == 3 * 300 * 3
  z = PARTS[1].test.astype(np.float64).ravel()
  p, y = 1 / (1 + np.exp(-z)), np.tile(PROBLEM.labels["test"].ravel(), 3)
  inside = (p >= 0.3) & (p < 0.4)
  assert pruned["count"][3] == inside.sum()
  assert pruned["confidence"][3] == pytest.approx(p[inside].mean(), abs=1e-5)
  assert pruned["frequency"][3] == pytest.approx(y[inside].mean(), abs=1e-5)


@pytest.mark.parametrize(("support", "named"), [(4, "most"), (30, "few")])
def test_a_group_of_few_is_not_said_to_pay_most(support, named):
  runs = [
    {
      "seed": seed,
      "arm": arm,
      "sparsity": level,
      # By group, then by attribute.
      "by_attribute": {"group_error": errors, "error": [0.1]},
    }
    for seed in (0, 1)
    for arm, level, errors in (
      ("dense", 0.0, [[0.1], [0.1]]),
      ("pt", 0.9, [[0.9], [0.3]]),
    )
  ]
  results = {
    "seeds": [0, 1],
    "runs": runs,
    "groups_compared": {"names": ["few", "most"], "supports": [support, 500]},
  }
  assert f"errors of {named} grow" in harm.groups(results, "pt", [0.9], "x").alt
