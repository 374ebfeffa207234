"""Read ONNX files: the weights, nodes and attributes of a stored network.

The public package `onnx` brings protobuf and 30 MB with it to do the same, and
the runtimes that bring a reader of their own are larger. Of the format only
five kinds of message matter here, so they are read off the wire directly: a
message is a sequence of (field number, wire type, value), and
https://github.com/onnx/onnx/blob/main/docs/IR.md says which field means what.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

# TensorProto.DataType: the dtype, and the field that holds the values where
# they are typed and not raw. Small types travel as int32.
_DTYPES = {
  1: ("float32", 4),
  2: ("uint8", 5),
  3: ("int8", 5),
  4: ("uint16", 5),
  5: ("int16", 5),
  6: ("int32", 5),
  7: ("int64", 7),
  9: ("bool", 5),
  10: ("float16", 5),
  11: ("float64", 10),
  12: ("uint32", 11),
  13: ("uint64", 11),
  16: ("bfloat16", 5),
}
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5

# A message taken apart: the values of every field number, in their order.
# Those of the wire types 1 and 5 (fixed width) and 2 (length) stay bytes.
_Message = dict[int, list[tuple[int, Any]]]


class _UnsupportedError(Exception):
  """A sound model holds something that is not read here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
  """One operation of a network.

  Attributes:
    op: its type, such as "Conv"; "domain::op" outside the standard domain.
    name: its name, often "".
    inputs: names of what it reads; "" stands for an absent optional input.
    outputs: names of what it computes.
    attributes: numbers, strings, arrays, graphs, or tuples of them.
  """

  op: str
  name: str
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
  """A network as a list of operations, each after those that it reads.

  Attributes:
    name: name of the graph.
    nodes: the operations.
    initialisers: the stored arrays by name, in the order of the file.
    inputs: names of the inputs, which may repeat those of initialisers.
    outputs: names of the outputs.
    opsets: version of every operator set by domain, "" for the standard one;
      empty for the graph inside an attribute.
  """

  name: str
  nodes: tuple[Node, ...]
  initialisers: Mapping[str, np.ndarray]
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  opsets: Mapping[str, int] = dataclasses.field(default_factory=dict)


def read(path: str | os.PathLike) -> Graph:
  """Read the network in an ONNX file; see `parse`."""
  return parse(pathlib.Path(path).read_bytes(), str(path))


def parse(content: bytes, place: str = "the ONNX file") -> Graph:
  """Read the network in the bytes of an ONNX file.

  Args:
    content: the bytes.
    place: where they come from, for messages.

  Returns:
    The graph of the model; its arrays are copies that may be written to.

  Raises:
    ValueError: the bytes are truncated or no ONNX model, or hold what this
      reader does not know: weights in other files, strings, sparse or
      sub-byte arrays.

  Example:
    >>> graph = parse(bytes.fromhex("0808 3a03 120161 4202 1012"))
    >>> graph.name, graph.opsets, len(graph.nodes)
    ('a', {'': 18}, 0)
  """
  try:
    model = _message(memoryview(content))
    if not {1, 7, 8} <= model.keys():
      raise ValueError("it lacks a version, a graph or an operator set")
    opsets = {}
    for entry in map(_message, _all(model, 8)):
      opsets[_text(entry, 1)] = _integer(entry, 2)
    return dataclasses.replace(
      _graph(_message(_all(model, 7)[-1])), opsets=opsets
    )
  except EOFError as error:
    raise ValueError(
      f"{place} is truncated or no ONNX model: {error}."
    ) from error
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{place} is not an ONNX model: {error}.") from error
  except _UnsupportedError as error:
    raise ValueError(f"{place} cannot be read: {error}.") from error


def _varint(data: memoryview, start: int) -> tuple[int, int]:
  """Return an unsigned number of seven bits a byte, and where it ends."""
  value = 0
  for place in range(10):
    if start + place >= len(data):
      raise EOFError("it ends inside a number")
    byte = data[start + place]
    value |= (byte & 0x7F) << 7 * place
    if byte < 0x80:
      return value, start + place + 1
  raise ValueError("a number has more than ten bytes")


def _message(data: memoryview) -> _Message:
  """Take a message apart."""
  found: _Message = {}
  position = 0
  while position < len(data):
    tag, position = _varint(data, position)
    field, wire = tag >> 3, tag & 7
    if field == 0 or wire not in (_VARINT, _EIGHT, _BYTES, _FOUR):
      raise ValueError(f"field {field} has the wire type {wire}")
    if wire == _VARINT:
      value, position = _varint(data, position)
    else:
      size = {_EIGHT: 8, _FOUR: 4}.get(wire, 0)
      if wire == _BYTES:
        size, position = _varint(data, position)
      value = data[position : position + size]
      if len(value) < size:
        raise EOFError(
          f"field {field} needs {size} bytes, {len(value)} are left"
        )
      position += size
    found.setdefault(field, []).append((wire, value))
  return found


def _all(message: _Message, field: int) -> list[memoryview]:
  """Return the strings or messages of a field."""
  values = message.get(field, [])
  if any(wire != _BYTES for wire, _ in values):
    raise ValueError(f"field {field} is a number where a text should be")
  return [value for _, value in values]


def _texts(message: _Message, field: int) -> tuple[str, ...]:
  # A UnicodeDecodeError is a ValueError.
  return tuple(str(value, "utf-8") for value in _all(message, field))


def _text(message: _Message, field: int) -> str:
  return (*("",), *_texts(message, field))[-1]


