"""Means over networks and images, their differences, the verdict."""

import numpy as np
import pytest

from effjax.studies.spade import examiner, findings, measures
from tests.studies.spade import small

RNG = np.random.default_rng(0)
DENSE = RNG.uniform(0.4, 0.8, (2, 6))


def outcome(s, gain=0.1, exact=(0, 3)):
  """One network: traced maps are better by `gain`, on every image."""
  dense = {"saliency": DENSE[s], "lrp": DENSE[s] + 0.1}
  traced = {k: v + gain for k, v in dense.items()}
  few = {k: v[list(exact)] + 2 * gain for k, v in dense.items()}
  areas = {"dense": dense, "fast_spade": traced, "spade": few}
  both = lambda values: {
    k: {"insertion": v, "deletion": 1 - v} for k, v in values.items()
  }
  return {
    "seed": s,
    "accuracy": (0.9, 0.88),
    "success": {"cross": 0.7 + 0.1 * s},
    "tuned": {},
    "areas": areas,
    "answer_kept": {
      "dense": [True] * 6,
      "fast_spade": [s == 0] * 3 + [True] * 3,
      "spade": [True, s == 0],
    },
    "exact_images": list(exact),
    "faithfulness": {"dense": both(dense), "fast_spade": both(traced)},
    "ablations": {
      "copies": [
        {"value": 1, "area": DENSE[s]},
        {"value": 8, "area": DENSE[s] + 0.05},
      ]
    },
    "seconds": {"cpu": 2.0, "wall": 1.0},
  }


def extremes(values, reference=0.0):
  """The mean, and the ends of all values in the place of an interval."""
  values = np.asarray(values) - np.asarray(reference)
  ends = values.mean(), values.min(), values.max()
  return dict(zip(small.ENDS, ends, strict=True))


@pytest.fixture
def found(monkeypatch):
  monkeypatch.setattr(measures, "interval", extremes)
  outcomes = [outcome(0), outcome(1, exact=(2, 5))]
  return findings.gather(small.config(), outcomes)


def test_an_interval_of_known_numbers():
  values = np.array([[0.0, 1.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
  got = measures.interval(values)
  assert got["estimate"] == pytest.approx(0.5)
  # An image more or less of the first network, drawn twice, at most.
  assert 0.2 < got["low"] < 0.45
  assert 0.55 < got["high"] < 0.8
  # Networks differ by so much that images do not matter.
  apart = measures.interval(np.array([[0.0] * 4, [1.0] * 4]))
  assert (apart["low"], apart["high"]) == (0.0, 1.0)
  # Pairing removes what the arms share.
  paired = measures.interval(values + 0.25, values)
  assert paired == pytest.approx(dict(estimate=0.25, low=0.25, high=0.25))


def test_means_are_over_networks_images_and_methods(found):
  dense = found["auc"]["dense"]
  assert dense["saliency"]["estimate"] == pytest.approx(DENSE.mean(), abs=1e-5)
  assert dense["mean"]["estimate"] == pytest.approx(
    DENSE.mean() + 0.05, abs=1e-5
  )
  assert dense["mean"]["low"] < dense["mean"]["estimate"]
  assert found["images"] == 6
  assert found["success"] == {"cross": [0.7, pytest.approx(0.8)]}
  assert found["seconds"] == {"wall": 2.0, "cpu": 4.0}
  copies = found["ablations"]["copies"]
  assert [row["value"] for row in copies] == [1, 8]
  assert copies[1]["area"]["estimate"] == pytest.approx(
    DENSE.mean() + 0.05, abs=1e-5
  )


def test_the_exact_solver_is_compared_on_the_images_that_it_saw(found):
  assert found["exact_images"] == 2
  few = np.stack([DENSE[0, [0, 3]], DENSE[1, [2, 5]]])
  spade = found["auc"]["spade"]["saliency"]["estimate"]
  assert spade == pytest.approx(few.mean() + 0.2, abs=1e-5)
  for name in ("saliency", "lrp", "mean"):
    change = found["auc_against_dense"]["spade"][name]
    for end in small.ENDS:
      assert change[end] == pytest.approx(0.2, abs=1e-5)


def test_kept_answers_are_counted(found):
  kept = found["answer_kept"]
  means = [kept[arm]["estimate"] for arm in ("dense", "fast_spade", "spade")]
  assert means == [1.0, 0.75, 0.75]


def test_outcomes_of_an_earlier_version_are_read(monkeypatch):
  monkeypatch.setattr(measures, "interval", extremes)
  outcomes = [outcome(0), outcome(1)]
  del outcomes[1]["answer_kept"]
  assert "answer_kept" not in findings.gather(small.config(), outcomes)


def test_differences_are_paired(found):
  assert "dense" not in found["auc_against_dense"]
  for name in ("saliency", "lrp", "mean"):
    change = found["auc_against_dense"]["fast_spade"][name]
    for end in small.ENDS:
      assert change[end] == pytest.approx(0.1, abs=1e-5)
  faithfulness = found["faithfulness"]
  assert faithfulness["insertion_against_dense"]["fast_spade"][
    "high"
  ] == pytest.approx(0.1, abs=1e-5)
  assert faithfulness["deletion_against_dense"]["fast_spade"][
    "low"
  ] == pytest.approx(-0.1, abs=1e-5)
  assert found["verdict"]["outcome"] == "reproduced"
  assert "+0.100 (+0.100 to +0.100)" in found["verdict"]["text"]


@pytest.mark.parametrize(
  ("low", "high", "expected"),
  [
    (0.01, 0.2, "reproduced"),
    (-0.2, -0.01, "not reproduced"),
    (-0.1, 0.1, "inconclusive"),
    (0.0, 0.1, "inconclusive"),
    (np.nan, np.nan, "inconclusive"),
  ],
)
def test_the_verdict_is_that_of_the_whole_interval(low, high, expected):
  mean = {"estimate": (low + high) / 2, "low": low, "high": high}
  verdict = findings.verdict({"fast_spade": {"mean": mean}})
  assert verdict["outcome"] == expected


def test_sparsities_are_tuned_by_quick_methods_of_the_study():
  assert examiner.tuned_by(["rise", "lrp", "saliency"]) == ("saliency", "lrp")
  with pytest.raises(ValueError, match="tuned by saliency, input_x_gradient"):
    examiner.tuned_by(["rise"])
