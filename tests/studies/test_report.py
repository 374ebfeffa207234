import html.parser
import os
import re
import types

import numpy as np
import pytest

from effjax.studies import figures, report, text

EVIL = '<script>alert("x")</script> & <b>'


def plot(alt="a line"):
  figure = figures.lines_with_bands(
    [0.5, 0.9],
    {"pruned <i>": ([1.0, 0.9], [0.9, 0.8], [1.1, 1.0])},
    title="It falls & falls",
    xlabel="sparsity",
    ylabel="AUC <mean>",
  )
  return report.Plot(figure, alt=alt, caption="3 seeds <each>")


def sections():
  verdict = report.Verdict(
    claim="T1",
    text=f"it holds {EVIL}",
    result="reproduced",
    quantity="difference",
    arm="RI",
    estimate=0.001,
    low=-0.002,
    high=0.004,
  )
  return [
    report.Section(
      f"Overall {EVIL}",
      [
        f"A **bold** claim with `a < b` and *care*.\n\n- one {EVIL}\n- two",
        report.Heading(f"Heading {EVIL}"),
        report.Table(
          ["arm", report.Column("AUC", unit="%", scale=100, digits=1), "n"],
          [
            f"group {EVIL}",
            [f"dense {EVIL}", (0.91, 0.90, 0.92), 60000],
            ["pruned", {"estimate": 0.5, "low": 0.2, "high": 0.6}, None],
          ],
          caption=f"Caption {EVIL}",
          notes=[f"Note {EVIL}"],
        ),
        report.Verdicts([verdict], caption=f"Claims {EVIL}"),
        plot(alt=f"line {EVIL}"),
        report.Plots([plot(), plot()]),
        report.Gallery(
          [report.Picture(np.zeros((4, 4), np.uint8), f"flipped {EVIL}")],
          caption=f"Gallery {EVIL}",
        ),
        report.Facts({"seed": EVIL}, title=f"Facts {EVIL}"),
      ],
    )
  ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  path = report.build(
    tmp_path_factory.mktemp("report") / "new" / "report.html",
    title=f"Title {EVIL}",
    summary=f"Summary {EVIL}",
    sections=sections(),
    provenance={"command": EVIL, "config": {"model": {"name": EVIL}}},
  )
  return path.read_text(encoding="utf-8")


class Reader(html.parser.HTMLParser):
  """Keeps tags, attributes and text, and checks that tags are balanced."""

  VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

  def __init__(self, source):
    super().__init__()
    self.open, self.tags, self.words = [], [], []
    self.feed(source)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)

  def attributes(self, name):
    return [a[name] for _, a in self.tags if name in a]


def test_page_is_well_formed(page):
  reader = Reader(page)
  assert reader.open == []
  names = {tag for tag, _ in reader.tags}
  assert {"table", "svg", "img", "figcaption", "dl", "details"} <= names


def test_page_loads_nothing_and_runs_nothing(page):
  reader = Reader(page)
  assert "://" not in page
  assert not {"script", "link", "iframe", "object"} & {
    t for t, _ in reader.tags
  }
  assert all(s.startswith("data:image/png") for s in reader.attributes("src"))
  assert all(h.startswith("#") for h in reader.attributes("href"))
  assert set(re.findall(r"url\((.)", page)) <= {"#"}
  assert "@import" not in page
  assert not any(n.startswith("on") for _, a in reader.tags for n in a)


def test_names_are_escaped(page):
  assert "<script" not in page
  shown = "".join(Reader(page).words)
  for place in (
    "Title",
    "Summary",
    "Overall",
    "one",
    "Heading",
    "group",
    "dense",
    "Caption",
    "Note",
    "it holds",
    "Claims",
    "flipped",
    "Gallery",
    "Facts",
  ):
    assert f"{place} {EVIL}" in shown, place
  assert shown.count(EVIL) >= 17
  assert 'aria-label="line &lt;script&gt;' in page


def test_ids_are_unique_and_references_lead_to_them(page):
  reader = Reader(page)
  ids = reader.attributes("id")
  assert len(ids) == len(set(ids))
  targets = set(re.findall(r"url\(#([^)]+)\)", page))
  targets |= {h[1:] for h in reader.attributes("href")}
  assert targets <= set(ids)


def test_cells_show_numbers_units_and_intervals(page):
  cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)
  assert "91.0" in cells
  assert "±\u20091.0" in cells
  assert "[20.0, 60.0]" in cells
  assert "60,000" in cells
  assert 'AUC<span class="unit">%</span>' in cells
  assert text.MISSING in cells


def test_light_markup():
  assert str(text.markup("a **b** *c* `d*e*`\n\n- x\n- y")) == (
    "<p>a <strong>b</strong> <em>c</em> <code>d*e*</code></p>\n"
    "<ul><li>x</li><li>y</li></ul>"
  )
  assert str(text.markup("2 * 3 * 4 and a_b")) == "<p>2 * 3 * 4 and a_b</p>"
  assert str(text.markup("")) == ""
  # One letter, and more of the same after it.
  assert str(text.markup("**b** in **c d**, *e* or *f g*")) == (
    "<p><strong>b</strong> in <strong>c d</strong>, <em>e</em> or"
    " <em>f g</em></p>"
  )


