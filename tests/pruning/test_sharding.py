"""Masks of sharded trees equal those of whole ones, and gather nothing."""

import pytest

from tests import devices


@pytest.mark.multidevice
def test_sharded_equals_unsharded_without_a_gather():
  printed = devices.run_on_eight(
    "tests.pruning.eight_devices",
    # What partitions the programs, gathers included, still runs.
    JAX_DISABLE_MOST_OPTIMIZATIONS="1",
  )
  assert printed.count("agree") == 4
