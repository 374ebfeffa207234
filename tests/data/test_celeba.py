import io
import pickle
import re

import jax
import numpy as np
import pytest

from effjax import data
from effjax.data import celeba, celeba_example, registry, sources

pytest.importorskip("PIL")


@pytest.fixture(scope="module", params=["folder", "zip", "csv"])
def layout(request, tmp_path_factory):
  """A generated CelebA of three pictures a split."""
  folder = tmp_path_factory.mktemp(request.param)
  celeba_example.write(
    jax.random.key(0),
    folder,
    3,
    zipped=request.param == "zip",
    comma=request.param == "csv",
  )
  return folder


@pytest.fixture
def folder(tmp_path):
  celeba_example.write(jax.random.key(0), tmp_path, 3)
  return tmp_path


def test_splits_follow_the_partition(layout):
  for number, split in enumerate(("train", "validation", "test")):
    opened = data.source("celeba", split, directory=layout)
    first = 3 * number + 1
    assert opened.arrays["ids"].tolist() == [first, first + 1, first + 2]
    assert opened.arrays["labels"].shape == (3, 40)
    assert opened.arrays["labels"].dtype == bool
    assert opened.names == {
      "labels": celeba.ATTRIBUTES,
      "groups": ("Male", "Young", "Chubby", "Pale_Skin"),
    }
    np.testing.assert_array_equal(
      opened.arrays["groups"], opened.arrays["labels"][:, [20, 39, 13, 26]]
    )
    example = opened[0]
    assert example["image"].shape == (218, 178, 3)
    assert example["image"].dtype == np.uint8
    named = list(example["attributes"].values())
    assert named == opened.arrays["labels"][0].tolist()


def test_values_are_those_of_the_text(folder):
  opened = data.source("celeba", "test", directory=folder)
  for row, number in enumerate((7, 8, 9)):
    text = (folder / "list_attr_celeba.txt").read_text()
    values = text.split(f"{number:06d}.jpg")[1].split()[:40]
    expected = [value == "1" for value in values]
    assert 0 < sum(expected) < 40
    assert opened.arrays["labels"][row].tolist() == expected
    assert list(opened[row]["attributes"].values()) == expected
    assert list(opened[row]["attributes"]) == list(celeba.ATTRIBUTES)


def test_layouts_agree(tmp_path):
  found = []
  for kind in ({}, {"zipped": True}, {"comma": True}):
    folder = tmp_path / str(len(found)) / "celeba"
    celeba_example.write(jax.random.key(0), folder, 3, **kind)
    found.append(data.source("celeba", "test", directory=folder.parent))
  for other in found[1:]:
    for name, array in found[0].arrays.items():
      np.testing.assert_array_equal(array, other.arrays[name])
    np.testing.assert_array_equal(found[0][1]["image"], other[1]["image"])


@pytest.mark.parametrize("pad", [" ", "  "])
def test_blanks_and_stray_line_ends(folder, pad):
  """Values padded with one or two blanks, carriage returns, empty lines."""
  before = data.source("celeba", "train", directory=folder)
  path = folder / "list_attr_celeba.txt"
  lines = path.read_text().splitlines()
  rows = [pad.join(line.split()) + " \r" for line in lines[2:]]
  path.write_text("\n".join([*lines[:2], *rows, "", ""]))
  path = folder / "list_eval_partition.txt"
  path.write_text(path.read_text().replace(" \n", "\r\n\n"))
  after = data.source("celeba", "train", directory=folder)
  for name, array in before.arrays.items():
    np.testing.assert_array_equal(array, after.arrays[name])


def test_optional_lists(folder):
  points = [
    f"{k:06d}.jpg " + "  ".join(str(10 * k + j) for j in range(10))
    for k in range(1, 10)
  ]
  header = ["9", " ".join(celeba.LANDMARKS)]
  (folder / celeba.LANDMARK_LIST).write_text("\n".join(header + points))
  people = [f"{k:06d}.jpg {1000 + k}" for k in range(1, 10)]
  (folder / celeba.IDENTITY_LIST).write_text("\n".join(people))
  example = data.source("celeba", "validation", directory=folder)[1]
  assert example["identity"] == {"Identity_No": 1005}
  assert example["landmarks"]["lefteye_x"] == 50
  assert example["landmarks"]["rightmouth_y"] == 59


