"""Disparities: how far the rates of groups lie apart, where they are defined.

Formulas of fairlearn 0.15, with two differences: a rate of 0/0 is undefined
(NaN), not 0; and a gap between fewer than two groups is undefined, not 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax.metrics.groups import GroupRates

Array = jax.Array


class Gap(NamedTuple):
  """How far groups lie apart in one rate; NaN below two estimable groups.

  Attributes:
    difference: [..., A], the largest minus the smallest.
    ratio: [..., A], the smallest over the largest; NaN for 0/0.
    difference_to_overall: [..., A], the largest distance of a group from the
      rate of everyone.
    ratio_to_overall: [..., A], the smallest ratio of a group and everyone, of
      which the larger is below; NaN for 0/0.
    estimable: [..., A] int32, the number of groups whose rate is defined; the
      others are skipped.
  """

  difference: Array
  ratio: Array
  difference_to_overall: Array
  ratio_to_overall: Array
  estimable: Array


class Disparities(NamedTuple):
  """Gaps between groups in all rates.

  Attributes:
    demographic_parity: `Gap` of the selection rate.
    equal_opportunity: `Gap` of the TPR.
    equalized_odds: The worse of the gaps of TPR and FPR: the larger difference
      and the smaller ratio; `estimable` is the smaller of the two.
    equalized_odds_mean: The mean of the two gaps.
    predictive_parity: `Gap` of the precision.
    false_positive_rate: `Gap` of the FPR.
    false_negative_rate: `Gap` of the FNR.
    accuracy: `Gap` of the accuracy.
    treatment_equality: `Gap` of FN / FP, which is undefined where FP = 0.
    worst_accuracy: [..., A], the smallest accuracy of a group; defined from one
      estimable group on.
    worst_group: [..., A] int32, its group, the first of several; -1 for none.
  """

  demographic_parity: Gap
  equal_opportunity: Gap
  equalized_odds: Gap
  equalized_odds_mean: Gap
  predictive_parity: Gap
  false_positive_rate: Gap
  false_negative_rate: Gap
  accuracy: Gap
  treatment_equality: Gap
  worst_accuracy: Array
  worst_group: Array


def disparities(rates: GroupRates) -> Disparities:
  """Computes the gaps between groups in each attribute.

  Dwork et al. (2012), demographic parity; Hardt, Price, Srebro, "Equality of
  Opportunity in Supervised Learning" (2016); Chouldechova (2017), predictive
  parity; Berk et al. (2018), treatment equality.

  Args:
    rates: Of `group_rates` or `soft_group_rates`; [..., G, A]. A group is a
      column of membership, so that a bit such as "male" needs the complement as
      a second column.

  Returns:
    `Disparities` of [..., A]; leading axes (seeds, resamples, levels of a
    control) are kept. As a metric, to be merged or resampled:
    `metric._replace(compute=lambda s: disparities(metric.compute(s)))`.

  Raises:
    ValueError: If `rates` has no overall rates.

  >>> import numpy as np
  >>> from effjax import metrics
  >>> rates = metrics.compute(
  ...   metrics.group_rates(),
  ...   predictions=np.array([[True], [False], [True], [True]]),
  ...   labels=np.ones((4, 1), bool),
  ...   groups=metrics.one_hot(np.array([0, 0, 1, 1]), 2),
  ... )
  >>> found = disparities(rates)
  >>> found.equal_opportunity.difference, found.equal_opportunity.estimable
  (Array([0.5], dtype=float32), Array([2], dtype=int32))
  >>> found.false_positive_rate.difference, found.worst_group
  (Array([nan], dtype=float32), Array([0], dtype=int32))
  """
  if rates.overall is None:
    raise ValueError(
      "rates must hold the overall rates, as those of group_rates do."
    )
  if not rates.accuracy.ndim:
    # Of no sample, where even the numbers of groups and attributes are unknown.
    one = jax.tree.map(lambda x: x[None], rates.overall)
    many = jax.tree.map(lambda x: x[None], one)
    return jax.tree.map(lambda x: x[0], disparities(many._replace(overall=one)))

  def of(name):
    return gap(getattr(rates, name), getattr(rates.overall, name))

  tpr, fpr = of("tpr"), of("fpr")
  estimable = jnp.minimum(tpr.estimable, fpr.estimable)
  worst = Gap(
    jnp.maximum(tpr.difference, fpr.difference),
    jnp.minimum(tpr.ratio, fpr.ratio),
    jnp.maximum(tpr.difference_to_overall, fpr.difference_to_overall),
    jnp.minimum(tpr.ratio_to_overall, fpr.ratio_to_overall),
    estimable,
  )
  mean = Gap(
    *((x + y) / 2 for x, y in zip(tpr[:4], fpr[:4], strict=True)),
    estimable=estimable,
  )
  defined = ~jnp.isnan(rates.accuracy)
  some = jnp.any(defined, axis=-2)
  low = jnp.where(defined, rates.accuracy, jnp.inf)
  found = jnp.argmin(low, axis=-2).astype(jnp.int32)
  return Disparities(
    demographic_parity=of("selection_rate"),
    equal_opportunity=tpr,
    equalized_odds=worst,
    equalized_odds_mean=mean,
    predictive_parity=of("precision"),
    false_positive_rate=fpr,
    false_negative_rate=of("fnr"),
    accuracy=of("accuracy"),
    treatment_equality=of("error_ratio"),
    worst_accuracy=jnp.where(some, jnp.min(low, axis=-2), jnp.nan),
    worst_group=jnp.where(some, found, -1),
  )


def gap(values: Any, overall: Any = None) -> Gap:
  """Computes how far the defined values of groups lie apart.

  Args:
    values: [..., G, A], NaN where undefined; any rate of groups, not below 0.
    overall: [..., A], that of everyone; None leaves two fields NaN.

  Returns:
    A `Gap`.

  >>> found = gap([[0.2], [0.8], [float("nan")]])
  >>> round(found.ratio.item(), 6), found.estimable.item()
  (0.25, 2)
  """
  values = jnp.asarray(values)
  if values.ndim < 2:
    raise ValueError(
      f"values must have shape [..., G, A], got {list(values.shape)}."
    )
  if overall is None:
    overall = jnp.full(values.shape[:-2] + values.shape[-1:], jnp.nan)
  whole = jnp.asarray(overall, values.dtype)[..., None, :]
  defined = ~jnp.isnan(values)
  estimable = jnp.sum(defined, axis=-2, dtype=jnp.int32)

  def over_groups(reduce, x, skipped):
    x = reduce(jnp.where(defined, x, skipped), axis=-2)
    return jnp.where(estimable < 2, jnp.nan, x)

  low = over_groups(jnp.min, values, jnp.inf)
  high = over_groups(jnp.max, values, -jnp.inf)
  known = jnp.where(defined, values, 0.0)
  ratios = _ratio(jnp.minimum(known, whole), jnp.maximum(known, whole))
  return Gap(
    high - low,
    _ratio(low, high),
    over_groups(jnp.max, jnp.abs(known - whole), -jnp.inf),
    over_groups(jnp.min, ratios, jnp.inf),
    estimable,
  )


def _ratio(low: Array, high: Array) -> Array:
  """Divides with NaN, and the gradient 0, for x/0."""
  some = high != 0
  return jnp.where(some, low / jnp.where(some, high, 1.0), jnp.nan)
