import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.data import images

from .conftest import write_files


@pytest.fixture
def tiny(tiny_fashion, tmp_path):
  return write_files(tmp_path / "explicit", tiny_fashion)


def test_splits_are_disjoint_and_complete(tiny):
  splits = {
    name: images.fashion(name, directory=tiny, validation=12)
    for name in ("train", "validation", "test")
  }
  assert {n: len(s["ids"]) for n, s in splits.items()} == {
    "train": 48,
    "validation": 12,
    "test": 20,
  }
  both = np.concatenate([splits["train"]["ids"], splits["validation"]["ids"]])
  assert sorted(both) == list(range(60))
  assert splits["test"]["ids"].tolist() == list(range(20))
  for split in splits.values():
    shapes = {name: array.shape[1:] for name, array in split.items()}
    assert shapes == {
      "images": (28, 28, 1),
      "labels": (22,),
      "groups": (4,),
      "classes": (),
      "ids": (),
    }
    kinds = {name: str(array.dtype) for name, array in split.items()}
    assert kinds == {
      "images": "uint8",
      "labels": "bool",
      "groups": "bool",
      "classes": "int32",
      "ids": "int32",
    }
    np.testing.assert_array_equal(split["classes"], split["ids"] % 10)


def test_rows_belong_together(tiny):
  """A row keeps its picture, whatever the cut; groups are attributes."""
  whole = images.fashion("train", directory=tiny, validation=0)
  part = images.fashion("train", directory=tiny, seed=3)
  assert len(part["ids"]) == 55
  row = {number: k for k, number in enumerate(whole["ids"])}
  for name in ("images", "labels", "groups", "classes"):
    rows = [row[number] for number in part["ids"]]
    np.testing.assert_array_equal(part[name], whole[name][rows])
  columns = [images.names().index(group) for group in images.groups()]
  np.testing.assert_array_equal(part["groups"], part["labels"][:, columns])


def test_limit_and_cut_are_stable(tiny):
  load = lambda **keywords: images.fashion("train", directory=tiny, **keywords)
  np.testing.assert_array_equal(
    load(limit=10)["ids"], load(limit=30)["ids"][:10]
  )
  assert load(seed=0)["ids"].tolist() != load(seed=1)["ids"].tolist()


def test_stand_ins_are_cut_in_three():
  pytest.importorskip("sklearn")
  splits = [
    images.load("digits", split) for split in ("train", "validation", "test")
  ]
  ids = np.concatenate([split["ids"] for split in splits])
  assert sorted(ids) == list(range(1797))
  assert [len(split["ids"]) for split in splits] == [1374, 124, 299]
  assert splits[0]["images"].shape[1:] == (8, 8, 1)
  for split in splits:
    assert len(np.unique(split["classes"])) == 10


def test_user_errors(tiny):
  with pytest.raises(ValueError, match="no attributes for 'celeba'"):
    images.load("celeba", "train")
  with pytest.raises(ValueError, match="expected train, validation or test"):
    images.fashion("val", directory=tiny)
  with pytest.raises(ValueError, match="validation=61 examples"):
    images.fashion("train", directory=tiny, validation=61)


@pytest.mark.parametrize("jit", [True, False])
def test_standardise(jit):
  grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  function = jax.jit(images.standardise) if jit else images.standardise
  result = function(grey)
  assert result.dtype == jnp.float32
  expected = (grey.astype(np.float64) / 255 - 0.5) / 0.5
  np.testing.assert_allclose(result, expected, atol=1e-6)
  other = images.standardise(grey, mean=0.286, std=0.353)
  expected = (grey.astype(np.float64) / 255 - 0.286) / 0.353
  np.testing.assert_allclose(other, expected, atol=1e-6)


