"""Read GGUF files: metadata and weights, of which many are quantised.

A file is a header, entries of metadata, a record for each tensor, and their
data, little-endian throughout. Weights stay as they are stored until they are
asked for: `numpy.asarray(tensor)` gives float32. How blocks of quantised
weights are laid out is in `effjax.io.ggml_blocks`.
"""

import dataclasses
import math
import mmap
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from effjax.io import ggml_blocks

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_RANK = 8
# Type of a value: format of `struct`, or the kinds that have a length.
_NUMBERS = {
  0: "B",
  1: "b",
  2: "H",
  3: "h",
  4: "I",
  5: "i",
  6: "f",
  7: "?",
  10: "Q",
  11: "q",
  12: "d",
}
_STRING, _ARRAY = 8, 9


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Tensor:
  """A stored tensor; `numpy.asarray` makes float32 of it.

  Attributes:
    name: its name in the file.
    shape: outputs before inputs, [O, I] for a matrix.
    kind: name of its quantisation, such as "Q4_1".
    data: its bytes, uint8 [n], in the file's memory.
  """

  name: str
  shape: tuple[int, ...]
  kind: str
  data: np.ndarray

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
    """Return the values, float32 unless another dtype is asked for."""
    if copy is False:
      raise ValueError(f"the values of {self.name!r} cannot be had uncopied")
    values = ggml_blocks.KINDS[self.kind].values(self.data)
    return values.reshape(self.shape).astype(dtype or np.float32, copy=False)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class File:
  """What a GGUF file holds.

  Attributes:
    version: version of the format.
    metadata: numbers, texts, and lists of them, by key. Lists of numbers are
      arrays.
    tensors: the tensors by name, in the order of the file.
  """

  version: int
  metadata: Mapping[str, Any]
  tensors: Mapping[str, Tensor]


def read(path: str | os.PathLike) -> File:
  """Read a GGUF file, whose weights stay on the disk until they are used.

  Args:
    path: the file.

  Returns:
    What it holds; see `parse`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: see `parse`.
  """
  with open(path, "rb") as file:
    try:
      content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file cannot be mapped
      content = b""
  return parse(content, str(path))


def parse(content: Any, place: str = "the GGUF file") -> File:
  """Read the bytes of a GGUF file.

  Args:
    content: the bytes, or anything with their buffer.
    place: where they come from, for messages.

  Returns:
    What they hold; the tensors are views of `content`.

  Raises:
    ValueError: the bytes are no GGUF file of version 2 or 3, or truncated, or
      hold a quantisation that is not known here.

  Example:
    >>> parse(b"GGUF" + struct.pack("<IQQ", 3, 0, 0)).version
    3
  """
  reader = _Reader(content)
  try:
    return _file(reader)
  except EOFError as error:
    raise ValueError(f"{place} is truncated: {error}.") from error
  except (ValueError, OverflowError, RecursionError) as error:
    raise ValueError(f"{place} is not a GGUF file: {error}.") from error
  except ggml_blocks.UnknownKindError as error:
    raise ValueError(f"{place} cannot be read: {error}.") from error


