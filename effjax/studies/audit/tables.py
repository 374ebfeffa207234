"""Tables on disk as named arrays: npz, csv and parquet alike."""

import pathlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from effjax.studies.text import meant


class Table(NamedTuple):
  """The named arrays of a file.

  Attributes:
    path: The file.
    arrays: By name; in a flat table all of them columns [N].
    flat: Whether each attribute has a column of its own (csv, parquet).
    ids: [N] text, or None.
  """

  path: str
  arrays: Mapping[str, np.ndarray]
  flat: bool
  ids: np.ndarray | None

  def where(self, name: str) -> str:
    """Returns what an array is called in an error."""
    return f"{self.path}, {'column' if self.flat else 'array'} {name!r}"


def read(path: str) -> Table:
  """Reads a table, whose format its suffix tells.

  Args:
    path: A file that ends in one of `READERS`. An array `ids` (npz) or a column
      `id` (csv, parquet) names the rows.

  Returns:
    A `Table`. Numbers that are absent are NaN, text that is absent is "".

  Raises:
    FileNotFoundError: If there is no such file, with the nearest one.
    ValueError: If the suffix is unknown or the file is broken.
  """
  file = pathlib.Path(path)
  reader = READERS.get(file.suffix.lower())
  if reader is None:
    raise ValueError(
      f"{path} ends in {file.suffix or 'no suffix'!r}, which tells no known"
      f" format; use one of {', '.join(READERS)}."
    )
  if not file.is_file():
    beside = [str(p) for p in file.parent.glob("*") if p.suffix in READERS]
    raise FileNotFoundError(f"There is no file {path}{meant(path, beside)}.")
  flat = file.suffix.lower() != ".npz"
  arrays = reader(path)
  ids = arrays.pop("id" if flat else "ids", None)
  if not arrays:
    raise ValueError(
      f"{path} is empty: it has no {'column' if flat else 'array'}."
    )
  return Table(path, arrays, flat, None if ids is None else _ids(path, ids))


def _ids(path: str, ids: np.ndarray) -> np.ndarray:
  """Returns ids as text, so that those of all formats can be compared."""
  if ids.ndim != 1:
    raise ValueError(f"{path}: ids must be a vector, got {list(ids.shape)}.")
  if np.issubdtype(ids.dtype, np.floating):
    if not np.array_equal(ids, np.floor(ids)):
      row = int(np.argmax(ids != np.floor(ids)))
      raise ValueError(f"{path}: the id in row {row} is {ids[row]}.")
    ids = ids.astype(np.int64)
  ids = ids.astype(str)
  if (ids == "").any():
    raise ValueError(f"{path}: row {int(np.argmax(ids == ''))} has no id.")
  unique, first, count = np.unique(ids, return_index=True, return_counts=True)
  if (count > 1).any():
    twice = unique[np.flatnonzero(count > 1)]
    order = np.argsort(first[count > 1])
    raise ValueError(
      f"{path} has {len(twice)} ids more than once: {listed(twice[order])}."
    )
  return ids


def listed(names: Iterable[Any], most: int = 3) -> str:
  """Returns the first names and how many more there are."""
  names = [str(name) for name in names]
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more


def _read_npz(path: str) -> dict[str, np.ndarray]:
  broken = f"{path} is no readable .npz file."
  if not zipfile.is_zipfile(path):
    raise ValueError(broken)
  try:
    with np.load(path, allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except (ValueError, zipfile.BadZipFile, EOFError) as error:
    if "pickle" in str(error):
      raise ValueError(
        f"{path} holds an array of Python objects, which could run a program;"
        " save text as NumPy strings (array.astype(str))."
      ) from None
    raise ValueError(broken) from None


def _read_csv(path: str) -> dict[str, np.ndarray]:
  import pyarrow as pa
  from pyarrow import csv

  try:
    table = csv.read_csv(path)
  except pa.ArrowInvalid as error:
    raise ValueError(f"{path} is no readable .csv file: {error}.") from None
  return _columns(path, table)


def _read_parquet(path: str) -> dict[str, np.ndarray]:
  import pyarrow as pa
  from pyarrow import parquet

  try:
    table = parquet.read_table(path)
  except (pa.ArrowInvalid, OSError):
    raise ValueError(f"{path} is no readable .parquet file.") from None
  return _columns(path, table)


def _columns(path: str, table: Any) -> dict[str, np.ndarray]:
  names = table.column_names
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(f"{path} has two columns {twice[0]!r}.")
  return {name: _column(path, name, table.column(name)) for name in names}


def _column(path: str, name: str, column: Any) -> np.ndarray:
  """Returns a column as bools, integers, floating numbers or text."""
  import pyarrow as pa

  kind = column.type
  if pa.types.is_dictionary(kind):
    column = column.cast(kind.value_type)
    kind = column.type
  if pa.types.is_string(kind) or pa.types.is_large_string(kind):
    return np.array(["" if x is None else x for x in column.to_pylist()], str)
  numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
  if pa.types.is_null(kind):
    return np.full(len(column), np.nan)
  if not numbers and not pa.types.is_boolean(kind):
    raise ValueError(
      f"{path}, column {name!r} holds {kind}; expected numbers or text."
    )
  if column.null_count and not pa.types.is_floating(kind):
    column = column.cast(pa.int8() if not numbers else kind).cast(pa.float64())
  return column.to_numpy()


READERS: Mapping[str, Callable[[str], dict[str, np.ndarray]]] = {
  ".npz": _read_npz,
  ".csv": _read_csv,
  ".parquet": _read_parquet,
}
