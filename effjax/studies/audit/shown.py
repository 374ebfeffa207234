"""How values of a results.json are read and written in a report."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# A plot or table shows at most so many rows, a heat map so many columns.
MOST_ROWS, MOST_COLUMNS = 20, 5
# Below this many samples a group says little.
SMALL = 50


def number(value: Any) -> float:
  """Reads what JSON holds as null as NaN."""
  return float("nan") if value is None else float(value)


def array(values: Any) -> np.ndarray:
  """Reads lists of numbers and null."""
  return np.array(values, float)


def interval(cell: Mapping[str, Any]) -> tuple[float, ...]:
  """Reads an estimate with its interval."""
  return tuple(number(cell[end]) for end in ("estimate", "low", "high"))


def mean(values: Any) -> float:
  """Returns the mean of what is defined, NaN for nothing."""
  known = array(values)
  known = known[~np.isnan(known)]
  return float(known.mean()) if known.size else float("nan")


def level(results: dict[str, Any]) -> str:
  """Writes the coverage of the intervals."""
  return f"{100 * results['level']:g} %"


def points(share: float) -> str:
  """Writes a signed difference of shares in percentage points."""
  return f"{100 * share:+.1f}\u00a0points".replace("-", "\u2212")
