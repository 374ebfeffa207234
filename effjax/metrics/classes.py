"""What compression does to each class of a multi-class model."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax.metrics import counting, significance
from effjax.metrics.significance import widest as wide

Array = jax.Array


class CevSde(NamedTuple):
  """How unevenly errors change over classes, with what that rests on.

  Attributes:
    cev: [], combined error variance: the mean over classes and over both
      changes of the squared distance from the mean change.
    cev_sqdist: [], 2 `cev`: the mean squared Euclidean distance of the points
      (change of FPR, change of FNR) from their centroid.
    sde: [], symmetric distance error: the mean distance of the points from the
      line on which both rates change alike.
    fpr_change: [C], change of the false positive rate in percent of the dense
      model's; NaN where that is 0 (x/0 under "reference").
    fnr_change: [C], the same for the false negative rate.
    defined: [C] bool, whether both changes of the class are finite.
    count: [], the number of defined classes. With one, `cev` is 0 by its
      definition.
    dense_fpr: [C], false positive rate of the dense model, one against rest.
    dense_fnr: [C], its false negative rate.
    support: [C], the number of samples of each class; None from rates.
  """

  cev: Array
  cev_sqdist: Array
  sde: Array
  fpr_change: Array
  fnr_change: Array
  defined: Array
  count: Array
  dense_fpr: Array
  dense_fnr: Array
  support: Any


def cev_sde(
  labels: Any,
  dense: Any,
  pruned: Any,
  classes: int,
  *,
  convention: str = "exact",
) -> CevSde:
  """Returns the spread of changed error rates over classes.

  Blakeney et al., "Simon Says: Evaluating and Mitigating Bias in Pruned Neural
  Networks with Knowledge Distillation" (2021). Rates are averaged over the
  pruned models first. Changes are quotients of counts, so a model that makes
  the dense model's errors has changes of exactly 0.

  Args:
    labels: [N] class ids.
    dense: [N] predictions of the dense model.
    pruned: [S, N] predictions of the pruned models.
    classes: C, static.
    convention: A class in which a dense rate is 0 is left out of the means
      under "exact"; under "reference" it is not, and they are NaN or infinite.

  Returns:
    A `CevSde`; NaN where no class is defined.

  Raises:
    ValueError: If shapes disagree or an id is outside [0, classes).

  >>> import numpy as np
  >>> labels = np.array([0, 0, 0, 1, 1, 1])
  >>> dense = np.array([0, 0, 1, 0, 1, 1])
  >>> pruned = np.array([[0, 1, 1, 0, 1, 1]])
  >>> value = cev_sde(labels, dense, pruned, 2)
  >>> value.fpr_change.tolist(), value.fnr_change.tolist()
  ([0.0, 100.0], [100.0, 0.0])
  """
  counting.check_convention(convention)
  labels, dense, pruned = read_classes(labels, dense, pruned, classes, "[N]")
  return _cev_sde(labels, dense, pruned, classes, convention)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _cev_sde(labels, dense, pruned, classes, convention):
  everywhere = jnp.ones(labels.shape, bool)
  support = count_ids(labels, everywhere, classes)

  def errors(predictions):
    hits = count_ids(labels, predictions == labels, classes)
    return count_ids(predictions, everywhere, classes) - hits, support - hits

  before = errors(dense)
  after = jax.vmap(errors)(pruned)
  changes = (
    100.0
    * wide(jnp.sum(many - one[None], axis=0))
    / (pruned.shape[0] * wide(one))
    for one, many in zip(before, after, strict=True)
  )
  sizes = (jnp.sum(support) - support, support)
  rates = (wide(n) / wide(size) for n, size in zip(before, sizes, strict=True))
  return _spread(tuple(changes), tuple(rates), support, convention)


def cev_sde_of_rates(
  dense_fpr: Any,
  dense_fnr: Any,
  pruned_fpr: Any,
  pruned_fnr: Any,
  *,
  convention: str = "exact",
) -> CevSde:
  """Returns what `cev_sde` does, from error rates.

  Serves several binary attributes too, each as a class: their rates are those
  of `group_rates`.

  Args:
    dense_fpr: [C], false positive rates of the dense model.
    dense_fnr: [C], its false negative rates.
    pruned_fpr: [S, C], false positive rates of the pruned models.
    pruned_fnr: [S, C], their false negative rates.
    convention: As in `cev_sde`.

  Returns:
    A `CevSde` without support. A NaN rate makes its class undefined.

  Raises:
    ValueError: If the shapes disagree.
  """
  counting.check_convention(convention)
  dense = tuple(map(wide, (dense_fpr, dense_fnr)))
  pruned = tuple(map(wide, (pruned_fpr, pruned_fnr)))
  one, many = dense[0].shape, pruned[0].shape
  if (
    (len(one), len(many)) != (1, 2)
    or dense[1].shape != one
    or pruned[1].shape != many
    or many[1:] != one
  ):
    raise ValueError(
      "The rates must have shapes [C], [C], [S, C] and [S, C], got"
      f" {', '.join(str(list(x.shape)) for x in dense + pruned)}."
    )
  changes = (
    100.0 * (jnp.mean(after, axis=0) - before) / before
    for before, after in zip(dense, pruned, strict=True)
  )
  return _spread(tuple(changes), dense, None, convention)


class ClassSignificance(NamedTuple):
  """Which classes compression hurts or favours beyond the overall change.

  Attributes:
    test: `Welch` of [C]; a negative difference means that pruned models lose
      more recall on the class than they lose accuracy.
    adjusted: [C], p-values corrected for the number of classes.
    dense_recall: [K, C], NaN for a class without samples.
    pruned_recall: [L, C].
    dense_accuracy: [], mean over dense models and samples.
    pruned_accuracy: [], the same for pruned models.
    support: [C], the number of samples of each class.
  """

  test: significance.Welch
  adjusted: Array
  dense_recall: Array
  pruned_recall: Array
  dense_accuracy: Array
  pruned_accuracy: Array
  support: Array


def class_significance(
  labels: Any,
  dense: Any,
  pruned: Any,
  classes: int,
  *,
  correction: str = "holm",
) -> ClassSignificance:
  """Tests class by class whether pruning changes recall beyond accuracy.

  For every model the recall of a class minus the mean accuracy of the model's
  population; then Welch's test of pruned against dense models.
  Hooker et al., "What Do Compressed Deep Neural Networks Forget?" (2019).

  Args:
    labels: [N] class ids.
    dense: [K, N] predictions of the dense models.
    pruned: [L, N] predictions of the pruned models.
    classes: C, static.
    correction: "holm" or "benjamini_hochberg".

  Returns:
    A `ClassSignificance`; a class without samples has NaN and support 0.

  Raises:
    ValueError: If shapes disagree, an id is outside [0, classes), or the
      correction is unknown.
  """
  significance.check_correction(correction)
  labels, dense, pruned = read_classes(labels, dense, pruned, classes, "[K, N]")
  return _class_significance(labels, dense, pruned, classes, correction)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _class_significance(labels, dense, pruned, classes, correction):
  support = count_ids(labels, labels >= 0, classes)

  def population(predictions):
    hits = jax.vmap(lambda one: count_ids(labels, one == labels, classes))(
      predictions
    )
    recall = wide(hits) / jnp.where(support > 0, wide(support), jnp.nan)[None]
    trials = wide(jnp.sum(support)) * predictions.shape[0]
    return recall, wide(jnp.sum(hits)) / trials

  dense_recall, dense_accuracy = population(dense)
  pruned_recall, pruned_accuracy = population(pruned)
  test = significance.welch(
    pruned_recall - pruned_accuracy, dense_recall - dense_accuracy
  )
  return ClassSignificance(
    test,
    significance.CORRECTIONS[correction](test.p),
    dense_recall,
    pruned_recall,
    dense_accuracy,
    pruned_accuracy,
    support,
  )


def read_classes(
  labels: Any, dense: Any, pruned: Any, classes: int, shape: str
) -> tuple[Array, Array, Array]:
  """Checks labels [N] and predictions of class ids, dense of `shape`."""
  labels = counting.read_ids("labels", labels, classes)
  ndim = 2 if "," in shape else 1
  dense = counting.read_ids("dense", dense, classes, ndim=ndim)
  pruned = counting.read_ids("pruned", pruned, classes, ndim=2)
  if not labels.shape[0] == dense.shape[-1] == pruned.shape[1]:
    raise ValueError(
      f"labels, dense and pruned must have shapes [N], {shape} and [S, N], got"
      f" {list(labels.shape)}, {list(dense.shape)} and {list(pruned.shape)}."
    )
  return (
    labels.astype(jnp.int32),
    dense.astype(jnp.int32),
    pruned.astype(jnp.int32),
  )


def count_ids(ids: Array, where: Array, classes: int) -> Array:
  """Counts each id over the samples that qualify.

  Args:
    ids: [N] int32; one outside [0, classes) is not counted.
    where: [N] bool.
    classes: C, static.

  Returns:
    [C] int32.
  """
  # A negative index would count from the end.
  ids = jnp.where(ids < 0, classes, ids)
  zeros = jnp.zeros(classes, jnp.int32)
  return zeros.at[ids].add(where.astype(jnp.int32), mode="drop")


def _spread(
  changes: tuple[Array, ...],
  rates: tuple[Array, ...],
  support: Any,
  convention: str,
) -> CevSde:
  """Aggregates the changes [C] of both rates."""
  both = jnp.stack(changes)
  defined = jnp.all(jnp.isfinite(both), axis=0)
  count = jnp.sum(defined, dtype=jnp.int32)
  used = defined
  if convention == "reference":
    used = jnp.ones_like(defined)
  else:
    both = jnp.where(jnp.isfinite(both), both, jnp.nan)

  def mean(values):
    return jnp.sum(jnp.where(used, values, 0.0)) / wide(jnp.sum(used))

  x, y = both
  cev = (mean((x - mean(x)) ** 2) + mean((y - mean(y)) ** 2)) / 2.0
  sde = mean(jnp.abs(x - y)) / 2.0**0.5
  fpr, fnr = rates
  return CevSde(cev, 2.0 * cev, sde, x, y, defined, count, fpr, fnr, support)
