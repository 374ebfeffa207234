"""Metrics of sharded batches equal those of whole ones."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.multidevice
def test_sharded_equals_unsharded():
  flags = "--xla_force_host_platform_device_count=8"
  environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
    [sys.executable, "-m", "tests.metrics.eight_devices"],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=280,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert done.stdout.count("agree") == 2
