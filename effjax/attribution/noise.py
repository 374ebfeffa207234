"""Attribution under noise: means and variances of maps of random copies."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from effjax.attribution import copies as repeated

Array = jax.Array
Model = repeated.Model
Method = Callable[[Model, Any, Array, Array], Array]


def smoothgrad(
  key: Array,
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  copies: int = 50,
  sigma: Any = 0.15,
  method: Method | None = None,
  squared: bool = False,
  chunk_size: int | None = None,
) -> Array:
  """Returns the mean map of noisy copies of x.

  Smilkov et al. 2017, arXiv:1706.03825; squared: Hooker et al. 2019,
  arXiv:1806.10758.

  Args:
    key: A random key.
    f: `(params, x) -> logits [B, A]`, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    copies: The number of noisy copies.
    sigma: Standard deviation of the noise, a number or an array that
      broadcasts to x. The paper takes a share of each image's range.
    method: `(f, params, x, target) -> maps`, hashable; None for the gradient
      with its signs.
    squared: Whether to average the squares of the maps.
    chunk_size: How many copies are evaluated together; None for all.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `saliency`.

  >>> f = lambda w, x: x @ w
  >>> w = jnp.array([[1.0], [-2.0]])
  >>> x = jnp.ones((1, 2))
  >>> smoothgrad(jax.random.key(0), f, w, x, 0, copies=4).tolist()
  [[1.0, -2.0]]
  """
  operands = _read(f, params, x, target, sigma, method)
  return _smoothgrad(key, *operands, squared, copies, chunk_size)


def vargrad(
  key: Array,
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  copies: int = 50,
  sigma: Any = 0.15,
  method: Method | None = None,
  chunk_size: int | None = None,
) -> Array:
  """Returns the variance of the maps of noisy copies of x.

  The sum of squares is divided by the number of copies. Adebayo et al. 2018,
  arXiv:1810.03307.

  Args:
    key: A random key; the noise is that of `smoothgrad`.
    f: `(params, x) -> logits [B, A]`, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    copies: The number of noisy copies.
    sigma: As for `smoothgrad`.
    method: As for `smoothgrad`.
    chunk_size: How many copies are evaluated together; None for all.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `saliency`.

  >>> f = lambda w, x: x @ w
  >>> w = jnp.array([[1.0], [-2.0]])
  >>> vargrad(jax.random.key(0), f, w, jnp.ones((1, 2)), 0, copies=4).tolist()
  [[0.0, 0.0]]
  """
  operands = _read(f, params, x, target, sigma, method)
  return _vargrad(key, *operands, copies, chunk_size)


def gradient_shap(
  key: Array,
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  baselines: Any = None,
  copies: int = 50,
  sigma: Any = 0.0,
  chunk_size: int | None = None,
) -> Array:
  """Returns integrated gradients with random baselines, points and noise.

  The mean of (z - b) grad f(b + a (z - b)) with z = x + noise, b drawn from the
  baselines with replacement and a uniform on [0, 1]. Lundberg and Lee 2017,
  arXiv:1705.07874; Erion et al. 2021, arXiv:1906.10670.

  Args:
    key: A random key.
    f: `(params, x) -> logits [B, A]`, see `saliency`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    baselines: [M, ...] examples to start from; None for 0.
    copies: The number of draws.
    sigma: Standard deviation of the noise, as for `smoothgrad`.
    chunk_size: How many draws are evaluated together; None for all.

  Returns:
    Maps like x.

  Raises:
    ValueError: As for `saliency`, or if the baselines are not like examples.

  >>> f = lambda w, x: x @ w
  >>> w = jnp.array([[1.0], [-2.0]])
  >>> x = jnp.ones((1, 2))
  >>> gradient_shap(jax.random.key(0), f, w, x, 0, copies=4).tolist()
  [[1.0, -2.0]]
  """
  f, params, x, target = repeated.read(f, params, x, target)
  if baselines is None:
    baselines = jnp.zeros((1, *x.shape[1:]), x.dtype)
  baselines = jnp.asarray(baselines, x.dtype)
  if baselines.shape[1:] != x.shape[1:] or not baselines.size:
    raise ValueError(
      f"baselines must have shape {['M', *x.shape[1:]]} with at least one"
      f" example, got {list(baselines.shape)}."
    )
  quiet = isinstance(sigma, int | float) and sigma == 0
  sigma = None if quiet else repeated.read_baseline(x, sigma, "sigma")
  options = (copies, chunk_size)
  return _gradient_shap(key, f, params, x, target, baselines, sigma, *options)


def mean_over_noise(
  method: Callable[[Array], Array],
  x: Array,
  noise: Callable[[Array], Array],
  copies: int,
  *,
  squared: bool = False,
  chunk_size: int | None = None,
) -> Array:
  """Returns the mean of a method's maps, or of their squares, under noise.

  Args:
    method: From x to maps.
    x: [B, ...].
    noise: From the number of a copy to its noise, like x.
    copies: The number of copies.
    squared: Whether to square the maps.
    chunk_size: How many copies are evaluated together; None for all.

  Returns:
    Maps, float32 at least.
  """

  def term(i):
    maps = repeated.widen(method(_shifted(x, noise(i))))
    return maps * maps if squared else maps

  return repeated.add(term, copies, chunk_size) / copies


def variance_over_noise(
  method: Callable[[Array], Array],
  x: Array,
  noise: Callable[[Array], Array],
  copies: int,
  *,
  chunk_size: int | None = None,
) -> Array:
  """Returns the variance of a method's maps under noise, divided by copies.

  Args:
    method: From x to maps.
    x: [B, ...].
    noise: From the number of a copy to its noise, like x.
    copies: The number of copies.
    chunk_size: How many copies are evaluated together; None for all.

  Returns:
    Maps, float32 at least.
  """
  # Squares of differences from a map nearby: those of the maps themselves
  # would cancel.
  centre = repeated.widen(method(x))

  def term(i):
    difference = repeated.widen(method(_shifted(x, noise(i)))) - centre
    return difference, difference * difference

  total, squares = repeated.add(term, copies, chunk_size)
  mean = total / copies
  return jnp.maximum(squares / copies - mean * mean, 0)


def mean_over_paths(
  gradient: Callable[[Array], Array],
  x: Array,
  draw: Callable[[Array], tuple[Array, Array, Array]],
  copies: int,
  *,
  chunk_size: int | None = None,
) -> Array:
  """Returns the mean of (z - b) times the gradient at b + a (z - b).

  Args:
    gradient: From x to the gradient, like x.
    x: [B, ...].
    draw: From the number of a copy to its noise z - x and baseline b, both like
      x, and its points a [B].
    copies: The number of copies.
    chunk_size: How many copies are evaluated together; None for all.

  Returns:
    Maps, float32 at least.
  """

  def term(i):
    noise, baseline, points = draw(i)
    baseline = repeated.widen(baseline)
    step = repeated.widen(_shifted(x, noise)) - baseline
    points = points.reshape(-1, *(1,) * (x.ndim - 1))
    between = (baseline + points * step).astype(x.dtype)
    return step * repeated.widen(gradient(between))

  return repeated.add(term, copies, chunk_size) / copies


def _read(
  f: Model, params: Any, x: Any, target: Any, sigma: Any, method: Method | None
) -> tuple:
  f, params, x, target = repeated.read(f, params, x, target)
  sigma = repeated.read_baseline(x, sigma, "sigma")
  return f, params, x, target, sigma, method or repeated.gradient


def _shifted(x: Array, noise: Array) -> Array:
  return (repeated.widen(x) + noise).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(1, 6, 7, 8, 9))
def _smoothgrad(
  key, f, params, x, target, sigma, method, squared, copies, chunk_size
):
  maps = mean_over_noise(
    lambda z: method(f, params, z, target),
    x,
    lambda i: repeated.widen(sigma) * repeated.normal(key, i, x),
    copies,
    squared=squared,
    chunk_size=chunk_size,
  )
  return maps.astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(1, 6, 7, 8))
def _vargrad(key, f, params, x, target, sigma, method, copies, chunk_size):
  maps = variance_over_noise(
    lambda z: method(f, params, z, target),
    x,
    lambda i: repeated.widen(sigma) * repeated.normal(key, i, x),
    copies,
    chunk_size=chunk_size,
  )
  return maps.astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(1, 7, 8))
def _gradient_shap(
  key, f, params, x, target, baselines, sigma, copies, chunk_size
):
  dtype = repeated.wide(x.dtype)
  noise_key, path_key = jax.random.split(key)

  def places(k):
    # One call: each call of a generator takes long to compile. A choice is fair
    # to 2^-23 of the number of baselines.
    choice, point = jax.random.uniform(k, (2,), dtype)
    index = jnp.floor(choice * baselines.shape[0]).astype(jnp.int32)
    return baselines[jnp.minimum(index, baselines.shape[0] - 1)], point

  def draw(i):
    chosen = jax.vmap(places)(repeated.keys(path_key, i, x.shape[0]))
    if sigma is None:
      return jnp.zeros(x.shape, dtype), *chosen
    noise = repeated.widen(sigma) * repeated.normal(noise_key, i, x)
    return noise, *chosen

  maps = mean_over_paths(
    lambda z: repeated.gradient(f, params, z, target),
    x,
    draw,
    copies,
    chunk_size=chunk_size,
  )
  return maps.astype(x.dtype)
