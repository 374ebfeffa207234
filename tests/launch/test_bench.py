"""Every suite of the benchmark runs in small; its figures do not matter."""

import importlib
import json

import jax
import pytest

from launch import bench
from launch.benchmarks import harness, masks, solvers

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


def test_the_file_keeps_suites_that_are_not_run(tmp_path, monkeypatch):
  limits = {"read_gb_per_s": 1.0, "gemm_gflop_per_s": 2.0}
  monkeypatch.setattr(harness, "machine_limits", lambda: limits)
  for module in (masks, solvers):
    name = module.__name__
    case = harness.Case(name=name, ours=lambda: None)
    monkeypatch.setattr(module, "cases", lambda quick, case=case: [case])
  path = tmp_path / "new" / "bench.json"
  assert not bench.main(["--only=solvers", f"--output={path}"])
  first = json.loads(path.read_text())["suites"]
  assert not bench.main(["--only=masks", "--rounds=3", f"--output={path}"])
  found = json.loads(path.read_text())["suites"]
  assert list(found) == ["masks", "solvers"]  # in the order of the table
  assert found["solvers"] == first["solvers"]
  assert found["masks"]["cases"][0]["rounds"] == 3
  assert found["masks"]["measured"]["limits"] == limits


def test_one_case_is_measured_alone_and_not_written(
  tmp_path, monkeypatch, capsys
):
  limits = {"read_gb_per_s": 1.0, "gemm_gflop_per_s": 2.0}
  monkeypatch.setattr(harness, "machine_limits", lambda: limits)
  ran = []
  cases = [
    harness.Case(name=name, ours=lambda name=name: ran.append(name))
    for name in ("small", "large")
  ]
  monkeypatch.setattr(masks, "cases", lambda quick: cases)
  assert not bench.main(["--only=masks", "--case=larg", "--rounds=1"])
  assert set(ran) == {"large"}
  assert not bench.main(["--only=masks", "--case=huge"])
  assert "small; large" in capsys.readouterr().out
  with pytest.raises(SystemExit):
    bench.main(["--case=large", f"--output={tmp_path / 'bench.json'}"])
  assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"suites": {"masks": []}}'])
def test_a_file_of_something_else_is_left_alone(text, tmp_path, capsys):
  path = tmp_path / "bench.json"
  path.write_text(text)
  with pytest.raises(SystemExit) as error:
    bench.main([f"--output={path}"])
  assert error.value.code == 2
  assert "--output" in capsys.readouterr().err
  assert path.read_text() == text
