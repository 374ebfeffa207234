"""Nested facts of edited subjects, by the blocks that were trained."""

import numpy as np
import pytest

from effjax.studies.edit import nesting

NAMES = ("full", "full_layer0", "ia3")


@pytest.fixture
def values():
  """Three models, three arms, two rates, one edit for tuning and two others."""
  shape = 3, 3, 2, 3, 1, 2
  rng = np.random.default_rng(0)
  found = {
    name: rng.uniform(size=shape)
    for name in ("efficacy", "preservation", "set/edited")
  }
  found["score"] = np.zeros(shape)
  found["score"][:, :, 1] = 1.0  # the second rate is the best
  found["set/follow"] = np.full(shape, 0.25)
  found["set/stay"] = np.full(shape, 0.5)
  found["set/follow"][:, 0, 1, 1:, 0, -1] = [[0.7, 0.9], [0.8, 0.8], [0.9, 0.9]]
  # No subject of this edit had nested objects that differ.
  found["set/follow"][0, 1, 1, 1, 0, -1] = np.nan
  return found


def test_follow_is_measured_at_the_tuned_rate_of_reported_edits(values):
  full, block = nesting.table(NAMES, ("behemoth",), values, 1)
  assert (full["arm"], block["arm"]) == ("full", "full_layer0")
  assert full["follow"]["estimate"] == pytest.approx(2.5 / 3)
  half = 4.302652729911275 * np.std([0.8, 0.8, 0.9], ddof=1) / 3**0.5
  assert full["follow"]["high"] == pytest.approx(2.5 / 3 + half)
  assert block["follow"]["estimate"] == pytest.approx(0.25)
  assert block["other"]["estimate"] == pytest.approx(0.25)
  # Paired by edit: of the first model one edit only is defined.
  more = np.mean([0.25 - 0.9, 0.25 - 0.8, 0.25 - 0.9])
  assert block["more"]["estimate"] == pytest.approx(more)


def test_a_world_without_nested_objects_has_no_rows(values):
  del values["set/follow"]
  assert nesting.table(NAMES, ("behemoth",), values, 1) == []


def test_the_section_says_where_fewer_follow(values):
  rows = nesting.table(NAMES, ("behemoth",), values, 1)
  results = {
    "arms": [{"name": name, "title": name.title()} for name in NAMES],
    "nested": rows,
    "mixes": ["behemoth"],
    "seeds": [0, 1, 2],
    "reported": 2,
    "facts_edited": 4,
  }
  assert "fewer follow with Full_Layer0, mixed" in nesting.summary(
    results, {"behemoth": "mixed"}
  )
  section = nesting.section(results, {})
  assert section.title == "Facts that depend on edited ones"
