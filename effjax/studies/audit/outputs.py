"""What an audit looks at: two models' outputs on the same samples, checked."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from effjax.studies.audit.groups import Groups, aligned, from_columns
from effjax.studies.audit.tables import listed

KINDS = ("logits", "probabilities", "predictions")


class Training(NamedTuple):
  """Labels and groups of the training data.

  Attributes:
    labels: [M, A] bool.
    members: [M, G] bool, the audited groups.
  """

  labels: np.ndarray
  members: np.ndarray


class Validation(NamedTuple):
  """Outputs of the compressed model on other samples than the audited ones.

  Attributes:
    labels: [M, A] bool.
    outputs: [M, A] logits.
  """

  labels: np.ndarray
  outputs: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
  """Outputs of a compressed model and of its reference, row by row.

  Attributes:
    attributes: [A] names.
    groups: The groups of the samples.
    outputs: [N, A], of the compressed model: float32 logits, or bool decisions.
    reference: The same of the dense model.
    kind: What was given, one of `KINDS`.
    labels: [N, A] bool, or None.
    ids: [N] text, or None.
    train: Labels and groups of the training data, or None.
    validation: Labels and outputs of the compressed model, or None.
    notes: Sentences on how the rows were brought together.
  """

  attributes: tuple[str, ...]
  groups: Groups
  outputs: np.ndarray
  reference: np.ndarray
  kind: str
  labels: np.ndarray | None = None
  ids: np.ndarray | None = None
  train: Training | None = None
  validation: Validation | None = None
  notes: tuple[str, ...] = ()

  @property
  def scored(self) -> bool:
    """Whether there are logits, not decisions alone."""
    return self.outputs.dtype != bool

  @property
  def rows(self) -> int:
    """The number of samples."""
    return len(self.outputs)


def from_arrays(
  outputs: Any,
  reference: Any,
  groups: Groups | Mapping[str, Any],
  *,
  kind: str = "logits",
  labels: Any = None,
  attributes: Sequence[str] | None = None,
  ids: Any = None,
  train: tuple[Any, Any] | None = None,
  validation: tuple[Any, Any] | None = None,
  notes: Sequence[str] = (),
) -> Outputs:
  """Checks arrays and puts them together.

  Args:
    outputs: [N, A] or [N], of the compressed model.
    reference: The same of the dense model.
    groups: `Groups`, or columns for `from_columns`.
    kind: What the outputs are: "logits", "probabilities" or "predictions".
    labels: [N, A] or [N] of 0 and 1, or None.
    attributes: [A] names, or None.
    ids: [N], or None.
    train: Labels and groups (like `groups`) of the training data, or None.
    validation: Outputs of the compressed model on other samples and their
      labels, or None.
    notes: Sentences on where the arrays come from.

  Returns:
    The `Outputs`.

  Raises:
    ValueError: If shapes disagree, there is no sample, or a value is none of
      its kind.
  """
  if kind not in KINDS:
    raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
  outputs = matrix(outputs, "outputs")
  if attributes is None:
    attributes = [f"attribute {a}" for a in range(outputs.shape[1])]
  names = tuple(map(str, attributes))
  if not isinstance(groups, Groups):
    groups = from_columns(groups)
  rows = len(outputs)
  if not rows or not outputs.shape[1]:
    raise ValueError(
      f"outputs have shape {list(outputs.shape)}: nothing to audit."
    )
  read = lambda x, name: _like(
    logits(matrix(x, name), kind, name, names), outputs.shape, name
  )
  if len(groups.members) != rows:
    raise ValueError(
      f"groups have {len(groups.members)} rows, but the outputs {rows}."
    )
  if labels is not None:
    labels = bits(matrix(labels, "labels"), "labels", names)
    labels = _like(labels, outputs.shape, "labels")
  if ids is not None and np.shape(ids) != (rows,):
    raise ValueError(
      f"ids must have shape [{rows}], got {list(np.shape(ids))}."
    )
  return Outputs(
    attributes=names,
    groups=groups,
    outputs=read(outputs, "outputs"),
    reference=read(reference, "reference"),
    kind=kind,
    labels=labels,
    ids=None if ids is None else np.asarray(ids).astype(str),
    train=None if train is None else _training(*train, groups, names),
    validation=None
    if validation is None
    else from_validation(
      logits(matrix(validation[0], "validation"), kind, "validation", names),
      bits(matrix(validation[1], "validation labels"), "validation", names),
      kind,
    ),
    notes=tuple(notes),
  )


def matrix(values: Any, where: str) -> np.ndarray:
  """Returns [N, A]; a vector is one attribute."""
  values = np.asarray(values)
  if values.ndim == 1:
    values = values[:, None]
  if values.ndim != 2:
    raise ValueError(
      f"{where} must have shape [N, A], samples by attributes, got"
      f" {list(values.shape)}."
    )
  return values


def logits(
  values: np.ndarray, kind: str, where: str, attributes: Sequence[str]
) -> np.ndarray:
  """Returns outputs as float32 logits, or decisions as bools.

  Args:
    values: [N, A], of the kind.
    kind: One of `KINDS`. A probability of 0 or 1 is an infinite logit; a NaN
      stays one and makes the results of its attribute NaN.
    where: What the array is called in an error.
    attributes: [A] names.

  Raises:
    ValueError: If a value is none of its kind, naming its row.
  """
  if kind == "predictions":
    return bits(values, where, attributes, "prediction")
  if values.dtype.kind not in "biuf":
    raise ValueError(f"{where} has the type {values.dtype}; expected numbers.")
  values = values.astype(np.float64)
  if kind == "probabilities":
    outside = (values < 0) | (values > 1)
    if outside.any():
      _refuse(values, outside, where, attributes, "probability in [0, 1]")
    with np.errstate(divide="ignore"):
      values = np.log(values) - np.log1p(-values)
  return values.astype(np.float32)


def bits(
  values: np.ndarray, where: str, attributes: Sequence[str], what: str = "label"
) -> np.ndarray:
  """Returns bools for values of 0 and 1.

  Args:
    values: [N, A].
    where: What the array is called in an error.
    attributes: [A] names.
    what: What a value is.

  Raises:
    ValueError: If a value is neither, naming its row.
  """
  if values.dtype.kind not in "biuf":
    raise ValueError(
      f"{where} has the type {values.dtype}; a {what} is 0 or 1."
    )
  outside = (values != 0) & (values != 1)
  if outside.any():
    _refuse(values, outside, where, attributes, f"{what} (0 or 1)")
  return values.astype(bool)


def _training(labels, found, groups, names) -> Training:
  labels = bits(matrix(labels, "train labels"), "train labels", names)
  if not isinstance(found, Groups):
    found = from_columns(found, where="train groups")
  return from_training(labels, found, groups, names)


def _refuse(values, outside, where, attributes, what) -> None:
  row, column = np.argwhere(outside)[0]
  more = int(outside.sum()) - 1
  name = attributes[column] if column < len(attributes) else column
  raise ValueError(
    f"{where}, row {row}, attribute {name!r}: {values[row, column]:g} is no"
    f" {what}" + (f", and {more} more are none." if more else ".")
  )


def _like(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
  if values.shape != shape:
    raise ValueError(
      f"{name} have shape {list(values.shape)}, but the outputs {list(shape)}."
    )
  return values


def from_training(
  labels: np.ndarray,
  found: Groups,
  groups: Groups,
  names: Sequence[str],
  where: str = "the training data",
) -> Training:
  """Returns training labels with the columns of the audited groups.

  Args:
    labels: [M, A] bool.
    found: The groups of the training data.
    groups: The audited ones.
    names: [A] names of attributes.
    where: What the training data is called in an error.

  Raises:
    ValueError: If the shapes disagree, or no group is found.
  """
  members = aligned(found, groups.names, where)
  if labels.shape != (len(members), len(names)):
    raise ValueError(
      f"The labels of {where} have shape {list(labels.shape)}; expected"
      f" [{len(members)}, {len(names)}], rows of its groups by attributes"
      f" ({listed(names)})."
    )
  return Training(labels, members)


def from_validation(
  values: np.ndarray, labels: np.ndarray, kind: str
) -> Validation:
  """Returns outputs of other samples, on which thresholds can be chosen.

  Args:
    values: [M, A] logits.
    labels: [M, A] bool.
    kind: What was given, one of `KINDS`.

  Raises:
    ValueError: If the shapes disagree, or decisions alone are given.
  """
  if kind == "predictions":
    raise ValueError(
      "Validation outputs serve to move thresholds, which needs logits or"
      " probabilities; these are predictions."
    )
  if values.shape != labels.shape:
    raise ValueError(
      f"Validation outputs {list(values.shape)} and labels"
      f" {list(labels.shape)} must have the same shape."
    )
  return Validation(labels, values)


def decided(x: np.ndarray) -> np.ndarray:
  """Returns the decisions of logits; decisions stay."""
  return x if x.dtype == bool else x > 0


def rounded(x: Any) -> Any:
  """Returns an array as lists of numbers with at most seven decimals."""
  x = np.asarray(x)
  if np.issubdtype(x.dtype, np.floating):
    x = np.round(x.astype(np.float64), 7)
  return x.tolist()


def invalid(outputs: Outputs) -> np.ndarray:
  """Returns which attributes have a NaN in either model, [A]."""
  if not outputs.scored:
    return np.zeros(len(outputs.attributes), bool)
  both = np.isnan(outputs.outputs) | np.isnan(outputs.reference)
  return np.asarray(both.any(axis=0))
