"""The study of synthetic worlds, in small: pretrained, swept, reported."""

import jax
import numpy as np
import pytest

from effjax.studies import edit
from effjax.studies.edit import arms, findings, page, pretraining, runs, tasks
from launch import configuring


@pytest.fixture(scope="module")
def config():
  found = configuring.load("configs/edit/iid.py:miniature")
  found = found.copy_and_resolve_references()
  with found.unlocked():
    found.arms = ("full", "full_attention", "lora1")
    found.rates = (1e-3, 3e-3)
    found.tuning, found.reported, found.steps = 1, 1, 16
  return found


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
  place = tmp_path_factory.mktemp("edit") / "run"
  return place, edit.run(config, str(place))


def test_all_arms_are_two_programs(finished, config):
  _, results = finished
  assert 1 <= len(results["programs"]) <= 2
  assert results["count"] == 3 * 2 * 2 * 2  # arms, rates, edits, mixes
  assert results["failed"] == 0
  assert results["pretrained"][0]["recall"]["S-O"] >= 0.9
  rows = {(row["mix"], row["arm"]) for row in results["table"]}
  assert rows == {(m, a) for m in config.mixes for a in config.arms}


def test_one_model_decides_no_claim(finished):
  _, results = finished
  assert results["claims"]
  assert {c["result"] for c in results["claims"]} == {"inconclusive"}


def test_the_spread_between_models_decides():
  # Edits of a model agree: resampling these alone would give no width at all.
  gaps = [np.repeat([[0.2], [-0.1], [0.1]], 2, axis=1)]
  judged = findings._judged(gaps, findings.Resampled(3, 2))
  assert judged["result"] == "inconclusive"
  low, high = judged["difference"]["low"], judged["difference"]["high"]
  assert low < 0 < judged["difference"]["estimate"] < high
  alike = [np.repeat([[0.2], [0.21], [0.19]], 2, axis=1)]
  judged = findings._judged(alike, findings.Resampled(3, 2))
  assert judged["result"] == "reproduced"
  ends = findings.Resampled(3, 2).interval(gaps[0])
  assert ends["high"] - ends["low"] > 0.1


def test_full_fine_tuning_changes_facts(finished):
  _, results = finished
  full = [r for r in results["table"] if r["arm"] == "full"]
  assert all(r["efficacy"]["estimate"] > 0.3 for r in full)
  assert all(0 <= r["preservation"]["estimate"] <= 1 for r in full)


def test_the_report_and_the_second_time(finished, config, capsys):
  place, results = finished
  assert "Success against preservation" in (place / "report.html").read_text()
  capsys.readouterr()
  again = edit.run(config, str(place))
  assert "100/" not in capsys.readouterr().out  # nothing is learned anew
  assert again["table"] == results["table"]
  assert page.summary(results) == page.summary(again)


def test_what_is_not_trained_stays(config):
  """A sweep over attention alone is not that over all blocks."""
  chosen = {name: arms.find(name) for name in ("full", "full_attention")}
  assert chosen["full"].method == chosen["full_attention"].method
  assert chosen["full"] != chosen["full_attention"]


@pytest.mark.slow
def test_side_by_side_is_one_by_one(config, finished):
  place, _ = finished
  about = pretraining.subject(config)
  model = pretraining.pretrain(about, config, 0, place / "pretrained")
  own = tasks.aligned([tasks.make(jax.random.key(1000), about, config, 2)])[0]
  both = config.copy_and_resolve_references()
  with both.unlocked():
    both.arms, both.rates = ("full",), (1e-3, 3e-3)
  found = runs.Runner(about, both).all(model.params, own, 0)
  with both.unlocked():
    both.rates = (3e-3,)
  alone = runs.Runner(about, both).all(model.params, own, 0)
  np.testing.assert_allclose(
    found["accuracy"][:, 1:], alone["accuracy"], atol=0.1
  )
