"""How sparse each layer becomes: one number for each selected leaf."""

import math
import textwrap
from typing import Any

import jax
import numpy as np

from effjax import tree as trees

Tree = Any


def check_sparsity(sparsity: float, name: str = "sparsity") -> float:
  """Check that a concrete sparsity lies in [0, 1].

  Args:
    sparsity: Share of pruned weights.
    name: What it is called in the error.

  Returns:
    The number as a float.

  Raises:
    ValueError: If it lies outside or is not one number.

  >>> check_sparsity(0.5)
  0.5
  """
  try:
    array = np.asarray(sparsity)
    if array.ndim or array.dtype.kind in "bcUS":
      raise TypeError
    sparsity = float(sparsity)
  except (TypeError, ValueError):
    raise ValueError(
      f"{name} must be one number in [0, 1], the share of weights to prune, not"
      f" {textwrap.shorten(repr(sparsity), 60)}"
    ) from None
  if not 0.0 <= sparsity <= 1.0:
    hint = f"; did you mean {sparsity / 100:g}?" if 2 <= sparsity <= 100 else ""
    raise ValueError(
      f"{name} {sparsity} is outside [0, 1], the share of weights to"
      f" prune{hint}"
    )
  return sparsity


def count_kept(size: int, sparsity: float) -> int:
  """Count the weights that remain: size minus floor(sparsity * size + 1/2).

  Args:
    size: Number of weights.
    sparsity: Share of pruned weights.

  Returns:
    The number of kept weights, computed on the host in float64.

  >>> count_kept(10, 0.95), count_kept(100_000_001, 0.9)
  (0, 10000000)
  """
  return size - math.floor(check_sparsity(sparsity) * size + 0.5)


def uniform(
  params: Tree, sparsity: float, *, where: trees.Where = None
) -> Tree:
  """Give every selected leaf the same sparsity.

  Args:
    params: Any pytree.
    sparsity: Share of weights to prune.
    where: Selector of the leaves; by default floating ones of rank 2 or more.

  Returns:
    A tree of floats, None for the leaves that are not selected.

  >>> import numpy as np
  >>> uniform({"kernel": np.ones((2, 2)), "bias": np.ones(2)}, 0.5)
  {'bias': None, 'kernel': 0.5}
  """
  check_sparsity(sparsity)
  chosen = trees.select(params, where)
  return jax.tree.map(lambda c: float(sparsity) if c else None, chosen)


def erk(params: Tree, sparsity: float, *, where: trees.Where = None) -> Tree:
  """Allocate sparsity by the Erdos-Renyi kernel rule.

  The density of a layer is proportional to the sum of its dimensions divided by
  their product; a layer that would be more than dense is dense and the others
  make up for it (Evci et al. 2020, arXiv 1911.11134).

  Args:
    params: Any pytree.
    sparsity: Share of weights to prune over all selected leaves together.
    where: Selector of the leaves; by default floating ones of rank 2 or more.

  Returns:
    A tree of floats, None for the leaves that are not selected.

  >>> import numpy as np
  >>> layers = {"a": np.ones((10, 10)), "b": np.ones((100, 100))}
  >>> {k: round(v, 4) for k, v in erk(layers, 0.9).items()}
  {'a': 0.0818, 'b': 0.9082}
  """
  check_sparsity(sparsity)
  chosen = trees.select(params, where)
  leaves, treedef = jax.tree.flatten(params)
  picked = jax.tree.leaves(chosen)
  sizes = [
    math.prod(leaf.shape) if c else 0
    for leaf, c in zip(leaves, picked, strict=True)
  ]
  raw = [
    sum(leaf.shape) / size if size else 0.0
    for leaf, size in zip(leaves, sizes, strict=True)
  ]
  budget = (1.0 - sparsity) * sum(sizes)
  dense: set[int] = set()
  while True:
    free = [i for i, size in enumerate(sizes) if size and i not in dense]
    spread = sum(raw[i] * sizes[i] for i in free)
    rest = budget - sum(sizes[i] for i in dense)
    scale = rest / spread if spread else 0.0
    full = [i for i in free if raw[i] * scale > 1.0]
    if not full:
      break
    dense.update(full)
  densities = [1.0 if i in dense else r * scale for i, r in enumerate(raw)]
  values = [
    min(1.0, max(0.0, 1.0 - d)) if c else None
    for d, c in zip(densities, picked, strict=True)
  ]
  return treedef.unflatten(values)
