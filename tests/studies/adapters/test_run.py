"""The whole study on a tiny model: to the end, resumed, and shown."""

import dataclasses
import hashlib
import json

import pytest

from effjax.data import registry
from effjax.studies import adapters
from effjax.studies.adapters import finetuning, page
from launch import blocks, configuring, overview, readme
from tests.models import language_models as tiny

HEAD = "Title\tContent\nstring\tstring\n\tinclude=True\n"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  place = tmp_path_factory.mktemp("adapters")
  rows = "".join(f"T{n}\t{'hello. tell to. ' * 3}he{n}.\n" for n in range(6))
  content = (HEAD + rows).encode()
  (place / "grimm-tales.tab").write_bytes(content)
  (place / "tiny.gguf").write_bytes(tiny.gguf_file(tiny.random_params()))
  config = configuring.load("configs/adapters/tales.py:miniature")
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.model = str(place / "tiny.gguf")
    config.arms = ("blocks",)
    config.rates = dict(blocks=(0.01, 0.03))
    config.seeds = (0, 1)
    config.update(rank=2, density=0.05, steps=4, length=40, shown_tokens=3)
    config.data.update(directory=str(place), asked=1, answered=1)
    config.data.tales = dict(train=3, validation=1, test=2)
  real = registry.SOURCES["tales"]
  (file,) = real.files
  digest = hashlib.sha256(content).hexdigest()
  file = dataclasses.replace(file, sha256=digest, size=len(content))
  registry.SOURCES["tales"] = dataclasses.replace(real, files=(file,))
  patch = pytest.MonkeyPatch()
  patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
  yield config
  patch.undo()
  registry.SOURCES["tales"] = real


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
  place = tmp_path_factory.mktemp("study") / "run"
  return place, adapters.run(config, str(place))


def test_every_arm_has_a_row(finished, config):
  place, results = finished
  assert [row["arm"] for row in results["table"]] == ["blocks"]
  assert len(results["runs"]) == 2 + 1
  for row in results["table"]:
    own = [
      run["test"]
      for run in results["runs"]
      if run["arm"] == row["arm"] and run["rate"] == row["rate"]
    ]
    assert len(own) == 2
    assert row["after"]["estimate"] == pytest.approx(sum(own) / 2)
    change = row["after"]["estimate"] - results["base"]["test"]
    assert row["change"]["estimate"] == pytest.approx(change)
    assert change < 0
  best = min(results["tried"]["blocks"], key=lambda one: one["validation"])
  assert results["table"][0]["rate"] == best["rate"]
  assert results["table"][0]["at_the_edge"]
  assert json.loads((place / "results.json").read_text()) == results
  # Checkpoints are large: none is left.
  assert not list(place.rglob("checkpoints"))


def test_tales_are_in_one_part(finished):
  titles = finished[1]["data"]["tales"]
  assert {k: len(v) for k, v in titles.items()} == {
    "train": 3,
    "validation": 1,
    "test": 2,
  }
  assert len({name for own in titles.values() for name in own}) == 6


def test_what_was_measured_is_not_measured_again(finished, config, monkeypatch):
  place, results = finished

  def refuse(*args, **options):
    raise AssertionError("it is trained again")

  monkeypatch.setattr(finetuning.Tuner, "tune", refuse)
  again = adapters.run(config, str(place))
  for name in results.keys() - {"environment"}:
    assert again[name] == results[name]


@pytest.mark.slow
def test_a_run_that_is_lost_is_done_again_alike(config, tmp_path):
  full = config.copy_and_resolve_references()
  with full.unlocked():
    full.arms = ("rosa", "lora")
    full.rates = dict(rosa=(0.03,), lora=(0.03,))
  first = adapters.run(full, str(tmp_path))
  assert [row["at_the_edge"] for row in first["table"]] == [False, False]
  lost = next(tmp_path.glob("rosa/*seed1/outcome.json"))
  before = json.loads(lost.read_text())
  lost.unlink()
  adapters.run(full, str(tmp_path))
  assert json.loads(lost.read_text())["test"] == before["test"]


def test_the_report_and_the_readme_say_it(finished, tmp_path, monkeypatch):
  place, results = finished
  text = (place / "report.html").read_text("utf-8")
  assert "a range of layers" in text
  assert "is at the edge of those that were tried" in text
  assert "hello." in text
  assert overview.PAGES["adapters"]() is page
  monkeypatch.setattr(readme, "RESULTS", tmp_path)
  readme.take("adapters_tales", place)
  kept = json.loads((tmp_path / "adapters_tales.json").read_text())
  block = blocks.adapters_table(kept)
  assert "adapters_tales_arms.svg" in block
  assert f"| before | | | {results['base']['test']:.3f} | | |" in block
  assert f"| a range of layers | {results['table'][0]['rate']:g} |" in block
  assert (tmp_path / "adapters_tales_arms.svg").is_file()


def test_more_tales_than_there_are(config, tmp_path):
  greedy = config.copy_and_resolve_references()
  with greedy.unlocked():
    greedy.data.tales.train = 50
  with pytest.raises(ValueError, match="asks for 53 tales, and there are 6"):
    adapters.run(greedy, str(tmp_path / "x"))
