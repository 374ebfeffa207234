"""Turn the bytes of declared files into arrays."""

import csv
import gzip
import io
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

FASHION_CLASSES = (
  "T-shirt/top",
  "trouser",
  "pullover",
  "dress",
  "coat",
  "sandal",
  "shirt",
  "sneaker",
  "bag",
  "ankle boot",
)
DIGIT_CLASSES = tuple(str(digit) for digit in range(10))

_IDX_TYPES = {
  0x08: ">u1",
  0x09: ">i1",
  0x0B: ">i2",
  0x0C: ">i4",
  0x0D: ">f4",
  0x0E: ">f8",
}


def read_idx(content: bytes, place: str = "the IDX file") -> np.ndarray:
  """Read an array in IDX format, the container of the MNIST family.

  Two zero bytes, a byte for the type, a byte for the number of dimensions,
  then big-endian int32 sizes, then the values in C order.

  Args:
    content: the decompressed bytes.
    place: where they come from, for messages.

  Returns:
    The array, in native byte order.

  Raises:
    ValueError: the bytes are no IDX file, or too few or too many.

  Example:
    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
    [7, 8, 9]
  """
  if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
    raise ValueError(
      f"{place} is not an IDX file: it starts with {content[:4].hex(' ')},"
      " expected 00 00, a type and the number of dimensions."
    )
  dtype, ndim = np.dtype(_IDX_TYPES[content[2]]), content[3]
  start = 4 + 4 * ndim
  if len(content) < start:
    raise ValueError(f"{place} is truncated inside its header.")
  shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">i4"))
  expected = start + math.prod(shape) * dtype.itemsize
  if len(content) != expected:
    raise ValueError(
      f"{place} has {len(content)} bytes, expected {expected} for shape"
      f" {list(shape)}; it is truncated or damaged."
    )
  values = np.frombuffer(content, dtype, offset=start).reshape(shape)
  return values.astype(dtype.newbyteorder("="))


def read_label_last(
  content: bytes, side: int, maximum: int
) -> dict[str, np.ndarray]:
  """Read gzipped comma-separated pictures whose last column is the class.

  Args:
    content: the gzipped text; a row has side * side values and the class.
    side: height and width of a picture.
    maximum: largest grey value of the file; values are scaled to 0..255.

  Returns:
    images uint8 [N, side, side, 1] and classes int32 [N].
  """
  text = io.BytesIO(gzip.decompress(content))
  table = np.loadtxt(text, delimiter=",", dtype=np.float32)
  grey = np.rint(table[:, :-1] * (255 / maximum)).astype(np.uint8)
  return {
    "images": grey.reshape(-1, side, side, 1),
    "classes": table[:, -1].astype(np.int32),
  }


def read_class_names(
  content: bytes, place: str = "the list of classes"
) -> tuple[str, ...]:
  """Read the names of classes, a JSON list in the order of their numbers.

  Args:
    content: the JSON text.
    place: where it comes from, for messages.

  Returns:
    The names.

  Raises:
    ValueError: the text is no list of texts.

  Example:
    >>> read_class_names(b'["tench", "goldfish"]')
    ('tench', 'goldfish')
  """
  try:
    names = json.loads(content)
  except ValueError as error:
    raise ValueError(f"{place} is no JSON text ({error}).") from error
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise ValueError(f"{place} is no list of names.")
  return tuple(names)


# Columns in the order of the files; those of numbers are named a second time.
ADULT_COLUMNS = (
  "age",
  "workclass",
  "fnlwgt",
  "education",
  "education-num",
  "marital-status",
  "occupation",
  "relationship",
  "race",
  "sex",
  "capital-gain",
  "capital-loss",
  "hours-per-week",
  "native-country",
  "income",
)
_ADULT_NUMBERS = (
  "age",
  "fnlwgt",
  "education-num",
  "capital-gain",
  "capital-loss",
  "hours-per-week",
)
_COMPAS_NUMBERS = (
  "id",
  "age",
  "juv_fel_count",
  "juv_misd_count",
  "juv_other_count",
  "priors_count",
  "days_b_screening_arrest",
  "is_recid",
  "is_violent_recid",
  "decile_score",
  "v_decile_score",
  "two_year_recid",
)
# The people are real: this is dropped before anything else sees it.
COMPAS_PRIVATE = ("name", "first", "last", "dob")
GERMAN_COLUMNS = (
  "status",
  "duration",
  "credit_history",
  "purpose",
  "amount",
  "savings",
  "present_employment",
  "installment_rate",
  "status_sex",
  "other_debtors",
  "present_residence",
  "property",
  "age",
  "installment_plans",
  "housing",
  "number_of_credits",
  "job",
  "people_liable",
  "telephone",
  "foreign_worker",
  "credit",
)


