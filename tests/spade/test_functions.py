"""What the layers of any function meet."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from effjax import pruning, spade
from effjax.pruning import obs

KEY = jax.random.key(0)


def test_functions_of_any_layout_are_captured():
  """Kernels [O, I, kh, kw] and [O, I], as torch and equinox keep them."""

  def f(params, x):
    x = jax.lax.conv_general_dilated(
      x,
      params["conv"],
      (1, 1),
      ((1, 1), (0, 0)),
      dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    x = jax.nn.relu(x).reshape(x.shape[0], -1)
    return x @ params["head"].T

  x = jax.random.normal(KEY, (3, 2, 5, 5))
  params = {
    "conv": jax.random.normal(KEY, (4, 2, 3, 3)),
    "head": jax.random.normal(KEY, (3, 60)),
  }
  capture = spade.capture_function(f)
  logits, inputs = capture(params, x)
  np.testing.assert_allclose(logits, f(params, x), rtol=1e-5)
  np.testing.assert_array_equal(inputs["conv"], jnp.moveaxis(x, 1, 3))
  rules = [("conv", 0.5), ("head", None)]
  pruned = spade.trace(
    KEY, capture, params, x[:1], rules, copies=1, augment=None
  )
  gram = pruning.conv_input_gram(
    jnp.moveaxis(x[:1], 1, 3), 3, padding=((1, 1), (0, 0))
  )
  matrix = params["conv"].reshape(4, -1)
  expected = obs.sparsegpt(matrix, gram, 0.5, mask_block=9)
  np.testing.assert_allclose(
    pruned["conv"][0].reshape(4, -1), expected.weights, atol=1e-4
  )
  known = capture.layers(params, x)
  assert known["conv"].axes == (2, 3, 1, 0)
  assert known["head"].axes == (1, 0)
  np.testing.assert_array_equal(pruned["head"][0], params["head"])


def test_what_is_no_layer_of_a_function_is_passed_by():
  def f(params, x):
    x = jnp.einsum("bi,ij->bij", x, params["outer"]).sum(2)
    x, _ = lax.scan(lambda c, _: (jnp.tanh(c @ params["loop"]), 0), x, None, 2)
    x = lax.stop_gradient(jax.nn.relu(x @ params["first"]))
    return (
      x @ params["last"] + jnp.einsum("bi,ij->b", x, params["all"])[:, None]
    )

  names = ("outer", "loop", "first", "last", "all")
  params = {name: jax.random.normal(KEY, (4, 4)) for name in names}
  x = jax.random.normal(KEY, (3, 4))
  logits, inputs = spade.capture_function(f)(params, x)
  np.testing.assert_allclose(logits, f(params, x), rtol=1e-6)
  assert set(inputs) == {"first", "last"}
