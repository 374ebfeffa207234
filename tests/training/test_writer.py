import io
import json
import sys
import types

import numpy as np
import pytest

from effjax.training import progress, writer


def test_lines(tmp_path):
  with writer.Writer(tmp_path / "run") as w:
    w.write(1, "train", {"loss": np.float32(0.1), "b": np.arange(2), "n": 3})
    w.write(2, "train", {"loss": np.array([1.5, np.nan], np.float32)})
  lines = [
    json.loads(line)
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  ]
  assert [set(line) for line in lines] == [
    {"step", "split", "time", "values"}
  ] * 2
  assert lines[0]["values"] == {"b": [0, 1], "loss": 0.1, "n": 3}
  assert lines[1]["values"] == {"loss": [1.5, None]}
  assert writer.read_metrics(tmp_path / "run") == lines


def test_later_and_torn_lines_are_dropped_on_resume(tmp_path):
  with writer.Writer(tmp_path) as w:
    for step in (1, 2, 3):
      w.write(step, "train", {"loss": step})
  path = tmp_path / "metrics.jsonl"
  first = path.read_text().splitlines(True)[:2]
  with open(path, "a") as file:
    file.write('{"step": 4, "split": "tra')
  assert [line["step"] for line in writer.read_metrics(path)] == [1, 2, 3]
  with writer.Writer(tmp_path, step=2) as w:
    w.write(3, "train", {"loss": 7})
  lines = path.read_text().splitlines(True)
  assert lines[:2] == first
  assert [line["values"]["loss"] for line in writer.read_metrics(path)] == [
    1,
    2,
    7,
  ]


def test_a_whole_last_line_without_its_end_is_torn(tmp_path):
  with writer.Writer(tmp_path) as w:
    w.write(1, "train", {"loss": 1})
  path = tmp_path / "metrics.jsonl"
  path.write_text(path.read_text() + '{"step": 2}')
  with writer.Writer(tmp_path, step=5) as w:
    w.write(6, "train", {})
  assert [line["step"] for line in writer.read_metrics(path)] == [1, 6]


def test_missing_metrics(tmp_path):
  with pytest.raises(FileNotFoundError):
    writer.read_metrics(tmp_path)


def test_tensorboard(tmp_path, monkeypatch):
  events = []

  class SummaryWriter:
    def __init__(self, directory, purge_step):
      events.append((directory, purge_step))

    def add_scalar(self, tag, value, step):
      events.append((tag, value, step))

    def flush(self):
      events.append("flush")

    def close(self):
      events.append("close")

  module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
  monkeypatch.setitem(sys.modules, "tensorboardX", module)
  with writer.Writer(tmp_path, step=4, tensorboard=True) as w:
    w.write(5, "train", {"loss": 1.0, "m": np.array([2.0, np.nan])})
    w.sync()
  assert events == [
    (str(tmp_path / "tensorboard"), 5),
    ("train/loss", 1.0, 5),
    ("train/m/0", 2.0, 5),
    "flush",
    "close",
  ]


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with pytest.raises(ValueError, match=r"effjax\[tensorboard\]"):
    writer.Writer(tmp_path, tensorboard=True)


def test_plain_progress():
  stream = io.StringIO()
  with progress.Progress("dense", 0, 40, stream=stream) as shown:
    for step in range(1, 41):
      shown.update(step, 0.5, line=step % 20 == 0)
    shown.note("a note")
  lines = stream.getvalue().splitlines()
  assert len(lines) == 3
  assert lines[0].startswith("dense 20/40  loss 0.5  ")
  assert "steps/s" in lines[0]
  assert lines[0].endswith(" left")
  assert lines[2] == "a note"


def test_live_progress():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  stream = Terminal()
  with progress.Progress("dense", 10, 40, stream=stream) as shown:
    shown.update(11, 0.5, line=False)
    shown.update(40, 0.25, line=True)
    shown.note("a [note]")
  text = stream.getvalue()
  for part in ("dense", "40/40", "loss 0.25", "steps/s", "a [note]"):
    assert part in text


def test_clock():
  assert progress._clock(3723.4) == "1:02:03"
