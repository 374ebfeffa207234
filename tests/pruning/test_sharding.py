"""Masks of sharded trees equal those of whole ones, and gather nothing."""

import pytest

from tests import devices


@pytest.mark.multidevice
@pytest.mark.parametrize(
  ("extent", "count"),
  [("part", 2), pytest.param("whole", 4, marks=pytest.mark.slow)],
)
def test_sharded_equals_unsharded_without_a_gather(extent, count):
  printed = devices.run_on_eight(
    "tests.pruning.eight_devices",
    extent,
    # What partitions the programs, gathers included, still runs.
    JAX_DISABLE_MOST_OPTIMIZATIONS="1",
  )
  assert printed.count("agree") == count
