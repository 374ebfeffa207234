"""A window of steps traced with JAX's profiler."""

import os
from typing import Any

import jax


def parse_window(window: str | None) -> tuple[int, int] | None:
  """Read a window of steps.

  Args:
    window: "a:b", the first step and the one after the last; None for none.

  Returns:
    (a, b), or None.

  Raises:
    ValueError: If it is something else.

  >>> parse_window("10:20")
  (10, 20)
  """
  if not window:
    return None
  first, _, end = window.partition(":")
  if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
    raise ValueError(
      f'profile must be "a:b", the first step and the one after the last, got'
      f" {window!r}"
    )
  return int(first), int(end)


class Tracer:
  """A context that traces the steps of a window.

  Args:
    window: The first step and the one after the last, see `parse_window`.
    directory: Where the trace is written.
  """

  def __init__(
    self, window: tuple[int, int] | None, directory: str | os.PathLike
  ):
    self._window, self._directory = window, directory
    self._running = False

  def __enter__(self) -> "Tracer":
    return self

  def __exit__(self, *_: object) -> None:
    self._stop()

  def before(self, number: int, pending: Any) -> None:
    """Start or stop the trace before a step, as the window says."""
    if self._window is None:
      return
    first, end = self._window
    if not self._running and first <= number < end:
      jax.profiler.start_trace(str(self._directory))
      self._running = True
    elif self._running and number >= end:
      jax.block_until_ready(pending)
      self._stop()

  def _stop(self) -> None:
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
