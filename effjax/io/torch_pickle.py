"""Read what `torch.save` wrote, without torch and without running its code.

A pickle is a program that may call any function. Here it may name the classes
of storages, `OrderedDict` and the function that makes a tensor of a storage;
anything else is refused by its name. Both containers are read: the older one, a
row of pickles with the storages after them, and the zip archive that torch
writes since version 1.6.
"""

import dataclasses
import io
import os
import pathlib
import pickle
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {
  "BFloat16Storage": "bfloat16",
  "BoolStorage": "bool",
  "ByteStorage": "uint8",
  "CharStorage": "int8",
  "ComplexDoubleStorage": "complex128",
  "ComplexFloatStorage": "complex64",
  "DoubleStorage": "float64",
  "FloatStorage": "float32",
  "HalfStorage": "float16",
  "IntStorage": "int32",
  "LongStorage": "int64",
  "ShortStorage": "int16",
}
# What a damaged pickle may raise; text that is no UTF-8 is a ValueError.
_DAMAGED = (
  ArithmeticError,
  AttributeError,
  IndexError,
  KeyError,
  RuntimeError,  # such as one of too deep a recursion
  TypeError,
  ValueError,
  pickle.UnpicklingError,
)


class _RefusedError(Exception):
  """A pickle asks for something that is not read here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Storage:
  """The place of numbers that are read later."""

  key: str
  dtype: np.dtype
  size: int
  start: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tensor:
  """A view of a storage, all in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read(path: str | os.PathLike) -> Any:
  """Read a file of `torch.save`; see `parse`."""
  return parse(pathlib.Path(path).read_bytes(), str(path))


