"""ONNX files written here, field by field, against what the reader finds."""

import contextlib
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effjax.io import onnx

CODES = {
  "float32": 1,
  "uint8": 2,
  "int8": 3,
  "uint16": 4,
  "int16": 5,
  "int32": 6,
  "int64": 7,
  "bool": 9,
  "float16": 10,
  "float64": 11,
  "uint32": 12,
  "uint64": 13,
  "bfloat16": 16,
}


def varint(value):
  value %= 2**64  # negative numbers are two's complement
  found = b""
  while value >= 128:
    found += bytes([value % 128 + 128])
    value //= 128
  return found + bytes([value])


def number(field, value):
  return varint(field << 3) + varint(value)


def packed(field, values):
  return text(field, b"".join(map(varint, values)))


def text(field, value):
  value = value.encode() if isinstance(value, str) else value
  return varint(field << 3 | 2) + varint(len(value)) + value


def fixed(field, value):
  return varint(field << 3 | 5) + struct.pack("<f", value)


def tensor(name, array, *extra, raw=True, dims=None):
  array = np.asarray(array)
  body = packed(1, array.shape if dims is None else dims)
  body += number(2, CODES[str(array.dtype)]) + text(8, name)
  if raw:
    body += text(9, array.astype(array.dtype.newbyteorder("<")).tobytes())
  return body + b"".join(extra)


def attribute(name, kind, *values):
  return text(5, text(1, name) + number(20, kind) + b"".join(values))


def model(*fields, opset=18):
  entry = text(8, text(1, "") + number(2, opset))
  return number(1, 10) + text(2, "test") + text(7, b"".join(fields)) + entry


def only(*fields):
  """Return the single array of a model."""
  (array,) = onnx.parse(model(*fields)).initialisers.values()
  return array


def test_graph_of_nodes_and_arrays():
  node = text(1, "x") + text(1, "") + text(1, "w") + text(2, "y")
  node += text(3, "first") + text(4, "Conv")
  foreign = text(4, "Fused") + text(7, "com.example") + text(2, "z")
  weights = np.arange(6, dtype=np.float32).reshape(2, 3)
  graph = onnx.parse(
    model(
      text(2, "net"),
      text(1, node),
      text(1, foreign),
      text(5, tensor("w", weights)),
      text(11, text(1, "x")),
      text(12, text(1, "z")),
      text(10, "documentation is passed over"),
    )
  )
  assert graph.name == "net"
  assert graph.opsets == {"": 18}
  assert [node.op for node in graph.nodes] == ["Conv", "com.example::Fused"]
  assert graph.nodes[0].name == "first"
  assert graph.nodes[0].inputs == ("x", "", "w")
  assert graph.nodes[0].outputs == ("y",)
  assert (graph.inputs, graph.outputs) == (("x",), ("z",))
  np.testing.assert_array_equal(graph.initialisers["w"], weights)
  graph.initialisers["w"][0, 0] = 7  # a copy of its own


def test_attributes():
  inner = text(2, "inner") + text(5, tensor("v", np.float32([1])))
  node = text(4, "All") + b"".join(
    [
      attribute("f", 1, fixed(2, 0.5)),
      attribute("i", 2, number(3, -3)),
      attribute("s", 3, text(4, "constant")),
      attribute("bytes", 3, text(4, b"\xff\x00")),
      attribute("t", 4, text(5, tensor("t", np.int64([4, 5])))),
      attribute("g", 5, text(6, inner)),
      attribute("floats", 6, text(7, struct.pack("<2f", 1, 2)), fixed(7, 3)),
      attribute("ints", 7, packed(8, [1, -1]), number(8, 2)),
      attribute("strings", 8, text(9, "a"), text(9, "b")),
      attribute("none", 7),
      attribute("zero", 2),
      # Without a type, as the first versions wrote it.
      text(5, text(1, "old") + packed(8, [6, 7])),
    ]
  )
  (read,) = onnx.parse(model(text(1, node))).nodes
  found = dict(read.attributes)
  assert found.pop("t").tolist() == [4, 5]
  graph = found.pop("g")
  assert (graph.name, list(graph.initialisers)) == ("inner", ["v"])
  assert found == {
    "f": 0.5,
    "i": -3,
    "s": "constant",
    "bytes": b"\xff\x00",
    "floats": (1.0, 2.0, 3.0),
    "ints": (1, -1, 2),
    "strings": ("a", "b"),
    "none": (),
    "zero": 0,
    "old": (6, 7),
  }


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("shape", [(), (0, 2), (2, 3)])
def test_raw_arrays(name, shape):
  values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
  values = values.astype(jnp.dtype(name))
  found = only(text(5, tensor("w", values)))
  assert found.dtype == jnp.dtype(name)
  np.testing.assert_array_equal(found, values)


