"""CelebA as training sees it: resized, cropped, flipped, marked, in batches."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from concurrent import futures

import numpy as np

from effjax.data import batches as batches_lib
from effjax.data import images as images_lib
from effjax.data import registry

# Shares of the training pictures that get a mark, by the attribute it goes
# along with; in validation and test it is `images.BALANCED` for all.
SKEWS = {
  "Blond_Hair": images_lib.STRONG,
  "Smiling": images_lib.STRONG,
  "Wearing_Necktie": images_lib.STRONG,
  "Attractive": images_lib.STRONG,
  "Oval_Face": images_lib.WEAK,
  "Big_Nose": images_lib.WEAK,
}


def resize(image: np.ndarray, short: int) -> np.ndarray:
  """Resize so that the shorter side has `short` pixels, bilinearly.

  The longer side is floor(short * long / shorter); 218 x 178 becomes
  313 x 256.

  Args:
    image: uint8 [H, W, 3].
    short: pixels.
  """
  import PIL.Image

  height, width = image.shape[:2]
  shorter = min(height, width)
  if shorter == short:
    return image
  target = (short * width // shorter, short * height // shorter)
  picture = PIL.Image.fromarray(image)
  return np.asarray(picture.resize(target, PIL.Image.Resampling.BILINEAR))


def short_side(size: int) -> int:
  """Return the side to resize to before cropping: 256 for crops of 224."""
  return round(size * 256 / 224)


def train_crop(
  generator: np.random.Generator, image: np.ndarray, size: int
) -> np.ndarray:
  """Crop a random square and flip it left to right every other time.

  Args:
    generator: source of the choices.
    image: uint8 [H, W, C], resized.
    size: side of the square.
  """
  top, left = (int(generator.integers(n - size + 1)) for n in image.shape[:2])
  crop = image[top : top + size, left : left + size]
  return crop[:, ::-1] if generator.random() < 0.5 else crop


def eval_crop(image: np.ndarray, size: int) -> np.ndarray:
  """Crop the square in the centre; an odd margin's half is rounded to even.

  Args:
    image: uint8 [H, W, C], resized.
    size: side of the square.
  """
  top, left = (round((n - size) / 2) for n in image.shape[:2])
  return image[top : top + size, left : left + size]


def batches(
  source: registry.Source,
  batch_size: int,
  *,
  seed: int,
  train: bool,
  size: int = 224,
  mark: str | None = None,
  marked: np.ndarray | None = None,
  cache: str | os.PathLike | None = None,
  shard: tuple[int, int] = (0, 1),
  threads: int = 4,
) -> batches_lib.Batches:
  """Make batches of CelebA with the published input pipeline.

  Training: short side to 256, random crop of 224, random flip. Evaluation:
  short side to 256, centre crop, in the order of the source. Normalise on the
  device, with `images.standardise` and its mean = std = 0.5.

  Args:
    source: a split of CelebA.
    batch_size: examples of a batch over all shards.
    seed: chooses order, crops and flips.
    train: whether to shuffle and augment.
    size: side of the pictures; the short side scales along.
    mark: "grayscale" (before everything else) or "square" (yellow, after crop
      and flip), for the examples of `marked`.
    marked: bool [N], from `images.draw`; it becomes the last group.
    cache: folder for a memory-mapped copy of the resized pictures, which pays
      at small sizes; see `cached`. A grayscale mark is then applied to the
      resized picture, which differs by rounding only.
    shard: (index, count) of this host.
    threads: batches that are prepared ahead, each by a thread of its own.

  Returns:
    Batches of images uint8 [B, size, size, 3], labels bool [B, 40], groups
    bool [B, 4 or 5] and ids int32 [B].

  Raises:
    ValueError: an unknown mark, or one without `marked` and the reverse.
  """
  if (mark is None) != (marked is None):
    raise ValueError("mark= and marked= are given together or not at all.")
  if mark not in (None, "grayscale", "square"):
    raise ValueError(
      f"There is no mark {mark!r} for CelebA; expected 'grayscale' or 'square'."
    )
  short = short_side(size)
  stored = None if cache is None else cached(source, cache, short)
  columns = dict(source.arrays)
  if marked is not None:
    joined = [columns["groups"], np.asarray(marked, bool)[:, None]]
    columns["groups"] = np.concatenate(joined, axis=1)
  examples = _Examples(source, columns, stored)

  def transform(generator, example):
    row, image = example["row"], example["image"]
    has_mark = marked is not None and marked[row]
    if has_mark and mark == "grayscale":
      image = images_lib.grayscale(image)
    if stored is None:
      image = resize(image, short)
    if train:
      image = train_crop(generator, image, size)
    else:
      image = eval_crop(image, size)
    if has_mark and mark == "square":
      image = images_lib.square(image)
    rest = {name: column[row] for name, column in columns.items()}
    return {"images": np.ascontiguousarray(image), **rest}

  return batches_lib.from_source(
    examples,
    batch_size,
    seed=seed,
    shuffle=train,
    shard=shard,
    transform=transform,
    threads=threads,
  )


@dataclasses.dataclass(frozen=True)
class _Examples:
  """Pictures with their row, from disk or from the cache."""

  source: registry.Source
  columns: Mapping[str, np.ndarray]
  stored: np.ndarray | None

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, row: int) -> dict:
    if self.stored is not None:
      return {"row": row, "image": self.stored[row]}
    return {"row": row, "image": self.source[row]["image"]}


def cached(
  source: registry.Source,
  directory: str | os.PathLike,
  short: int,
  *,
  progress: Callable[[int, int], None] | None = None,
  threads: int = 8,
) -> np.ndarray:
  """Return all resized pictures of a split, memory-mapped; make them first.

  At a short side of 73 (crops of 64) the training split takes 3.2 GB and one
  pass over the pictures, about 0.6 ms each. A file that belongs to other
  pictures is made anew; it is written under a temporary name, so that an
  interrupted call leaves none.

  Args:
    source: a split of CelebA.
    directory: where the file lies or is made.
    short: pixels of the shorter side.
    progress: called with the number of pictures done and their total.
    threads: threads that decode.

  Returns:
    uint8 [N, H, W, 3], read-only.

  Raises:
    ValueError: pictures of different sizes.
    OSError: a full disk; nothing half-written is kept.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / f"celeba-{source.split}-{short}.npy"
  note = path.with_suffix(".json")
  wanted = _fingerprint(source, short)
  if not (path.exists() and _noted(note) == wanted):
    note.unlink(missing_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
      _fill(source, temporary, short, progress, threads)
      os.replace(temporary, path)
    except OSError as error:
      if error.errno != errno.ENOSPC:
        raise
      raise OSError(
        errno.ENOSPC,
        f"No space is left in {directory} for the resized pictures of"
        f" {len(source)} faces; nothing half-written was kept",
      ) from error
    finally:
      temporary.unlink(missing_ok=True)
    note.write_text(json.dumps(wanted))
  return np.load(path, mmap_mode="r")


def _noted(note: pathlib.Path) -> dict | None:
  try:
    return json.loads(note.read_text())
  except (FileNotFoundError, json.JSONDecodeError):
    return None


def _fingerprint(source: registry.Source, short: int) -> dict:
  ids = np.ascontiguousarray(source.arrays["ids"])
  return {
    "path": str(source.provenance["path"]),
    "ids": hashlib.sha256(ids.tobytes()).hexdigest(),
    "short": short,
  }


def _fill(
  source: registry.Source,
  path: pathlib.Path,
  short: int,
  progress: Callable[[int, int], None] | None,
  threads: int,
) -> None:
  total = len(source)

  def picture(index: int) -> np.ndarray:
    return resize(source[index]["image"], short)

  first = picture(0)
  # Written by a plain file: a full disk is an error there, a crash in a map.
  header = {
    "descr": "|u1",
    "fortran_order": False,
    "shape": (total, *first.shape),
  }
  with path.open("wb") as file, futures.ThreadPoolExecutor(threads) as pool:
    np.lib.format.write_array_header_1_0(file, header)
    for start in range(0, total, 1024):
      chunk = range(start, min(start + 1024, total))
      for index, image in zip(chunk, pool.map(picture, chunk), strict=True):
        if image.shape != first.shape:
          raise ValueError(
            f"Picture {source.arrays['ids'][index]} has shape"
            f" {list(image.shape)} after resizing, but the first one"
            f" {list(first.shape)}; the cache needs pictures of one size."
          )
        file.write(image.tobytes())
      if progress is not None:
        progress(chunk.stop, total)