def read_adult(
  content: bytes, place: str = "the Adult file"
) -> dict[str, np.ndarray]:
  """Read `adult.data` or `adult.test` of the UCI repository.

  Values are parted by comma and blank. The test file starts with a line that
  is no row, and its labels end in a period, which is taken off.

  Args:
    content: the text.
    place: where it comes from, for messages.

  Returns:
    For each of `ADULT_COLUMNS` an array [N], int32 or text; "?" is unknown.

  Raises:
    ValueError: a row of another length or with a text in place of a number,
      or another label than <=50K and >50K.
  """
  text = content.decode("utf-8")
  rows = csv.reader(io.StringIO(text), skipinitialspace=True)
  kept = {n: row for n, row in enumerate(rows, start=1) if row}
  first = kept.get(1, [])
  if first and first[0].startswith("|"):
    del kept[1]
  table = _table(kept, ADULT_COLUMNS, _ADULT_NUMBERS, place)
  table["income"] = np.char.rstrip(table["income"], ".")
  _expect(table, "income", ("<=50K", ">50K"), place)
  return table


def read_compas(
  content: bytes, place: str = "the COMPAS file"
) -> dict[str, np.ndarray]:
  """Read `compas-scores-two-years.csv` of ProPublica, without names.

  Two columns occur twice, with equal values; the last one is kept. Names and
  dates of birth (`COMPAS_PRIVATE`) are not read.

  Args:
    content: the text.
    place: where it comes from, for messages.

  Returns:
    For each column an array [N]: int32, float32 with NaN where a number is
    missing, or text.

  Raises:
    ValueError: a column is missing, a row has another length or a text in
      place of a number.
  """
  header, *rows = csv.reader(io.StringIO(content.decode("utf-8")))
  wanted = (*COMPAS_PRIVATE, *_COMPAS_NUMBERS)
  missing = [name for name in wanted if name not in header]
  if missing:
    raise ValueError(f"{place} has no column {', '.join(missing)}.")
  kept = {n: row for n, row in enumerate(rows, start=2) if row}
  return _table(kept, header, _COMPAS_NUMBERS, place, COMPAS_PRIVATE)


def read_german(
  content: bytes, codes: bytes, place: str = "the file of German credit"
) -> dict[str, np.ndarray]:
  """Read `german.data` of the UCI repository with the meaning of its codes.

  Args:
    content: the text, parted by blanks.
    codes: JSON, for each coded column the meaning of every code.
    place: where the text comes from, for messages.

  Returns:
    For each of `GERMAN_COLUMNS` an array [N], int32 or text, and "sex", which
    the file holds in one code with the marital status.

  Raises:
    ValueError: a row of another length, an unknown code, or a text in place of
      a number.
  """
  book = json.loads(codes)
  numbers = [name for name in GERMAN_COLUMNS if name not in book]
  lines = content.decode("utf-8").splitlines()
  kept = {n: r for n, line in enumerate(lines, start=1) if (r := line.split())}
  table = _table(kept, GERMAN_COLUMNS, numbers, place)
  for name, meaning in book.items():
    _expect(table, name, tuple(meaning), place)
    # Two columns mean yes or no, which the book spells as true or false.
    words = {
      code: ("no", "yes")[text] if isinstance(text, bool) else text.strip()
      for code, text in meaning.items()
    }
    table[name] = np.array([words[code] for code in table[name].tolist()])
  table["sex"] = np.char.partition(table["status_sex"], " ")[:, 0]
  return table


def _table(
  rows: Mapping[int, Sequence[str]],
  columns: Sequence[str],
  numbers: Sequence[str],
  place: str,
  private: Sequence[str] = (),
) -> dict[str, np.ndarray]:
  """Return the columns of a table, from its rows by their line."""
  for line, row in rows.items():
    if len(row) != len(columns):
      raise ValueError(
        f"{place}, line {line}: expected {len(columns)} values, found"
        f" {len(row)}."
      )
  if not rows:
    raise ValueError(f"{place} has no rows.")
  table = {}
  for name, values in zip(
    columns, zip(*rows.values(), strict=True), strict=True
  ):
    if name in private:
      continue
    table[name] = np.array(values)
    if name in numbers:
      table[name] = _numbers(name, values, list(rows), place)
  return table


def _numbers(
  name: str, values: Sequence[str], lines: Sequence[int], place: str
) -> np.ndarray:
  """Return whole numbers, int32, or float32 with NaN where one is missing."""
  found: list[float] = []
  for line, value in zip(lines, values, strict=True):
    try:
      found.append(int(value) if value else math.nan)
    except ValueError:
      raise ValueError(
        f"{place}, line {line}: {name} is {value[:40]!r}, expected a number."
      ) from None
  return np.array(found, np.int32 if all(values) else np.float32)


def _expect(
  table: Mapping[str, np.ndarray],
  name: str,
  known: Sequence[str],
  place: str,
) -> None:
  foreign = sorted(set(table[name].tolist()) - set(known))
  if foreign:
    raise ValueError(
      f"{place}: {name} is {foreign[0]!r}, expected one of {', '.join(known)}."
    )