def test_typed_arrays():
  """Every type in the field that the format gives it."""
  floats = struct.pack("<3f", 1.5, -2, 3)
  doubles = struct.pack("<3d", 1.5, -2, 3)
  low = [1, -2, 3]
  half = np.float16([1.5, -2, 3]).view(np.uint16).tolist()
  brain = np.array([1.5, -2, 3], jnp.bfloat16).view(np.uint16).tolist()
  cases = {
    "float32": (text(4, floats), [1.5, -2, 3]),
    "float64": (text(10, doubles), [1.5, -2, 3]),
    "float16": (packed(5, half), [1.5, -2, 3]),
    "bfloat16": (packed(5, brain), [1.5, -2, 3]),
    "int8": (packed(5, low), low),
    "int16": (packed(5, low), low),
    "int32": (packed(5, low), low),
    "int64": (packed(7, [1, -(2**63), 3]), [1, -(2**63), 3]),
    "uint8": (packed(5, [1, 255, 3]), [1, 255, 3]),
    "bool": (packed(5, [1, 0, 1]), [True, False, True]),
    "uint32": (packed(11, [1, 2**32 - 1, 3]), [1, 2**32 - 1, 3]),
    "uint64": (packed(11, [1, 2**64 - 1, 3]), [1, 2**64 - 1, 3]),
  }
  for name, (field, expected) in cases.items():
    like = np.zeros(3, jnp.dtype(name))
    found = only(text(5, tensor("w", like, field, raw=False)))
    assert found.dtype == like.dtype
    assert found.tolist() == expected, name
  unpacked = b"".join(number(7, value) for value in (5, -6))
  found = only(text(5, tensor("w", np.zeros(2, np.int64), unpacked, raw=False)))
  assert found.tolist() == [5, -6]
  with pytest.raises(ValueError, match="'w' has 8 bytes, expected 12"):
    only(
      text(5, tensor("w", np.zeros(3, np.float32), text(4, floats[:8]), raw=0))
    )


@pytest.mark.parametrize(
  ("array", "message"),
  [
    (tensor("w", np.zeros(3, np.float32), dims=(2, 2)), r"12 bytes.*\[2, 2\]"),
    (tensor("w", np.zeros(3, np.float32), dims=(-1, -3)), r"\[-1, -3\]"),
    (tensor("w", np.zeros(3, np.float32), number(14, 1)), "in another file"),
    (packed(1, [1]) + number(2, 8) + text(8, "w"), "'w' has the data type 8"),
    (packed(1, [1]) + text(8, "w"), "'w' has the data type 0"),
  ],
)
def test_arrays_that_cannot_be_read_are_named(array, message):
  with pytest.raises(ValueError, match=message) as error:
    onnx.parse(model(text(5, array)), "models/a.onnx")
  assert "models/a.onnx" in str(error.value)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "lacks a version"),
    (b"\x89PNG\r\n\x1a\n", "truncated or no ONNX model"),
    (b"GIF89a", "wire type"),
    (b"PK\x03\x04 a zip", "not an ONNX model|truncated"),
    (number(1, 10), "lacks a version"),
    (number(1, 10) + number(7, 3) + text(8, b""), "field 7 is a number"),
    (b"\xff" * 11, "more than ten bytes"),
    (model(text(15, b"")), "sparse"),
    (model(text(5, tensor("w", [1.0])) * 2), "two arrays 'w'"),
    (model(text(2, b"\xff\xfe")), "utf-8"),
    (model(text(1, attribute("t", 4))), "'t' has no value"),
    (model(text(1, attribute("s", 12))), "'s' is of the type 12"),
  ],
)
def test_foreign_files_are_named(content, message):
  with pytest.raises(ValueError, match=message) as error:
    onnx.parse(content, "some/file")
  assert str(error.value).startswith("some/file")


def test_every_truncation_is_noticed(tmp_path):
  """The last field is one that must be there: no prefix is a model."""
  whole = model(text(2, "net"), text(5, tensor("w", np.ones(5))))
  assert len(onnx.parse(whole).initialisers) == 1
  for size in range(len(whole)):
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r"cut\.onnx"):
      onnx.read(path)


@given(st.binary(max_size=60), st.integers(0, 80))
def test_any_bytes_give_a_graph_or_a_value_error(noise, place):
  whole = model(text(2, "net"), text(5, tensor("w", np.ones(3, np.float32))))
  content = whole[:place] + noise + whole[place + len(noise) :]
  for attempt in (noise, content):
    with contextlib.suppress(ValueError):
      assert isinstance(onnx.parse(attempt), onnx.Graph)
