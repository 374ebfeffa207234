"""README.md says what the committed results say."""

import json
import re

import pytest

from launch import blocks, readme
from tests.studies.spade import small


def test_the_blocks_are_up_to_date():
  text = (readme.ROOT / "README.md").read_text("utf-8")
  assert readme.fill(text, readme.RESULTS) == text, (
    "run python -m launch.readme"
  )


def test_every_block_has_a_place():
  text = (readme.ROOT / "README.md").read_text("utf-8")
  for name in blocks.BLOCKS:
    assert f"<!-- begin {name} -->" in text
    assert f"<!-- end {name} -->" in text


def test_every_file_and_config_that_is_named_exists():
  text = (readme.ROOT / "README.md").read_text("utf-8")
  named = re.findall(r"(?:configs|launch|colabs)/[\w/]+\.(?:py|sh|ipynb)", text)
  assert named
  for path in named:
    assert (readme.ROOT / path).exists(), path


def test_fill_replaces_a_block_and_nothing_else(tmp_path):
  case = {
    "name": "mask",
    "note": "",
    "limit": "30 ms",
    "rounds": 3,
    "candidates": {
      "ours": {
        clock: {"median": 0.1, "min": 0.09, "max": 0.2}
        for clock in ("wall", "cpu")
      },
      "peer": {
        clock: {"median": 1.0, "min": 0.9, "max": 2.0}
        for clock in ("wall", "cpu")
      },
    },
  }
  measured = {
    "limits": {"read_gb_per_s": 10.0, "gemm_gflop_per_s": 100.0},
    "versions": {"jax": "0.10"},
    "load_before": 0.1,
  }
  later = measured | {"versions": {"jax": "0.11"}}
  bench = {
    "suites": {
      "masks": {"measured": measured, "cases": [case]},
      "solvers": {"measured": later, "cases": [case]},
      "traces": {
        "measured": measured,
        "cases": [case | {"name": "trace", "flops": 2e9}],
      },
    }
  }
  (tmp_path / "bench.json").write_text(json.dumps(bench))
  text = "a\n<!-- begin bench -->\nold\n<!-- end bench -->\nb\n"
  filled = readme.fill(text, tmp_path)
  assert filled.startswith("a\n<!-- begin bench -->\n| case")
  assert filled.endswith("<!-- end bench -->\nb\n")
  assert "old" not in filled
  assert "| peer | 1000 (900 to 2000) | 1000 (900 to 2000) | 10.00 |" in filled
  assert "- mask: 30 ms\n" in filled
  # 2 GFLOP in .1 s, where 100 a second are possible.
  assert "- trace: 30 ms; ours reaches 20 % of the rate of products" in filled
  assert "\nmasks, traces: jax 0.10; read 10.0 GB/s" in filled
  assert "\nsolvers: jax 0.11; read 10.0 GB/s" in filled


def test_the_block_of_spade_says_what_was_found():
  results = small.results() | {
    "plots": ["differences", "sparsity"],
    "command": "python -m launch.run --config=c",
    "date": "2026-01-01",
    "machine": "2 cpu cores",
    "packages": {"jax": "0.10"},
  }
  text = blocks.spade_table(results)
  assert "launch/results/spade_fashion_sparsity.svg" in text
  assert "| pixel AUC | dense | FastSPADE | random |" in text
  assert "| mean | 0.800 ± 0.010 | 0.850 ± 0.010 | 0.600 ± 0.010 |" in text
  assert "+0.050 (+0.040 to +0.060): **reproduced**" in text
  assert "it helps 1 and harms 1 beyond chance" in text
  assert "turn 75 % of stamped test images" in text
  assert "deletion curve (lower is better) by -0.010 (-0.020 to +0.000)" in text
  assert "`python -m launch.run --config=c` (2026-01-01," in text
  undefined = blocks.spade_table(small.without_numbers(results))
  assert "| mean | – | – | – |" in undefined


def test_a_run_of_spade_is_taken_with_its_plots(tmp_path, monkeypatch):
  monkeypatch.setattr(readme, "RESULTS", tmp_path / "kept")
  monkeypatch.setitem(readme._PLOTS, "spade_fashion", ("differences", "copies"))
  results = small.results()
  (tmp_path / "results.json").write_text(json.dumps(results))
  readme.take("spade_fashion", tmp_path)
  found = {path.name for path in (tmp_path / "kept").iterdir()}
  assert found == {
    "spade_fashion.json",
    "spade_fashion_copies.svg",
    "spade_fashion_differences.svg",
  }
  kept = json.loads((tmp_path / "kept" / "spade_fashion.json").read_text())
  assert kept["plots"] == ["differences", "copies"]
  assert kept["command"] == "python -m launch.run --config=c --workdir=w"
  assert blocks.spade_table(kept)


@pytest.mark.slow
def test_the_example_of_spade_runs():
  text = (readme.ROOT / "README.md").read_text("utf-8")
  _, _, section = text.partition("\n## SPADE")
  code = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)
  found = {}
  exec(code, found)
  assert found["dense_map"].shape == found["traced_map"].shape
  assert not (found["dense_map"] == found["traced_map"]).all()
