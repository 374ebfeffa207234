"""What the benchmark's harness makes of candidates, here and elsewhere."""

import os

import pytest

from launch.benchmarks import apart, harness


def test_candidates_take_turns_and_are_closed():
  calls = []
  case = harness.Case(
    name="name",
    ours=lambda: calls.append("ours"),
    peers={"peer": lambda: harness.Times(2.0, 3.0 + len(calls))},
    note=lambda: f"after {len(calls)} calls",
    close=lambda: calls.append("closed"),
  )
  found = harness.measure(case, 3, warmup=1)
  assert calls == ["ours"] * 4 + ["closed"]
  assert found["note"] == "after 4 calls"
  peer = found["candidates"]["peer"]
  assert peer["wall"] == {"median": 2.0, "min": 2.0, "max": 2.0}
  assert peer["cpu"] == {"median": 6.0, "min": 5.0, "max": 7.0}


def test_is_closed_after_an_error():
  closed = []

  def fails():
    raise OverflowError

  case = harness.Case(name="", ours=fails, close=lambda: closed.append(1))
  with pytest.raises(OverflowError):
    harness.measure(case, 1)
  assert closed


def test_a_process_measures_itself():
  candidate = apart.Apart("tests.launch.served", "computes")
  try:
    first, second = candidate(), candidate()
  finally:
    candidate.close()
  for found in (first, second):
    assert 0 < found.cpu < 60
    assert 0 < found.wall < 60
  # An interpreter takes megabytes.
  assert candidate.memory > 1e6 or not os.path.exists("/proc/self/status")
  candidate.close()


def test_a_process_has_the_environment_that_is_given():
  environment = {**os.environ, "GIVEN": "yes"}
  candidate = apart.Apart(
    "tests.launch.served", "reads", environment=environment
  )
  candidate()
  candidate.close()


def test_a_process_that_ends_is_told():
  candidate = apart.Apart("tests.launch.served", "fails")
  with pytest.raises(RuntimeError, match="served fails ended with status 1"):
    candidate()
  candidate.close()
