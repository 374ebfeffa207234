"""Training steps of a population in one program, against single models."""

import os
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import models, training
from effjax.training.step import Memberwise
from launch.benchmarks import harness

OUTPUTS = 10
_STEPS = 50  # to a timed run, so that starting them does not count


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparison.

  Args:
    quick: Use few members and steps.

  Returns:
    A case.
  """
  members, batch, steps = (2, 8, 2) if quick else (10, 128, _STEPS)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(batch, 28, 28, 1)).astype(np.float32)
  given = {
    "images": jnp.asarray(images),
    "classes": jnp.asarray(rng.integers(0, OUTPUTS, batch)),
  }
  module: Any = models.build("cnn", outputs=OUTPUTS)
  optimizer = optax.adam(1e-3)

  def loss(params, model_state, batch, key, train):
    del key
    logits = module.apply({"params": params}, batch["images"], train=train)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch["classes"]
    )
    return jnp.mean(losses), (model_state, {})

  def create(seed: int) -> Any:
    key = jax.random.key(seed)
    params = module.init(key, given["images"][:1])["params"]
    return training.create(key, params, optimizer)

  step = training.make_step(loss, optimizer)
  alone = _run(jax.jit(step, donate_argnums=0), create(0), given, steps)
  states = [create(seed) for seed in range(members)]
  batches = training.stack([given] * members)
  together = training.population(step)
  program = _run(
    jax.jit(together, donate_argnums=0), training.stack(states), batches, steps
  )

  def one_after_another() -> None:
    for _ in range(members):
      alone()

  peers = {
    "one model": alone,
    f"{members} models, one after another": one_after_another,
  }
  if isinstance(together, Memberwise):  # what `training.fit` does on a CPU
    peers["a loop in one program"] = program
    pool = futures.ThreadPoolExecutor(os.cpu_count())
    program = _run(together.compiled(pool), states, [given] * members, steps)
  return [
    harness.Case(
      name=f"{steps} steps of a population of {members} small CNNs, batch"
      f" {batch} each",
      ours=program,
      peers=peers,
      note=f"mapped by {'vmap' if harness.on_accelerator() else 'map'}",
    )
  ]


def _run(
  step: Callable[..., Any], state: Any, batch: Any, steps: int
) -> Callable[[], None]:
  held = [state]

  def run() -> None:
    for _ in range(steps):
      held[0], _ = step(held[0], batch)
    jax.block_until_ready(held)

  return run
