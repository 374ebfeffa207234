"""README.md says what the committed results say."""

import json
import re

from launch import blocks, readme


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
  bench = {
    "suites": {"masks": [case]},
    "limits": {"read_gb_per_s": 10.0, "gemm_gflop_per_s": 100.0},
    "versions": {"jax": "0.10"},
    "load_before": 0.1,
  }
  (tmp_path / "bench.json").write_text(json.dumps(bench))
  text = "a\n<!-- begin bench -->\nold\n<!-- end bench -->\nb\n"
  filled = readme.fill(text, tmp_path)
  assert filled.startswith("a\n<!-- begin bench -->\n| case")
  assert filled.endswith("<!-- end bench -->\nb\n")
  assert "old" not in filled
  assert "| peer | 1000 (900 to 2000) | 1000 (900 to 2000) | 10.00 |" in filled
  assert "- mask: 30 ms" in filled
