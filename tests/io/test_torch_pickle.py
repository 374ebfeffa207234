"""Files of torch written here, opcode by opcode, against what is read."""

import contextlib
import io
import pickle
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from effjax.io import torch_pickle

TYPES = {
  "float32": "FloatStorage",
  "float64": "DoubleStorage",
  "float16": "HalfStorage",
  "bfloat16": "BFloat16Storage",
  "int64": "LongStorage",
  "int32": "IntStorage",
  "int16": "ShortStorage",
  "int8": "CharStorage",
  "uint8": "ByteStorage",
  "bool": "BoolStorage",
  "complex64": "ComplexFloatStorage",
  "complex128": "ComplexDoubleStorage",
}


def plain(value):
  """Return the opcodes that leave a value on the stack."""
  return pickle.dumps(value, 2)[2:-1]


def named(module, name):
  return f"c{module}\n{name}\n".encode()


def group(*values):
  return b"(" + b"".join(values) + b"t"


def storage(key, dtype, size, view=None, module="torch", kind="storage"):
  cls = named(module, TYPES.get(dtype, dtype))
  rest = (plain(v) for v in (key, "cpu", size, view))
  return group(plain(kind), cls, *rest) + b"Q"


def tensor(place, shape, strides=None, offset=0):
  if strides is None:
    sizes = shape[1:] + (1,) * bool(shape)
    strides = tuple(np.cumprod(sizes[::-1])[::-1].tolist())
  rest = (plain(v) for v in (offset, shape, strides, False))
  hooks = named("collections", "OrderedDict") + b")R"
  call = named("torch._utils", "_rebuild_tensor_v2")
  return call + group(place, *rest, hooks) + b"R"


def ordered(**values):
  """Return the opcodes of an OrderedDict with an attribute, as of a state."""
  items = b"".join(plain(key) + value for key, value in values.items())
  made = named("collections", "OrderedDict") + b")R(" + items + b"u"
  return made + plain({"_metadata": {"version": 1}}) + b"b"


def whole(opcodes):
  return b"\x80\x02" + opcodes + b"."


def raw(array, order="little"):
  array = np.asarray(array)
  return (array if order == sys.byteorder else array.byteswap()).tobytes()


def rows(saved, storages, *, order="little", system=None, protocol=1001):
  """Return a file of the older container."""
  system = {"little_endian": order == "little"} if system is None else system
  pickles = (0x1950A86A20F9469CFC6C, protocol, system)
  content = b"".join(pickle.dumps(value, 2) for value in pickles)
  content += whole(saved) + pickle.dumps(list(storages), 2)
  for array in storages.values():
    array = np.asarray(array)
    content += array.size.to_bytes(8, order) + raw(array, order)
  return content


def archive(saved, storages, *, order=None, name="data.pkl"):
  """Return a file of the newer container."""
  stream, root = io.BytesIO(), "model"
  with zipfile.ZipFile(stream, "w") as file:
    file.writestr(f"{root}/{name}", whole(saved))
    if order is not None:
      file.writestr(f"{root}/byteorder", order)
    for key, array in storages.items():
      content = raw(np.asarray(array), order or "little")
      file.writestr(f"{root}/data/{key}", content)
    file.writestr(f"{root}/version", "3\n")
  return stream.getvalue()


NUMBERS = np.arange(24, dtype=np.float32)
CONTAINERS = pytest.mark.parametrize("container", [rows, archive])


@CONTAINERS
def test_state_of_a_model(container):
  bias = np.array([1.5, -2.0])
  content = container(
    ordered(
      weight=tensor(storage("10", "float32", 24), (2, 3, 4)),
      bias=tensor(storage("9", "float64", 2), (2,)),
      count=tensor(storage("7", "int64", 1), ()),
      empty=tensor(storage("8", "int8", 0), (3, 0)),
    ),
    {
      "10": NUMBERS,
      "7": np.int64([-5]),
      "8": np.zeros(0, np.int8),
      "9": bias,
    },
  )
  state = torch_pickle.parse(content)
  assert type(state) is dict
  assert list(state) == ["weight", "bias", "count", "empty"]
  np.testing.assert_array_equal(state["weight"], NUMBERS.reshape(2, 3, 4))
  np.testing.assert_array_equal(state["bias"], bias)
  assert state["count"].shape == ()
  assert state["count"] == -5
  assert state["empty"].shape == (3, 0)
  dtypes = [str(array.dtype) for array in state.values()]
  assert dtypes == ["float32", "float64", "int64", "int8"]


