"""Decisions that flip: pictures on which dense and sparse models disagree."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax.studies import elements
from effjax.studies.bias.problems import Problem


def section(
  config: Any, problem: Problem, parts: Sequence[Any]
) -> elements.Section | None:
  """Show the pictures on which dense and sparse models disagree.

  Args:
    config: The configuration.
    problem: The data.
    parts: The stages, with the logits of their models.

  Returns:
    A section of a report; None where nothing is pruned while training, or where
    pictures may not be copied.
  """
  if config.data.name == "celeba" or len(problem.shape) == 1:
    return None  # terms of use: its pictures are not copied; a table has none
  models = [
    (member, test)
    for part in parts
    for member, test in zip(part.members, part.test, strict=True)
  ]
  pruned = [m.sparsity for m, _ in models if m.arm == "ri"]
  if not pruned:
    return None
  level = min(pruned, key=lambda s: abs(s - config.report.focus))
  mean = lambda arm, s: np.mean(
    [z for m, z in models if (m.arm, m.sparsity) == (arm, s)], axis=0
  )
  dense, sparse = mean("dense", 0.0), mean("ri", level)
  labels = problem.labels["test"]
  flipped = ((dense > 0) != (sparse > 0)) & ((dense > 0) == labels)
  # The surest right decisions that the sparse models overturn.
  sure = np.where(flipped, np.abs(dense), 0.0)
  best = sure.argmax(1)
  rows = np.argsort(-sure.max(1))[: config.report.gallery]
  rows = rows[sure.max(1)[rows] > 0]
  images = np.concatenate(list(problem.pictures("test", 1000)))
  word = lambda z: "yes" if z > 0 else "no"
  pictures = [
    elements.Picture(
      np.repeat(np.repeat(images[i].squeeze(), 3, 0), 3, 1),
      caption=f"{problem.attributes[a]}: {word(dense[i, a])} →"
      f" {word(sparse[i, a])}",
    )
    for i in rows
    for a in [best[i]]
  ]
  lost = flipped.sum()
  gained = (((dense > 0) != (sparse > 0)) & ((dense > 0) != labels)).sum()
  return elements.Section(
    "Decisions that flip",
    [
      f"At {100 * level:g} % sparsity (pruned while training) {lost:,} right"
      f" decisions of the dense models turn wrong and {gained:,} wrong ones"
      f" turn right, of {labels.size:,}. Below are the right ones of which the"
      " dense models were surest.",
      elements.Gallery(
        pictures,
        caption="Attribute: dense decision → sparse decision, logits averaged"
        " over seeds.",
      ),
    ],
  )
