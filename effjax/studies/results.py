"""What every study ends with: its results for machines, and for people."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from effjax.io import files
from effjax.studies import elements, report


def publish(
  place: pathlib.Path,
  results: Mapping[str, Any],
  page: Any,
  config: Any,
  *,
  more: Sequence[elements.Section] = (),
) -> dict[str, Any]:
  """Write `results.json` and `report.html`, and say where the report is.

  Args:
    place: The work directory.
    results: What was found.
    page: A module that turns results into `summary(results)`,
      `from_results(results)` and `provenance(results, config)`.
    config: The configuration.
    more: Sections that are not made of the results, at the end.

  Returns:
    The content of `results.json`; what is not a number is None there.
  """
  found = files.without_nan(dict(results))
  files.write_json(place / "results.json", found)
  path = report.build(
    place / "report.html",
    title=config.title,
    summary=page.summary(found),
    sections=[*page.from_results(found), *more],
    provenance=page.provenance(found, config),
  )
  print(f"report: {path}", flush=True)
  return found
