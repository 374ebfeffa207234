"""The block of README.md on edits of a language model."""

import matplotlib.pyplot as plt

from effjax.studies.edit import language_findings, language_page
from launch import blocks_edit_language


def made():
  values = dict.fromkeys(language_findings.MEASURES, 1.0) | {"rank": 576}
  cases = [
    {"method": m, "prompt": str(i), **values, "efficacy": success}
    for m, success in (("rome", 1.0), ("ft", 0.5))
    for i in range(3)
  ]
  cases[-1] = {"method": "ft", "prompt": "2", "failed": "it diverged"}
  results = language_findings.gather(("rome", "ft"), cases)
  return {
    **results,
    "model": "smollm2",
    "facts": 3,
    "tuning": 2,
    "layer": 9,
    "not_known": ["x"],
    "rates": {"ft": 1e-3},
    "tried": {
      "ft": [{"rate": 1e-3, "score": 0.5}, {"rate": 1e-2, "score": 0.4}]
    },
    "examples": [
      {
        "prompt": "a",
        "old": "b",
        "new": "c",
        "before": {"a": "b"},
        "after": {"rome": {"a": "c"}},
      }
    ],
    "plots": ["methods"],
    "command": "python",
    "date": "2026-11-27",
    "machine": "2 cpu cores",
    "packages": {"jax": "0.10.2"},
  }


def test_a_row_for_every_method():
  text = blocks_edit_language.table(made())
  rows = [line for line in text.splitlines() if line.startswith("|")]
  assert len(rows) == 4
  assert len({row.count("|") for row in rows}) == 1
  assert rows[2].startswith("| ROME |  | 1.00 ± 0.00 |")
  assert rows[3].startswith("| FT | 0.001 |")
  assert "is highest by **ROME: 1.000**. It is beyond chance above FT" in text
  assert "1 edit failed" in text
  # A rate at the edge is told.
  assert "The learning rate of FT is at the edge" in text


def test_the_sections_of_the_report():
  sections = language_page.from_results(made())
  assert [s.title for s in sections][-1] == "What falls short"
  plt.close("all")
