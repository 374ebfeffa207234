"""Writing that is atomic, and failures of the disk in one sentence."""

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

_CAUSES = {
  errno.ENOSPC: "no space is left on the disk; free some, then run the same "
  "command again",
  errno.EDQUOT: "the disk quota is used up; free some, then run the same "
  "command again",
  errno.EROFS: "the file system is read-only",
  errno.EACCES: "permission is denied",
  errno.EPERM: "the operation is not permitted",
  errno.ENOTDIR: "a part of the path is a file, not a directory",
  errno.EEXIST: "there is a file of that name",
}


@contextlib.contextmanager
def explained(action: str, path: str | os.PathLike) -> Iterator[None]:
  """Turns a failure of the disk inside the block into one plain sentence.

  Libraries that write through C++ report a full disk as a ValueError or a
  RuntimeError; that is recognised by its text and becomes an OSError too.

  Args:
    action: what is being done, e.g. "save the checkpoint".
    path: the file or directory concerned, named in the message.

  Raises:
    OSError: (PermissionError where that is the cause) with `errno` set.
  """
  try:
    yield
  except Exception as error:
    number = _errno(error)
    if number not in _CAUSES:
      raise
    kind = PermissionError if number in (errno.EACCES, errno.EPERM) else OSError
    plain = kind(f"cannot {action} at {path}: {_CAUSES[number]}")
    plain.errno = number
    raise plain from error


def _errno(error: Exception) -> int | None:
  if isinstance(error, OSError):
    return error.errno
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
    if os.strerror(number).lower() in str(error).lower():
      return number
  return None


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file under a temporary name, then renames it.

  A reader, or a run that was killed, sees the old content or the new one.

  Args:
    path: the file to write; its directory must exist.
    text: the whole content.

  Raises:
    OSError: when the disk refuses, naming the path and the cause.
  """
  path = pathlib.Path(path)
  scratch = path.with_name(f".{path.name}.tmp")
  with explained(f"write {path.name}", path):
    with open(scratch, "w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(scratch, path)


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes a readable JSON file atomically; keys keep their order."""
  write_text(path, json.dumps(content, indent=2) + "\n")


def without_nan(content: Any) -> Any:
  """Returns what JSON can hold: undefined and infinite numbers become null.

  Args:
    content: dicts, lists and tuples of plain values.

  Returns:
    The same, of dicts and lists.

  >>> without_nan({"a": (1.0, float("nan"))})
  {'a': [1.0, None]}
  """
  if isinstance(content, dict):
    return {key: without_nan(value) for key, value in content.items()}
  if isinstance(content, list | tuple):
    return [without_nan(value) for value in content]
  undefined = isinstance(content, float) and not math.isfinite(content)
  return None if undefined else content


def sha256(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file's bytes in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
