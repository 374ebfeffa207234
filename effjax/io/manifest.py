"""The manifest of a checkpoint: its leaves, and the checksum of every file."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from effjax.io import files

_NAME = "manifest.json"
_FORMAT = 1


class CorruptCheckpointError(ValueError):
  """A checkpoint lacks files or holds bytes other than those written."""


def write(
  directory: str | os.PathLike,
  leaves: Sequence[Mapping[str, Any]],
  metadata: Mapping[str, Any],
) -> None:
  """Write the manifest of a directory whose other files are complete.

  Args:
    directory: The directory; every file in it is listed, and forced onto the
      disk.
    leaves: Descriptions of the leaves, see `packing.pack`.
    metadata: Values that JSON can hold.

  Raises:
    OSError: If the disk refuses.
  """
  directory = pathlib.Path(directory)
  entries = {}
  for file in sorted(p for p in directory.rglob("*") if p.is_file()):
    with open(file, "rb") as opened:
      digest = hashlib.file_digest(opened, "sha256").hexdigest()
      os.fsync(opened.fileno())  # here a disk that filled up says so
    name = file.relative_to(directory).as_posix()
    entries[name] = {"size": file.stat().st_size, "sha256": digest}
  content = {
    "format": _FORMAT,
    "metadata": dict(metadata),
    "leaves": list(leaves),
    "files": entries,
  }
  # The manifest vouches for itself too.
  text = json.dumps({"digest": _digest(content), **content})
  files.write_text(directory / _NAME, text)


def read(path: str | os.PathLike) -> dict[str, Any]:
  """Read the manifest of a checkpoint, without a look at the other files.

  Args:
    path: The directory of the checkpoint.

  Returns:
    A dict with "metadata", "leaves" and "files".

  Raises:
    FileNotFoundError: If there is no such directory.
    CorruptCheckpointError: If the manifest is missing, truncated or changed.
    ValueError: If a later version of this library wrote it.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    raise FileNotFoundError(f"there is no checkpoint at {path}")
  try:
    content = json.loads((path / _NAME).read_text("utf-8"))
    digest = content.pop("digest")
  except FileNotFoundError:
    raise CorruptCheckpointError(
      f"the checkpoint {path} is corrupt: {_NAME} is missing"
    ) from None
  except (ValueError, KeyError, TypeError, AttributeError):
    digest, content = None, {}
  if digest != _digest(content):
    raise CorruptCheckpointError(
      f"the checkpoint {path} is corrupt: {_NAME} is truncated or changed"
    )
  if content["format"] != _FORMAT:
    raise ValueError(
      f"the checkpoint {path} has format {content['format']}, this version"
      f" reads {_FORMAT}"
    )
  return content


def verify(path: str | os.PathLike) -> dict[str, Any]:
  """Check every file of a checkpoint against its checksum.

  Args:
    path: The directory of the checkpoint.

  Returns:
    The content of its manifest.

  Raises:
    FileNotFoundError: If there is no such directory.
    CorruptCheckpointError: Naming the first file that is not as written.
  """
  path = pathlib.Path(path)
  content = read(path)
  for name, entry in content["files"].items():
    problem = _size_problem(path / name, entry)
    if not problem and files.sha256(path / name) != entry["sha256"]:
      problem = "does not match its checksum"
    if problem:
      raise CorruptCheckpointError(
        f"the checkpoint {path} is corrupt: {name} {problem}"
      )
  return content


def is_intact(path: str | os.PathLike) -> bool:
  """Say whether a checkpoint exists and passes `verify`."""
  try:
    verify(path)
  except (FileNotFoundError, CorruptCheckpointError):
    return False
  return True


def looks_whole(path: str | os.PathLike) -> bool:
  """Say whether all files are there in full length: a quick `is_intact`."""
  path = pathlib.Path(path)
  try:
    entries = read(path)["files"]
  except (FileNotFoundError, CorruptCheckpointError):
    return False
  return not any(_size_problem(path / n, e) for n, e in entries.items())


def _size_problem(file: pathlib.Path, entry: Mapping[str, Any]) -> str | None:
  if not file.is_file():
    return "is missing"
  size = file.stat().st_size
  if size != entry["size"]:
    return f"has {size} bytes, expected {entry['size']}"
  return None


def _digest(content: Mapping[str, Any]) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
