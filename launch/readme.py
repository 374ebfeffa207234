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
from collections.abc import Sequence
from typing import Any

from launch import blocks

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "launch" / "results"
# By block: the plots that are drawn beside its table.
_PLOTS = {
  "bias_fashion": ("uncertainty", "tcb", "groups", "repairs"),
  "spade_photographs": ("differences", "sparsity", "copies"),
  "spade_fashion": (
    "differences",
    "sparsity",
    "copies",
    "mask_block",
    "damping",
  ),
  "spade_resnet": ("differences", "sparsity", "copies"),
  "adapters_tales": ("arms",),
  "personalize": ("arms",),
  "personalize_authors": ("arms",),
  "personalize_ablations": ("arms",),
  "edit": ("arms", "pruning", "relearning"),
  "edit_nested": ("nested", "pruning"),
  "edit_load": ("rank", "blocks"),
  "edit_smollm2": ("methods",),
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
    if name not in blocks.BLOCKS or not workdir:
      parser.error(
        f"--take wants {' or '.join(blocks.BLOCKS)}, = and a directory"
      )
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
  for name, render in blocks.BLOCKS.items():
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
  if name in _PLOTS:
    for quantity in _PLOTS[name]:
      _draw(name, results, quantity, RESULTS / f"{name}_{quantity}.svg")
    results["plots"] = list(_PLOTS[name])
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
  command = f"python {module}{rest}".replace(f"{ROOT}/", "")
  command = re.sub(r" --jax_cache_dir[= ]\S+", "", command)
  results["command"] = re.sub(r"(directory=)\S+", r"\1DIR", command)
  results.pop("shown", None)  # texts of mails
  path = RESULTS / f"{name}.json"
  path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _without_places(data: Any) -> Any:
  """Leave out where files lay on one machine, which says nothing."""
  if not isinstance(data, dict):
    return data
  return {k: _without_places(v) for k, v in data.items() if k != "path"}


def _draw(
  name: str, results: dict[str, Any], quantity: str, path: pathlib.Path
) -> None:
  """Draw a plot of the report, the same bytes for the same results."""
  import matplotlib

  plot = {
    "bias_fashion": _plot_bias,
    "spade_fashion": _plot_spade,
    "spade_resnet": _plot_spade,
    "spade_photographs": _plot_spade,
    "adapters_tales": _plot_adapters,
    "personalize": _plot_personalize,
    "personalize_authors": _plot_personalize,
    "personalize_ablations": _plot_personalize,
    "edit": _plot_edit,
    "edit_nested": _plot_edit,
    "edit_load": _plot_load,
    "edit_smollm2": _plot_edit_language,
  }[name]
  with matplotlib.rc_context({"svg.hashsalt": "effjax"}):
    figure = plot(results, quantity).figure
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def _plot_bias(results: dict[str, Any], quantity: str) -> Any:
  from effjax.studies.bias import harm, page, remedies

  arm = max(row["arm"] for row in results["table"] if row["arm"] != "dense")
  levels = [r["sparsity"] for r in results["table"] if r["arm"] == arm]
  if quantity == "groups":
    return harm.groups(results, arm, levels, blocks.ARMS[arm])
  if quantity == "repairs":
    return remedies.curve(results)
  return page.plot(results, quantity)


def _plot_spade(results: dict[str, Any], quantity: str) -> Any:
  from effjax.studies.spade import page

  if quantity == "differences":
    return page.difference_plot(results)
  return page.ablation_plot(results, quantity)


def _plot_adapters(results: dict[str, Any], quantity: str) -> Any:
  from effjax.studies.adapters import page

  del quantity  # there is one plot
  return page.plot(results)


def _plot_personalize(results: dict[str, Any], quantity: str) -> Any:
  from effjax.studies.personalize import page

  del quantity  # there is one plot
  return page.plot(results)


def _plot_edit(results: dict[str, Any], quantity: str) -> Any:
  from effjax.studies.edit import (
    interplay_page,
    nesting,
    page,
    relearning_page,
  )

  if quantity == "relearning":
    return relearning_page.plot(results, page.MIXES)
  if quantity == "pruning":
    return interplay_page.plot(results, page.MIXES)
  if quantity == "nested":
    return nesting.plot(results, page.MIXES)
  return page.plot(results, results["mixes"][0])


def _plot_load(results: dict[str, Any], quantity: str) -> Any:
  from effjax.studies.edit import load_page

  return load_page.plot(results, quantity)


def _plot_edit_language(results: dict[str, Any], quantity: str) -> Any:
  from effjax.studies.edit import language_page

  del quantity
  return language_page.plot(results)


if __name__ == "__main__":
  sys.exit(main())
