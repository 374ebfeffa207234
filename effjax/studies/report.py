"""One offline HTML file that reads well on a phone, on a screen, on paper.

A report is a list of sections, a section a list of elements. Everything shown
is escaped; images and plots lie inside the file, which loads nothing from
anywhere and runs no script.

    report.build(
      "runs/x/report.html",
      title="Bias of pruned models",
      summary="Pruning to 90 % keeps accuracy.",
      sections=[
        report.Section("Overall", [
          report.Table(
            columns=["sparsity", report.Column("AUC", digits=3)],
            rows=[["90 %", (0.91, 0.90, 0.92)]],
          ),
          report.Plot(figure, alt="AUC falls with sparsity"),
        ]),
      ],
      provenance={"seeds": [0, 1, 2]},
    )
"""

import base64
import io
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from effjax.studies import text
from effjax.studies.elements import (
  Column,
  Facts,
  Gallery,
  Heading,
  Picture,
  Plot,
  Plots,
  Prose,
  Section,
  Table,
  Verdict,
  Verdicts,
)

__all__ = [
  "Column",
  "Facts",
  "Gallery",
  "Heading",
  "Picture",
  "Plot",
  "Plots",
  "Prose",
  "Section",
  "Table",
  "Verdict",
  "Verdicts",
  "build",
]


