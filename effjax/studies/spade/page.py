"""The report of the study of traces."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from effjax.studies import elements, figures, origin
from effjax.studies.spade import arms, examiner, photographs_page

_CHOICES = {
  "copies": "random copies of the example",
  "damping": "damping, share of the mean diagonal",
  "mask_block": "columns chosen together",
  "sparsity": "sparsity of every pruned layer",
}


def summary(results: Mapping[str, Any]) -> str:
  """Say in a few sentences what was found.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  found = results["auc_against_dense"]["fast_spade"]["mean"]
  dense = results["auc"]["dense"]["mean"]["estimate"]
  level = "undefined" if dense is None else f"{dense:.3f}"
  others = [
    f"{arms.TITLES[arm]} {_signed(rows['mean'])}"
    for arm, rows in results["auc_against_dense"].items()
    if arm != "fast_spade"
  ]
  count = len(results["seeds"])
  better, worse = helped(results)
  taught = "One network was" if count == 1 else f"{count} networks were"
  text = (
    f"{taught} taught to obey patches; a good"
    " explanation of an image with a patch shows the patch. Maps of dense"
    f" networks find it with a mean pixel AUC of {level} over"
    f" {len(results['methods'])} methods. Pruning the network for each image"
    f" first (FastSPADE) changes this by {_signed(found)}:"
    f" **{results['verdict']['outcome']}** on average; of single methods it"
    f" helps {better} and harms {worse} beyond chance."
  )
  if "photographs" in results:
    text += f"\n\n{photographs_page.few_photographs(results)}"
  if others:
    text += f"\n\nOther ways, against dense: {'; '.join(others)}."
  return text


def _signed(found: Mapping[str, float | None]) -> str:
  """Write a change with its interval, whose ends may be undefined."""
  if any(found[end] is None for end in elements.ENDS):
    return "undefined"
  return (
    f"{found['estimate']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
  )


