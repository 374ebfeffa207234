"""Attribution by a sparse linear model fitted around an example."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.attribution import copies as repeated
from effjax.attribution import perturbation

Array = jax.Array
Model = repeated.Model

# Coordinate descent ends when a sweep moves no coefficient by more than this
# share of the largest, or after so many sweeps.
_TOLERANCE = 1e-6
_SWEEPS = 1000


def lime(
  key: Array,
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  segments: Any = None,
  number: int | None = None,
  samples: int = 1000,
  baseline: Any = None,
  regression: str = "lasso",
  penalty: float = 0.01,
  width: float = 1.0,
  chunk_size: int | None = 100,
) -> Array:
  """Returns the coefficients of a linear model of which segments are present.

  Each sample keeps every segment with probability 1/2. It weighs
  exp(-d^2 / (2 width^2)), where d is 1 minus its cosine with x. Ribeiro et al.
  2016, arXiv:1602.04938; distance and weights as in captum. The lasso, which is
  the default, runs a while loop: it has no reverse-mode gradient, ridge has.

  Args:
    key: A random key.
    f: `(params, x) -> logits [B, A]`, hashable, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    segments: Integers from 0, of the shape of an example or of the rank of x;
      None for a grid of 7 x 7 on images [B, H, W, C].
    number: How many segments there are; needed where `segments` is traced.
    samples: Evaluations of each example.
    baseline: What absent segments become: None for 0, a number, or an array of
      the shape of an example or of x.
    regression: A key of `REGRESSIONS`: "lasso" or "ridge".
    penalty: Its penalty, at least 0, see `lasso` and `ridge`.
    width: Width of the kernel in cosine distances, above 0. Where it is far
      below those of the samples, only x itself counts: maps are 0.
    chunk_size: How many samples are evaluated together; None for all.

  Returns:
    Maps like x, constant in each segment.

  Raises:
    ValueError: As for `saliency`, or if segments or options do not fit.

  >>> f = lambda w, x: x @ w
  >>> w, x = jnp.array([[1.0], [2.0], [3.0]]), jnp.ones((1, 3))
  >>> maps = lime(
  ...   jax.random.key(0), f, w, x, 0, segments=jnp.arange(3), penalty=0.0
  ... )
  >>> [round(float(m), 3) for m in maps[0]]
  [1.0, 2.0, 3.0]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  if regression not in REGRESSIONS:
    raise ValueError(
      f"regression must be one of {', '.join(REGRESSIONS)}, got {regression!r}."
    )
  arguments.finite("penalty", penalty, 0)
  arguments.finite("width", width, 0, above=True)
  if segments is None:
    if x.ndim != 4:
      raise ValueError(
        f"x {list(x.shape)} is no batch of images [B, H, W, C]: give segments=."
      )
    segments = perturbation.grid(x.shape, min(7, *x.shape[1:3]))
  segments, number = perturbation.read_groups("segments", x, segments, number)
  baseline = repeated.read_baseline(x, baseline)
  options = (number, samples, regression, chunk_size)
  numbers = (jnp.float32(penalty), jnp.float32(width))
  return _lime(
    key, f, params, x, target, segments, baseline, *numbers, *options
  )


