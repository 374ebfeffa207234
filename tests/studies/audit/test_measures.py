"""An audit against brute force, on outputs with a known hurt group."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from effjax import metrics
from effjax.studies import audit
from effjax.studies.audit.terms import terms
from tests.studies.audit import small

FOUND = small.arrays()
OLD = FOUND["old"]
Y = FOUND["labels"]
WRONG = {
  who: (FOUND[name] > 0) != Y
  for who, name in (("model", "outputs"), ("reference", "reference"))
}


def outputs(**changed):
  arrays = FOUND | changed
  other = small.arrays(200, seed=1)
  return audit.from_arrays(
    arrays["outputs"],
    arrays["reference"],
    {"sex": arrays["sex"], "old": arrays["old"]},
    labels=arrays["labels"],
    attributes=small.ATTRIBUTES,
    ids=arrays["ids"],
    validation=(other["outputs"] - 0.5, other["labels"]),
  )


@pytest.fixture(scope="module")
def results():
  return audit.audit(outputs(), resamples=100)


def row(results, quantity, partition=None):
  return next(
    r
    for r in results["overall"]
    if (r["quantity"], r["partition"]) == (quantity, partition)
  )


def test_the_hurt_group_is_found(results):
  first = results["worst"]["pairs"][0]
  assert (first["group"], first["attribute"]) == ("old", "tie")
  assert first["p_holm"] < 1e-3
  assert results["worst"]["significant"] == 1
  assert results["worst"]["tested"] == 12
  broken = OLD & WRONG["model"][:, 2] & ~WRONG["reference"][:, 2]
  mended = OLD & ~WRONG["model"][:, 2] & WRONG["reference"][:, 2]
  assert first["broken"] == broken.sum()
  assert first["mended"] == mended.sum()
  assert first["support"] == OLD.sum()
  everyone = WRONG["model"][:, 2].astype(int) - WRONG["reference"][:, 2]
  drawn = stats.permutation_test(
    (everyone[OLD], everyone[~OLD]),
    lambda x, y: x.sum(),
    alternative="greater",
    n_resamples=2_000,
    rng=np.random.default_rng(0),
  )
  assert first["p"] < 1e-4
  assert drawn.pvalue < 2e-3  # none of those drawn
  change = WRONG["model"].mean(0) - WRONG["reference"].mean(0)
  inside = WRONG["model"][OLD].mean(0) - WRONG["reference"][OLD].mean(0)
  excess = first["excess_error"]
  np.testing.assert_allclose(
    excess["estimate"], (inside - change)[2], atol=1e-6
  )
  assert 0 < excess["low"] < excess["estimate"] < excess["high"]


def test_measures_are_those_of_the_metrics(results):
  batch = {"logits": FOUND["outputs"], "labels": Y}
  expected = {
    "accuracy": 1 - WRONG["model"].mean(0),
    "auc": metrics.auc_exact(FOUND["outputs"], Y),
    "ece": metrics.compute(metrics.calibration_error(), **batch),
    "brier": metrics.compute(metrics.brier_score(), **batch),
    "positive_rate": (FOUND["outputs"] > 0).mean(0),
  }
  for name, value in expected.items():
    found = results["by_attribute"][name]["model"]
    np.testing.assert_allclose(found, value, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(
      row(results, name)["model"], np.mean(value), atol=2e-6, err_msg=name
    )
    change = row(results, name)["difference"]
    assert change["low"] <= change["estimate"] <= change["high"]
    np.testing.assert_allclose(
      change["estimate"],
      row(results, name)["model"] - row(results, name)["reference"],
      atol=2e-6,
      err_msg=name,
    )


def test_gaps_are_those_of_disparities(results):
  rates = metrics.compute(
    metrics.group_rates(),
    logits=FOUND["outputs"],
    labels=Y,
    groups=np.stack([OLD, ~OLD], axis=1),
  )
  expected = metrics.disparities(rates)
  for name in ("demographic_parity", "equalized_odds", "predictive_parity"):
    np.testing.assert_allclose(
      row(results, name, "old")["model"],
      np.mean(getattr(expected, name).difference),
      atol=1e-6,
      err_msg=name,
    )
  np.testing.assert_allclose(
    row(results, "worst_accuracy", "old")["model"],
    np.mean(expected.worst_accuracy),
    atol=1e-6,
  )
  change = row(results, "equalized_odds", "old")["difference"]
  assert change["low"] > 0


def test_changes_of_groups_are_those_of_error_change(results):
  expected = metrics.compute(
    metrics.error_change(),
    logits=FOUND["outputs"],
    reference_logits=FOUND["reference"],
    labels=Y,
    groups=outputs().groups.members,
  )
  found = results["by_group"]
  for name, value in (
    ("error_change", expected.change),
    ("excess_error", expected.excess),
  ):
    np.testing.assert_allclose(found[name]["estimate"], value, atol=1e-6)


def test_directional_amplification(results):
  metric = metrics.directional_bias_amplification()
  expected = metrics.compute(
    metric,
    logits=FOUND["outputs"],
    labels=Y,
    groups=outputs().groups.members,
  )
  found = row(results, "amplification")
  np.testing.assert_allclose(found["model"], expected, atol=1e-6)
  assert found["title"] == "directional amplification"


def test_flips_and_exemplars(results):
  flipped = (FOUND["outputs"] > 0) != (FOUND["reference"] > 0)
  assert results["flips"]["overall"]["rate"]["estimate"] == pytest.approx(
    flipped.mean(), abs=1e-6
  )
  assert row(results, "flips")["difference"]["estimate"] == pytest.approx(
    flipped.mean(), abs=1e-6
  )
  counts = results["flips"]["overall"]
  assert counts["lost"] + counts["gained"] == flipped.sum()
  assert counts["broken"] + counts["mended"] == flipped.sum()
  sure = np.minimum(np.abs(FOUND["outputs"]), np.abs(FOUND["reference"]))
  best = np.unravel_index(np.argmax(np.where(flipped, sure, -1)), sure.shape)
  first = results["exemplars"][0]
  assert first["id"] == f"p{best[0]}"
  assert first["attribute"] == small.ATTRIBUTES[best[1]]
  assert first["reference"] != first["model"]


def test_mitigation(results):
  found = results["mitigation"]
  assert found["needs"] == []
  accuracy = 1 - WRONG["model"].mean()
  assert found["decisions"]["model"]["accuracy"] == pytest.approx(accuracy)
  assert found["override"]["susceptible"]["accuracy"][0] == pytest.approx(
    accuracy, abs=1e-6
  )
  other = small.arrays(200, seed=1)
  thresholds = metrics.adjust_thresholds(
    other["outputs"] - 0.5, other["labels"]
  )
  moved = (FOUND["outputs"] > np.asarray(thresholds)) == Y
  assert found["decisions"]["adjusted"]["accuracy"] == pytest.approx(
    moved.mean(), abs=1e-6
  )


def test_results_are_plain_and_repeat(results):
  text = json.dumps(results, sort_keys=True)
  again = audit.audit(outputs(), resamples=100)
  assert json.dumps(again, sort_keys=True) == text
  assert '"study": "audit"' in text


def test_what_is_undefined_is_declared():
  logits, labels = FOUND["outputs"].copy(), Y.copy()
  logits[5, 0] = np.nan
  labels[:, 1] = False
  nobody = np.zeros(small.ROWS, bool)
  results = audit.audit(
    outputs(outputs=logits, labels=labels, old=nobody), resamples=100
  )
  said = {(u["name"], u["count"]): u["reason"] for u in results["undefined"]}
  assert "NaN outputs of the model" in said["smile", 1]
  assert "all 600 labels are 0" in said["hat", 600]
  assert said["old", 0] == "an empty group"
  assert math.isnan(results["by_attribute"]["accuracy"]["model"][0])
  assert math.isnan(results["by_attribute"]["auc"]["model"][1])
  assert row(results, "accuracy")["defined"] == 2
  assert row(results, "auc")["defined"] == 1
  excess = np.array(results["by_group"]["excess_error"]["estimate"])
  place = [group["name"] for group in results["groups"]].index("old")
  assert np.isnan(excess[place]).all()
  assert not np.isnan(excess[0, 1:]).any()
  assert math.isnan(row(results, "equalized_odds", "old")["model"])


def test_decisions_without_labels():
  one = audit.from_arrays(
    FOUND["outputs"] > 0,
    FOUND["reference"] > 0,
    {"old": OLD},
    kind="predictions",
  )
  results = audit.audit(one, resamples=20)
  quantities = {r["quantity"] for r in results["overall"]}
  assert quantities == {"positive_rate", "flips", "demographic_parity"}
  flipped = (FOUND["outputs"] > 0) != (FOUND["reference"] > 0)
  np.testing.assert_allclose(
    results["by_group"]["flip_rate"][0], flipped[OLD].mean(0), atol=1e-6
  )
  assert "excess_error" not in results["by_group"]
  assert "broken" not in results["flips"]["overall"]
  assert "Labels" in results["mitigation"]["needs"][0]
  assert results["worst"]["pairs"] == []
  assert results["calibration"] == {}


def test_terms_have_the_measures_as_means():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(50, 2)).round(1).astype(np.float32)  # with ties
  labels = rng.random((50, 2)) < 0.4
  found = {k: v.mean(0) for k, v in terms(logits, labels).items()}
  batch = {"logits": logits, "labels": labels}
  for name, metric in (
    ("ece", metrics.calibration_error()),
    ("brier", metrics.brier_score()),
    ("uncertainty", metrics.uncertainty()),
    ("accuracy", metrics.accuracy()),
  ):
    expected = metrics.compute(metric, **batch)
    np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)
  expected = metrics.auc_exact(logits, labels)
  np.testing.assert_allclose(found["auc"], expected, atol=1e-6)


def test_influence_on_the_area_is_its_derivative():
  """The area with more of one sample moves as the term of the sample says."""
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(400, 1)).astype(np.float32)
  labels = rng.random((400, 1)) < 0.3
  term = terms(logits, labels)["auc"][:, 0].astype(float)
  area = float(metrics.auc_exact(logits, labels)[0])
  for i in range(0, 400, 57):
    rows = np.append(np.arange(400), i)
    moved = float(metrics.auc_exact(logits[rows], labels[rows])[0])
    np.testing.assert_allclose(
      (moved - area) * 401, term[i] - area, atol=0.02 + 0.03 * abs(term[i])
    )
