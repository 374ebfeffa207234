"""What a piece of work costs on this machine."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax

_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")
_ENERGY = pathlib.Path("/sys/class/powercap/intel-rapl:0/energy_uj")


@contextlib.contextmanager
def measured() -> Iterator[dict[str, Any]]:
  """Measure the block.

  Yields:
    A dict that holds, after the block, `cpu` and `wall` (seconds), `memory`
    (the most bytes that the process, or the accelerator, had at once) and
    `joules` of the processor package; None for what cannot be read here.
  """
  cost: dict[str, Any] = {}
  with contextlib.suppress(OSError):
    _RESET.write_text("5")  # the peak begins anew
  cpu, wall, energy = time.process_time(), time.monotonic(), _joules()
  yield cost
  cost["cpu"] = time.process_time() - cpu
  cost["wall"] = time.monotonic() - wall
  cost["memory"] = _memory()
  after = _joules()
  known = energy is not None and after is not None and after >= energy
  cost["joules"] = after - energy if known else None


def _joules() -> float | None:
  try:
    return int(_ENERGY.read_text()) / 1e6
  except (OSError, ValueError):
    return None


def _memory() -> int | None:
  """Return the largest memory since the peak was begun anew."""
  device = jax.local_devices()[0]
  if device.platform != "cpu":
    found = device.memory_stats() or {}
    return found.get("peak_bytes_in_use")
  try:
    for line in _STATUS.read_text().splitlines():
      if line.startswith("VmHWM:"):
        return 1024 * int(line.split()[1])
  except (OSError, ValueError):
    pass
  return None
