"""Decision thresholds for each group, so that a rate is the same in all.

The fit runs once, on the host, in float64; the rule that it returns is a small
tuple of arrays, which jitted functions apply.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import counting, tradeoffs

Array = jax.Array

# The rate that a constraint makes equal.
_CONSTRAINTS = {
  "demographic_parity": "selection_rate",
  "true_positive_rate": "true_positive_rate",
  "true_negative_rate": "true_negative_rate",
  "false_positive_rate": "false_positive_rate",
  "false_negative_rate": "false_negative_rate",
  "equalized_odds": "false_positive_rate",
}
_OBJECTIVES = (
  "accuracy",
  "balanced_accuracy",
  "selection_rate",
  "true_positive_rate",
  "true_negative_rate",
)


class ParityRule(NamedTuple):
  """How each group is decided; NaN for a group without samples.

  A score s is positive with probability P = p0 [s > left] + (1 - p0) [s >
  right], or under equalized odds with `ignored` rate + (1 - `ignored`) P.

  Attributes:
    p0: [G, A] (or [G] for scores [N]), the weight of the left threshold.
    left: [G, A], the threshold whose rate is below `rate`; may be infinite.
    right: [G, A], the threshold whose rate is `rate` or above.
    ignored: [G, A], the share of samples decided at random, whatever their
      score; 0 but for equalized odds.
    rate: [A] or [], the common value of the constrained rate; the false
      positive rate for equalized odds.
    objective: [A] or [], the value of the objective in the data of the fit.
    count: [G], the number of samples.
  """

  p0: Any
  left: Any
  right: Any
  ignored: Any
  rate: Any
  objective: Any
  count: Any


def parity_thresholds(
  scores: Any,
  labels: Any,
  groups: Any,
  *,
  constraint: str = "demographic_parity",
  objective: str = "accuracy",
  grid: int = 1000,
) -> ParityRule:
  """Fits a threshold, or a mixture of two, for each group.

  In each group the thresholds between distinct scores give points (constrained
  rate, objective), of which the upper convex hull can be reached by mixing two
  neighbours. The objective is maximised over a common rate on a grid; the
  lowest of several best rates is taken. Equalized odds meet on the lower
  envelope of the groups' ROC hulls.
  Hardt, Price, Srebro, "Equality of Opportunity in Supervised Learning"
  (NeurIPS 2016); equals `ThresholdOptimizer` of fairlearn 0.15, which draws its
  decisions.

  Args:
    scores: [N] or [N, A], finite; logits will do. Host arrays, like the rest.
    labels: Like `scores`, bool.
    groups: [N] ids from 0, or [N, G] bool with one group for each row.
    constraint: The rate that groups share: "demographic_parity" (the selection
      rate), "true_positive_rate" (equal opportunity), "true_negative_rate",
      "false_positive_rate", "false_negative_rate", or "equalized_odds".
    objective: "accuracy" or "balanced_accuracy"; but for equalized odds also
      "selection_rate", "true_positive_rate" or "true_negative_rate".
    grid: The number of steps of the common rate between 0 and 1.

  Returns:
    A `ParityRule` of NumPy float64. Where all scores are float32 numbers, so
    are the thresholds: the largest ones that decide alike.

  Raises:
    ValueError: If the shapes disagree, a score is not finite, a group has
      labels of one class only, or an option is unknown.

  >>> import numpy as np
  >>> scores = np.array([3.0, 2.0, 1.0, 0.0, 9.0, 8.0, 7.0, 6.0])
  >>> labels = np.array([1, 1, 0, 0, 1, 1, 0, 0])
  >>> groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
  >>> rule = parity_thresholds(scores, labels, groups)
  >>> parity_decisions(None, rule, scores, groups).astype(int).tolist()
  [1, 1, 0, 0, 1, 1, 0, 0]
  """
  _check_options(constraint, objective, grid)
  scores, labels, members = _read(scores, labels, groups)
  steps = np.linspace(0.0, 1.0, grid + 1)
  fit = _fit_odds if constraint == "equalized_odds" else _fit_rate
  rules = []
  for a in np.ndindex(scores.shape[1:]):
    column = (slice(None), *a)
    counts = tradeoffs.counts_by_group(
      scores[column], labels[column], members, a
    )
    rules.append(fit(counts, _CONSTRAINTS[constraint], objective, steps))
  p0, left, right, ignored, rate, value = (
    np.reshape(np.stack(parts, -1), np.shape(parts[0]) + scores.shape[1:])
    for parts in zip(*rules, strict=True)
  )
  if np.all(scores == _round_down(scores)):
    left, right = _round_down(left), _round_down(right)
  return ParityRule(p0, left, right, ignored, rate, value, members.sum(axis=0))


def parity_probability(rule: ParityRule, scores: Any, groups: Any) -> Array:
  """Returns the probability with which each score is decided positively.

  Args:
    rule: Of `parity_thresholds`.
    scores: [N, A], or [N] for a rule of one attribute.
    groups: [N] ids or [N, G] bool, as in the fit.

  Returns:
    Floating like `scores`. NaN for a NaN score and for a sample of no group, of
    several, or of one that the fit did not see.

  Raises:
    ValueError: If the shapes disagree, or an id is outside the rule's groups.
  """
  scores = jnp.asarray(scores)
  if scores.dtype != jnp.float64:
    scores = scores.astype(jnp.float32)
  shape = np.shape(rule.p0)
  member = jnp.asarray(groups)
  if member.ndim == 1:
    member = counting.one_hot(groups, shape[0])
  if (
    scores.ndim not in (1, 2)
    or shape[1:] != scores.shape[1:]
    or member.shape != (scores.shape[0], shape[0])
  ):
    raise ValueError(
      f"The rule is for {shape[0]} groups and scores [N"
      f"{''.join(f', {a}' for a in shape[1:])}]; got scores"
      f" {list(scores.shape)} and groups {list(jnp.shape(groups))}."
    )
  return _probability(rule, scores, counting.positive(member))


@jax.jit
def _probability(rule, scores, member):
  group = jnp.argmax(member, axis=1)
  fitted = jnp.asarray(rule.count) > 0
  known = (jnp.sum(member, axis=1, dtype=jnp.int32) == 1) & fitted[group]
  p0, left, right, ignored = (
    jnp.asarray(x, scores.dtype)[group] for x in rule[:4]
  )
  above, beyond = scores > left, scores > right
  # Where both thresholds agree the probability is 0 or 1 without rounding.
  share = jnp.where(above, p0, 1.0 - p0)
  share = jnp.where(above == beyond, above.astype(scores.dtype), share)
  rate = jnp.broadcast_to(jnp.asarray(rule.rate, scores.dtype), share.shape)
  share = jnp.where(
    ignored == 0, share, ignored * rate + (1.0 - ignored) * share
  )
  known = known.reshape(known.shape + (1,) * (scores.ndim - 1))
  return jnp.where(known & ~jnp.isnan(scores), share, jnp.nan)


def parity_decisions(
  key: Array | None, rule: ParityRule, scores: Any, groups: Any
) -> Array:
  """Decides each score by a rule of parity, at random or not.

  Args:
    key: A random key: the decision is positive with the probability of the
      rule, so that the constraint holds in expectation. Or None: positive where
      the probability is at least 1/2, which repeats but meets the constraint
      only so far as the probabilities are 0 and 1.
    rule: Of `parity_thresholds`.
    scores: As in `parity_probability`.
    groups: As in `parity_probability`.

  Returns:
    Bool like `scores`. False where the probability is undefined.
  """
  probability = parity_probability(rule, scores, groups)
  if key is None:
    return probability >= 0.5
  drawn = jax.random.uniform(key, probability.shape, probability.dtype)
  return drawn < probability


def _fit_rate(
  counts: list[tradeoffs.Counts | None],
  rate: str,
  objective: str,
  steps: np.ndarray,
) -> tuple[np.ndarray, ...]:
  """Returns p0, left, right, ignored [G], rate [], objective [] of one rate."""
  curves = _curves(counts, rate, objective, steps)
  sizes = [c.positives + c.negatives if c else 0 for c in counts]
  value = np.zeros_like(steps)
  for curve, size in zip(curves, sizes, strict=True):
    if curve:
      value = value + size / sum(sizes) * curve.y
  best = int(np.argmax(value))
  p0, left, right = _at(curves, best)
  return p0, left, right, 0.0 * p0, steps[best], value[best]


def _fit_odds(
  counts: list[tradeoffs.Counts | None],
  rate: str,
  objective: str,
  steps: np.ndarray,
) -> tuple[np.ndarray, ...]:
  """Returns the same for equal false and true positive rates."""
  curves = _curves(counts, rate, "true_positive_rate", steps)
  lowest = np.min([c.y for c in curves if c], axis=0)
  positives = sum(c.positives for c in counts if c)
  negatives = sum(c.negatives for c in counts if c)
  value = tradeoffs.RATES[objective](
    positives * lowest,
    negatives * steps,
    negatives * (1.0 - steps),
    positives * (1.0 - lowest),
  )
  best = int(np.argmax(np.around(value, 15)))
  p0, left, right = _at(curves, best)
  y = np.array([c.y[best] if c else np.nan for c in curves])
  above = y - steps[best]  # on the diagonal nothing has to be ignored
  ignored = np.divide(y - lowest[best], above, out=0.0 * y, where=above > 0)
  return p0, left, right, ignored, steps[best], value[best]


def _curves(counts, rate, objective, steps):
  return [
    None if c is None else tradeoffs.curve(c, rate, objective, steps)
    for c in counts
  ]


def _at(curves: list[tradeoffs.Curve | None], best: int) -> np.ndarray:
  """Returns p0, left and right of each group at a step, [3, G]."""
  nothing = [np.nan] * 3
  return np.array(
    [[x[best] for x in c[1:]] if c else nothing for c in curves]
  ).T


def _round_down(x: np.ndarray) -> np.ndarray:
  """Returns the largest float32 that is not above, as float64.

  A float32 is above x exactly if it is above the result.
  """
  with np.errstate(over="ignore"):
    near = x.astype(np.float32)
  below = np.nextafter(near, np.float32(-np.inf))
  return np.where(near > x, below, near).astype(np.float64)


def _read(
  scores: Any, labels: Any, groups: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns scores float64, labels bool and memberships [N, G], checked."""
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels) > 0
  groups = np.asarray(groups)
  if scores.shape != labels.shape or scores.ndim not in (1, 2):
    raise ValueError(
      "scores and labels must both have shape [N] or [N, A], got"
      f" {list(scores.shape)} and {list(labels.shape)}."
    )
  if not scores.size:
    raise ValueError(
      f"Thresholds cannot be fitted to scores {list(scores.shape)}."
    )
  if groups.ndim not in (1, 2) or len(groups) != len(scores):
    raise ValueError(
      f"groups must be [N] ids or [N, G] bool for {len(scores)} samples, got"
      f" {list(groups.shape)}."
    )
  if not np.isfinite(scores).all():
    raise ValueError("scores must be finite, got NaN or infinite values.")
  if groups.ndim == 1:
    members = np.asarray(counting.one_hot(groups, int(groups.max()) + 1))
  else:
    members = groups > 0
  strays = int((members.sum(axis=1) != 1).sum())
  if strays:
    raise ValueError(
      f"Each sample must be in exactly one group, but {strays} are not; give"
      " ids, or the columns of a partition."
    )
  return scores, labels, members


def _check_options(constraint: str, objective: str, grid: int) -> None:
  if constraint not in _CONSTRAINTS:
    raise ValueError(
      f"constraint must be one of {', '.join(_CONSTRAINTS)}, got"
      f" {constraint!r}."
    )
  allowed = _OBJECTIVES[: 2 if constraint == "equalized_odds" else None]
  if objective not in allowed:
    raise ValueError(
      f"objective must be one of {', '.join(allowed)} for {constraint}, got"
      f" {objective!r}."
    )
  arguments.whole("grid", grid)
