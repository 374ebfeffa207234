"""What is told of edits by load."""

import numpy as np
import pytest

from effjax.studies.edit import findings, load_page
from launch import blocks

NAMES = ["full", "full_mlp", "lora1"]


def measures(gap):
  """Two models whose low rank is better by a gap, three edits, two mixes."""
  shape = 2, 3, 2, 3, 2, 1
  found = {k: np.full(shape, 0.5) for k in ("efficacy", "preservation")}
  found["score"] = np.full(shape, 0.5)
  found["score"][:, 2] += (
    gap + np.array([0.0, 0.001])[:, None, None, None, None]
  )
  return found


@pytest.fixture
def results():
  mixes = ["behemoth", "edit_only"]
  return {
    "arms": [{"name": n, "title": n.upper()} for n in NAMES],
    "mixes": mixes,
    "seeds": [0, 1],
    "rates": [1e-3, 1e-2],
    "grid": [1e-3, 1e-2],
    "reported": 2,
    "facts_edited": 5,
    "loads": [
      {
        "subjects": count,
        "density": density,
        "rates": [1e-3, 1e-2],
        "families": ["S-O"],
        "pretrained": [{"seed": 0, "recall": {"S-O": 1.0, "rso": 0.3}}],
        "table": findings.table(NAMES, mixes, measures(gap), 1),
        "claims": findings.claims(NAMES, mixes, measures(gap), 1),
      }
      for count, density, gap in ((75, 0.05, -0.2), (750, 0.5, 0.3))
    ],
    "plots": ["rank", "blocks"],
    "command": "python -m launch.run",
    "date": "2026-01-01",
    "machine": "2 cores",
    "packages": {"jax": "0"},
  }


def test_the_summary_says_at_which_loads_a_claim_holds(results):
  text = load_page.summary(results)
  assert "**reproduced** at 0.5; **not reproduced** at 0.05" in text
  assert "**inconclusive** at 0.05, 0.5" in text  # blocks are alike


def test_the_plot_and_the_tables_have_every_load(results):
  plot = load_page.plot(results, "rank")
  (axes,) = plot.figure.axes
  lines = [
    line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 2
  ]
  assert any(np.allclose(y, [-0.1995, 0.3005]) for y in lines)
  by_load, arms, before = load_page.from_results(results)
  assert before.elements[0].rows[0][-1] == 1.0
  assert len(by_load.elements) == 4
  assert len(arms.elements) == 2


def test_the_block_has_a_column_for_each_load(results):
  text = blocks.BLOCKS["edit_load"](results)
  head = next(line for line in text.splitlines() if line.startswith("| beside"))
  assert head.endswith("| 0.05 bits | 0.5 bits |")
  assert "0.300 ± 0.006 (LORA1)" in text
