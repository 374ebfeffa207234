"""The common style of plots, and their rendering as markup of a page.

Plots carry the colours of this module; `to_svg` replaces them by variables of
the page, so that ink, grid and series follow its light or dark scheme.
"""

import html
import io
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

# Distinguishable with the common colour-vision deficiencies, and 4.5:1 against
# white; a dark page has lighter variants under the names --series-0 and so on.
PALETTE = (
  "#1f6aa8",
  "#b85c0b",
  "#0f7a63",
  "#a8407f",
  "#6552c4",
  "#7d6200",
  "#5d616a",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# `to_svg` replaces these by what the page says.
INK, MUTED, GRID = "#1c1d22", "#62666f", "#dddddb"
SEAM = "#fefefe"
_PAGE = {
  INK: "currentColor",
  MUTED: f"var(--muted, {MUTED})",
  GRID: f"var(--rule, {GRID})",
  SEAM: f"var(--page, {SEAM})",
} | {color: f"var(--series-{i}, {color})" for i, color in enumerate(PALETTE)}
# On coloured cells the ink is that of the cell, not of the page.
_DARK, _LIGHT = "#141518", "#fdfdfd"
WIDTH = 4.4


def to_svg(figure: Any, prefix: str, alt: str) -> str:
  """Renders a figure as inline SVG that follows the page around it.

  Args:
    figure: A `matplotlib.figure.Figure`.
    prefix: Unique within the page; put before all ids.
    alt: The description for those who do not see it.

  Returns:
    An `<svg>` element without scripts, links or references to outside.
  """
  import matplotlib

  buffer = io.StringIO()
  settings = {
    "svg.fonttype": "none",
    "svg.hashsalt": prefix,
    "font.family": "DejaVu Sans",
  }
  with matplotlib.rc_context(settings):
    figure.savefig(
      buffer, format="svg", transparent=True, metadata={"Date": None}
    )
  text = buffer.getvalue()
  text = text[text.index("<svg") :]
  text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
  text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
  text = text.replace("xlink:href", "href")
  text = re.sub(r'\bid="', f'id="{prefix}-', text)
  text = text.replace("url(#", f"url(#{prefix}-")
  text = text.replace('href="#', f'href="#{prefix}-')
  text = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "inherit", text)
  text = re.sub(r"font: ([^;\"]*?) inherit", r"font: \1 var(--font)", text)
  # In one pass, since the replacements name the colours again.
  colors = re.compile("|".join(_PAGE))
  text = colors.sub(lambda match: _PAGE[match.group()], text)
  head, body = text.split(">", 1)
  size = re.search(r'viewBox="[^"]*"', head)
  label = html.escape(alt, quote=True)
  box = size.group(0) if size else ""
  return f'<svg {box} role="img" aria-label="{label}">{body}'


def quiet_axes(title: str, ylabel: str, height: float):
  """Returns a figure with one quiet pair of axes under a title."""
  from matplotlib.figure import Figure
  from matplotlib.layout_engine import ConstrainedLayoutEngine

  heading = wrap(title, 50)
  lines = heading.count("\n") + 1
  above = 0.2 * lines + (0.24 if ylabel else 0.06)
  total = height + above
  layout = ConstrainedLayoutEngine(
    w_pad=0.03, h_pad=0.03, rect=(0, 0, 1, height / total)
  )
  figure = Figure(figsize=(WIDTH, total), layout=layout)
  figure.text(
    0.008,
    1 - 0.05 / total,
    heading,
    va="top",
    size=10.5,
    weight="bold",
    color=INK,
    linespacing=1.25,
  )
  if ylabel:
    figure.text(
      0.008,
      1 - (0.05 + 0.2 * lines) / total,
      ylabel,
      va="top",
      size=8.5,
      color=MUTED,
    )
  axes = figure.add_subplot()
  axes.set_facecolor("none")
  for side in ("top", "right", "left"):
    axes.spines[side].set_visible(False)
  axes.spines["bottom"].set_color(MUTED)
  axes.grid(axis="y", color=GRID, lw=0.7)
  axes.set_axisbelow(True)
  axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
  axes.tick_params(axis="x", length=3)
  axes.xaxis.label.set_fontsize(9)
  return figure, axes


