"""GGUF files written here, and blocks taken apart weight by weight."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effjax.io import ggml_blocks, gguf
from tests.io import gguf_files as written

GENERATOR = np.random.default_rng(0)
# Where the float16 scales of a block stand.
SCALES = {
  "Q4_0": (0,),
  "Q4_1": (0, 2),
  "Q8_0": (0,),
  "Q4_K": (0, 2),
  "Q6_K": (208,),
}


def blocks(kind, count):
  """Return random bytes of blocks with finite scales."""
  found = GENERATOR.integers(0, 256, (count, ggml_blocks.KINDS[kind].bytes))
  found = found.astype(np.uint8)
  for start in SCALES[kind]:
    scale = GENERATOR.normal(size=(count, 1)).astype("<f2")
    found[:, start : start + 2] = scale.view(np.uint8)
  return found


def half(block, start):
  return float(np.frombuffer(block[start : start + 2].tobytes(), "<f2")[0])


def signed(byte):
  return int(byte) - 256 * (byte > 127)


def brute(kind, block):
  """Return the weights of one block in float64, one after the other."""
  b = [int(x) for x in block]
  if kind in ("Q4_0", "Q4_1"):
    start = 2 if kind == "Q4_0" else 4
    codes = [b[start + j % 16] >> 4 * (j // 16) & 15 for j in range(32)]
    if kind == "Q4_0":
      return [half(block, 0) * (q - 8) for q in codes]
    return [half(block, 0) * q + half(block, 2) for q in codes]
  if kind == "Q8_0":
    return [half(block, 0) * signed(x) for x in b[2:]]
  values = []
  if kind == "Q4_K":
    for j in range(8):
      if j < 4:
        scale, minimum = b[4 + j] & 63, b[8 + j] & 63
      else:
        scale = (b[8 + j] & 15) | (b[j] >> 6 << 4)
        minimum = (b[8 + j] >> 4) | (b[4 + j] >> 6 << 4)
      for i in range(32):
        code = b[16 + 32 * (j // 2) + i] >> 4 * (j % 2) & 15
        values.append(half(block, 0) * scale * code - half(block, 2) * minimum)
    return values
  for n in range(256):
    part, i = divmod(n % 128, 32)
    low = b[64 * (n // 128) + 32 * (part % 2) + i] >> 4 * (part // 2) & 15
    high = b[128 + 32 * (n // 128) + i] >> 2 * part & 3
    scale = signed(b[192 + n // 16])
    values.append(half(block, 208) * scale * ((low | high << 4) - 32))
  return values


@pytest.mark.parametrize("kind", SCALES)
def test_blocks_weight_by_weight(kind):
  found = blocks(kind, 6)
  rows = 2
  columns = 3 * ggml_blocks.KINDS[kind].weights
  content = written.file({}, {"w": ((rows, columns), kind, found.tobytes())})
  values = np.asarray(gguf.parse(content).tensors["w"])
  assert values.dtype == np.float32
  assert values.shape == (rows, columns)
  expected = np.array([brute(kind, block) for block in found])
  largest = np.abs(expected).max()
  np.testing.assert_allclose(
    values.reshape(expected.shape), expected, rtol=1e-6, atol=1e-6 * largest
  )


def test_many_blocks_are_taken_in_pieces():
  found = blocks("Q4_1", 3000)
  kind = ggml_blocks.KINDS["Q4_1"]
  whole = kind.values(found.reshape(-1)).reshape(-1, 32)
  np.testing.assert_array_equal(whole[-1:], kind.decode(found[-1:]))
  np.testing.assert_array_equal(whole, kind.decode(found))


def test_plain_tensors_keep_their_shape():
  values = GENERATOR.normal(size=(2, 3)).astype(np.float32)
  short = (values.view(np.uint32) >> 16).astype("<u2")
  tensors = gguf.parse(
    written.file(
      {},
      {
        "a": written.floats(values),
        "b": ((3, 2), "F16", values.astype("<f2").tobytes()),
        "c": ((6,), "BF16", short.tobytes()),
        "d": written.floats(7.0),
      },
    )
  ).tensors
  assert list(tensors) == ["a", "b", "c", "d"]
  assert [t.kind for t in tensors.values()] == ["F32", "F16", "BF16", "F32"]
  np.testing.assert_array_equal(np.asarray(tensors["a"]), values)
  np.testing.assert_array_equal(
    np.asarray(tensors["b"]).reshape(-1), values.astype(np.float16).reshape(-1)
  )
  cut = (short.astype(np.uint32) << 16).view(np.float32)
  np.testing.assert_array_equal(np.asarray(tensors["c"]), cut.reshape(-1))
  assert np.asarray(tensors["d"]).shape == ()
  assert np.asarray(tensors["a"], np.float64).dtype == np.float64
  with pytest.raises(ValueError, match="'a' cannot be had uncopied"):
    np.asarray(tensors["a"], copy=False)


def test_metadata_of_every_type():
  entries = {
    kind: written.number(kind, value)
    for kind, value in (
      ("u8", 255),
      ("i8", -1),
      ("u16", 65535),
      ("i16", -2),
      ("u32", 2**32 - 1),
      ("i32", -3),
      ("f32", 0.5),
      ("bool", True),
      ("u64", 2**64 - 1),
      ("i64", -(2**63)),
      ("f64", 0.1),
    )
  }
  entries["text"] = written.string("naïve\n")
  entries["texts"] = written.strings(["a", "", "ü"])
  entries["numbers"] = written.numbers("i32", [1, -2])
  entries["flags"] = written.numbers("bool", [True, False])
  nested = struct.pack("<IIQ", 9, 9, 2)
  nested += written.strings(["x"])[4:] + written.numbers("u8", [7])[4:]
  entries["nested"] = nested
  found = dict(gguf.parse(written.file(entries)).metadata)
  assert found.pop("numbers").tolist() == [1, -2]
  assert found.pop("flags").tolist() == [True, False]
  texts, inner = found.pop("nested")
  assert (texts, inner.tolist()) == (["x"], [7])
  assert found == {
    "u8": 255,
    "i8": -1,
    "u16": 65535,
    "i16": -2,
    "u32": 2**32 - 1,
    "i32": -3,
    "f32": 0.5,
    "bool": True,
    "u64": 2**64 - 1,
    "i64": -(2**63),
    "f64": 0.1,
    "text": "naïve\n",
    "texts": ["a", "", "ü"],
  }


@pytest.mark.parametrize("alignment", [8, 64])
def test_alignment_of_the_file(alignment):
  entries = {"general.alignment": written.number("u32", alignment)}
  tensors = {"a": written.floats([1, 2, 3]), "b": written.floats([4])}
  content = written.file(entries, tensors, alignment=alignment)
  found = gguf.parse(content)
  assert np.asarray(found.tensors["b"]).tolist() == [4]


WHOLE = written.file(
  {"name": written.string("net"), "list": written.strings(["a", "bc"])},
  {"w": written.floats(np.ones((2, 5))), "v": written.floats([3.0])},
)


def test_a_file_on_the_disk(tmp_path):
  path = tmp_path / "net.gguf"
  path.write_bytes(WHOLE)
  found = gguf.read(path)
  assert found.version == 3
  assert found.metadata == {"name": "net", "list": ["a", "bc"]}
  np.testing.assert_array_equal(np.asarray(found.tensors["w"]), np.ones((2, 5)))
  with pytest.raises(FileNotFoundError):
    gguf.read(tmp_path / "absent.gguf")
  (tmp_path / "empty.gguf").write_bytes(b"")
  with pytest.raises(ValueError, match=r"empty\.gguf is truncated"):
    gguf.read(tmp_path / "empty.gguf")


def test_every_truncation_is_noticed():
  for size in range(len(WHOLE)):
    with pytest.raises(ValueError, match=r"some/file is (truncated|not a)"):
      gguf.parse(WHOLE[:size], "some/file")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"PK\x03\x04 a zip archive", r"not a GGUF file: it begins with b'PK"),
    (written.file(version=1), "its version is 1, expected 2 or 3"),
    (written.file({"k": struct.pack("<I", 13)}), "'k' has the type 13"),
    (written.file({"k": written.string(b"\xff")}), "utf-8"),
    (
      written.file({}, {"w": ((32,), 6, b"")}),
      "'w' has the quantisation Q5_0; known are F32, F16",
    ),
    (written.file({}, {"w": ((32,), 99, b"")}), "quantisation of code 99"),
    (
      written.file({}, {"w": ((2, 16), "Q8_0", b"\0" * 34)}),
      "rows of the tensor 'w' have 16 weights, but blocks of Q8_0 have 32",
    ),
    (
      written.file({}, {"w": ((2**40, 32), "Q8_0", b"")}),
      "truncated: the tensor 'w' ends at byte",
    ),
    (
      written.file({"general.alignment": written.number("u32", 0)}),
      "alignment is 0",
    ),
    (
      written.file(
        {"k": struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000}
      ),
      "recursion",
    ),
    (written.file({}, {"w": ((1,) * 9, "F32", b"\0" * 4)}), "9 dimensions"),
  ],
)
def test_what_cannot_be_read_is_named(content, message):
  with pytest.raises(ValueError, match=message) as error:
    gguf.parse(content, "some/file")
  assert str(error.value).startswith("some/file")


@given(st.binary(max_size=60), st.integers(0, len(WHOLE)))
def test_any_bytes_give_a_file_or_a_value_error(noise, place):
  content = WHOLE[:place] + noise + WHOLE[place + len(noise) :]
  for attempt in (noise, content):
    with contextlib.suppress(ValueError):
      assert isinstance(gguf.parse(attempt), gguf.File)
