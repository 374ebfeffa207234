"""The whole study on generated pictures: to the end, and resumed."""

import functools
import json
import time

import ml_collections
import numpy as np
import pytest

from effjax.data import registry
from effjax.studies import spade
from effjax.studies.spade import explanations, trojans
from launch import configuring, overview
from tests.studies.bias import tiny

TIMED = ("seconds", "environment")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("fashion")
  tiny.write(folder, train=1200, test=300)
  config = configuring.load("configs/spade/fashion.py:miniature")
  options = dict(
    arms=("dense", "fast_spade", "spade", "sparse_head"),
    methods=("saliency",),
    patches=(("checks", 8, 9, 0.3),),
    calibration_each=2,
    each=2,
    exact_each=1,
    ablation_each=2,
    clean_images=2,
    copies=4,
    exact_inputs=30,
    budget=2,
    strengths=(0.001, 0.01),
    head_images=400,
    visualise_steps=2,
  )
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.update(options)
    config.data.directory = str(folder)
    config.data.limit = 0
    config.ablations = ml_collections.ConfigDict(
      dict(copies=(1, 4), mask_block=(9,))
    )
    config.model.options = dict(features=(4, 8), hidden=16)
    config.training.trojan_epochs = 12
    config.training.batch_size = 32
  real = registry.SOURCES["fashion_mnist"]
  registry.SOURCES["fashion_mnist"] = tiny.declared(folder)
  yield config
  registry.SOURCES["fashion_mnist"] = real


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
  place = tmp_path_factory.mktemp("study") / "run"
  spade.run(config, str(place))
  # Programs of a network do not outlive it, or many networks would fill up what
  # a process may map.
  assert explanations._maps._cache_size() == 0
  return place, json.loads((place / "results.json").read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_study_runs_to_its_report(config, finished):
  place, results = finished
  assert set(results["auc"]) == set(config.arms)
  for rows in results["auc"].values():
    assert set(rows) == {"saliency", "mean"}
    assert 0 <= rows["mean"]["low"] <= rows["mean"]["high"] <= 1
  assert set(results["auc_against_dense"]) == set(config.arms) - {"dense"}
  assert (results["images"], results["exact_images"]) == (2, 1)
  (success,) = results["success"].values()
  assert success[0] > 0.6
  ((before, after),) = results["accuracy"]
  assert min(before, after) > 0.5
  (tuned,) = results["tuned"]
  assert tuned["fast_spade"]["tried"] == 2
  assert tuned["fast_spade"]["rules"][0] == ["conv1/kernel", None]
  assert tuned["sparse_head"]["strength"] in (0.001, 0.01)
  assert set(results["ablations"]) == {"copies", "mask_block"}
  assert set(results["faithfulness"]["insertion"]) == {
    "dense",
    "fast_spade",
    "sparse_head",
  }
  text = (place / "report.html").read_text("utf-8")
  assert "What the maps show" in text
  assert "What a class looks like" in text
  assert "data:image/png" in text
  studies, unusable = overview.find(place.parent)
  assert [study.results["study"] for study in studies] == ["spade"]
  assert not unusable


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_stopped_goes_on(config, finished, monkeypatch):
  place, results = finished
  (place / "results.json").unlink()
  monkeypatch.setattr(
    trojans, "plant", functools.partial(pytest.fail, "trained again")
  )
  start = time.process_time()
  spade.run(config, str(place))
  assert time.process_time() - start < 10
  again = json.loads((place / "results.json").read_text("utf-8"))
  without = lambda r: {k: v for k, v in r.items() if k not in TIMED}
  assert without(again) == without(results)
  assert again["seconds"] == results["seconds"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_network_that_was_trained_is_not_trained_again(config, finished):
  """The outcome is lost, its checkpoints are not."""
  place, results = finished
  outcome = place / "seed0" / "outcome.json"
  before = json.loads(outcome.read_text("utf-8"))
  outcome.unlink()
  spade.run(config, str(place))
  again = json.loads((place / "results.json").read_text("utf-8"))
  assert again["success"] == results["success"]
  after = json.loads(outcome.read_text("utf-8"))
  for name in ("accuracy", "success", "tuned", "exact_images"):
    assert after[name] == before[name]
  for arm, areas in before["areas"].items():
    np.testing.assert_allclose(
      after["areas"][arm]["saliency"], areas["saliency"], atol=1e-6
    )


@pytest.mark.slow
def test_a_trojan_that_does_not_take_is_named(config, finished, tmp_path):
  weak = config.copy_and_resolve_references()
  with weak.unlocked():
    weak.training.trojan_epochs = 1
    weak.training.learning_rate = 1e-5
  with pytest.raises(ValueError, match="raise trojan_epochs or its rate"):
    spade.run(weak, str(tmp_path / "weak"))
