"""Command lines and configs of the launch scripts, with readable errors."""

import argparse
import importlib.util
import inspect
import pathlib
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, NoReturn

import ml_collections

from configs import common


class Parser(argparse.ArgumentParser):
  """A parser whose errors are one sentence that names the nearest option."""

  def error(self, message: str) -> NoReturn:
    """Print a message and exit with status 2."""
    name = (self.prog or "").rpartition(".")[2]
    self.exit(2, f"{name}: {message}; --help lists the options\n")

  def parse_all(
    self, arguments: Sequence[str], *, required: Sequence[str]
  ) -> argparse.Namespace:
    """Parse a command line; what is misspelt is told before what is missing.

    Args:
      arguments: The command line without the program.
      required: Options, or names shown for arguments, that must be given.

    Returns:
      The options.
    """
    options, unknown = self.parse_known_args(arguments)
    if unknown:
      name = unknown[0].partition("=")[0]
      known = [s for action in self._actions for s in action.option_strings]
      self.error(f"unknown option {name}{common.meant(name, known)}")
    for action in self._actions:
      for name in (*action.option_strings, action.metavar):
        if name in required and getattr(options, action.dest) is None:
          self.error(f"{name} is missing")
    return options


def command(
  parser: Parser,
  work: Callable[[argparse.Namespace], Any],
  arguments: Sequence[str] | None,
  *,
  required: Sequence[str] = (),
  hint: str = "",
) -> int:
  """Parse a command line and do what it asks for.

  Args:
    parser: Its parser, with the option `--debug`.
    work: What the command does, from the options.
    arguments: Command line without the program; None takes the real one.
    required: The options that must be given.
    hint: What is said if a package is missing.

  Returns:
    The exit status, as of `attempt`.
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  try:
    options = parser.parse_all(arguments, required=required)
  except SystemExit as end:  # --help, or a message of argparse
    return int(end.code or 0)
  name = parser.prog.rpartition(".")[2]
  return attempt(name, lambda: work(options), debug=options.debug, hint=hint)


def describe(name: str, description: str | None) -> Parser:
  """Make the parser of a command, to which options are added.

  Args:
    name: Its name in `launch`.
    description: What `--help` says, as it is laid out.

  Returns:
    The parser; options are not to be shortened.
  """
  return Parser(
    prog=f"python -m launch.{name}",
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def attempt(
  name: str, work: Callable[[], Any], *, debug: bool, hint: str = ""
) -> int:
  """Do the work of a command; tell errors in a sentence.

  Args:
    name: The command.
    work: What it does.
    debug: Whether errors are raised.
    hint: What is said if a package is missing.

  Returns:
    The exit status: 0 done; 1 a number is not finite; 2 a user's error; 130 or
    143 stopped by a signal.
  """
  try:
    work()
  except KeyboardInterrupt:
    print(f"{name}: stopped", file=sys.stderr)
    return 128 + signal.SIGINT
  except SystemExit as end:  # a signal, after a checkpoint
    return end.code if isinstance(end.code, int) else int(bool(end.code))
  except (
    FloatingPointError,
    ModuleNotFoundError,
    OSError,
    ValueError,
  ) as error:
    if debug:
      raise
    missing = isinstance(error, ModuleNotFoundError)
    print(f"{name}: {error}{hint if missing else ''}", file=sys.stderr)
    return 1 if isinstance(error, FloatingPointError) else 2
  return 0


def load(
  spec: str, overrides: Sequence[tuple[str, str]] = ()
) -> ml_collections.ConfigDict:
  """Load a config and set some of its keys.

  Args:
    spec: "path.py" or "path.py:argument".
    overrides: Pairs (dotted key, text); the text is read as the type that the
      key's value has.

  Returns:
    The config, locked.

  Raises:
    FileNotFoundError: If there is no such file, with the nearest one.
    ValueError: If the file is no config, or a key or value makes no sense.
  """
  path, _, argument = spec.partition(":")
  module = load_module(path)
  if not hasattr(module, "get_config"):
    raise ValueError(f"{path} is not a config: it has no get_config(arg)")
  takes_argument = bool(inspect.signature(module.get_config).parameters)
  if argument and not takes_argument:
    raise ValueError(f"the config {path} takes no argument, got {argument!r}")
  config = (
    module.get_config(argument) if takes_argument else module.get_config()
  )
  config = ml_collections.ConfigDict(config)
  for key, text in overrides:
    override(config, key, text)
  return config.lock()


def load_module(path: str) -> ModuleType:
  """Load a Python file as a module.

  Args:
    path: Its path.

  Returns:
    The module, which is not registered anywhere.

  Raises:
    FileNotFoundError: If there is no such file, with the nearest one.
    ValueError: If it is not valid Python.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    siblings = sorted(str(p) for p in file.parent.glob("*.py"))
    raise FileNotFoundError(
      f"there is no file {path}{common.meant(path, siblings)}"
    )
  spec = importlib.util.spec_from_file_location(file.stem, file)
  if spec is None or spec.loader is None:
    raise ValueError(f"{path} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except SyntaxError as error:
    raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from None
  return module


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
  """Set one key of a config in place.

  Args:
    config: The config.
    key: Dotted key that exists.
    text: The value as text.

  Raises:
    ValueError: If there is no such key, it is a group of keys, or the text does
      not read as its type.
  """
  place = config
  name, _, rest = key.partition(".")
  while rest and name in place and _is_group(place[name]):
    place = place[name]
    name, _, rest = rest.partition(".")
  if rest or name not in place:
    known = list(keys(config))
    raise ValueError(f"the config has no key {key!r}{common.meant(key, known)}")
  if _is_group(place[name]):
    inner = ", ".join(f"{key}.{entry}" for entry in place[name])
    raise ValueError(f"{key!r} is a group of keys; set one of {inner}")
  try:
    value = common.convert(text, place[name])
  except ValueError as error:
    raise ValueError(f"--config.{key}: {error}") from None
  with place.ignore_type():
    place[name] = value


def keys(config: ml_collections.ConfigDict, prefix: str = "") -> Iterable[str]:
  """Yield the dotted keys of all values of a config."""
  for name in config:
    if _is_group(config[name]):
      yield from keys(config[name], f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}"


def _is_group(value: Any) -> bool:
  return isinstance(value, ml_collections.ConfigDict)


def keep_programs(path: str) -> None:
  """Have JAX keep compiled programs for the next run.

  Args:
    path: The directory, made if it is missing.

  Raises:
    ValueError: If everybody may write there.
  """
  import jax

  directory = pathlib.Path(path)
  directory.mkdir(mode=0o700, parents=True, exist_ok=True)
  if directory.stat().st_mode & stat.S_IWOTH:
    raise ValueError(
      f"--jax_cache_dir {directory} is writable by everybody, and what is in it"
      " is executed; choose a directory of your own"
    )
  jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