def _integers(message: _Message, field: int) -> list[int]:
  """Return the signed 64-bit numbers of a field, packed or one by one."""
  values = []
  for wire, value in message.get(field, []):
    if wire == _VARINT:
      values.append(value)
    elif wire == _BYTES:
      position = 0
      while position < len(value):
        number, position = _varint(value, position)
        values.append(number)
    else:
      raise ValueError(f"field {field} is no integer")
  # Two's complement in 64 bits; what lies beyond is cut off.
  return [(v + 2**63) % 2**64 - 2**63 for v in values]


def _integer(message: _Message, field: int) -> int:
  return (*(0,), *_integers(message, field))[-1]


def _floats(message: _Message, field: int, code: str = "<f4") -> np.ndarray:
  """Return the numbers of fixed width of a field, packed or one by one."""
  values = [value for wire, value in message.get(field, []) if wire != _VARINT]
  whole = b"".join(values)
  if len(values) < len(message.get(field, [])) or len(whole) % int(code[2]):
    raise ValueError(f"field {field} is no list of floating-point numbers")
  return np.frombuffer(whole, code)


def _graph(message: _Message) -> Graph:
  if 15 in message:
    raise _UnsupportedError("it holds sparse arrays, only dense ones are read")
  initialisers: dict[str, np.ndarray] = {}
  for data in _all(message, 5):
    tensor = _message(data)
    name = _text(tensor, 8)
    if name in initialisers:
      raise ValueError(f"there are two arrays {name!r}")
    initialisers[name] = _tensor(tensor, name)
  named = lambda field: tuple(
    _text(_message(data), 1) for data in _all(message, field)
  )
  return Graph(
    name=_text(message, 2),
    nodes=tuple(_node(_message(data)) for data in _all(message, 1)),
    initialisers=initialisers,
    inputs=named(11),
    outputs=named(12),
  )


def _node(message: _Message) -> Node:
  domain, op = _text(message, 7), _text(message, 4)
  attributes = {}
  for data in _all(message, 5):
    attribute = _message(data)
    attributes[_text(attribute, 1)] = _attribute(attribute)
  return Node(
    op=op if domain in ("", "ai.onnx") else f"{domain}::{op}",
    name=_text(message, 3),
    inputs=_texts(message, 1),
    outputs=_texts(message, 2),
    attributes=attributes,
  )


def _strings(message: _Message, field: int) -> tuple[str | bytes, ...]:
  """Return strings; bytes where they are no text."""
  values = [bytes(value) for value in _all(message, field)]
  try:
    return tuple(value.decode() for value in values)
  except UnicodeDecodeError:
    return tuple(values)


def _tensors(message: _Message, field: int) -> tuple[np.ndarray, ...]:
  found = [_message(data) for data in _all(message, field)]
  return tuple(_tensor(tensor, _text(tensor, 8)) for tensor in found)


def _graphs(message: _Message, field: int) -> tuple[Graph, ...]:
  return tuple(_graph(_message(data)) for data in _all(message, field))


# AttributeProto.AttributeType: the field of the value, its reader, the value
# of an absent one (None: an error), and whether there are several.
_ATTRIBUTES: dict[int, tuple[int, Callable[..., Any], Any, bool]] = {
  1: (2, lambda m, f: _floats(m, f).tolist(), 0.0, False),
  2: (3, _integers, 0, False),
  3: (4, _strings, "", False),
  4: (5, _tensors, None, False),
  5: (6, _graphs, None, False),
  6: (7, lambda m, f: _floats(m, f).tolist(), None, True),
  7: (8, _integers, None, True),
  8: (9, _strings, None, True),
  9: (10, _tensors, None, True),
  10: (11, _graphs, None, True),
}


def _attribute(message: _Message) -> Any:
  name, kind = _text(message, 1), _integer(message, 20)
  if kind == 0:  # files of the first versions leave it to the field that is set
    kind = next((k for k, v in _ATTRIBUTES.items() if v[0] in message), 0)
  if kind not in _ATTRIBUTES:
    raise _UnsupportedError(f"the attribute {name!r} is of the type {kind}")
  field, reader, absent, several = _ATTRIBUTES[kind]
  values = tuple(reader(message, field))
  if several:
    return values
  if not values and absent is None:
    raise ValueError(f"the attribute {name!r} has no value")
  return values[-1] if values else absent


def _tensor(message: _Message, name: str) -> np.ndarray:
  if _integer(message, 14) or 13 in message:
    raise _UnsupportedError(
      f"the values of {name!r} lie in another file; store them inside the model"
    )
  kind = _integer(message, 2)
  if kind not in _DTYPES:
    raise _UnsupportedError(
      f"{name!r} has the data type {kind}, known are"
      f" {', '.join(map(str, _DTYPES))}"
    )
  dtype, field = jnp.dtype(_DTYPES[kind][0]), _DTYPES[kind][1]
  shape = tuple(_integers(message, 1))
  if 9 in message:
    raw = _all(message, 9)[-1]
  elif field in (4, 10):
    raw = _floats(message, field, dtype.str).tobytes()
  else:
    raw = _narrow(_integers(message, field), dtype)
  expected = math.prod(shape) * dtype.itemsize
  if min(shape, default=0) < 0 or len(raw) != expected:
    raise ValueError(
      f"{name!r} has {len(raw)} bytes, expected {expected} for shape"
      f" {list(shape)} of {dtype}"
    )
  values = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
  return values.astype(dtype)  # native, and a copy


def _narrow(numbers: list[int], dtype: np.dtype) -> bytes:
  """Return the low bytes of every number, of which a small type consists."""
  wide = np.array(numbers, "<i8").view(np.uint8).reshape(-1, 8)
  return wide[:, : dtype.itemsize].tobytes()
