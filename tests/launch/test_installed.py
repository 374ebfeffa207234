import importlib.metadata

import pytest

from launch import installed

PROJECT = {
  "name": "house",
  "dependencies": ["numpy>=2.0"],
  "optional-dependencies": {
    "small": ["jinja2"],
    "large": ["house[small]", "pytest>=8"],
  },
}


def test_extras_bring_what_they_name():
  assert installed.requirements(PROJECT) == ["house", "numpy>=2.0"]
  assert installed.requirements(PROJECT, ["large", "small"]) == [
    "house",
    "numpy>=2.0",
    "jinja2",
    "pytest>=8",
  ]


def test_an_unknown_extra_is_named():
  with pytest.raises(ValueError, match="no extra 'lrge'; known are small"):
    installed.requirements(PROJECT, ["lrge"])
  assert installed.main(["no-such-extra"]) == 2


def test_missing_says_what_there_is():
  version = importlib.metadata.version("numpy")
  assert installed.missing(["numpy>=99"]) == [f"numpy>=99 (there is {version})"]
  assert installed.missing(["numpy>=2.0", "surely-nobody-has-this"]) == [
    "surely-nobody-has-this"
  ]


def test_markers_decide():
  assert installed.missing(["surely-not; python_version < '3'"]) == []
  assert installed.missing(["surely-not; extra == 'x'"]) == []


class _Distribution:
  def __init__(self, version, *requires):
    self.version, self.requires = version, requires


def test_requirements_are_followed_with_their_extras(monkeypatch):
  there = {
    "a": _Distribution("1.0", "b[x]>=1", "lost; extra == 'other'"),
    "b": _Distribution("1.5", "c>=2; extra == 'x'", "a"),
    "c": _Distribution("1.9"),
  }

  def distribution(name):
    if name not in there:
      raise importlib.metadata.PackageNotFoundError(name)
    return there[name]

  monkeypatch.setattr(importlib.metadata, "distribution", distribution)
  assert installed.missing(["a"]) == ["c>=2 (there is 1.9)"]
  assert sorted(installed.missing(["a[other]"])) == [
    "c>=2 (there is 1.9)",
    "lost",
  ]
  assert installed.missing(["b"]) == ["c>=2 (there is 1.9)"]


def test_what_runs_these_tests_is_complete(capsys):
  installed.main(["test"])
  lacking = set(capsys.readouterr().out.split())
  assert lacking <= {"effjax"}  # which may be imported from its directory
