"""The bias study on a table of persons, generated here."""

import json

import numpy as np
import pytest

from effjax.data import registry, tabular
from effjax.studies import bias
from effjax.studies.bias import problems
from launch import configuring, overview

GROUPS = ("sex=Female", "sex=Male", "age<25", "age=25-44", "age>=45")
SIZES = {"train": 400, "validation": 150, "test": 200}


def table(name, split, **options):
  """Persons whose label follows from two features, and less so for one sex."""
  assert name == "adult"
  assert options["use_protected"] is False
  rng = np.random.default_rng(list(SIZES).index(split))
  size = SIZES[split]
  features = rng.normal(size=(size, 6)).astype(np.float32)
  female, age = rng.random(size) < 0.4, rng.integers(0, 3, size)
  noise = rng.normal(size=size) * np.where(female, 1.5, 0.3)
  labels = features[:, :1] + features[:, 1:2] + noise[:, None] > 0.5
  groups = np.stack([female, ~female, *(age == i for i in range(3))], axis=1)
  return registry.Source(
    name=name,
    split=split,
    names={
      "features": tuple("abcdef"),
      "labels": ("income>50K",),
      "groups": GROUPS,
    },
    arrays={"features": features, "labels": labels, "groups": groups},
    provenance={"name": name},
    length=size,
  )


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setattr(tabular, "load", table)
  config = configuring.load(
    "configs/bias/tabular.py:quick,seeds=2,sparsities=0.9"
  )
  with config.unlocked():
    config.sparsities = (0.9,)
    config.training.epochs, config.training.epochs_pt = 4, 2
    for plan, end in (("ri", 3.0), ("pt", 1.5)):
      config.training.pruning[plan].begin = 0.0
      config.training.pruning[plan].every = 0.5
      config.training.pruning[plan].end = end
  return config


def test_families_are_read_off_the_names(config):
  problem = problems.load(config.data)
  assert problem.families() == {"sex": (0, 1), "age": (2, 3, 4)}
  assert problem.shape == (6,)
  batch = problem.train(0, 50)[0]
  assert batch["images"].dtype == np.float32
  assert np.concatenate(list(problem.pictures("test", 64))).shape == (200, 6)


@pytest.mark.slow
def test_the_study_audits_a_table(config, tmp_path):
  bias.run(config, tmp_path / "run")
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  assert results["attributes"] == ["income>50K"]
  assert results["groups_compared"]["names"] == list(GROUPS)
  assert sum(results["groups_compared"]["supports"][:2]) == 200
  dense = results["table"][0]
  assert dense["accuracy"]["estimate"] > 0.7
  assert dense["equal_opportunity"]["estimate"] > 0
  names = [row["name"] for row in results["repairs"]["rows"]]
  assert "thresholds by group" in names
  text = (tmp_path / "run" / "report.html").read_text()
  assert "sex=Female, n = " in text
  assert "Decisions that flip" not in text  # a table has no pictures
  studies, unusable = overview.find(tmp_path)
  assert [s.results["study"] for s in studies] == ["bias"]
  assert not unusable


def test_a_table_takes_no_marks(config):
  with config.unlocked():
    config.data.marks = (dict(attribute="income>50K", mark="square"),)
  with pytest.raises(ValueError, match="a table has none"):
    problems.load(config.data)
