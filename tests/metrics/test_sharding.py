"""Metrics of sharded batches equal those of whole ones."""

import pytest

from tests import devices


@pytest.mark.multidevice
def test_sharded_equals_unsharded():
  printed = devices.run_on_eight(
    "tests.metrics.eight_devices", JAX_DISABLE_MOST_OPTIMIZATIONS="1"
  )
  assert printed.count("agree") == 2
