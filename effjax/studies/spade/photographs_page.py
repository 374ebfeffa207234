"""What the report of the study of traces says of few photographs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from effjax.studies import elements


def few_photographs(results: Mapping[str, Any]) -> str:
  """Say how few photographs are behind the numbers.

  Args:
    results: The content of `results.json`, with `photographs`.

  Returns:
    Sentences.
  """
  found = results["photographs"]
  judged = np.array(found["judged"]) > 0
  names = [found["names"][i] for i in np.flatnonzero(np.any(judged, axis=0))]
  each = "".join(
    f", {np.sum(row)} by seed {seed}"
    for seed, row in zip(results["seeds"], judged, strict=True)
    if len(judged) > 1
  )
  return (
    f"Few photographs are behind these numbers: {len(names)} of"
    f" {len(found['names'])}{each}; of them {results['images']} random crops"
    f" of {found['side']} pixels for each network. They show"
    f" {', '.join(names)}. Intervals draw networks and then crops, as if no two"
    " crops were of one photograph: for other photographs they are too narrow."
  )


_MARKS = {"train": "taught", "validation": "tuned", "test": "test"}


def sections(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the section on the photographs.

  Args:
    results: The content of `results.json`.

  Returns:
    The section, or nothing where images are many.
  """
  if "photographs" not in results:
    return []
  found = results["photographs"]
  rows = []
  for number, name in enumerate(found["names"]):
    cells = []
    for parts, judged in zip(found["parts"], found["judged"], strict=True):
      (part,) = (p for p, ids in parts.items() if number in ids)
      crops = f", {judged[number]} crops" if part == "test" else ""
      cells.append(f"{_MARKS[part]}{crops}")
    rows.append([f"{number}: {name}", *cells])
  targets = ", ".join(f"{n} is {name}" for n, name in found["targets"].items())
  table = elements.Table(
    ["photograph", *(f"seed {seed}" for seed in results["seeds"])],
    rows,
    caption="What became of each photograph: the network was taught with it,"
    " sparsities were tuned on it, or it was tested on; then with the crops"
    " with patches that maps are judged on, of those that the network knows"
    f" without a patch. There were {found['crops']} crops of each to choose"
    f" from. Of the classes of patches, {targets}.",
  )
  return [
    elements.Section("The photographs", [few_photographs(results), table])
  ]
