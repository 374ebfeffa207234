import errno
import json
import os
import pathlib

import ml_collections
import pytest

from effjax.training import workdir


def config(**changes):
  content = {
    "study": "bias",
    "model": {"name": "cnn", "width": 16},
    "sparsities": (0.5, 0.9),
    "note": None,
  }
  return ml_collections.ConfigDict(content | changes)


def test_files_of_a_run(tmp_path):
  workdir.start(tmp_path / "a" / "run", config())
  saved = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
  assert saved == {
    "study": "bias",
    "model": {"name": "cnn", "width": 16},
    "sparsities": [0.5, 0.9],
    "note": None,
  }
  path = tmp_path / "a" / "run" / "environment.json"
  first = json.loads(path.read_text())
  assert first["packages"]["jax"]
  assert first["devices"]
  assert "python" in first["command"]
  assert "restarts" not in first
  workdir.start(tmp_path / "a" / "run", config())
  again = json.loads(path.read_text())
  assert again["started"] == first["started"]
  assert len(again["restarts"]) == 1


def test_another_config_is_refused_with_the_keys(tmp_path):
  workdir.start(tmp_path, config())
  (tmp_path / "metrics.jsonl").write_text("")
  before = (tmp_path / "config.json").read_text()
  other = config(model={"name": "cnn", "width": 32, "depth": 2})
  del other.note
  with pytest.raises(ValueError, match="another config") as caught:
    workdir.start(tmp_path, other)
  message = str(caught.value)
  assert str(tmp_path) in message
  assert "model.width: 16 -> 32" in message
  assert "model.depth: absent -> 2" in message
  assert "note: null -> absent" in message
  assert "sparsities" not in message
  assert (tmp_path / "config.json").read_text() == before


def test_many_differences_are_cut_short(tmp_path):
  workdir.start(tmp_path, {str(i): 0 for i in range(20)})
  (tmp_path / "main").mkdir()
  with pytest.raises(ValueError, match="and 12 more"):
    workdir.start(tmp_path, {str(i): 1 for i in range(20)})


def test_a_directory_with_nothing_made_takes_another_config(tmp_path):
  """After a mistake that ended the first attempt at once."""
  workdir.start(tmp_path, config(sparsities=(9.0,)))
  (tmp_path / ".lock").write_text("")
  workdir.start(tmp_path, config())
  saved = json.loads((tmp_path / "config.json").read_text())
  assert saved["sparsities"] == [0.5, 0.9]


def test_nan_equals_itself(tmp_path):
  (tmp_path / "main").mkdir()
  for _ in range(2):
    workdir.start(tmp_path, config(note=float("nan")))
  with pytest.raises(ValueError, match="note: NaN -> null"):
    workdir.start(tmp_path, config())


def test_keys_that_change_nothing_are_left_out(tmp_path):
  workdir.start(tmp_path, config())
  (tmp_path / "main").mkdir()
  workdir.start(tmp_path, config(profile="3:5"))


def test_a_config_that_json_cannot_hold(tmp_path):
  with pytest.raises(ValueError, match="JSON cannot"):
    workdir.start(tmp_path, {"a": object()})


def test_a_config_that_was_torn(tmp_path):
  (tmp_path / "config.json").write_text("{")
  (tmp_path / "main").mkdir()
  with pytest.raises(ValueError, match="not valid JSON"):
    workdir.check_config(tmp_path, {})


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_environment_that_was_torn(tmp_path, text):
  (tmp_path / "environment.json").write_text(text)
  workdir.start(tmp_path, config())
  saved = json.loads((tmp_path / "environment.json").read_text())
  assert saved["packages"]["jax"]
  assert "restarts" not in saved


@pytest.mark.parametrize(
  ("number", "words"),
  [(errno.EROFS, "read-only"), (errno.EACCES, "permission is denied")],
)
def test_a_directory_that_cannot_be_made(tmp_path, monkeypatch, number, words):
  # Simulated, since permissions do not bind the superuser.
  def refuse(path, *args, **kwargs):
    raise OSError(number, os.strerror(number), str(path))

  monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
  with pytest.raises(OSError, match=words) as caught:
    workdir.start(tmp_path / "run", config())
  assert str(tmp_path / "run") in str(caught.value)


def test_a_directory_below_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match="not a directory"):
    workdir.start(tmp_path / "file" / "run", config())
