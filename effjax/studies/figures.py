"""Plots of one style: one message each, readable in both colour schemes.

Every function returns a `matplotlib.figure.Figure` made without pyplot, so no
global state is touched. The title states the message, units stand on the axes,
intervals are bands or bars, and series are named where they end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effjax.studies import drawing


def lines_with_bands(
  x: Sequence[float],
  series: Mapping[str, tuple[Any, Any, Any]],
  *,
  title: str,
  xlabel: str,
  ylabel: str,
  scale: str = "linear",
  reference: tuple[str, float, float, float] | None = None,
  target: tuple[str, float] | None = None,
  ylim: tuple[float | None, float | None] | None = None,
  height: float = 3.4,
):
  """Plots lines with their intervals as bands, each named at its end.

  Args:
    x: [K] positions; a series with NaN at a position has a gap there.
    series: From name to (mean, low, high), each [K].
    title: The message of the plot, in a sentence.
    xlabel: The quantity along x, with its unit.
    ylabel: The quantity along y, with its unit; written above the axis.
    scale: "linear", "log", or "sparsity": shares in [0, 1), written in percent
      on a logarithmic axis of the density, which spreads 50 % to 99.5 % evenly;
      0 is "dense".
    reference: Name, mean, low and high of a level drawn across, or None.
    target: Name and value of an ideal level, or None.
    ylim: Limits of y; None for either is automatic.
    height: In inches.

  Returns:
    The figure.

  Raises:
    ValueError: If `scale` is unknown or a series has another length than `x`.
  """
  if scale not in ("linear", "log", "sparsity"):
    raise ValueError(f"scale must be linear, log or sparsity, got {scale!r}.")
  at = np.asarray(x, float)
  lines = {
    name: tuple(np.asarray(part, float) for part in parts)
    for name, parts in series.items()
  }
  for name, parts in lines.items():
    if any(part.shape != at.shape for part in parts):
      raise ValueError(
        f"The series {name!r} has shapes {[p.shape for p in parts]}, but x"
        f" has {at.shape}."
      )
  figure, axes = drawing.quiet_axes(title, ylabel, height)
  place = -np.log10(1 - at) if scale == "sparsity" else at
  if scale == "sparsity":
    axes.set_xticks(place, [drawing.percent(value) for value in at])
    axes.set_xticks([], minor=True)
    xlabel = xlabel if "%" in xlabel else f"{xlabel}, %"
  elif scale == "log":
    axes.set_xscale("log")
  named = []
  if reference is not None:
    name, mean, low, high = reference
    if np.isfinite(low) and np.isfinite(high):
      axes.axhspan(low, high, color=drawing.MUTED, alpha=0.16, lw=0)
    axes.axhline(mean, color=drawing.MUTED, lw=1.2, ls=(0, (4, 2)))
    named.append((name, mean, drawing.MUTED))
  if target is not None:
    axes.axhline(target[1], color=drawing.MUTED, lw=0.9, ls=":")
    named.append((*target, drawing.MUTED))
  for i, (name, (mean, low, high)) in enumerate(lines.items()):
    color, marker = (
      drawing.PALETTE[i % len(drawing.PALETTE)],
      drawing.MARKERS[i % len(drawing.MARKERS)],
    )
    axes.fill_between(place, low, high, color=color, alpha=0.2, lw=0)
    axes.plot(
      place, mean, color=color, lw=1.8, marker=marker, ms=4.2, mec="none"
    )
    finite = mean[np.isfinite(mean)]
    if finite.size:
      named.append((name, finite[-1], color))
  axes.set_xlabel(xlabel, color=drawing.MUTED)
  if place.size and scale != "log":
    margin = 0.03 * (np.ptp(place) or 1.0)
    axes.set_xlim(place.min() - margin, place.max() + margin)
  if ylim is not None:
    axes.set_ylim(*ylim)
  drawing.name_ends(figure, axes, named)
  return figure


def dot_intervals(
  rows: Sequence[str],
  series: Mapping[str, tuple[Any, Any, Any]],
  *,
  title: str,
  xlabel: str,
  reference: float | None = None,
  xlim: tuple[float | None, float | None] | None = None,
):
  """Plots values with intervals on one line a row, for attributes or groups.

  Args:
    rows: [R] names, from top to bottom.
    series: From name to (mean, low, high), each [R]; NaN leaves a row empty.
    title: The message of the plot.
    xlabel: The quantity, with its unit.
    reference: Where a neutral value is marked, or None.
    xlim: Limits of x.

  Returns:
    The figure, as tall as the rows need.

  Raises:
    ValueError: If a series has another length than `rows`.
  """
  for name, parts in series.items():
    if any(len(part) != len(rows) for part in parts):
      raise ValueError(
        f"The series {name!r} has {[len(p) for p in parts]} values for"
        f" {len(rows)} rows."
      )
  labels = [drawing.wrap(row, 26) for row in rows]
  lines = max((label.count("\n") + 1 for label in labels), default=1)
  step = max(0.2 + 0.075 * max(len(series) - 1, 0), 0.16 * lines + 0.04)
  figure, axes = drawing.quiet_axes(title, "", max(len(rows), 1) * step + 0.75)
  axes.grid(axis="x", color=drawing.GRID, lw=0.7)
  axes.grid(axis="y", visible=False)
  base = np.arange(len(rows), dtype=float)
  if reference is not None:
    axes.axvline(reference, color=drawing.MUTED, lw=1.0)
  for i, (name, parts) in enumerate(series.items()):
    mean, low, high = (np.asarray(part, float) for part in parts)
    shift = (i - (len(series) - 1) / 2) * 0.6 / max(len(series), 1)
    color = drawing.PALETTE[i % len(drawing.PALETTE)]
    axes.hlines(base + shift, low, high, color=color, lw=2.2, alpha=0.45)
    axes.plot(
      mean,
      base + shift,
      ls="none",
      marker=drawing.MARKERS[i % len(drawing.MARKERS)],
      ms=5,
      mec="none",
      color=color,
      label=name,
    )
  axes.set_yticks(base, labels)
  axes.locator_params(axis="x", nbins=7)
  axes.set_ylim(len(rows) - 0.4, -0.6)
  axes.tick_params(axis="y", colors=drawing.INK)
  axes.set_xlabel(xlabel, color=drawing.MUTED)
  if xlim is not None:
    axes.set_xlim(*xlim)
  if len(series) > 1:
    drawing.legend_above(axes)
  return figure


def tradeoff(
  series: Mapping[str, tuple[Any, Any]],
  *,
  title: str,
  xlabel: str,
  ylabel: str,
  front: Sequence[tuple[float, float]] = (),
  height: float = 4.0,
):
  """Plots what two aims that compete reach, a point with intervals a choice.

  Args:
    series: From name to two triples (mean, low, high), along x and along y,
      each of [K] choices; NaN leaves a choice out.
    title: The message of the plot.
    xlabel: The quantity along x, with its unit; more is better.
    ylabel: The quantity along y, written above the axis; more is better.
    front: Corners of what no choice exceeds in both, drawn as stairs.
    height: In inches.

  Returns:
    The figure.

  Raises:
    ValueError: If the parts of a series differ in length.
  """
  figure, axes = drawing.quiet_axes(title, ylabel, height)
  axes.grid(axis="x", color=drawing.GRID, lw=0.7)
  if front:
    x, y = np.array(sorted(front)).T
    axes.step(x, y, where="pre", color=drawing.MUTED, lw=1.0, ls=(0, (4, 2)))
  for i, (name, (along, up)) in enumerate(series.items()):
    parts = [np.asarray(part, float) for part in (*along, *up)]
    if len({part.shape for part in parts}) > 1:
      raise ValueError(
        f"The series {name!r} has {[part.size for part in parts]} values; all"
        " must be as many."
      )
    x, left, right, y, low, high = parts
    color = drawing.PALETTE[i % len(drawing.PALETTE)]
    axes.hlines(y, left, right, color=color, lw=1.4, alpha=0.35)
    axes.vlines(x, low, high, color=color, lw=1.4, alpha=0.35)
    axes.plot(
      x,
      y,
      ls="none",
      marker=drawing.MARKERS[i % len(drawing.MARKERS)],
      ms=5,
      mec="none",
      color=color,
      label=name,
    )
  axes.set_xlabel(xlabel, color=drawing.MUTED)
  if len(series) > 1:
    drawing.legend_above(axes)
  return figure


def heat_map(
  values: Any,
  rows: Sequence[str],
  columns: Sequence[str],
  *,
  title: str,
  ylabel: str = "",
  centre: float | None = None,
  limit: float | None = None,
  digits: int = 2,
  notes: Any = None,
):
  """Plots a matrix as coloured cells with their numbers.

  Args:
    values: [R, C]; NaN is an empty cell with a dash.
    rows: [R] names.
    columns: [C] names.
    title: The message of the plot.
    ylabel: The quantity, with its unit; written above.
    centre: The neutral value of a diverging scale; None for a sequential one.
    limit: The distance from `centre` (or the value) of the strongest colour.
    digits: Decimals of the numbers.
    notes: [R, C] short texts under the numbers, such as supports, or None.

  Returns:
    The figure.

  Raises:
    ValueError: If the shapes disagree.
  """
  from matplotlib import colors

  values = np.asarray(values, float)
  if values.shape != (len(rows), len(columns)):
    raise ValueError(
      f"values {values.shape} must have {len(rows)} rows and"
      f" {len(columns)} columns."
    )
  cell = 0.26 if notes is None else 0.36
  figure, axes = drawing.quiet_axes(title, ylabel, cell * len(rows) + 0.45)
  finite = values[np.isfinite(values)]
  start = 0.0 if centre is None else centre
  if limit is None:
    limit = float(np.abs(finite - start).max()) if finite.size else 1.0
  limit = limit or 1.0
  if centre is None:
    stops = ["#eef3f8", "#9dc0e0", "#2f7fc1", "#174a78"]
    norm = colors.Normalize(min(finite.min(initial=0.0), start), start + limit)
  else:
    stops = ["#2a6ea9", "#a9c9e4", "#f3f2ee", "#efbd92", "#b9590b"]
    norm = colors.Normalize(centre - limit, centre + limit)
  scheme = colors.LinearSegmentedColormap.from_list("effjax", stops)
  axes.pcolormesh(
    np.ma.masked_invalid(values), cmap=scheme, norm=norm, lw=0, rasterized=False
  )
  for (r, c), value in np.ndenumerate(values):
    fill = scheme(norm(value)) if np.isfinite(value) else None
    color = drawing.MUTED if fill is None else drawing.ink_on(fill)
    text = drawing.number(value, digits)
    note = "" if notes is None else str(notes[r][c])
    y = r + (0.36 if note else 0.5)
    axes.text(c + 0.5, y, text, ha="center", va="center", color=color, size=8)
    if note:
      axes.text(
        c + 0.5, r + 0.74, note, ha="center", va="center", color=color, size=6.5
      )
  axes.set_xlim(0, len(columns))
  axes.set_ylim(len(rows), 0)
  axes.set_xticks(
    np.arange(len(columns)) + 0.5, [drawing.wrap(c, 12) for c in columns]
  )
  axes.set_yticks(
    np.arange(len(rows)) + 0.5, [drawing.wrap(row, 26) for row in rows]
  )
  axes.tick_params(axis="both", length=0, colors=drawing.INK)
  axes.grid(visible=False)
  axes.spines["bottom"].set_visible(False)
  # Thin seams in the colour of the page keep neighbours apart.
  for r in range(1, len(rows)):
    axes.axhline(r, color=drawing.SEAM, lw=1.2)
  for c in range(1, len(columns)):
    axes.axvline(c, color=drawing.SEAM, lw=1.2)
  return figure


def image_grid(
  images: Sequence[Any],
  captions: Sequence[str],
  *,
  title: str,
  columns: int = 8,
):
  """Plots small images in a grid, each with a caption.

  Args:
    images: Arrays [H, W] or [H, W, 3], uint8 or floating in [0, 1].
    captions: One for each.
    title: The message of the plot.
    columns: Images in a row.

  Returns:
    The figure.

  Raises:
    ValueError: If there are no images or as many captions.
  """
  from matplotlib.figure import Figure

  if not len(images) or len(images) != len(captions):
    raise ValueError(
      f"image_grid needs images and a caption for each, got {len(images)}"
      f" images and {len(captions)} captions."
    )
  columns = min(columns, len(images))
  rows = -(-len(images) // columns)
  figure = Figure(
    figsize=(drawing.WIDTH, rows * (drawing.WIDTH / columns + 0.3) + 0.4),
    layout="constrained",
  )
  figure.suptitle(
    drawing.wrap(title, 60),
    x=0.01,
    ha="left",
    size=10.5,
    weight="bold",
    color=drawing.INK,
  )
  for i in range(rows * columns):
    axes = figure.add_subplot(rows, columns, i + 1)
    axes.set_axis_off()
    if i < len(images):
      axes.imshow(images[i], cmap="gray", interpolation="nearest")
      axes.set_title(drawing.wrap(captions[i], 14), size=7, color=drawing.INK)
  return figure
