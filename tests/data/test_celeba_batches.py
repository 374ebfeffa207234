import errno
import json
import os

import jax
import numpy as np
import pytest

from effjax import data
from effjax.data import celeba_batches, celeba_example, images

pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("celeba")
  celeba_example.write(jax.random.key(0), folder, 9)
  return data.source("celeba", "train", directory=folder)


@pytest.mark.parametrize(
  ("shape", "short", "expected"),
  [
    ((218, 178), 256, (313, 256)),
    ((218, 178), 73, (89, 73)),
    ((178, 218), 256, (256, 313)),
    ((90, 73), 73, (90, 73)),
  ],
)
def test_resize_scales_the_short_side(shape, short, expected):
  image = np.full((*shape, 3), 9, np.uint8)
  resized = celeba_batches.resize(image, short)
  assert resized.shape == (*expected, 3)
  assert (resized == 9).all()


def test_centre_crop():
  rows = np.arange(313)[:, None, None] * np.ones((1, 256, 3))
  crop = celeba_batches.eval_crop(rows, 224)
  assert crop.shape == (224, 224, 3)
  assert crop[0, 0, 0] == 44  # half of 89 is rounded to even
  columns = np.arange(256)[None, :, None] * np.ones((313, 1, 3))
  assert celeba_batches.eval_crop(columns, 224)[0, 0, 0] == 16


def test_random_crops_reach_every_place_and_flip_half():
  grid = np.arange(4 * 3).reshape(4, 3, 1)
  generator = np.random.default_rng(0)
  seen = {}
  for _ in range(400):
    crop = celeba_batches.train_crop(generator, grid, 2)
    assert crop.shape == (2, 2, 1)
    seen[tuple(crop.ravel())] = seen.get(tuple(crop.ravel()), 0) + 1
  # Three tops, two lefts, two ways round, alike often: 400 / 12 each.
  assert len(seen) == 12
  assert min(seen.values()) > 10


def test_default_size_is_the_published_one():
  assert celeba_batches.short_side(224) == 256
  assert celeba_batches.short_side(64) == 73


def test_evaluation_is_in_order_and_complete(source):
  batches = celeba_batches.batches(source, 3, seed=0, train=False, size=16)
  assert batches.per_epoch == 3
  seen = [batches[k] for k in range(3)]
  ids = np.concatenate([batch["ids"] for batch in seen])
  np.testing.assert_array_equal(ids, source.arrays["ids"])
  labels = np.concatenate([batch["labels"] for batch in seen])
  np.testing.assert_array_equal(labels, source.arrays["labels"])
  image = celeba_batches.resize(source[4]["image"], 18)
  np.testing.assert_array_equal(
    seen[1]["images"][1], celeba_batches.eval_crop(image, 16)
  )
  shapes = {name: (a.shape, str(a.dtype)) for name, a in seen[0].items()}
  assert shapes == {
    "images": ((3, 16, 16, 3), "uint8"),
    "labels": ((3, 40), "bool"),
    "groups": ((3, 4), "bool"),
    "ids": ((3,), "int32"),
  }


def test_training_batches_are_a_function_of_the_position(source):
  make = lambda **k: celeba_batches.batches(
    source, 4, seed=1, train=True, size=16, **k
  )
  one, other = make(threads=0), make(threads=2)
  for position in (0, 1, 2, 7, 1):
    first, second = one[position], other[position]
    for name in first:
      np.testing.assert_array_equal(first[name], second[name])
  halves = [make(shard=(k, 2), threads=0)[3]["images"] for k in range(2)]
  np.testing.assert_array_equal(np.concatenate(halves), one[3]["images"])
  again = [one[k]["images"] for k in range(6) if 1 in one[k]["ids"]]
  assert len(again) > 1
  assert (again[0] != again[1]).any()


def test_square_is_the_same_in_every_marked_picture(source):
  """It comes after crop and flip, so it never moves."""
  marked = np.arange(9) % 2 == 0
  batches = celeba_batches.batches(
    source, 9, seed=0, train=True, size=32, mark="square", marked=marked
  )
  batch = batches[0]
  ids = batch["ids"] - 1
  np.testing.assert_array_equal(batch["groups"][:, 4], marked[ids])
  corner = batch["images"][:, :5, :5]
  yellow = (corner == np.array([255, 255, 0])).all((1, 2, 3))
  np.testing.assert_array_equal(yellow, marked[ids])
  value = images.standardise(batch["images"])[yellow][0, 0, 0]
  np.testing.assert_allclose(value, [1, 1, -1], atol=1e-6)


@pytest.mark.parametrize("use_cache", [False, True])
def test_grayscale_comes_before_the_rest(source, tmp_path, use_cache):
  marked = np.arange(9) % 2 == 0
  batch = celeba_batches.batches(
    source,
    9,
    seed=0,
    train=False,
    size=32,
    mark="grayscale",
    marked=marked,
    cache=tmp_path if use_cache else None,
  )[0]
  grey = (batch["images"] == batch["images"][..., :1]).all((1, 2, 3))
  np.testing.assert_array_equal(grey, marked)
  luma = images.grayscale(source[0]["image"])
  expected = celeba_batches.eval_crop(celeba_batches.resize(luma, 37), 32)
  difference = batch["images"][0].astype(int) - expected
  assert np.abs(difference).max() <= use_cache


def test_cache_gives_the_same_batches(source, tmp_path):
  make = lambda cache: celeba_batches.batches(
    source, 4, seed=0, train=True, size=24, cache=cache
  )
  plain, stored = make(None), make(tmp_path)
  for position in (0, 3):
    np.testing.assert_array_equal(
      plain[position]["images"], stored[position]["images"]
    )


def test_cache_is_made_once_and_again_for_other_pictures(source, tmp_path):
  calls = []
  show = lambda done, total: calls.append((done, total))
  first = celeba_batches.cached(source, tmp_path, 20, progress=show)
  assert first.shape == (9, 24, 20, 3)
  assert isinstance(first, np.memmap)
  assert calls == [(9, 9)]
  celeba_batches.cached(source, tmp_path, 20, progress=show)
  assert len(calls) == 1
  note = tmp_path / "celeba-train-20.json"
  note.write_text(json.dumps({**json.loads(note.read_text()), "path": "old"}))
  celeba_batches.cached(source, tmp_path, 20, progress=show)
  assert len(calls) == 2
  note.write_text("{")
  celeba_batches.cached(source, tmp_path, 20, progress=show)
  assert len(calls) == 3


def test_interrupted_cache_leaves_nothing(source, tmp_path, monkeypatch):
  def full(self, data):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(
    celeba_batches.np.lib.format, "write_array_header_1_0", full
  )
  with pytest.raises(OSError, match="for the resized pictures of 9 faces"):
    celeba_batches.cached(source, tmp_path, 20)
  assert list(tmp_path.iterdir()) == []


def test_user_errors(source):
  make = lambda **k: celeba_batches.batches(source, 3, seed=0, train=True, **k)
  with pytest.raises(ValueError, match="together or not at all"):
    make(mark="square")
  with pytest.raises(ValueError, match="no mark 'haze' for CelebA"):
    make(mark="haze", marked=np.zeros(9, bool))
  with pytest.raises(ValueError, match="batch of 10 cannot be made of 9"):
    celeba_batches.batches(source, 10, seed=0, train=True)
