"""The part of the report that says what was compared, and the limits."""

from typing import Any

from effjax.studies import elements


def section(results: dict[str, Any], small: int) -> elements.Section:
  """Describes data, groups, intended use and limits.

  Args:
    results: Of `audit`.
    small: Below how many samples a group is called small.

  Returns:
    A section.
  """
  partitions: dict[str, list[str]] = {}
  for group in results["groups"]:
    partitions.setdefault(group["partition"], []).append(
      f"{group['name']} {group['support']:,}"
    )
  attributes = results["attributes"]
  more = f" and {len(attributes) - 12} more" if len(attributes) > 12 else ""
  facts = {
    "compared": f"{results['kind']} of a compressed model with those of a dense"
    " one, row by row",
    "samples": f"{results['samples']:,}",
    "attributes": f"{len(attributes)}: {', '.join(attributes[:12])}{more}",
    "labels": "given" if results["labels"] else "not given",
    "training data": "given" if results["train"] else "not given",
  }
  facts |= {
    f"groups of {name}": ", ".join(parts) for name, parts in partitions.items()
  }
  parts: list[Any] = [elements.Facts(facts)]
  if results["notes"]:
    parts.append("\n".join(f"- {note}" for note in results["notes"]))
  if results["undefined"]:
    parts.append(
      elements.Table(
        ["what", "why it is undefined, or not all", "samples"],
        [[u["name"], u["reason"], u["count"]] for u in results["undefined"]],
        caption="What cannot be said",
      )
    )
  parts += [
    elements.Heading("What this page is for"),
    "To see, before a compressed model replaces a dense one, whether its"
    " decisions changed and for whom. It compares two sets of outputs on one"
    " set of samples; it does not say that the dense model is fair, nor that"
    " either is fit for a use.",
    elements.Heading("Limits"),
    "- One pair of models: training again with another seed changes decisions"
    " as well, which this page cannot tell from the effect of compression.\n"
    f"- Small groups (below {small} samples) have few errors; their intervals"
    " are too narrow and a change can remain unseen.\n"
    "- Many comparisons: intervals hold each for itself. Only the p-values of"
    " the table of pairs are corrected.\n"
    "- The largest of many gaps is too large on average: the worst pair will do"
    " better on new samples.\n"
    "- Groups overlap, and combinations of them are not shown; give such a"
    " combination as a column of its own.\n"
    "- Labels may be wrong more often in one group than in another.",
  ]
  return elements.Section("Card", parts)
