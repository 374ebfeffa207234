"""Numbers that are not finite, and what is saved about them."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.io import checkpoint, files
from effjax.training.state import TrainState


class NotFiniteError(FloatingPointError):
  """A loss or a parameter is infinite or not a number.

  Attributes:
    step: The step that shows it.
    loss: Its loss, [] or [M]; None if a parameter shows it.
  """

  def __init__(self, message: str, *, step: int, loss: Any = None):
    super().__init__(message)
    self.step, self.loss = step, loss


def save(
  directory: str | os.PathLike,
  step: int,
  report: Mapping[str, Any],
  measures: Mapping[str, Any],
  state: TrainState,
) -> None:
  """Save what may explain a number that is not finite.

  Writes a checkpoint `directory/000123` of the state, and `report.json` with
  the measures of the step and the leaves that are concerned.

  Args:
    directory: Where to.
    step: The step that shows it.
    report: What else is to be told; values that JSON can hold.
    measures: The measures of the step.
    state: The state that is at hand.
  """
  place = checkpoint.Steps(directory=pathlib.Path(directory), keep=100)
  report = {
    **report,
    "measures": {k: str(np.asarray(v).tolist()) for k, v in measures.items()},
    "not_finite": count_not_finite(state),
  }
  place.save(step, state, metadata=report)
  if jax.process_index() == 0:
    files.write_json(place.directory / "report.json", report)


@jax.jit
def all_finite(params: Any) -> jax.Array:
  """Say whether all numbers of a tree are finite.

  Args:
    params: Any tree; leaves that are not floating count as finite.

  Returns:
    Bool [].

  >>> bool(all_finite({"a": jnp.ones(2), "b": jnp.arange(2)}))
  True
  """
  flags = [jnp.all(jnp.isfinite(x)) for x in _floating(params).values()]
  return jnp.all(jnp.stack(flags)) if flags else jnp.array(True)


def count_not_finite(state: Any) -> dict[str, int]:
  """Count the numbers that are not finite.

  Args:
    state: Any tree of arrays.

  Returns:
    The counts of the leaves that have some, by name.

  >>> count_not_finite({"a": jnp.array([1.0, jnp.nan]), "b": jnp.ones(2)})
  {'a': 1}
  """
  count = jax.jit(lambda x: jnp.sum(~jnp.isfinite(x)))
  counts = {name: int(count(x)) for name, x in _floating(state).items()}
  return {name: number for name, number in counts.items() if number}


def _floating(state: Any) -> dict[str, jax.Array]:
  named = zip(
    jax.tree.leaves(tree.names(state)), jax.tree.leaves(state), strict=True
  )
  return {name: x for name, x in named if tree.is_floating(x)}
