"""CelebA as its users keep it: pictures in a folder or zip, lists as text.

The data set may not be redistributed, so nothing here fetches it.

Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015.
"""

import hashlib
import io
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effjax.data import registry

ATTRIBUTES = tuple(
  """
  5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs
  Big_Lips Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows
  Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones
  Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin
  Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
  Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
  Wearing_Necktie Young
  """.split()  # noqa: SIM905, a table reads better than 40 quoted lines
)
# The identity attributes of the bias study, columns 20, 39, 13 and 26.
IDENTITY = ("Male", "Young", "Chubby", "Pale_Skin")
LANDMARKS = tuple(
  f"{part}_{axis}"
  for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
  for axis in "xy"
)
SPLITS = ("train", "validation", "test")

FOLDER = "img_align_celeba"
PICTURES = "img_align_celeba.zip"
ATTRIBUTE_LIST = "list_attr_celeba.txt"
PARTITION_LIST = "list_eval_partition.txt"
LANDMARK_LIST = "list_landmarks_align_celeba.txt"
IDENTITY_LIST = "identity_CelebA.txt"

# Of the files that the authors publish, for `verify`.
CHECKSUMS = {
  PICTURES: "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
  ATTRIBUTE_LIST: (
    "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0"
  ),
  PARTITION_LIST: (
    "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7"
  ),
  LANDMARK_LIST: (
    "6c02a87569907f6db2ba99019085697596730e8129f67a3d61659f198c48d43b"
  ),
  IDENTITY_LIST: (
    "c6143857c3e2630ac2da9f782e9c1232e5e59be993a9d44e8a7916c78a6158c0"
  ),
}


def read(
  files: Mapping[str, pathlib.Path],
  split: str,
  *,
  check: int | None = 100,
  provenance: Mapping[str, Any] | None = None,
) -> registry.Source:
  """Open a split of CelebA.

  Its `arrays` hold what fits into memory: labels bool [N, 40], groups bool
  [N, 4] (`IDENTITY`) and ids int32 [N], the number in the file's name. An
  example is read from disk, with the fields that TFDS gives it: image uint8
  [H, W, 3], attributes {name: bool} and, where their lists are present,
  landmarks {name: int} and identity {"Identity_No": int}.

  Args:
    files: path of the pictures (folder or zip) and of the lists, by the names
      of this module; `sources.locate("celeba").files`.
    split: "train", "validation" or "test".
    check: of how many files of the split to check that they exist; None
      checks all.
    provenance: what to record.

  Raises:
    ValueError: a list that is not CelebA's, with the file and line.
    FileNotFoundError: a listed picture that does not exist.
  """
  listing = files[ATTRIBUTE_LIST]
  names, values = read_table(listing, ATTRIBUTES, counted=True)
  if not np.isin(values, (-1, 1)).all():
    row, column = np.argwhere(~np.isin(values, (-1, 1)))[0]
    raise ValueError(
      f"{listing}: {ATTRIBUTES[column]} of {names[row]} is"
      f" {values[row, column]}, expected -1 or 1."
    )
  chosen = _members(files[PARTITION_LIST], SPLITS.index(split))
  labels = values[_rows(listing, names, chosen)] > 0
  pictures = Pictures(files[PICTURES])
  pictures.check(chosen[:check])
  extra = {}
  for name, path in _optional(files):
    columns = LANDMARKS if name == LANDMARK_LIST else ("Identity_No",)
    listed, found = read_table(path, columns, counted=name == LANDMARK_LIST)
    extra[name] = found[_rows(path, listed, chosen)]

  def example(index: int) -> dict[str, Any]:
    found: dict[str, Any] = {
      "image": pictures.decode(chosen[index]),
      "attributes": _named(ATTRIBUTES, labels[index]),
    }
    if LANDMARK_LIST in extra:
      found["landmarks"] = _named(LANDMARKS, extra[LANDMARK_LIST][index])
    if IDENTITY_LIST in extra:
      found["identity"] = _named(("Identity_No",), extra[IDENTITY_LIST][index])
    return found

  return registry.Source(
    name="celeba",
    split=split,
    names={"labels": ATTRIBUTES, "groups": IDENTITY},
    arrays=_columns(labels, np.array([_number(n) for n in chosen], np.int32)),
    provenance=provenance or {"path": str(files[PICTURES])},
    length=len(chosen),
    read=example,
  )


