"""Photographs are divided without overlap, and cut into crops of themselves."""

import jax
import ml_collections
import numpy as np
import pytest

from effjax.studies.spade import crops, trojans
from effjax.studies.spade.patches import Patch

KEY = jax.random.key(0)
SIZES = {"test": 6, "validation": 3}


def test_no_photograph_is_in_two_parts():
  for seed in range(5):
    parts = crops.split(seed, 20, SIZES)
    assert {p: len(ids) for p, ids in parts.items()} == SIZES | {"train": 11}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(20))


def test_seeds_that_follow_each_other_test_on_different_photographs():
  tested = [crops.split(seed, 20, SIZES)["test"].tolist() for seed in range(4)]
  assert len(set().union(*tested[:3])) == 18
  # The fourth has no more than two left, and begins again.
  assert len(set(tested[3]) - set(tested[0])) == 2
  again = crops.split(0, 20, SIZES)["test"].tolist()
  assert again == tested[0] != sorted(again)


def test_parts_that_do_not_fit_are_named():
  with pytest.raises(ValueError, match="leave none of 9 to train on"):
    crops.split(0, 9, SIZES)
  with pytest.raises(ValueError, match="or hold none"):
    crops.split(0, 9, {"test": 2, "validation": 0})


@pytest.fixture(scope="module")
def pictures():
  """Even colours, and one that grows brighter to the right."""
  ramp = np.broadcast_to(np.arange(0, 240, 10, np.uint8)[:, None], (9, 24, 3))
  return [np.full((6, 8, 3), 40, np.uint8), np.array(ramp)]


def test_crops_are_of_their_photograph(pictures):
  pytest.importorskip("PIL.Image")
  options = dict(each=8, side=10, least_area=0.3)
  ids = np.array([1, 0])
  found = crops.cut(KEY, pictures, np.array([7, 3]), ids, **options)
  assert found["images"].shape == (16, 10, 10, 3)
  assert found["images"].dtype == np.uint8
  assert found["ids"].tolist() == [1] * 8 + [0] * 8
  assert found["classes"].tolist() == [3] * 8 + [7] * 8
  assert set(np.unique(found["images"][8:])) == {40}
  ramps = found["images"][:8].astype(int)
  slopes = ramps[:, :, -1, 0] - ramps[:, :, 0, 0]
  assert {-1, 1} == set(np.sign(slopes[:, 0]).tolist())  # some are mirrored
  # The width of a crop is at least that of the least area and aspect.
  assert np.all(abs(slopes[:, 0]) > 0.3 * 230 * 0.75)
  assert len(np.unique(slopes[:, 0])) > 4
  # A photograph has the same crops whichever go with it.
  alone = crops.cut(KEY, pictures, np.array([7, 3]), ids[:1], **options)
  np.testing.assert_array_equal(alone["images"], found["images"][:8])


def test_results_tell_which_photographs_are_behind_them():
  config = ml_collections.ConfigDict(
    dict(photographs=dict(validation=1, test=2), crops=8, side=10)
  )
  ids = crops.split(1, 5, {"test": 2, "validation": 1})["test"]
  outcome = {"seed": 1, "ids": [int(ids[1])] * 3}
  told = crops.told("abcde", {9: "zebra"}, config, [outcome])
  assert told["names"] == list("abcde")
  assert told["targets"] == {"9": "zebra"}
  (judged,), (parts,) = told["judged"], told["parts"]
  assert judged[ids[1]] == 3 == sum(judged)
  assert parts["test"] == ids.tolist()
  assert sorted(n for part in parts.values() for n in part) == list(range(5))


def test_photographs_take_turns():
  rows = np.array([5, 0, 3, 1, 4, 2])
  ids = np.array([9, 9, 9, 4, 4, 6])
  assert trojans.in_turns(rows, ids).tolist() == [5, 0, 3, 1, 4, 2]
  ids = np.array([9, 9, 6, 4, 9, 9])
  assert trojans.in_turns(rows, ids).tolist() == [5, 3, 2, 0, 1, 4]
  # Nothing changes where every image is an example of its own.
  assert trojans.in_turns(rows, np.arange(6)[::-1]).tolist() == rows.tolist()
  images = np.zeros((40, 5, 5, 1), np.uint8)
  test = {
    "images": images,
    "classes": np.zeros(40, int),
    "ids": np.repeat([0, 1], [36, 4]),
  }
  answer = lambda x: x.max(axis=(1, 2, 3)) // 255  # a stamp is of class 1
  found = trojans.flip(
    np.random.default_rng(0), answer, test, [Patch("ring", 3, 1)], each=6
  )
  assert found.ids.tolist() == [0, 1] * 3 or found.ids.tolist() == [1, 0] * 3
