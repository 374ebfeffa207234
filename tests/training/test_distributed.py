"""Two processes that train one model, compared with one process."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from effjax.io import checkpoint
from tests.training import tiny

# Long only where the machine is crowded.
pytestmark = [pytest.mark.multidevice, pytest.mark.timeout(900)]
ROOT = pathlib.Path(__file__).parents[2]


def free_port():
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def begin(workdir, count, *stops):
  port = free_port()
  return [
    subprocess.Popen(
      (
        *(sys.executable, "-m", "tests.training.two_processes"),
        *(str(workdir), str(port), str(index), str(count)),
        *map(str, stops),
      ),
      cwd=ROOT,
      env=os.environ
      | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for index in range(count)
  ]


def end(processes):
  outputs = []
  try:
    for process in processes:
      outputs.append(process.communicate(timeout=400)[0])
  finally:
    for process in processes:
      process.kill()
      process.wait()
  return outputs


def test_two_processes_equal_one(tmp_path):
  found = {}
  for count in (1, 2):
    # The second of two calls goes on from a checkpoint.
    processes = begin(tmp_path / str(count), count, 7, 14)
    outputs = end(processes)
    assert [p.returncode for p in processes] == [0] * count, outputs
    for index, output in enumerate(outputs):
      assert f"process {index}: {count} cpu device" in output
    path = tmp_path / str(count) / "checkpoints" / "000014"
    found[count] = checkpoint.load(path, tiny.start(tiny.masked()))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
    *map(tiny.plain, found.values()),
  )
  one, two = (tiny.lines(tmp_path / str(count)) for count in (1, 2))
  assert [(x["step"], x["split"]) for x in one] == [
    (x["step"], x["split"]) for x in two
  ]
  losses = [[x["values"].get("loss", 0) for x in lines] for lines in (one, two)]
  np.testing.assert_allclose(*losses, rtol=1e-4)
  # Process 1 wrote nothing and the lines of process 0 are there once.
  assert len(two) == 4


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both(tmp_path):
  processes = begin(tmp_path, 2, 100_000)
  path = tmp_path / "metrics.jsonl"
  limit = time.monotonic() + 120
  while time.monotonic() < limit:
    if path.exists() and path.read_bytes().count(b"\n") > 2:
      break
    time.sleep(0.05)
  processes[1].send_signal(signal.SIGTERM)
  outputs = end(processes)
  status = [128 + signal.SIGTERM] * 2
  assert [p.returncode for p in processes] == status, outputs
  assert "stopped by SIGTERM after step" in outputs[0]
  steps = checkpoint.Steps(directory=tmp_path / "checkpoints")
  assert f"after step {steps.newest()}," in outputs[0]
