import numpy as np
import pytest

from effjax.studies import curves
from tests.studies.test_figures import check_layout

NAN = float("nan")


def test_a_reliability_diagram_shows_every_bin_with_samples():
  confidence = np.array([0.05, 0.5, NAN, 0.95])
  count = np.array([90, 9, 0, 1])
  figure = curves.reliability_diagram(
    {
      "dense": (confidence, confidence, count),
      "compressed": (confidence, [0.2, 0.5, NAN, 0.7], count),
    },
    title="Probabilities are too high: calibration error 0.02, then 0.11",
  )
  check_layout(figure)
  points = figure.axes[0].collections
  assert len(points) == 2
  places = np.ma.masked_invalid(points[1].get_offsets())
  np.testing.assert_allclose(places[[0, 3]], [[0.05, 0.2], [0.95, 0.7]])
  sizes = points[0].get_sizes()
  assert sizes[0] > sizes[1] > sizes[3] > 0


def test_other_lengths_are_refused():
  with pytest.raises(ValueError, match="'dense' has shapes"):
    curves.reliability_diagram({"dense": ([0.1], [0.1, 0.2], [1])}, title="x")
