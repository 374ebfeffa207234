"""Fair timing: interleaved candidates, wall and CPU seconds, stated limits.

A case compares our callable with those of its peers on the same input. Every
callable runs one warm, complete unit of work and returns when the result is
there. Rounds go A B C A B C, so that a change of load hits all candidates.
"""

import dataclasses
import datetime
import gc
import importlib.metadata
import math
import os
import pathlib
import platform
import re
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Times(NamedTuple):
  """What a candidate in another process measured of itself, in seconds."""

  wall: float
  cpu: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One comparison.

  Attributes:
    name: what is measured, with its size.
    ours: runs one unit of our work to its end; returns `Times` if that
      happened in another process.
    peers: the same unit by others, by the name to print.
    note: what a reader must know, e.g. which peer is absent and why; or a
      function that tells it after the last round.
    limit: the hardware limit in words, e.g. "30 ms: 6 passes x 102 MB".
    flops: how many products and sums of float32 it takes, 0 if that is not what
      limits it; the share of the machine's product rate is told from it.
    close: called at the very end.
  """

  name: str
  ours: Callable[[], Any]
  peers: dict[str, Callable[[], Any]] = dataclasses.field(default_factory=dict)
  note: str | Callable[[], str] = ""
  limit: str = ""
  flops: float = 0.0
  close: Callable[[], Any] = lambda: None


def _spread(values: list[float]) -> dict[str, float]:
  return {
    "median": statistics.median(values),
    "min": min(values),
    "max": max(values),
  }


def measure(case: Case, rounds: int, *, warmup: int = 2) -> dict[str, Any]:
  """Time the candidates of a case in turns.

  Args:
    case: the comparison.
    rounds: number of timed runs of each candidate.
    warmup: untimed runs of each candidate beforehand.

  Returns:
    A dict that json can write: name, note, limit, flops, rounds, and
    `candidates`, which maps "ours" and each peer to {"wall": ..., "cpu": ...},
    both with median, min and max in seconds. CPU seconds count all threads.
  """
  candidates = {"ours": case.ours, **case.peers}
  wall = {name: [] for name in candidates}
  cpu = {name: [] for name in candidates}
  try:
    for run in candidates.values():
      for _ in range(warmup):
        run()
    # A collection in the middle of a run would be charged to that candidate.
    gc.collect()
    gc.disable()
    for _ in range(rounds):
      for name, run in candidates.items():
        # Thread pools spin for a moment after their work: let the last one
        # go to sleep, or it would slow down its successor.
        time.sleep(0.01)
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        found = run()
        took = time.perf_counter() - wall_start, time.process_time() - cpu_start
        took = found if isinstance(found, Times) else Times(*took)
        wall[name].append(took.wall)
        cpu[name].append(took.cpu)
    note = case.note if isinstance(case.note, str) else case.note()
  finally:
    gc.enable()
    case.close()
  return {
    "name": case.name,
    "note": note,
    "limit": case.limit,
    "flops": case.flops,
    "rounds": rounds,
    "candidates": {
      name: {"wall": _spread(wall[name]), "cpu": _spread(cpu[name])}
      for name in candidates
    },
  }


def _cpu_model() -> str:
  try:
    with open("/proc/cpuinfo") as lines:
      for line in lines:
        if line.startswith("model name"):
          return line.split(":", 1)[1].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def peak_memory() -> float:
  """Return the most bytes that this process has held; NaN where unknown."""
  try:
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
  except OSError:
    return math.nan
  found = re.search(r"VmHWM:\s+(\d+) kB", status)
  return int(found[1]) * 1024.0 if found else math.nan


def cores() -> int:
  """Return how many cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def versions() -> dict[str, Any]:
  """Describe the machine and the libraries; None for what is absent."""
  found: dict[str, Any] = {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "python": platform.python_version(),
    "cpu": _cpu_model(),
    "cores": cores(),
  }
  if on_accelerator():
    found["device"] = device_name()
  if "GLIBC_TUNABLES" in os.environ:
    found["GLIBC_TUNABLES"] = os.environ["GLIBC_TUNABLES"]
  for package in ("jax", "jaxlib", "flax", "optax", "numpy", "torch"):
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = None
  return found


def on_accelerator() -> bool:
  """Tell whether JAX computes on something else than the CPU."""
  import jax

  return jax.default_backend() != "cpu"


def device_name() -> str:
  """Name what JAX computes on."""
  import jax

  return jax.devices()[0].device_kind


