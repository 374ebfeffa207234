"""Sparse adapters: trained weights at a few fixed places, and RoSA.

RoSA (Nikdan et al. 2024, arXiv 2401.04679) adds a low-rank and a sparse matrix
to every kernel. The places of the sparse weights are those of the largest
accumulated squared gradients (`effjax.adapters.collecting`), found after a
warm-up of the low-rank part (`effjax.adapters.agendas`), whereafter training
begins anew. Only the K values of a kernel are trained: their gradient is that
of the kernel, gathered at their places, and nothing dense is kept.
"""

import fractions
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax import tree as trees
from effjax.adapters import layouts
from effjax.adapters.base import (
  Adapter,
  Flat,
  Plan,
  Recipe,
  Tree,
  key_of,
  make,
  recipe_of,
  taken,
  wide_type,
)
from effjax.adapters.composition import sequence
from effjax.adapters.factored import Part, scattered
from effjax.adapters.low_rank import Alpha, Rank, lora
from effjax.pruning import masks as masking

_LARGEST = 2**31 - 1


def shira(masks: Tree, *, layout: layouts.Layout = None) -> Adapter:
  """Train a few weights of every kernel, at fixed places.

  SHiRA (Bhardwaj et al. 2024, arXiv 2406.13175). Any mask will do, such as
  `pruning.topk(pruning.magnitude(params), 0.98)`.

  Args:
    masks: Masks, True = trained, None for leaves that stay as they are; arrays
      with values, not traced.
    layout: Which axes stack kernels, see `adapters.layouts`; each of them needs
      the same number of places.

  Returns:
    The adapter; its theta has the role "sparse" [..., K], its fixed "indices"
    of the kernel in C order, ascending, int32 [..., K].

  Raises:
    ValueError: From init, if a mask is empty or does not fit; from all, if no
      leaf has a mask.

  >>> adapter = shira({"kernel": jnp.array([[False, True], [True, False]])})
  >>> theta, fixed = adapter.init(None, {"kernel": jnp.ones((2, 2))})
  >>> theta["kernel/sparse"].tolist(), fixed["kernel/indices"].tolist()
  ([0.0, 0.0], [1, 2])
  """

  def word(path: str, leaf: Any) -> str:
    # Without a declaration no axis is stacked, and the order is of no account.
    known = layouts.declared(layout, path)
    return "i" * len(leaf.shape) if known is None else known

  def plan(params: Tree) -> Plan:
    leaves = jax.tree.leaves(params)
    names = jax.tree.leaves(trees.names(params))
    aligned = trees.align(params, masks, "mask tree")
    triples = list(zip(names, leaves, aligned, strict=True))
    kernels = {name: x for name, x, mask in triples if mask is not None}
    if not kernels:
      raise ValueError("no leaf has a mask, so there is nothing to train")
    for name, leaf, mask in triples:
      if mask is not None:
        _check_mask(name, leaf, mask)
    own = {name: mask for name, _, mask in triples}
    batches = {p: word(p, x).count("b") for p, x in kernels.items()}

    def start(key: jax.Array, leaves: dict[str, Any]) -> tuple[Flat, Flat]:
      del key  # nothing is drawn
      theta, fixed = {}, {}
      for path, leaf in leaves.items():
        places = _places(own[path], batches[path], path)
        fixed[key_of(path, "indices")] = jnp.asarray(places)
        theta[key_of(path, "sparse")] = jnp.zeros(places.shape, wide_type(leaf))
      return theta, fixed

    def rewrite(whole: Flat, theta: Flat, fixed: Flat) -> Flat:
      found = {}
      for path, kernel in whole.items():
        values, places = _arrays(theta, fixed, path)
        add = scattered
        for _ in range(batches[path]):
          add = jax.vmap(add)
        found[path] = add(kernel, values.astype(kernel.dtype), places)
      return found

    def parts(theta: Flat, fixed: Flat) -> dict[str, Part]:
      found = {}
      for path, leaf in kernels.items():
        values, places = _arrays(theta, fixed, path)
        letters = layouts.resolve(layout, path, leaf.shape)
        places = layouts.matrix_indices(places, letters, leaf.shape)
        found[path] = Part(values=values, indices=places)
      return found

    return Plan(kernels=kernels, start=start, rewrite=rewrite, parts=parts)

  return make(
    Recipe(
      roles=frozenset({"sparse"}), fixed_roles=frozenset({"indices"}), plan=plan
    )
  )


