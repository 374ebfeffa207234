"""How the arms of the bias study are optimized; each may have its own way."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from effjax import training, tree

ARMS = ("dense", "base", "ri", "pt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How an arm is optimized.

  Attributes:
    optimizer: "adamw", "adam" or "sgd".
    momentum: Of sgd.
    weight_decay: Of everything but biases and the like; sgd and adam add it to
      the gradients, adamw to the updates.
    schedule: Of the learning rate, "warmup_cosine" or "constant".
    warmup_epochs: Of warmup_cosine.
    reset_momentum: Whether sgd forgets its momentum at the end of every epoch,
      as the published code does.
  """

  optimizer: str = "adamw"
  momentum: float = 0.9
  weight_decay: float = 0.0
  schedule: str = "warmup_cosine"
  warmup_epochs: int = 0
  reset_momentum: bool = False


def options(config: Any, arm: str) -> Options:
  """Read how an arm is optimized.

  Args:
    config: The section `training` of a configuration. Its keys hold for all
      arms; `optimizers`, where it is there, holds for arms by name what
      differs, e.g. `optimizers=dict(pt=dict(optimizer="adam"))`.
    arm: One of `ARMS`.

  Returns:
    The options.

  Raises:
    ValueError: If `optimizers` names an arm or an option that does not exist.

  >>> config = dict(optimizer="sgd", optimizers=dict(pt=dict(momentum=0.5)))
  >>> options(config, "ri").momentum, options(config, "pt").momentum
  (0.9, 0.5)
  """
  names = [field.name for field in dataclasses.fields(Options)]
  by_arm = config.get("optimizers") or {}
  for name in by_arm:
    _known("training.optimizers", name, ARMS)
    for key in by_arm[name]:
      _known(f"training.optimizers.{name}", key, names)
  own = by_arm.get(arm) or {}
  chosen = {name: config[name] for name in names if name in config}
  return Options(**chosen | {name: own[name] for name in own})


def _known(where: str, name: str, known: Any) -> None:
  if name not in known:
    near = ", ".join(tree.nearest(name, list(known), 3))
    raise ValueError(f"{where} has no {name!r}; the nearest are {near}")


def links(
  options: Options, epochs: int, per_epoch: int
) -> list[optax.GradientTransformation]:
  """Make the links of an optax chain that turn gradients into directions.

  Args:
    options: See `options`.
    epochs: How long the arm trains.
    per_epoch: Updates in an epoch.

  Returns:
    The links; what is left to do is to scale by the negative learning rate.

  Raises:
    ValueError: If the optimizer or the schedule is unknown, or a momentum is to
      be reset that there is not.
  """
  decay = optax.add_decayed_weights(options.weight_decay, mask=_kernels)
  momentum = optax.trace(options.momentum)
  if options.reset_momentum:
    if options.optimizer != "sgd":
      raise ValueError(
        f"reset_momentum belongs to sgd, {options.optimizer} has nothing to"
        " reset"
      )
    momentum = reset_every(momentum, per_epoch)
  known = {
    "adamw": [optax.scale_by_adam(), decay],
    "adam": [decay, optax.scale_by_adam()],
    "sgd": [decay, momentum],
  }
  rates: dict[str, Callable[[], optax.Schedule]] = {
    "warmup_cosine": lambda: training.warmup_cosine(
      1.0, options.warmup_epochs, epochs, per_epoch
    ),
    "constant": lambda: optax.constant_schedule(1.0),
  }
  for what, value, choices in (
    ("optimizer", options.optimizer, known),
    ("schedule", options.schedule, rates),
  ):
    if value not in choices:
      near = ", ".join(tree.nearest(value, list(choices)))
      raise ValueError(f"training.{what} {value!r} is unknown; choose {near}")
  rate = rates[options.schedule]()
  return [*known[options.optimizer], optax.scale_by_schedule(rate)]


def _kernels(params: Any) -> Any:
  return jax.tree.map(lambda p: p.ndim > 1, params)


class ResetState(NamedTuple):
  """State of `reset_every`.

  Attributes:
    count: Number of updates done, int32 [].
    every: Updates between resets, int32 [].
    inner: State of the transformation that is reset.
  """

  count: jax.Array
  every: jax.Array
  inner: Any


def reset_every(
  transform: optax.GradientTransformation, every: int
) -> optax.GradientTransformation:
  """Make a transformation forget all it remembers every so many updates.

  Args:
    transform: A transformation whose state is all zeros at first, such as
      `optax.trace`.
    every: Its state is zero again after each `every`-th update.

  Returns:
    A transformation with the same updates in between.

  >>> optimizer = reset_every(optax.trace(0.5), 2)
  >>> state = optimizer.init(jnp.zeros(()))
  >>> seen = []
  >>> for _ in range(4):
  ...   update, state = optimizer.update(jnp.ones(()), state)
  ...   seen.append(float(update))
  >>> seen
  [1.0, 1.5, 1.0, 1.5]
  """

  def init(params: Any) -> ResetState:
    return ResetState(
      jnp.zeros((), jnp.int32),
      jnp.asarray(every, jnp.int32),
      transform.init(params),
    )

  def update(
    updates: Any, state: ResetState, params: Any = None
  ) -> tuple[Any, ResetState]:
    updates, inner = transform.update(updates, state.inner, params)
    count = jnp.asarray(optax.safe_increment(state.count))
    ends = count % state.every == 0
    inner = jax.tree.map(lambda x: jnp.where(ends, jnp.zeros_like(x), x), inner)
    return updates, ResetState(count, state.every, inner)

  # optax types a state as any tree of arrays; this one is a named tuple.
  # pyrefly: ignore[bad-argument-type]
  return optax.GradientTransformation(init, update)