def test_record_is_that_of_tfds(folder):
  """Every field has the name, shape and type of the builder `celeb_a`."""
  tfds = pytest.importorskip("tensorflow_datasets")
  (folder / celeba.LANDMARK_LIST).write_text(
    "9\n"
    + " ".join(celeba.LANDMARKS)
    + "".join(f"\n{k:06d}.jpg" + " 1" * 10 for k in range(1, 10))
  )
  (folder / celeba.IDENTITY_LIST).write_text(
    "".join(f"{k:06d}.jpg 1\n" for k in range(1, 10))
  )
  with tfds.testing.mock_data(num_examples=1):
    mock = tfds.data_source("celeb_a", split="train")[0]
  example = data.source("celeba", "train", directory=folder)[0]
  assert jax.tree.structure(mock) == jax.tree.structure(example)
  assert mock["image"].shape == example["image"].shape
  assert mock["image"].dtype == example["image"].dtype


ATTRS, PARTS = "list_attr_celeba.txt", "list_eval_partition.txt"


@pytest.mark.parametrize(
  ("file", "pattern", "new", "message"),
  [
    (ATTRS, "^9", "8", "has 9 rows, but its first line announces 8"),
    (ATTRS, "^9", "many", "expected the number of rows"),
    (ATTRS, "Bald", "Hairy", "'Hairy' where 'Bald' is expected"),
    (ATTRS, " Young", "", "has 'nothing' where 'Young'"),
    (ATTRS, " Young", " Young X", "has 'X' too much"),
    (ATTRS, "2.jpg +-?1", "2.jpg", "line 4: expected a file name and 40 int"),
    (ATTRS, "2.jpg +-?1", "2.jpg x", "line 4: expected"),
    (ATTRS, "2.jpg +-?1", "2.jpg 2", "of 000002.jpg is 2, expected -1 or 1"),
    (ATTRS, "2.jpg", "9.jpg", "lacks 1 of 3 pictures .* 000002.jpg"),
    (PARTS, "2.jpg 0", "2.jpg 4", "part of 000002.jpg is 4, expected 0, 1"),
    (PARTS, "2.jpg 0", "2.jpg", "line 2: expected a file name and 1 integer"),
  ],
)
def test_wrong_lists_are_named(folder, file, pattern, new, message):
  path = folder / file
  text, count = re.subn(pattern, new, path.read_text(), count=1)
  assert count == 1
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    data.source("celeba", "train", directory=folder)
  assert str(path) in str(error.value)


def test_empty_lists_are_named(folder):
  (folder / PARTS).write_text("\n")
  with pytest.raises(ValueError, match=r"partition\.txt has no rows"):
    data.source("celeba", "train", directory=folder)
  (folder / PARTS).write_text("000001.jpg 99999999999\n")
  with pytest.raises(ValueError, match=r"partition\.txt holds a number"):
    data.source("celeba", "train", directory=folder)


def test_empty_split(folder):
  path = folder / "list_eval_partition.txt"
  path.write_text("".join(f"{k:06d}.jpg 0\n" for k in range(1, 10)))
  with pytest.raises(ValueError, match="no pictures of the test split"):
    data.source("celeba", "test", directory=folder)


def test_missing_pictures_are_named(layout, tmp_path):
  names = [f"{k:06d}.jpg" for k in range(1, 12)]
  files = sources.locate("celeba", directory=layout).files
  pictures = celeba.Pictures(files[celeba.PICTURES])
  pictures.check(names[:9])
  with pytest.raises(FileNotFoundError, match=r"lacks 2 of 11 .*000010\.jpg"):
    pictures.check(names)


def test_a_missing_picture_beyond_the_check_is_named_when_read(folder):
  (folder / "img_align_celeba/000002.jpg").unlink()
  with pytest.raises(FileNotFoundError, match=r"000002\.jpg"):
    data.source("celeba", "train", directory=folder)
  files = sources.locate("celeba", directory=folder).files
  opened = celeba.read(files, "train", check=1)
  assert opened[0]["image"].shape == (218, 178, 3)
  with pytest.raises(ValueError, match=r"000002\.jpg cannot be read"):
    opened[1]


def test_a_damaged_picture_is_named(folder):
  path = folder / "img_align_celeba/000001.jpg"
  path.write_bytes(path.read_bytes()[:200])
  opened = data.source("celeba", "train", directory=folder)
  with pytest.raises(ValueError, match=r"000001\.jpg cannot be read"):
    opened[0]


def test_a_damaged_zip_is_named(tmp_path):
  celeba_example.write(jax.random.key(0), tmp_path, 3, zipped=True)
  path = tmp_path / "img_align_celeba.zip"
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ValueError, match="is not a whole zip"):
    data.source("celeba", "train", directory=tmp_path)


