"""What the report of edits draws."""

import numpy as np
import pytest

from effjax.studies.edit import findings, page

NAMES, MIXES = ["full", "ia3", "lora1"], ["edit_only"]


@pytest.fixture
def results():
  """Two models, three arms, two rates, an edit for tuning and two others."""
  shape = 2, 3, 2, 3, 1, 1
  found = {k: np.zeros(shape) for k in ("efficacy", "preservation", "score")}
  # The second rate says the new fact and forgets others; edits differ.
  found["efficacy"][:, :, 1], found["preservation"][:, :, 0] = 1.0, 0.9
  found["preservation"][:, 2, 1] = 0.5
  found["preservation"][0, 2, 1, 2] = 0.7
  found["efficacy"][:, :, :, 0] = 0.3  # of tuning, which is not drawn
  rows = findings.matched(NAMES, MIXES, found, 1)
  return {
    "arms": [{"name": n, "title": n.upper()} for n in NAMES],
    "mixes": MIXES,
    "seeds": [0, 1],
    "reported": 2,
    "matched": rows,
  }


def test_every_rate_is_a_point_of_reported_edits(results):
  plot = page.tradeoff(results, "edit_only")
  (axes,) = plot.figure.axes
  drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
  assert {"FULL", "LORA1"} <= set(drawn)
  assert "IA3" not in drawn  # it differs neither in rank nor in blocks
  np.testing.assert_allclose(drawn["FULL"], [[0.9, 0.0], [0.0, 1.0]])
  np.testing.assert_allclose(drawn["LORA1"], [[0.9, 0.0], [0.55, 1.0]])


def test_the_front_is_not_exceeded():
  draw = np.random.default_rng(0).integers(0, 6, (40, 2)) / 5
  points = [tuple(map(float, point)) for point in draw]
  found = page.front(points)
  assert found == sorted(found)
  assert [y for _, y in found] == sorted((y for _, y in found), reverse=True)
  for x, y in points:
    assert any(a >= x and b >= y for a, b in found)