def name_ends(figure, axes, named) -> None:
  """Writes each name beside the right end of its line, without overlaps."""
  if not named:
    return
  texts = [wrap(name, 20) for name, *_ in named]
  longest = max(len(line) for text in texts for line in text.split("\n"))
  # Room on the right that the layout leaves free: 5.2 points a character.
  layout = figure.get_layout_engine()
  right = (longest * 5.2 + 10) / (72 * WIDTH)
  layout.set(rect=(0, 0, 1 - right, layout.get()["rect"][3]))
  figure.draw_without_rendering()
  low, high = axes.get_ylim()
  span = axes.get_window_extent().height * 72 / figure.dpi
  heights = [11.0 * (text.count("\n") + 1) for text in texts]
  wanted = [
    float(np.clip((value - low) / (high - low), 0, 1)) * span
    for _, value, _ in named
  ]
  for (_, _, color), text, y, want in zip(
    named, texts, spread(wanted, heights, span), wanted, strict=True
  ):
    name = axes.annotate(
      text,
      xy=(1, want / span),
      xycoords="axes fraction",
      xytext=(9, y - want),
      textcoords="offset points",
      va="center",
      size=8.5,
      color=color,
      annotation_clip=False,
      arrowprops=(
        {"arrowstyle": "-", "color": color, "lw": 0.6, "relpos": (0, 0.5)}
        if abs(y - want) > 4
        else None
      ),
    )
    # Its room is the pad above; the layout must not take it twice.
    name.set_in_layout(False)


def spread(
  wanted: Sequence[float], heights: Sequence[float], span: float
) -> list[float]:
  """Returns the nearest centres at which labels do not overlap.

  Blocks of touching labels are pooled at their mean position, as in isotonic
  regression, and then kept within [0, span] where they fit.
  """
  order = np.argsort(wanted, kind="stable")
  blocks: list[list[Any]] = []  # [centre, height, members]
  for i in order:
    blocks.append([wanted[i], heights[i], [i]])
    while len(blocks) > 1:
      (a, ha, ma), (b, hb, mb) = blocks[-2:]
      if b - a >= (ha + hb) / 2:
        break
      share = len(ma) / (len(ma) + len(mb))
      blocks[-2:] = [[a * share + b * (1 - share), ha + hb, ma + mb]]
  result = [0.0] * len(wanted)
  for centre, height, members in blocks:
    centre = min(max(centre, height / 2 - 4), span - height / 2 + 4)
    y = centre - height / 2
    for i in members:
      result[i] = y + heights[i] / 2
      y += heights[i]
  return result


def legend_above(axes) -> None:
  """Names the series of axes in a row above them, in their colours."""
  axes.legend(
    loc="lower left",
    bbox_to_anchor=(0, 1.0),
    ncols=4,
    frameon=False,
    fontsize=8.5,
    borderpad=0,
    handletextpad=0.2,
    columnspacing=1.2,
    labelcolor="linecolor",
  )


def ink_on(fill: Sequence[float]) -> str:
  """Returns dark or light ink, whichever stands out on a colour."""
  channels = np.asarray(fill[:3])
  linear = np.where(
    channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
  )
  return _DARK if linear @ [0.2126, 0.7152, 0.0722] > 0.22 else _LIGHT


def percent(share: float) -> str:
  """Returns a sparsity in percent; 0 is "dense"."""
  return "dense" if share == 0 else f"{100 * share:.4g}"


def number(value: float, digits: int) -> str:
  """Returns a number with a true minus sign; a dash for NaN."""
  if not np.isfinite(value):
    return "\u2013" if np.isnan(value) else ("∞" if value > 0 else "\u2212∞")
  return f"{value:.{digits}f}".replace("-", "\u2212")


def wrap(text: str, width: int) -> str:
  """Breaks a text into lines of at most `width` characters."""
  return "\n".join(textwrap.wrap(text, width)) or text
