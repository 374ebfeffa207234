import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from effjax.studies.personalize import ranking
from launch import run
from tests.launch import trivial

ROOT = pathlib.Path(__file__).parents[2]


def launch(*arguments):
  return run.main([str(a) for a in arguments], trivial.STUDIES)


def test_run_and_again(config, tmp_path, capsys):
  workdir = tmp_path / "runs" / "x"
  arguments = (f"--config={config}:a=3", f"--workdir={workdir}")
  assert launch(*arguments, "--config.inner.b=4") == 0
  assert json.loads((workdir / "results.json").read_text()) == {"sum": 7}
  saved = json.loads((workdir / "config.json").read_text())
  assert (saved["a"], saved["inner"]["b"]) == (3, 4)
  assert (workdir / "environment.json").exists()
  output = capsys.readouterr().out
  assert "study: sums" in output
  assert f"{jax.device_count()} cpu device" in output
  assert launch(*arguments, "--config.inner.b", "4") == 0
  assert (workdir / "calls.txt").read_text() == "called\n" * 2


MISTAKES = {
  "key": ("--config.inner.bb=1", "did you mean 'inner.b'?"),
  "value": ("--config.a=x", "'x' is not a whole number"),
  "no value": ("--config.a", "--config.a needs a value"),
  "option": ("--workdri=x", "unknown option --workdri, did you mean"),
  "profile": ("--profile=9", 'profile must be "a:b"'),
  "processes": ("--num_processes=2", "need --distributed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_the_command_line(config, tmp_path, capsys, mistake):
  argument, words = MISTAKES[mistake]
  arguments = (f"--config={config}", f"--workdir={tmp_path / 'x'}")
  assert launch(*arguments, argument) == 2
  captured = capsys.readouterr()
  assert words in captured.err
  assert captured.err.startswith("run: ")
  assert captured.err.count("\n") == 1
  assert not (tmp_path / "x" / "results.json").exists()


@pytest.mark.parametrize(
  ("spec", "words"),
  [
    ("nowhere.py", "there is no file nowhere.py"),
    ("{config}:b=1", "no argument 'b'"),
    (
      "{config}:study=summs",
      "'summs', which there is not, did you mean 'sums'",
    ),
  ],
)
def test_mistakes_of_the_config(config, tmp_path, capsys, spec, words):
  spec = spec.format(config=config)
  assert launch(f"--config={spec}", f"--workdir={tmp_path / 'x'}") == 2
  error = capsys.readouterr().err
  assert words in error
  assert "Traceback" not in error


def test_missing_options(config, capsys):
  assert launch(f"--config={config}") == 2
  assert "--workdir is missing" in capsys.readouterr().err
  assert launch("--workdir=x") == 2
  assert "--config is missing" in capsys.readouterr().err
  assert launch("--workdr=x") == 2
  assert "did you mean '--workdir'?" in capsys.readouterr().err


def test_help(capsys):
  assert launch("--help") == 0
  output = capsys.readouterr().out
  for option in ("--config", "--workdir", "--distributed", "--jax_cache_dir"):
    assert option in output


def test_directory_of_another_config(config, tmp_path, capsys):
  workdir = f"--workdir={tmp_path / 'x'}"
  assert launch(f"--config={config}", workdir) == 0
  capsys.readouterr()
  assert launch(f"--config={config}:a=2", workdir) == 2
  error = capsys.readouterr().err
  assert "made by another config (a: 1 -> 2)" in error
  assert launch(f"--config={config}:a=2", workdir, "--debug") == 2
  assert "Traceback" in capsys.readouterr().err


def test_directory_that_is_at_work(config, tmp_path, capsys):
  with run._only_run(str(tmp_path), 0):
    assert launch(f"--config={config}", f"--workdir={tmp_path}") == 2
    assert not (tmp_path / "config.json").exists()  # it may be that run's
  assert "another run is at work" in capsys.readouterr().err
  assert launch(f"--config={config}", f"--workdir={tmp_path}") == 0


def test_directory_that_cannot_be_made(config, tmp_path, capsys):
  (tmp_path / "file").write_text("")
  workdir = f"--workdir={tmp_path / 'file' / 'x'}"
  assert launch(f"--config={config}", workdir) == 2
  assert "not a directory" in capsys.readouterr().err


def test_directory_that_is_a_file(config, tmp_path, capsys):
  (tmp_path / "file").write_text("kept")
  assert launch(f"--config={config}", f"--workdir={tmp_path / 'file'}") == 2
  error = capsys.readouterr().err
  assert error.startswith("run: cannot make the work directory at ")
  assert error.endswith("there is a file of that name\n")
  assert (tmp_path / "file").read_text() == "kept"


def test_mistake_that_is_put_right(config, tmp_path):
  """The corrected command may use the same directory."""
  workdir = f"--workdir={tmp_path / 'x'}"
  with pytest.raises(RuntimeError, match="the study failed"):
    launch(f"--config={config}", workdir, "--config.fail=true")
  assert launch(f"--config={config}", workdir) == 0
  saved = json.loads((tmp_path / "x" / "config.json").read_text())
  assert saved["fail"] is False


def test_full_disk(config, tmp_path, capsys):
  status = launch(f"--config={config}:study=full", f"--workdir={tmp_path}")
  assert status == 2
  assert "No space left on device" in capsys.readouterr().err


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 40 kB that can grow."""
  place = tmp_path / "disk"
  place.mkdir()
  mount = ("mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(place))
  if (
    not shutil.which("mount")
    or subprocess.run(mount, capture_output=True, check=False).returncode
  ):
    pytest.skip("this user may not mount a file system")
  yield place
  subprocess.run(("umount", str(place)), check=True)


@pytest.mark.slow
def test_disk_that_fills_up_and_is_freed(config, small_disk, capsys):
  arguments = (f"--config={config}:study=tiny", f"--workdir={small_disk}/x")
  assert launch(*arguments) == 2
  error = capsys.readouterr().err
  assert "no space is left on the disk; free some, then run the same" in error
  assert "Traceback" not in error
  remount = ("mount", "-o", "remount,size=8m", str(small_disk))
  subprocess.run(remount, check=True)
  assert launch(*arguments) == 0
  assert (small_disk / "x" / "results.json").exists()
  readonly = ("mount", "-o", "remount,ro", str(small_disk))
  subprocess.run(readonly, check=True)
  capsys.readouterr()
  assert launch(*arguments) == 2
  assert "the file system is read-only" in capsys.readouterr().err


def test_loss_that_is_not_finite(config, tmp_path, capsys):
  arguments = (f"--config={config}:study=diverging", f"--workdir={tmp_path}")
  assert launch(*arguments) == 1
  error = capsys.readouterr().err
  assert error == "run: dense: the loss is nan at step 3\n"


def test_library_that_is_missing_is_named(
  config, tmp_path, monkeypatch, capsys
):
  def study(given, workdir):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    ranking.bm25(["one text"], ["a question"])

  arguments = [f"--config={config}", f"--workdir={tmp_path}"]
  assert run.main(arguments, {"sums": study}) == 2
  error = capsys.readouterr().err
  assert 'pip install "effjax[mail]"' in error
  assert "Traceback" not in error


def test_mistake_of_the_program_shows_its_traceback(config, tmp_path):
  with pytest.raises(ValueError, match="reshape"):
    launch(f"--config={config}:study=broken", f"--workdir={tmp_path}")


def test_stages_and_profile(config, tmp_path, monkeypatch, capsys):
  traced = []
  monkeypatch.setattr(jax.profiler, "start_trace", traced.append)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
  arguments = (f"--config={config}:study=tiny", f"--workdir={tmp_path / 'x'}")
  assert launch(*arguments, "--profile=3:5") == 0
  assert len(traced) == 2
  first = json.loads((tmp_path / "x" / "results.json").read_text())
  capsys.readouterr()
  assert launch(*arguments) == 0  # complete, and without the profile
  error = capsys.readouterr().err
  assert "first: complete at step 20" in error
  assert "second: complete at step 20" in error
  assert json.loads((tmp_path / "x" / "results.json").read_text()) == first


def test_compilation_cache(config, tmp_path, capsys):
  cache = tmp_path / "cache"
  arguments = (f"--config={config}", f"--workdir={tmp_path / 'x'}")
  before = jax.config.jax_compilation_cache_dir
  try:
    assert launch(*arguments, f"--jax_cache_dir={cache}") == 0
    assert jax.config.jax_compilation_cache_dir == str(cache)
  finally:
    jax.config.update("jax_compilation_cache_dir", before)
  assert cache.stat().st_mode & 0o777 == 0o700
  cache.chmod(0o777)
  assert launch(*arguments, f"--jax_cache_dir={cache}") == 2
  assert "writable by everybody" in capsys.readouterr().err


def test_every_study_can_be_imported():
  for name, study in run.STUDIES.items():
    assert callable(study), name


def test_process_that_is_stopped(config, tmp_path):
  """The status and message that a scheduler and a user see."""
  command = (
    *(sys.executable, "-m", "tests.launch.trivial"),
    f"--config={config}:study=tiny",
    f"--workdir={tmp_path / 'x'}",
    "--config.steps=100000",
  )
  process = subprocess.Popen(
    command,
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  metrics = tmp_path / "x" / "first" / "metrics.jsonl"
  limit = time.monotonic() + 200
  while not metrics.exists() or not metrics.read_bytes():
    assert process.poll() is None
    assert time.monotonic() < limit
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  output, error = process.communicate(timeout=200)
  assert process.returncode == 143, error
  assert "study: tiny" in output
  assert "first: stopped by SIGTERM after step" in error
  assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.multidevice
def test_two_processes(config, tmp_path):
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
  processes = [
    subprocess.Popen(
      (
        *(sys.executable, "-m", "tests.launch.trivial", "--distributed"),
        *(f"--config={config}:study=together", "--config.mesh=auto"),
        *(f"--workdir={tmp_path / 'x'}", f"--coordinator=127.0.0.1:{port}"),
        *("--num_processes=2", f"--process_id={index}"),
      ),
      cwd=ROOT,
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  ends = [process.communicate(timeout=250) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], ends
  assert "2 cpu devices in 2 processes, mesh data=2" in ends[0][0]
  assert "study" not in ends[1][0]  # process 0 speaks for all
  results = json.loads((tmp_path / "x" / "results.json").read_text())
  assert results["processes"] == 2
  saved = json.loads((tmp_path / "x" / "environment.json").read_text())
  assert saved["processes"] == 2


def test_processes_that_cannot_be_connected(config, tmp_path, capsys):
  # There is no cluster here that JAX could ask.
  arguments = (f"--config={config}", f"--workdir={tmp_path / 'x'}")
  assert launch(*arguments, "--distributed", "--process_id=0") == 2
  assert "could not be connected" in capsys.readouterr().err
