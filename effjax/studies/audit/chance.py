"""Did the errors of a group grow more than those of a group drawn at random?"""

from typing import Any

import numpy as np

# Flips expected in a group, beyond which the normal law is near enough: 100
# terms of the exact sum are below a millisecond.
_EXACT = 500


def of_drawn_groups(
  broken: Any, mended: Any, support: Any, everyone: tuple[Any, Any, Any]
) -> np.ndarray:
  """Compute how often groups drawn at random fare as badly as these.

  Of N samples B broke and M mended. A group of n of them, drawn without
  replacement, has a net number broken minus mended; its law is that of a
  hypergeometric number of broken ones and, given these, one of mended ones.
  For groups with many flips it is replaced by the normal law of its mean and
  variance, corrected for continuity.

  Args:
    broken: Samples of each group that are right in the dense model and wrong
      now, [G, A] or [A].
    mended: The reverse.
    support: Samples of each group.
    everyone: The same three of all samples, [A].

  Returns:
    One-sided p-values: the probability of a net number as large or larger; NaN
    for an empty group.

  >>> found = of_drawn_groups([2], [0], [2], ([2], [0], [4]))
  >>> round(float(found[0]), 6)  # the only such pair of six
  0.166667
  """
  arrays = np.broadcast_arrays(broken, mended, support, *everyone)
  shape = arrays[0].shape
  rows = [np.asarray(x, np.int64).ravel() for x in arrays]
  found = [_one(*map(int, row)) for row in zip(*rows, strict=True)]
  return np.array(found, np.float64).reshape(shape)


def _one(broken, mended, support, all_broken, all_mended, count) -> float:
  from scipy import stats

  if not support:
    return float("nan")
  net, flips = broken - mended, all_broken + all_mended
  if support == count or not flips:
    return 1.0
  if support * flips <= _EXACT * count:
    number = np.arange(
      max(0, support - (count - all_broken)), min(support, all_broken) + 1
    )
    exactly = stats.hypergeom.pmf(number, count, all_broken, support)
    at_most = stats.hypergeom.cdf(
      number - net, count - all_broken, all_mended, support - number
    )
    return float(min(1.0, np.sum(exactly * at_most)))
  share = (all_broken - all_mended) / count
  spread = flips / count - share**2
  spread *= support * (count - support) / (count - 1)
  return float(stats.norm.sf((net - 0.5 - support * share) / spread**0.5))
