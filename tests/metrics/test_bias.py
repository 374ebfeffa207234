"""Amplification: which pairs are defined, decided as float64 decides."""

import numpy as np
import pytest

from effjax import metrics

NAN = np.nan


def reference(train, test, decided, min_positives, min_gap, convention):
  """Value and whether it is defined, for one group and one attribute.

  Each of `train` and `test` is (labels [N], members [N]); plain Python floats.
  """
  (y, g), (truth, inside) = train, test
  ratio = lambda a, b: a / b if b else NAN
  p1 = ratio(int((y & g).sum()), int(g.sum()))
  p0 = ratio(int((y & ~g).sum()), int((~g).sum()))
  low = min(p1, p0) if p1 == p1 and p0 == p0 else NAN
  if low == 0:
    gap = np.inf if p1 != p0 else NAN
  else:
    gap = abs(p1 - p0) / low
  side = inside if p1 > p0 else ~inside
  value = ratio(int((decided & side).sum()), int(decided.sum()))
  value -= ratio(int((truth & side).sum()), int(truth.sum()))
  support = min(int((truth & inside).sum()), int((truth & ~inside).sum()))
  if support < min_positives or gap < min_gap:
    return NAN
  if (y == g).all() and (truth == inside).all():
    return NAN  # the attribute is the group itself
  if convention == "exact" and gap != gap:
    return NAN
  return value


@pytest.mark.parametrize("convention", ["exact", "reference"])
def test_every_small_table_of_training(convention):
  # All rates i/50 and j/50, others, and those of empty sides in one training
  # set: some have a gap of one tenth up to rounding, as 11/50 against 10/50.
  rng = np.random.default_rng(0)
  truth = rng.random((80, 1)) < 0.5
  inside = rng.random((80, 1)) < 0.5
  decided = rng.random((80, 1)) < 0.5
  differ = 0
  for sizes in ((50, 50), (20, 10), (11, 33), (0, 20), (20, 0)):
    counts = np.array(
      [(i, j) for i in range(sizes[0] + 1) for j in range(sizes[1] + 1)]
    )
    place = np.arange(sum(sizes))[:, None]
    members = place < sizes[0]
    labels = np.where(members, place < counts[:, 0], False) | (
      ~members & (place - sizes[0] < counts[:, 1])
    )
    metric = metrics.bias_amplification(
      labels, members, min_positives=2, convention=convention
    )
    width = (1, len(counts))
    found = metrics.compute(
      metric,
      predictions=np.tile(decided, width),
      labels=np.tile(truth, width),
      groups=inside,
    )
    expected = [
      reference(
        (labels[:, k], members[:, 0]),
        (truth[:, 0], inside[:, 0]),
        decided[:, 0],
        2,
        0.1,
        convention,
      )
      for k in range(len(counts))
    ]
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-6)
    # As fractions: abs(i m - j n) / min(i m, j n) < 1/10.
    i, j = counts.T * np.array(sizes[::-1])[:, None]
    exact = 10 * abs(i - j) < np.minimum(i, j)
    differ += int((exact != np.isnan(expected)).sum()) if min(sizes) else 0
  assert differ > 0  # the boundary has been met


def test_backdoor_has_no_rules_of_exclusion():
  # One positive label, no gap, hardly a mark: still a value.
  marks = np.array([[True], [False], [False], [False]])
  labels = np.array([[False], [True], [False], [False]])
  predictions = np.array([[True], [True], [False], [False]])
  batch = {"predictions": predictions, "labels": labels, "groups": marks}
  value = metrics.compute(metrics.backdoor_amplification(), **batch)
  assert float(value[0, 0]) == 0.5
