"""The image models in torch, with the names that their parameters have here.

Torch is imported inside the functions: tests that need it are rarely chosen.
"""

import jax
import numpy as np

from effjax.models import mobilenet

_SPELLING = {"kernel": "weight", "scale": "weight"}
_SPELLING |= {"mean": "running_mean", "var": "running_var"}
# HWIO to OIHW, [I, O] to [O, I].
_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


def conv(inputs, outputs, size, strides=1, groups=1):
  from torch import nn

  return nn.Conv2d(
    inputs, outputs, size, strides, size // 2, groups=groups, bias=False
  )


def resnet(stages, *, width, outputs, bottleneck):
  """Make a ResNet of version 1 with its stride on the 3x3 convolution."""
  from torch import nn

  class Block(nn.Module):
    def __init__(self, inputs, features, strides):
      super().__init__()
      plan = [(features, 3, strides), (features, 3, 1)]
      if bottleneck:
        plan = [(features, 1, 1), plan[0], (4 * features, 1, 1)]
      self.depth, self.outputs = len(plan), plan[-1][0]
      width = inputs
      for i, (features, size, strides) in enumerate(plan, start=1):
        setattr(self, f"conv{i}", conv(width, features, size, strides))
        setattr(self, f"norm{i}", nn.BatchNorm2d(features))
        width = features
      strides = max(step for _, _, step in plan)
      self.projects = strides > 1 or inputs != self.outputs
      if self.projects:
        self.projection_conv = conv(inputs, self.outputs, 1, strides)
        self.projection_norm = nn.BatchNorm2d(self.outputs)

    def forward(self, x):
      y = x
      for i in range(1, self.depth + 1):
        y = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(y))
        y = y.relu() if i < self.depth else y
      if self.projects:
        x = self.projection_norm(self.projection_conv(x))
      return (x + y).relu()

  class ResNet(nn.Module):
    def __init__(self):
      super().__init__()
      self.stem_conv = conv(3, width, 7, 2)
      self.stem_norm = nn.BatchNorm2d(width)
      self.blocks, inputs = [], width
      for stage, blocks in enumerate(stages):
        for block in range(blocks):
          strides = 2 if stage and not block else 1
          made = Block(inputs, width * 2**stage, strides)
          name = f"stage{stage + 1}_block{block + 1}"
          setattr(self, name, made)
          self.blocks.append(name)
          inputs = made.outputs
      self.head = nn.Linear(inputs, outputs)

    def forward(self, x):
      x = self.stem_norm(self.stem_conv(x)).relu()
      x = nn.functional.max_pool2d(x, 3, 2, 1)
      for name in self.blocks:
        x = getattr(self, name)(x)
      return self.head(x.mean((2, 3)))

  return ResNet()


def mobilenet_v1(*, width, outputs):
  """Make a MobileNet of version 1."""
  from torch import nn

  class Block(nn.Module):
    def __init__(self, inputs, features, strides):
      super().__init__()
      self.depthwise_conv = conv(inputs, inputs, 3, strides, groups=inputs)
      self.depthwise_norm = nn.BatchNorm2d(inputs)
      self.pointwise_conv = conv(inputs, features, 1)
      self.pointwise_norm = nn.BatchNorm2d(features)

    def forward(self, x):
      x = self.depthwise_norm(self.depthwise_conv(x)).relu()
      return self.pointwise_norm(self.pointwise_conv(x)).relu()

  class MobileNet(nn.Module):
    def __init__(self):
      super().__init__()
      inputs = int(32 * width)
      self.stem_conv = conv(3, inputs, 3, 2)
      self.stem_norm = nn.BatchNorm2d(inputs)
      for i, (features, strides) in enumerate(mobilenet.BLOCKS, start=1):
        features = int(features * width)
        setattr(self, f"block{i}", Block(inputs, features, strides))
        inputs = features
      self.head = nn.Linear(inputs, outputs)

    def forward(self, x):
      x = self.stem_norm(self.stem_conv(x)).relu()
      for i in range(1, len(mobilenet.BLOCKS) + 1):
        x = getattr(self, f"block{i}")(x)
      return self.head(x.mean((2, 3)))

  return MobileNet()


def images(x):
  """Return NHWC images as a tensor NCHW."""
  import torch

  return torch.from_numpy(np.array(np.transpose(x, (0, 3, 1, 2))))


def as_torch(variables):
  """Return {torch's name: NumPy array in torch's order of axes}."""
  arrays = {}
  for collection in variables.values():
    for path, leaf in jax.tree.leaves_with_path(collection):
      name = jax.tree_util.keystr(path, simple=True, separator=".")
      stem, last = name.rsplit(".", 1)
      value = np.asarray(leaf).transpose(_AXES[leaf.ndim])
      arrays[f"{stem}.{_SPELLING.get(last, last)}"] = np.array(value)
  return arrays


def copy(variables, module):
  """Copy the variables of a linen module into a torch one."""
  import torch

  state = {k: torch.from_numpy(v) for k, v in as_torch(variables).items()}
  missing, unexpected = module.load_state_dict(state, strict=False)
  assert not unexpected
  assert all(name.endswith("num_batches_tracked") for name in missing)
