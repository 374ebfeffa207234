"""What a run records: metrics.jsonl, and TensorBoard events when asked.

`metrics.jsonl` is the truth. One line is one JSON object: step, split, time,
values. It survives a kill at any instant: a torn last line is dropped when the
run goes on, and so are the lines beyond the step that it goes on from.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from effjax.io import files


class Writer:
  """Appends measures to `workdir/metrics.jsonl`; only process 0 writes.

  Args:
    workdir: The directory of the run; it is made.
    step: The step that the run starts or goes on from; later lines of an
      earlier attempt are dropped.
    tensorboard: Whether to write events for TensorBoard too.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    step: int = 0,
    tensorboard: bool = False,
  ):
    self.path = pathlib.Path(workdir) / "metrics.jsonl"
    self._file = self._events = None
    if jax.process_index() != 0:
      return
    if tensorboard:
      self._events = _event_writer(self.path.parent / "tensorboard", step)
    with files.explained("write metrics", self.path):
      self.path.parent.mkdir(parents=True, exist_ok=True)
      _keep_until(self.path, step)
      self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

  def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
    """Append one line.

    Args:
      step: Number of updates done.
      split: What was measured, e.g. "train".
      values: Numbers or arrays (one entry per member of a population).
    """
    if self._file is None:
      return
    values = {name: _plain(value) for name, value in sorted(values.items())}
    line = {
      "step": step,
      "split": split,
      "time": round(time.time(), 3),
      "values": values,
    }
    with files.explained("write metrics", self.path):
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
    if self._events is not None:
      for name, value in values.items():
        for tag, number in _scalars(f"{split}/{name}", value):
          self._events.add_scalar(tag, number, step)

  def sync(self) -> None:
    """Force all lines onto the disk, as before a checkpoint is made."""
    if self._file is not None:
      with files.explained("write metrics", self.path):
        os.fsync(self._file.fileno())
    if self._events is not None:
      self._events.flush()

  def __enter__(self):
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Close the files; the writer writes no more."""
    for file in (self._file, self._events):
      if file is not None:
        file.close()
    self._file = self._events = None


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Read the whole lines of a metrics file.

  Args:
    path: A `metrics.jsonl`, or the directory that holds it.

  Returns:
    One dict a line; what follows a torn line is left out.

  Raises:
    FileNotFoundError: If there is no such file.
  """
  path = pathlib.Path(path)
  path = path / "metrics.jsonl" if path.is_dir() else path
  return [line for line, _ in _whole_lines(path)]


def _whole_lines(path: pathlib.Path) -> list[tuple[dict[str, Any], str]]:
  lines = []
  for text in path.read_text("utf-8", errors="replace").splitlines(True):
    try:
      line = json.loads(text)
    except ValueError:
      break
    if not text.endswith("\n") or not isinstance(line, dict):
      break
    lines.append((line, text))
  return lines


def _keep_until(path: pathlib.Path, step: int) -> None:
  """Drop torn lines and those beyond a step, by an atomic rewrite."""
  if not path.exists():
    return
  lines = _whole_lines(path)
  kept = "".join(text for line, text in lines if line["step"] <= step)
  if kept != path.read_text("utf-8", errors="replace"):
    files.write_text(path, kept)


def _plain(value: Any) -> Any:
  """A number or nested list; JSON has no NaN, so that becomes null."""
  array = np.asarray(value)
  if array.ndim:
    return [_plain(entry) for entry in array]
  number = array.item()
  if isinstance(number, float) and not math.isfinite(number):
    return None
  if isinstance(number, float) and array.dtype == np.float32:
    return float(str(array[()]))  # the shortest text that means the same
  return number


def _scalars(tag: str, value: Any) -> list[tuple[str, float]]:
  if isinstance(value, list):
    pairs = enumerate(value)
    return [p for i, v in pairs for p in _scalars(f"{tag}/{i}", v)]
  return [] if value is None else [(tag, value)]


def _event_writer(directory: pathlib.Path, step: int) -> Any:
  try:
    import tensorboardX
  except ImportError:
    raise ValueError(
      "writing for TensorBoard needs the package tensorboardX: pip install"
      " 'effjax[tensorboard]'"
    ) from None
  return tensorboardX.SummaryWriter(str(directory), purge_step=step + 1)
