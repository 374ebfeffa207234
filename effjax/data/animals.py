"""Animals with Attributes 2: pictures whose class says which traits they have.

A trait ("stripes", "swims") is known of a class, not of a picture. The classes
of the test split do not occur in training: what is tested is whether traits
are recognised on animals that were never seen.

Xian, Lampert, Schiele, Akata: Zero-Shot Learning, A Comprehensive Evaluation of
the Good, the Bad and the Ugly, PAMI 2018 (arXiv:1707.00600).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from effjax.data import batches as batches_lib
from effjax.data import celeba, celeba_batches, registry
from effjax.data import images as images_lib

SPLITS = ("train", "validation", "test")

FOLDER = "JPEGImages"
CLASS_LIST = "classes.txt"
TRAIT_LIST = "predicates.txt"
MATRIX = "predicate-matrix-binary.txt"
TRAIN_LIST, TEST_LIST = "trainclasses.txt", "testclasses.txt"

# Of the pictures of ImageNet, red, green and blue.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def read(
  files: Mapping[str, pathlib.Path],
  split: str,
  *,
  validation: int | None = None,
  seed: int = 0,
  index: np.ndarray | None = None,
  provenance: Mapping[str, Any] | None = None,
) -> registry.Source:
  """Open a split of Animals with Attributes 2.

  Its `arrays` hold what fits into memory: labels bool [N, A], the A = 85 traits
  of the class; classes int32 [N], the position in `classes.txt`; and ids int32
  [N], the position among all pictures sorted by class and file name. An example
  is read from disk: image uint8 [H, W, 3], of any size, with its row of those.

  Args:
    files: path of the folder of pictures and of the lists, by the names of this
      module; `sources.locate("awa2").files`.
    split: "train", "validation" or "test"; the last one holds the classes of
      `testclasses.txt`, the others share those of `trainclasses.txt`.
    validation: number of validation pictures; by default a tenth.
    seed: chooses them, by a permutation of its own.
    index: ids of the split's pictures, in place of that choice.
    provenance: what to record.

  Raises:
    ValueError: lists that do not fit together, or an index beyond the split's
      classes; the message names file and class.
    FileNotFoundError: a class without pictures.
  """
  if split not in SPLITS:
    raise ValueError(
      f"There is no split {split!r}; expected one of {', '.join(SPLITS)}."
    )
  classes, traits = _list(files[CLASS_LIST]), _list(files[TRAIT_LIST])
  matrix = _matrix(files[MATRIX], len(classes), len(traits))
  members = _members(files, classes, split)
  pictures = celeba.Pictures(files[FOLDER])
  paths, of_class = _pictures(files[FOLDER], classes)
  ids = np.flatnonzero(np.isin(of_class, members))
  if index is not None:
    foreign = np.setdiff1d(index, ids)
    if len(foreign):
      raise ValueError(
        f"The index names picture {foreign[0]}, which is not one of the"
        f" {len(ids)} of the classes of the {split} split."
      )
    ids = np.asarray(index)
  elif split != "test":
    ids = ids[_cut(len(ids), split, validation, seed)]
  arrays = {
    "labels": matrix[of_class[ids]],
    "classes": of_class[ids].astype(np.int32),
    "ids": ids.astype(np.int32),
  }

  def example(row: int) -> dict[str, Any]:
    found = {name: column[row] for name, column in arrays.items()}
    return {"image": pictures.decode(paths[ids[row]]), **found}

  return registry.Source(
    name="awa2",
    split=split,
    names={"labels": tuple(traits), "classes": tuple(classes)},
    arrays=arrays,
    provenance=provenance or {"path": str(files[FOLDER])},
    length=len(ids),
    read=example,
  )


def _list(path: pathlib.Path) -> list[str]:
  """Return the names of a list, whose lines may start with their number."""
  lines = path.read_text(encoding="utf-8-sig").splitlines()
  names = [line.split()[-1] for line in lines if line.strip()]
  if not names or len(set(names)) < len(names):
    raise ValueError(f"{path} has no names, or one of them twice.")
  return names


def _matrix(path: pathlib.Path, rows: int, columns: int) -> np.ndarray:
  """Return which class has which trait, bool [classes, traits]."""
  try:
    matrix = np.loadtxt(path, np.int32, ndmin=2)
  except ValueError as error:
    raise ValueError(f"{path} is no table of numbers ({error}).") from error
  if matrix.shape != (rows, columns) or not np.isin(matrix, (0, 1)).all():
    raise ValueError(
      f"{path} has shape {list(matrix.shape)}, expected zeros and ones of"
      f" shape {[rows, columns]}, a row for each class and a column for each"
      " trait."
    )
  return matrix > 0


def _members(
  files: Mapping[str, pathlib.Path], classes: Sequence[str], split: str
) -> list[int]:
  """Return the positions of the classes of a split."""
  lists = {name: _list(files[name]) for name in (TRAIN_LIST, TEST_LIST)}
  for name, listed in lists.items():
    foreign = sorted(set(listed) - set(classes))
    if foreign:
      raise ValueError(f"{files[name]}: there is no class {foreign[0]!r}.")
  both = sorted(set(lists[TRAIN_LIST]) & set(lists[TEST_LIST]))
  if both:
    raise ValueError(
      f"{files[TEST_LIST]}: the class {both[0]!r} is a training class too."
    )
  return [
    classes.index(name)
    for name in lists[TEST_LIST if split == "test" else TRAIN_LIST]
  ]


def _pictures(
  folder: pathlib.Path, classes: Sequence[str]
) -> tuple[list[str], np.ndarray]:
  """Return the paths of all pictures below a folder, and their classes."""
  paths, of_class = [], []
  for name in sorted(classes):
    found = sorted(path.name for path in (folder / name).glob("*.jpg"))
    if not found:
      raise FileNotFoundError(
        f"{folder / name} holds no pictures; unpack AwA2-data.zip again."
      )
    paths += [f"{name}/{file}" for file in found]
    of_class += [classes.index(name)] * len(found)
  return paths, np.array(of_class)


def _cut(
  size: int, split: str, validation: int | None, seed: int
) -> np.ndarray:
  count = size // 10 if validation is None else validation
  if not 0 <= count <= size:
    raise ValueError(
      f"validation={count} pictures cannot be cut from {size} of the training"
      " classes."
    )
  order = batches_lib.generator(seed).permutation(size)
  return np.sort(order[:count] if split == "validation" else order[count:])


def random_resized_crop(
  generator: np.random.Generator,
  image: np.ndarray,
  size: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """Crop a random part of a random shape and resize it to a square.

  The area is uniform and the ratio of the sides log-uniform, as Szegedy et al.
  2015 (arXiv:1409.4842) describe it. Where ten tries do not fit the picture,
  the largest central part of an allowed ratio is taken.

  Args:
    generator: source of the choices.
    image: uint8 [H, W, 3].
    size: side of the square.
    scale: least and greatest area of the part, as a share of the picture.
    ratio: least and greatest width, as a share of the height.

  Returns:
    uint8 [size, size, 3], resized bilinearly.
  """
  import PIL.Image

  height, width = image.shape[:2]
  for _ in range(10):
    area = height * width * generator.uniform(*scale)
    shape = np.exp(generator.uniform(*np.log(ratio)))
    w, h = round((area * shape) ** 0.5), round((area / shape) ** 0.5)
    if 0 < w <= width and 0 < h <= height:
      top = int(generator.integers(height - h + 1))
      left = int(generator.integers(width - w + 1))
      break
  else:
    w = min(width, round(height * ratio[1]))
    h = min(height, round(width / ratio[0]))
    top, left = (height - h) // 2, (width - w) // 2
  part = PIL.Image.fromarray(image[top : top + h, left : left + w])
  return np.asarray(part.resize((size, size), PIL.Image.Resampling.BILINEAR))


def batches(
  source: registry.Source,
  batch_size: int,
  *,
  seed: int,
  train: bool,
  size: int = 224,
  shard: tuple[int, int] = (0, 1),
  threads: int = 4,
) -> batches_lib.Batches:
  """Make batches with the published input pipeline.

  Training: random resized crop of 224, random flip. Evaluation: short side to
  256, centre crop of 224, in the order of the source. Normalise on the device,
  with `standardise`.

  Args:
    source: a split of Animals with Attributes 2.
    batch_size: examples of a batch over all shards.
    seed: chooses order, crops and flips.
    train: whether to shuffle and augment.
    size: side of the pictures; the short side scales along.
    shard: (index, count) of this host.
    threads: batches that are prepared ahead, each by a thread of its own.

  Returns:
    Batches of images uint8 [B, size, size, 3], labels bool [B, A], classes
    int32 [B] and ids int32 [B].
  """
  short = celeba_batches.short_side(size)

  def transform(generator, example):
    image = example["image"]
    if train:
      image = random_resized_crop(generator, image, size)
      image = image[:, ::-1] if generator.random() < 0.5 else image
    else:
      image = celeba_batches.resize(image, short)
      image = celeba_batches.eval_crop(image, size)
    rest = {name: v for name, v in example.items() if name != "image"}
    return {"images": np.ascontiguousarray(image), **rest}

  return batches_lib.from_source(
    source,
    batch_size,
    seed=seed,
    shuffle=train,
    shard=shard,
    transform=transform,
    threads=threads,
  )


def standardise(images: jax.Array) -> jax.Array:
  """Turn colours 0..255 into float32 (x / 255 - MEAN) / STD, on device.

  Args:
    images: uint8 [N, H, W, 3].

  Example:
    >>> print(standardise(np.zeros((1, 1, 1, 3), np.uint8)).ravel())
    [-2.117904  -2.0357141 -1.8044444]
  """
  mean, std = (np.array(v, np.float32).reshape(1, 1, 1, 3) for v in (MEAN, STD))
  return (images_lib.standardise(images, 0.0, 1.0) - mean) / std
