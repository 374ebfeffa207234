"""Short compilation: values are tested here, not speed."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def few_optimizations():
  """Compiles plainly, in half of the time."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)
