import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import training

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "bias" / "pruning.npz"


@pytest.mark.parametrize("epochs", [20, 100])
def test_golden_rates(epochs):
  expected = np.load(GOLDEN)[f"coslr_base0.256_warm5_end{epochs}"]
  rate = training.warmup_cosine(0.256, 5, epochs, steps_per_epoch=3)
  steps = jnp.arange(3 * epochs)
  found = jax.jit(jax.vmap(rate))(steps)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, np.repeat(expected, 3), rtol=1e-6)


def test_without_warmup_and_beyond_the_end():
  rate = training.warmup_cosine(2.0, 0, 4, steps_per_epoch=1)
  expected = [1 + np.cos(np.pi * e / 4) for e in (0, 1, 2, 3, 3, 3)]
  np.testing.assert_allclose([rate(e) for e in range(6)], expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("numbers", "words"),
  [((5, 5, 1), "warmup_epochs"), ((-1, 5, 1), "warmup"), ((1, 5, 0), "steps")],
)
def test_senseless_numbers(numbers, words):
  with pytest.raises(ValueError, match=words):
    training.warmup_cosine(0.1, *numbers)
