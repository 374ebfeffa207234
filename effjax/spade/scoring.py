"""Scores of sparsities: how well maps of traced networks explain."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import attribution, metrics
from effjax.attribution import copies
from effjax.spade.tracing import trace
from effjax.spade.tuning import Rules

Tree = Any
_POINTS = 28  # of a curve of insertion


def explanation_score(
  key: jax.Array,
  capture: Callable,
  params: Tree,
  x: jax.Array,
  target: jax.Array,
  method: Callable[..., jax.Array],
  *,
  marks: Any = None,
  reduce: str = "sum",
  preprocess: Callable | None = None,
  **options: Any,
) -> Callable[[Rules], float]:
  """Make a score for `tune`: how well traced networks explain some examples.

  Args:
    key: A random key; all sparsities get the same copies.
    capture: As for `trace`, like `params`, `preprocess` and `options`.
    params: The parameters of the dense network.
    x: Images to calibrate on [B, H, W, C], as `augment` takes them.
    target: The classes that are explained [B], or one for all.
    method: `(f, params, x, target) -> maps like x`, such as
      `attribution.saliency`; the same object is compiled once.
    marks: Where each image shows what counts, bool [B, H, W], if that is known:
      the score is the mean pixel AUC. Otherwise the images are inserted into
      blurred ones, most important pixels first, and the score is the mean area
      below the probability that the dense network gives the target.
    reduce: How channels of maps are removed, see `attribution.reduce_channels`.
    preprocess: `images [N, ...] -> inputs of the network`.
    **options: Others of `trace`.

  Returns:
    `rules -> score`.

  Raises:
    ValueError: If the marks are not of the shape of the images, or one has
      none or nothing else, a target is out of range, or, once it is called, as
      `trace`, the method and the metric do.

  >>> f = lambda w, x: x.reshape(len(x), -1) @ w["a"]
  >>> capture = lambda w, x: (f(w, x), {"a": x.reshape(len(x), -1)})
  >>> params, x = {"a": jnp.array([[3.0], [1.0]])}, jnp.array([[[2.0], [0.5]]])
  >>> score = explanation_score(
  ...   jax.random.key(0), capture, params, x[None], [0], attribution.saliency,
  ...   marks=[[[True, False]]], augment=None, copies=1
  ... )
  >>> score(0.5)
  1.0
  """
  x = jnp.asarray(x)
  if marks is not None:
    marks = jnp.asarray(marks)
    if marks.shape != x.shape[:-1] or marks.dtype != jnp.bool_:
      raise ValueError(
        f"marks must be bool {list(x.shape[:-1])} for images {list(x.shape)},"
        f" got {marks.dtype} {list(marks.shape)}"
      )
    shares = np.asarray(marks).reshape(len(marks), -1).mean(axis=1)
    for number, share in enumerate(shares):
      if share in (0.0, 1.0):
        raise ValueError(
          f"{'all' if share else 'nothing'} of image {number} is marked: maps"
          " of it cannot be judged"
        )
  f = _logits(capture)
  inputs = x if preprocess is None else preprocess(x)
  _, _, _, target = copies.read(f, params, inputs, target)

  def score(rules: Rules) -> float:
    traced = trace(
      key, capture, params, x, rules, preprocess=preprocess, **options
    )
    maps = _explain(f, method, reduce, traced, inputs, target)
    if marks is not None:
      return float(jnp.mean(metrics.pixel_auc(maps, marks)))
    curves = metrics.insertion_deletion(
      f,
      params,
      inputs,
      target,
      maps,
      step=max(maps[0].size // _POINTS, 1),
      insert_into=metrics.gaussian_blur(inputs),
    )
    return float(jnp.mean(curves.insertion_auc))

  return score


# One object for each network: compiled programs are looked up by it.
@functools.cache
def _logits(capture: Callable) -> Callable[[Tree, jax.Array], jax.Array]:
  return lambda params, x: capture(params, x)[0]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _explain(
  f: Callable,
  method: Callable,
  reduce: str,
  params: Mapping[str, Any],
  inputs: jax.Array,
  target: jax.Array,
) -> jax.Array:
  """Explain examples one by one, each by parameters of its own."""

  def one(given: tuple) -> jax.Array:
    own, x, target = given
    maps = method(f, own, x[None], target[None])
    return attribution.reduce_channels(maps, reduce)[0]

  return jax.lax.map(one, (params, inputs, target))
