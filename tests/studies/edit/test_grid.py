"""Learning rates beyond a grid, and what they change in what is found."""

import types

import numpy as np
import pytest

from effjax.studies.edit import findings, grid

ARMS = ("full", "lora1")
BEST = {"full": 1e-2, "lora1": 0.0}  # the second edits the better, the lower


class Runner:
  """Scores an arm by how near a rate is to its best; counts what it runs."""

  def __init__(self, extensions):
    self.config = types.SimpleNamespace(
      arms=ARMS,
      rates=(1e-3, 3e-3),
      seeds=(0, 1),
      tuning=1,
      extensions=extensions,
    )
    self.ran = []

  def all(self, base, own, seed, rates, names=None):
    names = names or ARMS
    self.ran += [(seed, name, rate) for name in names for rate in rates]
    shape = len(names), len(rates), 2, 1, 1, len(own.names)
    found = {
      k: np.zeros(shape, np.float32) for k in ("accuracy", "agreement", "kl")
    }
    for a, name in enumerate(names):
      for r, rate in enumerate(rates):
        gap = abs(np.log10(rate) - np.log10(BEST[name] or 1e-9))
        found["accuracy"][a, r] = 1 / (1 + gap)
    found["failed"] = np.zeros(shape[:4], bool)
    return found


@pytest.fixture
def subject():
  # Two edits, with a prompt of one set and three of the other.
  asked = types.SimpleNamespace(
    sets=np.array([[0, 1, 1, 1]] * 2), names=np.ones((2, 2), bool)
  )
  own = types.SimpleNamespace(
    names=("edited", "reg_data"), data=types.SimpleNamespace(asked=asked)
  )
  model = types.SimpleNamespace(params=None)
  return [model, model], [own, own]


def test_an_arm_is_tried_on_until_its_best_rate_is_inside(subject, tmp_path):
  runner = Runner(extensions=4)
  rates, values = grid.swept(runner, *subject, tmp_path)
  # 1e-2 is best for one arm: it is tried there and once beyond.
  beyond = {(name, rate) for _, name, rate in runner.ran if rate > 3e-3}
  assert beyond == {("full", 1e-2), ("full", 3e-2)}
  # The other one has no best rate: it stops after so many.
  below = sorted(rate for _, name, rate in runner.ran if rate < 1e-3)
  assert below == sorted([3e-4, 1e-4, 3e-5, 1e-5] * 2)  # two models
  assert rates == (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
  measures = grid.summed_up(values, subject[1])
  tried = findings.tried(measures)
  np.testing.assert_array_equal(tried[0], [False] * 4 + [True] * 4)
  np.testing.assert_array_equal(tried[1], [True] * 6 + [False] * 2)
  assert findings.chosen_rates(measures, 1).ravel().tolist() == [6, 0]
  assert findings.at_edges(measures, 1).ravel().tolist() == [0, -1]
  assert grid.count(values) == 2 * 2 * (4 + 6)  # models, edits, rates


def test_what_was_run_is_read(subject, tmp_path):
  grid.swept(Runner(extensions=2), *subject, tmp_path)
  again = Runner(extensions=2)
  grid.swept(again, *subject, tmp_path)
  assert not again.ran
  more = Runner(extensions=3)
  grid.swept(more, *subject, tmp_path)
  assert more.ran == [(0, "lora1", 3e-5), (1, "lora1", 3e-5)]


def test_no_extension_is_the_grid(subject, tmp_path):
  rates, values = grid.swept(Runner(extensions=0), *subject, tmp_path)
  assert rates == (1e-3, 3e-3)
  assert not np.isnan(values["accuracy"]).any()


def test_rates_are_matched_where_every_arm_was_tried(subject, tmp_path):
  names, mixes = list(ARMS), ["edit_only"]
  _, values = grid.swept(Runner(extensions=4), *subject, tmp_path)
  measures = grid.summed_up(values, subject[1])
  rows = findings.claims(names, mixes, measures, 1)
  matched = {row["settings"] for row in rows if row["protocol"] == "matched"}
  assert matched == {2 * 2}  # models, rates of the grid
  shown = findings.matched(names, mixes, measures, 1)
  empty = [np.isnan(cell["estimate"]) for cell in shown[0]["score"]]
  assert empty == [True] * 4 + [False] * 4
