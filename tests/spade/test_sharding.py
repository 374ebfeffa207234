"""Maps and traces of examples on eight devices equal those on one."""

import pytest

from tests import devices


@pytest.mark.multidevice
@pytest.mark.slow
def test_sharded_equals_unsharded():
  printed = devices.run_on_eight("tests.spade.eight_devices")
  assert printed.count("agree") == 2
