"""Run the points of a sweep, each as `python -m launch.run` would.

  python -m launch.sweep configs/sweeps/x.py --workdir=runs/sweep --jobs 2

The same command again skips the points that have a results.json and goes on
with the others. Exit status: 0 all points are done; 1 some failed; 2 a user's
error; 130 or 143 stopped by SIGINT or SIGTERM.

A sweep file has `get_sweep()`, which returns a list of dicts: "config" is the
config's file and argument, "name" (optional) that of the point's directory,
and every other entry is a dotted key of the config and its value. The functions
of configs.common (axis, product, zip_, chain) make such lists.
"""

import argparse
import concurrent.futures
import hashlib
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from launch import configuring

_RUN = (sys.executable, "-m", "launch.run")
_TEMPLATE = pathlib.Path(__file__).with_name("slurm.sh")
_LONGEST = 100  # characters of a directory's name


class Point(NamedTuple):
  """One run of a sweep.

  Attributes:
    workdir: Its directory.
    command: What runs it.
  """

  workdir: pathlib.Path
  command: tuple[str, ...]

  @property
  def done(self) -> bool:
    """Whether its results are there."""
    return (self.workdir / "results.json").exists()


def main(
  arguments: Sequence[str] | None = None, run: Sequence[str] = _RUN
) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.
    run: What runs one experiment.

  Returns:
    The exit status, see the top of this file.
  """
  try:
    options = _parser().parse_all(
      sys.argv[1:] if arguments is None else arguments,
      required=("FILE", "--workdir"),
    )
  except SystemExit as end:  # --help, or a message of argparse
    return int(end.code or 0)
  try:
    if options.jobs < 1:
      raise ValueError(f"--jobs must be at least 1, got {options.jobs}")
    module = configuring.load_module(options.sweep)
    if not hasattr(module, "get_sweep"):
      raise ValueError(f"{options.sweep} is not a sweep: it has no get_sweep()")
    points = plan(module.get_sweep(), options.workdir, run)
    todo = [point for point in points if not point.done]
    _say(f"{len(points)} points, {len(points) - len(todo)} done before")
    if options.dry_run:
      for point in todo:
        print(shlex.join(point.command))
      return 0
    if options.slurm:
      return _write_array(todo, options.workdir, options.jobs)
  except (ValueError, OSError) as error:
    _say(str(error))
    return 2
  return _Pool(todo, options.jobs).run()


def _parser() -> configuring.Parser:
  parser = configuring.Parser(
    prog="python -m launch.sweep",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add(
    "sweep",
    nargs="?",
    metavar="FILE",
    help="the sweep, e.g. configs/sweeps/x.py",
  )
  add(
    "--workdir",
    metavar="DIR",
    help="every point gets a directory in it",
  )
  add("--jobs", type=int, default=1, help="points at a time (default 1)")
  add(
    "--dry_run",
    action="store_true",
    help="print the commands of what is not done yet, run nothing",
  )
  add(
    "--slurm",
    action="store_true",
    help="write the commands of what is not done yet for a Slurm array, and"
    " print how to submit it",
  )
  return parser


def plan(
  points: Sequence[Mapping[str, Any]],
  workdir: str,
  run: Sequence[str] = _RUN,
) -> list[Point]:
  """Give every point of a sweep a directory and a command.

  Args:
    points: What `get_sweep` returned.
    workdir: Directory of the sweep.
    run: What runs one experiment.

  Returns:
    The points in the same order.

  Raises:
    ValueError: If a point has no config, or two have the same directory.
  """
  planned = []
  for number, point in enumerate(points):
    if "config" not in point:
      raise ValueError(
        f'point {number} of the sweep has no entry "config"; it has'
        f" {', '.join(point) or 'nothing'}"
      )
    keys = {k: v for k, v in point.items() if k not in ("config", "name")}
    directory = pathlib.Path(workdir) / _name(point, keys)
    command = (
      *run,
      f"--config={point['config']}",
      f"--workdir={directory}",
      *(f"--config.{key}={value}" for key, value in keys.items()),
    )
    planned.append(Point(directory, command))
  directories = [point.workdir for point in planned]
  for directory in directories:
    if directories.count(directory) > 1:
      raise ValueError(
        f"two points of the sweep have the directory {directory}; give them"
        ' different entries "name"'
      )
  return planned


def _name(point: Mapping[str, Any], keys: Mapping[str, Any]) -> str:
  """A directory's name: given, or made of what distinguishes the point."""
  if "name" in point:
    text = str(point["name"])
  else:
    path, _, argument = str(point["config"]).partition(":")
    parts = [pathlib.Path(path).stem, argument]
    parts += [f"{key}={value}" for key, value in keys.items()]
    text = ",".join(part for part in parts if part)
  name = re.sub(r"[^\w.,=+-]+", "_", text).strip("_") or "point"
  if len(name) > _LONGEST:
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    name = f"{name[: _LONGEST - 11]}-{digest}"
  return name