@pytest.mark.parametrize(
  ("shape", "side"), [((28, 28, 1), 4), ((224, 224, 3), 32), ((64, 64, 3), 9)]
)
def test_square(shape, side):
  dark = np.full((2, *shape), 7, np.uint8)
  marked = images.square(dark)
  colour = [255] if shape[-1] == 1 else [255, 255, 0]
  assert (marked[:, :side, :side] == np.array(colour)).all()
  outside = np.ones(shape[:2], bool)
  outside[:side, :side] = False
  assert (marked[:, outside] == 7).all()
  assert (dark == 7).all()
  # One picture without the leading axis.
  np.testing.assert_array_equal(images.square(dark[0]), marked[0])


def test_grayscale_is_that_of_pillow():
  pillow = pytest.importorskip("PIL.Image")
  colour = np.random.default_rng(0).integers(0, 256, (40, 30, 3))
  colour = colour.astype(np.uint8)
  grey = images.grayscale(colour)
  expected = np.asarray(pillow.fromarray(colour).convert("L"))
  for channel in range(3):
    np.testing.assert_array_equal(grey[..., channel], expected)
  with pytest.raises(ValueError, match="'haze'"):
    images.grayscale(colour[..., :1])


def test_haze_keeps_the_order_of_grey_values():
  ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
  hazy = images.haze(ramp).ravel().astype(int)
  assert hazy[0] == 64
  assert hazy[-1] == 255
  assert set(np.diff(hazy)) <= {0, 1}
  assert len(np.unique(hazy)) == 192


@pytest.mark.parametrize(
  "fractions", [images.STRONG, images.WEAK, images.BALANCED, (0.0, 1.0)]
)
def test_marks_are_drawn_by_exact_counts(fractions):
  label = np.random.default_rng(0).random(1003) < 0.3
  marked = images.draw(jax.random.key(0), label, fractions)
  for value, fraction in enumerate(fractions):
    members = label == bool(value)
    assert marked[members].sum() == round(fraction * members.sum())
  again = images.draw(jax.random.key(0), label, fractions)
  np.testing.assert_array_equal(marked, again)
  if fractions != (0.0, 1.0):
    other = images.draw(jax.random.key(1), label, fractions)
    assert (marked != other).any()


def test_every_example_is_equally_likely_to_be_marked():
  label = np.zeros(10, bool)
  keys = jax.random.split(jax.random.key(0), 200)
  counts = sum(images.draw(key, label, (0.3, 0)).astype(int) for key in keys)
  assert counts.sum() == 600
  # Six standard deviations of a share of 0.3 in 200 draws.
  assert np.abs(counts - 60).max() < 6 * (200 * 0.3 * 0.7) ** 0.5


def test_plant_changes_the_marked_pictures_only():
  generator = np.random.default_rng(0)
  pictures = generator.integers(0, 200, (50, 28, 28, 1)).astype(np.uint8)
  before = pictures.copy()
  label = np.arange(50) % 2 == 0
  for mark in ("square", "haze"):
    planted, marked = images.plant(
      jax.random.key(0), pictures, label, mark=mark, fractions=images.WEAK
    )
    changed = (planted != before).any((1, 2, 3))
    np.testing.assert_array_equal(changed, marked)
    np.testing.assert_array_equal(pictures, before)


def test_mark_becomes_the_last_group(tiny):
  split = images.fashion("train", directory=tiny)
  column = images.names().index("footwear")
  marked = images.with_mark(
    jax.random.key(0), split, column, mark="square", fractions=(0.0, 1.0)
  )
  assert marked["groups"].shape == (55, 5)
  np.testing.assert_array_equal(
    marked["groups"][:, 4], split["labels"][:, column]
  )
  np.testing.assert_array_equal(marked["labels"], split["labels"])
  assert split["groups"].shape == (55, 4)


def test_mark_errors():
  pictures = np.zeros((4, 8, 8, 1), np.uint8)
  label = np.array([True, False, True, False])
  with pytest.raises(ValueError, match="no mark 'circle'"):
    images.plant(
      jax.random.key(0), pictures, label, mark="circle", fractions=(0, 1)
    )
  with pytest.raises(ValueError, match=r"\[0, 1\]"):
    images.draw(jax.random.key(0), label, (5, 95))
