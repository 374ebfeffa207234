"""Groups whose errors grew more than those of groups drawn at random."""

import itertools

import numpy as np
import pytest
from scipy import stats

from effjax.studies.audit import chance


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_it_is_the_share_of_all_groups(size):
  change = np.array([1, 1, 1, -1, -1, 0, 0, 0])  # broken, mended, neither
  nets = [sum(g) for g in itertools.combinations(change.tolist(), size)]
  for net in range(min(nets), max(nets) + 1):
    # Any split of the net number into broken and mended gives the same.
    found = chance.of_drawn_groups(
      [max(net, 0)], [max(-net, 0)], [size], ([3], [2], [8])
    )
    assert found[0] == pytest.approx(np.mean(np.array(nets) >= net))


def test_the_normal_law_is_near_the_exact_one(monkeypatch):
  everyone = [2400], [1400], [20000]
  given = np.array([[340], [370], [400]]), np.array([[200]]), np.array([[2500]])
  monkeypatch.setattr(chance, "_EXACT", 10**9)
  exact = chance.of_drawn_groups(*given, everyone)
  monkeypatch.setattr(chance, "_EXACT", 0)
  near = chance.of_drawn_groups(*given, everyone)
  np.testing.assert_allclose(near, exact, rtol=0.05)
  assert 1e-4 < exact[2, 0] < 1e-3 < exact[0, 0]


def test_groups_drawn_at_random_are_rarely_hurt():
  rng = np.random.default_rng(0)
  count, groups = 3000, 400
  change = rng.choice([1, -1, 0], p=[0.1, 0.05, 0.85], size=count)
  members = rng.random((groups, count)) < rng.uniform(0.02, 0.9, (groups, 1))
  p = chance.of_drawn_groups(
    (members & (change == 1)).sum(1),
    (members & (change == -1)).sum(1),
    members.sum(1),
    ((change == 1).sum(), (change == -1).sum(), count),
  )
  # Not uniform to the last digit, since numbers are whole.
  assert stats.kstest(p, "uniform").pvalue > 0.01
  assert (p * groups > 0.005).all()


def test_no_samples_no_flips_and_everyone():
  found = chance.of_drawn_groups(
    [0, 0, 7], [0, 0, 2], [0, 5, 40], ([7, 0, 7], [2, 0, 2], [40, 40, 40])
  )
  np.testing.assert_array_equal(found, [np.nan, 1.0, 1.0])