def test_plots_follow_the_page(page):
  svg = page[page.index("<svg") : page.index("</svg>")]
  assert "currentColor" in svg
  assert "var(--series-0, #1f6aa8)" in svg
  assert "var(--muted" in svg
  assert "DejaVu" not in svg
  assert "pruned &lt;i&gt;" in svg


def test_empty_parts_are_said_to_be_empty(tmp_path):
  path = report.build(
    tmp_path / "r.html",
    title="Nothing",
    sections=[
      report.Section(
        "Empty",
        [
          report.Table(["a", "b"], []),
          report.Gallery([]),
          report.Verdicts([]),
          report.Facts({}),
          report.Plots([]),
        ],
      ),
      report.Section("None", []),
    ],
  )
  page = path.read_text(encoding="utf-8")
  assert Reader(page).open == []
  assert page.count("Nothing to show.") == 2
  assert "No claim was judged." in page
  assert "Provenance" not in page
  assert "<table" not in page


def test_a_table_of_headings_alone(tmp_path):
  table = report.Table(["a", "b"], ["only a heading"])
  path = report.build(
    tmp_path / "r.html", title="t", sections=[report.Section("s", [table])]
  )
  page = path.read_text(encoding="utf-8")
  assert "only a heading" in page
  assert 'colspan="2"' in page


def test_verdicts_of_any_kind_are_counted(tmp_path):
  results = ["reproduced", "inconclusive", "not reproduced", "reproduced"]
  verdicts = [
    types.SimpleNamespace(
      claim="T",
      text="x",
      result=result,
      quantity="",
      arm="",
      estimate=float("nan"),
      low=float("nan"),
      high=float("nan"),
    )
    for result in results
  ]
  build = lambda: report.build(
    tmp_path / "r.html",
    title="t",
    sections=[report.Section("s", [report.Verdicts(verdicts)])],
  )
  page = build().read_text(encoding="utf-8")
  assert "2 reproduced, 1 not reproduced, 1 inconclusive" in page
  verdicts[0].result = "fine"
  with pytest.raises(ValueError, match="verdict on T is 'fine'"):
    build()


@pytest.mark.parametrize(
  ("value", "digits", "expected"),
  [
    (0.12345, 3, "0.123"),
    (-0.5, 1, "\u22120.5"),
    (-0.0001, 2, "0.00"),
    (1234.5, 1, "1,234.5"),
    (float("nan"), 2, "\u2013"),
    (None, None, "\u2013"),
    (float("inf"), 2, "∞"),
    (float("-inf"), None, "\u2212∞"),
    (0.123456, None, "0.1235"),
    (0, None, "0"),
    (np.float32(2.5), 2, "2.50"),
    (np.int64(1000), None, "1,000"),
  ],
)
def test_format_number(value, digits, expected):
  assert text.format_number(value, digits) == expected


def test_undefined_intervals_are_left_out():
  assert text.format_interval(float("nan"), 1.0) == ""
  assert text.format_interval(-1.0, 1.0, 1) == "[\u22121.0, 1.0]"


@pytest.mark.parametrize(
  ("element", "error", "message"),
  [
    (
      3,
      TypeError,
      "section 's' holds a int; expected a string or one of Prose",
    ),
    (
      report.Table(["a", "b"], [["x"]], caption="Sizes"),
      ValueError,
      "table 'Sizes' has 1 cells for 2 columns",
    ),
    (
      report.Gallery([report.Picture(np.zeros((2, 2, 4)))]),
      ValueError,
      r"got \[2, 2, 4\]",
    ),
  ],
)
def test_unusable_elements(tmp_path, element, error, message):
  path = tmp_path / "r.html"
  path.write_text("the old report")
  with pytest.raises(error, match=message):
    report.build(path, title="t", sections=[report.Section("s", [element])])
  # Nothing is lost and nothing is left behind.
  assert os.listdir(tmp_path) == ["r.html"]
  assert path.read_text() == "the old report"


def test_same_report_same_bytes(tmp_path):
  pages = [
    report.build(
      tmp_path / f"{i}.html",
      title="t",
      sections=sections(),
      provenance={"a": [1, 2], "b": None},
    ).read_bytes()
    for i in range(2)
  ]
  assert pages[0] == pages[1]


@pytest.mark.parametrize(
  "pixels",
  [
    np.zeros((3, 5), np.uint8),
    np.ones((3, 5, 1), np.float32),
    np.full((3, 5, 3), 0.5),
  ],
)
def test_pictures_survive(tmp_path, pixels):
  import base64
  import io

  from PIL import Image

  path = report.build(
    tmp_path / "r.html",
    title="t",
    sections=[report.Section("s", [report.Gallery([report.Picture(pixels)])])],
  )
  code = re.search(r"base64,([^\"]+)", path.read_text(encoding="utf-8"))
  image = np.asarray(Image.open(io.BytesIO(base64.b64decode(code.group(1)))))
  expected = pixels if pixels.dtype == np.uint8 else np.round(pixels * 255)
  np.testing.assert_array_equal(image, expected.reshape(image.shape))
