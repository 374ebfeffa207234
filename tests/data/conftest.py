"""Small generated sources, and places that hold nothing else."""

import dataclasses
import gzip
import hashlib
import struct

import numpy as np
import pytest

from effjax.data import prepared, registry


def idx(array):
  """Return uint8 values in IDX format."""
  header = bytes([0, 0, 8, array.ndim])
  return header + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


@pytest.fixture
def empty_places(tmp_path, monkeypatch):
  """Point every place of the resolution order at nothing."""
  monkeypatch.delenv("EFFJAX_DATA", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  return tmp_path


@pytest.fixture
def tiny_fashion(empty_places, monkeypatch):
  """Return the files of a Fashion-MNIST of 60 + 20 generated pictures.

  The declared checksums are replaced by theirs, and the system's directory by
  one of the test's own.
  """
  generator = np.random.default_rng(0)
  contents, digests = {}, {}
  for split, prefix, size in (("train", "train", 60), ("test", "t10k", 20)):
    images = generator.integers(0, 256, (size, 28, 28)).astype(np.uint8)
    classes = (np.arange(size) % 10).astype(np.uint8)
    contents[f"{prefix}-images-idx3-ubyte.gz"] = idx(images)
    contents[f"{prefix}-labels-idx1-ubyte.gz"] = idx(classes)
    digests[split] = prepared.digest(images, classes)
  declared = registry.SOURCES["fashion_mnist"]
  files = tuple(
    dataclasses.replace(
      file, sha256=hashlib.sha256(contents[file.name]).hexdigest()
    )
    for file in declared.files
  )
  tiny = dataclasses.replace(
    declared,
    files=files,
    system=(str(empty_places / "system/usr/share/datasets/fashion-mnist"),),
    digest=digests,
  )
  monkeypatch.setitem(registry.SOURCES, "fashion_mnist", tiny)
  return {name: gzip.compress(c, mtime=0) for name, c in contents.items()}


def write_files(folder, contents):
  """Write files into a folder that may not exist yet."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    (folder / name).write_bytes(content)
  return folder
