"""Write the tables of README.md from the committed results.

python -m launch.readme          rewrites the marked blocks
python -m launch.readme --check  only says whether they are up to date
"""

import argparse
import json
import os
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
  "single": "models of one label",
}
_PLOTS = ("uncertainty", "tcb", "groups", "repairs")
# Of tables with a single label: differences between groups instead.
_FAIRNESS = {
  "accuracy": "accuracy",
  "auc": "AUC",
  "ece": "calibration error",
  "tcb": "threshold calibration bias",
  "demographic_parity": "demographic parity difference",
  "equal_opportunity": "equal opportunity difference",
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
    prog="python -m launch.readme",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--check", action="store_true", help="write nothing")
  parser.add_argument(
    "--take", metavar="NAME=WORKDIR", help="commit-worthy part of a run"
  )
  options = parser.parse_args(arguments)
  if options.take:
    name, _, workdir = options.take.partition("=")
    if name not in BLOCKS or not workdir:
      parser.error(f"--take wants {' or '.join(BLOCKS)}, = and a directory")
    take(name, pathlib.Path(workdir))
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


def take(name: str, workdir: pathlib.Path) -> None:
  """Copy what is worth keeping of the results of a run.

  Args:
    name: A block of README.md.
    workdir: Directory of the run.
  """
  results = json.loads((workdir / "results.json").read_text("utf-8"))
  RESULTS.mkdir(exist_ok=True)
  if name == "bias_fashion":
    for quantity in _PLOTS:
      _draw(results, quantity, RESULTS / f"{name}_{quantity}.svg")
    results["plots"] = list(_PLOTS)
  environment = results.pop("environment")
  if "runs" in results:
    results["runs"] = [
      {k: v for k, v in run.items() if k != "by_attribute"}
      for run in results["runs"]
    ]
  results["data"] = _without_places(results["data"])
  results["packages"] = environment["packages"]
  results["machine"] = f"{os.cpu_count()} {environment['backend']} cores"
  results["date"] = environment["started"][:10]
  # The places of the interpreter and of the project are of one machine.
  _, module, rest = environment["command"].partition("-m ")
  results["command"] = f"python {module}{rest}".replace(f"{ROOT}/", "")
  path = RESULTS / f"{name}.json"
  path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _without_places(data: Any) -> Any:
  """Leave out where files lay on one machine, which says nothing."""
  if not isinstance(data, dict):
    return data
  return {k: _without_places(v) for k, v in data.items() if k != "path"}


def _draw(results: dict[str, Any], quantity: str, path: pathlib.Path) -> None:
  """Draw a plot of the report, the same bytes for the same results."""
  import matplotlib

  from effjax.studies.bias import harm, page, remedies

  arm = max(row["arm"] for row in results["table"] if row["arm"] != "dense")
  levels = [r["sparsity"] for r in results["table"] if r["arm"] == arm]
  with matplotlib.rc_context({"svg.hashsalt": "effjax"}):
    if quantity == "groups":
      plot = harm.groups(results, arm, levels, _ARMS[arm])
    elif quantity == "repairs":
      plot = remedies.curve(results)
    else:
      plot = page.plot(results, quantity)
    plot.figure.savefig(path, metadata={"Date": None}, facecolor="white")


def bias_table(results: Mapping[str, Any]) -> str:
  """Render the bias study as Markdown.

  Args:
    results: The content of its `results.json`.

  Returns:
    A table of the arms and one of the claims.
  """
  lines = [
    " ".join(
      f'<img src="launch/results/bias_fashion_{quantity}.svg" width="49%"'
      f' alt="{quantity}">'
      for quantity in results["plots"]
    ),
    "",
    *_arms(results, _COLUMNS),
  ]
  seeds = ", ".join(map(str, results["seeds"]))
  lines += [
    "",
    f"Mean over {len(results['attributes'])} attributes and"
    f" {len(results['seeds'])} seeds ({seeds}), ± half of the 95 % interval of"
    f" Student's t over seeds; {results['sizes']['train']:,} training and"
    f" {results['sizes']['test']:,} test pictures;"
    f" {results['parameters']:,} parameters; the plots show the same."
    " Threshold calibration bias is 1 where calibrated, below 1 where the rarer"
    " value is predicted too rarely."
    f" {_origin(results)}",
    *_repairs(results),
    "",
    "| claim | judged on | estimate (95 % interval) | result |",
    "|---|---|---|---|",
  ]
  for v in results["verdicts"]:
    # A bar would end the cell.
    quantity = v["quantity"].replace("|", "\\|")
    ends = [v[k] for k in ("estimate", "low", "high")]
    estimate = (
      "undefined" if None in ends else "{:.3f} ({:.3f} to {:.3f})".format(*ends)
    )
    lines.append(
      f"| {v['claim']}: {v['text']} | {_ARMS[v['arm']]} | {quantity}:"
      f" {estimate} | {v['result']} |"
    )
  lines += [
    "",
    "A claim is reproduced if its whole interval lies where the claim says,"
    " not reproduced if it lies outside, inconclusive otherwise. An interval"
    " without width means that all seeds give the same value"
    + (
      "; three seeds make every verdict provisional."
      if len(results["seeds"]) <= 3
      else "."
    ),
  ]
  return "\n".join(lines) + "\n"


def _arms(results: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
  """Tabulate the arms."""
  lines = [
    "| arm | sparsity | " + " | ".join(columns.values()) + " |",
    "|---|---|" + "---|" * len(columns),
  ]
  for row in results["table"]:
    level = "" if row["arm"] == "dense" else f"{100 * row['sparsity']:g} %"
    cells = [_interval(row[name], 3) for name in columns]
    lines.append(f"| {_ARMS[row['arm']]} | {level} | {' | '.join(cells)} |")
  return lines


def _repairs(results: Mapping[str, Any]) -> list[str]:
  """Tabulate what repairs bias, if that was computed."""
  found = results.get("repairs")
  if not found:
    return []
  scores = {
    "accuracy": "accuracy",
    "amplification_size": "mean \\|bias amplification\\|",
    "tcb_distance": "distance of threshold calibration bias from 1",
    "equal_opportunity": "equal opportunity difference",
  }
  lines = [
    "",
    f"What repairs models {_ARMS[found['arm']]} to"
    f" {100 * found['sparsity']:g} % sparsity:",
    "",
    "| repair | " + " | ".join(scores.values()) + " |",
    "|---|" + "---|" * len(scores),
  ]
  for row in found["rows"]:
    cells = [_interval(row[name], 3) for name in scores]
    lines.append(f"| {row['name']} | {' | '.join(cells)} |")
  return lines


def _origin(results: Mapping[str, Any]) -> str:
  """Say which command made the results, when, where and in what time."""
  seconds = results.get("seconds")
  time = (
    f" {seconds['wall'] / 60:.0f} minutes, {seconds['cpu'] / 60:.0f} CPU"
    " minutes,"
    if seconds
    else ""
  )
  return (
    f"Command: `{results['command']}` ({results['date']},"
    f" {results['machine']},{time} jax {results['packages']['jax']})."
  )


def table_of_persons(results: Mapping[str, Any]) -> str:
  """Render the bias study on a table of persons as Markdown.

  Args:
    results: The content of its `results.json`.

  Returns:
    A table of the arms.
  """
  supports = zip(
    results["groups_compared"]["names"],
    results["groups_compared"]["supports"],
    strict=True,
  )
  people = ", ".join(f"{name} {count:,}" for name, count in supports)
  lines = [
    *_arms(results, _FAIRNESS),
    "",
    f"Mean over {len(results['seeds'])} seeds, ± half of the 95 % interval;"
    f" differences are the largest between groups of a family, averaged over"
    f" {', '.join(results['groups_compared']['families'])}. Test persons:"
    f" {people}. {_origin(results)}",
  ]
  return "\n".join(lines) + "\n"


def faces_table(results: Mapping[str, Any]) -> str:
  """Render the study of face networks as Markdown.

  Args:
    results: The content of its `results.json`.

  Returns:
    A table of sparsities.
  """
  lines = [
    "| mask | sparsity | changed decisions | of female by the dense network |"
    " of male | called male | expected age moves by |",
    "|---|---|---|---|---|---|---|",
  ]
  share = lambda cell: (
    f"{100 * cell['estimate']:.0f} % ({100 * cell['low']:.0f} to"
    f" {100 * cell['high']:.0f})"
  )
  for row, year in zip(results["gender"], results["age"], strict=True):
    flips = [row[f"flips_{name}"] for name in ("everyone", "female", "male")]
    lines.append(
      f"| {row['mask']} | {100 * row['sparsity']:g} % |"
      f" {' | '.join(map(share, flips))} | {100 * row['share_male']:.0f} % |"
      f" {year['distance']['estimate']:.1f} years |"
    )
  note = f"{results['faces']} faces without labels; shares with Wilson's 95 %"
  return "\n".join([*lines, "", f"{note} interval. {_origin(results)}", ""])


def bench_table(bench: Mapping[str, Any]) -> str:
  """Render the benchmark as Markdown.

  Args:
    bench: What `python -m launch.bench --output` wrote.

  Returns:
    A table with one row for each candidate.
  """
  lines = [
    "| case | candidate | CPU ms (min to max) | wall ms (min to max) |"
    " CPU time, ratio to ours |",
    "|---|---|---|---|---|",
  ]
  notes = []
  for suite in bench["suites"].values():
    for case in suite:
      ours = case["candidates"]["ours"]["cpu"]["median"]
      for name, times in case["candidates"].items():
        lines.append(
          f"| {case['name'] if name == 'ours' else ''} | {name} |"
          f" {_spread(times['cpu'])} | {_spread(times['wall'])} |"
          f" {times['cpu']['median'] / ours:.2f} |"
        )
      remarks = "; ".join(filter(None, (case["limit"], case["note"])))
      if remarks:
        notes.append(f"- {case['name']}: {remarks}")
  limits = bench["limits"]
  versions = ", ".join(f"{k} {v}" for k, v in bench["versions"].items() if v)
  lines += [
    "",
    f"{versions}; read {limits['read_gb_per_s']:.1f} GB/s, float32 products"
    f" {limits['gemm_gflop_per_s']:.0f} GFLOP/s, load before"
    f" {bench['load_before']:.1f}. Median of"
    f" {_rounds(bench)} interleaved rounds.",
    "",
    *notes,
  ]
  return "\n".join(lines) + "\n"


def _rounds(bench: Mapping[str, Any]) -> str:
  rounds = {
    case["rounds"] for suite in bench["suites"].values() for case in suite
  }
  return " or ".join(map(str, sorted(rounds)))


def _spread(times: Mapping[str, float]) -> str:
  median, low, high = (1e3 * times[k] for k in ("median", "min", "max"))
  return f"{median:.4g} ({low:.4g} to {high:.4g})"


def _interval(cell: Mapping[str, float | None], digits: int) -> str:
  """Write an estimate with half its interval; a dash where undefined."""
  estimate, low, high = (cell[k] for k in ("estimate", "low", "high"))
  if estimate is None:
    return "–"
  text = f"{estimate:.{digits}f}"
  if low is None or high is None:
    return text
  return f"{text} ± {(high - low) / 2:.{digits}f}"


BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
  "bias_fashion": bias_table,
  "bias_adult": table_of_persons,
  "bias_faces": faces_table,
  "bench": bench_table,
}


if __name__ == "__main__":
  sys.exit(main())
