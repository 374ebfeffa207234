"""Everything that a training run must carry from one step to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class TrainState(NamedTuple):
  """The state of a run: what is saved, and all that a resumed run needs.

  Attributes:
    step: Number of updates done, int32 [].
    params: Parameters.
    model_state: What the model carries besides, e.g. batch statistics; {} when
      there is nothing.
    opt_state: State of the optimizer; the masks of `pruning.prune` are in it.
    key: Typed random key of the run; the key of a step is folded from it.
    position: Position of the next batch, int32 [].
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  key: jax.Array
  position: jax.Array


def create(
  key: jax.Array,
  params: Any,
  optimizer: optax.GradientTransformation,
  model_state: Any = None,
) -> TrainState:
  """Make the state that a run starts from.

  Args:
    key: Typed random key of the run.
    params: Initial parameters.
    optimizer: The transformation that will update them.
    model_state: Initial batch statistics and the like; None means {}.

  Returns:
    A state at step 0 and position 0.

  >>> state = create(jax.random.key(0), {"w": jnp.ones(2)}, optax.sgd(0.1))
  >>> int(state.step), state.model_state
  (0, {})
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state={} if model_state is None else model_state,
    opt_state=optimizer.init(params),
    key=key,
    position=jnp.zeros((), jnp.int32),
  )


def counters(state: TrainState) -> tuple[int, int]:
  """Read the step and the position of a state, or of a stacked population.

  Args:
    state: A state whose counters are [] or [M].

  Returns:
    (step, position) as Python integers.

  Raises:
    ValueError: If the members of a population are not at the same place.
  """
  step, position = np.unique(state.step), np.unique(state.position)
  if step.size != 1 or position.size != 1:
    raise ValueError(
      f"the members of a population must be at the same step and position, got"
      f" steps {step.tolist()} and positions {position.tolist()}"
    )
  return int(step[0]), int(position[0])
