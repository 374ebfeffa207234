"""Read data sets that TFDS has prepared, without TensorFlow."""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np

_FORMATS = ("array_record", "parquet")


def find(
  root: pathlib.Path, names: tuple[str, ...]
) -> tuple[pathlib.Path | None, str]:
  """Return the newest readable version of a prepared data set.

  Args:
    root: the TFDS data directory.
    names: names of data sets, the preferred one first.

  Returns:
    The directory that holds `dataset_info.json`, or None; and, for None, what
    was found instead.
  """
  unreadable = []
  for name in names:
    for info in sorted((root / name).rglob("dataset_info.json"), reverse=True):
      found = json.loads(info.read_text()).get("fileFormat", "tfrecord")
      if found in _FORMATS:
        return info.parent, ""
      unreadable.append(f"{info.parent} is {found}")
  if unreadable:
    wanted = " or ".join(_FORMATS)
    return None, f"{'; '.join(unreadable)}, expected {wanted}"
  return None, f"{root} holds no {' or '.join(names)}"


def digest(images: np.ndarray, classes: np.ndarray) -> str:
  """Return a checksum of examples that does not depend on their order.

  TFDS shuffles what it writes; the sum of the sha256 of all examples, modulo
  2**256, is the same for every order.

  Args:
    images: uint8 [N, H, W, C].
    classes: int32 [N].
  """
  total = 0
  for image, label in zip(images, classes, strict=True):
    example = image.tobytes() + bytes([int(label)])
    total += int.from_bytes(hashlib.sha256(example).digest(), "big")
  return f"{total % 2**256:064x}"


def read(
  directory: pathlib.Path, split: str, expected: str
) -> dict[str, np.ndarray]:
  """Read the pictures and classes of a prepared data set into memory.

  Where the examples carry their position (`id`), they are put in that order;
  otherwise they keep the order in which TFDS shuffled them.

  Args:
    directory: one version of a prepared data set.
    split: "train" or "test".
    expected: the digest of the split.

  Returns:
    images uint8 [N, H, W, C] and classes int32 [N].

  Raises:
    ValueError: the examples are not the declared ones.
  """
  import tensorflow_datasets as tfds

  builder: Any = tfds.builder_from_directory(directory)
  parts = [split]
  if split == "train" and "validation" in builder.info.splits:
    parts.append("validation")  # cut from the training file
  rows = []
  for part in parts:
    examples = builder.as_data_source(part)
    for start in range(0, len(examples), 1024):
      stop = min(start + 1024, len(examples))
      rows += examples.__getitems__(range(start, stop))
  if rows and "id" in rows[0]:
    rows.sort(key=lambda row: int(row["id"]))
  images = np.stack([row["image"] for row in rows])
  classes = np.array([row["label"] for row in rows], np.int32)
  found = digest(images, classes)
  if found != expected:
    raise ValueError(
      f"{directory} (split {split!r}) has digest {found}, expected {expected};"
      " its pictures are damaged or of another data set."
    )
  return {"images": images, "classes": classes}