def _write_array(todo: Sequence[Point], workdir: str, jobs: int) -> int:
  """Write one command a line and print how to submit them all."""
  if not todo:
    return 0
  root = pathlib.Path(workdir)
  root.mkdir(parents=True, exist_ok=True)
  commands = root / "commands.txt"
  lines = [shlex.join(point.command) for point in todo]
  commands.write_text("\n".join(lines) + "\n", "utf-8")
  _say(f"wrote {len(todo)} commands to {commands}; submit them with")
  array = f"--array=1-{len(todo)}%{jobs}"
  print(shlex.join(["sbatch", array, str(_TEMPLATE), str(commands)]))
  return 0


class _Pool:
  """Runs points as processes, some at a time, and tells how they fare."""

  def __init__(self, points: Sequence[Point], jobs: int):
    self._points, self._jobs = points, jobs
    self._running: set[subprocess.Popen] = set()
    self._lock = threading.Lock()
    self._stopped: signal.Signals | None = None
    self._finished = 0

  def run(self) -> int:
    """Run all points; return the exit status of the sweep."""
    main_thread = threading.current_thread() is threading.main_thread()
    watched = (signal.SIGINT, signal.SIGTERM) if main_thread else ()
    before = {number: signal.signal(number, self._stop) for number in watched}
    try:
      with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool:
        statuses = list(pool.map(self._run_one, self._points))
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)
    if self._stopped is not None:
      _say("stopped; the same command goes on")
      return 128 + self._stopped
    failed = [
      point
      for point, status in zip(self._points, statuses, strict=True)
      if status != 0
    ]
    if failed:
      _say(f"{len(failed)} of {len(self._points)} points failed:")
      for point in failed:
        _say(f"  {point.workdir}: see {_log(point)}")
      return 1
    return 0

  def _stop(self, number: int, frame: object) -> None:
    """Pass a signal on to the points that run, which then save."""
    del frame
    self._stopped = signal.Signals(number)
    for process in list(self._running):
      process.terminate()

  def _run_one(self, point: Point) -> int:
    with self._lock:
      if self._stopped is not None:
        return -1
      point.workdir.mkdir(parents=True, exist_ok=True)
      log = open(_log(point), "ab")  # noqa: SIM115
      process = subprocess.Popen(
        point.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
      )
      self._running.add(process)
      if self._stopped is not None:  # while it was being started
        process.terminate()
    start = time.monotonic()
    _say(f"start {point.workdir.name}")
    with log:
      status = process.wait()
    self._running.discard(process)
    seconds = round(time.monotonic() - start)
    self._finished += 1
    if status == 0 and not point.done:
      status = -1  # nothing to show for it
    end = "done" if status == 0 else f"FAILED, see {_log(point)}"
    _say(
      f"[{self._finished}/{len(self._points)}] {point.workdir.name}: {end}"
      f" ({seconds} s)"
    )
    return status


def _log(point: Point) -> pathlib.Path:
  return point.workdir / "log.txt"


def _say(text: str) -> None:
  print(f"sweep: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
  sys.exit(main())
