"""Pictures of the study: maps of dense and traced networks, visualisations."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import attribution
from effjax.studies import elements
from effjax.studies.spade import arms, trojans
from effjax.studies.spade.examiner import Examiner, Explained

_SHOWN = ("saliency", "lrp")
_TITLES = {"dense": "dense", "traced": arms.TITLES["fast_spade"]}
_EXAMPLES = 2  # of each patch
_LARGE = 64  # side of images that the usual shifts are for


def chosen(flipped: trojans.Flipped) -> np.ndarray:
  """Choose the images that are shown: the first ones of each patch."""
  return np.concatenate(
    [
      np.flatnonzero(flipped.patches == number)[:_EXAMPLES]
      for number in np.unique(flipped.patches)
    ]
  )


def save(
  place: pathlib.Path,
  examiner: Examiner,
  flipped: trojans.Flipped,
  traced: Mapping[int, Any],
  config: Any,
) -> None:
  """Draw examples of maps, and what classes look like to the networks.

  Args:
    place: Directory of the network; `pictures.npz` is written there.
    examiner: The network.
    flipped: Images with patches.
    traced: Parameters of FastSPADE, by the numbers of the chosen images.
    config: `visualise_steps`, 0 for no visualisations.
  """
  rows = chosen(flipped)
  pick = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(traced.get, rows))
  dense = examiner.network.params
  images, targets = flipped.images[rows], flipped.targets[rows]
  found: dict[str, Any] = {
    "images": images,
    "masks": flipped.masks[rows],
    "targets": targets,
  }
  for arm, explained in (
    ("dense", Explained(dense)),
    ("traced", Explained(pick, per_example=True)),
  ):
    for group in examiner.groups(images, targets, explained):
      for name in (name for name in _SHOWN if name in examiner.methods):
        maps = np.asarray(examiner.maps(name, group))[: group.real]
        found.setdefault(f"{name}_{arm}", []).extend(maps)
  if config.visualise_steps:
    draw = functools.partial(
      _visualise,
      examiner.network.f,
      examiner.network.normalise,
      images.shape[1:],
      config.visualise_steps,
    )
    firsts = np.arange(0, len(rows), _EXAMPLES)
    key = examiner.key(4)
    found["visual_dense"] = jnp.stack(
      [draw(key, dense, targets[i]) for i in firsts]
    )
    found["visual_traced"] = jnp.stack(
      [
        draw(key, jax.tree.map(lambda leaf, i=i: leaf[i], pick), targets[i])
        for i in firsts
      ]
    )
    found["visual_of"] = firsts
  arrays: Any = {name: np.asarray(value) for name, value in found.items()}
  np.savez_compressed(place / "pictures.npz", **arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _visualise(f, normalise, shape, steps, key, params, target):
  """Draw what raises the logit of a class."""

  def logit(image):
    return f(params, normalise(image[None]))[0, target]

  small = attribution.Transforms(shift=2, jitter=1)
  transforms = small if shape[0] < _LARGE else attribution.Transforms()
  return attribution.visualize(
    key, logit, shape=shape, steps=steps, transforms=transforms
  )


def sections(
  place: pathlib.Path, seeds: Sequence[int]
) -> list[elements.Section]:
  """Make the sections of the pictures of the first network.

  Args:
    place: Directory of the study.
    seeds: Its seeds.

  Returns:
    Sections; none where there are no pictures.
  """
  path = place / f"seed{seeds[0]}" / "pictures.npz"
  try:
    with np.load(path) as saved:
      found = {name: saved[name] for name in saved.files}
  except (FileNotFoundError, ValueError):
    return []
  parts: list[Any] = []
  for name in (n for n in _SHOWN if f"{n}_dense" in found):
    shown = []
    for i, target in enumerate(found["targets"]):
      shown.append(
        elements.Picture(
          _plain(found["images"][i]), f"called class {target}, by its patch"
        )
      )
      for arm, title in (
        ("dense", "dense"),
        ("traced", arms.TITLES["fast_spade"]),
      ):
        shown.append(
          elements.Picture(heat(found[f"{name}_{arm}"][i]), f"{title}, {name}")
        )
    parts += [
      elements.Heading(name),
      elements.Gallery(
        shown,
        caption="Bright is important. The patch alone makes the network answer"
        " with its class; a good map shows the patch and nothing else.",
      ),
    ]
  result = [elements.Section("What the maps show", parts)] if parts else []
  if "visual_dense" in found:
    result.append(elements.Section("What a class looks like", _visuals(found)))
  return result


def _visuals(found: dict[str, np.ndarray]) -> list[Any]:
  shown = []
  for j, i in enumerate(found["visual_of"]):
    target = found["targets"][i]
    shown += [
      elements.Picture(_plain(found["images"][i]), "the example"),
      elements.Picture(
        _plain(found["visual_dense"][j]), f"class {target}, dense"
      ),
      elements.Picture(
        _plain(found["visual_traced"][j]),
        f"class {target}, {arms.TITLES['fast_spade']}",
      ),
    ]
  return [
    elements.Gallery(
      shown,
      caption="Images found by gradient ascent on the logit of the class that"
      " the patch stands for, in the dense network and in the trace of the"
      " example beside them.",
    )
  ]


def heat(values: np.ndarray) -> np.ndarray:
  """Scale a map to a picture; what is negative is black.

  Args:
    values: [H, W].

  Returns:
    Floating [H, W] from 0 to 1.

  >>> heat(np.array([[-1.0, 2.0]])).tolist()
  [[0.0, 1.0]]
  """
  positive = np.maximum(np.asarray(values, float), 0.0)
  # One outlier must not darken all the rest.
  top = max(np.quantile(positive, 0.995), 1e-12)
  return np.clip(positive / top, 0.0, 1.0)


def _plain(image: np.ndarray) -> np.ndarray:
  return image[..., 0] if image.shape[-1] == 1 else image
