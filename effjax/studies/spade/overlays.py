"""Maps laid over the picture that they explain."""

import io
from typing import Any

import numpy as np

from effjax.studies import drawing
from effjax.studies.spade import networks
from effjax.studies.spade.explaining import Explanation

# What speaks for the class, and what against it.
FOR, AGAINST = drawing.PALETTE[1], drawing.PALETTE[0]
_PERCENTILE = 99.5  # a few pixels are far larger than all others
_FAINT = 0.22  # contrast of the picture below the map
_SIDE = 2.25  # of a picture, inches
_CLASS = 0.4  # height of a class, inches


def overlay(shown: np.ndarray, found: np.ndarray) -> np.ndarray:
  """Lay a map over the picture that it explains.

  Args:
    shown: The picture, uint8 [H, W, 3].
    found: The map [H, W]; negative values speak against the class.

  Returns:
    The picture in faint grey, in orange what speaks for the class and in blue
    what speaks against it, as opaque as the map is large, uint8 [H, W, 3]. The
    largest half percent of the map is all opaque.

  >>> overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0.0, -1.0]])).tolist()
  [[[199, 199, 199], [31, 106, 168]]]
  """
  found = np.nan_to_num(np.asarray(found, np.float64), posinf=0.0, neginf=0.0)
  size = np.abs(found)
  most = np.percentile(size, _PERCENTILE) or size.max() or 1.0
  opacity = np.minimum(size / most, 1.0)[..., None]
  grey = np.asarray(shown, np.float64) @ [0.299, 0.587, 0.114]
  faint = (255.0 - (255.0 - grey) * _FAINT)[..., None]
  ink = np.where(found[..., None] < 0.0, _rgb(AGAINST), _rgb(FOR))
  return np.rint(faint * (1.0 - opacity) + ink * opacity).astype(np.uint8)


def _rgb(color: str) -> np.ndarray:
  return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def to_png(pixels: np.ndarray) -> bytes:
  """Write a picture as PNG.

  Args:
    pixels: uint8 [H, W, 3].

  Returns:
    The content of a file.
  """
  import PIL.Image

  buffer = io.BytesIO()
  PIL.Image.fromarray(pixels).save(buffer, format="png")
  return buffer.getvalue()


def figure(found: Explanation) -> Any:
  """Draw the picture, the likeliest classes, and the maps of both networks.

  Args:
    found: The explanation.

  Returns:
    A `matplotlib.figure.Figure`.
  """
  from matplotlib.figure import Figure

  rows = len(found.maps)
  beside = rows > 1  # the classes have room under the picture
  above, below, gap, margin = 0.95, 0.62, 0.12, 0.1
  each = _SIDE + 0.3
  classes = _CLASS * len(found.top) + 0.35
  width = 3 * _SIDE + 2 * gap + 2 * margin
  body = max(rows * each, each + classes) if beside else each + classes
  height = above + body + below
  result = Figure(figsize=(width, height), facecolor="white")

  def write(x: float, y: float, text: str, **style: Any) -> None:
    """Write at inches from the left and from the top."""
    style = {"size": 9, "color": drawing.INK, "va": "top", **style}
    result.text(x / width, 1 - y / height, text, **style)

  def place(column: int, y: float, pixels: np.ndarray) -> None:
    x = margin + column * (_SIDE + gap)
    box = (x / width, 1 - (y + _SIDE) / height, _SIDE / width, _SIDE / height)
    axes = result.add_axes(box)
    axes.imshow(pixels, interpolation="nearest")
    axes.set_axis_off()

  heading = drawing.wrap(
    f"What “{found.target[1]}” rests on for {found.network}, as it is and"
    " pruned for this picture",
    72,
  )
  write(margin, 0.1, heading, size=11, weight="bold", linespacing=1.25)
  for column, text in enumerate(("", "dense network", "pruned for it: SPADE")):
    write(
      margin + column * (_SIDE + gap),
      above - 0.05,
      text or "picture",
      va="bottom",
      color=drawing.MUTED,
    )
  for row, (method, pair) in enumerate(found.maps.items()):
    y = above + row * each
    if row == 0:
      place(0, y, found.shown)
    for column, one in enumerate(pair, 1):
      place(column, y, overlay(found.shown, one))
    write(
      margin + _SIDE + gap,
      y + _SIDE + 0.05,
      networks.METHODS[method],
      weight="bold",
    )
  long = _SIDE if beside else width - 2 * margin
  _classes(result, found, (margin, above + each, long, classes))
  write(
    margin,
    height - below + 0.05,
    drawing.wrap(caption(found), 128),
    size=7.5,
    color=drawing.MUTED,
    linespacing=1.35,
  )
  return result


def _classes(
  result: Any, found: Explanation, box: tuple[float, float, float, float]
) -> None:
  """Draw the likeliest classes: names, and probabilities as dots on lines."""
  width, height = result.get_size_inches()
  left, top, long, high = box
  axes = result.add_axes(
    (left / width, 1 - (top + high) / height, long / width, high / height)
  )
  axes.set_axis_off()
  axes.set_xlim(-0.03, 1.03)
  axes.set_ylim(high, 0)
  axes.text(0, 0.02, "likeliest", size=9, weight="bold", va="top")
  arms = ((1, "dense", drawing.PALETTE[6], "o"), (2, "SPADE", FOR, "D"))
  for index, name, color, marker in arms:
    at = 1 - (0.72 * (3 - index) - 0.1) / long
    axes.plot([at - 0.1 / long], [0.09], marker, color=color, ms=4.5)
    axes.text(at, 0.02, name, size=8.5, color=color, va="top")
  for i, (name, *shares) in enumerate(found.top):
    y = 0.35 + _CLASS * i
    axes.text(
      0, y, _shortened(name, int(9.5 * long)), size=8.5, va="top", clip_on=False
    )
    axes.plot([0, 1], [y + 0.24] * 2, color=drawing.GRID, lw=1, zorder=1)
    for index, _, color, marker in arms:
      share = [shares[index - 1]]
      axes.plot(share, [y + 0.24], marker, color=color, ms=5, zorder=2 + index)
    text = " → ".join(f"{100 * share:.0f}" for share in shares)
    axes.text(
      1, y, f"{text} %", size=8.5, va="top", ha="right", color=drawing.MUTED
    )


def _shortened(text: str, most: int) -> str:
  return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def caption(found: Explanation) -> str:
  """Say what the maps show, how they were made, and how long it took.

  Args:
    found: The explanation.

  Returns:
    A few sentences.
  """
  dense, traced = found.chances
  signed = any((one < 0).any() for pair in found.maps.values() for one in pair)
  took = ", ".join(f"{name} {s:.1f}" for name, s in found.seconds.items())
  parts = [
    "Orange speaks for the class" + (", blue against it." if signed else "."),
    f"“{found.target[1]}”: {100 * dense:.0f} % by the dense network,"
    f" {100 * traced:.0f} % by the traced one, of whose layers"
    f" {100 * found.sparsity:.0f} % are zero"
    f" ({found.options['copies']} crops).",
    f"Seconds: {took}.",
  ]
  if found.note:
    parts.insert(1, f"Of the file: {found.note}.")
  return " ".join(parts)
