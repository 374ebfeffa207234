import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends import backend_agg
from matplotlib.text import Text

from effjax.studies import drawing, figures

X = [0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995]
NAN = float("nan")


def band(*values):
  mean = np.array(values)
  return mean, mean - 0.01, mean + 0.01


def texts(figure):
  """Returns all text that is drawn with its box in pixels.

  The box of an annotation is that of its text, without its leading line.
  """
  renderer = backend_agg.FigureCanvasAgg(figure).get_renderer()
  figure.draw_without_rendering()
  found = [*figure.texts]
  for axes in figure.axes:
    found += [*axes.texts, axes.title]
    if axes.get_legend():
      found += axes.get_legend().get_texts()
    for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
      low, high = sorted(axis.get_view_interval())
      ticks = axis.get_major_ticks()
      found += [t.label1 for t in ticks if low <= t.get_loc() <= high]
      found += [axis.label]
  return [
    (t.get_text(), Text.get_window_extent(t, renderer))
    for t in found
    if t.get_text()
  ]


def overlaps(a, b):
  return (
    min(a.x1, b.x1) - max(a.x0, b.x0) > 1
    and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
  )


def check_layout(figure):
  """Checks that no text leaves the figure or covers another."""
  box = figure.bbox
  shown = texts(figure)
  for text, extent in shown:
    assert extent.x0 >= box.x0 - 2, text
    assert extent.x1 <= box.x1 + 2, text
    assert extent.y0 >= box.y0 - 2, text
    assert extent.y1 <= box.y1 + 2, text
  for i, (text, extent) in enumerate(shown):
    for other, place in shown[:i]:
      assert not overlaps(extent, place), (text, other)


def lines(series, **options):
  return figures.lines_with_bands(
    X,
    series,
    title="Uncertainty rises with sparsity in every arm and for every seed",
    xlabel="sparsity",
    ylabel="share of uncertain predictions",
    scale="sparsity",
    **options,
  )


def test_lines_name_themselves_without_overlaps():
  series = {
    f"arm {i}": band(*(0.2 + 0.001 * i + np.linspace(0, 0.1, 7)))
    for i in range(5)
  }
  figure = lines(series, reference=("dense", 0.3, 0.29, 0.31))
  check_layout(figure)
  shown = [text for text, _ in texts(figure)]
  for name in (*series, "dense", "99.5", "50", "sparsity, %"):
    assert name in shown


def test_long_names_are_broken():
  figure = lines(
    {
      "post-training, thresholds adjusted": band(*np.linspace(1, 0.8, 7)),
      "post-training": band(*np.linspace(1, 0.7, 7)),
    }
  )
  check_layout(figure)


def test_the_sparsity_axis_spreads_high_sparsities():
  axes = lines({"arm": band(*np.linspace(0, 1, 7))}).axes[0]
  ticks = axes.get_xticks()
  np.testing.assert_allclose(ticks, -np.log10(1 - np.array(X)))
  assert np.diff(ticks).min() > 0.15


def test_dense_is_a_tick_of_the_sparsity_axis():
  figure = figures.lines_with_bands(
    [0.0, 0.9],
    {"arm": band(1, 2)},
    title="t",
    xlabel="x, %",
    ylabel="y",
    scale="sparsity",
  )
  labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
  assert labels == ["dense", "90"]
  assert figure.axes[0].get_xlabel() == "x, %"


def test_undefined_values_leave_gaps():
  figure = lines(
    {
      "all gone": tuple(np.full((3, 7), NAN)),
      "partly": band(1, 2, NAN, 3, 4, NAN, NAN),
    },
    reference=("dense", 2.0, NAN, NAN),
  )
  check_layout(figure)
  shown = [text for text, _ in texts(figure)]
  assert "partly" in shown
  assert "all gone" not in shown


def test_dot_intervals_grow_with_their_rows():
  few, many = (
    figures.dot_intervals(
      [f"attribute {i}" for i in range(n)],
      {"dense": band(*np.arange(n)), "99 %": band(*np.arange(n))},
      title="Bias is largest for a few attributes",
      xlabel="bias amplification",
      reference=0.0,
    )
    for n in (3, 40)
  )
  check_layout(few)
  check_layout(many)
  assert many.get_figheight() > 5 * few.get_figheight()


