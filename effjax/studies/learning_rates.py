"""Grids of learning rates, and what comes after them."""

from collections.abc import Sequence


def following(rates: Sequence[float], side: int) -> float:
  """Return the learning rate behind a grid: a decade from the last but one.

  Args:
    rates: At least two, ascending.
    side: 1 for a higher rate, -1 for a lower one.

  Returns:
    The rate.

  >>> following([1e-4, 3e-4, 1e-3, 3e-3], 1), following([1e-4, 3e-4], -1)
  (0.01, 3e-05)
  """
  near = rates[-2] * 10 if side > 0 else rates[1] / 10
  return float(f"{near:.6g}")