def _columns(labels: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
  identity = [ATTRIBUTES.index(name) for name in IDENTITY]
  return {"labels": labels, "groups": labels[:, identity], "ids": ids}


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, Any]:
  return dict(zip(names, values.tolist(), strict=True))


def _number(name: str) -> int:
  """Return the number in a picture's file name."""
  stem = pathlib.PurePath(name).stem
  if not stem.isdecimal():
    raise ValueError(
      f"The picture {name!r} is not named like CelebA's, such as '000001.jpg'."
    )
  return int(stem)


def _optional(
  files: Mapping[str, pathlib.Path],
) -> list[tuple[str, pathlib.Path]]:
  """Return the lists of landmarks and identities that lie beside the others."""
  folder = files[ATTRIBUTE_LIST].parent
  paths = [(name, folder / name) for name in (LANDMARK_LIST, IDENTITY_LIST)]
  return [(name, path) for name, path in paths if path.exists()]


def read_table(
  path: pathlib.Path, columns: Sequence[str], *, counted: bool
) -> tuple[list[str], np.ndarray]:
  """Read a list of CelebA: a file name and integers on every line.

  Columns are parted by any white space, because the authors pad them with one
  or two blanks; empty lines are skipped.

  Args:
    path: a text file of the authors, or a `.csv` of a redistribution, whose
      first line names the columns.
    columns: the expected columns.
    counted: whether the text file starts with the number of rows and a line of
      column names.

  Returns:
    The N file names, and int32 [N, len(columns)].

  Raises:
    ValueError: another header, number of rows or number of columns, or a value
      that is no integer; the message names file and line.
  """
  text = path.read_text(encoding="utf-8-sig", errors="replace")
  comma = path.suffix == ".csv"
  if comma:
    text = text.replace(",", " ")
  lines = [
    (number, line)
    for number, line in enumerate(text.splitlines(), start=1)
    if line.strip()
  ]
  expected = None
  if counted and not comma and lines:
    expected = lines.pop(0)[1].strip()
    if not expected.isdecimal():
      raise ValueError(
        f"{path} starts with {expected[:40]!r}, expected the number of rows."
      )
  if (counted or comma) and lines:
    _check_header(path, lines.pop(0)[1].split(), columns, comma)
  if expected is not None and len(lines) != int(expected):
    raise ValueError(
      f"{path} has {len(lines)} rows, but its first line announces"
      f" {expected}; it is truncated or was edited."
    )
  names = [line.split(None, 1)[0] for _, line in lines]
  return names, _values(path, lines, len(columns))


def _values(
  path: pathlib.Path, lines: list[tuple[int, str]], count: int
) -> np.ndarray:
  """Return what follows the file names, int32 [N, count]."""
  if not lines:
    raise ValueError(f"{path} has no rows.")
  rows = [line.split(None, 1)[1:] for _, line in lines]
  try:
    values = np.loadtxt(
      [row[0] for row in rows], np.int32, comments=None, ndmin=2
    )
    if values.shape == (len(lines), count):
      return values
  except (IndexError, ValueError):
    pass  # some line is wrong; the loop finds which
  for number, line in lines:
    tokens = line.split()[1:]
    whole = all(re.fullmatch(r"[+-]?\d+", token) for token in tokens)
    if len(tokens) != count or not whole:
      raise ValueError(
        f"{path}, line {number}: expected a file name and {count} integer(s),"
        f" found {' '.join(line.split())[:60]!r}."
      )
  raise ValueError(f"{path} holds a number beyond 32 bits.")


def _check_header(
  path: pathlib.Path, found: list[str], columns: Sequence[str], comma: bool
) -> None:
  if comma:
    found = found[1:]  # the first column holds the file name
  if tuple(found) == tuple(columns):
    return
  pairs = zip(columns, [*found, *["nothing"] * len(columns)], strict=False)
  wrong = [pair for pair in pairs if pair[0] != pair[1]]
  if wrong:
    detail = f"has {wrong[0][1]!r} where {wrong[0][0]!r} is expected"
  else:
    detail = f"has {found[len(columns)]!r} too much"
  raise ValueError(f"The header of {path} {detail}.")


def _members(path: pathlib.Path, code: int) -> list[str]:
  """Return the sorted file names of one part of the official partition."""
  names, codes = read_table(path, ("partition",), counted=False)
  if not np.isin(codes, (0, 1, 2)).all():
    row = int(np.flatnonzero(~np.isin(codes[:, 0], (0, 1, 2)))[0])
    raise ValueError(
      f"{path}: the part of {names[row]} is {codes[row, 0]}, expected 0, 1 or"
      " 2."
    )
  members = sorted(names[row] for row in np.flatnonzero(codes[:, 0] == code))
  if not members:
    raise ValueError(f"{path} has no pictures of the {SPLITS[code]} split.")
  return members


