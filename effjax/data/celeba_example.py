"""Write a generated directory in CelebA's own format, to try things on."""

import io
import os
import pathlib
import zipfile

import jax
import numpy as np

from effjax.data import batches, celeba


def write(
  key: jax.Array,
  directory: str | os.PathLike,
  count: int,
  *,
  zipped: bool = False,
  comma: bool = False,
) -> None:
  """Write generated pictures and lists as the authors of CelebA do.

  The pictures are patches of colour, not faces: half of the attributes show in
  them, so that a model has something to learn, and nothing else is true of
  them.

  Args:
    key: typed PRNG key.
    directory: where to write; it is made if need be.
    count: pictures of each split.
    zipped: whether to write the pictures as a zip instead of a folder.
    comma: whether to write the lists as `.csv`.
  """
  import PIL.Image

  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  total = 3 * count
  generator = batches.generator_of(key)
  labels = generator.random((total, len(celeba.ATTRIBUTES))) < 0.4
  patches = generator.integers(60, 140, (total, 10, 8, 3)).astype(np.uint8)
  # Attribute 2 i shows as the brightness of patch i in rows 2 to 6.
  shown = patches.reshape(total, -1, 3)[
    :, 16 : 16 + len(celeba.ATTRIBUTES) // 2
  ]
  shown += (100 * labels[:, ::2, None]).astype(np.uint8)
  names = [f"{number:06d}.jpg" for number in range(1, total + 1)]
  pictures = {}
  for name, patch in zip(names, patches, strict=True):
    stream = io.BytesIO()
    picture = PIL.Image.fromarray(patch).resize((178, 218))
    picture.save(stream, "JPEG", quality=90)
    pictures[name] = stream.getvalue()
  if zipped:
    with zipfile.ZipFile(directory / celeba.PICTURES, "w") as archive:
      for name, content in pictures.items():
        archive.writestr(f"{celeba.FOLDER}/{name}", content)
  else:
    (directory / celeba.FOLDER).mkdir(exist_ok=True)
    for name, content in pictures.items():
      (directory / celeba.FOLDER / name).write_bytes(content)
  _write_lists(directory, names, labels, comma)


def _write_lists(
  directory: pathlib.Path, names: list[str], labels: np.ndarray, comma: bool
) -> None:
  parts = [number // (len(names) // 3) for number in range(len(names))]
  signs = np.where(labels, 1, -1)
  attributes, partition = celeba.ATTRIBUTE_LIST, celeba.PARTITION_LIST
  if comma:
    attributes = attributes.replace(".txt", ".csv")
    partition = partition.replace(".txt", ".csv")
    rows = [",".join(("image_id", *celeba.ATTRIBUTES))]
    rows += [
      ",".join((name, *map(str, row)))
      for name, row in zip(names, signs, strict=True)
    ]
    halves = ["image_id,partition"]
    halves += [f"{n},{part}" for n, part in zip(names, parts, strict=True)]
  else:
    # As the authors do: values padded to two places, a blank at the line end.
    rows = [str(len(names)), " ".join(celeba.ATTRIBUTES) + " "]
    rows += [
      f"{name} " + " ".join(f"{value:2d}" for value in row)
      for name, row in zip(names, signs, strict=True)
    ]
    halves = [f"{n} {part} " for n, part in zip(names, parts, strict=True)]
  (directory / attributes).write_text("\n".join(rows) + "\n")
  (directory / partition).write_text("\n".join(halves) + "\n")
