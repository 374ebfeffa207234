"""Run one experiment; the same command again goes on where it stopped.

  python -m launch.run --config=configs/bias/fashion.py:quick --workdir=runs/x

Exit status: 0 done; 1 the experiment failed; 2 a user's error, told in a
sentence; 130 or 143 stopped by SIGINT or SIGTERM after saving.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from configs import common
from launch import configuring, memory

Study = Callable[[Any, str], Any]
_ROOT = pathlib.Path(__file__).resolve().parents[1]
_OWN = (_ROOT / "effjax", _ROOT / "configs", _ROOT / "launch")


def _bias(config: Any, workdir: str) -> Any:
  from effjax.studies import bias

  return bias.run(config, workdir)


def _faces(config: Any, workdir: str) -> Any:
  from effjax.studies.bias import faces

  return faces.run(config, workdir)


def _spade(config: Any, workdir: str) -> Any:
  from effjax.studies import spade

  return spade.run(config, workdir)


def _adapters(config: Any, workdir: str) -> Any:
  from effjax.studies import adapters

  return adapters.run(config, workdir)


def _edit(config: Any, workdir: str) -> Any:
  from effjax.studies import edit

  return edit.run(config, workdir)


def _edit_language(config: Any, workdir: str) -> Any:
  from effjax.studies.edit import language_study

  return language_study.run(config, workdir)


def _edit_load(config: Any, workdir: str) -> Any:
  from effjax.studies.edit import load_study

  return load_study.run(config, workdir)


def _personalize(config: Any, workdir: str) -> Any:
  from effjax.studies import personalize

  return personalize.run(config, workdir)


# `config.study` -> what runs it; a study is imported when it is chosen.
STUDIES: Mapping[str, Study] = {
  "adapters": _adapters,
  "bias": _bias,
  "edit": _edit,
  "edit_language": _edit_language,
  "edit_load": _edit_load,
  "faces": _faces,
  "personalize": _personalize,
  "spade": _spade,
}


def main(
  arguments: Sequence[str] | None = None,
  studies: Mapping[str, Study] = STUDIES,
) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.
    studies: The studies that a config may name.

  Returns:
    The exit status, see the top of this file.
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  debug = "--debug" in arguments
  try:
    options, overrides = _parse(arguments)
  except SystemExit as end:  # --help, or a message of argparse
    return int(end.code or 0)
  try:
    with _obedient(options):
      _run(options, overrides, studies)
  except SystemExit as end:
    return end.code if isinstance(end.code, int) else int(bool(end.code))
  except KeyboardInterrupt:
    _say("stopped by SIGINT; the same command goes on")
    return 128 + signal.SIGINT
  except FloatingPointError as error:
    return _explain(error, 1, debug)
  except (ModuleNotFoundError, OSError, ValueError) as error:
    if not _is_users(error, options.config):
      raise
    return _explain(error, 2, debug)
  return 0


def _parser() -> configuring.Parser:
  parser = configuring.Parser(
    prog="python -m launch.run",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog="Any key of the config can be set: --config.optimizer.rate=0.1",
    allow_abbrev=False,
  )
  add = parser.add_argument
  add(
    "--config",
    metavar="FILE[:ARG]",
    help="the experiment and its argument, e.g. configs/bias/fashion.py:quick",
  )
  add(
    "--workdir",
    metavar="DIR",
    help="where everything is written; belongs to one config",
  )
  add(
    "--profile",
    metavar="A:B",
    help="trace the steps from A to B with JAX's profiler",
  )
  add(
    "--jax_cache_dir",
    metavar="DIR",
    help="keep compiled programs here for the next run; must not be writable"
    " by everybody",
  )
  add("--debug", action="store_true", help="show the traceback of every error")
  group = parser.add_argument_group(
    "several processes",
    "each runs the same command; on a cluster that JAX"
    " knows --distributed alone is enough",
  )
  add = group.add_argument
  add("--distributed", action="store_true", help="connect the processes")
  add("--coordinator", metavar="HOST:PORT", help="address of process 0")
  add("--num_processes", type=int, metavar="N", help="how many there are")
  add("--process_id", type=int, metavar="I", help="which one this is")
  return parser


def _parse(
  arguments: Sequence[str],
) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
  """Split the command line into options and overrides of the config."""
  parser = _parser()
  rest, overrides, pending = [], [], list(arguments)
  while pending:
    argument = pending.pop(0)
    if not argument.startswith("--config."):
      rest.append(argument)
      continue
    key, equals, text = argument.removeprefix("--config.").partition("=")
    if not equals:
      if not pending or pending[0].startswith("--"):
        parser.error(f"--config.{key} needs a value: --config.{key}=VALUE")
      text = pending.pop(0)
    overrides.append((key, text))
  options = parser.parse_all(rest, required=("--config", "--workdir"))
  return options, overrides


def _run(
  options: argparse.Namespace,
  overrides: Sequence[tuple[str, str]],
  studies: Mapping[str, Study],
) -> None:
  config = configuring.load(options.config, overrides)
  study = _study(config, options.config, studies)
  _set_up_jax(options)

  import jax

  from effjax.training import mesh, profiler, workdir

  if options.profile is not None:
    profiler.parse_window(options.profile)  # an error now, not in an hour
    with config.unlocked():
      config.profile = options.profile
  with _only_run(options.workdir, jax.process_index()):
    workdir.start(options.workdir, config)
    if jax.process_index() == 0:
      axes = config.get("mesh")
      print(
        f"{config}\n{mesh.describe(mesh.from_config(axes) if axes else None)}"
      )
      print(f"work directory {options.workdir}", flush=True)
    study(config, options.workdir)


def _study(config: Any, path: str, studies: Mapping[str, Study]) -> Study:
  name = config.get("study")
  if name not in studies:
    near = common.meant(str(name), studies) or "."
    raise ValueError(
      f"{path} names the study {name!r}, which there is not{near} Known are"
      f" {', '.join(studies)}"
    )
  return studies[name]


def _set_up_jax(options: argparse.Namespace) -> None:
  """Set what must be set before JAX looks at its devices."""
  import jax

  if options.jax_cache_dir is not None:
    configuring.keep_programs(options.jax_cache_dir)
  details = {
    "coordinator_address": options.coordinator,
    "num_processes": options.num_processes,
    "process_id": options.process_id,
  }
  if options.distributed:
    try:
      jax.distributed.initialize(**details)
    except (ValueError, RuntimeError) as error:
      raise ValueError(
        f"the processes could not be connected ({error}); where JAX does not"
        " know the cluster, give --coordinator, --num_processes and"
        " --process_id"
      ) from None
  elif any(value is not None for value in details.values()):
    raise ValueError(
      "--coordinator, --num_processes and --process_id need --distributed"
    )


@contextlib.contextmanager
def _only_run(workdir: str, process: int) -> Iterator[None]:
  """Refuse to work where another run is at work; its death frees the lock."""
  if process != 0:
    yield
    return
  import filelock

  from effjax.io import files

  lock = filelock.FileLock(os.path.join(workdir, ".lock"), timeout=0)
  try:
    with files.explained("make the work directory", workdir):
      os.makedirs(workdir, exist_ok=True)
      lock.acquire()
  except filelock.Timeout:
    raise ValueError(
      f"another run is at work in {workdir}; wait for it or choose another"
      " directory"
    ) from None
  except NotImplementedError:
    pass  # a file system without locks: the user must take care
  try:
    yield
  finally:
    lock.release()


@contextlib.contextmanager
def _obedient(options: argparse.Namespace) -> Iterator[None]:
  """End with a message on a SIGTERM that comes when nothing is trained."""

  def end(*_: object) -> NoReturn:
    _say("stopped by SIGTERM; the same command goes on")
    raise SystemExit(128 + signal.SIGTERM)

  if options.distributed:  # JAX has its own handler then
    yield
    return
  try:
    before = signal.signal(signal.SIGTERM, end)
  except ValueError:  # not in the main thread
    yield
    return
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def _is_users(error: Exception, config: str) -> bool:
  """Say whether an error is for the user: ours to raise, or of the disk."""
  if isinstance(error, OSError) and error.errno is not None:
    return True
  frames = list(traceback.walk_tb(error.__traceback__))
  if not frames:
    return False
  file = pathlib.Path(frames[-1][0].f_code.co_filename).resolve()
  own = (*_OWN, pathlib.Path(config.partition(":")[0]).resolve())
  return any(file.is_relative_to(path) for path in own)


def _explain(error: Exception, status: int, debug: bool) -> int:
  if debug:
    traceback.print_exception(error)
  else:
    _say(str(error))
  return status


def _say(text: str) -> None:
  print(f"run: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
  memory.use_huge_pages()
  sys.exit(main())