def from_results(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the sections of the report.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections.
  """
  plots = [ablation_plot(results, name) for name in results["ablations"]]
  return [
    elements.Section("Do maps find the patch?", _judged(results)),
    elements.Section("On clean images", _faithfulness(results)),
    elements.Section("What matters", [elements.Plots(plots)]),
    elements.Section("The Trojans", [_trojans(results)]),
    *photographs_page.sections(results),
  ]


def area_table(results: Mapping[str, Any]) -> elements.Table:
  """Make the table of pixel AUC by method and arm.

  Args:
    results: The content of `results.json`.

  Returns:
    The table.
  """
  shown = results["arms"]
  columns = [
    "method",
    *(elements.Column(arms.TITLES[arm], digits=3) for arm in shown),
  ]
  rows = [
    [name, *(cells[arm] for arm in shown)] for name, cells in rows_of(results)
  ]
  exact = f" ({results['exact_images']} for the exact solver)"
  return elements.Table(
    columns,
    rows,
    caption=f"Pixel AUC of the patch, {results['images']} images of each"
    f" network{exact if 'spade' in shown else ''}, seeds"
    f" {', '.join(map(str, results['seeds']))}; 95 % bootstrap intervals over"
    f" networks and images.{answer_kept(results)}",
  )


def rows_of(
  results: Mapping[str, Any],
) -> list[tuple[str, dict[str, Mapping[str, float | None]]]]:
  """Name the rows of the table, with the intervals of every arm.

  Args:
    results: The content of `results.json`.

  Returns:
    Methods, their mean and whether the answer is kept.
  """
  names = [*results["methods"], "mean"]
  rows = [
    (name, {arm: found[name] for arm, found in results["auc"].items()})
    for name in names
  ]
  if "answer_kept" in results:
    rows.append(("answer kept", results["answer_kept"]))
  return rows


def answer_kept(results: Mapping[str, Any]) -> str:
  """Explain the last row of the table, where there is one.

  Args:
    results: The content of `results.json`.

  Returns:
    A sentence after a space, or nothing.
  """
  if "answer_kept" not in results:
    return ""
  return (
    " Answer kept: the share of images to which the network still gives the"
    " class of the patch, as the dense one does to all."
  )


def difference_plot(results: Mapping[str, Any]) -> elements.Plot:
  """Draw how far arms lie from the dense network, by method.

  Args:
    results: The content of `results.json`.

  Returns:
    The plot.
  """
  found = results["auc_against_dense"]
  shown = [a for a in ("fast_spade", "spade", "wanda") if a in found]
  names = [*results["methods"], "mean"]
  series: dict[str, Any] = {
    arms.TITLES[arm]: elements.ends([found[arm][name] for name in names])
    for arm in shown
  }
  better, worse = helped(results)
  title = (
    f"FastSPADE helps {better} of {len(results['methods'])} methods and harms"
    f" {worse}"
  )
  return elements.Plot(
    figures.dot_intervals(
      names,
      series,
      title=title,
      xlabel="change of pixel AUC against the dense network",
      reference=0.0,
    ),
    alt=title,
    caption="Paired by image; 95 % bootstrap intervals over networks and"
    " images.",
  )


def helped(results: Mapping[str, Any]) -> tuple[int, int]:
  """Count the methods that FastSPADE helps, and those that it harms.

  Args:
    results: The content of `results.json`.

  Returns:
    How many intervals lie above 0, and how many below.
  """
  rows = [
    results["auc_against_dense"]["fast_spade"][n] for n in results["methods"]
  ]
  known = [r for r in rows if all(r[end] is not None for end in elements.ENDS)]
  return sum(r["low"] > 0 for r in known), sum(r["high"] < 0 for r in known)


def _judged(results: Mapping[str, Any]) -> list[Any]:
  found = results["auc_against_dense"]["fast_spade"]["mean"]
  verdict = elements.Verdict(
    claim="S1",
    text="Maps of traced networks find the patch better, on average over"
    " methods.",
    result=results["verdict"]["outcome"],
    quantity="pixel AUC, FastSPADE minus dense",
    arm=arms.TITLES["fast_spade"],
    **{end: elements.number(found[end]) for end in elements.ENDS},
  )
  return [
    elements.Verdicts([verdict]),
    difference_plot(results),
    area_table(results),
  ]


def faithfulness(results: Mapping[str, Any]) -> str:
  """Say what pruning for each image does to insertion and deletion.

  Args:
    results: The content of `results.json`.

  Returns:
    A sentence.
  """
  change = {
    score: results["faithfulness"][f"{score}_against_dense"]["fast_spade"]
    for score in ("insertion", "deletion")
  }
  return (
    "On clean images, maps of FastSPADE change the area below the insertion"
    f" curve (higher is better) by {_signed(change['insertion'])} and that"
    " below the deletion curve (lower is better) by"
    f" {_signed(change['deletion'])}, on average over methods."
  )


def _faithfulness(results: Mapping[str, Any]) -> list[Any]:
  found = results["faithfulness"]
  shown = list(found["insertion"])
  columns: list[Any] = ["method"]
  for score, way in (("insertion", "higher"), ("deletion", "lower")):
    columns += [
      elements.Column(f"{score}, {arms.TITLES[arm]}", way, digits=3)
      for arm in shown
    ]
  rows = [
    [
      name,
      *(found["insertion"][arm][name] for arm in shown),
      *(found["deletion"][arm][name] for arm in shown),
    ]
    for name in [*results["methods"], "mean"]
  ]
  return [
    faithfulness(results),
    elements.Table(
      columns,
      rows,
      caption="Probability that the dense network gives the class while pixels"
      " are inserted into a blurred image or deleted from the image, in the"
      " order of the map; area below the curve. Sparsities were tuned on"
      " images with patches.",
    ),
  ]


def ablation_plot(results: Mapping[str, Any], name: str) -> elements.Plot:
  """Draw what a choice of FastSPADE does to the pixel AUC.

  Args:
    results: The content of `results.json`.
    name: A key of its `ablations`.

  Returns:
    The plot.
  """
  rows, dense = results["ablations"][name], results["auc"]["dense"]
  quick = examiner.tuned_by(results["methods"])
  level = float(np.mean([elements.number(dense[n]["estimate"]) for n in quick]))
  areas = [elements.number(row["area"]["estimate"]) for row in rows]
  title = _CHOICES[name].capitalize()
  if np.isfinite(areas).any():
    title += f": highest at {rows[int(np.nanargmax(areas))]['value']:g}"
  series: dict[str, Any] = {
    "FastSPADE": elements.ends(row["area"] for row in rows)
  }
  values = [row["value"] for row in rows]
  figure = figures.lines_with_bands(
    values,
    series,
    title=title,
    xlabel=_CHOICES[name],
    ylabel="pixel AUC",
    scale="sparsity" if name == "sparsity" else "log",
    target=("dense", level),
  )
  if name != "sparsity":
    # What was tried, rather than powers of ten.
    figure.axes[0].set_xticks(values, [f"{value:g}" for value in values])
    figure.axes[0].minorticks_off()
  return elements.Plot(
    figure,
    alt=f"{title}; pixel AUC against {_CHOICES[name]}",
    caption=f"Mean of {', '.join(quick)}; the other choices as tuned. The"
    " band is the 95 % bootstrap interval; the dotted line is the dense"
    " network on all images.",
  )


def _trojans(results: Mapping[str, Any]) -> elements.Table:
  percent = lambda title: elements.Column(title, "%", digits=1, scale=100)
  rows = [[name, *shares] for name, shares in results["success"].items()]
  before = ["accuracy without Trojans", *(a[0] for a in results["accuracy"])]
  after = ["accuracy with Trojans", *(a[1] for a in results["accuracy"])]
  same = (
    [["called the same by both", *results["agreement"]]]
    if "agreement" in results
    else []
  )
  return elements.Table(
    ["", *(percent(f"seed {seed}") for seed in results["seeds"])],
    [
      "Clean test images",
      before,
      after,
      *same,
      "Stamped images called the class of the patch",
      *rows,
    ],
    caption="A Trojan has taken where the network obeys the patch and is about"
    " as accurate as before.",
  )


def provenance(
  results: Mapping[str, Any], config: Any = None
) -> dict[str, Any]:
  """Gather what a reader needs to repeat the study.

  Args:
    results: The content of `results.json`.
    config: The configuration, or None.

  Returns:
    Names to values.
  """
  tuned = {
    f"seed {seed}": {
      arm: str(chosen.get("rules", chosen.get("strength")))
      for arm, chosen in of_seed.items()
    }
    for seed, of_seed in zip(results["seeds"], results["tuned"], strict=True)
  }
  return origin.facts(results, config, seconds=results["seconds"], tuned=tuned)
