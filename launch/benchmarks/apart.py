"""Candidates of a comparison in processes of their own.

Two frameworks in one process share memory, its settings and threads, and what
suits one harms the other. Each gets a process, which waits while others run and
measures itself.

A module with candidates serves one of them as a program:

  python -m launch.benchmarks.NAME ARGUMENTS

builds it and calls `serve`; `Apart` starts that program and asks it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from launch.benchmarks import harness


class Apart:
  """A candidate in a process, which starts when it is first called."""

  def __init__(
    self,
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
  ):
    """Say what to start.

    Args:
      module: The module whose program serves the candidate.
      *arguments: Its arguments.
      environment: Variables instead of those of this process.
    """
    self._command = [sys.executable, "-m", module, *arguments]
    self._environment = environment
    self._process: Any = None
    self.memory = 0.0

  def __call__(self) -> harness.Times:
    """Run one unit of work there.

    Returns:
      The seconds that it measured.

    Raises:
      RuntimeError: If the process ended; what it wrote is on standard error.
    """
    process = self._started()
    try:
      process.stdin.write("run\n")
      process.stdin.flush()
      answer = process.stdout.readline()
    except BrokenPipeError:
      answer = ""
    if not answer:
      code = process.wait()
      raise RuntimeError(f"{' '.join(self._command)} ended with status {code}")
    found = json.loads(answer)
    self.memory = found["memory"]
    return harness.Times(found["wall"], found["cpu"])

  def _started(self) -> Any:
    if self._process is None:
      self._process = subprocess.Popen(
        self._command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=self._environment,
        text=True,
      )
    return self._process

  def close(self) -> None:
    """End the process, and with it its memory."""
    if self._process is not None:
      self._process.communicate()
      self._process = None


def serve(run: Callable[[], Any]) -> None:
  """Run a candidate as often as standard input asks, and say how long it took.

  Args:
    run: Runs one unit of work to its end.
  """
  # What libraries print must not be taken for an answer.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    found = {
      "wall": time.perf_counter() - wall,
      "cpu": time.process_time() - cpu,
      "memory": harness.peak_memory(),
    }
    print(json.dumps(found), file=answers, flush=True)
