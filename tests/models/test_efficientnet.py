"""EfficientNet-Lite against a network in NumPy, and its stored weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import data, models
from effjax.io import torch_pickle
from effjax.models import efficientnet

TINY = models.EfficientNetLite(
  stages=((1, 3, 1, 1, 4), (2, 5, 2, 3, 6)), stem=4, top=8, outputs=3
)
# Inputs, outputs, kernel size, stride and expansion of its blocks.
BLOCKS = ((4, 4, 3, 1, 1), (4, 6, 5, 2, 3), (6, 6, 5, 1, 3))
GENERATOR = np.random.default_rng(0)


def normal(*shape, scale=1.0):
  return (scale * GENERATOR.standard_normal(shape)).astype(np.float32)


def tiny_state(blocks=BLOCKS):
  """Return random weights under the names of the stored file."""
  state = {}

  def conv(name, outputs, inputs, size):
    scale = (2 / (inputs * size * size)) ** 0.5
    state[f"{name}.weight"] = normal(outputs, inputs, size, size, scale=scale)

  def norm(name, channels):
    state[f"{name}.weight"] = 1 + normal(channels, scale=0.2)
    state[f"{name}.bias"] = 1 + normal(channels)  # so that ReLU6 cuts at 6 too
    state[f"{name}.running_mean"] = normal(channels, scale=0.2)
    state[f"{name}.running_var"] = np.exp(normal(channels, scale=0.2))
    state[f"{name}.num_batches_tracked"] = np.int64(3)

  conv("_conv_stem", 4, 3, 3)
  norm("_bn0", 4)
  for i, (inputs, outputs, size, _, expansion) in enumerate(blocks):
    inner = inputs * expansion
    if expansion > 1:
      conv(f"_blocks.{i}._expand_conv", inner, inputs, 1)
      norm(f"_blocks.{i}._bn0", inner)
    conv(f"_blocks.{i}._depthwise_conv", inner, 1, size)
    norm(f"_blocks.{i}._bn1", inner)
    conv(f"_blocks.{i}._project_conv", outputs, inner, 1)
    norm(f"_blocks.{i}._bn2", outputs)
  conv("_conv_head", 8, blocks[-1][1], 1)
  norm("_bn1", 8)
  state["_fc.weight"], state["_fc.bias"] = normal(3, 8), normal(3)
  return state


class Network:
  """The same network in float64, image by image and tap by tap."""

  def __init__(self, state, blocks=BLOCKS, *, train=False):
    self.state = {key: np.asarray(v, float) for key, v in state.items()}
    self.blocks, self.train, self.after = blocks, train, {}

  def conv(self, x, name, stride=1):
    kernel = self.state[f"{name}.weight"]
    size, rows = kernel.shape[2], -(-x.shape[1] // stride)
    # TensorFlow's rule: what is odd comes after the end.
    total = max((rows - 1) * stride + size - x.shape[1], 0)
    pads = (total // 2, total - total // 2)
    x = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    y = np.zeros((len(x), rows, rows, len(kernel)))
    for i, j in np.ndindex(size, size):
      part = x[:, i:, j:][:, : stride * rows : stride, : stride * rows : stride]
      if kernel.shape[1] == 1:
        y += part * kernel[:, 0, i, j]
      else:
        y += part @ kernel[:, :, i, j].T
    return y

  def norm(self, x, name):
    get = lambda leaf: self.state[f"{name}.{leaf}"]
    mean, var = get("running_mean"), get("running_var")
    if self.train:
      flat = x.reshape(-1, x.shape[3])
      new = flat.mean(0), flat.var(0, ddof=1)
      self.after[name] = 0.99 * mean + 0.01 * new[0], 0.99 * var + 0.01 * new[1]
      mean, var = flat.mean(0), flat.var(0)
    return (x - mean) / np.sqrt(var + 1e-3) * get("weight") + get("bias")

  def __call__(self, x):
    relu6 = lambda x: np.clip(x, 0, 6)
    x = relu6(self.norm(self.conv(x, "_conv_stem", 2), "_bn0"))
    for i, (inputs, outputs, _, stride, expansion) in enumerate(self.blocks):
      name, y = f"_blocks.{i}.", x
      if expansion > 1:
        y = self.conv(y, f"{name}_expand_conv")
        y = relu6(self.norm(y, f"{name}_bn0"))
      y = self.conv(y, f"{name}_depthwise_conv", stride)
      y = relu6(self.norm(y, f"{name}_bn1"))
      y = self.norm(self.conv(y, f"{name}_project_conv"), f"{name}_bn2")
      x = x + y if stride == 1 and inputs == outputs else y
    x = relu6(self.norm(self.conv(x, "_conv_head"), "_bn1")).mean((1, 2))
    return x @ self.state["_fc.weight"].T + self.state["_fc.bias"]


def near(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_logits_of_loaded_weights():
  # Even sides, of which padding is not symmetric.
  state, x = tiny_state(), normal(2, 12, 12, 3)
  module, variables = efficientnet.load(state, module=TINY)
  assert module is TINY
  near(jax.jit(module.apply)(variables, x), Network(state)(x))


def test_statistics_of_the_batch_in_training():
  small = TINY.clone(stages=TINY.stages[:1])
  state, x = tiny_state(BLOCKS[:1]), normal(2, 8, 8, 3)
  module, variables = efficientnet.load(state, module=small)

  @jax.jit
  def train(variables):
    return module.apply(variables, x, train=True, mutable=["batch_stats"])

  logits, after = train(variables)
  reference = Network(state, BLOCKS[:1], train=True)
  near(logits, reference(x))
  stem = after["batch_stats"]["stem_norm"]
  last = after["batch_stats"]["block1"]["project_norm"]
  near([stem["mean"], stem["var"]], reference.after["_bn0"])
  near([last["mean"], last["var"]], reference.after["_blocks.0._bn2"])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"stages": TINY.stages[:1]}, r"has '_blocks\.1\..*', for which"),
    (
      {"stages": (*TINY.stages, (1, 3, 1, 3, 6))},
      r"lacks '_blocks\.3\..*', an array",
    ),
    ({"outputs": 7}, r"'_fc\.bias' of the state has the shape \[3\], .*\[7\]"),
  ],
)
def test_states_of_other_networks_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    efficientnet.load(tiny_state(), module=TINY.clone(**change))


def keys(t):
  """The kernel of Keys 1981 with a = -1/2."""
  t = np.abs(t)
  near = 1.5 * t**3 - 2.5 * t**2 + 1
  far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
  return np.where(t < 1, near, np.where(t < 2, far, 0))


@pytest.mark.parametrize("shape", [(37, 50), (16, 31), (9, 12)])
def test_pictures_are_resized_by_a_bicubic_kernel(shape):
  pytest.importorskip("PIL.Image")
  picture = GENERATOR.integers(60, 190, (*shape, 3)).astype(np.uint8)
  found = efficientnet.preprocess(picture[None], side=16)
  assert found.dtype == np.float32
  assert found.shape == (1, 16, 16, 3)
  x = picture.astype(float)
  for size in shape:  # rows first, then what was columns
    centres = (np.arange(16)[:, None] + 0.5) * size / 16 - 0.5
    weights = keys((np.arange(size) - centres) / max(size / 16, 1))
    weights /= weights.sum(1, keepdims=True)
    x = np.tensordot(x, weights, (0, 1)).transpose(0, 2, 1)
  expected = np.clip(x, 0, 255)
  off = np.abs(np.asarray(found)[0] * 128 + 127 - expected)
  # Whole colours after columns and after rows: halves, the first one passed on
  # with weights whose absolute values sum to at most 1.25.
  assert off.max() < 0.5 + 0.5 * 1.3


def test_colours_are_scaled():
  picture = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
  found = jax.jit(lambda x: efficientnet.preprocess(x, side=4))(picture)
  np.testing.assert_array_equal(found, (np.float32(picture) - 127) / 128)
  with pytest.raises(ValueError, match=r"needs RGB \[N, H, W, 3\], got \(4, 4"):
    efficientnet.preprocess(picture[0])
  with pytest.raises(
    ValueError, match=r"\[4, 4\] pixels are resized to 224 as"
  ):
    efficientnet.preprocess(np.float32(picture))


@pytest.fixture(scope="module")
def stored():
  """The real network's logits of twenty pictures, and their classes."""
  pytest.importorskip("PIL.Image")
  try:
    weights = data.source("efficientnet_lite0", "all").arrays["contents"][0]
    pictures = data.source("imagenet_samples", "all")
  except FileNotFoundError:
    pytest.skip(
      "The weights or pictures are absent: python -m launch.fetch"
      " efficientnet_lite0 imagenet_samples"
    )
  module, variables = efficientnet.load(torch_pickle.parse(weights))
  x = jnp.concatenate(
    [efficientnet.preprocess(example["image"][None]) for example in pictures]
  )
  logits = jax.jit(module.apply)(variables, x)
  return np.asarray(logits), pictures.arrays["classes"]


@pytest.mark.data
@pytest.mark.slow
def test_logits_of_a_picture(stored):
  """Torch computes the same of these pixels, see tests/peers."""
  logits, classes = stored
  assert classes[0] == 243
  np.testing.assert_allclose(
    logits[0, [0, 180, 242, 243, 254, 999]],
    [0.395223, 5.108961, 9.330327, 10.329855, 3.203382, 1.79981],
    atol=1e-4,
  )
  np.testing.assert_array_equal(np.argsort(-logits[0])[:2], [243, 242])


@pytest.mark.data
@pytest.mark.slow
def test_pictures_are_recognised(stored):
  logits, classes = stored
  best = np.argsort(-logits, axis=1)[:, :5]
  assert np.sum(best[:, 0] == classes) == 17
  assert np.sum(best == classes[:, None]) == 20
