"""Strict numerics for every test: no silent promotion of type or rank."""

import gc
import pathlib

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most tests run a program once: compiling it takes longer than running it.
jax.config.update("jax_disable_most_optimizations", True)

# Compiled programs are kept in many objects: looking for garbage among them
# again and again takes a tenth of the time.
gc.set_threshold(200_000, 50, 1000)

# Files of few long tests: begun last, they would keep one process busy alone.
FIRST = (
  "test_kill.py",
  "test_run.py",
  "test_notebooks.py",
  "test_sharding.py",
  "test_tables.py",
  "test_repairs.py",
  "test_transform.py",
)

_files = []  # that this process is done with


def pytest_collection_modifyitems(items):
  """Put the files of long tests first; the order within files stays."""
  last = len(FIRST)
  places = {name: place for place, name in enumerate(FIRST)}
  items.sort(key=lambda item: places.get(pathlib.Path(item.path).name, last))


def pytest_runtest_teardown(item, nextitem):
  """Forget programs between files: all of them would fill gigabytes."""
  if nextitem is not None and nextitem.path != item.path:
    _files.append(item.path)
    if len(_files) % 8 == 0:
      jax.clear_caches()


@pytest.fixture
def optimised():
  """Compile as users do, where the very bits or the speed matter."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)
