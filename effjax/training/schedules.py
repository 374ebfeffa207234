"""Learning rates that optax does not have."""

import jax.numpy as jnp
import numpy as np
import optax


def warmup_cosine(
  base: float, warmup_epochs: int, epochs: int, steps_per_epoch: int
) -> optax.Schedule:
  """Make the per-epoch warm-up and cosine rule of the bias study.

  With W warm-up epochs of E, epoch e has the rate base (e + 1) / W while
  e < W, and base (1 + cos(pi (e - W) / (E - W))) / 2 afterwards (Iofinova et
  al., 2023, arXiv:2304.12622). The rate is constant within an epoch.

  Args:
    base: The highest rate.
    warmup_epochs: W, 0 for none.
    epochs: E; later epochs keep the rate of the last one.
    steps_per_epoch: Updates in an epoch.

  Returns:
    A schedule, from the step number int32 [] to the rate float32 [].

  Raises:
    ValueError: If the numbers of epochs or steps make no sense.

  >>> rate = warmup_cosine(1.0, 2, 10, steps_per_epoch=5)
  >>> [float(rate(step)) for step in (0, 4, 5, 10)]
  [0.5, 0.5, 1.0, 1.0]
  """
  if not 0 <= warmup_epochs < epochs:
    raise ValueError(
      f"warmup_epochs must be in [0, {epochs}), the number of epochs, got"
      f" {warmup_epochs}"
    )
  if steps_per_epoch < 1:
    raise ValueError(f"steps_per_epoch must be positive, got {steps_per_epoch}")
  epoch = np.arange(epochs)
  angle = np.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)
  rates = np.where(
    epoch < warmup_epochs,
    base * (epoch + 1) / max(warmup_epochs, 1),
    base * 0.5 * (1 + np.cos(angle)),
  )
  table = rates.astype(np.float32)

  def schedule(step):
    index = jnp.minimum(jnp.asarray(step) // steps_per_epoch, epochs - 1)
    return jnp.asarray(table)[index]

  return schedule
