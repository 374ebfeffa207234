"""Pruning identified exemplars: samples on which whole populations differ.

A single pair of models also differs by chance. Here K dense and L pruned models
vote, and a binomial null says which differences the scatter of the dense models
does not explain.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics import counting, significance

Array = jax.Array


class Exemplars(NamedTuple):
  """Votes of two populations on each sample; all [N] or [N, A].

  Attributes:
    modal_dense: The label that most dense models give, the smallest on ties.
    modal_pruned: The same of the pruned models.
    pie: bool, whether the modal labels differ.
    all_disagree: bool, whether every pruned model differs from the teacher.
    dense_agreement: int32, how many of the K dense models give `modal_dense`.
    pruned_agreement: int32, how many of the L pruned models do.
    p: P(Bin(L, q) <= pruned_agreement), q = (dense_agreement + 1) / (K + 2).
    adjusted: The p-values corrected for the number of samples (of an attribute,
      where there are several).
    corrected: bool, those of `pie` whose adjusted p-value is at most the level.
  """

  modal_dense: Array
  modal_pruned: Array
  pie: Array
  all_disagree: Array
  dense_agreement: Array
  pruned_agreement: Array
  p: Array
  adjusted: Array
  corrected: Array


def exemplars(
  dense: Any,
  pruned: Any,
  classes: int | None = None,
  *,
  teacher: Any = None,
  level: float = 0.05,
  correction: str = "benjamini_hochberg",
) -> Exemplars:
  """Finds the samples on which pruned models vote otherwise than dense ones.

  Modal labels: Hooker et al., "What Do Compressed Deep Neural Networks Forget?"
  (2019). Disagreement of all: Blakeney et al., "Simon Says" (2021). The null is
  ours: a pruned model agrees with the dense mode as often as a dense model
  does, at the rate q that Laplace's rule gives it. That q is an estimate
  is left out of account, which makes p-values too small unless L is small
  beside K: of two populations of 20 without any difference (and evenly spread
  rates), 8 % of the samples have p <= 0.05.

  Args:
    dense: [K, N] or [K, N, A] class ids or bool, of K dense models.
    pruned: [L, N] or [L, N, A], of L pruned models.
    classes: The number of classes C, static. Not needed; the votes cost K
      passes over the predictions without it and C with it.
    teacher: [N] or [N, A], the model of `all_disagree`; None takes `dense[0]`.
    level: The level of the corrected exemplars.
    correction: "benjamini_hochberg" (share of false exemplars) or "holm" (any
      false exemplar).

  Returns:
    An `Exemplars`. It can be mapped over sparsities with `vmap`.

  Raises:
    ValueError: If shapes or types disagree, a population is empty, or the
      correction is unknown.

  >>> import numpy as np
  >>> dense = np.array([[0, 1, 2], [0, 1, 1], [0, 2, 0]])
  >>> pruned = np.array([[1, 1, 2], [1, 2, 2], [1, 1, 1]])
  >>> value = exemplars(dense, pruned)
  >>> value.modal_dense.tolist(), value.modal_pruned.tolist()
  ([0, 1, 0], [1, 1, 2])
  >>> value.pie.tolist(), value.all_disagree.tolist()
  ([True, False, True], [True, False, False])
  """
  significance.check_correction(correction)
  dense, pruned = (
    _read("dense", dense, classes),
    _read("pruned", pruned, classes),
  )
  if dense.shape[1:] != pruned.shape[1:] or dense.dtype != pruned.dtype:
    raise ValueError(
      "Both populations need predictions of one kind for the same samples, got"
      f" {dense.dtype}{list(dense.shape)} and"
      f" {pruned.dtype}{list(pruned.shape)}."
    )
  teacher = dense[0] if teacher is None else jnp.asarray(teacher)
  if teacher.shape != dense.shape[1:]:
    raise ValueError(
      f"teacher must have shape {list(dense.shape[1:])}, one model's"
      f" predictions, got {list(teacher.shape)}."
    )
  return _exemplars(
    dense, pruned, teacher.astype(dense.dtype), level, classes, correction
  )


@functools.partial(jax.jit, static_argnums=(4, 5))
def _exemplars(dense, pruned, teacher, level, classes, correction):
  modal_dense = _mode(dense, classes)
  modal_pruned = _mode(pruned, classes)
  pie = modal_dense != modal_pruned
  dense_agreement, pruned_agreement = (
    jnp.sum(votes == modal_dense[None], axis=0, dtype=jnp.int32)
    for votes in (dense, pruned)
  )
  table = significance.widest(_null(len(dense), len(pruned)))
  cell = dense_agreement * table.shape[1] + pruned_agreement
  # Only the cells of the table occur as p-values, so the family is counted
  # instead of sorted.
  adjust = functools.partial(_adjusted, table, correction)
  columns = jax.lax.map(adjust, cell.reshape(cell.shape[0], -1).T)
  adjusted = columns.T.reshape(cell.shape)
  return Exemplars(
    modal_dense,
    modal_pruned,
    pie,
    jnp.all(pruned != teacher[None], axis=0),
    dense_agreement,
    pruned_agreement,
    table.reshape(-1)[cell],
    adjusted,
    pie & (adjusted <= level),
  )


def _read(name: str, predictions: Any, classes: int | None) -> Array:
  array = jnp.asarray(predictions)
  if array.ndim not in (2, 3) or not array.shape[0]:
    raise ValueError(
      f"{name} must have shape [models, N] or [models, N, A] with at least one"
      f" model, got {list(array.shape)}."
    )
  if array.dtype == jnp.bool_:
    return array
  limit = 2**31 if classes is None else classes
  array = counting.read_ids(name, predictions, limit, ndim=array.ndim)
  return array.astype(jnp.int32)


def _mode(predictions: Array, classes: int | None) -> Array:
  """Returns the most frequent label over axis 0, the smallest on ties."""
  models = predictions.shape[0]
  if predictions.dtype == jnp.bool_:
    return 2 * jnp.sum(predictions, axis=0, dtype=jnp.int32) > models

  def visit(index, carry):
    label, votes = carry
    candidate = predictions[index] if classes is None else index
    candidate = jnp.broadcast_to(candidate, label.shape).astype(jnp.int32)
    count = jnp.sum(predictions == candidate[None], axis=0, dtype=jnp.int32)
    better = (count > votes) | ((count == votes) & (candidate < label))
    return jnp.where(better, candidate, label), jnp.where(better, count, votes)

  start = predictions[0], jnp.zeros(predictions.shape[1:], jnp.int32)
  steps = models if classes is None else classes
  return jax.lax.fori_loop(0, steps, visit, start)[0]


@functools.cache
def _null(dense: int, pruned: int) -> np.ndarray:
  """Returns P(Bin(L, (a + 1) / (K + 2)) <= b) for all a and b, [K + 1, L + 1].

  Exact: sums of integers, each divided once.
  """
  table = np.ones((dense + 1, pruned + 1))
  whole = (dense + 2) ** pruned
  for a in range(dense + 1):
    below = 0
    for b in range(pruned):
      ways = math.comb(pruned, b)
      below += ways * (a + 1) ** b * (dense + 1 - a) ** (pruned - b)
      table[a, b] = below / whole
  return table


def _adjusted(table: Array, correction: str, cell: Array) -> Array:
  """Returns the adjusted p-values [N] of one family, given their cells."""
  p = table.reshape(-1)
  counts = jnp.zeros(p.shape, jnp.int32).at[cell].add(1)
  return significance.CORRECTIONS[correction](p, counts=counts)[cell]
