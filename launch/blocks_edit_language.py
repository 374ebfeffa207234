"""The block of README.md on edits of a language model."""

from collections.abc import Mapping
from typing import Any

from launch.cells import interval, origin


def table(results: Mapping[str, Any]) -> str:
  """Render the study of edits of a language model as Markdown.

  Args:
    results: The content of its `results.json`.

  Returns:
    What was found, its plot, a table of methods, and what falls short.
  """
  from effjax.studies.edit import language_page

  lines = [
    language_page.summary(results),
    "",
    *(
      f'<img src="launch/results/edit_smollm2_{quantity}.svg" width="60%"'
      ' alt="prompts answered as they should be, by method">'
      for quantity in results["plots"]
    ),
    "",
    "| method | learning rate | score | fact | likeliest | in other words |"
    " neighbours | neighbours still likeliest | perplexity, ratio | norm |"
    " rank | s |",
    f"|{'---|' * 12}",
  ]
  for row in results["table"]:
    rate = results["rates"].get(row["method"])
    shares = (
      "score",
      "efficacy",
      "likeliest",
      "paraphrases",
      "neighbours",
      "neighbours_kept",
    )
    cells = [
      language_page.TITLES[row["method"]],
      "" if rate is None else f"{rate:g}",
      *(interval(row[name], 2) for name in shares),
      interval(row["perplexity"], 3),
      interval(row["norm"], 2),
      interval({**row["rank"], "low": None}, 0),
      interval({**row["seconds"], "low": None}, 0),
    ]
    lines.append(f"| {' | '.join(cells)} |")
  lines += [
    "",
    f"Means over {results['facts']} facts, ± half of the 95 % interval of"
    " Student's t over facts, of the score by resampling them; seconds are wall"
    f" time, compilation included. Learning rates were chosen on"
    f" {results['tuning']} other facts. {origin(results)}",
    "",
    language_page.limits(results),
  ]
  return "\n".join(lines) + "\n"
