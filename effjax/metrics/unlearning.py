"""How well texts were unlearned: TOFU's measures.

All are made of losses per token of right and wrong answers, see `answer_nll`.
Maini et al., "TOFU" (arXiv 2401.06121), as OpenUnlearning (arXiv 2506.12618)
computes them. The right answer is a paraphrase on texts to forget and to keep,
the plain answer elsewhere; in a synthetic world wrong ones are other objects of
the relation.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.metrics.answers import harmonic_mean, mean, present, wide

Array = jax.Array

_TINY = 1e-10
_AGGREGATES = ("forget", "retain", "prob_mean")


class KolmogorovSmirnov(NamedTuple):
  """The two-sided, two-sample test of Kolmogorov and Smirnov.

  Attributes:
    statistic: Largest distance of the two distribution functions.
    p_value: Probability of such a distance or a larger one if both samples come
      from one continuous distribution.
  """

  statistic: float
  p_value: float


def answer_probability(nll: Any, *, where: Any = None) -> Array:
  """Returns the mean probability per token of answers.

  Args:
    nll: [N], losses per token.
    where: [N] bool, the answers that count.

  Returns:
    The mean of exp(-nll) [], NaN without answers.

  >>> answer_probability(jnp.zeros(2)).item()
  1.0
  """
  nll = wide(nll)
  return mean(jnp.exp(-nll), where)


def option_probability(
  correct: Any, wrong: Any, *, where: Any = None, wrong_where: Any = None
) -> Array:
  """Returns the mean probability of right answers among the options.

  Args:
    correct: [N], losses per token of the right answers.
    wrong: [N, J], the same of wrong ones.
    where: [N] bool, the questions that count.
    wrong_where: [N, J] bool, the wrong answers that there are.

  Returns:
    The mean of c / (c + sum_j w_j + 1e-10) [], NaN without questions.

  Raises:
    ValueError: If the shapes do not fit.
  """
  correct, wrong, there = _options(correct, wrong, wrong_where)
  right = jnp.exp(-correct)
  others = jnp.sum(jnp.where(there, jnp.exp(-wrong), 0.0), axis=-1)
  return mean(right / (right + others + _TINY), where)


def truth_ratio(correct: Any, wrong: Any, *, wrong_where: Any = None) -> Array:
  """Returns how likely wrong answers are against the right one.

  Args:
    correct: [N], losses per token of the right answers.
    wrong: [N, J], the same of wrong ones.
    wrong_where: [N, J] bool, the wrong answers that there are.

  Returns:
    exp(-mean_j nll(wrong_j)) / (exp(-nll(correct)) + 1e-10) [N], NaN where
    there is no wrong answer.

  Raises:
    ValueError: If the shapes do not fit.
  """
  correct, wrong, there = _options(correct, wrong, wrong_where)
  others = jnp.exp(-mean(wrong, there, axis=-1))
  return others / (jnp.exp(-correct) + _TINY)


def truth_ratio_score(
  correct: Any,
  wrong: Any,
  *,
  aggregate: str,
  where: Any = None,
  wrong_where: Any = None,
) -> Array:
  """Returns a mean of what truth ratios TR say.

  Args:
    correct: [N], losses per token of the right answers.
    wrong: [N, J], the same of wrong ones.
    aggregate: "forget", min(TR, 1 / (TR + 1e-10)), best where both are alike;
      "retain", max(0, 1 - TR), best where the right answer is likelier;
      "prob_mean", c / (c + w + 1e-10) with w = exp(-mean_j nll(wrong_j)).
    where: [N] bool, the questions that count.
    wrong_where: [N, J] bool, the wrong answers that there are.

  Returns:
    The mean [], NaN without questions.

  Raises:
    ValueError: If there is no such aggregate or the shapes do not fit.
  """
  if aggregate not in _AGGREGATES:
    raise ValueError(
      f"there is no aggregate {aggregate!r}: choose from {_AGGREGATES}."
    )
  ratio = truth_ratio(correct, wrong, wrong_where=wrong_where)
  if aggregate == "forget":
    return mean(jnp.minimum(ratio, 1.0 / (ratio + _TINY)), where)
  if aggregate == "retain":
    return mean(jnp.maximum(0.0, 1.0 - ratio), where)
  correct, wrong, there = _options(correct, wrong, wrong_where)
  right, others = jnp.exp(-correct), jnp.exp(-mean(wrong, there, axis=-1))
  return mean(right / (right + others + _TINY), where)


def model_utility(values: Any) -> Array:
  """Returns the harmonic mean of what a model still can do.

  Args:
    values: [9] in TOFU: probability, ROUGE-L and truth ratio on each of three
      sets to keep; any number [..., K], 0 or more.

  Returns:
    The mean [...], 0 if one is 0, NaN if one is.
  """
  return harmonic_mean(values)


def forget_quality(unlearned: Any, retrained: Any) -> float:
  """Returns how well unlearning imitates training without the texts.

  Args:
    unlearned: [N], truth ratios of the unlearned model on the texts to forget.
    retrained: [M], of a model that was trained without them.

  Returns:
    The p-value of `kolmogorov_smirnov`: near 0 they can be told apart.

  Raises:
    ValueError: If the samples are no vectors.
  """
  return kolmogorov_smirnov(unlearned, retrained).p_value


def kolmogorov_smirnov(first: Any, second: Any) -> KolmogorovSmirnov:
  """Returns whether two samples may come from one distribution, exactly.

  The samples in order are a path through a lattice, all of which are equally
  likely; the probability of those that leave a band is followed diagonal by
  diagonal (Hodges 1958), which takes N M operations on the host and keeps small
  probabilities exact to many digits. Ties make the value conservative.

  Args:
    first: [N].
    second: [M].

  Returns:
    `KolmogorovSmirnov`, NaN for a sample that is empty or holds NaN.

  Raises:
    ValueError: If the samples are no vectors.

  >>> kolmogorov_smirnov([1.0, 2.0], [3.0, 4.0])
  KolmogorovSmirnov(statistic=1.0, p_value=0.3333333333333333)
  """
  first, second = (np.asarray(x, np.float64) for x in (first, second))
  if first.ndim != 1 or second.ndim != 1:
    raise ValueError(
      "both samples must be vectors, got"
      f" {list(first.shape)} and {list(second.shape)}."
    )
  n, m = first.size, second.size
  both = np.concatenate([first, second])
  if not n or not m or np.isnan(both).any():
    return KolmogorovSmirnov(math.nan, math.nan)
  below = (
    np.searchsorted(np.sort(x), both, side="right") for x in (first, second)
  )
  # In units of 1 / lcm(n, m) all distances are whole.
  unit = math.lcm(n, m)
  i, j = below
  limit = int(np.abs(i * (unit // n) - j * (unit // m)).max())
  return KolmogorovSmirnov(limit / unit, _leaving(n, m, limit))


def _leaving(n: int, m: int, limit: int) -> float:
  """Returns the probability that a random path from (0, 0) to (n, m) leaves.

  A path leaves where |i / n - j / m| lcm(n, m) reaches the limit.
  """
  if not limit:
    return 1.0
  unit = math.lcm(n, m)
  i = np.arange(n + 1)
  left = np.zeros(n + 1)  # of paths to (i, diagonal - i), those that left
  for diagonal in range(1, n + m + 1):
    j = diagonal - i
    # The last step came from (i - 1, j) with probability i / diagonal.
    stepped = np.concatenate([[0.0], left[:-1]])
    left = (i * stepped + j * left) / diagonal
    outside = np.abs(i * (unit // n) - j * (unit // m)) >= limit
    left = np.where(outside, 1.0, left)
    left = np.where((j < 0) | (j > m), 0.0, left)
  return float(left[n])


def _options(
  correct: Any, wrong: Any, wrong_where: Any
) -> tuple[Array, Array, Array]:
  correct, wrong = wide(correct), wide(wrong)
  if correct.ndim != 1 or wrong.ndim != 2 or len(wrong) != len(correct):
    raise ValueError(
      "losses must be [N] of right and [N, J] of wrong answers, got"
      f" {list(correct.shape)} and {list(wrong.shape)}."
    )
  return correct, wrong, present(wrong_where, wrong.shape)