def parse(content: bytes, place: str = "the torch file") -> Any:
  """Read the bytes of a file of `torch.save`.

  Args:
    content: the bytes.
    place: where they come from, for messages.

  Returns:
    What was saved, most often the dict of a model's state: dicts, lists, tuples
    and plain values, with an array in the place of every tensor. Each array has
    the shape and dtype of its tensor and memory of its own, also where tensors
    shared theirs.

  Raises:
    ValueError: the bytes are truncated or were not written by `torch.save`,
      or name a function or class that is not read here.

  Example:
    >>> rows = (0x1950A86A20F9469CFC6C, 1001, {}, {"epoch": 3}, [])
    >>> parse(b"".join(pickle.dumps(row, 2) for row in rows))
    {'epoch': 3}
  """
  try:
    if content[:4] == b"PK\x03\x04":
      return _zipped(content)
    return _rowed(io.BytesIO(content))
  except _RefusedError as error:
    raise ValueError(
      f"{place} asks for {error}, which is refused; only tensors in dicts,"
      " lists and tuples are read, such as model.state_dict()."
    ) from error
  except (EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(
      f"{place} is truncated or was not written by torch.save: {error}."
    ) from error
  except _DAMAGED as error:
    raise ValueError(
      f"{place} was not written by torch.save: {error}."
    ) from error


class _Unpickler(pickle.Unpickler):
  """Makes placeholders of tensors and refuses other classes and functions.

  Attributes:
    storages: those that were met, by key.
  """

  def __init__(self, stream: io.BytesIO):
    super().__init__(stream, encoding="utf-8")
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    """Return what a name of the allow-list stands for."""
    if module in ("torch", "torch.cuda") and name in _STORAGES:
      return jnp.dtype(_STORAGES[name])
    if (module, name) == ("collections", "OrderedDict"):
      return OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _rebuild
    raise _RefusedError(f"{module}.{name}")

  def persistent_load(self, pid: Any) -> _Storage:
    """Return the placeholder of a storage."""
    kind, dtype, key, _, size, *view = pid
    if kind != "storage" or not isinstance(dtype, np.dtype):
      raise ValueError(f"{kind!r} is no storage")
    if not isinstance(key, str) or not _whole(size):
      raise ValueError(f"the storage {key!r} has {size!r} elements")
    storage = _Storage(key=key, dtype=dtype, size=size)
    if self.storages.setdefault(key, storage) != storage:
      raise ValueError(f"the storage {key!r} is declared in two ways")
    if not view or view[0] is None:
      return storage
    _, start, part = view[0]
    if not (_whole(start, part) and start + part <= size):
      raise ValueError(f"a view lies outside of the storage {key!r}")
    return dataclasses.replace(storage, start=start, size=part)


def _whole(*numbers: Any) -> bool:
  return all(type(number) is int and number >= 0 for number in numbers)


def _rebuild(
  storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> _Tensor:
  """Return a tensor's placeholder; gradients and hooks are passed over."""
  if not isinstance(storage, _Storage):
    raise ValueError("a tensor has no storage")
  if not _whole(offset, *shape, *strides) or len(shape) != len(strides):
    raise ValueError(
      f"a tensor has the shape {shape!r}, strides {strides!r} and offset"
      f" {offset!r}"
    )
  steps = ((n - 1) * step for n, step in zip(shape, strides, strict=True))
  if 0 not in shape and offset + sum(steps) >= storage.size:
    raise ValueError(
      f"a tensor of shape {list(shape)} lies outside of its storage of"
      f" {storage.size} elements"
    )
  return _Tensor(
    storage=storage,
    offset=offset,
    shape=tuple(shape),
    strides=tuple(strides),
  )


def _next(stream: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
  """Return what the next pickle of a stream makes, and its storages."""
  reader = _Unpickler(stream)
  try:
    return reader.load(), reader.storages
  except pickle.UnpicklingError as error:
    if "truncated" in str(error):
      raise EOFError(str(error)) from error
    raise
  except MemoryError as error:
    # A length that is damaged may be any number of 64 bits.
    raise EOFError("it asks for more bytes than it has") from error


def _rowed(stream: io.BytesIO) -> Any:
  """Read a row of pickles, then of storages: a number of elements, and they."""
  if _next(stream)[0] != _MAGIC:
    raise ValueError("it lacks the number that such a file begins with")
  protocol, system = _next(stream)[0], _next(stream)[0]
  if protocol != _PROTOCOL or not isinstance(system, dict):
    raise ValueError(f"its protocol is {protocol!r}, expected {_PROTOCOL}")
  order = "little" if system.get("little_endian", True) else "big"
  saved, storages = _next(stream)
  found = {}
  for key in _next(stream)[0]:
    storage = storages[key]
    stored = int.from_bytes(_exactly(stream, 8, key), order)
    if stored != storage.size:
      raise ValueError(
        f"the storage {key!r} has {stored} elements, expected {storage.size}"
      )
    raw = _exactly(stream, stored * storage.dtype.itemsize, key)
    found[key] = _numbers(raw, storage, order)
  return _filled(saved, found)


def _exactly(stream: io.BytesIO, size: int, key: str) -> bytes:
  data = stream.read(size)
  if len(data) < size:
    raise EOFError(
      f"the storage {key!r} needs {size} bytes, {len(data)} are left"
    )
  return data


def _zipped(content: bytes) -> Any:
  """Read an archive of a pickle and a file for every storage."""
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    names = archive.namelist()
    found = [name for name in names if name.endswith("/data.pkl")]
    if len(found) != 1:
      raise ValueError("it is an archive without one data.pkl")
    root = found[0].removesuffix("data.pkl")
    order = "little"
    if f"{root}byteorder" in names:
      order = archive.read(f"{root}byteorder").decode()
    saved, storages = _next(io.BytesIO(archive.read(found[0])))
    return _filled(
      saved,
      {
        key: _numbers(archive.read(f"{root}data/{key}"), storage, order)
        for key, storage in storages.items()
      },
    )


def _numbers(raw: bytes, storage: _Storage, order: str) -> np.ndarray:
  """Return the elements of a storage in native bytes."""
  dtype = storage.dtype
  if len(raw) != storage.size * dtype.itemsize:
    raise EOFError(
      f"the storage {storage.key!r} has {len(raw)} bytes, expected"
      f" {storage.size} elements of {dtype}"
    )
  values = np.frombuffer(raw, dtype)
  # bfloat16 is foreign to NumPy and has no other order of bytes.
  return values if order == sys.byteorder else values.byteswap()


def _filled(saved: Any, storages: Mapping[str, np.ndarray]) -> Any:
  """Return what was saved with arrays in the place of tensors."""
  # A pickle may set attributes of an OrderedDict, so those are not used.
  if isinstance(saved, dict):
    return {key: _filled(v, storages) for key, v in dict.items(saved)}
  if isinstance(saved, list | tuple):
    return type(saved)(_filled(value, storages) for value in saved)
  if isinstance(saved, _Storage):
    raise _RefusedError("a storage without a tensor")
  if not isinstance(saved, _Tensor):
    return saved
  key, start = saved.storage.key, saved.storage.start
  if key not in storages:
    raise ValueError(f"the storage {key!r} is missing")
  if 0 in saved.shape:
    return np.empty(saved.shape, saved.storage.dtype)
  flat = storages[key][start + saved.offset :]
  steps = [step * flat.itemsize for step in saved.strides]
  view = np.lib.stride_tricks.as_strided(flat, saved.shape, steps)
  return view.copy(order="C")
