import gzip
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effjax.data import archives, readers, registry

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@given(
  st.sampled_from(sorted(TYPES)),
  st.lists(st.integers(0, 4), min_size=0, max_size=4),
)
def test_idx_round_trip(code, shape):
  dtype = np.dtype(TYPES[code])
  values = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
  content = bytes([0, 0, code, len(shape)])
  content += struct.pack(f">{len(shape)}i", *shape) + values.tobytes()
  read = readers.read_idx(content)
  assert read.dtype == dtype.newbyteorder("=")
  np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "not an IDX file"),
    (b"\x89PNG....", "starts with 89 50 4e 47"),
    (bytes([0, 0, 8, 3, 0, 0]), "inside its header"),
    (bytes([0, 0, 8, 1, 0, 0, 0, 3, 1]), r"has 9 bytes, expected 11.*\[3\]"),
    (bytes([0, 0, 8, 1, 0, 0, 0, 1, 1, 2]), "has 10 bytes, expected 9"),
  ],
)
def test_damaged_idx_is_named(content, message):
  with pytest.raises(ValueError, match=message) as error:
    readers.read_idx(content, "labels-idx1")
  assert "labels-idx1" in str(error.value)


def test_label_last():
  content = gzip.compress(b"0,8,16,4,7\n16,0,0,0,2\n")
  arrays = readers.read_label_last(content, side=2, maximum=16)
  assert arrays["images"].shape == (2, 2, 2, 1)
  assert arrays["images"][0].ravel().tolist() == [0, 128, 255, 64]
  assert arrays["classes"].tolist() == [7, 2]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b'["tench", "gold', "names.json is no JSON text"),
    (b"\xff", "names.json is no JSON text"),
    (b'{"0": "tench"}', "names.json is no list of names"),
    (b'["tench", 1]', "names.json is no list of names"),
  ],
)
def test_damaged_names_of_classes_are_named(content, message):
  with pytest.raises(ValueError, match=message):
    readers.read_class_names(content, "names.json")


def _file(content, **fields):
  sha256 = hashlib.sha256(content).hexdigest()
  return registry.File(name="x", sha256=sha256, **fields)


def test_checksum_is_of_the_decompressed_content():
  file = _file(b"values", unpack=True)
  for stored in (gzip.compress(b"values"), gzip.compress(b"values", 1)):
    assert archives.verified(stored, file, "place") == b"values"
  assert archives.verified(b"values", file, "place") == b"values"


def test_packed_content_is_hashed_as_it_is_where_declared():
  stored = gzip.compress(b"values")
  assert archives.verified(stored, _file(stored), "place") == stored


def test_wrong_checksum_names_file_expected_and_found():
  file = _file(b"right")
  with pytest.raises(ValueError, match="data/labels has sha256") as error:
    archives.verified(b"wrong", file, "data/labels")
  assert file.sha256 in str(error.value)
  assert hashlib.sha256(b"wrong").hexdigest() in str(error.value)


@pytest.mark.parametrize("keep", [3, 15, -1])
def test_truncated_gzip_is_named(keep):
  stored = gzip.compress(bytes(1000))[:keep]
  file = _file(bytes(1000), unpack=True)
  with pytest.raises(
    ValueError, match=r"some/file\.gz is truncated or damaged"
  ):
    archives.verified(stored, file, "some/file.gz")
