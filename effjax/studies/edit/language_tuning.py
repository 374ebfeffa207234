"""Edits of a Llama by training: FT, FT-L, and LoRA on its MLPs."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from effjax import adapters, editing, tree
from effjax.studies import language
from effjax.studies.edit import (
  facts,
  language_edits,
  language_keys,
  language_prompts,
)

METHODS = ("ft", "ft-l", "lora")
_MLP = r".*mlp/(gate|up|down)/kernel"


class Settings(NamedTuple):
  """How an edit is trained.

  Attributes:
    layer: Whose down projection FT-L trains; FT trains those of all layers.
    rank: Of LoRA.
    steps: At most.
    learning_rate: Of Adam; None for what suits the method.
    epsilon: How far FT-L may move a weight.
    stop: No step follows a loss below it.
    seed: Of LoRA's initial values.
  """

  layer: int = 9
  rank: int = 1
  steps: int = 25
  learning_rate: float | None = None
  epsilon: float = 5e-3
  stop: float = 1e-2
  seed: int = 0


# What suits a method.
RATES = {"ft": 1e-4, "ft-l": 1e-2, "lora": 3e-3}


def tune(
  model: language.Language,
  method: str,
  wanted: Sequence[facts.Fact],
  settings: Settings,
) -> language_edits.Delta:
  """Train the new objects after their prompts, every token given those before.

  Args:
    model: The model; its parameters may be quantised for LoRA.
    method: One of `METHODS`.
    wanted: The facts, all at once.
    settings: How.

  Returns:
    The delta, for a quantised base with respect to what it stands for.

  Raises:
    ValueError: If the method is unknown.
  """
  if method not in METHODS:
    raise ValueError(
      f"there is no way of training {method!r}; known are {', '.join(METHODS)}"
    )
  asked = language_prompts.ask(
    model.tokenizer,
    [(fact.prompt, fact.new) for fact in wanted],
    # Few shapes, so that few programs are compiled.
    length=16,
    width=4,
  )
  rate = settings.learning_rate or RATES[method]
  same = settings._replace(learning_rate=None, stop=0.0, seed=0)
  return _tune(
    model.module,
    method,
    same,
    model.params,
    asked,
    jax.random.key(settings.seed),
    (rate, settings.stop),
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _tune(module, method, settings, params, asked, key, numbers):
  rate, stop = numbers
  dense = adapters.dequantize(params)
  adapter = adapters.lora(settings.rank, where=_MLP)
  layers = range(module.config.layers) if method == "ft" else [settings.layer]
  kernels = {} if method == "lora" else dict(_kernels(dense, layers))
  if method == "lora":
    theta, fixed = adapter.init(key, params)
  else:
    theta, fixed = kernels, {}

  def apply(theta):
    if method == "lora":
      return adapter.apply(params, theta, fixed)
    return _with(dense, theta)

  update = optax.chain(
    optax.scale_by_adam(),
    # A traced rate, so that another one compiles nothing.
    optax.stateless(lambda steps, _: jax.tree.map(lambda s: -rate * s, steps)),
    *([editing.clamp_to(theta, settings.epsilon)] if method == "ft-l" else []),
  )
  there = jnp.asarray(asked.objects) >= 0
  number = jnp.sum(there, axis=1, dtype=jnp.int32)

  def loss(theta):
    logs, _ = language_prompts.object_logs(module, apply(theta), asked)
    return jnp.mean(-jnp.sum(logs, axis=1) / number.astype(logs.dtype))

  theta = descend(loss, theta, update, settings.steps, stop)
  if method == "lora":
    merged = adapters.dequantize(apply(theta))
    return editing.task_vector(dense, merged, where=_MLP)
  return {path: theta[path] - leaf for path, leaf in kernels.items()}


def descend(loss: Any, theta: Any, update: Any, steps: int, stop: Any) -> Any:
  """Take steps until the loss is small, or not finite, or there were enough.

  Args:
    loss: From what is trained to the loss [].
    theta: What is trained.
    update: An optax transformation.
    steps: At most.
    stop: No step follows a loss below it.

  Returns:
    What was trained.
  """

  def unfinished(state):
    return state[2] & (state[3] < steps)

  def step(state):
    theta, moments, _, count = state
    now, slope = jax.value_and_grad(loss)(theta)
    more = (now >= stop) & jnp.isfinite(now)
    # optax mixes the count of steps with floats.
    with jax.numpy_dtype_promotion("standard"):
      change, later = update.update(slope, moments, theta)
      moved = optax.apply_updates(theta, change)
    keep = lambda new, old: jnp.where(more, new, old)
    return (
      jax.tree.map(keep, moved, theta),
      jax.tree.map(keep, later, moments),
      more,
      count + 1,
    )

  state = (theta, update.init(theta), jnp.bool_(True), jnp.int32(0))
  return jax.lax.while_loop(unfinished, step, state)[0]


def _kernels(params: Any, layers: Any) -> list[tuple[str, Any]]:
  return [
    (
      language_keys.kernel_path(layer),
      params[f"layer_{layer}"]["mlp"]["down"]["kernel"],
    )
    for layer in layers
  ]


def _with(params: Any, leaves: Any) -> Any:
  return jax.tree.map(
    lambda name, leaf: leaves.get(name, leaf), tree.names(params), params
  )
