"""A candidate of a comparison: -m tests.launch.served WHAT."""

import os
import sys

from launch.benchmarks import apart


def _work():
  print("what libraries say")
  if sys.argv[1] == "fails":
    raise ValueError("no such case")
  if sys.argv[1] == "computes":
    sum(range(2_000_000))
  if sys.argv[1] == "reads":
    assert os.environ["GIVEN"] == "yes"


if __name__ == "__main__":
  apart.serve(_work)
