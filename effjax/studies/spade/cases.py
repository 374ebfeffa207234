"""What the study examines: networks with Trojans, and their images."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax import data
from effjax.studies.spade import (
  arms,
  crops,
  networks,
  pretrained,
  trojans,
)
from effjax.studies.spade.patches import Patch

Parts = dict[str, dict[str, np.ndarray]]
_CLASSES = 10
_PARTS = ("train", "validation", "test")


class Case(NamedTuple):
  """Networks with Trojans, and their images.

  Attributes:
    classes: Number of classes.
    parts: From a seed to the images to train, tune and test on: `images` uint8
      [N, H, W, C], `classes` and `ids` [N].
    plant: `(seed, parts, place) -> trojans.Network`.
    answer: `(variables, images) -> classes`.
    subject: From variables to the network as a function of its parameters.
    photographs: What results say of photographs, from outcomes; None where
      images are many.
  """

  classes: int
  parts: Callable[[int], Parts]
  plant: Callable[[int, Parts, pathlib.Path], trojans.Network]
  answer: Callable[[Any, np.ndarray], np.ndarray]
  subject: Callable[[Any], arms.Subject]
  photographs: Callable[[Sequence[dict[str, Any]]], Any] | None


def find(config: Any, patches: Sequence[Patch]) -> Case:
  """Find what a config asks for.

  Args:
    config: See `configs/spade`.
    patches: The patches.

  Returns:
    A network of `networks.MODELS` with photographs, or one that is trained.

  Raises:
    ValueError: If the parts of the config do not fit each other.
    FileNotFoundError: If data or weights are not on this machine.
  """
  known = config.model.name in networks.MODELS
  return (_packaged if known else _trained)(config, patches)


def _trained(config: Any, patches: Sequence[Patch]) -> Case:
  """Train networks on grey pictures of ten classes."""
  parts = {
    split: data.images.load(
      config.data.name,
      split,
      directory=config.data.directory or None,
      limit=config.data.limit or None,
    )
    for split in _PARTS
  }
  module = trojans.build(config.model, _CLASSES)

  def plant(seed, parts, place):
    return trojans.plant(
      module,
      seed,
      config.training,
      parts["train"],
      parts["test"],
      patches,
      place,
    )

  def subject(variables):
    found = arms.subject(module, variables)
    return found._replace(kept=(config.first_layer,))

  answer = functools.partial(trojans.predict, module)
  return Case(_CLASSES, lambda seed: parts, plant, answer, subject, None)


def _packaged(config: Any, patches: Sequence[Patch]) -> Case:
  """Fine-tune a packaged network on crops of photographs."""
  directory = config.data.directory or None
  network = networks.load(config.model.name, directory=directory)
  source = data.source(config.data.name, "all", directory=directory)
  classes = source.arrays["classes"]
  _check(config, network, classes, patches)
  pictures = [source[i]["image"] for i in range(len(source))]
  base = network.subject._replace(
    normalise=network.normalise, kept=tuple(network.kept)
  )
  sizes = {p: config.data.photographs[p] for p in ("test", "validation")}

  @functools.lru_cache(maxsize=1)
  def parts(seed):
    return {
      part: crops.cut(
        jax.random.fold_in(jax.random.key(seed), 5),
        pictures,
        classes,
        ids,
        each=config.data.crops,
        side=config.data.side,
        least_area=config.data.least_area,
      )
      for part, ids in crops.split(seed, len(pictures), sizes).items()
    }

  def plant(seed, parts, place):
    return pretrained.plant(
      base, seed, config.training, parts["train"], parts["test"], patches, place
    )

  about = functools.partial(
    crops.told,
    [network.classes[c] for c in classes],
    {p.target: network.classes[p.target] for p in patches},
    config.data,
  )
  return Case(
    len(network.classes),
    parts,
    plant,
    functools.partial(pretrained.predict, base),
    lambda params: base._replace(params=params),
    about,
  )


def _check(config, network, classes, patches) -> None:
  """Reject what a packaged network and few photographs cannot do."""
  if "sparse_head" in config.arms:
    raise ValueError(
      "the arm 'sparse_head' is fitted on images of all classes, of which the"
      " photographs show few: leave it out of arms"
    )
  for patch in patches:
    if not 0 <= patch.target < len(network.classes):
      raise ValueError(
        f"the patch {trojans.name_of(patch)!r} has a class that"
        f" {network.title} has not: 0 to {len(network.classes) - 1}"
      )
    if patch.target in classes:
      raise ValueError(
        f"the patch {trojans.name_of(patch)!r} stands for the class of a"
        f" photograph, {network.classes[patch.target]}: choose another"
      )
