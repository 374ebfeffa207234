"""What cells of the tables in README.md, and the lines below them, say."""

from collections.abc import Mapping
from typing import Any


def origin(results: Mapping[str, Any]) -> str:
  """Say which command made the results, when, where and in what time."""
  seconds = results.get("seconds")
  time = (
    f" {seconds['wall'] / 60:.0f} minutes, {seconds['cpu'] / 60:.0f} CPU"
    " minutes,"
    if seconds
    else ""
  )
  return (
    f"Command: `{results['command']}` ({results['date']},"
    f" {results['machine']},{time} jax {results['packages']['jax']})."
  )


def interval(cell: Mapping[str, float | None], digits: int) -> str:
  """Write an estimate with half its interval; a dash where undefined."""
  estimate, low, high = (cell[k] for k in ("estimate", "low", "high"))
  if estimate is None:
    return "–"
  text = f"{estimate:.{digits}f}"
  if low is None or high is None:
    return text
  return f"{text} ± {(high - low) / 2:.{digits}f}"
