"""Names, sizes and values of the perceptron."""

import jax
import jax.numpy as jnp
import numpy as np

from effjax import models


def test_names_and_values():
  model = models.build("mlp", outputs=3, hidden=(5, 4))
  x = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
  params = jax.jit(model.init)(jax.random.key(0), x)["params"]
  shapes = {
    layer: {name: leaf.shape for name, leaf in leaves.items()}
    for layer, leaves in params.items()
  }
  assert shapes == {
    "dense_0": {"kernel": (7, 5), "bias": (5,)},
    "dense_1": {"kernel": (5, 4), "bias": (4,)},
    "head": {"kernel": (4, 3), "bias": (3,)},
  }
  params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), params)
  y = np.asarray(x, np.float64)
  for layer in ("dense_0", "dense_1", "head"):
    leaves = jax.tree.map(np.float64, params[layer])
    y = y @ leaves["kernel"] + leaves["bias"]
    y = y if layer == "head" else np.maximum(y, 0)
  logits = jax.jit(model.apply)({"params": params}, x)
  np.testing.assert_allclose(logits, y, rtol=1e-5, atol=1e-5)


def test_linear_flattened_and_narrow():
  x = jnp.zeros((2, 4, 4, 1))
  made = lambda **options: jax.eval_shape(
    models.build("mlp", dtype=jnp.bfloat16, **options).init_with_output,
    jax.random.key(0),
    x,
  )
  logits, variables = made(hidden=())
  assert set(variables["params"]) == {"head"}
  assert variables["params"]["head"]["kernel"].shape == (16, 1)
  logits, variables = made()
  leaves = jax.tree.leaves((logits, variables))
  assert logits.shape == (2, 1)
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