def machine_limits(
  size: int | None = None, megabytes: int | None = None
) -> dict[str, float]:
  """Measure what the machine can do at best, for the share reached.

  Args:
    size: rows and columns of the float32 matrix product; by default 2048, or
      8192 on an accelerator.
    megabytes: size of the array that is read; by default 256 or 4096.

  Returns:
    `read_gb_per_s`, the best rate of a jitted sum and of NumPy's, and
    `gemm_gflop_per_s`, the best rate of jitted and of NumPy products; on an
    accelerator of jitted ones alone, and `gemm_bfloat16_gflop_per_s` too.
  """
  import jax
  import jax.numpy as jnp

  if on_accelerator():
    return _accelerator_limits(size or 8192, megabytes or 4096)
  size, megabytes = size or 2048, megabytes or 256
  long = np.ones(megabytes * 2**20 // 4, np.float32)
  square = np.random.default_rng(0).normal(size=(size, size))
  square = square.astype(np.float32)
  on_device = jnp.asarray(long), jnp.asarray(square)
  total, product = jax.jit(jnp.sum), jax.jit(jnp.matmul)

  def best(runs):
    seconds = []
    for run in runs:
      result = measure(Case(name="", ours=run), 5)
      seconds.append(result["candidates"]["ours"]["wall"]["min"])
    return min(seconds)

  read = best(
    [
      lambda: total(on_device[0]).block_until_ready(),
      lambda: np.sum(long),
    ]
  )
  multiply = best(
    [
      lambda: product(on_device[1], on_device[1]).block_until_ready(),
      lambda: square @ square,
    ]
  )
  return {
    "read_gb_per_s": long.nbytes / read / 1e9,
    "gemm_gflop_per_s": 2 * size**3 / multiply / 1e9,
  }


def _accelerator_limits(size: int, megabytes: int) -> dict[str, float]:
  """Measure the limits of an accelerator; calls are queued, as in real use."""
  import jax
  import jax.numpy as jnp

  key, calls = jax.random.key(0), 10
  long = jax.random.uniform(key, (megabytes * 2**20 // 4,))
  square = jax.random.normal(key, (size, size))
  total, product = jax.jit(jnp.sum), jax.jit(jnp.matmul)

  def seconds(function, *operands):
    def run():
      jax.block_until_ready([function(*operands) for _ in range(calls)])

    found = measure(Case(name="", ours=run), 5)
    return found["candidates"]["ours"]["wall"]["min"] / calls

  flops = 2 * size**3 / 1e9
  half = square.astype(jnp.bfloat16)
  return {
    "read_gb_per_s": long.nbytes / seconds(total, long) / 1e9,
    "gemm_gflop_per_s": flops / seconds(product, square, square),
    "gemm_bfloat16_gflop_per_s": flops / seconds(product, half, half),
  }


def torch_device(torch: Any) -> str:
  """Choose where PyTorch computes: on the accelerator if JAX does, and it can.

  Args:
    torch: The module.

  Returns:
    "cuda" or "cpu".
  """
  return "cuda" if on_accelerator() and torch.cuda.is_available() else "cpu"


def torch_threads(torch: Any) -> list[int]:
  """List the numbers of threads to try: one and all cores, where they count."""
  if torch_device(torch) != "cpu":
    return [1]
  return sorted({1, cores()})


def finish(torch: Any) -> None:
  """Wait until PyTorch is done."""
  if torch_device(torch) != "cpu":
    torch.cuda.synchronize()


def torch_or_none() -> Any:
  """Return the torch module, or None where it is not installed."""
  try:
    import torch
  except ModuleNotFoundError:
    return None
  return torch


def table(results: list[dict[str, Any]]):
  """Return a rich table of what `measure` gave, one row a candidate."""
  from rich import box
  from rich.table import Table

  grid = Table(box=box.SIMPLE_HEAD, show_lines=False)
  for title in ("case", "candidate"):
    grid.add_column(title, overflow="fold")
  for title in ("wall ms", "min-max", "CPU ms", "min-max", "wall / ours"):
    grid.add_column(title, justify="right")
  for result in results:
    ours = result["candidates"]["ours"]["wall"]["median"]
    for name, times in result["candidates"].items():
      row = [result["name"] if name == "ours" else "", name]
      for clock in ("wall", "cpu"):
        t = times[clock]
        row.append(f"{1e3 * t['median']:.4g}")
        row.append(f"{1e3 * t['min']:.4g}-{1e3 * t['max']:.4g}")
      row.append(f"{times['wall']['median'] / ours:.2f}")
      grid.add_row(*row)
    remarks = [
      *([f"limit: {result['limit']}"] if result["limit"] else []),
      *([result["note"]] if result["note"] else []),
    ]
    if remarks:
      grid.add_row("", "[dim]" + "; ".join(remarks) + "[/dim]")
    grid.add_section()
  return grid