def rosa(
  rank: Rank,
  masks: Tree,
  *,
  alpha: Alpha = None,
  where: trees.Where = None,
  layout: layouts.Layout = None,
  rank_stabilized: bool = False,
  initial: str = "uniform",
) -> Adapter:
  """Add a low-rank and a sparse matrix to every kernel.

  W becomes W + s A B + S (RoSA, Nikdan et al. 2024, arXiv 2401.04679). Both
  begin as zero, and the kernels are unchanged bit for bit.

  Args:
    rank: As for `lora`; 0 for the sparse part alone.
    masks: Where S may differ from zero, see `sparse_masks` and `shira`.
    alpha: As for `lora`, like what follows.
    where: Selector of the kernels of the low-rank part; by default those that
      have a mask.
    layout: Which axes of a kernel are inputs and outputs.
    rank_stabilized: Whether to divide by the square root of the rank.
    initial: How A and B begin.

  Returns:
    The adapter; its theta has the roles "lora_a", "lora_b" and "sparse", its
    fixed "indices".

  Raises:
    ValueError: As `lora` and `shira`.

  >>> mask = jnp.array([[True, False], [False, False]])
  >>> adapter = rosa(1, {"kernel": mask})
  >>> theta, _ = adapter.init(jax.random.key(0), {"kernel": jnp.eye(2)})
  >>> sorted(theta)
  ['kernel/lora_a', 'kernel/lora_b', 'kernel/sparse']
  """
  sparse = shira(masks, layout=layout)
  if rank == 0:
    return sparse
  if where is None:
    where = jax.tree.map(
      lambda mask: mask is not None, masks, is_leaf=lambda mask: mask is None
    )
  low_rank = lora(
    rank,
    alpha=alpha,
    where=where,
    layout=layout,
    rank_stabilized=rank_stabilized,
    initial=initial,
  )
  return make(sequence([recipe_of(low_rank), recipe_of(sparse)], ["", ""]))


def sparse_masks(
  squared_grads: Tree,
  density: float,
  *,
  scope: str = "layer",
  where: trees.Where = None,
  layout: layouts.Layout = None,
  convention: str = "exact",
) -> Tree:
  """Choose the places of sparse weights: the largest gradients.

  Of n weights floor(density n) are chosen, of equal ones that with the lower
  index.

  Args:
    squared_grads: Mean squared gradients, see `adapters.collect`, or mean ones,
      of which the absolute value counts; None for leaves to leave out.
    density: Share of the weights that is trained, above 0.
    scope: "layer", the same share of every kernel; or "global", the share of
      all of them together, most where gradients are largest.
    where: Selector of the leaves; by default floating ones of rank 2 or more.
    layout: Which axes stack kernels, see `adapters.layouts`; each of them gets
      the same share.
    convention: "reference" truncates the product of floating numbers, as the
      published program does: 28 of 100 at a density of 0.29.

  Returns:
    Masks, True = trained, None for leaves that are not selected.

  Raises:
    ValueError: If a name is unknown, the density is not within (0, 1] or leaves
      a kernel without places.

  >>> sparse_masks({"kernel": jnp.array([[3.0, 1.0], [2.0, 2.0]])}, 0.5)
  {'kernel': Array([[ True, False],
         [ True, False]], dtype=bool)}
  """
  masking.check_convention(convention)
  if scope not in ("layer", "global"):
    raise ValueError(f"scope={scope!r} is neither 'layer' nor 'global'")
  arguments.finite("density", density, 0)
  if not 0 < density <= 1:
    raise ValueError(
      f"density {density} is outside (0, 1], the share of weights to train; an"
      " adapter without a sparse part is adapters.lora"
    )
  scores = jax.tree.map(jnp.abs, squared_grads)
  chosen = trees.select(scores, where)
  count = functools.partial(_count, density=density, convention=convention)
  names = trees.names(scores)
  if scope == "global":
    leaves = jax.tree.leaves(trees.partition(scores, chosen)[0])
    keep = count(sum(leaf.size for leaf in leaves), "all kernels together")
    return masking.global_topk(scores, keep=keep, where=chosen)

  def choose(leaf: Any, name: str, c: bool) -> Any:
    if not c:
      return None
    stacked = (layouts.declared(layout, name) or "").count("b")
    size = int(np.prod(leaf.shape[stacked:]))
    top = functools.partial(
      masking.topk, keep=count(size, repr(name)), where=".*"
    )
    for _ in range(stacked):
      top = jax.vmap(top)
    return top(leaf)

  return jax.tree.map(choose, scores, names, chosen)