@CONTAINERS
def test_views_of_one_storage_become_arrays_of_their_own(container):
  place = storage("a", "float32", 24)
  square = NUMBERS.reshape(4, 6)
  views = {
    "transposed": (tensor(place, (6, 4), (1, 6)), square.T),
    "row": (tensor(place, (6,), (1,), 12), square[2]),
    "column": (tensor(place, (4,), (6,), 5), square[:, 5]),
    "every_other": (tensor(place, (2, 3), (12, 2), 1), square[::2, 1::2]),
    "expanded": (tensor(place, (3, 2), (0, 1), 22), [[22, 23]] * 3),
    "last": (tensor(place, (), (), 23), 23),
    "nothing": (tensor(place, (0, 5), (5, 1), 24), np.zeros((0, 5))),
  }
  saved = ordered(**{name: code for name, (code, _) in views.items()})
  state = torch_pickle.parse(container(saved, {"a": NUMBERS}))
  for name, (_, expected) in views.items():
    np.testing.assert_array_equal(state[name], expected)
    assert state[name].dtype == np.float32
    assert state[name].flags.c_contiguous
  state["transposed"][:] = -1  # the bytes were read-only, the array is not
  np.testing.assert_array_equal(state["row"], square[2])


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("dtype", TYPES)
@CONTAINERS
def test_types_and_orders_of_bytes(container, dtype, order):
  values = np.array([0, 1, 3, 100]).astype(jnp.dtype(dtype))
  saved = tensor(storage("a", dtype, 4), (4,))
  found = torch_pickle.parse(container(saved, {"a": values}, order=order))
  assert found.dtype == values.dtype
  assert found.dtype.isnative
  np.testing.assert_array_equal(found, values)


def test_views_of_storages_and_other_devices():
  view = storage("a", "float32", 24, ("v", 6, 12))
  cuda = storage("b", "float16", 1, module="torch.cuda")
  saved = group(tensor(view, (2, 2), (6, 1), 4), tensor(cuda, (1,)))
  contents = {"a": NUMBERS, "b": np.float16([2])}
  first, second = torch_pickle.parse(rows(saved, contents))
  np.testing.assert_array_equal(first, [[10, 11], [16, 17]])
  np.testing.assert_array_equal(second, np.float16([2]))
  outside = tensor(view, (2, 2), (6, 1), 5)
  with pytest.raises(ValueError, match=r"shape \[2, 2\] lies outside of its"):
    torch_pickle.parse(rows(outside, contents))


@CONTAINERS
def test_containers_around_tensors(container):
  one = tensor(storage("a", "float32", 24), (1,))
  saved = b"}(" + plain("model") + ordered(w=one) + plain("rest")
  saved += b"](" + one + group(plain(3), plain("text"), plain(None)) + b"eu"
  state = torch_pickle.parse(container(saved, {"a": NUMBERS}))
  assert list(state) == ["model", "rest"]
  assert type(state["model"]) is dict
  assert state["rest"][1] == (3, "text", None)
  assert state["rest"][0].tolist() == [0]


@pytest.mark.parametrize(
  ("module", "name"),
  [
    ("os", "system"),
    ("builtins", "eval"),
    ("torch", "FloatTensor"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "deque"),
    ("torch.nn.modules.linear", "Linear"),
  ],
)
@CONTAINERS
def test_other_names_are_refused(container, module, name):
  code = named(module, name) + group(plain("touch refused")) + b"R"
  with pytest.raises(ValueError, match=f"asks for {module}.{name}, which is"):
    torch_pickle.parse(container(code, {}))


