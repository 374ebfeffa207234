"""A generated directory in the format of Animals with Attributes 2."""

import numpy as np
import pytest

from effjax import data
from effjax.data import animals, celeba_batches, sources

CLASSES = ("grizzly+bear", "antelope", "zebra", "bat")
TRAITS = ("black", "stripes", "flies")
MATRIX = ((1, 0, 0), (0, 0, 0), (1, 1, 0), (1, 0, 1))
TRAIN, TEST = ("antelope", "bat", "grizzly+bear"), ("zebra",)
COUNT = 8


def write(folder, **lists):
  """Write the directory; a list may be given another text."""
  image = pytest.importorskip("PIL.Image")
  texts = {
    "classes.txt": "".join(f"{i:6d}\t{n}\n" for i, n in enumerate(CLASSES, 1)),
    "predicates.txt": "".join(
      f"{i:6d}\t{n}\n" for i, n in enumerate(TRAITS, 1)
    ),
    "predicate-matrix-binary.txt": "".join(
      " ".join(map(str, row)) + "\n" for row in MATRIX
    ),
    "trainclasses.txt": "\n".join(TRAIN) + "\n",
    "testclasses.txt": "\n".join(TEST) + "\n",
    **lists,
  }
  folder.mkdir(parents=True)
  for name, text in texts.items():
    (folder / name).write_text(text)
  generator = np.random.default_rng(0)
  for number, name in enumerate(CLASSES):
    (folder / "JPEGImages" / name).mkdir(parents=True)
    for i in range(COUNT):
      shape = (40 + 7 * i, 50 + 3 * number, 3)
      pixels = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
      picture = image.fromarray(pixels).resize(shape[1::-1])
      if i == 0:
        picture = picture.convert("L")  # some of the real ones are grey
      picture.save(folder / "JPEGImages" / name / f"{name}_{10001 + i}.jpg")
  return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return write(tmp_path_factory.mktemp("animals") / "awa2")


def test_splits_and_their_labels(folder):
  splits = {s: data.source("awa2", s, directory=folder) for s in animals.SPLITS}
  assert [len(s) for s in splits.values()] == [22, 2, 8]
  for name, split in splits.items():
    assert split.names == {"labels": TRAITS, "classes": CLASSES}
    members = TEST if name == "test" else TRAIN
    classes = split.arrays["classes"]
    assert {CLASSES[i] for i in classes} <= set(members)
    np.testing.assert_array_equal(
      split.arrays["labels"], np.array(MATRIX, bool)[classes]
    )
    assert split.arrays["labels"].dtype == bool
    assert split.arrays["ids"].dtype == np.int32
    assert split.provenance["name"] == "awa2"
  ids = np.concatenate([split.arrays["ids"] for split in splits.values()])
  assert sorted(ids.tolist()) == list(range(4 * COUNT))
  # Sorted by class name, then by file: the bat's are 8 to 15.
  assert {CLASSES[c] for c in splits["test"].arrays["classes"]} == {"zebra"}
  assert splits["test"].arrays["ids"].tolist() == list(range(24, 32))


def test_there_is_nothing_to_fetch_where_it_is_complete(folder):
  fetched = data.fetch("awa2", directory=folder)
  assert (fetched.route, fetched.location.path) == ("", folder)


def test_an_example_is_its_picture(folder):
  image = pytest.importorskip("PIL.Image")
  test = data.source("awa2", "test", directory=folder)
  example = test[3]
  path = folder / "JPEGImages/zebra/zebra_10004.jpg"
  with image.open(path) as picture:
    np.testing.assert_array_equal(example["image"], np.asarray(picture))
  assert example["labels"].tolist() == [True, True, False]
  assert (example["classes"], example["ids"]) == (2, 27)
  grey = test[0]["image"]
  assert grey.shape == (40, 56, 3)
  assert (grey[..., :1] == grey).all()


