import numpy as np
import pytest

from effjax import data
from effjax.data import batches as batches_lib
from effjax.data import images, prepared

from .conftest import write_files

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def prepared_root(tiny_fashion, tmp_path):
  from effjax.data import tfds_fashion

  folder = write_files(tmp_path / "explicit", tiny_fashion)
  builder = tfds_fashion.FashionAttributes(
    directory=folder, data_dir=tmp_path / "prepared"
  )
  builder.download_and_prepare()
  return tmp_path / "prepared"


def test_data_source_by_name(prepared_root, tmp_path):
  for split, size in (("train", 55), ("validation", 5), ("test", 20)):
    examples = tfds.data_source(
      "fashion_attributes", split=split, data_dir=prepared_root
    )
    assert len(examples) == size
    whole = images.fashion(split, directory=tmp_path / "explicit")
    row = {number: k for k, number in enumerate(whole["ids"].tolist())}
    for k in range(size):
      example = examples[k]
      k = row.pop(int(example["id"]))
      np.testing.assert_array_equal(example["image"], whole["images"][k])
      np.testing.assert_array_equal(example["attributes"], whole["labels"][k])
      np.testing.assert_array_equal(example["groups"], whole["groups"][k])
      assert example["label"] == whole["classes"][k]
    assert row == {}
  metadata = examples.dataset_info.metadata
  assert tuple(metadata["attributes"]) == images.names()
  assert tuple(metadata["groups"]) == images.groups()


def test_it_is_step_five_of_the_resolution_order(
  prepared_root, tmp_path, monkeypatch
):
  direct = data.source(
    "fashion_mnist", "train", directory=tmp_path / "explicit"
  )
  monkeypatch.setenv("TFDS_DATA_DIR", str(prepared_root))
  opened = data.source("fashion_mnist", "train")
  assert opened.provenance["step"] == "prepared by TFDS"
  for name in ("images", "classes"):
    np.testing.assert_array_equal(opened.arrays[name], direct.arrays[name])
    assert opened.arrays[name].dtype == direct.arrays[name].dtype


def test_other_pictures_are_refused(prepared_root):
  found, _ = prepared.find(prepared_root, ("fashion_attributes",))
  with pytest.raises(ValueError, match=r"has digest .*, expected 00ff"):
    prepared.read(found, "test", "00ff")


def test_unreadable_format_is_reported(tmp_path):
  version = tmp_path / "fashion_mnist/3.0.1"
  version.mkdir(parents=True)
  (version / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
  found, report = prepared.find(
    tmp_path, ("fashion_attributes", "fashion_mnist")
  )
  assert found is None
  assert report == f"{version} is tfrecord, expected array_record or parquet"


def test_digest_ignores_the_order():
  generator = np.random.default_rng(0)
  pictures = generator.integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
  classes = np.arange(20) % 10
  order = generator.permutation(20)
  digest = prepared.digest(pictures, classes)
  assert prepared.digest(pictures[order], classes[order]) == digest
  assert prepared.digest(pictures[order], classes) != digest
  pictures[3, 0, 0, 0] ^= 1
  assert prepared.digest(pictures, classes) != digest


def test_batches_of_a_tfds_source(prepared_root):
  examples = tfds.data_source(
    "fashion_attributes", split="train", data_dir=prepared_root
  )
  batches = batches_lib.from_source(examples, 11, seed=0)
  assert batches.per_epoch == 5
  epoch = [batches[k] for k in range(5)]
  assert epoch[0]["image"].shape == (11, 28, 28, 1)
  ids = np.concatenate([batch["id"] for batch in epoch])
  assert len(np.unique(ids)) == 55
