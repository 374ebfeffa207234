"""The network of tests/golden/spade/captum_cnn.npz as a function of NCHW."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "spade"


@functools.cache
def load(name="captum_cnn"):
  """Returns the arrays of a golden file."""
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return dict(file)


def params():
  """Returns the parameters, named as in the file."""
  return {
    name.removeprefix("param/"): array
    for name, array in load().items()
    if name.startswith("param/") and "batches" not in name
  }


def conv(params, name, x, stride, padding):
  y = lax.conv_general_dilated(
    x,
    params[f"{name}.weight"],
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=("NCHW", "OIHW", "NCHW"),
    precision=lax.Precision.HIGHEST,
  )
  return y + params[f"{name}.bias"][None, :, None, None]


def norm(params, name, x):
  mean, var, scale, bias = (
    params[f"{name}.{part}"][None, :, None, None]
    for part in ("running_mean", "running_var", "weight", "bias")
  )
  return (x - mean) * lax.rsqrt(var + 1e-5) * scale + bias


def dense(params, name, x):
  y = jnp.matmul(x, params[f"{name}.weight"].T, precision="highest")
  return y + params[f"{name}.bias"][None]


def network(params, x):
  """Returns logits [B, 5] of images [B, 3, 16, 16]."""
  x = jax.nn.relu(norm(params, "bn1", conv(params, "conv1", x, 1, 1)))
  window = (1, 1, 2, 2)
  x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
  x = jax.nn.relu(norm(params, "bn2", conv(params, "conv2", x, 2, 1)))
  x = jax.nn.relu(conv(params, "conv3", x, 1, 0))
  x = jnp.mean(x, (2, 3))
  return dense(params, "fc2", jax.nn.relu(dense(params, "fc1", x)))


def variables(module, x):
  """Returns variables of a linen module without compiling its `init`."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, train=False), x
  )

  def fill(path, leaf):
    name = path[-1].key
    if name in ("scale", "var"):
      return np.ones(leaf.shape, leaf.dtype)
    scale = np.prod(leaf.shape[:-1]) ** -0.5 if name == "kernel" else 0.1
    return (scale * rng.normal(size=leaf.shape)).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(fill, shapes)
