"""Principal components and k-means, which turn features into histograms."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments

Array = jax.Array


class Clusters(NamedTuple):
  """The best of several runs of k-means.

  Attributes:
    labels: [N] int32, the cluster of each point.
    centers: [K, D] float32.
    objective: [], the sum of squared distances to the centers.
  """

  labels: Array
  centers: Array
  objective: Array


def principal_components(points: Any, variance: float = 0.9) -> np.ndarray:
  """Projects points on their first principal components.

  Args:
    points: [N, D], concrete.
    variance: The share of the variance to keep: components up to and including
      the one with which their sum reaches it.

  Returns:
    [N, C] float64, centred, not whitened.

  Raises:
    ValueError: If `variance` is outside (0, 1].

  >>> principal_components([[0.0, 9.0], [0.0, 1.0], [1.0, 5.0]]).shape
  (3, 1)
  """
  arguments.share("variance", variance)
  points = np.asarray(points, np.float64)
  points = points - points.mean(axis=0)
  wide = points.shape[0] < points.shape[1]
  # Of the two products the smaller one; they share their eigenvalues.
  product = points @ points.T if wide else points.T @ points
  values, vectors = (x[..., ::-1] for x in np.linalg.eigh(product))
  values = np.maximum(values, 0.0)
  share = np.cumsum(values) / max(values.sum(), np.finfo(np.float64).tiny)
  kept = min(int(np.sum(share < variance)) + 1, len(share))
  vectors = vectors[:, :kept]
  return vectors * np.sqrt(values[:kept]) if wide else points @ vectors


def distinct(points: Any, limit: int, *, tolerance: float = 0.0) -> int:
  """Counts distinct points, up to a limit.

  Each step takes the point that is farthest from those taken before.

  Args:
    points: [N, D], concrete, N at least 1.
    limit: Where to stop.
    tolerance: Points at most that far from one that was taken are not counted.

  Returns:
    The number, at most `limit`.

  >>> distinct([[0.0], [1.0], [1.0], [2.0]], 10)
  3
  """
  points = np.asarray(points, np.float64)
  distance = np.linalg.norm(points - points[0], axis=1)
  count = 1
  while count < limit and distance.max() > tolerance:
    farthest = points[distance.argmax()]
    distance = np.minimum(distance, np.linalg.norm(points - farthest, axis=1))
    count += 1
  return count


@functools.partial(
  jax.jit, static_argnames=("clusters", "restarts", "iterations")
)
def k_means(
  key: Array,
  points: Any,
  clusters: int,
  *,
  restarts: int = 5,
  iterations: int = 500,
) -> Clusters:
  """Returns the best of several runs of Lloyd's algorithm.

  A run begins with a random choice of points and ends when no point changes its
  cluster. A cluster that has lost all of its points begins anew at the point
  that is farthest from its center.
  Lloyd, "Least squares quantization in PCM" (1982).

  Args:
    key: A random key.
    points: [N, D].
    clusters: K, the number of clusters, static; at most N.
    restarts: The number of runs, static.
    iterations: The most steps of a run, static.

  Returns:
    The `Clusters` of the lowest objective, in float32; the first among equals.

  Raises:
    ValueError: If there are fewer points than clusters, or no run.
  """
  points = jnp.asarray(points, jnp.float32)
  clusters = arguments.whole("clusters", clusters)
  if clusters > len(points):
    raise ValueError(
      f"{len(points)} points cannot make {clusters} clusters: there must be"
      " between one and as many as points."
    )
  restarts = arguments.whole("restarts", restarts)

  def run(key):
    start = points[jax.random.permutation(key, len(points))[:clusters]]

    def unsettled(state):
      step, changed, *_ = state
      return changed & (step < iterations)

    def improve(state):
      step, _, _, labels, distance = state
      centers = _centers(points, labels, distance, clusters)
      found, distance = _nearest(points, centers)
      return step + 1, jnp.any(found != labels), centers, found, distance

    state = jnp.int32(0), jnp.bool_(True), start, *_nearest(points, start)
    _, _, centers, labels, distance = jax.lax.while_loop(
      unsettled, improve, state
    )
    return Clusters(labels, centers, jnp.sum(distance))

  runs = jax.vmap(run)(jax.random.split(key, restarts))
  best = jnp.argmin(runs.objective)
  return jax.tree.map(lambda x: x[best], runs)


def _nearest(points: Array, centers: Array) -> tuple[Array, Array]:
  """Returns the nearest center of each point and its squared distance."""
  product = jnp.matmul(points, centers.T, precision=jax.lax.Precision.HIGHEST)
  lengths = (jnp.sum(x**2, axis=1) for x in (points, centers))
  squares, others = lengths
  distance = squares[:, None] - 2.0 * product + others[None]
  labels = jnp.argmin(distance, axis=1).astype(jnp.int32)
  return labels, jnp.maximum(jnp.min(distance, axis=1), 0.0)


def _centers(
  points: Array, labels: Array, distance: Array, clusters: int
) -> Array:
  """Returns the means; an empty cluster gets a point far from its center."""
  member = jax.nn.one_hot(labels, clusters, dtype=jnp.float32)
  count = jnp.sum(member, axis=0)
  total = jnp.matmul(member.T, points, precision=jax.lax.Precision.HIGHEST)
  means = total / jnp.maximum(count, 1.0)[:, None]
  empty = count == 0
  # The farthest point for the first empty cluster, the next for the second.
  place = jnp.maximum(jnp.cumsum(empty, dtype=jnp.int32) - 1, 0)
  far = points[jnp.argsort(-distance)[place]]
  return jnp.where(empty[:, None], far, means)
