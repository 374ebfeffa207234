"""A sparse last layer: the same few features for every example of a class."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_ROUNDING = 1e-6  # of float32, relative


def sparse_head(
  features: jax.Array,
  labels: jax.Array,
  classes: int,
  *,
  strength: float,
  share: float = 0.99,
  steps: int = 300,
) -> tuple[jax.Array, jax.Array]:
  """Fit a linear classifier with few weights on fixed features.

  It minimises the mean cross entropy plus an elastic net of the weights,
  strength (share |w| + (1 - share) w^2 / 2), on standardised features, by an
  accelerated proximal gradient method (Beck and Teboulle 2009). Wong et al.
  2021, arXiv:2105.04857, debug networks by such a layer.

  Args:
    features: What the last layer meets [N, I].
    labels: Classes, integers [N].
    classes: How many classes A there are.
    strength: Of the penalty; larger ones leave fewer weights.
    share: Share of the absolute values in the penalty.
    steps: Steps of the method.

  Returns:
    Kernel [I, A] with exact zeros, and bias [A], for features as given.

  Raises:
    ValueError: If shapes do not fit or a number is out of range.

  >>> features = jnp.array([[1.0, 0.0], [-1.0, 0.1]] * 4)
  >>> labels = jnp.array([0, 1] * 4)
  >>> kernel, _ = sparse_head(features, labels, 2, strength=0.1)
  >>> bool(kernel[0, 0] > 0), kernel.shape
  (True, (2, 2))
  """
  features = jnp.asarray(features, jnp.float32)
  labels = jnp.asarray(labels)
  integers = jnp.issubdtype(labels.dtype, jnp.integer)
  if features.ndim != 2 or labels.shape != features.shape[:1] or not integers:
    raise ValueError(
      "features must be [N, I] and labels integers [N], got shapes"
      f" {features.shape} and {labels.dtype}{list(labels.shape)}"
    )
  if strength < 0 or not 0 <= share <= 1 or steps < 1:
    raise ValueError(
      "strength must not be negative, share from 0 to 1 and steps at least 1;"
      f" got {strength}, {share}, {steps}"
    )
  if not isinstance(labels, jax.core.Tracer) and labels.size:
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
      raise ValueError(
        f"labels must be 0 to {classes - 1}, got {least} to {most}"
      )
  return _fit(features, labels, classes, steps, strength, share)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _fit(features, labels, classes, steps, strength, share):
  mean = jnp.mean(features, axis=0, keepdims=True)
  deviation = jnp.std(features, axis=0, keepdims=True)
  # A feature that never changes but by rounding says nothing.
  live = deviation > _ROUNDING * jnp.abs(mean)
  scale = jnp.where(live, deviation, 1.0)
  x = jnp.where(live, (features - mean) / scale, 0.0)
  targets = jax.nn.one_hot(labels, classes)

  def loss(pair):
    kernel, bias = pair
    logits = jax.nn.log_softmax(x @ kernel + bias[None, :])
    fit = -jnp.mean(jnp.sum(targets * logits, axis=1))
    return fit + 0.5 * strength * (1 - share) * jnp.sum(jnp.square(kernel))

  # The Hessian of the cross entropy is at most half that of least squares.
  gram = x.T @ x / x.shape[0]
  largest = jnp.linalg.norm(gram, ord=2)
  rate = 1.0 / (0.5 * jnp.maximum(largest, 1.0) + strength * (1 - share))

  def step(i, carry):
    here, ahead = carry
    kernel, bias = jax.tree.map(
      lambda p, g: p - rate * g, ahead, jax.grad(loss)(ahead)
    )
    shrunk = jnp.maximum(jnp.abs(kernel) - rate * strength * share, 0.0)
    new = jnp.sign(kernel) * shrunk, bias
    i = jnp.asarray(i, jnp.float32)
    ahead = jax.tree.map(lambda n, h: n + i / (i + 3.0) * (n - h), new, here)
    return new, ahead

  start = jnp.zeros((x.shape[1], classes)), jnp.zeros(classes)
  (kernel, bias), _ = lax.fori_loop(0, steps, step, (start, start))
  kernel = jnp.where(live.T, kernel / scale.T, 0.0)
  return kernel, bias - (mean @ kernel)[0]