def test_foreign_names_are_refused(folder):
  for path in (*folder.glob("*.txt"),):
    path.write_text(path.read_text().replace("000001.jpg", "face_a.jpg"))
  pictures = folder / "img_align_celeba"
  (pictures / "000001.jpg").rename(pictures / "face_a.jpg")
  with pytest.raises(ValueError, match=r"'face_a\.jpg' is not named like"):
    data.source("celeba", "train", directory=folder)


def test_absent_celeba_says_how_to_get_it(empty_places):
  with pytest.raises(FileNotFoundError) as error:
    data.source("celeba", "train", directory=empty_places)
  text = str(error.value)
  assert "img_align_celeba.zip, list_attr_celeba.txt" in text
  assert "get the aligned pictures and lists from its authors" in text
  assert "launch.fetch" not in text


def test_pictures_of_a_zip_travel_to_other_processes(tmp_path):
  celeba_example.write(jax.random.key(0), tmp_path, 1, zipped=True)
  pictures = celeba.Pictures(tmp_path / "img_align_celeba.zip")
  first = pictures.decode("000001.jpg")
  copy = pickle.loads(pickle.dumps(pictures))
  np.testing.assert_array_equal(copy.decode("000001.jpg"), first)


def test_verify_compares_with_the_published_files(folder):
  files = sources.locate("celeba", directory=folder).files
  with pytest.raises(ValueError, match=r"list_attr_celeba\.txt has sha256"):
    celeba.verify(files)
  only = {celeba.PICTURES: files[celeba.PICTURES]}
  only[celeba.ATTRIBUTE_LIST] = folder / "list_attr_celeba.csv"
  assert celeba.verify(only) == {}


def test_names_are_the_forty():
  assert len(celeba.ATTRIBUTES) == 40
  assert len(set(celeba.ATTRIBUTES)) == 40
  columns = [celeba.ATTRIBUTES.index(name) for name in celeba.IDENTITY]
  assert columns == [20, 39, 13, 26]
  marked = ["Blond_Hair", "Smiling", "Wearing_Necktie", "Attractive"]
  assert [celeba.ATTRIBUTES.index(name) for name in marked] == [9, 31, 38, 2]


def _celeb_a_builder(tfds, own, pictures):
  """Return a builder of `celeb_a` without its landmarks and identities."""

  class CelebA(tfds.core.GeneratorBasedBuilder):
    name = "celeb_a"
    VERSION = tfds.core.Version("2.1.0")

    def _info(self):
      features = {
        "image": tfds.features.Image(shape=(218, 178, 3)),
        "attributes": {name: np.bool_ for name in celeba.ATTRIBUTES},
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in own}

    def _generate_examples(self, split):
      for row, number in enumerate(own[split].arrays["ids"]):
        content = io.BytesIO(pictures[number - 1].read_bytes())
        attributes = own[split][row]["attributes"]
        yield int(number), {"image": content, "attributes": attributes}

  return CelebA


def test_prepared_by_tfds(folder, empty_places, monkeypatch):
  """The data set `celeb_a` in a readable format is step five."""
  tfds = pytest.importorskip("tensorflow_datasets")
  pictures = sorted((folder / "img_align_celeba").iterdir())
  own = {
    split: data.source("celeba", split, directory=folder)
    for split in celeba.SPLITS
  }

  # TFDS has a data set of this name itself.
  with tfds.core.registered.skip_registration():
    builder = _celeb_a_builder(tfds, own, pictures)
  root = empty_places / "home/tensorflow_datasets"
  builder(data_dir=root, file_format="array_record").download_and_prepare()
  opened = data.source("celeba", "test")
  assert opened.provenance["step"] == "prepared by TFDS"
  key = lambda labels: sorted(map(str, labels.tolist()))
  assert key(opened.arrays["labels"]) == key(own["test"].arrays["labels"])
  for row in range(3):
    example = opened[row]
    attributes = list(example["attributes"].values())
    by_name = [example["attributes"][name] for name in celeba.ATTRIBUTES]
    assert len(attributes) == 40
    np.testing.assert_array_equal(by_name, opened.arrays["labels"][row])
    assert example["image"].shape == (218, 178, 3)
  assert registry.SOURCES["celeba"].tfds == ("celeb_a",)


@pytest.mark.data
def test_real_celeba():
  try:
    opened = {s: data.source("celeba", s) for s in celeba.SPLITS}
  except FileNotFoundError:
    pytest.skip("CelebA is absent; only its users can bring it")
  sizes = {split: len(source) for split, source in opened.items()}
  assert sizes == {"train": 162_770, "validation": 19_867, "test": 19_962}
  assert opened["test"].arrays["ids"][0] == 182_638
