"""The data of the bias study: what is trained on, and what is measured."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from effjax import tree
from effjax.data import batches as batches_lib
from effjax.data import (
  celeba,
  celeba_batches,
  images,
  registry,
  sources,
  tabular,
)

# How often the marked label comes with the mark in training.
SKEWS = {"strong": images.STRONG, "weak": images.WEAK}
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """A multi-label problem with identity groups.

  Attributes:
    attributes: Names of the A labels.
    groups: Names of the G identity groups.
    marked: For groups that are planted marks the attribute they go along with.
    labels: For each split bool [N, A].
    memberships: For each split bool [N, G].
    shape: Height, width and channels of a picture, or the number of features.
    train: `train(seed, batch_size)` gives batches of images (uint8, or float32
      features) and labels.
    pictures: `pictures(split, batch_size)` yields uint8 [B, H, W, C], or
      float32 [B, F], in order; the last one may be shorter.
    provenance: Where the data comes from.
  """

  attributes: tuple[str, ...]
  groups: tuple[str, ...]
  marked: dict[str, str]
  labels: dict[str, np.ndarray]
  memberships: dict[str, np.ndarray]
  shape: tuple[int, ...]
  train: Callable[[int, int], batches_lib.Batches]
  pictures: Callable[[str, int], Iterator[np.ndarray]]
  provenance: dict[str, Any]

  def families(self) -> dict[str, tuple[int, ...]]:
    """Which groups part the samples together.

    Returns:
      For each family the columns of its groups: "sex" for "sex=female" and
      "sex=male". A group that stands alone is compared with all others.
    """
    found: dict[str, list[int]] = {}
    for column, name in enumerate(self.groups):
      family = re.split("=|<|>=", name)[0]
      found.setdefault(family, []).append(column)
    return {name: tuple(columns) for name, columns in found.items()}


def load(config: Any) -> Problem:
  """Load the data that a configuration names.

  Args:
    config: The section `data` of a configuration.

  Returns:
    The problem.

  Raises:
    ValueError: If the data, an attribute, a mark or a skew does not exist.
    FileNotFoundError: If the data is not on this machine.
  """
  known = (*images.VIEWS, *tabular.LAYOUTS, "celeba")
  if config.name not in known:
    raise ValueError(
      f"data.name {config.name!r} is unknown; choose"
      f" {', '.join(tree.nearest(config.name, known))}"
    )
  if config.name in tabular.LAYOUTS:
    return _table(config)
  return _celeba(config) if config.name == "celeba" else _grey(config)


def restrict(problem: Problem, attributes: Sequence[str]) -> Problem:
  """Leave out all but some attributes of a problem.

  Args:
    problem: The problem.
    attributes: Names of the attributes to keep, in order.

  Returns:
    A problem with these labels; its groups stay.
  """
  columns = [problem.attributes.index(name) for name in attributes]
  return dataclasses.replace(
    problem,
    attributes=tuple(attributes),
    labels={split: x[:, columns] for split, x in problem.labels.items()},
    marked={g: a for g, a in problem.marked.items() if a in attributes},
  )


def _column(names: tuple[str, ...], name: str) -> int:
  if name not in names:
    raise ValueError(
      f"there is no attribute {name!r}; the nearest are"
      f" {', '.join(tree.nearest(name, names, 3))}"
    )
  return names.index(name)


def _fractions(skew: str, split: str) -> tuple[float, float]:
  if skew not in SKEWS:
    raise ValueError(
      f"there is no skew {skew!r} of a mark; choose {' or '.join(SKEWS)}"
    )
  return SKEWS[skew] if split == "train" else images.BALANCED


def _key(seed: int, mark: int, split: str) -> jax.Array:
  key = jax.random.fold_in(jax.random.key(seed), mark)
  return jax.random.fold_in(key, SPLITS.index(split))


def _grey(config: Any) -> Problem:
  """Load Fashion-MNIST, or a stand-in that is named, into memory."""
  names = images.names(config.name)
  directory = config.get("directory") or None
  limits = {
    "train": config.limit,
    "validation": None,
    "test": config.test_limit,
  }
  loaded = {}
  for split in SPLITS:
    arrays = images.load(
      config.name,
      split,
      directory=directory,
      limit=limits[split],
      validation=config.validation,
      seed=config.seed,
    )
    for i, mark in enumerate(config.marks):
      arrays = images.with_mark(
        _key(config.seed, i, split),
        arrays,
        _column(names, mark["attribute"]),
        mark=mark["mark"],
        fractions=_fractions(mark["skew"], split),
      )
    loaded[split] = arrays
  train = {k: loaded["train"][k] for k in ("images", "labels")}

  def pictures(split: str, batch_size: int) -> Iterator[np.ndarray]:
    whole = loaded[split]["images"]
    for start in range(0, len(whole), batch_size):
      yield whole[start : start + batch_size]

  source = sources.source(
    config.name, _any_file(config.name), directory=directory
  )
  return Problem(
    attributes=names,
    groups=(*images.groups(config.name), *_mark_names(config.marks)),
    marked={_mark_name(m): m["attribute"] for m in config.marks},
    labels={split: loaded[split]["labels"] for split in SPLITS},
    memberships={split: loaded[split]["groups"] for split in SPLITS},
    shape=train["images"].shape[1:],
    train=lambda seed, size: batches_lib.from_arrays(train, size, seed=seed),
    pictures=pictures,
    provenance=dict(source.provenance),
  )


def _table(config: Any) -> Problem:
  """Load a table of persons, whose groups are protected attributes."""
  if config.get("marks"):
    raise ValueError("marks are planted into pictures; a table has none")
  opened = {
    split: tabular.load(
      config.name,
      split,
      use_protected=config.use_protected,
      validation=config.get("validation"),
      seed=config.seed,
      directory=config.get("directory") or None,
    )
    for split in SPLITS
  }
  train = {
    "images": opened["train"].arrays["features"],
    "labels": opened["train"].arrays["labels"],
  }

  def features(split: str, batch_size: int) -> Iterator[np.ndarray]:
    whole = opened[split].arrays["features"]
    for start in range(0, len(whole), batch_size):
      yield whole[start : start + batch_size]

  names = opened["train"].names
  return Problem(
    attributes=tuple(names["labels"]),
    groups=tuple(names["groups"]),
    marked={},
    labels={split: x.arrays["labels"] for split, x in opened.items()},
    memberships={split: x.arrays["groups"] for split, x in opened.items()},
    shape=train["images"].shape[1:],
    train=lambda seed, size: batches_lib.from_arrays(train, size, seed=seed),
    pictures=features,
    provenance=dict(opened["test"].provenance),
  )


def _any_file(name: str) -> str:
  return sources.declared(name).splits[0]


def _mark_name(mark: Any) -> str:
  return f"mark_{mark['mark']}"


def _mark_names(marks: Any) -> tuple[str, ...]:
  return tuple(_mark_name(mark) for mark in marks)


def _first(source: registry.Source, count: int | None) -> registry.Source:
  """Leave out all but the first examples of a source."""
  if count is None or count >= len(source):
    return source
  arrays = {name: array[:count] for name, array in source.arrays.items()}
  return dataclasses.replace(source, arrays=arrays, length=count)


def _celeba(config: Any) -> Problem:
  """Open CelebA, whose pictures are read from disk as they are needed."""
  if len(config.marks) > 1:
    raise ValueError("CelebA takes one planted mark at most")
  limits = {
    "train": config.get("limit"),
    "validation": config.get("validation"),
    "test": config.get("test_limit"),
  }
  opened = {
    split: _first(
      sources.source(
        "celeba", split, directory=config.get("directory") or None
      ),
      limits[split],
    )
    for split in SPLITS
  }
  marks: dict[str, Any] = dict.fromkeys(SPLITS)
  if config.marks:
    mark = config.marks[0]
    column = _column(celeba.ATTRIBUTES, mark["attribute"])
    for split in SPLITS:
      marks[split] = images.draw(
        _key(config.seed, 0, split),
        opened[split].arrays["labels"][:, column],
        _fractions(mark["skew"], split),
      )

  def batches(
    split: str, size: int, seed: int, train: bool
  ) -> batches_lib.Batches:
    return celeba_batches.batches(
      opened[split],
      size,
      seed=seed,
      train=train,
      size=config.size,
      mark=config.marks[0]["mark"] if config.marks else None,
      marked=marks[split],
      cache=config.get("cache") or None,
    )

  def pictures(split: str, batch_size: int) -> Iterator[np.ndarray]:
    many = len(opened[split])
    size = min(batch_size, many)
    whole = batches(split, size, 0, False)
    for position in range(many // size):
      yield whole[position]["images"]
    if many % size:
      # Whole batches only come in whole; the rest is read one by one.
      single = batches(split, 1, 0, False)
      rest = range(many - many % size, many)
      yield np.concatenate([single[i]["images"] for i in rest])

  def train(seed: int, size: int) -> batches_lib.Batches:
    full = batches("train", size, seed, True)
    keep = lambda batch: {k: batch[k] for k in ("images", "labels")}
    return dataclasses.replace(full, get=lambda i: keep(full.get(i)))

  groups = {
    split: opened[split].arrays["groups"]
    if marks[split] is None
    else np.concatenate(
      [opened[split].arrays["groups"], marks[split][:, None]], axis=1
    )
    for split in SPLITS
  }
  return Problem(
    attributes=celeba.ATTRIBUTES,
    groups=(*celeba.IDENTITY, *_mark_names(config.marks)),
    marked={_mark_name(m): m["attribute"] for m in config.marks},
    labels={split: opened[split].arrays["labels"] for split in SPLITS},
    memberships=groups,
    shape=(config.size, config.size, 3),
    train=train,
    pictures=pictures,
    provenance=dict(opened["train"].provenance),
  )
