"""A generated Fashion-MNIST, and the launcher on it.

python -m tests.studies.bias.tiny FOLDER ARGUMENTS runs `launch.run` with these
arguments on the pictures that `write` has left in a folder.
"""

import dataclasses
import gzip
import hashlib
import pathlib
import struct
import sys

import numpy as np

from effjax.data import registry


def write(folder, train=300, test=120):
  """Write pictures in the files of Fashion-MNIST."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  shapes = rng.integers(0, 160, (10, 28, 28))
  for prefix, size in (("train", train), ("t10k", test)):
    classes = (np.arange(size) % 10).astype(np.uint8)
    noise = rng.integers(0, 96, (size, 28, 28))
    images = (shapes[classes] + noise).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", classes)):
      header = bytes([0, 0, 8, array.ndim])
      header += struct.pack(f">{array.ndim}i", *array.shape)
      content = gzip.compress(header + array.tobytes(), mtime=0)
      (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(content)


def declared(folder):
  """Declare the files of a folder as Fashion-MNIST's."""
  real = registry.SOURCES["fashion_mnist"]
  content = lambda file: (pathlib.Path(folder) / file.name).read_bytes()
  digest = lambda file: hashlib.sha256(gzip.decompress(content(file)))
  files = tuple(
    dataclasses.replace(file, sha256=digest(file).hexdigest())
    for file in real.files
  )
  return dataclasses.replace(real, files=files, system=(), digest={})


if __name__ == "__main__":
  from launch import run

  registry.SOURCES["fashion_mnist"] = declared(sys.argv[1])
  sys.exit(run.main([*sys.argv[2:], f"--config.data.directory={sys.argv[1]}"]))
