"""Write the tables of README.md from the committed results.

python -m launch.readme          rewrites the marked blocks
python -m launch.readme --check  only says whether they are up to date
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "launch" / "results"
_ARMS = {
  "dense": "dense",
  "ri": "pruned while training",
  "pt": "pruned after training",
}
_COLUMNS = {
  "accuracy": "accuracy",
  "auc": "AUC",
  "uncertainty": "uncertain",
  "interdependence": "interdependence",
  "tcb": "threshold calibration bias",
  "amplification": "bias amplification",
  "backdoor": "backdoor amplification",
}


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    0, or 1 if `--check` finds a block out of date.
  """
  parser = argparse.ArgumentParser(
    prog="python -m launch.readme", description=__doc__
  )
  parser.add_argument("--check", action="store_true", help="write nothing")
  options = parser.parse_args(arguments)
  path = ROOT / "README.md"
  before = path.read_text("utf-8")
  after = fill(before, RESULTS)
  if before == after:
    print("README.md is up to date")
    return 0
  if options.check:
    print("README.md is out of date: run python -m launch.readme")
    return 1
  path.write_text(after, "utf-8")
  print("README.md rewritten")
  return 0


def fill(text: str, results: pathlib.Path) -> str:
  """Fill the marked blocks of a text.

  Args:
    text: Holds `<!-- begin NAME -->` and `<!-- end NAME -->` on lines of their
      own.
    results: Directory with `NAME.json`; a block without one stays empty.

  Returns:
    The text.
  """
  for name, render in BLOCKS.items():
    path = results / f"{name}.json"
    body = render(json.loads(path.read_text("utf-8"))) if path.exists() else ""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    block = f"{begin}\n{body}{end}"
    text = pattern.sub(lambda _, block=block: block, text)
  return text


def bias_table(results: Mapping[str, Any]) -> str:
  """Render the bias study as Markdown.

  Args:
    results: The content of its `results.json`.

  Returns:
    A table of the arms and one of the claims.
  """
  lines = [
    "| arm | sparsity | " + " | ".join(_COLUMNS.values()) + " |",
    "|---|---|" + "---|" * len(_COLUMNS),
  ]
  for row in results["table"]:
    level = "" if row["arm"] == "dense" else f"{100 * row['sparsity']:g} %"
    cells = [_interval(row[name], 3) for name in _COLUMNS]
    lines.append(f"| {_ARMS[row['arm']]} | {level} | {' | '.join(cells)} |")
  seeds = ", ".join(map(str, results["seeds"]))
  seconds = results["seconds"]
  lines += [
    "",
    f"Mean over {len(results['attributes'])} attributes and"
    f" {len(results['seeds'])} seeds ({seeds}), ± half of the 95 % interval of"
    f" Student's t over seeds; {results['sizes']['train']:,} training and"
    f" {results['sizes']['test']:,} test pictures;"
    f" {results['parameters']:,} parameters. Threshold calibration bias is 1"
    " where calibrated, below 1 where the rarer value is predicted too rarely."
    f" Command: `{results['command']}`"
    f" ({seconds['wall'] / 60:.0f} minutes, {seconds['cpu'] / 60:.0f} CPU"
    f" minutes, {results['machine']}).",
    "",
    "| claim | judged on | estimate (95 % interval) | result |",
    "|---|---|---|---|",
  ]
  for v in results["verdicts"]:
    lines.append(
      f"| {v['claim']}: {v['text']} | {_ARMS[v['arm']]} | {v['quantity']}:"
      f" {v['estimate']:.3f} ({v['low']:.3f} to {v['high']:.3f}) |"
      f" {v['result']} |"
    )
  return "\n".join(lines) + "\n"


def bench_table(bench: Mapping[str, Any]) -> str:
  """Render the benchmark as Markdown.

  Args:
    bench: What `python -m launch.bench --output` wrote.

  Returns:
    A table with one row for each candidate.
  """
  from launch.benchmarks import harness

  return harness.to_markdown(bench) + "\n"


def _interval(cell: Mapping[str, float], digits: int) -> str:
  half = (cell["high"] - cell["low"]) / 2
  return f"{cell['estimate']:.{digits}f} ± {half:.{digits}f}"


BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
  "bias_fashion": bias_table,
  "bench": bench_table,
}


if __name__ == "__main__":
  sys.exit(main())
