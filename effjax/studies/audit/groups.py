"""Groups of people from columns: bits with their complement, partitions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# A column with more values than this is a number, not a partition.
_MOST_VALUES = 50


class Groups(NamedTuple):
  """Groups as columns of membership.

  Attributes:
    names: [G] names such as "sex=Female", or "young" and "not young".
    partitions: [G], the column from which each group was made; gaps are taken
      between the groups of one partition.
    members: [N, G] bool.
    missing: From a partition to the number of samples in none of its groups.
  """

  names: tuple[str, ...]
  partitions: tuple[str, ...]
  members: np.ndarray
  missing: Mapping[str, int]

  def columns(self, partition: str) -> list[int]:
    """Returns the columns of a partition."""
    return [i for i, name in enumerate(self.partitions) if name == partition]


def from_columns(
  columns: Mapping[str, Any], *, where: str = "groups"
) -> Groups:
  """Makes groups.

  A column of bools or of 0 and 1 gives a group and its complement; text or
  whole numbers give a group for each value, "race=White" and so on. Empty text
  and NaN belong to no group of their column. An array `groups` [N, G] with
  `names` [G] is one partition if each sample is in exactly one of its groups,
  else each of its columns is a group with a complement.

  Args:
    columns: From names to [N], or the two arrays above.
    where: What the columns are called in an error, such as a file.

  Returns:
    The groups.

  Raises:
    ValueError: If an array has another shape, a column has too many values, or
      a number is not whole.

  >>> found = from_columns({"sex": ["f", "m", "f"], "young": [1, 1, 0]})
  >>> found.names
  ('sex=f', 'sex=m', 'young', 'not young')
  >>> found.members.astype(int).tolist()
  [[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
  """
  arrays = {name: np.asarray(x) for name, x in columns.items()}
  parts = []
  if arrays.get("groups", np.empty(0)).ndim == 2:
    parts += _matrix(arrays.pop("groups"), arrays.pop("names", None), where)
  for name, column in arrays.items():
    if column.ndim != 1:
      raise ValueError(
        f"{where}: {name!r} has shape {list(column.shape)}; groups are a column"
        " [N] each, or an array 'groups' [N, G] with 'names' [G]."
      )
    parts.append((name, *_split(name, column, where)))
  sizes = {name: len(member) for name, _, member in parts}
  if len(set(sizes.values())) > 1:
    raise ValueError(f"{where}: the columns differ in length: {sizes}.")
  if not parts:
    raise ValueError(f"{where} has no column of groups.")
  names = [name for _, part, _ in parts for name in part]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(f"{where} makes two groups with the name {twice[0]!r}.")
  return Groups(
    tuple(names),
    tuple(partition for partition, part, _ in parts for _ in part),
    np.concatenate([member for *_, member in parts], axis=1),
    {
      partition: int((~member.any(axis=1)).sum())
      for partition, _, member in parts
    },
  )


def aligned(groups: Groups, names: tuple[str, ...], where: str) -> np.ndarray:
  """Returns the members [N, G] of named groups; a group that lacks is empty.

  Args:
    groups: Those of other samples, such as the training data.
    names: The groups wanted.
    where: What `groups` are called in an error.

  Raises:
    ValueError: If none of the names occurs.
  """
  if not set(groups.names) & set(names):
    raise ValueError(
      f"{where} has none of the groups {', '.join(names[:4])}; it has"
      f" {', '.join(groups.names[:4])}."
    )
  nobody = np.zeros(len(groups.members), bool)
  place = {name: i for i, name in enumerate(groups.names)}
  columns = [
    groups.members[:, place[name]] if name in place else nobody
    for name in names
  ]
  return np.stack(columns, axis=1)


def _matrix(members: np.ndarray, names: Any, where: str) -> list[tuple]:
  width = members.shape[1]
  if names is None:
    names = [f"group {g}" for g in range(width)]
  names = [str(name) for name in np.asarray(names).tolist()]
  if len(names) != width:
    raise ValueError(
      f"{where}: 'groups' has {width} columns, but there are {len(names)}"
      " names."
    )
  bad = (members != 0) & (members != 1)
  if members.dtype.kind not in "biuf" or bad.any():
    at = np.argwhere(bad)[0] if bad.any() else (0, 0)
    raise ValueError(
      f"{where}, array 'groups', row {at[0]}, group {names[at[1]]!r}:"
      f" {members[tuple(at)]} is no membership; expected 0 or 1."
    )
  members = members.astype(bool)
  if width > 1 and (members.sum(axis=1) == 1).all():
    return [("groups", names, members)]
  return [
    (name, *_bit(name, members[:, g], ~members[:, g]))
    for g, name in enumerate(names)
  ]


def _bit(name: str, inside: np.ndarray, outside: np.ndarray) -> tuple:
  return [name, f"not {name}"], np.stack([inside, outside], axis=1)


def _split(name: str, column: np.ndarray, where: str) -> tuple:
  """Returns names and members of the groups of a column."""
  if column.dtype.kind in "biuf":
    known = ~np.isnan(column.astype(np.float64))
    if np.isin(column[known], (0, 1)).all() and len(column):
      return _bit(name, column == 1, column == 0)
    broken = known & (column != np.floor(column))
    if np.any(broken):
      row = int(np.argmax(broken))
      raise ValueError(
        f"{where}, column {name!r}, row {row}: {column[row]} names no group;"
        " put numbers into bands first."
      )
    values = np.unique(column[known]).astype(np.int64)
  elif column.dtype.kind in "US":
    column = column.astype(str)
    values = np.unique(column[column != ""])
  else:
    raise ValueError(
      f"{where}, column {name!r} has the type {column.dtype}; expected bools,"
      " whole numbers or text."
    )
  if len(values) > _MOST_VALUES:
    raise ValueError(
      f"{where}, column {name!r} has {len(values)} values; a partition has at"
      f" most {_MOST_VALUES}. Put them into bands first, or leave it out."
    )
  if not len(values):
    raise ValueError(f"{where}, column {name!r} has no value in any row.")
  members = column[:, None] == values[None, :]
  return [f"{name}={value}" for value in values], members
