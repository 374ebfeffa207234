"""Strict numerics for every test: no silent promotion of type or rank."""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most tests run a program once: compiling it takes longer than running it.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def optimised():
  """Compile as users do, where the very bits or the speed matter."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)
