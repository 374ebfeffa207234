"""Runs checks in a process of their own that has eight CPU devices."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run_on_eight(module, *arguments, timeout=280, **environment):
  """Run a module with eight devices; returns what it printed."""
  flags = "--xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-m", module, *map(str, arguments)],
    cwd=ROOT,
    env={
      **os.environ,
      "XLA_FLAGS": flags,
      "JAX_PLATFORMS": "cpu",
      **environment,
    },
    capture_output=True,
    text=True,
    timeout=timeout,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return done.stdout