def test_names_are_refused_wherever_they_stand():
  """The header is made of pickles as well."""
  content = whole(named("os", "getcwd") + b")R")
  with pytest.raises(ValueError, match=r"somewhere asks for os\.getcwd"):
    torch_pickle.parse(content, "somewhere")
  with pytest.raises(ValueError, match="asks for a storage without a tensor"):
    torch_pickle.parse(rows(storage("a", "float32", 24), {"a": NUMBERS}))


FULL = storage("a", "float32", 24)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (pickle.dumps({"a": 1}, 2), "lacks the number that such a file begins"),
    (rows(plain(0), {}, protocol=1), "its protocol is 1, expected 1001"),
    (rows(plain(0), {}, system=3), "its protocol is 1001"),
    (rows(tensor(FULL, (25,)), {"a": NUMBERS}), r"\[25\] lies outside"),
    (rows(tensor(FULL, (2,), (24,)), {"a": NUMBERS}), "lies outside"),
    (rows(tensor(FULL, (2,), (-1,)), {"a": NUMBERS}), "strides"),
    (rows(tensor(FULL, (2, 2), (1,)), {"a": NUMBERS}), "strides"),
    (rows(tensor(FULL, (-1,), (1,)), {"a": NUMBERS}), "shape"),
    (rows(tensor(FULL, (1,), (1,), -1), {"a": NUMBERS}), "offset"),
    (rows(tensor(plain(1), (1,), (1,)), {}), "has no storage"),
    (rows(tensor(FULL, (1,)), {"a": NUMBERS[:5]}), "5 elements, expected 24"),
    (rows(tensor(FULL, (1,)), {}), "the storage 'a' is missing"),
    (rows(plain(0), {"b": NUMBERS}), "'b'"),
    (
      rows(group(tensor(FULL, (1,)), storage("a", "int8", 24)), {}),
      "'a' is declared in two ways",
    ),
    (rows(storage("a", "int8", 2, ("v", 1, 2)), {}), "a view lies outside"),
    (rows(storage("a", "int8", 2, kind="module"), {}), "is no storage"),
    (rows(plain(3) + b"Q", {}), "was not written by torch.save"),
    (archive(tensor(FULL, (1,)), {}), "no item named 'model/data/a'"),
    (archive(tensor(FULL, (1,)), {"a": NUMBERS[:5]}), "has 20 bytes, expected"),
    (archive(plain(0), {}, name="code.py"), "without one data.pkl"),
    (b"", "truncated"),
    (b"PK\x03\x04", "truncated"),
    (b"\x80\x02](h\x00e" * 3, "torch.save"),
  ],
)
def test_damaged_files_are_named(content, message):
  with pytest.raises(ValueError, match=message) as error:
    torch_pickle.parse(content, "weights.pth")
  assert str(error.value).startswith("weights.pth ")


@CONTAINERS
def test_every_truncation_is_noticed(container):
  saved = ordered(w=tensor(storage("a", "float32", 3), (3,)))
  content = container(saved, {"a": NUMBERS[:3]})
  for size in range(len(content)):
    with pytest.raises(ValueError, match="truncated or was not"):
      torch_pickle.parse(content[:size])


@given(
  st.sampled_from([rows, archive]),
  st.integers(0, 800),
  st.binary(min_size=1, max_size=3),
)
@example(rows, 1, b"\x00\x8e")  # asks for a text of 2^63 bytes
def test_changed_bytes_are_read_or_refused(container, start, change):
  saved = ordered(w=tensor(storage("a", "float32", 3), (3,)))
  content = bytearray(container(saved, {"a": NUMBERS[:3]}))
  content[start : start + len(change)] = change
  with contextlib.suppress(ValueError):
    torch_pickle.parse(bytes(content))


def test_read_names_the_path(tmp_path):
  path = tmp_path / "weights.pth"
  path.write_bytes(rows(tensor(FULL, (24,)), {"a": NUMBERS}))
  np.testing.assert_array_equal(torch_pickle.read(path), NUMBERS)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match=r"weights\.pth is truncated"):
    torch_pickle.read(path)
