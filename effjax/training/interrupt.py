"""Signals that ask a run to stop: it saves first."""

import signal
import threading
from types import FrameType
from typing import Any

import jax


class Interrupted(SystemExit):
  """A run was asked to stop, has saved, and can go on.

  Left alone it ends the program with the status 128 + signal: 143 for SIGTERM,
  130 for SIGINT.

  Attributes:
    signal: The signal that was received.
    step: The step whose checkpoint was saved.
  """

  def __init__(self, number: signal.Signals, step: int):
    super().__init__(128 + number)
    self.signal, self.step = number, step


class Watch:
  """A context in which SIGTERM and SIGINT are noted instead of obeyed.

  A second signal is obeyed at once. With several processes the notice of a
  preemption is shared by JAX's coordination service, so that all of them stop
  after the same step, whichever received it. Outside the main thread, where
  Python handles no signals, nothing is watched.
  """

  def __init__(self):
    self._received: signal.Signals | None = None
    self._before: dict[signal.Signals, Any] = {}

  def __enter__(self) -> "Watch":
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    self._restore()

  def _restore(self) -> None:
    for number, handler in self._before.items():
      # A handler that Python did not install cannot be put back.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    self._before = {}

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self._received is not None:
      self._restore()
      signal.raise_signal(number)
    self._received = signal.Signals(number)

  def received(self, step: int) -> signal.Signals | None:
    """Say which signal asks the run to stop after this step, if any.

    Args:
      step: Number of updates done; the same on all processes.

    Returns:
      The signal, or None.
    """
    if jax.process_count() == 1:
      return self._received
    from jax.experimental import multihost_utils

    if multihost_utils.reached_preemption_sync_point(step):
      return signal.SIGTERM
    return None
