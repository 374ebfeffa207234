r"""Audit two models' saved outputs; nothing is trained.

  python -m launch.audit --predictions pruned.npz --reference dense.npz \
    --groups groups.csv --labels labels.npz --output runs/audit

Files end in .npz, .csv or .parquet. An npz of outputs holds an array logits,
probabilities or predictions [N, A], perhaps labels [N, A], attributes [A]
(names) and ids [N]; a csv or parquet file has a column for each attribute and
perhaps a column id, and its labels lie in a file of their own. Groups are
columns [N]: bools or 0 and 1 make a group and its complement, text or whole
numbers a group for each value; or an array groups [N, G] with names [G].
Rows are counted from 0, and matched by ids where both files have them.

Writes DIR/report.html, a single offline file, and DIR/results.json. Exit
status: 0 they are written; 2 a user's error.
"""

import argparse
import datetime
import importlib.metadata
import pathlib
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from launch import configuring

_FILES = (
  "predictions",
  "reference",
  "groups",
  "labels",
  "train",
  "validation",
  "validation_labels",
)
_PACKAGES = ("effjax", "jax", "jaxlib", "numpy")


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    The exit status, see the top of this file.
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  try:
    options = _parser().parse_all(
      arguments, required=("--predictions", "--reference", "--groups")
    )
  except SystemExit as end:  # --help, or a message of argparse
    return int(end.code or 0)
  try:
    path = _run(options, arguments)
  except (OSError, ValueError) as error:
    if options.debug:
      raise
    print(f"audit: {error}", file=sys.stderr)
    return 2
  print(f"report: {path}")
  return 0


def _parser() -> configuring.Parser:
  parser = configuring.Parser(
    prog="python -m launch.audit",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  helps = {
    "predictions": "outputs of the compressed model",
    "reference": "outputs of the dense model, on the same samples",
    "groups": "groups of the samples",
    "labels": "labels, 0 or 1, unless an npz of outputs holds them",
    "train": "labels and groups of the training data, for bias amplification",
    "validation": "outputs of the compressed model on other samples, on which"
    " thresholds are moved",
    "validation_labels": "their labels, unless that npz holds them",
  }
  for name in _FILES:
    parser.add_argument(f"--{name}", metavar="FILE", help=helps[name])
  add = parser.add_argument
  add(
    "--kind",
    choices=("logits", "probabilities", "predictions"),
    help="what the outputs are; told by the array's name in an npz",
  )
  add("--output", metavar="DIR", default="runs/audit", help="where to write")
  add("--title", default="Audit of a compressed model", help="of the report")
  add(
    "--resamples",
    type=int,
    default=1000,
    help="bootstrap resamples behind each interval",
  )
  add("--seed", type=int, default=0, help="seed of the resamples")
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> pathlib.Path:
  """Write results and report; return the report's path."""
  if options.resamples < 1:
    raise ValueError(f"--resamples must be at least 1, got {options.resamples}")
  if not 0 <= options.seed < 2**32:
    raise ValueError(f"--seed must be from 0 to 2^32 - 1, got {options.seed}")
  place = pathlib.Path(options.output)
  if place.exists() and not place.is_dir():
    raise ValueError(f"{place} is a file, not a directory")
  given = {
    name: path
    for name in _FILES
    if (path := getattr(options, name)) is not None
  }

  from effjax.io import files
  from effjax.studies import audit, report
  from effjax.studies.audit import page

  outputs = audit.read(**given, kind=options.kind)
  results = audit.audit(
    outputs,
    title=options.title,
    resamples=options.resamples,
    seed=options.seed,
  )
  results |= _origin(given, arguments)
  place.mkdir(parents=True, exist_ok=True)
  results = files.without_nan(results)
  files.write_json(place / "results.json", results)
  return report.build(
    place / "report.html",
    title=results["title"],
    summary=page.summary(results),
    sections=page.from_results(results),
    provenance=page.provenance(results),
  )


def _origin(given: dict[str, str], arguments: Sequence[str]) -> dict[str, Any]:
  """Say where the results come from."""
  from effjax.io import files

  now = datetime.datetime.now(datetime.UTC)
  return {
    "command": f"python -m launch.audit {shlex.join(arguments)}",
    "date": now.isoformat(timespec="seconds"),
    "versions": {
      "python": platform.python_version(),
      **{name: importlib.metadata.version(name) for name in _PACKAGES},
    },
    "files": {
      name: {"path": path, "sha256": files.sha256(path)}
      for name, path in given.items()
    },
  }


if __name__ == "__main__":
  sys.exit(main())