def test_the_choice_of_validation_pictures(folder):
  files = sources.locate("awa2", directory=folder).files
  ids = lambda split, **options: (
    animals.read(files, split, **options).arrays["ids"].tolist()
  )
  assert ids("validation") == ids("validation")
  assert ids("validation", validation=6) != ids(
    "validation", validation=6, seed=1
  )
  assert ids("validation", validation=0) == []
  assert len(ids("train", validation=0)) == 24
  assert ids("train", index=np.array([5, 3])) == [5, 3]
  with pytest.raises(
    ValueError, match="picture 24, which is not one of the 24"
  ):
    ids("train", index=np.array([5, 24]))
  with pytest.raises(ValueError, match="validation=25 pictures cannot be cut"):
    ids("train", validation=25)
  with pytest.raises(ValueError, match="no split 'val'"):
    ids("val")


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("predicate-matrix-binary.txt", "1 0\n", r"shape \[1, 2\].*\[4, 3\]"),
    ("predicate-matrix-binary.txt", "1 0 2\n" * 4, "zeros and ones"),
    ("predicate-matrix-binary.txt", "1 0 x\n" * 4, "no table of numbers"),
    ("testclasses.txt", "unicorn\n", "no class 'unicorn'"),
    ("testclasses.txt", "zebra\nbat\n", "'bat' is a training class too"),
    ("classes.txt", "1 bat\n2 bat\n", "one of them twice"),
    ("predicates.txt", "\n", "no names"),
  ],
)
def test_lists_that_do_not_fit_are_named(tmp_path, name, text, message):
  broken = write(tmp_path / "awa2", **{name: text})
  with pytest.raises(ValueError, match=message) as error:
    data.source("awa2", "train", directory=broken)
  assert str(broken / name) in str(error.value)


def test_what_is_missing_is_named(folder, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"get AwA2-data\.zip from its"):
    data.source("awa2", "train", directory=tmp_path)
  written = write(tmp_path / "awa2")
  for path in (written / "JPEGImages/bat").iterdir():
    path.unlink()
  with pytest.raises(FileNotFoundError, match="bat holds no pictures"):
    data.source("awa2", "train", directory=written)


def test_random_resized_crop_against_its_definition():
  """A picture whose pixels tell their place tells which part was taken."""
  rows, columns = np.mgrid[:200, :240].astype(np.uint8)
  image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1)
  areas, ratios = [], []
  for seed in range(300):
    generator = np.random.default_rng(seed)
    crop = animals.random_resized_crop(generator, image, 50).astype(int)
    assert crop.shape == (50, 50, 3)
    extent = [np.ptp(crop[..., i]) * 50 / 49 for i in (0, 1)]
    areas.append(extent[0] * extent[1] / (200 * 240))
    ratios.append(extent[1] / extent[0])
  assert 0.05 < min(areas) < 0.15
  assert 0.9 < max(areas) < 1.1
  assert np.mean(areas) == pytest.approx(0.5, abs=0.06)  # some tries do not fit
  assert 0.68 < min(ratios) < 0.85
  assert 1.2 < max(ratios) < 1.45
  assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.05)


def test_a_picture_that_no_part_fits_gives_its_centre():
  image = np.zeros((10, 100, 3), np.uint8)
  image[:, 43:56] = 255  # 13 columns in the middle: 10 * 4 / 3
  whole = animals.random_resized_crop(
    np.random.default_rng(0), image, 8, scale=(1.0, 1.0)
  )
  assert (whole >= 200).all()


def test_batches_of_training_and_evaluation(folder):
  test = data.source("awa2", "test", directory=folder)
  batches = animals.batches(test, 4, seed=0, train=False, size=28, threads=0)
  assert (batches.per_epoch, batches.size) == (2, 4)
  batch = batches[1]
  assert batch["images"].shape == (4, 28, 28, 3)
  assert batch["images"].dtype == np.uint8
  assert batch["ids"].tolist() == [28, 29, 30, 31]
  assert set(batch) == {"images", "labels", "classes", "ids"}
  resized = celeba_batches.resize(test[4]["image"], 32)
  np.testing.assert_array_equal(
    batch["images"][0], celeba_batches.eval_crop(resized, 28)
  )
  train = data.source("awa2", "train", directory=folder)
  options = {"train": True, "size": 28, "threads": 0}
  first = animals.batches(train, 8, seed=3, **options)
  second = animals.batches(train, 8, seed=3, **options)
  np.testing.assert_array_equal(first[5]["images"], second[5]["images"])
  other = animals.batches(train, 8, seed=4, **options)
  assert (first[0]["ids"] != other[0]["ids"]).any()
  # Every epoch crops anew.
  epochs = {
    int(i): image
    for step in (0, 1)
    for i, image in zip(first[step]["ids"], first[step]["images"], strict=True)
  }
  again = zip(first[2]["ids"], first[2]["images"], strict=True)
  seen = [(epochs[int(i)], image) for i, image in again if int(i) in epochs]
  assert seen
  assert all((a != b).any() for a, b in seen)


def test_standardised_as_images_of_imagenet():
  images = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3), np.uint8)
  expected = images / 255 - np.array([0.485, 0.456, 0.406])
  expected /= np.array([0.229, 0.224, 0.225])
  found = animals.standardise(images)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, atol=1e-5)
