"""Plots of probabilities: reliability diagrams."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from effjax.studies import drawing


def reliability_diagram(
  series: Mapping[str, tuple[Any, Any, Any]], *, title: str, height: float = 3.4
):
  """Plots how often labels are positive against the predicted probability.

  A point is a bin; its area grows with the share of samples in it. On the
  diagonal probabilities mean what they say; below it they are too high.

  Args:
    series: From name to (confidence, frequency, count), each [B]; NaN is an
      empty bin.
    title: The message of the plot.
    height: In inches.

  Returns:
    The figure.

  Raises:
    ValueError: If the arrays of a series differ in length.
  """
  figure, axes = drawing.quiet_axes(title, "share of positive labels", height)
  axes.grid(axis="x", color=drawing.GRID, lw=0.7)
  axes.plot([0, 1], [0, 1], color=drawing.MUTED, lw=0.9, ls=":")
  for i, (name, parts) in enumerate(series.items()):
    x, y, count = (np.asarray(part, float) for part in parts)
    if not x.shape == y.shape == count.shape:
      raise ValueError(
        f"The series {name!r} has shapes {x.shape}, {y.shape} and"
        f" {count.shape}; expected three of one length."
      )
    color = drawing.PALETTE[i % len(drawing.PALETTE)]
    marker = drawing.MARKERS[i % len(drawing.MARKERS)]
    axes.plot(x, y, color=color, lw=1.5, marker=marker, ms=3, label=name)
    # At least as large as can be seen, for a bin of a single sample.
    area = 10.0 + 130.0 * count / max(count.sum(), 1.0)
    axes.scatter(x, y, s=area, color=color, marker=marker, lw=0, zorder=3)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(-0.02, 1.02)
  axes.set_xlabel("predicted probability", color=drawing.MUTED)
  drawing.legend_above(axes)
  return figure