def _file(reader: "_Reader") -> File:
  magic = bytes(reader.take(4, "its first word"))
  if magic != _MAGIC:
    raise ValueError(f"it begins with {magic!r}, expected {_MAGIC!r}")
  (version,) = reader.unpack("I")
  if version not in _VERSIONS:
    raise ValueError(f"its version is {version}, expected 2 or 3")
  count, entries = reader.unpack("QQ")
  metadata: dict[str, Any] = {}
  for _ in range(entries):
    key = reader.string()
    (kind,) = reader.unpack("I")
    metadata[key] = reader.value(kind, key)
  records: dict[str, tuple[tuple[int, ...], ggml_blocks.Kind, int]] = {}
  for _ in range(count):
    name, shape, kind, offset = _record(reader)
    if name in records:
      raise ValueError(f"it has two tensors {name!r}")
    records[name] = shape, kind, offset
  alignment = metadata.get("general.alignment", _ALIGNMENT)
  if not isinstance(alignment, int) or alignment < 1:
    raise ValueError(f"its alignment is {alignment!r}")
  start = -(-reader.position // alignment) * alignment
  tensors = {
    name: Tensor(
      name=name,
      shape=shape,
      kind=kind.name,
      data=reader.at(start + offset, kind.size(math.prod(shape)), name),
    )
    for name, (shape, kind, offset) in records.items()
  }
  return File(version=version, metadata=metadata, tensors=tensors)


def _record(
  reader: "_Reader",
) -> tuple[str, tuple[int, ...], ggml_blocks.Kind, int]:
  name = reader.string()
  (rank,) = reader.unpack("I")
  if rank > _MOST_RANK:
    raise ValueError(f"the tensor {name!r} has {rank} dimensions")
  # The fastest dimension comes first in the file.
  shape = tuple(reversed(reader.unpack("Q" * rank)))
  code, offset = reader.unpack("IQ")
  kind = ggml_blocks.kind(code, name)
  if shape and shape[-1] % kind.weights:
    raise ValueError(
      f"the rows of the tensor {name!r} have {shape[-1]} weights, but blocks of"
      f" {kind.name} have {kind.weights}"
    )
  return name, shape, kind, offset


class _Reader:
  """Takes values off a buffer, one after the other."""

  def __init__(self, content: Any):
    self.data = np.frombuffer(content, np.uint8)
    self.bytes = memoryview(content)
    self.position = 0

  def take(self, size: int, what: str) -> memoryview:
    start = self.position
    if size > len(self.bytes) - start:
      raise EOFError(
        f"{what} needs {size} bytes, {len(self.bytes) - start} are left"
      )
    self.position = start + size
    return self.bytes[start : start + size]

  def at(self, start: int, size: int, name: str) -> np.ndarray:
    if start + size > len(self.data):
      raise EOFError(
        f"the tensor {name!r} ends at byte {start + size}, the file at"
        f" {len(self.data)}"
      )
    return self.data[start : start + size]

  def unpack(self, form: str) -> tuple:
    form = f"<{form}"
    return struct.unpack(form, self.take(struct.calcsize(form), "a number"))

  def string(self) -> str:
    (size,) = self.unpack("Q")
    # A UnicodeDecodeError is a ValueError.
    return str(self.take(size, "a text"), "utf-8")

  def value(self, kind: int, key: str) -> Any:
    if kind == _STRING:
      return self.string()
    if kind in _NUMBERS:
      return self.unpack(_NUMBERS[kind])[0]
    if kind != _ARRAY:
      raise ValueError(f"the value of {key!r} has the type {kind}")
    kind, size = self.unpack("IQ")
    if kind in _NUMBERS:
      dtype = np.dtype(f"<{_NUMBERS[kind]}")
      return np.frombuffer(self.take(size * dtype.itemsize, key), dtype)
    if kind == _STRING:
      return self._strings(size, key)
    if kind == _ARRAY and size <= len(self.bytes) - self.position:
      return [self.value(kind, key) for _ in range(size)]
    raise ValueError(f"the list {key!r} holds values of the type {kind}")

  def _strings(self, count: int, key: str) -> list[str]:
    # There are a hundred thousand of them: nothing is called but what must be.
    position, found = self.position, []
    length = struct.Struct("<Q").unpack_from
    if 8 * count > len(self.bytes) - position:
      raise EOFError(f"the list {key!r} has {count} texts")
    try:
      for _ in range(count):
        (size,) = length(self.bytes, position)
        start = position + 8
        position = start + size
        found.append(str(self.bytes[start:position], "utf-8"))
    except struct.error:
      raise EOFError(f"the list {key!r} has {count} texts") from None
    if position > len(self.bytes):
      raise EOFError(f"the list {key!r} has {count} texts")
    self.position = position
    return found