def test_heat_map_shows_every_number_and_undefined_cells():
  figure = figures.heat_map(
    [[0.5, -0.25], [NAN, 0.0]],
    ["group one", "group two"],
    ["dense", "90 %"],
    title="Who is hurt",
    ylabel="bias amplification",
    centre=0.0,
    notes=[["n=1", "n=2"], ["n=3", "n=4"]],
  )
  check_layout(figure)
  shown = [text for text, _ in texts(figure)]
  for text in (
    "0.50",
    "\u22120.25",
    "\u2013",
    "0.00",
    "n=3",
    "group two",
    "90 %",
  ):
    assert text in shown


@pytest.mark.parametrize("values", [[[NAN]], [[0.0]], [[-1.0]]])
@pytest.mark.parametrize("centre", [None, 0.0])
def test_heat_map_of_degenerate_values(values, centre):
  figure = figures.heat_map(values, ["r"], ["c"], title="t", centre=centre)
  check_layout(figure)


def test_image_grid():
  figure = figures.image_grid(
    [np.zeros((8, 8)), np.zeros((8, 8, 3), np.uint8)] * 3,
    [f"image {i}" for i in range(6)],
    title="Decisions that flip at 98 % sparsity",
    columns=4,
  )
  check_layout(figure)
  assert len(figure.axes) == 8


def test_ink_of_cells_stands_out():
  assert drawing.ink_on((1, 1, 1, 1)) == "#141518"
  assert drawing.ink_on((0.05, 0.1, 0.3, 1)) == "#fdfdfd"


def contrast(color, page):
  def luminance(text):
    channels = np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(
      channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    return linear @ [0.2126, 0.7152, 0.0722]

  light, dark = sorted((luminance(color), luminance(page)), reverse=True)
  return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("color", drawing.PALETTE)
def test_series_are_readable_on_white(color):
  assert contrast(color, "#fdfdfb") >= 4.5


def test_spread_keeps_order_and_distance():
  wanted = [50.0, 51.0, 52.0, 10.0, 99.0]
  heights = [10.0, 10.0, 20.0, 10.0, 10.0]
  places = drawing.spread(wanted, heights, 100.0)
  order = np.argsort(places)
  np.testing.assert_array_equal(order, np.argsort(wanted))
  gaps = np.diff(np.array(places)[order])
  need = [(heights[a] + heights[b]) / 2 for a, b in itertools.pairwise(order)]
  assert (gaps >= np.array(need) - 1e-9).all()
  assert places[3] == 10.0


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: lines({"arm": band(1.0, 2.0)}), "series 'arm' has shapes"),
    (
      lambda: figures.lines_with_bands(
        [1], {}, title="t", xlabel="x", ylabel="y", scale="cubic"
      ),
      "scale must be linear, log or sparsity",
    ),
    (
      lambda: figures.dot_intervals(
        ["a"], {"s": band(1, 2)}, title="t", xlabel="x"
      ),
      "for 1 rows",
    ),
    (
      lambda: figures.heat_map([[1.0]], ["a"], ["b", "c"], title="t"),
      r"\(1, 1\) must have 1 rows and 2 columns",
    ),
    (lambda: figures.image_grid([], [], title="t"), "got 0 images"),
  ],
)
def test_shapes_that_do_not_fit(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_importing_costs_no_matplotlib_and_plotting_no_pyplot():
  code = (
    "import sys\n"
    "from effjax.studies import figures, report\n"
    "assert not {'matplotlib', 'jinja2', 'PIL'} & set(sys.modules)\n"
    "figures.lines_with_bands([1, 2], {}, title='t', xlabel='x', ylabel='y')\n"
    "assert 'matplotlib.pyplot' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_parts_of_a_tradeoff_are_as_many():
  three, two = ([0.1] * 3,) * 3, ([0.2] * 2,) * 3
  figures.tradeoff({"a": (three, three)}, title="", xlabel="", ylabel="")
  with pytest.raises(ValueError, match=r"'a' has \[3, 3, 3, 2, 2, 2\] values"):
    figures.tradeoff({"a": (three, two)}, title="", xlabel="", ylabel="")
