"""What pruning adds to a step of the optimizer: an MLP of 8.4 M weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from effjax import pruning
from launch.benchmarks import harness


def cases(quick: bool) -> list[harness.Case]:
  """Return steps between updates of the masks, and steps that update them.

  Args:
    quick: Use a smaller network.

  Returns:
    Two cases, each beside the same step without pruning.
  """
  width, layers, batch = (512, 2, 32) if quick else (1448, 4, 64)
  keys = jax.random.split(jax.random.key(0), layers)
  params = {
    f"layer_{i}": jax.random.normal(k, (width, width)) / width**0.5
    for i, k in enumerate(keys)
  }
  x = jax.random.normal(jax.random.key(1), (batch, width))
  size = layers * width**2
  dense = optax.adamw(1e-3)
  idle = optax.chain(dense, pruning.prune(pruning.from_table([0], [0.9])))
  busy = pruning.constant(0.9, 0, 10_000, 1)
  busy = optax.chain(dense, pruning.prune(busy))
  name = f"AdamW step, MLP of {size / 1e6:.1f} M weights, batch {batch}"
  return [
    harness.Case(
      name=f"{name}, pruned, between updates of the mask",
      ours=_steps(idle, params, x, warm=1),
      peers={"dense": _steps(dense, params, x)},
      note="ratio below 1: pruning costs time",
    ),
    harness.Case(
      name=f"{name}, at an update of the mask",
      ours=_steps(busy, params, x),
      peers={"dense": _steps(dense, params, x)},
      note="ratio above 0.5: the update of the mask costs less than a step",
    ),
  ]


def _steps(
  optimizer: optax.GradientTransformation, params: Any, x: Any, warm: int = 0
):
  """Make a function that does one more step; its state is donated."""

  def loss(params: Any) -> jax.Array:
    h = x
    for w in params.values():
      h = jax.nn.relu(h @ w)
    return jnp.mean(jnp.square(h - x))

  def step(params: Any, state: Any) -> tuple[Any, Any]:
    grads = jax.grad(loss)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  step = jax.jit(step, donate_argnums=(0, 1))
  held = [jax.tree.map(jnp.copy, params)]
  held.append(optimizer.init(held[0]))

  def run() -> None:
    held[:] = step(*held)
    jax.block_until_ready(held)

  for _ in range(warm):
    run()
  return run
