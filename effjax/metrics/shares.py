"""Numbers that are a share of something, or at most so much of it."""

from typing import Any


def check(
  name: str, value: Any, most: float = 1.0, *, below: bool = False
) -> None:
  """Checks a number above 0.

  Args:
    name: What to call it in an error.
    value: A number, static.
    most: The largest that is allowed.
    below: Whether it must lie below that.

  Raises:
    ValueError: If it is no number or lies outside.

  >>> check("share", 0.5)
  """
  try:
    inside = bool(0 < value < most if below else 0 < value <= most)
  except (TypeError, ValueError):
    inside = False
  if not inside:
    end = ")" if below else "]"
    raise ValueError(f"{name} must lie in (0, {most:g}{end}, got {value!r}.")
