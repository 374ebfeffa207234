"""What a run shows: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any

import jax


class Progress:
  """Shows how far a run is: a live line on a terminal, else plain lines.

  Args:
    name: What is running.
    start: The step that it starts from.
    total: The step that it ends with.
    stream: Where to; None means standard error.
  """

  def __init__(self, name: str, start: int, total: int, *, stream: Any = None):
    self._name, self._total = name, total
    self._stream = sys.stderr if stream is None else stream
    self._shown = jax.process_index() == 0
    self._started: tuple[int, float] | None = None
    self._live = None
    if self._shown and self._stream.isatty():
      self._live = _live_line(self._stream, name, start, total)

  def update(self, step: int, loss: float | None, *, line: bool) -> None:
    """Report a step.

    Args:
      step: Number of updates done.
      loss: Its loss, the mean one of a population.
      line: Whether a plain output gets a line now.
    """
    now = time.perf_counter()
    if self._started is None:  # the first step compiled: not a measure of speed
      self._started = (step, now)
    if not self._shown:
      return
    rate = (step - self._started[0]) / max(now - self._started[1], 1e-9)
    loss_text = "" if loss is None else f"loss {loss:.4g}"
    speed = f"{rate:.3g} steps/s" if rate else ""
    if self._live is not None:
      bar, task = self._live
      bar.update(task, completed=step, loss=loss_text, speed=speed)
    elif line:
      left = _clock((self._total - step) / rate) + " left" if rate else ""
      parts = [f"{self._name} {step}/{self._total}", loss_text, speed, left]
      print("  ".join(p for p in parts if p), file=self._stream, flush=True)

  def note(self, text: str) -> None:
    """Print a line of text, above the live line where there is one."""
    if not self._shown:
      return
    if self._live is not None:
      self._live[0].console.print(text, markup=False, highlight=False)
    else:
      print(text, file=self._stream, flush=True)

  def __enter__(self):
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Leave the live line as it is and stop drawing."""
    if self._live is not None:
      self._live[0].stop()
      self._live = None


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}"


def _live_line(stream: Any, name: str, start: int, total: int) -> Any:
  from rich import console, progress

  bar = progress.Progress(
    progress.TextColumn("{task.description}"),
    progress.BarColumn(),
    progress.MofNCompleteColumn(),
    progress.TextColumn("{task.fields[loss]}"),
    progress.TextColumn("{task.fields[speed]}"),
    progress.TimeRemainingColumn(),
    console=console.Console(file=stream),
    refresh_per_second=4,
  )
  task = bar.add_task(name, total=total, completed=start, loss="", speed="")
  bar.start()
  return bar, task