def _count(size: int, name: str, *, density: float, convention: str) -> int:
  """Count the places of a kernel on the host."""
  if convention == "exact":
    # The decimal number that was written, not its neighbour in binary, which
    # for a float32 would be another one in float64.
    count = int(fractions.Fraction(str(density)) * size)
  else:
    count = int(float(density) * size)
  if not count:
    raise ValueError(
      f"density {density} leaves none of the {size} weights of {name}; it takes"
      f" {1 / size:.2g} or more for one, or leave it out with where="
      if size
      else f"{name} is empty; leave it out with where="
    )
  return count


def _check_mask(name: str, leaf: Any, mask: Any) -> None:
  if not trees.is_floating(leaf):
    raise ValueError(f"{name!r} has a mask and is no floating array")
  if not trees.is_array(mask):
    raise ValueError(
      f"the mask of {name!r} must be an array, got {type(mask).__name__}"
    )
  if np.shape(mask) != leaf.shape:
    raise ValueError(
      f"the mask of {name!r} has shape {np.shape(mask)}, the leaf {leaf.shape}"
    )


def _places(mask: Any, stacked: int, name: str) -> np.ndarray:
  """Return the indices where a mask is True, ascending, int32 [..., K]."""
  if isinstance(mask, jax.core.Tracer):
    raise ValueError(
      f"the mask of {name!r} is traced; how many places it has must be known:"
      " make the masks outside of jit"
    )
  batch, inner = mask.shape[:stacked], mask.shape[stacked:]
  flat = np.asarray(mask, bool).reshape(-1, int(np.prod(inner)))
  if flat.shape[1] > _LARGEST:
    raise ValueError(
      f"{name!r} has more than {_LARGEST} weights, too many for int32"
    )
  rows = [np.flatnonzero(row).astype(np.int32) for row in flat]
  counts = sorted({row.size for row in rows})
  if len(counts) > 1:
    raise ValueError(
      f"the stacked kernels of {name!r} have from {counts[0]} to {counts[-1]}"
      " places; the same number is wanted, as sparse_masks(..., layout=) gives"
    )
  if counts in ([], [0]):
    raise ValueError(
      f"the mask of {name!r} is empty; raise the density, or give None"
    )
  return np.stack(rows).reshape(*batch, counts[0])


def _arrays(theta: Flat, fixed: Flat, path: str) -> tuple[jax.Array, jax.Array]:
  (values,) = taken(theta, path, ("sparse",), "theta")
  (places,) = taken(fixed, path, ("indices",), "fixed")
  if values.shape != places.shape:
    raise ValueError(
      f"{key_of(path, 'sparse')!r} has shape {values.shape}, its indices"
      f" {places.shape}"
    )
  return values, places
