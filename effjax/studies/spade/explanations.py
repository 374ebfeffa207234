"""The attribution methods of the study, and their maps for many examples."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import attribution

Array = jax.Array
Model = Callable[[Any, Array], Array]


# Relevance starts with the logit, as in the study of SPADE. Shares of 1 would
# turn the map round where a pruned network's logit is negative.
_LRP = attribution.COMPOSITES["epsilon_plus"]._replace(start="logit")


class Method(NamedTuple):
  """A way to explain.

  Attributes:
    explain: `(key, f, params, x[B, H, W, C], target[B]) -> maps like x`.
    reduce: How channels are removed, see `attribution.reduce_channels`:
      gradients by their sizes, shares of the logit by their sum.
  """

  explain: Callable[..., Array]
  reduce: str


def _plain(method: Callable, reduce: str, **options: Any) -> Method:
  def explain(key, f, params, x, target):
    del key
    return method(f, params, x, target, **options)

  return Method(explain, reduce)


def _random(method: Callable, reduce: str, **options: Any) -> Method:
  def explain(key, f, params, x, target):
    return method(key, f, params, x, target, **options)

  return Method(explain, reduce)


def methods(
  names: Sequence[str], *, layer: str, side: int, samples: int
) -> dict[str, Method]:
  """Make the methods that are asked for.

  Args:
    names: Their names in `effjax.attribution`.
    layer: The layer that class activation maps are of.
    side: Height of the images; windows and segments are cut accordingly.
    samples: Masks of RISE; LIME takes a quarter of them, SmoothGrad and
      GradientShap a sixteenth.

  Returns:
    The methods by name.

  Raises:
    ValueError: If there is no such method.
  """
  window = max(side // 7, 2)
  draws = max(samples // 16, 1)
  known = {
    "saliency": _plain(attribution.saliency, "sum_abs"),
    "input_x_gradient": _plain(attribution.input_x_gradient, "sum"),
    "integrated_gradients": _plain(
      attribution.integrated_gradients, "sum", steps=32
    ),
    "smoothgrad": _random(attribution.smoothgrad, "sum_abs", copies=draws),
    "gradient_shap": _random(attribution.gradient_shap, "sum", copies=draws),
    "deep_lift": _plain(attribution.deep_lift, "sum"),
    "lrp": _plain(attribution.lrp, "sum", rules=_LRP),
    "guided_backprop": _plain(attribution.guided_backprop, "sum_abs"),
    "deconvolution": _plain(attribution.deconvolution, "sum_abs"),
    "grad_cam": _plain(
      attribution.grad_cam,
      "sum",
      layer=layer,
      relu=True,
      upsample="bilinear",
    ),
    "guided_grad_cam": _plain(
      attribution.guided_grad_cam, "sum_abs", layer=layer
    ),
    "occlusion": _plain(
      attribution.occlusion, "sum", window=window, strides=max(window // 2, 1)
    ),
    "lime": _random(attribution.lime, "sum", samples=max(samples // 4, 1)),
    "rise": _random(attribution.rise, "sum", masks=samples),
  }
  unknown = [name for name in names if name not in known]
  if unknown:
    raise ValueError(
      f"there is no method {unknown[0]!r} in this study; known are"
      f" {', '.join(known)}"
    )
  return {name: known[name] for name in names}


def maps(
  method: Method,
  f: Model,
  key: Array,
  params: Any,
  x: Array,
  targets: Array,
  *,
  per_example: bool,
) -> Array:
  """Explain examples one by one.

  Args:
    method: How; the same object is compiled once.
    f: `(params, x) -> logits`.
    key: A random key; examples get keys of their own, the same in every arm.
    params: Parameters, with a leading axis of examples if `per_example`.
    x: Examples [N, H, W, C].
    targets: Classes to explain [N].
    per_example: Whether every example has parameters of its own.

  Returns:
    Maps without channels [N, H, W].
  """
  keys = jax.random.split(key, len(x))
  return _maps(method, f, per_example, keys, params, x, targets)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _maps(method, f, per_example, keys, params, x, targets):
  def one(given):
    key, x, target, own = given
    found = method.explain(
      key, f, own if per_example else params, x[None], target[None]
    )
    return attribution.reduce_channels(found, method.reduce)[0]

  own = params if per_example else jnp.zeros(len(x))
  return jax.lax.map(one, (keys, x, targets, own))


def answers(f: Model, params: Any, x: Array, *, per_example: bool) -> Array:
  """Classify examples one by one.

  Args:
    f: `(params, x) -> logits`.
    params: Parameters, with a leading axis of examples if `per_example`.
    x: Examples [N, H, W, C].
    per_example: Whether every example has parameters of its own.

  Returns:
    The likeliest classes [N].
  """
  return _answers(f, per_example, params, x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _answers(f, per_example, params, x):
  def one(given):
    x, own = given
    return jnp.argmax(f(own if per_example else params, x[None])[0])

  own = params if per_example else jnp.zeros(len(x))
  return jax.lax.map(one, (x, own))