def build(
  path: str | os.PathLike,
  *,
  title: str,
  summary: str = "",
  sections: Sequence[Section] = (),
  provenance: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes a report.

  Args:
    path: The file, replaced in one step.
    title: The title.
    summary: What was found, in a few sentences, as in `Prose`.
    sections: The parts.
    provenance: Configuration, versions, seeds, command, date: names to values.
      An inner mapping becomes a list of its own that the reader opens.

  Returns:
    The path.

  Raises:
    TypeError: If a section holds something that is no element.
    ImportError: If jinja2 or matplotlib is not installed.
  """
  try:
    import jinja2
  except ImportError as error:
    raise ImportError(
      'A report needs jinja2 and matplotlib: pip install "effjax[report]".'
    ) from error
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  parts = [
    {
      "title": section.title,
      "id": f"s{i}",
      "elements": [
        _prepare(element, f"s{i}e{j}", section.title)
        for j, element in enumerate(section.elements)
      ],
    }
    for i, section in enumerate(sections, 1)
  ]
  page = environment.get_template("report.html.j2").render(
    title=title,
    summary=text.markup(summary),
    sections=parts,
    provenance=_provenance(provenance or {}),
  )
  return _write(pathlib.Path(path), page)


def _prepare(element: Any, name: str, section: str) -> dict[str, Any]:
  """Returns what the template shows of an element."""
  if isinstance(element, str):
    element = Prose(element)
  prepare = _PREPARE.get(type(element))
  if prepare is None:
    raise TypeError(
      f"The section {section!r} holds a {type(element).__name__}; expected a"
      f" string or one of {', '.join(kind.__name__ for kind in _PREPARE)}."
    )
  return {"kind": element.kind, "id": name, **prepare(element, name)}


def _prepare_table(table: Table, name: str) -> dict[str, Any]:
  columns = [c if isinstance(c, Column) else Column(c) for c in table.columns]
  for row in table.rows:
    if not isinstance(row, str) and len(row) != len(columns):
      raise ValueError(
        f"A row of the table {table.caption or name!r} has {len(row)} cells for"
        f" {len(columns)} columns: {list(row)}."
      )
  bodies = [row for row in table.rows if not isinstance(row, str)]
  spans = [
    any(_interval(row[i]) is not None for row in bodies)
    for i in range(len(columns))
  ]
  words = [
    bool(bodies) and all(isinstance(row[i], str) for row in bodies)
    for i in range(len(columns))
  ]
  heads = [
    {"title": c.title, "unit": c.unit, "span": 1 + span, "words": word}
    for c, span, word in zip(columns, spans, words, strict=True)
  ]
  rows = [
    {"heading": row}
    if isinstance(row, str)
    else {
      "heading": None,
      "cells": [
        _cell(cell, column, span) | {"words": word}
        for cell, column, span, word in zip(
          row, columns, spans, words, strict=True
        )
      ],
    }
    for row in table.rows
  ]
  return {
    "caption": table.caption,
    "notes": list(table.notes),
    "heads": heads,
    "rows": rows,
    "width": len(columns) + sum(spans),
  }


def _cell(cell: Any, column: Column, span: bool) -> dict[str, Any]:
  interval = _interval(cell)
  around = ""
  if isinstance(cell, str):
    return {"text": cell, "around": None, "span": 1 + span}
  if interval is not None:
    cell, low, high = (column.scale * value for value in interval)
    around = _around(cell, low, high, column.digits)
  elif cell is not None:
    cell = column.scale * float(cell)
  shown = text.format_number(cell, column.digits)
  return {"text": shown, "around": around if span else None, "span": 1}


def _around(value: float, low: float, high: float, digits: int | None) -> str:
  """Returns "± half" for a symmetric interval, else "[low, high]"."""
  if any(map(math.isnan, (value, low, high))):
    return ""
  unit = 10.0 ** -(4 if digits is None else digits)
  if abs((high - value) - (value - low)) < unit / 2:
    return f"±\u2009{text.format_number((high - low) / 2, digits)}"
  return text.format_interval(low, high, digits)


def _interval(cell: Any) -> tuple[float, float, float] | None:
  """Returns (estimate, low, high) of a cell that has them."""
  names = ("estimate", "low", "high")
  if isinstance(cell, Mapping) and all(name in cell for name in names):
    parts = [cell[name] for name in names]
  elif all(hasattr(cell, name) for name in names):
    parts = [getattr(cell, name) for name in names]
  elif isinstance(cell, tuple) and len(cell) == 3:
    parts = list(cell)
  else:
    return None
  estimate, low, high = (
    math.nan if part is None else float(part) for part in parts
  )
  return estimate, low, high


def _prepare_plot(plot: Plot, name: str) -> dict[str, Any]:
  import markupsafe

  from effjax.studies import drawing

  svg = drawing.to_svg(plot.figure, name, plot.alt)
  return {"svg": markupsafe.Markup(svg), "caption": plot.caption}


def _prepare_plots(plots: Plots, name: str) -> dict[str, Any]:
  return {
    "plots": [
      _prepare_plot(plot, f"{name}p{i}") for i, plot in enumerate(plots.plots)
    ]
  }


def _prepare_gallery(gallery: Gallery, name: str) -> dict[str, Any]:
  del name
  return {
    "caption": gallery.caption,
    "pictures": [
      {
        "source": _data_uri(picture.pixels),
        "caption": picture.caption,
        "alt": picture.alt or picture.caption,
      }
      for picture in gallery.pictures
    ],
  }


def _prepare_verdicts(verdicts: Verdicts, name: str) -> dict[str, Any]:
  del name
  states = {"reproduced": "yes", "not reproduced": "no", "inconclusive": "open"}
  shown = []
  for v in verdicts.verdicts:
    if v.result not in states:
      raise ValueError(
        f"The verdict on {v.claim} is {v.result!r}; expected one of"
        f" {', '.join(states)}."
      )
    shown.append(
      {
        "claim": v.claim,
        "text": v.text,
        "result": v.result,
        "state": states[v.result],
        "quantity": v.quantity,
        "arm": v.arm,
        "estimate": text.format_number(v.estimate, verdicts.digits),
        "interval": text.format_interval(v.low, v.high, verdicts.digits),
      }
    )
  tally = [
    f"{n} {result}"
    for result in states
    if (n := sum(v["result"] == result for v in shown))
  ]
  return {
    "verdicts": shown,
    "tally": ", ".join(tally),
    "caption": verdicts.caption,
  }


def _prepare_facts(facts: Facts, name: str) -> dict[str, Any]:
  del name
  return {
    "title": facts.title,
    "folded": facts.folded,
    "facts": _flatten(facts.values),
  }


_PREPARE = {
  Prose: lambda prose, name: {"html": text.markup(prose.text)},
  Heading: lambda heading, name: {"text": heading.text},
  Table: _prepare_table,
  Plot: _prepare_plot,
  Plots: _prepare_plots,
  Gallery: _prepare_gallery,
  Verdicts: _prepare_verdicts,
  Facts: _prepare_facts,
}


def _provenance(values: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Splits provenance into plain facts and folded lists of inner mappings."""
  plain = {n: v for n, v in values.items() if not isinstance(v, Mapping)}
  inner = {n: v for n, v in values.items() if isinstance(v, Mapping)}
  facts = [Facts(plain)] if plain else []
  facts += [
    Facts(value, title=name, folded=True) for name, value in inner.items()
  ]
  return [_prepare(fact, "", "") for fact in facts]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple]:
  """Returns dotted names with their values as text."""
  pairs = []
  for name, value in values.items():
    if isinstance(value, Mapping) and value:
      pairs += _flatten(value, f"{prefix}{name}.")
    elif isinstance(value, list | tuple):
      pairs.append(
        (f"{prefix}{name}", ", ".join(map(str, value)) or text.MISSING)
      )
    else:
      shown = text.MISSING if value is None or value == {} else str(value)
      pairs.append((f"{prefix}{name}", shown))
  return pairs


def _data_uri(pixels: Any) -> str:
  """Returns an image as a PNG inside a data URI."""
  import numpy as np
  from PIL import Image

  pixels = np.asarray(pixels)
  if pixels.ndim == 3 and pixels.shape[-1] == 1:
    pixels = pixels[..., 0]
  if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
    raise ValueError(
      "A picture must have shape [H, W], [H, W, 1] or [H, W, 3], got"
      f" {list(pixels.shape)}."
    )
  if np.issubdtype(pixels.dtype, np.floating):
    pixels = np.clip(np.round(np.nan_to_num(pixels) * 255), 0, 255)
  buffer = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG", optimize=True)
  code = base64.b64encode(buffer.getvalue()).decode("ascii")
  return f"data:image/png;base64,{code}"


def _write(path: pathlib.Path, content: str) -> pathlib.Path:
  """Writes a file so that it is either the old or the new one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
  try:
    with os.fdopen(handle, "w", encoding="utf-8") as file:
      file.write(content)
    os.chmod(name, 0o644)
    os.replace(name, path)
  except BaseException:
    pathlib.Path(name).unlink(missing_ok=True)
    raise
  return path
