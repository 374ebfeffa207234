"""What a report is made of; see `effjax.studies.report`."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ENDS = ("estimate", "low", "high")


def number(value: float | None) -> float:
  """Read a number of `results.json`, where null stands for an undefined one.

  Args:
    value: A number or None.

  Returns:
    The number, NaN for None.
  """
  return math.nan if value is None else float(value)


def beyond_zero(cell: Mapping[str, Any]) -> bool:
  """Say whether the whole interval of a difference lies on one side of 0.

  Args:
    cell: A mapping with the keys `low` and `high`.

  Returns:
    Whether it does; False where it is undefined.

  >>> [beyond_zero({"low": x, "high": 2}) for x in (1, -1, 0, None)]
  [True, False, False, False]
  """
  low, high = number(cell["low"]), number(cell["high"])
  return low > 0 or high < 0


def ends(cells: Iterable[Mapping[str, Any]]) -> tuple[list[float], ...]:
  """Take intervals of `results.json` apart, as plots want them.

  Args:
    cells: Mappings with the keys `estimate`, `low` and `high`.

  Returns:
    The estimates, the lower and the upper ends; NaN where undefined.

  >>> ends([{"estimate": 2, "low": 1, "high": None}])
  ([2.0], [1.0], [nan])
  """
  cells = list(cells)
  return tuple([number(cell[end]) for cell in cells] for end in ENDS)


@dataclasses.dataclass(frozen=True)
class Column:
  """How a column of numbers is shown.

  Attributes:
    title: Its heading.
    unit: Its unit, written under the heading.
    digits: Decimals; None shows whole numbers whole and others with 4 digits.
    scale: Numbers are multiplied by this: 100 for a unit of "%".
  """

  title: str
  unit: str = ""
  digits: int | None = None
  scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Prose:
  """Paragraphs.

  Attributes:
    text: Plain text. Blank lines part paragraphs; lines that start with "- "
      make a list; **bold**, *emphasis* and `code` are marked as here.
  """

  text: str
  kind = "prose"


@dataclasses.dataclass(frozen=True)
class Heading:
  """A heading inside a section.

  Attributes:
    text: The heading.
  """

  text: str
  kind = "heading"


@dataclasses.dataclass(frozen=True)
class Table:
  """A table; its first column names the rows and stays in sight.

  Attributes:
    columns: The first a title, the others titles or `Column`s.
    rows: Each a list of cells as long as `columns`, or a string: a heading
      across the table. A cell is a string, a number (NaN and None show as a
      dash), or an estimate with its interval: a tuple (estimate, low, high),
      or a mapping or an object with these names.
    caption: What the table says.
    notes: Footnotes.
  """

  columns: Sequence[str | Column]
  rows: Sequence[Sequence[Any] | str]
  caption: str = ""
  notes: Sequence[str] = ()
  kind = "table"


@dataclasses.dataclass(frozen=True)
class Plot:
  """A plot.

  Attributes:
    figure: A `matplotlib.figure.Figure`, such as `studies.figures` makes.
    alt: What it shows, for those who do not see it.
    caption: Text below: what is plotted, seeds, number of samples, intervals.
  """

  figure: Any
  alt: str
  caption: str = ""
  kind = "plot"


@dataclasses.dataclass(frozen=True)
class Plots:
  """Plots side by side where there is room, one below the other elsewhere.

  Attributes:
    plots: The plots.
  """

  plots: Sequence[Plot]
  kind = "plots"


@dataclasses.dataclass(frozen=True)
class Picture:
  """A small image of a gallery.

  Attributes:
    pixels: [H, W], [H, W, 1] or [H, W, 3], uint8 or floating in [0, 1].
    caption: Text below.
    alt: What it shows; the caption where empty.
  """

  pixels: Any
  caption: str = ""
  alt: str = ""


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Small images in a grid.

  Attributes:
    pictures: The images.
    caption: Text below the grid.
  """

  pictures: Sequence[Picture]
  caption: str = ""
  kind = "gallery"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
  """How a claim fared; any object with these attributes will do.

  Attributes:
    claim: Its short name.
    text: What it says.
    result: "reproduced", "not reproduced" or "inconclusive".
    quantity: What the estimate measures.
    arm: The arm it is judged on.
    estimate: The estimate; NaN for none.
    low: The lower end of its interval.
    high: The upper end.
  """

  claim: str
  text: str
  result: str
  quantity: str = ""
  arm: str = ""
  estimate: float = math.nan
  low: float = math.nan
  high: float = math.nan


@dataclasses.dataclass(frozen=True)
class Verdicts:
  """Claims and how they fared.

  Attributes:
    verdicts: The verdicts.
    digits: Decimals of the estimates.
    caption: Text below.
  """

  verdicts: Sequence[Any]
  digits: int = 3
  caption: str = ""
  kind = "verdicts"


@dataclasses.dataclass(frozen=True)
class Facts:
  """Names and values, such as a configuration.

  Attributes:
    values: Mapping of names to values; inner mappings become dotted names.
    title: The heading.
    folded: Whether the reader opens it by a click; open on paper.
  """

  values: Mapping[str, Any]
  title: str = ""
  folded: bool = False
  kind = "facts"


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of a report.

  Attributes:
    title: Its heading.
    elements: What it holds; a string is `Prose`.
  """

  title: str
  elements: Sequence[Any]
