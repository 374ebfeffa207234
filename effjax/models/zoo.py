"""The table of models that configurations choose from."""

import difflib
import functools
import inspect
from typing import Any

from flax import linen as nn

from effjax.models.cnn import CNN
from effjax.models.efficientnet import EfficientNetLite
from effjax.models.mlp import MLP
from effjax.models.mobilenet import MobileNetV1
from effjax.models.resnet import ResNet

MODELS = {
  "cnn": CNN,
  "efficientnet_lite0": EfficientNetLite,
  "mlp": MLP,
  "mobilenet_v1": MobileNetV1,
  "resnet18": functools.partial(ResNet, stage_sizes=(2, 2, 2, 2)),
  "resnet34": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3)),
  "resnet50": functools.partial(
    ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True
  ),
}


def _nearest(name, choices):
  near = difflib.get_close_matches(name, choices, n=3, cutoff=0.3)
  return ", ".join(near or sorted(choices))


def build(name: str, **kwargs: Any) -> nn.Module:
  """Make a model of the table `MODELS`.

  Args:
    name: a key of `MODELS`.
    **kwargs: attributes of the module, for example `outputs=40`.

  Returns:
    A linen module; `module.init(key, images, train=False)` gives its variables
    and `module.apply(variables, images, train=...)` its logits [N, outputs].

  Raises:
    ValueError: no such model or attribute; the message names the nearest.

  Examples:
    >>> build("resnet18", outputs=40, stem="cifar").width
    64
  """
  if name not in MODELS:
    raise ValueError(
      f"There is no model {name!r}; the nearest names are"
      f" {_nearest(name, MODELS)}."
    )
  fields = set(inspect.signature(MODELS[name]).parameters) - {"parent", "name"}
  for key in kwargs:
    if key not in fields:
      raise ValueError(
        f"Model {name!r} has no attribute {key!r}; the nearest names are"
        f" {_nearest(key, fields)}."
      )
  return MODELS[name](**kwargs)
