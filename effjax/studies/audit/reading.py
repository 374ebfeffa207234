"""Reads an audit's files and brings their rows and columns together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from effjax.studies.audit import outputs, tables
from effjax.studies.audit.groups import Groups, from_columns
from effjax.studies.audit.tables import Table, listed
from effjax.studies.text import meant


class Wide(NamedTuple):
  """A matrix of a file.

  Attributes:
    path: The file.
    values: [N, A].
    attributes: [A] names, or None if the file does not tell them.
    ids: [N] text, or None.
  """

  path: str
  values: np.ndarray
  attributes: tuple[str, ...] | None
  ids: np.ndarray | None


def read(
  predictions: str,
  reference: str,
  groups: str,
  *,
  labels: str | None = None,
  train: str | None = None,
  validation: str | None = None,
  validation_labels: str | None = None,
  kind: str | None = None,
) -> outputs.Outputs:
  """Reads the outputs of two models, groups and labels.

  An npz holds an array named by its kind [N, A], and may hold `labels` [N, A],
  `attributes` [A] and `ids` [N]. A csv or parquet file has a column for each
  attribute and may have a column `id`; its labels lie in another file. Rows are
  matched by ids where both files have them, else their order is trusted.

  Args:
    predictions: The compressed model's outputs.
    reference: The dense model's.
    groups: Columns of groups, see `from_columns`.
    labels: Labels, or None if an npz above holds them or there are none.
    train: Labels and groups of the training data, or None: in an npz `labels`
      and groups, in a flat table columns of the attributes and others.
    validation: Outputs of the compressed model on validation data, or None.
    validation_labels: Their labels, or None if `validation` holds them.
    kind: "logits", "probabilities" or "predictions"; None takes the one that an
      npz holds.

  Returns:
    The `Outputs`, in the order of `predictions`.

  Raises:
    FileNotFoundError: If a file is missing.
    ValueError: If a file does not hold what it should; the message names file,
      array or column, and row.
  """
  tables_ = [tables.read(path) for path in (predictions, reference)]
  kind = _kind(tables_[0], kind)
  model, dense = (_scores(table, kind) for table in tables_)
  names = model.attributes or dense.attributes
  if names is None:
    names = tuple(f"attribute {a}" for a in range(model.values.shape[1]))
  grouping = tables.read(groups)
  found = from_columns(grouping.arrays, where=groups)
  given = [_labels(tables.read(labels))] if labels else []
  if not labels:
    given = [_labels(table) for table in tables_ if "labels" in table.arrays]
  wide = [_by_name(x, names) for x in (model, dense, *given)]
  sizes = [(x.path, x.ids, len(x.values)) for x in wide]
  orders, notes = match([*sizes, (groups, grouping.ids, len(found.members))])
  values = [x.values[i] for x, i in zip(wide, orders[:-1], strict=True)]
  found = found._replace(members=found.members[orders[-1]])
  if len(values) > 3:
    _agree(values[2:], [x.path for x in wide[2:]], names)
  ids = next((x.ids for x in wide if x.ids is not None), None)
  return outputs.Outputs(
    attributes=names,
    groups=found,
    outputs=values[0],
    reference=values[1],
    kind=kind,
    labels=values[2] if len(values) > 2 else None,
    ids=ids,
    train=_train(train, found, names) if train else None,
    validation=_validation(validation, validation_labels, kind, names)
    if validation
    else None,
    notes=tuple(notes),
  )


def match(
  parts: Sequence[tuple[str, np.ndarray | None, int]],
) -> tuple[list[np.ndarray], list[str]]:
  """Brings the rows of files into one order, that of the first with ids.

  Args:
    parts: Path, ids [N] or None, and number of rows of each file.

  Returns:
    For each file the rows to take in turn; and what was done, in sentences.

  Raises:
    ValueError: If an id of one file is missing from another, the numbers of
      rows differ, or files without ids come with others in several orders.
  """
  base = next((part for part in parts if part[1] is not None), parts[0])
  orders, notes, moved, trusted = [], [], [], []
  for path, ids, rows in parts:
    if ids is None or base[1] is None:
      if rows != base[2]:
        raise ValueError(
          f"{path} has {rows} rows, but {base[0]} has {base[2]}; without ids in"
          " both, they must have the same rows in the same order."
        )
      orders.append(np.arange(rows))
      trusted.append(path)
      continue
    orders.append(_order(base, path, ids))
    if not np.array_equal(orders[-1], np.arange(rows)):
      moved.append(path)
  if base[1] is None:
    return orders, [
      "No file has ids: that row i is the same sample in all of them was taken"
      " on trust."
    ]
  if moved and parts[0][1] is None:
    raise ValueError(
      f"{base[0]} and {moved[0]} have their ids in different orders, and"
      f" {parts[0][0]} has none to tell which is its own; add ids to it."
    )
  unmoved = [p for p, ids, _ in parts[1:] if ids is not None and p not in moved]
  if unmoved:
    notes.append(
      f"Rows matched by ids, in the same order: {', '.join(unmoved)}."
    )
  if moved:
    notes.append(
      f"Rows matched by ids and brought into the order of {base[0]}:"
      f" {', '.join(moved)}."
    )
  if trusted:
    notes.append(f"Without ids, order of rows trusted: {', '.join(trusted)}.")
  return orders, notes


def _order(
  base: tuple[str, Any, int], path: str, ids: np.ndarray
) -> np.ndarray:
  """Returns the rows of a file in the order of the first."""
  place = np.argsort(ids)
  found = np.searchsorted(ids, base[1], sorter=place)
  order = place[np.minimum(found, len(ids) - 1)] if len(ids) else found
  known = ids[order] == base[1] if len(ids) else np.zeros(base[2], bool)
  if not known.all():
    raise ValueError(
      f"{path} lacks {int((~known).sum())} ids of {base[0]}:"
      f" {listed(base[1][~known])}."
    )
  unknown = ~np.isin(ids, base[1])
  if unknown.any():
    raise ValueError(
      f"{path} has {int(unknown.sum())} ids that {base[0]} has not:"
      f" {listed(ids[unknown])}."
    )
  return order


def _kind(table: Table, kind: str | None) -> str:
  if kind is not None:
    return kind
  found = [name for name in outputs.KINDS if name in table.arrays]
  if table.flat:
    raise ValueError(
      f"What the columns of {table.path} are cannot be told from the file; say"
      f" which of {', '.join(outputs.KINDS)} by --kind."
    )
  if len(found) > 1:
    raise ValueError(
      f"{table.path} holds {' and '.join(found)}; choose one by --kind."
    )
  if not found:
    near = [meant(name, table.arrays) for name in outputs.KINDS]
    raise ValueError(
      f"{table.path} has none of the arrays {', '.join(outputs.KINDS)}"
      f"{next(filter(None, near), '')}; it holds {', '.join(table.arrays)}."
    )
  return found[0]


def _wide(table: Table, name: str) -> Wide:
  """Returns the array of an npz, or all columns of a flat table."""
  if table.flat:
    for column, values in table.arrays.items():
      if values.dtype.kind not in "biuf":
        raise ValueError(
          f"{table.where(column)} holds text ({values[0]!r} in row 0);"
          f" expected {name}."
        )
    columns = list(table.arrays.values())
    return Wide(
      table.path, np.stack(columns, axis=1), tuple(table.arrays), table.ids
    )
  if name not in table.arrays:
    raise ValueError(
      f"{table.path} has no array {name!r}{meant(name, table.arrays)}; it holds"
      f" {', '.join(table.arrays)}."
    )
  values = outputs.matrix(table.arrays[name], table.where(name))
  names = table.arrays.get("attributes")
  if names is not None:
    names = tuple(np.asarray(names).astype(str).reshape(-1).tolist())
    if len(names) != values.shape[1] or len(set(names)) < len(names):
      raise ValueError(
        f"{table.where('attributes')} has {len(set(names))} different names for"
        f" {values.shape[1]} columns of {name!r}."
      )
  rows = None if table.ids is None else len(table.ids)
  if rows not in (None, len(values)):
    raise ValueError(
      f"{table.path} has {rows} ids for {len(values)} rows of {name!r}."
    )
  if not len(values):
    raise ValueError(f"{table.where(name)} has no rows.")
  return Wide(table.path, values, names, table.ids)


def _scores(table: Table, kind: str) -> Wide:
  wide = _wide(table, kind)
  names = wide.attributes or [str(a) for a in range(wide.values.shape[1])]
  where = table.path if table.flat else table.where(kind)
  return wide._replace(values=outputs.logits(wide.values, kind, where, names))


def _labels(table: Table) -> Wide:
  wide = _wide(table, "labels")
  names = wide.attributes or [str(a) for a in range(wide.values.shape[1])]
  where = table.path if table.flat else table.where("labels")
  return wide._replace(values=outputs.bits(wide.values, where, names))


def _by_name(wide: Wide, names: tuple[str, ...]) -> Wide:
  """Returns a matrix with its columns in the order of the names."""
  if wide.attributes is None:
    if wide.values.shape[1] != len(names):
      raise ValueError(
        f"{wide.path} has {wide.values.shape[1]} attributes; expected"
        f" {len(names)}: {listed(names)}."
      )
    return wide
  lacking = [name for name in names if name not in wide.attributes]
  extra = [name for name in wide.attributes if name not in names]
  if lacking:
    raise ValueError(
      f"{wide.path} lacks the attribute {lacking[0]!r}"
      f"{meant(lacking[0], wide.attributes)}; it has"
      f" {listed(wide.attributes)}."
    )
  if extra:
    raise ValueError(
      f"{wide.path} has the attribute {extra[0]!r}, which the others have not"
      f"{meant(extra[0], names)}."
    )
  columns = [wide.attributes.index(name) for name in names]
  return wide._replace(values=wide.values[:, columns], attributes=names)


def _agree(labels: Sequence[np.ndarray], paths, names) -> None:
  differ = labels[0] != labels[1]
  if differ.any():
    row, column = np.argwhere(differ)[0]
    raise ValueError(
      f"{paths[0]} and {paths[1]} disagree on {int(differ.sum())} labels, first"
      f" on {names[column]!r} in row {row}."
    )


def _train(
  path: str, groups: Groups, names: tuple[str, ...]
) -> outputs.Training:
  table = tables.read(path)
  if table.flat:
    lacking = [name for name in names if name not in table.arrays]
    if lacking:
      raise ValueError(
        f"{path} lacks the column {lacking[0]!r}"
        f"{meant(lacking[0], table.arrays)}; training data has a column for"
        " each attribute and the columns of groups."
      )
    of = lambda inside: {
      name: x for name, x in table.arrays.items() if (name in names) == inside
    }
    labels, rest = _labels(table._replace(arrays=of(True))), of(False)
  else:
    labels = _labels(table)
    rest = {
      name: x
      for name, x in table.arrays.items()
      if name not in ("labels", "attributes", *outputs.KINDS)
    }
  found = from_columns(rest, where=path)
  labels = _by_name(labels, names).values
  return outputs.from_training(labels, found, groups, names, path)


def _validation(
  path: str, labels: str | None, kind: str, names: tuple[str, ...]
) -> outputs.Validation:
  table = tables.read(path)
  scores = _by_name(_scores(table, kind), names)
  if labels is None and table.flat:
    raise ValueError(
      f"The labels of {path} lie in a file of their own; give it by"
      " --validation_labels."
    )
  truth = _by_name(_labels(tables.read(labels) if labels else table), names)
  orders, _ = match([(x.path, x.ids, len(x.values)) for x in (scores, truth)])
  return outputs.from_validation(
    scores.values[orders[0]], truth.values[orders[1]], kind
  )
