import subprocess
import sys

import pytest

from effjax.data import fetching, registry, sources
from launch import fetch


@pytest.fixture
def places(tmp_path, monkeypatch):
  monkeypatch.delenv("EFFJAX_DATA", raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
  return tmp_path


def test_list_shows_every_source_and_its_state(places, capsys):
  assert fetch.main(["--list", "--directory", str(places)]) == 0
  text = capsys.readouterr().out
  for name, declared in registry.SOURCES.items():
    assert name in text
    assert declared.title in text
    assert declared.licence in text
  assert text.count("absent") == len(registry.SOURCES)
  assert "30.9 MB to fetch" in text
  assert "to be brought by the user" in text


def test_unknown_source_is_a_users_error(places, capsys):
  assert fetch.main(["fashion_mnist", "digit"]) == 2
  error = capsys.readouterr().err
  assert "no data source 'digit'; did you mean 'digits'?" in error


def test_unknown_option_is_a_users_error():
  with pytest.raises(SystemExit) as error:
    fetch.main(["--dir-ectory", "x"])
  assert error.value.code == 2


def test_what_fails_is_named_and_the_others_go_on(places, capsys, monkeypatch):
  def fake(name, *, directory, progress):
    progress(fetching.Progress(name=name, stage="official address", total=9))
    if name == "mnist_5k":
      raise FileNotFoundError("mnist_5k could not be fetched.")
    location = sources.Location(name=name, step="user cache", path=places)
    return fetching.Fetched(location=location, route="there", size=2_000_000)

  monkeypatch.setattr(fetching, "fetch", fake)
  assert fetch.main([]) == 1
  output = capsys.readouterr()
  assert "mnist_5k could not be fetched." in output.err
  fetched = [d for d in registry.SOURCES.values() if d.package is not None]
  assert output.err.count("official address, 0.0 MB") == len(fetched)
  for name in ("fashion_mnist", "digits"):
    line = f"{name}: 2.0 MB, from there, verified, in {places}"
    assert line in output.out
    assert registry.SOURCES[name].licence in output.out
  assert fetch.main(["digits"]) == 0


def test_system_errors_lose_their_number(places, capsys, monkeypatch):
  def fail(name, **keywords):
    raise OSError(28, "No space is left in x; nothing half-written was kept")

  monkeypatch.setattr(fetching, "fetch", fail)
  assert fetch.main(["digits"]) == 1
  error = capsys.readouterr().err
  assert error.startswith("fetch: No space is left in x; nothing half-written")


def test_what_is_there_is_not_fetched(places, capsys):
  pytest.importorskip("sklearn")
  assert fetch.main(["digits"]) == 0
  assert (
    "digits: 0.1 MB, was there already, verified" in capsys.readouterr().out
  )


def test_module_runs_without_traceback(places):
  command = [sys.executable, "-m", "launch.fetch"]
  result = subprocess.run(
    [*command, "celeba"], capture_output=True, text=True, check=False
  )
  assert result.returncode == 1
  assert "Traceback" not in result.stderr
  assert "cannot be redistributed" in result.stderr
  result = subprocess.run(
    [*command, "--help"], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0
  assert "--directory" in result.stdout
