"""The blocks of README.md: results rendered as Markdown."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch import blocks_edit, blocks_edit_language, blocks_personalize
from launch.cells import interval, origin

# What the arms are called.
ARMS = {
  "dense": "dense",
  "ri": "pruned while training",
  "pt": "pruned after training",
  "single": "models of one label",
}
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
    f" {origin(results)}",
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
      f"| {v['claim']}: {v['text']} | {ARMS[v['arm']]} | {quantity}:"
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
    cells = [interval(row[name], 3) for name in columns]
    lines.append(f"| {ARMS[row['arm']]} | {level} | {' | '.join(cells)} |")
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
    f"What repairs models {ARMS[found['arm']]} to"
    f" {100 * found['sparsity']:g} % sparsity:",
    "",
    "| repair | " + " | ".join(scores.values()) + " |",
    "|---|" + "---|" * len(scores),
  ]
  for row in found["rows"]:
    cells = [interval(row[name], 3) for name in scores]
    lines.append(f"| {row['name']} | {' | '.join(cells)} |")
  return lines


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
    f" {people}. {origin(results)}",
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
  return "\n".join([*lines, "", f"{note} interval. {origin(results)}", ""])


def spade_table(
  results: Mapping[str, Any], *, name: str = "spade_fashion"
) -> str:
  """Render a study of traces as Markdown.

  Args:
    results: The content of its `results.json`.
    name: The block, after which the files of its plots are named.

  Returns:
    What was found, its plots, and a table of methods and arms.
  """
  from effjax.studies.spade import arms, page

  plots = [
    f'<img src="launch/results/{name}_{quantity}.svg" width="49%"'
    f' alt="{quantity}">'
    for quantity in results["plots"]
  ]
  shown = [arms.TITLES[arm] for arm in results["arms"]]
  lines = [
    page.summary(results),
    "",
    " ".join(plots),
    "",
    f"| pixel AUC | {' | '.join(shown)} |",
    "|---|" + "---|" * len(shown),
  ]
  for row, found in page.rows_of(results):
    cells = [interval(found[arm], 3) for arm in results["arms"]]
    lines.append(f"| {row} | {' | '.join(cells)} |")
  success = [share for row in results["success"].values() for share in row]
  accuracy = [after for _, after in results["accuracy"]]
  lines += [
    "",
    f"± half of the 95 % bootstrap interval over networks (seeds"
    f" {', '.join(map(str, results['seeds']))}) and {results['images']} images"
    f" of each; differences are paired by image.{_few(results)}"
    f"{page.answer_kept(results)} The Trojans"
    f" turn {_percents(success)} of stamped test images; accuracy on clean"
    f" ones is {_percents(accuracy)}. {page.faithfulness(results)}"
    f" {origin(results)}",
  ]
  return "\n".join(lines) + "\n"


def adapters_table(results: Mapping[str, Any]) -> str:
  """Render the study of adapters as Markdown.

  Args:
    results: The content of its `results.json`.

  Returns:
    What was found, its plot, and a table of arms.
  """
  from effjax.studies.adapters import page

  base, table = results["base"]["test"], results["table"]
  lines = [
    page.summary(results),
    "",
    *(
      f'<img src="launch/results/adapters_tales_{quantity}.svg" width="60%"'
      f' alt="{quantity}">'
      for quantity in results["plots"]
    ),
    "",
    "| arm | learning rate | trained numbers | held-out loss | change | CPU s"
    " |",
    "|---|---|---|---|---|---|",
    f"| before | | | {base:.3f} | | |",
  ]
  for row in table:
    lines.append(
      f"| {row['title']} | {row['rate']:g} | {row['trained']:,}"
      f" ({100 * row['share']:.3g} %) | {interval(row['after'], 3)} |"
      f" {interval(row['change'], 3)} | {row['cpu']['estimate']:.0f} |"
    )
  sizes = results["data"]["dialogues"]
  lines += [
    "",
    f"Nats a token of {sizes['test']} responses of tales that were held out,"
    f" ± half of the 95 % interval of Student's t over seeds"
    f" {', '.join(map(str, results['seeds']))}; the tales are the same for all"
    " seeds. CPU seconds are those of training, compilation included, of RoSA"
    f" with its warm-up. {origin(results)}",
  ]
  return "\n".join(lines) + "\n"


def _few(results: Mapping[str, Any]) -> str:
  """Say that an arm saw fewer images, if there is one."""
  if "spade" not in results["arms"]:
    return ""
  return (
    f" The exact solver saw {results['exact_images']} of these images: its"
    " difference is comparable, its column is not."
  )


def _percents(shares: Sequence[float]) -> str:
  """Write the range of shares in percent."""
  low, high = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
  return f"{low} %" if low == high else f"{low} to {high} %"


def bench_table(bench: Mapping[str, Any]) -> str:
  """Render the benchmark as Markdown.

  Args:
    bench: What `python -m launch.bench --output` wrote.

  Returns:
    A table with one row for each candidate; of an accelerator, by wall time.
  """
  suites = bench["suites"]
  # Where an accelerator computes, CPU time only tells who waits for it how.
  clock = (
    "wall"
    if any("device" in s["measured"]["versions"] for s in suites.values())
    else "cpu"
  )
  lines = [
    "| case | candidate | CPU ms (min to max) | wall ms (min to max) |"
    f" {'wall' if clock == 'wall' else 'CPU'} time, ratio to ours |",
    "|---|---|---|---|---|",
  ]
  notes = []
  for suite in suites.values():
    for case in suite["cases"]:
      ours = case["candidates"]["ours"][clock]["median"]
      for name, times in case["candidates"].items():
        lines.append(
          f"| {case['name'] if name == 'ours' else ''} | {name} |"
          f" {_spread(times['cpu'])} | {_spread(times['wall'])} |"
          f" {times[clock]['median'] / ours:.2f} |"
        )
      reached = _reached(case, suite["measured"]["limits"])
      remarks = "; ".join(filter(None, (case["limit"], reached, case["note"])))
      if remarks:
        notes.append(f"- {case['name']}: {remarks}")
  lines += ["", *_runs(suites), *notes]
  return "\n".join(lines) + "\n"


def _reached(case: Mapping[str, Any], limits: Mapping[str, float]) -> str:
  """Say how near ours comes to the rate of products, where that matters."""
  if not case.get("flops"):
    return ""
  rate = case["flops"] / case["candidates"]["ours"]["wall"]["median"]
  share = rate / (1e9 * limits["gemm_gflop_per_s"])
  return f"ours reaches {100 * share:.0f} % of the rate of products"


def _runs(suites: Mapping[str, Any]) -> list[str]:
  """Say of every run of the benchmark what it measured, where and with what."""
  lines, shared = [], [suite["measured"] for suite in suites.values()]
  for i, measured in enumerate(shared):
    if measured in shared[:i]:
      continue
    own = {k: v for k, v in suites.items() if v["measured"] == measured}
    names = "" if len(own) == len(suites) else ", ".join(own) + ": "
    rounds = {case["rounds"] for v in own.values() for case in v["cases"]}
    limits = measured["limits"]
    versions = ", ".join(
      f"{key} {value}" for key, value in measured["versions"].items() if value
    )
    lines.append(
      f"{names}{versions}; read"
      f" {limits['read_gb_per_s']:.1f} GB/s, float32 products"
      f" {limits['gemm_gflop_per_s']:.0f} GFLOP/s, load before"
      f" {measured['load_before']:.1f}; median of"
      f" {' or '.join(map(str, sorted(rounds)))} interleaved rounds.\n"
    )
  return lines


def _spread(times: Mapping[str, float]) -> str:
  median, low, high = (1e3 * times[k] for k in ("median", "min", "max"))
  return f"{median:.4g} ({low:.4g} to {high:.4g})"


# The blocks by name, which is also that of the file of their results.
BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
  "bias_fashion": bias_table,
  "bias_adult": table_of_persons,
  "bias_compas": table_of_persons,
  "bias_german_credit": table_of_persons,
  "bias_faces": faces_table,
  "spade_fashion": spade_table,
  "spade_resnet": functools.partial(spade_table, name="spade_resnet"),
  "spade_photographs": functools.partial(spade_table, name="spade_photographs"),
  "adapters_tales": adapters_table,
  "personalize": blocks_personalize.table,
  "personalize_authors": functools.partial(
    blocks_personalize.table, name="personalize_authors"
  ),
  "personalize_ablations": functools.partial(
    blocks_personalize.table, name="personalize_ablations"
  ),
  "edit": blocks_edit.table,
  "edit_nested": functools.partial(blocks_edit.table, name="edit_nested"),
  "edit_load": blocks_edit.loads,
  "edit_smollm2": blocks_edit_language.table,
  "bench": bench_table,
  "bench_gpu": bench_table,
}
