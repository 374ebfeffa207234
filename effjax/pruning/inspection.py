"""What masks contain: sparsity, a table by layer, packed bits."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree as trees
from effjax.pruning.counts import is_traced

Tree = Any


def sparsity(masks: Tree) -> jax.Array:
  """Measure the share of pruned weights from the masks.

  Args:
    masks: Masks, True = kept; leaves that are not pruned (None) do not count.

  Returns:
    A float32 scalar.

  Raises:
    ValueError: If there is no mask, or masks have a shape but no values.

  >>> float(sparsity({"w": jnp.array([True, False, False, False])}))
  0.75
  """
  leaves = jax.tree.leaves(masks)
  total = sum(leaf.size for leaf in leaves)
  if not total:
    raise ValueError("there are no masks to measure")
  _check_values(masks)
  if not any(map(is_traced, leaves)):
    kept = sum(int(np.count_nonzero(leaf)) for leaf in leaves)
    return jnp.float32((total - kept) / total)
  # Per leaf the count is exact; shares of the total add up in float32.
  pruned = [jnp.sum(jnp.logical_not(leaf), dtype=jnp.int32) for leaf in leaves]
  shares = [count.astype(jnp.float32) / total for count in pruned]
  return sum(shares, start=jnp.float32(0))


def _check_values(masks: Tree) -> None:
  """Reject what `jax.eval_shape` returns."""
  if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(masks)):
    raise ValueError(
      "the masks have shapes but no values; inside jax.eval_shape or jit use"
      " pruning.sparsity, elsewhere give arrays"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSummary:
  """One row of a summary.

  Attributes:
    name: Name of the leaf.
    shape: Its shape.
    size: Number of weights.
    kept: Number of weights kept; all of them where it is not pruned.
    pruned: Whether the leaf has a mask.
  """

  name: str
  shape: tuple[int, ...]
  size: int
  kept: int
  pruned: bool

  @property
  def sparsity(self) -> float:
    """Share of the weights that is pruned."""
    return 1.0 - self.kept / self.size if self.size else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """Sparsity by layer; print it for a table.

  Attributes:
    layers: One row for every array.
  """

  layers: tuple[LayerSummary, ...]

  @property
  def sparsity(self) -> float:
    """Share pruned of the weights that have a mask."""
    return self._share([layer for layer in self.layers if layer.pruned])

  @property
  def sparsity_of_all(self) -> float:
    """Share pruned of all parameters, unpruned leaves included."""
    return self._share(list(self.layers))

  @staticmethod
  def _share(layers: list[LayerSummary]) -> float:
    total = sum(layer.size for layer in layers)
    kept = sum(layer.kept for layer in layers)
    return 1.0 - kept / total if total else math.nan

  def __str__(self) -> str:
    rows = [("name", "shape", "weights", "kept", "sparsity")]
    rows += [
      (
        layer.name,
        "x".join(map(str, layer.shape)) or "scalar",
        f"{layer.size:,}",
        f"{layer.kept:,}",
        f"{layer.sparsity:.2%}" if layer.pruned else "not pruned",
      )
      for layer in self.layers
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    line = lambda row: "  ".join(
      cell.ljust(w) if i < 2 else cell.rjust(w)
      for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    total = "no layer is pruned"
    if any(layer.pruned for layer in self.layers):
      total = (
        f"sparsity {self.sparsity:.4%} of the weights that are pruned,"
        f" {self.sparsity_of_all:.4%} of all parameters"
      )
    return "\n".join([*map(line, rows), total])


def summary(params: Tree, masks: Tree) -> Summary:
  """Tabulate the sparsity of every layer, counted from the masks.

  Args:
    params: Any pytree; shapes will do.
    masks: Masks, True = kept, None for leaves that are not pruned.

  Returns:
    A summary that prints as a table.

  Raises:
    ValueError: If the masks do not fit the parameters or hold no values.

  >>> params = {"dense": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}}
  >>> masks = {"dense": {"kernel": np.eye(2) == 1, "bias": None}}
  >>> print(summary(params, masks))
  name          shape  weights  kept    sparsity
  dense/bias    2            2     2  not pruned
  dense/kernel  2x2          4     2      50.00%
  sparsity 50.0000% of the weights that are pruned, 33.3333% of all parameters
  """
  leaves = jax.tree.leaves(params)
  names = jax.tree.leaves(trees.names(params))
  _check_values(masks)
  if any(map(is_traced, jax.tree.leaves(masks))):
    raise ValueError(
      "a summary needs the values of the masks, which are traced here; make it"
      " outside of jit, or use pruning.sparsity"
    )
  rows = []
  for name, leaf, mask in zip(
    names, leaves, trees.align(params, masks, "mask tree"), strict=True
  ):
    if not trees.is_array(leaf):
      continue
    size = math.prod(leaf.shape)
    if mask is not None and np.shape(mask) != leaf.shape:
      raise ValueError(
        f"the mask of {name!r} has shape {np.shape(mask)}, the leaf"
        f" {leaf.shape}"
      )
    kept = size if mask is None else int(np.count_nonzero(mask))
    rows.append(
      LayerSummary(
        name=name,
        shape=tuple(leaf.shape),
        size=size,
        kept=kept,
        pruned=mask is not None,
      )
    )
  return Summary(layers=tuple(rows))


def pack(masks: Tree) -> Tree:
  """Pack masks into bits, eight weights a byte, for checkpoints.

  Args:
    masks: Masks, None for leaves that are not pruned.

  Returns:
    A tree of uint8 arrays [ceil(n / 8)].

  >>> pack({"w": jnp.array([True, False, True])})["w"].tolist()
  [160]
  """
  return jax.tree.map(
    lambda mask: jnp.packbits(_flat(mask).astype(bool)), masks
  )


def _flat(mask: jax.Array) -> jax.Array:
  mask = jnp.asarray(mask)
  if jax.typeof(mask).sharding.mesh.explicit_axes:
    # Only a whole array can be made flat.
    mask = jax.sharding.reshard(mask, jax.sharding.PartitionSpec())
  return mask.reshape(-1)


def unpack(packed: Tree, like: Tree) -> Tree:
  """Undo `pack`.

  Args:
    packed: Packed masks.
    like: A tree whose leaves have the shapes of the masks, such as the
      parameters.

  Returns:
    Masks, None where `packed` has None.

  Raises:
    ValueError: If a packed mask is not uint8 of the length its shape needs.

  >>> masks = {"w": jnp.array([[True, False, True]])}
  >>> unpack(pack(masks), masks)["w"].tolist()
  [[True, False, True]]
  """
  leaves, treedef = jax.tree.flatten(like)
  names = jax.tree.leaves(trees.names(like))
  masks: list = []
  for name, leaf, bits in zip(
    names,
    leaves,
    trees.align(like, packed, "tree of packed masks"),
    strict=True,
  ):
    if bits is None:
      masks.append(None)
      continue
    size = math.prod(leaf.shape)
    if not trees.is_array(bits) or bits.dtype != jnp.uint8:
      kind = getattr(bits, "dtype", type(bits).__name__)
      raise ValueError(
        f"the packed mask of {name!r} is {kind}; pack makes uint8 arrays"
      )
    if bits.shape != (-(-size // 8),):
      raise ValueError(
        f"the packed mask of {name!r} has shape {bits.shape}; {leaf.shape}"
        f" needs {(-(-size // 8),)}"
      )
    flat = jnp.unpackbits(bits, count=size).astype(bool)
    masks.append(flat.reshape(leaf.shape))
  return treedef.unflatten(masks)
