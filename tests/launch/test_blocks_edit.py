"""The blocks of README.md on edits say what the results say."""

import json

import pytest

from launch import blocks, readme

NAMES = ("edit", "edit_nested")


@pytest.fixture(params=NAMES)
def published(request):
  path = readme.RESULTS / f"{request.param}.json"
  return request.param, json.loads(path.read_text("utf-8"))


def test_every_arm_claim_and_level_has_a_row(published):
  name, results = published
  text = blocks.BLOCKS[name](results)
  for arm in results["arms"]:
    assert f"\n| {arm['title']} |" in text
  for claim in results["claims"]:
    assert f"| {claim['text']} |" in text
    assert f"**{claim['result']}**: " in text
  for level in results["interplay"]["levels"]:
    assert f"\n| {level['level']} |" in text
  assert ("S-NO follow" in text) == bool(results["nested"])
  assert f"`{results['command']}`" in text


def test_what_is_not_defined_is_a_dash(published):
  name, results = published
  rows = [
    line
    for line in blocks.BLOCKS[name](results).splitlines()
    if line.startswith("| nf4 |")
  ]
  # Full fine-tuning keeps no base in few bits.
  assert [row.count("–") for row in rows] == [2]
  assert not any("nan" in row or "None" in row for row in rows)
