import os
import pathlib
import shlex
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from launch import sweep

ROOT = pathlib.Path(__file__).parents[2]
RUN = (sys.executable, "-m", "tests.launch.trivial")


@pytest.fixture
def points(config, tmp_path, monkeypatch):
  """A sweep of three points, the last of which fails."""
  monkeypatch.chdir(ROOT)
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  path = tmp_path / "sweep.py"
  path.write_text(
    textwrap.dedent(f"""
      from configs import common


      def get_sweep():
        config = common.axis("config", ["{config}"])
        good = common.product(config, common.axis("inner.b", (1, 2)))
        bad = common.product(config, common.axis("fail", (True,)))
        return common.chain(good, bad)
    """)
  )
  return path


def test_dry_run(points, tmp_path, capsys):
  assert (
    sweep.main([str(points), f"--workdir={tmp_path / 's'}", "--dry_run"]) == 0
  )
  captured = capsys.readouterr()
  commands = [shlex.split(line) for line in captured.out.splitlines()]
  assert len(commands) == 3
  assert commands[0][:3] == [sys.executable, "-m", "launch.run"]
  assert commands[1][3:] == [
    f"--config={tmp_path / 'config.py'}",
    f"--workdir={tmp_path / 's' / 'config,inner.b=2'}",
    "--config.inner.b=2",
  ]
  assert not (tmp_path / "s").exists()


def test_sweep_resumes(points, tmp_path, capsys):
  root = tmp_path / "s"
  arguments = [str(points), f"--workdir={root}", "--jobs=2"]
  assert sweep.main(arguments, RUN) == 1
  error = capsys.readouterr().err
  failed = root / "config,fail=True"
  assert f"FAILED, see {failed / 'log.txt'}" in error
  assert "the study failed" in (failed / "log.txt").read_text()
  for b in (1, 2):
    point = root / f"config,inner.b={b}"
    assert (point / "results.json").exists(), (point / "log.txt").read_text()
  assert "1 of 3 points failed" in error
  # Those that are done are not run again; the other one is, and may succeed.
  (failed / "results.json").write_text("{}")
  assert sweep.main(arguments, RUN) == 0
  assert "3 points, 3 done before" in capsys.readouterr().err
  for b in (1, 2):
    calls = root / f"config,inner.b={b}" / "calls.txt"
    assert calls.read_text() == "called\n"


def test_a_run_without_results_has_failed(points, tmp_path, capsys):
  (tmp_path / "s").mkdir()
  quiet = (sys.executable, "-c", "pass")
  assert sweep.main([str(points), f"--workdir={tmp_path / 's'}"], quiet) == 1
  assert "3 of 3 points failed" in capsys.readouterr().err


def test_slurm(points, tmp_path, capsys):
  root = tmp_path / "s"
  done = root / "config,inner.b=1"
  done.mkdir(parents=True)
  (done / "results.json").write_text("{}")
  arguments = [str(points), f"--workdir={root}", "--slurm", "--jobs=4"]
  assert sweep.main(arguments) == 0
  commands = (root / "commands.txt").read_text().splitlines()
  assert len(commands) == 2
  assert "--config.inner.b=2" in commands[0]
  submit = shlex.split(capsys.readouterr().out)
  assert submit[:2] == ["sbatch", "--array=1-2%4"]
  assert submit[3] == str(root / "commands.txt")
  assert pathlib.Path(submit[2]).samefile(ROOT / "launch" / "slurm.sh")


def task(tmp_path, *commands, number=1):
  path = tmp_path / "commands.txt"
  path.write_text("\n".join(commands) + "\n")
  return subprocess.Popen(
    ("bash", str(ROOT / "launch" / "slurm.sh"), str(path)),
    cwd=tmp_path,
    env=os.environ
    | {
      "SLURM_ARRAY_TASK_ID": str(number),
      "SLURM_JOB_ID": "77",
      "SLURM_SUBMIT_DIR": str(tmp_path),
      "PATH": f"{tmp_path}:{os.environ['PATH']}",
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_slurm_task_runs_its_line(tmp_path):
  process = task(tmp_path, "echo one", "echo 'two  words'; exit 5", number=2)
  output, _ = process.communicate(timeout=30)
  assert output == "two  words\n"
  process = task(tmp_path, "bash -c 'exit 5'")
  process.communicate(timeout=30)
  assert process.returncode == 5
  process = task(tmp_path, "echo one", number=3)
  assert "has no line 3" in process.communicate(timeout=30)[1]
  assert process.returncode == 2


def test_slurm_task_is_queued_again_after_it_has_saved(tmp_path):
  scontrol = tmp_path / "scontrol"
  scontrol.write_text('#!/bin/sh\necho "scontrol $*"\n')
  scontrol.chmod(0o755)
  saving = "sleep 0.3; echo saved; exit 143"
  script = (
    f"trap {shlex.quote(saving)} TERM; echo begun; while :; do sleep 0.05; done"
  )
  process = task(tmp_path, shlex.join(["bash", "-c", script]))
  assert process.stdout.readline() == "begun\n"
  process.send_signal(signal.SIGTERM)
  output, error = process.communicate(timeout=30)
  assert process.returncode == 143, error
  assert output == "saved\nscontrol requeue 77\n"


def test_signal_reaches_the_points(points, tmp_path):
  waiting = "import pathlib, sys, time; print('up', flush=True); time.sleep(60)"
  code = (
    "import sys; from launch import sweep;"
    f"sys.exit(sweep.main(sys.argv[1:], (sys.executable, '-c', {waiting!r})))"
  )
  start = time.monotonic()
  process = subprocess.Popen(
    (sys.executable, "-c", code, str(points), f"--workdir={tmp_path / 's'}"),
    stderr=subprocess.PIPE,
    text=True,
  )
  log = tmp_path / "s" / "config,inner.b=1" / "log.txt"
  while not log.exists() or not log.read_text():
    assert process.poll() is None
    assert time.monotonic() < start + 200
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  _, error = process.communicate(timeout=200)
  assert process.returncode == 143
  assert "the same command goes on" in error
  assert not (tmp_path / "s" / "config,inner.b=2").exists()


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (None, "there is no file"),
    ("", "it has no get_sweep()"),
    ("def get_sweep(): return [{'a': 1}]", 'no entry "config"; it has a'),
    (
      "def get_sweep(): return [{'config': 'c.py', 'name': 'x'}] * 2",
      "two points of the sweep have the directory",
    ),
  ],
)
def test_sweeps_that_make_no_sense(tmp_path, capsys, content, words):
  path = tmp_path / "sweep.py"
  if content is not None:
    path.write_text(content)
  assert sweep.main([str(path), f"--workdir={tmp_path}"]) == 2
  assert words in capsys.readouterr().err


def test_options(points, tmp_path, capsys):
  assert sweep.main(["--help"]) == 0
  assert "--dry_run" in capsys.readouterr().out
  assert sweep.main([str(points)]) == 2
  assert "--workdir is missing" in capsys.readouterr().err
  assert sweep.main([str(points), "--workdir=x", "--job=2"]) == 2
  assert "did you mean '--jobs'?" in capsys.readouterr().err
  assert sweep.main([str(points), "--workdir=x", "--jobs=0"]) == 2
  assert "--jobs must be at least 1" in capsys.readouterr().err


def test_long_names_are_cut_and_stay_different():
  points = [
    {"config": "c.py", "note": "a" * 300 + str(number)} for number in range(2)
  ]
  names = [point.workdir.name for point in sweep.plan(points, "runs")]
  assert len(set(names)) == 2
  assert max(map(len, names)) <= 100
