import collections

import numpy as np
import pytest

from effjax.studies.bias import claims
from effjax.studies.bias.arms import Member
from effjax.studies.bias.measures import QUANTITIES, Outcomes

LEVELS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)


def outcomes(change, seeds=5, levels=LEVELS, arm="ri"):
  """Outcomes of four attributes: a dense model's, changed by a function.

  `change(quantity, sparsity, seed)` is added to what the dense model has.
  """
  dense = dict.fromkeys(QUANTITIES, 0.1) | {"auc": 0.9, "tcb": 1.0}
  members, values = [], []
  for name, sparsities in (("dense", (0.0,)), (arm, levels)):
    for sparsity in sparsities:
      for seed in range(seeds):
        members.append(
          Member(arm=name, sparsity=sparsity, seed=seed, learning_rate=0.1)
        )
        values.append(
          {
            key: np.full(4, base)
            + (change(key, sparsity, seed) if name == arm else 0.0)
            for key, base in dense.items()
          }
        )
  return Outcomes(members, values)


def as_claimed(quantity, sparsity, seed):
  """What the study claims, with a little noise."""
  noise = 1e-4 * np.sin(7 * seed)
  return noise + {
    "auc": -0.001 if sparsity <= 0.9 else -0.1 * sparsity,
    "uncertainty": 0.3 * sparsity,
    "interdependence": 0.3 * sparsity,
    "tcb": -0.3 * sparsity,
    "tcb_adjusted": 0.9 - 0.02,  # 0.1 + 0.88: nearly calibrated
    "amplification": 0.05 * sparsity,
  }.get(quantity, 0.0)


def against(quantity, sparsity, seed):
  """The opposite of what the study claims."""
  noise = 1e-4 * np.sin(7 * seed)
  return noise + {
    "auc": -0.1,
    "uncertainty": -0.05 * sparsity,
    "interdependence": -0.05 * sparsity,
    "tcb": 0.3 * sparsity,
    "tcb_adjusted": 0.9 + 0.4,
    "amplification": -0.05 * sparsity,
  }.get(quantity, 0.0)


def judged(found):
  return {(v.claim, v.quantity, v.text): v.result for v in found}


def test_every_claim_has_its_verdicts():
  found = claims.judge(outcomes(as_claimed), "ri")
  many = collections.Counter(v.claim for v in found)
  assert many == {"T1": 2, "T2": 1, "T3": 1, "T4": 2, "T5": 2, "T6": 2}
  assert {v.arm for v in found} == {"ri"}


@pytest.mark.parametrize(
  ("change", "expected"),
  [(as_claimed, "reproduced"), (against, "not reproduced")],
)
def test_clear_cases(change, expected):
  found = claims.judge(outcomes(change), "ri")
  assert set(judged(found).values()) == {expected}, judged(found)
  for verdict in found:
    assert verdict.low <= verdict.estimate <= verdict.high


def test_an_interval_across_the_border_is_inconclusive():
  def change(quantity, sparsity, seed):
    swing = 0.05 if seed % 2 else -0.05
    border = {"auc": -0.005, "amplification": 0.0}
    return border[quantity] + swing if quantity in border else 0.0

  found = claims.judge(outcomes(change, seeds=4), "ri")
  results = [v.result for v in found if v.claim in ("T1", "T5")]
  assert results == ["inconclusive"] * 4


def test_estimates_are_those_of_paired_differences():
  found = claims.judge(outcomes(as_claimed), "ri")
  (first,) = (v for v in found if v.claim == "T1" and "80%" in v.text)
  noise = np.mean([1e-4 * np.sin(7 * seed) for seed in range(5)])
  assert first.estimate == pytest.approx(0.001 - noise, abs=1e-12)
  (t5,) = (v for v in found if v.claim == "T5" and "99%" in v.text)
  assert t5.estimate == pytest.approx(0.05 * 0.99 + noise, abs=1e-12)


def test_a_single_seed_decides_nothing():
  found = claims.judge(outcomes(as_claimed, seeds=1), "ri")
  assert set(judged(found).values()) == {"inconclusive"}
  assert all(np.isnan(v.low) and np.isnan(v.high) for v in found)
  assert all(np.isfinite(v.estimate) for v in found)


def test_undefined_values_decide_nothing():
  found = claims.judge(outcomes(lambda *_: np.nan), "ri")
  assert set(judged(found).values()) == {"inconclusive"}


def test_an_undefined_seed_is_left_out():
  def change(quantity, sparsity, seed):
    return np.nan if seed == 2 else as_claimed(quantity, sparsity, seed)

  found = claims.judge(outcomes(change), "ri")
  assert set(judged(found).values()) == {"reproduced"}


def test_a_constant_quantity_is_no_trend():
  found = claims.judge(outcomes(lambda *_: 0.0), "ri")
  trends = [v for v in found if v.quantity.startswith("Spearman")]
  assert len(trends) == 3
  assert {v.result for v in trends} == {"inconclusive"}


def test_an_interval_stays_where_a_correlation_can_lie():
  # Student's interval of 1, 1, 1, 0.5 and 0.5 would pass 1.
  def change(quantity, sparsity, seed):
    turned = seed > 2 and sparsity == 0.98
    return as_claimed(quantity, 0.995 if turned else sparsity, seed)

  found = claims.judge(outcomes(change), "ri")
  trends = [v for v in found if v.quantity.startswith("Spearman")]
  assert {v.high for v in trends if v.claim != "T4"} == {1.0}
  assert {v.low for v in trends if v.claim == "T4"} == {-1.0}
  assert all(-1 < v.low < v.estimate for v in trends if v.claim != "T4")


def test_only_what_was_run_is_judged():
  found = claims.judge(outcomes(as_claimed, levels=(0.9,)), "ri")
  assert [v.claim for v in found] == ["T1", "T4"]
  assert claims.judge(outcomes(as_claimed, levels=()), "ri") == []


def test_a_wider_interval_at_a_higher_level():
  narrow = claims.judge(outcomes(as_claimed), "ri", level=0.5)
  wide = claims.judge(outcomes(as_claimed), "ri", level=0.99)
  for a, b in zip(narrow, wide, strict=True):
    if a.claim in ("T1", "T5", "T6"):
      assert b.high - b.low > a.high - a.low
