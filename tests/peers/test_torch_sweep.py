"""The loop of PyTorch that the benchmark of edits runs does what ours does."""

from typing import Any

import jax
import numpy as np
import pytest

from effjax import tree
from effjax.studies.edit import updates
from effjax.studies.edit.examiner import MEASURES
from launch.benchmarks import editing

pytestmark = pytest.mark.peers


def test_weights_and_measures_after_an_edit():
  case: Any = editing._sweep(True)
  full, lora = case.ours()
  theirs = case.peers["torch, 1 threads"]()
  assert len(theirs) == len(editing.ARMS)
  shared = case.ours.keywords
  for number, (arm, run) in enumerate(shared["made"]):
    mine, place = (full, number) if number < 2 else (lora, number - 2)
    after = jax.tree.map(lambda x, i=place: x[i], mine.theta)
    if arm.method == "lora":
      after = updates.merged(shared["base"], after, run)
    weights, history = theirs[number]
    names = jax.tree.leaves(tree.names(after))
    moved = 0.0
    for name, leaf, first in zip(
      names,
      jax.tree.leaves(after),
      jax.tree.leaves(shared["base"]),
      strict=True,
    ):
      np.testing.assert_allclose(leaf, weights[name], rtol=1e-4, atol=2e-5)
      moved = max(moved, float(np.abs(leaf - first).max()))
    assert moved > 1e-3, arm
    for i, name in enumerate(MEASURES):
      np.testing.assert_allclose(
        mine.history[name][place], history[:, i], rtol=1e-2, atol=1e-4
      )
