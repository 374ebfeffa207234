import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from effjax.training import mesh as meshes
from tests import devices


def test_one_device():
  devices = jax.devices()[:1]
  mesh = meshes.from_config(devices=devices)
  assert dict(mesh.shape) == {"data": 1}
  assert meshes.describe(mesh).startswith("1 ")
  batch = meshes.place_batch(
    {"x": np.ones((3, 2))}, meshes.batch_sharding(mesh)
  )
  assert batch["x"].shape == (3, 2)


def test_specs_follow_the_longest_common_end():
  known = {"kernel": ((2,), P("a")), "b/kernel": ((2,), P("b"))}
  x = np.ones((2,))
  assert meshes._spec_of("opt/mu/b/kernel", x, known) == P("b")
  assert meshes._spec_of("opt/mu/c/kernel", x, known) == P("a")
  assert meshes._spec_of("opt/mu/bias", x, known) == P()
  assert meshes._spec_of("opt/mu/kernel", np.ones((3,)), known) == P()


@pytest.mark.timeout(900)  # long only where the machine is crowded
@pytest.mark.multidevice
def test_eight_devices(tmp_path):
  printed = devices.run_on_eight(
    "tests.training.eight_devices",
    tmp_path,
    timeout=800,
    JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # compiles in half the time
  )
  assert "all checks passed" in printed
