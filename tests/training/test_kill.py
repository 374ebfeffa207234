"""Processes that are killed or stopped, and the same command again."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.training import tiny

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 240
pytestmark = pytest.mark.timeout(900)  # a crowded machine starts them slowly


def begin(directory, optimizer="masked"):
  command = (
    *(sys.executable, "-W", "error", "-m", "tests.training.killed"),
    *(str(directory / "run"), str(directory / "digests.json"), optimizer),
  )
  return subprocess.Popen(
    command,
    cwd=ROOT,
    # The programs compile in half the time and compute the same numbers each
    # time, which is all that matters here.
    env=os.environ
    | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def end(process, *statuses):
  """Wait until a process has ended by itself, and return what it said."""
  try:
    output, _ = process.communicate(timeout=TIMEOUT)
  finally:
    process.kill()
    process.wait()
  assert process.returncode in (statuses or (0,)), output
  return output


def lines_of(directory):
  return directory / "run" / "metrics.jsonl"


def wait_for_lines(process, directory, count):
  """Wait until a run has written so many lines of metrics."""
  path = lines_of(directory)
  limit = time.monotonic() + TIMEOUT
  while process.poll() is None and time.monotonic() < limit:
    if path.exists() and path.read_bytes().count(b"\n") >= count:
      return
    time.sleep(0.001)


def result(directory):
  digests = json.loads((directory / "digests.json").read_text())
  return digests, tiny.lines(directory / "run")


def run_to_the_end(directory, optimizer="masked"):
  start = time.monotonic()
  end(begin(directory, optimizer))
  return result(directory), time.monotonic() - start


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  return run_to_the_end(tmp_path_factory.mktemp("uninterrupted"))


@pytest.fixture(scope="module")
def uninterrupted_pruned(tmp_path_factory):
  return run_to_the_end(tmp_path_factory.mktemp("pruned"), "pruned")


def kill_and_resume(directory, uninterrupted, kills, seed, optimizer="masked"):
  """Kill a run at random moments, then let it end; compare with a whole one."""
  rng = random.Random(seed)
  expected, seconds = uninterrupted
  assert len(expected[0]) > 10
  killed, number = 0, 0
  while killed < kills:
    assert number < 20
    run = directory / str(number)
    run.mkdir(exist_ok=True)
    process = begin(run, optimizer)
    if rng.random() < 0.25:  # anywhere, the start-up included
      time.sleep(rng.uniform(0.0, seconds))
    else:  # while it trains, most of the time while it saves
      done = len(tiny.lines(run / "run")) if lines_of(run).exists() else 0
      wait_for_lines(process, run, done + rng.randint(1, 6))
      time.sleep(rng.uniform(0.0, 0.15))
    process.kill()
    end(process, 0, -signal.SIGKILL)
    if process.returncode == 0:  # it was faster; the next one begins anew
      assert result(run) == expected
      number += 1
    else:
      killed += 1
  if process.returncode != 0:
    end(begin(run, optimizer))
    assert result(run) == expected


def test_killed_twice(tmp_path, uninterrupted):
  kill_and_resume(tmp_path, uninterrupted, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
def test_killed_often(tmp_path, uninterrupted_pruned, seed):
  kill_and_resume(
    tmp_path, uninterrupted_pruned, kills=3, seed=seed, optimizer="pruned"
  )


def test_stopped_by_sigterm(tmp_path, uninterrupted):
  process = begin(tmp_path)
  wait_for_lines(process, tmp_path, 4)
  process.send_signal(signal.SIGTERM)
  output = end(process, 128 + signal.SIGTERM)
  assert "stopped by SIGTERM after step" in output
  assert "the same command goes on" in output
  assert "Traceback" not in output
  process = begin(tmp_path)
  assert "goes on from step" in end(process)
  assert result(tmp_path) == uninterrupted[0]
