import os
import pathlib
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"


def run(*command, **environment):
  kept = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "VENV")}
  return subprocess.run(
    ["bash", *map(str, command)],
    env=kept | environment,
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
  )


def fake_python(path, version):
  path.write_text(f"#!/bin/sh\necho {version}\n")
  path.chmod(0o755)
  return str(path)


@pytest.mark.parametrize("name", ["quickstart.sh", "test.sh"])
def test_help_is_the_comment_at_the_top(name):
  result = run(LAUNCH / name, "--help")
  assert result.returncode == 0
  assert f"bash launch/{name}" in result.stdout
  assert "EFFJAX_DATA=DIR" in result.stdout
  assert "set -u" not in result.stdout


def test_quickstart_refuses_what_it_does_not_know():
  result = run(LAUNCH / "quickstart.sh", "--frsh")
  assert result.returncode == 2
  assert "unknown argument --frsh" in result.stderr


@pytest.mark.parametrize("name", ["quickstart.sh", "test.sh"])
def test_an_old_python_is_named(name, tmp_path):
  old = fake_python(tmp_path / "python", "3.9.18")
  result = run(LAUNCH / name, PYTHON=old, VENV=str(tmp_path / "venv"))
  assert result.returncode == 2
  assert f"{old} is Python 3.9.18; effjax needs 3.11 or newer" in result.stderr
  assert not (tmp_path / "venv").exists()


def test_a_python_that_does_not_run_is_named(tmp_path):
  missing = str(tmp_path / "python")
  result = run(LAUNCH / "test.sh", PYTHON=missing, VENV=str(tmp_path / "venv"))
  assert result.returncode == 2
  assert f"PYTHON={missing} does not run" in result.stderr


def test_a_directory_that_is_no_environment_is_left_alone(tmp_path):
  (tmp_path / "letters").write_text("of years")
  result = run(LAUNCH / "test.sh", VENV=str(tmp_path))
  assert result.returncode == 2
  assert "is not a virtual environment" in result.stderr
  assert (tmp_path / "letters").read_text() == "of years"


def choice(tmp_path, **versions):
  """Ask which Python is taken where only these are on the PATH."""
  for name, version in versions.items():
    fake_python(tmp_path / name.replace("_", "."), version)
  script = 'source "$0"; _find_python; printf %s "$interpreter"'
  tools = "/usr/bin:/bin"  # may hold a Python too, which comes last
  return run(
    "-c", script, LAUNCH / "environment.sh", PATH=f"{tmp_path}:{tools}"
  )


def test_the_newest_python_is_taken(tmp_path):
  result = choice(tmp_path, python3_13="3.13.0", python3_12="3.12.1")
  assert result.stdout == "python3.13"


def test_a_name_that_lies_about_its_version_is_passed_over(tmp_path):
  result = choice(tmp_path, python3_13="3.9.1", python3_12="3.12.1")
  assert result.stdout == "python3.12"


def test_a_shim_that_fails_is_passed_over(tmp_path):
  shim = tmp_path / "python3.13"
  shim.write_text("#!/bin/sh\nexit 127\n")
  shim.chmod(0o755)
  assert choice(tmp_path, python3_12="3.12.1").stdout == "python3.12"
