"""Few photographs made many: random crops, no photograph in two parts."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import spade
from effjax.data import batches

_ROOM = 1.5  # sides of a photograph over those of its crops


def split(
  seed: int, count: int, sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
  """Divide photographs among parts.

  All are in one random order, of which the first ones are tested on; another
  seed begins where the one before has ended. So seeds that follow each other
  test on different photographs as long as there are any.

  Args:
    seed: Says where to begin.
    count: Number of photographs.
    sizes: How many go into each part but "train", "test" among them.

  Returns:
    By part the numbers of its photographs; the rest is "train".

  Raises:
    ValueError: If nothing is left to train on.

  >>> parts = split(0, 5, {"test": 2, "validation": 1})
  >>> sorted(np.concatenate(list(parts.values())).tolist())
  [0, 1, 2, 3, 4]
  """
  if min(sizes.values()) < 1 or sum(sizes.values()) >= count:
    raise ValueError(
      f"parts of {dict(sizes)} photographs leave none of {count} to train on,"
      " or hold none"
    )
  order = batches.generator(0).permutation(count)
  order = np.roll(order, -seed * sizes["test"])
  parts = {}
  for part in ("test", *(name for name in sizes if name != "test")):
    parts[part], order = np.split(order, [sizes[part]])
  return {"train": order, **parts}


def cut(
  key: jax.Array,
  photographs: Sequence[np.ndarray],
  classes: np.ndarray,
  ids: np.ndarray,
  *,
  each: int,
  side: int,
  least_area: float,
) -> dict[str, np.ndarray]:
  """Cut random crops out of photographs; half of them are mirrored.

  A photograph is first made square as a whole, as the packaged networks see it.

  Args:
    key: A random key; a photograph has the same crops in every part.
    photographs: uint8 [H, W, 3] of any sizes.
    classes: Their classes.
    ids: Numbers of those that are cut.
    each: Crops of a photograph.
    side: Height and width of the crops.
    least_area: Least share of a photograph that a crop shows.

  Returns:
    `images` uint8 [N, side, side, 3], `classes` and `ids` int32 [N].
  """
  found = [
    _crops(
      (side, each, least_area),
      jax.random.fold_in(key, int(number)),
      jnp.asarray(_squared(photographs[number], round(_ROOM * side))),
    )
    for number in ids
  ]
  rows = np.repeat(ids, each)
  return {
    "images": np.concatenate([np.asarray(part) for part in found]),
    "classes": classes[rows].astype(np.int32),
    "ids": rows.astype(np.int32),
  }


def _squared(photograph: np.ndarray, side: int) -> np.ndarray:
  import PIL.Image

  picture = PIL.Image.fromarray(photograph)
  return np.asarray(picture.resize((side, side), PIL.Image.Resampling.BICUBIC))


@functools.partial(jax.jit, static_argnums=0)
def _crops(options, key, photograph):
  side, each, least = options
  image = photograph.astype(jnp.float32) / 255.0

  def crop(key):
    copy = spade.augment(
      key,
      image,
      size=(side, side),
      area=(least, 1.0),
      brightness=0.0,
      hue=0.0,
    )
    return jnp.round(255.0 * copy).astype(jnp.uint8)

  return jax.lax.map(crop, jax.random.split(key, each))


def told(
  names: Sequence[str],
  targets: Mapping[int, str],
  config: Any,
  outcomes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Say which photographs are behind the numbers of a study.

  Args:
    names: What each photograph shows.
    targets: Classes that patches stand for, and their names.
    config: `photographs`, `crops`, `side`.
    outcomes: Of each network its `seed`, and `ids`: of the photographs of the
      crops that maps are judged on.

  Returns:
    What `page` needs, ready for `results.json`.
  """
  sizes = {part: config.photographs[part] for part in ("test", "validation")}
  parts = [split(o["seed"], len(names), sizes) for o in outcomes]
  return {
    "names": list(names),
    "targets": {str(number): name for number, name in targets.items()},
    "side": config.side,
    "crops": config.crops,
    "parts": [{k: v.tolist() for k, v in part.items()} for part in parts],
    "judged": [
      np.bincount(o["ids"], minlength=len(names)).tolist() for o in outcomes
    ],
  }
