import jax
import ml_collections
import numpy as np
import pytest

from configs.bias import celeba_resnet18, fashion
from effjax.data import celeba_example, images, registry
from effjax.studies.bias import problems
from tests.studies.bias import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("fashion")
  tiny.write(folder)
  return folder


@pytest.fixture
def fashion_data(folder, monkeypatch):
  declared = tiny.declared(folder)
  monkeypatch.setitem(registry.SOURCES, "fashion_mnist", declared)
  config = fashion.get_config("quick").data
  config.directory, config.validation = str(folder), 60
  return config


def test_fashion_problem(fashion_data):
  problem = problems.load(fashion_data)
  sizes = {"train": 240, "validation": 60, "test": 120}
  assert len(problem.attributes) >= 16
  assert problem.groups[-2:] == ("mark_square", "mark_haze")
  assert problem.marked == {
    "mark_square": "covers_legs",
    "mark_haze": "patterned",
  }
  assert problem.shape == (28, 28, 1)
  for split, size in sizes.items():
    assert problem.labels[split].shape == (size, len(problem.attributes))
    assert problem.memberships[split].shape == (size, len(problem.groups))
    whole = np.concatenate(list(problem.pictures(split, 50)))
    assert whole.shape == (size, 28, 28, 1)
    assert whole.dtype == np.uint8
  assert problem.provenance["name"] == "fashion_mnist"


def test_marks_are_skewed_in_training_only(fashion_data):
  problem = problems.load(fashion_data)
  column = problem.attributes.index("covers_legs")
  group = problem.groups.index("mark_square")
  for split, (low, high) in (
    ("train", images.STRONG),
    ("validation", images.BALANCED),
    ("test", images.BALANCED),
  ):
    has, marked = (
      problem.labels[split][:, column],
      problem.memberships[split][:, group],
    )
    assert marked[has].mean() == pytest.approx(high, abs=0.05)
    assert marked[~has].mean() == pytest.approx(low, abs=0.05)
    pictures = np.concatenate(list(problem.pictures(split, 7)))
    corner = pictures[:, :4, :4, 0].min((1, 2))
    assert (corner[marked] >= 250).all()
    assert (corner[~marked] < 250).all()


def test_batches_follow_the_seed(fashion_data):
  problem = problems.load(fashion_data)
  first, again, other = (problem.train(seed, 32) for seed in (0, 0, 1))
  assert first.per_epoch == 240 // 32
  assert set(first[0]) == {"images", "labels"}
  np.testing.assert_array_equal(first[3]["images"], again[3]["images"])
  assert (first[3]["images"] != other[3]["images"]).any()
  assert first[0]["labels"].shape == (32, len(problem.attributes))


def test_limits(fashion_data):
  fashion_data.limit, fashion_data.test_limit = 100, 40
  problem = problems.load(fashion_data)
  assert len(problem.labels["train"]) == 100
  assert len(problem.labels["test"]) == 40


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"attribute": "covers_leg"}, "no attribute 'covers_leg'.*covers_legs"),
    ({"skew": "strongest"}, "no skew 'strongest'.*strong or weak"),
    ({"mark": "cross"}, "no mark 'cross'"),
  ],
)
def test_marks_that_do_not_exist(fashion_data, change, message):
  mark = {"attribute": "covers_legs", "mark": "square", "skew": "strong"}
  fashion_data.marks = (ml_collections.ConfigDict(mark | change),)
  with pytest.raises(ValueError, match=message):
    problems.load(fashion_data)


def test_absent_data_is_named(fashion_data, tmp_path):
  fashion_data.directory = str(tmp_path)
  with pytest.raises(FileNotFoundError, match="fashion_mnist"):
    problems.load(fashion_data)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
  pytest.importorskip("PIL")
  folder = tmp_path_factory.mktemp("celeba")
  celeba_example.write(jax.random.key(0), folder, 11)
  return folder


@pytest.fixture
def celeba_data(faces):
  config = celeba_resnet18.get_config("quick,size=16").data
  config.directory = str(faces)
  return config


def test_celeba_problem(celeba_data):
  problem = problems.load(celeba_data)
  assert len(problem.attributes) == 40
  assert problem.groups == ("Male", "Young", "Chubby", "Pale_Skin")
  assert problem.shape == (16, 16, 3)
  whole = list(problem.pictures("test", 4))
  assert [len(batch) for batch in whole] == [4, 4, 3]
  larger = list(problem.pictures("test", 32))
  assert [len(batch) for batch in larger] == [11]
  np.testing.assert_array_equal(np.concatenate(whole), larger[0])
  assert set(problem.train(0, 5)[0]) == {"images", "labels"}


def test_celeba_limits_take_the_first(celeba_data):
  whole = problems.load(celeba_data)
  celeba_data.limit, celeba_data.validation, celeba_data.test_limit = 6, 5, 4
  problem = problems.load(celeba_data)
  for split, size in (("train", 6), ("validation", 5), ("test", 4)):
    np.testing.assert_array_equal(
      problem.labels[split], whole.labels[split][:size]
    )
    assert problem.memberships[split].shape == (size, 4)
  (few,) = problem.pictures("test", 32)
  (many,) = whole.pictures("test", 32)
  np.testing.assert_array_equal(few, many[:4])
  assert problem.train(0, 3).per_epoch == 2


def test_celeba_takes_one_mark(celeba_data):
  mark = {"attribute": "Blond_Hair", "mark": "square", "skew": "strong"}
  celeba_data.marks = (ml_collections.ConfigDict(mark),)
  problem = problems.load(celeba_data)
  assert problem.groups[-1] == "mark_square"
  assert problem.memberships["train"].shape == (11, 5)
  marked = problem.memberships["test"][:, -1]
  (pictures,) = problem.pictures("test", 11)
  yellow = (pictures[:, :2, :2] == [255, 255, 0]).all((1, 2, 3))
  np.testing.assert_array_equal(yellow, marked)
  celeba_data.marks = (ml_collections.ConfigDict(mark),) * 2
  with pytest.raises(ValueError, match="one planted mark"):
    problems.load(celeba_data)