def _rows(
  path: pathlib.Path, names: Sequence[str], chosen: Sequence[str]
) -> list[int]:
  """Return the row of every chosen file name in a list."""
  row = {name: number for number, name in enumerate(names)}
  missing = [name for name in chosen if name not in row]
  if missing:
    raise ValueError(
      f"{path} lacks {len(missing)} of {len(chosen)} pictures of the partition"
      f" list, the first of them {missing[0]}."
    )
  return [row[name] for name in chosen]


class Pictures:
  """The pictures of CelebA in a folder or in the zip of the authors.

  It may be used by several threads, and travels to other processes.
  """

  def __init__(self, path: pathlib.Path):
    """Open nothing yet; `path` is a folder or a zip."""
    self.path = pathlib.Path(path)
    self._zip: tuple[int, zipfile.ZipFile] | None = None

  def __getstate__(self):
    """Leave the open zip behind when pickled."""
    return {"path": self.path, "_zip": None}

  def _archive(self) -> zipfile.ZipFile:
    # An open file must not be shared with a forked process.
    if self._zip is None or self._zip[0] != os.getpid():
      try:
        self._zip = os.getpid(), zipfile.ZipFile(self.path)
      except zipfile.BadZipFile as error:
        raise ValueError(f"{self.path} is not a whole zip: {error}.") from error
    return self._zip[1]

  def check(self, names: Sequence[str]) -> None:
    """Raise FileNotFoundError if any of these pictures does not exist."""
    if self.path.is_dir():
      missing = [name for name in names if not (self.path / name).exists()]
    else:
      held = set(self._archive().namelist())
      missing = [name for name in names if f"{FOLDER}/{name}" not in held]
    if missing:
      raise FileNotFoundError(
        f"{self.path} lacks {len(missing)} of {len(names)} listed pictures"
        f" that were looked for, the first of them {missing[0]}; unpack or"
        " download it again."
      )

  def decode(self, name: str) -> np.ndarray:
    """Return a picture, uint8 [H, W, 3]; a damaged one is a ValueError."""
    import PIL.Image

    try:
      if self.path.is_dir():
        content = (self.path / name).read_bytes()
      else:
        content = self._archive().read(f"{FOLDER}/{name}")
      with PIL.Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
      unknown = isinstance(error, PIL.UnidentifiedImageError)
      reason = "it is no picture" if unknown else error
      raise ValueError(
        f"{self.path}: the picture {name} cannot be read ({reason})."
      ) from error


def verify(files: Mapping[str, pathlib.Path]) -> dict[str, str]:
  """Compare the files with the checksums of the authors' publication.

  Pictures in a folder and lists as `.csv` have none and are passed over.

  Args:
    files: as for `read`.

  Returns:
    The sha256 of every file that has one.

  Raises:
    ValueError: a file that differs.
  """
  found = {}
  for name, path in [*files.items(), *_optional(files)]:
    if path.name != name or not path.is_file():
      continue
    with path.open("rb") as file:
      found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    if found[name] != CHECKSUMS[name]:
      raise ValueError(
        f"{path} has sha256 {found[name]}, expected {CHECKSUMS[name]}."
      )
  return found


def read_prepared(
  directory: pathlib.Path,
  split: str,
  *,
  provenance: Mapping[str, Any] | None = None,
) -> registry.Source:
  """Open a split of `celeb_a` as TFDS has prepared it.

  Args:
    directory: the version's directory, of the format ArrayRecord or Parquet.
    split: "train", "validation" or "test".
    provenance: what to record.
  """
  import tensorflow_datasets as tfds

  builder: Any = tfds.builder_from_directory(directory)
  raw = builder.as_data_source(
    split, decoders={"image": tfds.decode.SkipDecoding()}
  )
  labels = np.array(
    [
      [raw[i]["attributes"][name] for name in ATTRIBUTES]
      for i in range(len(raw))
    ]
  )
  examples = builder.as_data_source(split)
  return registry.Source(
    name="celeba",
    split=split,
    names={"labels": ATTRIBUTES, "groups": IDENTITY},
    arrays=_columns(labels > 0, np.arange(len(raw), dtype=np.int32)),
    provenance=provenance or {"path": str(directory)},
    length=len(raw),
    read=examples.__getitem__,
  )
