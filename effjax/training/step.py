"""One training step, and the same step for many models at once."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from effjax.training.state import TrainState

Batch = Mapping[str, Any]
Measures = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Measures]]
Loss = Callable[..., tuple[jax.Array, tuple[Any, Measures]]]


def make_step(
  loss: Loss,
  optimizer: optax.GradientTransformation,
  *,
  accumulate: int = 1,
) -> Step:
  """Make a pure training step of a loss and an optimizer.

  The gradients reach the optimizer twice: as its updates and, untouched by the
  links of a chain before, as the extra argument `grads` (the scores of
  `pruning.prune` may need them).

  Args:
    loss: `loss(params, model_state, batch, key, train)` that returns
      `(value, (model_state, measures))`: the mean over the batch, the new
      batch statistics, and a dict of scalars to report.
    optimizer: Any optax transformation.
    accumulate: Into how many micro-batches a batch is split. Their gradients
      and measures are averaged, which for a mean loss gives the result of the
      whole batch up to rounding; batch statistics pass through them in order.

  Returns:
    `step(state, batch) -> (state, measures)`, to be jitted by the caller;
    `measures` holds "loss" and what the loss reports, all float32.

  Raises:
    ValueError: If `accumulate` is less than 1 or, when the step is traced, does
      not divide the batch.

  >>> def loss(params, model_state, batch, key, train):
  ...   return jnp.mean((params - batch["x"]) ** 2), (model_state, {})
  >>> from effjax.training import create
  >>> optimizer = optax.sgd(0.5)
  >>> state = create(jax.random.key(0), jnp.zeros(()), optimizer)
  >>> state, measures = make_step(loss, optimizer)(state, {"x": jnp.ones(4)})
  >>> float(state.params), float(measures["loss"]), int(state.step)
  (1.0, 1.0, 1)
  """
  if accumulate < 1:
    raise ValueError(f"accumulate must be at least 1, got {accumulate}")
  update = optax.with_extra_args_support(optimizer).update
  value_and_grad = jax.value_and_grad(loss, has_aux=True)

  def gradients(params, model_state, batch, key):
    (value, (model_state, measures)), grads = value_and_grad(
      params, model_state, batch, key, True
    )
    measures = {"loss": value, **measures}
    measures = {k: jnp.asarray(v, jnp.float32) for k, v in measures.items()}
    return grads, model_state, measures

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Measures]:
    state, batch = _fence((state, batch))
    key = jax.random.fold_in(state.key, state.step)
    if accumulate == 1:
      grads, model_state, measures = gradients(
        state.params, state.model_state, batch, key
      )
    else:
      grads, model_state, measures = _accumulated(
        gradients, state, batch, key, accumulate
      )
    grads, model_state, measures = _fence((grads, model_state, measures))
    # Optax mixes int32 counts and floats; that is not ours to forbid.
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = update(
        grads, state.opt_state, state.params, grads=grads
      )
    state = TrainState(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      model_state=model_state,
      opt_state=opt_state,
      key=state.key,
      position=state.position + 1,
    )
    return _fence((state, measures))

  return step


def _fence(tree: Any) -> Any:
  """Keep the CPU compiler from fusing across a boundary of the step.

  What is fused decides how sums are rounded. With its boundaries fixed, a step
  compiled by itself and one inside the loop of a population round alike.
  """
  if jax.default_backend() != "cpu":
    return tree
  return jax.lax.optimization_barrier(tree)


def _accumulated(
  gradients: Callable[..., Any],
  state: TrainState,
  batch: Batch,
  key: jax.Array,
  count: int,
) -> tuple[Any, Any, Measures]:
  """Average gradients and measures over micro-batches, one after another."""

  def split(name: str, x: Any) -> jax.Array:
    x = jnp.asarray(x)
    if x.shape[0] % count:
      raise ValueError(
        f"accumulate={count} does not divide the batch of {x.shape[0]} in"
        f" {name!r}"
      )
    # Strided, so that rows split over devices stay on their device.
    return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

  def body(model_state, inputs):
    micro, index = inputs
    grads, model_state, measures = gradients(
      state.params, model_state, micro, jax.random.fold_in(key, index)
    )
    return model_state, (grads, measures)

  def accumulating(carry, inputs):
    model_state, total = carry
    model_state, new = body(model_state, inputs)
    total = jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, new)
    return (model_state, total), None

  micros = {name: split(name, x) for name, x in batch.items()}
  inputs = (micros, jnp.arange(count))
  first = jax.tree.map(lambda x: x[0], inputs)
  _, shapes = jax.eval_shape(body, state.model_state, first)
  wide = lambda dtype: jnp.float32 if dtype.itemsize < 4 else dtype
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, wide(s.dtype)), shapes)
  (model_state, total), _ = jax.lax.scan(
    accumulating, (state.model_state, zeros), inputs
  )
  grads, measures = jax.tree.map(
    lambda t, s: (t / count).astype(s.dtype), total, shapes
  )
  return grads, model_state, measures


def population(step: Step, mapping: str | None = None) -> Step:
  """Map a step over the members of a population.

  Args:
    step: A step for one model.
    mapping: How. "vmap" trains the members side by side; batched convolutions
      suit accelerators and are slow on a CPU. "map" trains each by itself, bit
      for bit as alone: `fit` compiles the step of one member and calls it for
      all, as many at a time as there are cores. Jitted by yourself it is a
      loop, which copies a member's state in and out, and in which XLA's CPU
      compiler has no fast path for the gradient of a plain convolution, so use
      `models.layers.Conv`. "unroll" repeats the program instead of looping,
      which takes as many times longer to compile. None chooses "map" on the CPU
      and "vmap" elsewhere.

  Returns:
    The step over states and batches whose leaves have a leading member axis
    [M, ...], see `stack`; measures have shape [M]. Every member fares as it
    would alone.

  Raises:
    ValueError: If `mapping` is something else.
  """
  if mapping is None:
    mapping = "map" if jax.default_backend() == "cpu" else "vmap"
  if mapping == "vmap":
    return jax.vmap(step)
  if mapping == "map":
    return Memberwise(step)
  if mapping == "unroll":
    return lambda states, batches: stack(
      [step(*member) for member in unstack((states, batches))]
    )
  raise ValueError(
    f'mapping must be "vmap", "map" or "unroll", got {mapping!r}'
  )


@dataclasses.dataclass(frozen=True)
class Memberwise:
  """The step of a population whose members are trained each by itself.

  Attributes:
    member: The step of one member.
  """

  member: Step

  def __call__(
    self, states: TrainState, batches: Batch
  ) -> tuple[TrainState, Measures]:
    """Do a step of all members in a loop; leaves are [M, ...]."""
    return jax.lax.map(lambda pair: self.member(*pair), (states, batches))

  def compiled(self, pool: concurrent.futures.Executor) -> Callable[..., Any]:
    """Compile the step of one member, to be called for each.

    A small network does not keep all cores busy; several of them do.

    Args:
      pool: Threads that share the members.

    Returns:
      The step over a list of M states, which are donated, and a list of M
      batches; of measures it gives lists of M arrays.
    """
    member = jax.jit(self.member, donate_argnums=0)
    begun = False

    def run(state: TrainState, batch: Batch) -> Any:
      return jax.block_until_ready(member(state, batch))

    def step(states: list[TrainState], batches: list[Batch]) -> Any:
      nonlocal begun
      # The first call compiles, which the threads would all do at once.
      done = [] if begun else [run(states[0], batches[0])]
      begun, rest = True, slice(len(done), None)
      done += pool.map(run, states[rest], batches[rest])
      measures = {name: [told[name] for _, told in done] for name in done[0][1]}
      return [state for state, _ in done], measures

    return step


def stack(states: Sequence[Any]) -> Any:
  """Stack the states of several members along a new leading axis.

  Args:
    states: Trees of the same structure, shapes and dtypes.

  Returns:
    One tree whose leaves are [M, ...].

  Raises:
    ValueError: If there are none, or they differ in structure.
  """
  if not states:
    raise ValueError("a population needs at least one member")
  for number, state in enumerate(states):
    if jax.tree.structure(state) != jax.tree.structure(states[0]):
      raise ValueError(
        f"member {number} of the population has another structure than member 0"
      )
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack(state: Any) -> list[Any]:
  """Split a stacked state into the states of its members.

  Args:
    state: A tree whose leaves are [M, ...].

  Returns:
    M trees; `unstack(stack(states))` equals `states`.
  """
  members = jax.tree.leaves(state)[0].shape[0]
  member = lambda index: jax.tree.map(lambda x: x[index], state)
  return [member(index) for index in range(members)]