def lasso(features: Any, values: Any, weights: Any, penalty: Any) -> Array:
  """Returns the coefficients of weighted least squares with an L1 penalty.

  Minimises sum_i v_i (y_i - c - z_i w)^2 / 2 + penalty sum_j |w_j|, with v the
  weights scaled to a sum of 1 and c a free intercept, by coordinate descent:
  what scikit-learn's `Lasso` minimises.

  Args:
    features: [S, F].
    values: [S].
    weights: [S], not negative.
    penalty: At least 0.

  Returns:
    [F]; 0 for a feature that is constant.

  >>> z = jnp.array([[0.0], [1.0]])
  >>> w = lasso(z, jnp.array([0.0, 2.0]), jnp.ones(2), 0.1)
  >>> round(float(w[0]), 5)
  1.6
  """
  gram, slope = _moments(features, values, weights)
  penalty = jnp.asarray(penalty, gram.dtype)
  curvature = jnp.diagonal(gram)
  live = curvature > 0

  def update(j, w):
    rest = slope[j] - gram[j] @ w + curvature[j] * w[j]
    shrunk = jnp.sign(rest) * jnp.maximum(jnp.abs(rest) - penalty, 0)
    safe = jnp.where(live[j], curvature[j], 1)
    return w.at[j].set(jnp.where(live[j], shrunk / safe, 0))

  def sweep(state):
    w, _, count = state
    new = jax.lax.fori_loop(0, w.shape[0], update, w)
    moved = jnp.max(jnp.abs(new - w))
    return new, moved > _TOLERANCE * jnp.max(jnp.abs(new)), count + 1

  moving = lambda state: state[1] & (state[2] < _SWEEPS)
  start = jnp.zeros_like(slope), jnp.bool_(True), jnp.int32(0)
  return jax.lax.while_loop(moving, sweep, start)[0]


def ridge(features: Any, values: Any, weights: Any, penalty: Any) -> Array:
  """Returns the coefficients of weighted least squares with an L2 penalty.

  Minimises sum_i v_i (y_i - c - z_i w)^2 / 2 + penalty |w|^2 / 2, in closed
  form, with v the weights scaled to a sum of 1 and c a free intercept.

  Args:
    features: [S, F].
    values: [S].
    weights: [S], not negative.
    penalty: Above 0 where features depend on each other.

  Returns:
    [F].

  >>> z = jnp.array([[0.0], [1.0]])
  >>> w = ridge(z, jnp.array([0.0, 2.0]), jnp.ones(2), 0.25)
  >>> round(float(w[0]), 5)
  1.0
  """
  gram, slope = _moments(features, values, weights)
  damped = gram + jnp.asarray(penalty, gram.dtype) * jnp.eye(
    slope.shape[0], dtype=gram.dtype
  )
  return jax.scipy.linalg.solve(damped, slope, assume_a="pos")


REGRESSIONS = {"lasso": lasso, "ridge": ridge}


def _moments(features: Any, values: Any, weights: Any) -> tuple[Array, Array]:
  """Returns the weighted covariances of the features, and with the values."""
  features, values, weights = map(jnp.asarray, (features, values, weights))
  shares = weights / jnp.sum(weights)
  product = functools.partial(jnp.matmul, precision="highest")
  features = features - product(shares, features)[None]
  values = values - product(shares, values)
  weighted = shares[:, None] * features
  return product(weighted.T, features), product(weighted.T, values)


@functools.partial(jax.jit, static_argnums=(1, 9, 10, 11, 12))
def _lime(
  key,
  f,
  params,
  x,
  target,
  segments,
  baseline,
  penalty,
  width,
  number,
  samples,
  regression,
  chunk_size,
):
  flat = repeated.widen(x).reshape(x.shape[0], math.prod(x.shape[1:]))
  size = jnp.linalg.norm(flat, axis=1)

  def sample(i):
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (number,)))(
      repeated.keys(key, i, x.shape[0])
    )
    seen = jnp.where(perturbation.of_groups(keep, segments), x, baseline)
    logits = repeated.target_logits(f, params, seen, target)
    seen = repeated.widen(seen).reshape(flat.shape)
    norms = jnp.maximum(size * jnp.linalg.norm(seen, axis=1), 1e-8)
    distance = 1 - jnp.sum(flat * seen, axis=1) / norms
    exponent = distance / width.astype(flat.dtype)
    weight = jnp.exp(-exponent * exponent / 2)
    return keep, repeated.widen(logits), weight

  keep, logits, weight = repeated.each(sample, samples, chunk_size)
  fit = functools.partial(REGRESSIONS[regression], penalty=penalty)
  coefficients = jax.vmap(fit, in_axes=1)(
    keep.astype(flat.dtype),
    logits.astype(flat.dtype),
    weight.astype(flat.dtype),
  )
  return perturbation.of_groups(coefficients, segments).astype(x.dtype)
