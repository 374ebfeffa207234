"""Measure the speed of effjax against its peers.

  python -m launch.bench
  python -m launch.bench --only masks,models --rounds 9 --output bench.json
  python -m launch.bench --only traces --case "ResNet-18"

The cases of a suite come from launch/benchmarks/NAME.py, which has a function
`cases(quick: bool) -> list[Case]`. Candidates take turns; the table shows
median, minimum and maximum of wall and CPU time. The file of --output keeps
what it has of other suites; each says when, where and by which versions it was
measured.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pathlib
import sys
from typing import Any

SUITES = (
  "masks",
  "solvers",
  "traces",
  "training",
  "populations",
  "models",
  "imports",
  "groups",
  "ranking",
  "bootstrap",
  "attribution",
  "language",
  "finetuning",
  "editing",
)


def _parse(argv):
  parser = argparse.ArgumentParser(
    prog="python -m launch.bench",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--only",
    metavar="NAMES",
    default="",
    help=f"suites to run, separated by commas; of {', '.join(SUITES)}",
  )
  parser.add_argument(
    "--case",
    metavar="TEXT",
    default="",
    help="only the cases with this text in their name; nothing is written",
  )
  parser.add_argument(
    "--rounds",
    type=int,
    default=7,
    metavar="N",
    help="timed runs of each candidate (default: %(default)s)",
  )
  parser.add_argument(
    "--quick",
    action="store_true",
    help="small sizes, to see that everything runs; figures mean little",
  )
  parser.add_argument(
    "--output",
    metavar="PATH",
    type=pathlib.Path,
    help="also write the results as JSON, after every suite; suites that are"
    " not run now stay as they are there",
  )
  args = parser.parse_args(argv)
  args.only = [name for name in args.only.split(",") if name] or list(SUITES)
  for name in args.only:
    if name not in SUITES:
      parser.error(f"no suite {name!r}; there are {', '.join(SUITES)}")
  if args.case and args.output:
    parser.error("--output keeps whole suites: leave out --case")
  if args.rounds < 1:
    parser.error(f"--rounds must be at least 1, got {args.rounds}")
  try:
    report = _report(args.output)
  except (OSError, ValueError) as error:
    parser.error(f"--output: {error}")
  return args, report


def _report(path: pathlib.Path | None) -> dict[str, Any]:
  """Return what a file of results holds; nothing where there is none yet."""
  if path is None or not path.exists():
    return {"suites": {}}
  found = json.loads(path.read_text("utf-8"))
  suites = found.get("suites") if isinstance(found, dict) else None
  if not isinstance(suites, dict) or not all(
    isinstance(suite, dict) and {"measured", "cases"} <= suite.keys()
    for suite in suites.values()
  ):
    raise ValueError(f"{path} is no file of this benchmark")
  return found


def main(argv: list[str] | None = None) -> int:
  """Run the suites that are asked for and print their tables."""
  args, report = _parse(argv)
  from rich.console import Console

  from launch.benchmarks import harness

  # In a pipe, a table squeezed into 80 columns would cut the figures.
  console = Console(width=None if sys.stdout.isatty() else 140)
  measured: dict[str, Any] = {
    "versions": harness.versions(),
    "load_before": os.getloadavg()[0],
  }
  versions, load = measured["versions"], measured["load_before"]
  console.print(
    ", ".join(f"{k} {v or 'absent'}" for k, v in versions.items()),
    highlight=False,
  )
  if versions["torch"] is None:
    console.print(
      "[yellow]torch is not installed: its comparisons are skipped.[/yellow]"
    )
  if load > 0.5:
    console.print(
      f"[yellow]The machine is busy (load {load:.1f}): trust CPU time more"
      " than wall time, and ratios only roughly.[/yellow]"
    )
  measured["limits"] = harness.machine_limits()
  console.print(
    "limits: read {read_gb_per_s:.1f} GB/s, float32 products"
    " {gemm_gflop_per_s:.0f} GFLOP/s".format(**measured["limits"]),
    highlight=False,
  )
  for name in args.only:
    module = f"launch.benchmarks.{name}"
    if importlib.util.find_spec(module) is None:
      console.print(f"[yellow]{name}: there is no {module}, skipped.[/yellow]")
      continue
    results = []
    cases = importlib.import_module(module).cases(args.quick)
    chosen = [case for case in cases if args.case in case.name]
    if not chosen:
      names = "; ".join(case.name for case in cases)
      console.print(
        f"[yellow]{name}: no case {args.case!r} in {names}[/yellow]"
      )
      continue
    for case in chosen:
      with console.status(case.name):
        results.append(harness.measure(case, args.rounds))
    console.print(f"[bold]{name}[/bold], {args.rounds} rounds")
    console.print(harness.table(results))
    if args.output:
      suites = report["suites"]
      suites[name] = {"measured": measured, "cases": results}
      report["suites"] = {n: suites[n] for n in SUITES if n in suites}
      args.output.parent.mkdir(parents=True, exist_ok=True)
      args.output.write_text(json.dumps(report, indent=2) + "\n")
      console.print(f"written: {args.output}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
