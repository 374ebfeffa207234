"""Every suite of the benchmark runs in small; its figures do not matter."""

import importlib

import jax
import pytest

from launch import bench

# The others take longer to compile than their code changes.
SHORT = ("masks", "training", "solvers")


@pytest.mark.parametrize(
  "suite",
  [
    name if name in SHORT else pytest.param(name, marks=pytest.mark.slow)
    for name in bench.SUITES
  ],
)
def test_our_side_of_every_case_runs(suite):
  with jax.numpy_dtype_promotion("standard"):
    cases = importlib.import_module(f"launch.benchmarks.{suite}").cases(True)
  assert cases
  for case in cases:
    # The optimizers of others promote types.
    with jax.numpy_dtype_promotion("standard"):
      case.ours()
