"""The inputs of every layer of a linen model, without editing the model.

What a layer-wise solver has to know of a layer: the inputs that it meets, and
how its kernel walks over them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from effjax.models import layers

Tree = Any
_COLLECTION, _NAME = "effjax_met", "met"


class Layer(NamedTuple):
  """How a layer's kernel meets its inputs.

  Attributes:
    axes: The order of the kernel's axes that makes it [I, O] or [kh, kw, I, O].
    strides: Step of the window (rows, columns); 1 for a dense layer.
    padding: "SAME", "VALID", or a pair (before, after) for rows and columns.
    dilation: Distance of the taps of the kernel.
    groups: Number of independent blocks of channels.
  """

  axes: tuple[int, ...]
  strides: tuple[int, int] = (1, 1)
  padding: Any = "VALID"
  dilation: tuple[int, int] = (1, 1)
  groups: int = 1

  @property
  def is_convolution(self) -> bool:
    """Whether the kernel has taps."""
    return len(self.axes) == 4


# Two are the same only if they are one object: a compiled program is looked up
# by it, and holds the statistics that are bound here.
@dataclasses.dataclass(frozen=True, eq=False)
class Capture:
  """A linen model that also gives what its layers meet.

  Attributes:
    module: The model.
    variables: Its collections but the parameters, batch statistics for example.
    options: What its call is given by name, `train=False` for example.
  """

  module: nn.Module
  variables: Tree
  options: dict[str, Any]

  def __call__(
    self, params: Tree, x: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Apply the model.

    Args:
      params: Its parameters.
      x: Inputs [N, ...].

    Returns:
      The logits [N, A], and by the path of its kernel the inputs of each layer,
      [..., I] or [N, H, W, I].

    Raises:
      ValueError: If a layer is called twice with images of different sizes.
    """
    logits, called, _ = self._apply(params, x)
    joined = {path: _join(path, inputs) for path, inputs in called.items()}
    return logits, joined

  def layers(self, params: Tree, x: Any) -> dict[str, Layer]:
    """Say how the layers meet their inputs, without computing anything.

    Args:
      params: The parameters, or their shapes.
      x: Inputs [N, ...], or their shape.

    Returns:
      By the path of its kernel what is known of each layer.
    """
    found: dict[str, Layer] = {}

    def apply(params: Tree, x: jax.Array) -> Any:
      logits, _, known = self._apply(params, x)
      found.update(known)
      return logits

    jax.eval_shape(apply, params, x)
    return found

  def _apply(self, params: Tree, x: jax.Array) -> tuple[Any, dict, dict]:
    known: dict[str, Layer] = {}

    def intercept(call, arguments, options, context):
      layer = _layer(context.module)
      if context.method_name == "__call__" and layer is not None:
        given = arguments[0] if arguments else next(iter(options.values()))
        # A collection of variables leads out of `nn.remat`, and not of loops.
        if context.module.sow(_COLLECTION, _NAME, given):
          known["/".join((*context.module.path, "kernel"))] = layer
      return call(*arguments, **options)

    with nn.intercept_methods(intercept):
      logits, sown = self.module.apply(
        {**self.variables, "params": params},
        x,
        mutable=[_COLLECTION],
        **self.options,
      )
    flat: dict[str, Any] = traverse_util.flatten_dict(
      sown.get(_COLLECTION, {}), sep="/"
    )
    called = {
      path: list(flat[path.removesuffix("kernel") + _NAME]) for path in known
    }
    return logits, called, known


def capture(module: nn.Module, variables: Tree, **options: Any) -> Capture:
  """Make a function of a linen model that gives the inputs of its layers too.

  Dense layers and convolutions of images are captured, `flax.linen`'s and those
  of `models.layers`, also within `nn.remat`. Convolutions that wrap around,
  reflect, or dilate their inputs are not, nor what is within `nn.scan`.

  Args:
    module: The model.
    variables: Its collections, with the batch statistics to use; its "params"
      are ignored.
    **options: What the model's call takes by name, such as `train=False`.

  Returns:
    A function `(params, x) -> (logits, {path of the kernel: inputs})`, whose
    method `layers` tells strides and padding.

  >>> module = nn.Dense(2)
  >>> variables = module.init(jax.random.key(0), jnp.ones((1, 3)))
  >>> logits, inputs = capture(module, variables)(
  ...   variables["params"], jnp.ones((5, 3))
  ... )
  >>> {path: x.shape for path, x in inputs.items()}
  {'kernel': (5, 3)}
  """
  others = {k: v for k, v in dict(variables).items() if k != "params"}
  return Capture(module, others, options)


def _layer(module: nn.Module) -> Layer | None:
  """Describe a layer; None for what is none that a solver can take."""
  if isinstance(module, nn.Dense):
    return Layer((0, 1))
  if isinstance(module, layers.Conv):
    return _convolution(module, module.strides, module.padding, 1)
  if isinstance(module, nn.Conv):
    size = module.kernel_size
    plain = module.input_dilation in (None, 1, (1, 1))
    if not isinstance(size, Sequence) or len(size) != 2 or not plain:
      return None
    return _convolution(
      module, module.strides, module.padding, module.kernel_dilation
    )
  return None


def _convolution(module: Any, strides, padding, dilation) -> Layer | None:
  if isinstance(padding, str):
    if padding.upper() not in ("SAME", "VALID"):
      return None
    pads: Any = padding.upper()
  else:
    sides = (padding, padding) if isinstance(padding, int) else tuple(padding)
    pads = tuple((p, p) if isinstance(p, int) else tuple(p) for p in sides)
  return Layer(
    (0, 1, 2, 3),
    _pair(strides),
    pads,
    _pair(dilation),
    module.feature_group_count,
  )


def _pair(value: Any) -> tuple[int, int]:
  if value is None:
    return 1, 1
  rows, columns = (value, value) if isinstance(value, int) else value
  return rows, columns


def _join(path: str, inputs: list[jax.Array]) -> jax.Array:
  """Put the inputs of a layer that is called several times together."""
  if len(inputs) == 1:
    return inputs[0]
  if inputs[0].ndim != 4:
    inputs = [x.reshape(-1, x.shape[-1]) for x in inputs]
  elif len({x.shape[1:] for x in inputs}) > 1:
    raise ValueError(
      f"the layer {path!r} is called with images of the sizes"
      f" {sorted({x.shape[1:3] for x in inputs})}; its inputs cannot be put"
      " together"
    )
  return jnp.concatenate(inputs)
