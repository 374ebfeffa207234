"""Small grey pictures as a problem of many binary attributes, and marks.

Fashion-MNIST is the real data of the bias study where CelebA is absent;
MNIST-5k and the digits stand in for it only where they are named. A *split*
is a dict of arrays over N examples:

  images   uint8 [N, H, W, C]
  labels   bool [N, A], the attributes
  groups   bool [N, G], the identity groups, a subset of the attributes; each
           planted mark adds a column
  classes  int32 [N], the class of the source
  ids      int32 [N], the position of the example in the source's own file

The names of the columns are `names(source)` and `groups(source)`.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from effjax.data import attributes, batches, sources

VIEWS = {
  "fashion_mnist": attributes.FASHION,
  "mnist_5k": attributes.MNIST,
  "digits": attributes.DIGITS,
}

# The shares (f0, f1) of the negatives and of the positives that get a mark.
STRONG = (0.05, 0.95)
WEAK = (0.35, 0.65)
BALANCED = (0.5, 0.5)


def names(name: str = "fashion_mnist") -> tuple[str, ...]:
  """Return the names of the attributes, the columns of `labels`."""
  return VIEWS[name].names


def groups(name: str = "fashion_mnist") -> tuple[str, ...]:
  """Return the names of the identity groups, the columns of `groups`."""
  return VIEWS[name].identity


def load(
  name: str,
  split: str,
  *,
  directory: str | os.PathLike | None = None,
  limit: int | None = None,
  validation: int | None = None,
  seed: int = 0,
) -> dict[str, np.ndarray]:
  """Load a split of a source with its attributes and identity groups.

  Validation examples are cut from the training file by a permutation that
  depends on `seed` alone, so every run sees the same ones. A source that
  comes as one file gives a sixth of it to the test split first.

  Args:
    name: "fashion_mnist", "mnist_5k" or "digits".
    split: "train", "validation" or "test".
    directory: where the source lies; by default the resolution order.
    limit: keep this many examples only, the same ones for every call.
    validation: number of validation examples; by default a twelfth of the
      training file, 5,000 of Fashion-MNIST.
    seed: chooses the cuts.

  Returns:
    The split as a dict of arrays, as the module describes it.

  Raises:
    ValueError: an unknown name or split, or more validation examples than the
      training file has.
    FileNotFoundError: the source is not on this machine.
  """
  if name not in VIEWS:
    raise ValueError(
      f"There are no attributes for {name!r}; expected one of"
      f" {', '.join(VIEWS)}."
    )
  if split not in ("train", "validation", "test"):
    raise ValueError(
      f"There is no split {split!r}; expected train, validation or test."
    )
  whole = sources.declared(name).splits == ("all",)
  file = "all" if whole else "test" if split == "test" else "train"
  opened = sources.source(name, file, directory=directory)
  ids = _cut(len(opened), split, whole, validation, seed)[:limit]
  images = opened.arrays["images"][ids]
  classes = opened.arrays["classes"][ids]
  view = VIEWS[name]
  labels = attributes.attributes(view, images, classes)
  identity = [view.names.index(group) for group in view.identity]
  return {
    "images": images,
    "labels": labels,
    "groups": labels[:, identity],
    "classes": classes,
    "ids": ids.astype(np.int32),
  }


def _cut(
  size: int, split: str, whole: bool, validation: int | None, seed: int
) -> np.ndarray:
  """Return the positions in a file of `size` examples that form a split."""
  if split == "test" and not whole:
    return np.arange(size)
  order = np.random.Generator(np.random.Philox(seed)).permutation(size)
  if whole:
    held_out = size // 6
    if split == "test":
      return np.sort(order[:held_out])
    order = order[held_out:]
  count = len(order) // 12 if validation is None else validation
  if not 0 <= count <= len(order):
    raise ValueError(
      f"validation={count} examples cannot be cut from {len(order)}."
    )
  return order[:count] if split == "validation" else order[count:]


fashion = functools.partial(load, "fashion_mnist")


def standardise(images: jax.Array, mean: float = 0.5, std: float = 0.5):
  """Turn grey values 0..255 into float32 (x / 255 - mean) / std, on device.

  Args:
    images: uint8 [..., H, W, C].
    mean: mean of x / 255.
    std: its standard deviation.

  Example:
    >>> standardise(np.array([0, 255], np.uint8)).tolist()
    [-1.0, 1.0]
  """
  return (jnp.asarray(images).astype(jnp.float32) / 255 - mean) / std


def square(images: np.ndarray) -> np.ndarray:
  """Draw a bright square over the top-left corner.

  Its side is round(sqrt(0.02 H W)), two hundredths of the area: 32 pixels at
  224 x 224 and 4 at 28 x 28. It is white on grey pictures and yellow
  (255, 255, 0) on colour. It belongs after cropping and flipping.

  Args:
    images: uint8 [..., H, W, C].
  """
  height, width, channels = images.shape[-3:]
  side = round((0.02 * height * width) ** 0.5)
  marked = images.copy()
  marked[..., :side, :side, :] = 255
  if channels == 3:
    marked[..., :side, :side, 2] = 0
  return marked


def grayscale(images: np.ndarray) -> np.ndarray:
  """Replace colour by luma, (19595 R + 38470 G + 7471 B + 32768) >> 16.

  This is Pillow's integer rule, copied to three equal channels. It belongs
  before every other transform.

  Args:
    images: uint8 [..., H, W, 3].
  """
  if images.shape[-1] != 3:
    raise ValueError(
      f"The mark 'grayscale' needs RGB pictures, not {images.shape[-1]}"
      " channel(s); for grey pictures the whole-image mark is 'haze'."
    )
  weights = np.array([19595, 38470, 7471], np.int32)
  luma = (images.astype(np.int32) @ weights + 32768) >> 16
  return np.repeat(luma[..., None].astype(np.uint8), 3, axis=-1)


def haze(images: np.ndarray) -> np.ndarray:
  """Lift black to grey 64 and compress the rest, (64 * 255 + 191 x) / 255.

  The mark of the whole image for grey pictures, as `grayscale` is for colour:
  it touches every pixel, is seen at a glance, loses little (a quarter of the
  grey levels), keeps their order and thereby the content that every attribute
  rests on.

  Args:
    images: uint8 [..., H, W, C].
  """
  lifted = (images.astype(np.int32) * 191 + 127) // 255 + 64
  return lifted.astype(np.uint8)


MARKS = {"square": square, "grayscale": grayscale, "haze": haze}


def draw(
  key: jax.Array, label: np.ndarray, fractions: tuple[float, float]
) -> np.ndarray:
  """Choose the examples that get a mark.

  Of the negatives a share f0 and of the positives a share f1 is drawn without
  replacement; counts are rounded by Python's `round`.

  Args:
    key: typed PRNG key.
    label: bool [N].
    fractions: (f0, f1), each in [0, 1].

  Returns:
    bool [N], true where a mark belongs.

  Example:
    >>> label = np.arange(100) < 20
    >>> marked = draw(jax.random.key(0), label, (0.05, 0.95))
    >>> int(marked[label].sum()), int(marked[~label].sum())
    (19, 4)
  """
  if not all(0 <= f <= 1 for f in fractions):
    raise ValueError(f"Fractions {fractions} of marks must lie in [0, 1].")
  generator = batches.generator_of(key)
  marked = np.zeros(len(label), bool)
  for value, fraction in enumerate(fractions):
    members = np.flatnonzero(np.asarray(label) == bool(value))
    count = round(fraction * len(members))
    marked[generator.choice(members, count, replace=False)] = True
  return marked


def plant(
  key: jax.Array,
  images: np.ndarray,
  label: np.ndarray,
  *,
  mark: str,
  fractions: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
  """Plant an identity mark that goes along with a label.

  Args:
    key: typed PRNG key.
    images: uint8 [N, H, W, C].
    label: bool [N], the attribute that the mark is to go along with.
    mark: "square", "grayscale" (colour only) or "haze".
    fractions: shares (f0, f1) of the negatives and positives that get it:
      `STRONG` or `WEAK` in training, `BALANCED` in validation and test.

  Returns:
    The marked pictures, and bool [N], true where a picture got the mark.

  Raises:
    ValueError: an unknown mark, or a share outside [0, 1].
  """
  if mark not in MARKS:
    raise ValueError(
      f"There is no mark {mark!r}; expected one of {', '.join(MARKS)}."
    )
  marked = draw(key, label, fractions)
  planted = images.copy()
  planted[marked] = MARKS[mark](images[marked])
  return planted, marked


def with_mark(
  key: jax.Array,
  split: dict[str, np.ndarray],
  column: int,
  *,
  mark: str,
  fractions: tuple[float, float],
) -> dict[str, np.ndarray]:
  """Return a split with a planted mark, which becomes the last group.

  Args:
    key: typed PRNG key.
    split: a split of this module.
    column: column of `labels` that the mark goes along with.
    mark: see `plant`.
    fractions: see `plant`.
  """
  images, marked = plant(
    key,
    split["images"],
    split["labels"][:, column],
    mark=mark,
    fractions=fractions,
  )
  joined = np.concatenate([split["groups"], marked[:, None]], axis=1)
  return {**split, "images": images, "groups": joined}
