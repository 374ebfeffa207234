"""One-shot pruning of whole trees of weights, layer by layer."""

from typing import Any

import jax

from effjax import tree as trees
from effjax.pruning.gram import kernel_to_matrix, matrix_to_kernel
from effjax.pruning.obs.sweep import sparsegpt

Tree = Any


def prune_tree(
  params: Tree,
  grams: Tree,
  sparsity: Any = None,
  *,
  n_m: tuple[int, int] | None = None,
  mask_block: int | None = None,
  damping: float = 0.01,
  where: trees.Where = None,
  convention: str = "exact",
) -> tuple[Tree, Tree]:
  """Prune a trained network at once, each layer by its Gram matrix.

  Every layer is solved on its own with the inputs that it meets in the dense
  network; biases stay.

  Args:
    params: Any pytree; kernels are [I, O] or [kh, kw, I, O].
    grams: For each selected kernel its Gram matrix, see `pruning.input_gram`
      and `pruning.conv_input_gram`; None elsewhere.
    sparsity: Share to prune, a number or a tree of them, such as `erk` makes.
    n_m: Instead, (kept, of): so many of every `of` neighbours of a row.
    mask_block: Columns whose entries are chosen together; by default 128, and
      the taps of a kernel for a convolution of more than one tap.
    damping: As in `sparsegpt`.
    where: Selector of the kernels; by default those that have a Gram matrix.
    convention: As in `sparsegpt`.

  Returns:
    The parameters, and masks: True = kept, None for leaves that are not pruned.

  Raises:
    ValueError: If a selected kernel has no Gram matrix or another shape, or as
      `sparsegpt` does.

  >>> import jax.numpy as jnp
  >>> params = {"kernel": jnp.array([[1.0], [0.1]]), "bias": jnp.ones(1)}
  >>> grams = {"kernel": jnp.eye(2), "bias": None}
  >>> pruned, masks = prune_tree(params, grams, 0.5)
  >>> pruned["kernel"].tolist(), masks["bias"]
  ([[1.0], [0.0]], None)
  """
  leaves, treedef = jax.tree.flatten(params)
  names = jax.tree.leaves(trees.names(params))
  matrices = trees.align(params, grams, "tree of Gram matrices")
  chosen = (
    [gram is not None for gram in matrices]
    if where is None
    else jax.tree.leaves(trees.select(params, where))
  )
  if not any(chosen):
    raise ValueError("no kernel has a Gram matrix: nothing can be pruned")
  one = sparsity is None or isinstance(sparsity, int | float)
  if one or trees.is_array(sparsity):
    shares = [sparsity] * len(leaves)
  else:
    shares = trees.align(params, sparsity, "tree of sparsities")
  pruned = list(leaves)
  masks: list[Any] = [None] * len(leaves)
  for i, (name, leaf, gram) in enumerate(
    zip(names, leaves, matrices, strict=True)
  ):
    if not chosen[i]:
      continue
    if gram is None:
      raise ValueError(f"the selected kernel {name!r} has no Gram matrix")
    if leaf.ndim not in (2, 4):
      raise ValueError(
        f"{name!r} has shape {leaf.shape}; kernels [I, O] and [kh, kw, I, O]"
        " can be pruned: narrow where="
      )
    if not trees.is_floating(leaf):
      raise ValueError(
        f"{name!r} is of {leaf.dtype}; what stays is changed, so kernels must"
        " be floating"
      )
    matrix = kernel_to_matrix(leaf)
    if gram.shape != (matrix.shape[1],) * 2:
      raise ValueError(
        f"the Gram matrix of {name!r} has shape {gram.shape};"
        f" {(matrix.shape[1],) * 2} is wanted for a kernel of shape"
        f" {leaf.shape}"
      )
    taps = leaf.shape[0] * leaf.shape[1] if leaf.ndim == 4 else 1
    block = (taps if taps > 1 else 128) if mask_block is None else mask_block
    try:
      solution = sparsegpt(
        matrix,
        gram,
        shares[i],
        n_m=n_m,
        mask_block=block,
        damping=damping,
        convention=convention,
      )
    except ValueError as error:
      raise ValueError(f"{name!r}: {error}") from error
    back = lambda x, shape=leaf.shape: matrix_to_kernel(x, shape)
    pruned[i] = back(solution.weights).astype(leaf.dtype)
    masks[i] = back(solution.mask)
  return treedef.unflatten(pruned), treedef.unflatten(masks)
