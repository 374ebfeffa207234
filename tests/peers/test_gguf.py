"""GGUF files of the package of the format's authors."""

import numpy as np
import pytest

from effjax.io import gguf

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def peer():
  return pytest.importorskip("gguf", reason="gguf is not installed")


@pytest.mark.parametrize(
  ("name", "scales"),
  [
    ("F32", ()),
    ("F16", ()),
    ("BF16", ()),
    ("Q4_0", (0,)),
    ("Q4_1", (0, 2)),
    ("Q8_0", (0,)),
    ("Q4_K", (0, 2)),
    ("Q6_K", (208,)),
  ],
)
def test_values_of_random_blocks(peer, name, scales):
  kind = peer.GGMLQuantizationType[name]
  _, size = peer.GGML_QUANT_SIZES[kind]
  generator = np.random.default_rng(0)
  blocks = generator.integers(0, 256, (8, size)).astype(np.uint8)
  for start in scales:
    scale = generator.normal(size=(8, 1)).astype("<f2")
    blocks[:, start : start + 2] = scale.view(np.uint8)
  if not scales:
    values = generator.normal(size=(8, 32)).astype(np.float32)
    blocks = peer.quantize(values, kind).view(np.uint8).reshape(8, -1)
  expected = peer.dequantize(blocks, kind)
  found = gguf.ggml_blocks.KINDS[name].values(blocks.reshape(-1))
  np.testing.assert_array_equal(found, expected.reshape(-1))


def test_a_file_that_the_package_wrote(peer, tmp_path):
  path = tmp_path / "net.gguf"
  writer = peer.GGUFWriter(path, "llama")
  writer.add_uint32("number", 7)
  writer.add_string("text", "naïve")
  writer.add_array("texts", ["a", "bc"])
  writer.add_array("numbers", [1.5, -2.0])
  writer.add_bool("flag", True)
  values = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
  kind = peer.GGMLQuantizationType.Q8_0
  writer.add_tensor("plain", values)
  writer.add_tensor("small", peer.quantize(values, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  found = gguf.read(path)
  assert found.metadata["general.architecture"] == "llama"
  assert found.metadata["number"] == 7
  assert found.metadata["text"] == "naïve"
  assert found.metadata["texts"] == ["a", "bc"]
  assert found.metadata["numbers"].tolist() == [1.5, -2.0]
  assert found.metadata["flag"] is True
  np.testing.assert_array_equal(np.asarray(found.tensors["plain"]), values)
  small = found.tensors["small"]
  assert (small.shape, small.kind) == ((3, 64), "Q8_0")
  expected = peer.dequantize(peer.quantize(values, kind), kind)
  np.testing.assert_array_equal(np.asarray(small), expected)
