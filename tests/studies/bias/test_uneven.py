import types

import numpy as np
import pytest
from scipy import stats

from effjax.studies.bias import uneven
from effjax.studies.bias.arms import Member
from effjax.studies.bias.measures import Outcomes

SEEDS, ATTRIBUTES, GROUPS = 4, 6, 3


@pytest.fixture(scope="module")
def values():
  rng = np.random.default_rng(0)
  found = {}
  for arm, shift in (("dense", 0.0), ("ri", 0.05)):
    error = rng.normal(0.1 + shift, 0.005, (SEEDS, ATTRIBUTES))
    group = rng.normal(0.1 + shift, 0.005, (SEEDS, GROUPS, ATTRIBUTES))
    if arm == "ri":
      error[:, 2] += 0.3
      group[:, 1] += 0.2
    group[:, 0, 3] = np.nan  # nobody of this group in the test data
    rates = rng.uniform(0.1, 0.4, (2, SEEDS, ATTRIBUTES))
    found[arm] = dict(
      error=error, group_error=group, fpr=rates[0], fnr=rates[1]
    )
  return found


@pytest.fixture(scope="module")
def measured(values):
  members, rows = [], []
  for arm, some in values.items():
    for seed in range(SEEDS):
      sparsity = 0.9 if arm == "ri" else 0.0
      members.append(
        Member(arm=arm, sparsity=sparsity, seed=seed, learning_rate=0.1)
      )
      rows.append({name: x[seed] for name, x in some.items()})
  return uneven.measure(Outcomes(members, rows), "ri", 0.9)


def holm(p):
  order, adjusted, least = np.argsort(p), np.empty(len(p)), 0.0
  for rank, i in enumerate(order):
    least = max(least, min(1.0, (len(p) - rank) * p[i]))
    adjusted[i] = least
  return adjusted


def test_tests_are_those_of_scipy(values, measured):
  dense, pruned = values["dense"], values["ri"]
  beyond = [x["error"] - x["error"].mean() for x in (pruned, dense)]
  p = stats.ttest_ind(*beyond, equal_var=False).pvalue
  found = measured["attributes"]
  np.testing.assert_allclose(found["p"], holm(p), rtol=1e-4, atol=1e-12)
  np.testing.assert_allclose(
    found["harm"], beyond[0].mean(0) - beyond[1].mean(0), atol=1e-6
  )
  beyond = [
    np.nanmean(x["group_error"], -1) - x["error"].mean(1, keepdims=True)
    for x in (pruned, dense)
  ]
  p = stats.ttest_ind(*beyond, equal_var=False).pvalue
  found = measured["groups"]
  np.testing.assert_allclose(found["p"], holm(p), rtol=1e-4, atol=1e-12)


def test_spread_of_the_changes_by_its_definition(values, measured):
  changes = [
    100 * (values["ri"][k].mean(0) / values["dense"][k].mean(0) - 1)
    for k in ("fpr", "fnr")
  ]
  x, y = changes
  assert measured["cev"] == pytest.approx((x.var() + y.var()) / 2, rel=1e-4)
  assert measured["sde"] == pytest.approx(
    np.abs(x - y).mean() / 2**0.5, rel=1e-4
  )
  assert measured["defined"] == ATTRIBUTES


def test_the_section_names_whom_it_hurts_most(measured):
  names = [f"a{i}" for i in range(ATTRIBUTES)]
  groups = {"names": [f"g{i}" for i in range(GROUPS)]}
  results = dict(
    uneven=[measured], attributes=names, groups_compared=groups, seeds=[0, 1]
  )
  (table,) = uneven.section(results, {"ri": "pruned"}).elements
  heading, row = table.rows
  assert heading == "pruned"
  more, less, whom, _ = row[3:]
  assert more.startswith(f"1 of {ATTRIBUTES}, a2 +")
  assert less.startswith("5 of 6")
  assert "g1 +" in whom
  assert uneven.section({}, {}) is None
  undefined = types.SimpleNamespace(harm=[np.nan], p=[np.nan])
  assert uneven._hurt(vars(undefined), ["x"]) == ("0 of 1", "0 of 1")
