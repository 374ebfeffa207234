"""Write one report of all studies below a directory.

  python -m launch.overview runs/quickstart

The report is DIR/report.html, a single offline file, made of every results.json
found. Exit status: 0 it is written; 2 a user's error.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from effjax.studies import report
from launch import configuring


def _bias() -> ModuleType:
  from effjax.studies.bias import page

  return page


def _faces() -> ModuleType:
  from effjax.studies.bias import faces

  return faces


def _spade() -> ModuleType:
  from effjax.studies.spade import page

  return page


def _adapters() -> ModuleType:
  from effjax.studies.adapters import page

  return page


def _audit() -> ModuleType:
  from effjax.studies.audit import page

  return page


def _edit() -> ModuleType:
  from effjax.studies.edit import page

  return page


def _edit_language() -> ModuleType:
  from effjax.studies.edit import language_page

  return language_page


def _edit_load() -> ModuleType:
  from effjax.studies.edit import load_page

  return load_page


def _personalize() -> ModuleType:
  from effjax.studies.personalize import page

  return page


# Study -> its page, a module that turns a results.json into text and sections:
# `summary(results)`, `from_results(results)` and `provenance(results)`.
PAGES: Mapping[str, Callable[[], Any]] = {
  "bias": _bias,
  "faces": _faces,
  "spade": _spade,
  "adapters": _adapters,
  "audit": _audit,
  "edit": _edit,
  "edit_language": _edit_language,
  "edit_load": _edit_load,
  "personalize": _personalize,
}


class Study(NamedTuple):
  """A study that has results.

  Attributes:
    place: Its directory.
    results: The content of its results.json.
  """

  place: pathlib.Path
  results: dict[str, Any]

  @property
  def title(self) -> str:
    """What the study calls itself."""
    return str(self.results.get("title", self.place.name))


def main(
  arguments: Sequence[str] | None = None,
  pages: Mapping[str, Callable[[], Any]] = PAGES,
) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.
    pages: See `PAGES`.

  Returns:
    The exit status, see the top of this file.
  """
  try:
    options = _parser().parse_all(
      sys.argv[1:] if arguments is None else arguments, required=("DIR",)
    )
  except SystemExit as end:  # --help, or a message of argparse
    return int(end.code or 0)
  place = pathlib.Path(options.place)
  try:
    studies, skipped = find(place, pages)
    skipped = [*options.skipped, *skipped]
    if not studies and not skipped:
      raise ValueError(f"no directory below {place} has a results.json")
    path = build(place, studies, skipped, title=options.title, pages=pages)
  except (OSError, ValueError) as error:
    print(f"overview: {error}", file=sys.stderr)
    return 2
  print(f"report: {path}")
  return 0


def _parser() -> configuring.Parser:
  parser = configuring.Parser(
    prog="python -m launch.overview",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("place", nargs="?", metavar="DIR", help="where the studies lie")
  add("--title", default="effjax in miniature", help="title of the report")
  add(
    "--skipped",
    action="append",
    default=[],
    metavar="TEXT",
    help="something that was not run, and why; shown at the top; may be"
    " repeated",
  )
  return parser


def find(
  place: pathlib.Path, pages: Mapping[str, Callable[[], Any]] = PAGES
) -> tuple[list[Study], list[str]]:
  """Find the results below a directory.

  Args:
    place: The directory.
    pages: See `PAGES`.

  Returns:
    The studies in the order of `pages` and of their beginning, and a sentence
    for every results.json that cannot be shown.

  Raises:
    FileNotFoundError: If there is no such directory and nothing to say.
  """
  if place.exists() and not place.is_dir():
    raise ValueError(f"{place} is a file, not a directory")
  studies, unusable = [], []
  for path in sorted(place.rglob("results.json")):
    try:
      results = json.loads(path.read_text("utf-8"))
      name = results["study"]
    except (ValueError, TypeError, KeyError):
      unusable.append(f"{path}: it is not the result of a study")
      continue
    if name in pages:
      studies.append(Study(path.parent, results))
    else:
      unusable.append(
        f"{path}: the study {name!r} has no page; known are {', '.join(pages)}"
      )
  order = list(pages)
  started = lambda study: study.results.get("environment", {}).get("started")
  studies.sort(
    key=lambda s: (order.index(s.results["study"]), started(s) or "")
  )
  return studies, unusable


def build(
  place: pathlib.Path,
  studies: Sequence[Study],
  skipped: Sequence[str],
  *,
  title: str,
  pages: Mapping[str, Callable[[], Any]] = PAGES,
) -> pathlib.Path:
  """Write the report.

  Args:
    place: Its directory.
    studies: What it shows.
    skipped: Sentences about what it does not.
    title: Its title.
    pages: See `PAGES`.

  Returns:
    Its path.
  """
  sections, provenance = [], {}
  for study in studies:
    page = pages[study.results["study"]]()
    whole = study.place.relative_to(place) / "report.html"
    lead = [page.summary(study.results)]
    if (study.place / "report.html").exists():
      lead.append(f"Its own report shows more, also pictures: `{whole}`.")
    sections.append(report.Section(study.title, lead))
    sections += [
      _named(section, study, len(studies) > 1)
      for section in page.from_results(study.results)
    ]
    provenance[study.title] = page.provenance(study.results)
  return report.build(
    place / "report.html",
    title=title,
    summary=_summary(studies, skipped),
    sections=sections,
    provenance=provenance,
  )


def _named(
  section: report.Section, study: Study, several: bool
) -> report.Section:
  """Return a section whose title tells its study from others, if there are."""
  if not several:
    return section
  title = f"{study.place.name}: {section.title}"
  return dataclasses.replace(section, title=title)


def _summary(studies: Sequence[Study], skipped: Sequence[str]) -> str:
  """Say what was run and what was not."""
  lines = []
  for study in studies:
    seconds = study.results.get("seconds", {}).get("wall")
    time = "" if seconds is None else f", {seconds:.0f} s of computing"
    lines.append(f"- **{study.title}** in `{study.place}`{time}")
  lines += [f"- **Not run:** {reason}" for reason in skipped]
  return (
    "Small runs of the studies, to see that everything works and what comes"
    " out; they are too small for conclusions.\n\n" + "\n".join(lines)
  )


if __name__ == "__main__":
  sys.exit(main())
