"""A frozen base in few bits, turned into numbers where it is used.

Two kinds: int8 with one scale for each output or block, and NF4 (Dettmers et
al. 2023, QLoRA, arXiv 2305.14314): four bits that index the quantiles of a
normal distribution, with one scale for each block, which may be quantised too.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax import tree as trees
from effjax.adapters import layouts

Tree = Any

KINDS = ("int8", "nf4")
# Scales that share a scale of their own, and how they are centred: QLoRA, 3.
_SCALES = 256

# Quantiles of a normal distribution over the largest of them, zero included
# (QLoRA, appendix E).
LEVELS = np.array(
  [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
  ],
  np.float32,
)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=["codes", "scales", "scale_scales", "offset"],
  meta_fields=["kind", "shape", "dtype", "axis"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantized:
  """A leaf in few bits.

  Attributes:
    codes: int8 like the leaf, or blocks of it [N, B]; for NF4 uint8 [N, B / 2],
      the first of two codes in the high bits.
    scales: float32 for each output, or for each block [N, 1]; int8 [M, 256] if
      they are quantised too.
    scale_scales: float32 [M, 1], or None.
    offset: Mean of the scales that was subtracted from them, float32 [], or
      None.
    kind: "int8" or "nf4".
    shape: Shape of the leaf.
    dtype: Name of its type.
    axis: Axes along which int8 shares a scale; None for blocks.
  """

  codes: jax.Array
  scales: jax.Array
  scale_scales: jax.Array | None
  offset: jax.Array | None
  kind: str
  shape: tuple[int, ...]
  dtype: Any
  axis: tuple[int, ...] | None

  @property
  def ndim(self) -> int:
    """Number of axes of the leaf."""
    return len(self.shape)

  @property
  def size(self) -> int:
    """Number of weights of the leaf."""
    return math.prod(self.shape)

  @property
  def bits(self) -> float:
    """Stored bits a weight, scales included."""
    return 8 * sum(x.nbytes for x in jax.tree.leaves(self)) / max(self.size, 1)


def is_quantized(leaf: Any) -> bool:
  """Say whether a node of a tree is a quantised leaf.

  Args:
    leaf: Any object.

  Returns:
    True if it is.

  >>> is_quantized(jnp.ones(2))
  False
  """
  return isinstance(leaf, Quantized)


def quantize(
  params: Tree,
  kind: str = "nf4",
  *,
  where: trees.Where = None,
  block: int | None = None,
  double: bool = True,
  layout: layouts.Layout = None,
) -> Tree:
  """Store leaves in few bits.

  Adapters and `adapters.dense` take such a tree in the place of the
  parameters; other code wants `dequantize` first.

  Args:
    params: Any pytree.
    kind: "nf4", 4.13 bits a weight with blocks of 64, or "int8".
    where: Selector of the leaves; by default floating ones of rank 2 or more.
    block: Weights in C order that share a scale; by default 64 for NF4, and for
      int8 all weights of one output.
    double: Whether the scales of NF4 are quantised too, to 8 bits.
    layout: Which axes of a kernel are outputs, see `adapters.layouts`.

  Returns:
    The tree, with a `Quantized` for each selected leaf.

  Raises:
    ValueError: If the kind is unknown, the block is no even number above 0 or
      nothing is selected.

  >>> params = {"kernel": jnp.array([[1.0, -0.5], [0.25, 0.0]])}
  >>> dequantize(quantize(params, "int8"))["kernel"].round(2).tolist()
  [[1.0, -0.5], [0.25, 0.0]]
  """
  if kind not in KINDS:
    raise ValueError(
      f"there is no kind of quantisation {kind!r}; choose one of"
      f" {', '.join(trees.nearest(kind, KINDS))}"
    )
  if block is not None:
    block = arguments.whole("block", block, 2)
    if block % 2:
      raise ValueError(
        f"block={block} must be an even number of weights, say 64"
      )
  chosen = trees.select(params, where)
  names = trees.names(params)

  def code(leaf: Any, name: str, c: bool) -> Any:
    if not c:
      return leaf
    if not trees.is_floating(leaf):
      raise ValueError(f"{name!r} is of type {leaf.dtype}, not floating")
    if kind == "nf4":
      return _nf4(leaf, block or 64, double)
    axes = None
    if block is None:
      word = layouts.resolve(layout, name, leaf.shape)
      axes = tuple(a for a, letter in enumerate(word) if letter == "i")
    return _int8(leaf, block, axes)

  return jax.tree.map(code, params, names, chosen)


def dequantize(params: Tree) -> Tree:
  """Turn quantised leaves into arrays.

  Args:
    params: Any pytree.

  Returns:
    The tree, every leaf in the type it had.
  """
  return jax.tree.map(dense_value, params, is_leaf=is_quantized)


def dense_value(leaf: Any) -> Any:
  """Return the array that a leaf stands for.

  Args:
    leaf: A quantised leaf, or anything else, which is returned.

  Returns:
    The array.
  """
  if not is_quantized(leaf):
    return leaf
  if leaf.kind == "nf4":
    pairs = jnp.stack([leaf.codes >> 4, leaf.codes & 15], axis=-1)
    blocks, half = leaf.codes.shape
    levels = jnp.asarray(LEVELS)[pairs.reshape(blocks, 2 * half)]
    values = levels * _scales(leaf)
  else:
    values = leaf.codes.astype(jnp.float32) * leaf.scales
  if leaf.axis is None:
    values = values.reshape(-1)[: leaf.size].reshape(leaf.shape)
  return values.astype(leaf.dtype)


def _scales(leaf: Quantized) -> jax.Array:
  if leaf.scale_scales is None or leaf.offset is None:
    return leaf.scales
  scales = leaf.scales.astype(jnp.float32) * leaf.scale_scales + leaf.offset
  return scales.reshape(-1, 1)[: leaf.codes.shape[0]]


def _blocks(flat: jax.Array, block: int) -> jax.Array:
  flat = flat.reshape(-1)
  return jnp.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def _int8(leaf: Any, block: int | None, axes: tuple | None) -> Quantized:
  values = jnp.asarray(leaf).astype(jnp.float32)
  if block is not None:
    values = _blocks(values, block)
  codes, scales = _rounded(values, (1,) if axes is None else axes)
  return Quantized(
    codes=codes,
    scales=scales,
    scale_scales=None,
    offset=None,
    kind="int8",
    shape=leaf.shape,
    dtype=leaf.dtype,
    axis=axes,
  )


def _rounded(
  values: jax.Array, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """Round to 8 bits with one scale along axes; zeros stay zeros."""
  largest = jnp.max(jnp.abs(values), axis=axes, keepdims=True, initial=0)
  scales = largest / 127
  safe = jnp.where(scales > 0, scales, 1)
  return jnp.round(values / safe).astype(jnp.int8), scales


def _nf4(leaf: Any, block: int, double: bool) -> Quantized:
  blocks = _blocks(jnp.asarray(leaf).astype(jnp.float32), block)
  scales = jnp.max(jnp.abs(blocks), axis=1, keepdims=True, initial=0)
  shares = blocks / jnp.where(scales > 0, scales, 1)
  middles = jnp.asarray((LEVELS[1:] + LEVELS[:-1]) / 2)
  codes = jnp.searchsorted(middles, shares).astype(jnp.uint8)
  scale_scales = offset = None
  if double:
    offset = jnp.mean(scales) if scales.size else jnp.float32(0)
    scales, scale_scales = _rounded(_blocks(scales - offset, _SCALES), (1,))
  return Quantized(
    codes=codes[:, ::2] << 4 | codes[:, 1::2],
    scales=scales,
    scale_scales=scale_scales,
    offset=offset,
    kind="nf4",
    shape=leaf.shape,
    dtype=leaf.dtype,
    axis=None,
  )
