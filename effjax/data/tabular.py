"""Tables about people as features, one label and groups of people.

The groups are real protected attributes: sex, race and bands of age. As a rule
sex and race are no features; what goes along with them is, however ("Husband",
"Wife"): leaving an attribute out does not make a model blind to it.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from effjax.data import batches, registry, sources

SPLITS = ("train", "validation", "test")
ROWS = ("usual", "all", "complete")
# What the tables write where a value is unknown.
_BLANK = ("", "?")

Columns = Mapping[str, np.ndarray]
Rule = Callable[[Columns], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """How the columns of a table become features, label and groups.

  Attributes:
    numbers: columns of numbers.
    categories: columns of text.
    protected: those columns of text that tell sex or race.
    label: name of the label.
    positive: rule of the label, a function of the columns to bool [N].
    groups: rule of every group.
    usual: rules that a row must satisfy to be used, by what they ask for.
  """

  numbers: tuple[str, ...]
  categories: tuple[str, ...]
  protected: tuple[str, ...]
  label: str
  positive: Rule
  groups: Mapping[str, Rule]
  usual: Mapping[str, Rule] = dataclasses.field(default_factory=dict)


def _is(column: str, *values: str) -> dict[str, Rule]:
  """Return the group of every value of a column."""
  return {
    f"{column}={value}": lambda table, value=value: table[column] == value
    for value in values
  }


def _ages(*bounds: int) -> dict[str, Rule]:
  """Return the bands of age between bounds, each of which begins a band."""
  first, last = bounds[0], bounds[-1]
  found: dict[str, Rule] = {f"age<{first}": lambda table: table["age"] < first}
  for low, high in itertools.pairwise(bounds):
    found[f"age={low}-{high - 1}"] = lambda table, low=low, high=high: (
      (table["age"] >= low) & (table["age"] < high)
    )
  return {**found, f"age>={last}": lambda table: table["age"] >= last}


LAYOUTS = {
  # The weight of the census's sampling, `fnlwgt`, says nothing of a person.
  "adult": Layout(
    numbers=(
      "age",
      "education-num",
      "capital-gain",
      "capital-loss",
      "hours-per-week",
    ),
    categories=(
      "workclass",
      "education",
      "marital-status",
      "occupation",
      "relationship",
      "race",
      "sex",
      "native-country",
    ),
    protected=("race", "sex"),
    label="income>50K",
    positive=lambda table: table["income"] == ">50K",
    groups={
      **_is("sex", "Female", "Male"),
      **_is(
        "race",
        "Amer-Indian-Eskimo",
        "Asian-Pac-Islander",
        "Black",
        "Other",
        "White",
      ),
      **_ages(25, 45, 65),
    },
  ),
  # What was known at the screening, without the score that it led to. The
  # rows are those of ProPublica's analysis.
  "compas": Layout(
    numbers=(
      "age",
      "juv_fel_count",
      "juv_misd_count",
      "juv_other_count",
      "priors_count",
    ),
    categories=("c_charge_degree", "race", "sex"),
    protected=("race", "sex"),
    label="two_year_recid",
    positive=lambda table: table["two_year_recid"] == 1,
    groups={
      **_is("sex", "Female", "Male"),
      **_is(
        "race",
        "African-American",
        "Asian",
        "Caucasian",
        "Hispanic",
        "Native American",
        "Other",
      ),
      **_ages(25, 45),
    },
    usual={
      # False where the number is missing, too.
      "screened within 30 days of arrest": lambda table: (
        np.abs(table["days_b_screening_arrest"]) <= 30
      ),
      "known recidivism": lambda table: table["is_recid"] != -1,
      "no ordinary traffic offence": lambda table: (
        table["c_charge_degree"] != "O"
      ),
      "scored": lambda table: table["score_text"] != "N/A",
    },
  ),
  # The marital status shares its column with the sex and goes with it.
  "german_credit": Layout(
    numbers=(
      "duration",
      "amount",
      "installment_rate",
      "present_residence",
      "age",
      "number_of_credits",
      "people_liable",
    ),
    categories=(
      "status",
      "credit_history",
      "purpose",
      "savings",
      "present_employment",
      "status_sex",
      "other_debtors",
      "property",
      "installment_plans",
      "housing",
      "job",
      "telephone",
      "foreign_worker",
    ),
    protected=("status_sex",),
    label="good_credit",
    positive=lambda table: table["credit"] == "good",
    groups={**_is("sex", "female", "male"), **_ages(26)},
  ),
}


def load(
  name: str,
  split: str,
  *,
  use_protected: bool = False,
  rows: str = "usual",
  validation: int | None = None,
  seed: int = 0,
  directory: str | os.PathLike | None = None,
) -> registry.Source:
  """Load a split of a table as features, label and groups.

  Adult has a test file of its own; of the other tables a fifth of the rows is
  the test split. An eighth of what remains is the validation split, so that a
  single file is divided 70 / 10 / 20. The division is drawn before rows are
  left out, by a permutation that depends on `seed` alone: `rows` never moves
  a person from one split to another.

  Numbers are standardised by mean and standard deviation of the training
  split; a missing one becomes 0, the mean. Every level that a column of text
  has in the training split is a feature of 0 and 1, and one more, "unknown",
  stands for an unknown value and for levels that training did not see.

  Args:
    name: "adult", "compas" or "german_credit".
    split: "train", "validation" or "test".
    use_protected: whether sex and race are features as well; age always is.
    rows: "usual" takes the rows of the published analyses: all of Adult and of
      German credit, and of COMPAS the 6,172 that pass ProPublica's filter;
      "all" takes every row, "complete" those of the usual ones that have no
      unknown value.
    validation: number of validation rows, before any are left out.
    seed: chooses the division.
    directory: where the source lies; by default the resolution order.

  Returns:
    The split; its arrays are features float32 [N, F], labels bool [N, 1],
    groups bool [N, G] and ids int32 [N], the row in the source's own file, and
    `names` has the columns of each. Its provenance counts under "rows" what was
    read, what was left out by which rule, and what was filled in.

  Raises:
    ValueError: an unknown name, split or choice of rows, or more validation
      rows than there are.
    FileNotFoundError: the source is not on this machine.
  """
  for what, value, known in (
    ("table", name, tuple(LAYOUTS)),
    ("split", split, SPLITS),
    ("choice of rows", rows, ROWS),
  ):
    if value not in known:
      raise ValueError(
        f"There is no {what} {value!r}; expected one of {', '.join(known)}."
      )
  layout = LAYOUTS[name]
  files = sources.declared(name).splits
  opened = sources.source(name, files[0], directory=directory)
  cuts = _cut(len(opened), files == ("all",), validation, seed)
  train, *_ = _kept(layout, opened.arrays, cuts["train"], rows)
  encoding = _fit(layout, train, use_protected)
  if split not in cuts:
    opened = sources.source(name, split, directory=directory)
  chosen = cuts.get(split, np.arange(len(opened)))
  table, ids, left_out = _kept(layout, opened.arrays, chosen, rows)
  features, filled = _encode(encoding, table)
  labels = layout.positive(table)[:, None]
  groups = np.stack([rule(table) for rule in layout.groups.values()], axis=1)
  counts = {
    "in the file": len(opened),
    "in the split": len(chosen),
    "left out": left_out,
    "used": len(ids),
    **filled,
  }
  return registry.Source(
    name=name,
    split=split,
    names={
      "features": _names(encoding),
      "labels": (layout.label,),
      "groups": tuple(layout.groups),
    },
    arrays={
      "features": features,
      "labels": labels,
      "groups": groups,
      "ids": ids.astype(np.int32),
    },
    provenance={**opened.provenance, "rows": counts},
    length=len(ids),
  )


def _cut(
  size: int, whole: bool, validation: int | None, seed: int
) -> dict[str, np.ndarray]:
  """Return the sorted rows of every split that comes out of one file."""
  order = batches.generator(seed).permutation(size)
  held_out = round(size / 5) if whole else 0
  rest = order[held_out:]
  count = round(len(rest) / 8) if validation is None else validation
  if not 0 <= count < len(rest):
    raise ValueError(f"validation={count} rows cannot be cut from {len(rest)}.")
  cuts = {"validation": rest[:count], "train": rest[count:]}
  if whole:
    cuts["test"] = order[:held_out]
  return {split: np.sort(rows) for split, rows in cuts.items()}


def _kept(
  layout: Layout, columns: Columns, chosen: np.ndarray, rows: str
) -> tuple[Columns, np.ndarray, dict[str, int]]:
  """Return the rows to use, their ids, and how many break which rule."""
  table = {name: column[chosen] for name, column in columns.items()}
  rules = {} if rows == "all" else dict(layout.usual)
  if rows == "complete":
    rules["no unknown value"] = lambda table: ~_incomplete(layout, table)
  kept = np.ones(len(chosen), bool)
  left_out = {}
  for what, rule in rules.items():
    passes = rule(table)
    left_out[what] = int((~passes).sum())
    kept &= passes
  table = {name: column[kept] for name, column in table.items()}
  return table, chosen[kept], left_out


def _incomplete(layout: Layout, table: Columns) -> np.ndarray:
  """Return which rows have an unknown value in a column that is used."""
  blank = [np.isin(table[name], _BLANK) for name in layout.categories]
  blank += [np.isnan(table[name]) for name in layout.numbers]
  return np.any(blank, axis=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Encoding:
  """Statistics of the training split, by column."""

  numbers: Mapping[str, tuple[float, float]]
  levels: Mapping[str, tuple[str, ...]]


def _fit(layout: Layout, table: Columns, use_protected: bool) -> _Encoding:
  numbers = {}
  for name in layout.numbers:
    values = table[name].astype(np.float64)
    std = float(np.nanstd(values))
    # A column that does not vary becomes 0 instead of 0 / 0.
    numbers[name] = float(np.nanmean(values)), std or 1.0
  dropped = () if use_protected else layout.protected
  levels = {
    name: tuple(sorted(set(table[name].tolist()) - set(_BLANK)))
    for name in layout.categories
    if name not in dropped
  }
  return _Encoding(numbers=numbers, levels=levels)


def _encode(
  encoding: _Encoding, table: Columns
) -> tuple[np.ndarray, dict[str, Any]]:
  """Return features [N, F], and in how many rows what was filled in."""
  columns, missing, unknown = [], {}, {}
  for name, (mean, std) in encoding.numbers.items():
    values = (table[name].astype(np.float64) - mean) / std
    missing[name] = int(np.isnan(values).sum())
    columns.append(np.nan_to_num(values)[:, None])
  for name, levels in encoding.levels.items():
    found = table[name][:, None] == np.array(levels)
    columns.append(found)
    columns.append(~found.any(1, keepdims=True))
    unknown[name] = int(columns[-1].sum())
  features = np.concatenate(columns, axis=1).astype(np.float32)
  return features, {
    "missing numbers": {n: c for n, c in missing.items() if c},
    "unknown levels": {n: c for n, c in unknown.items() if c},
  }


def _names(encoding: _Encoding) -> tuple[str, ...]:
  names = list(encoding.numbers)
  for name, levels in encoding.levels.items():
    names += [f"{name}={level}" for level in (*levels, "unknown")]
  return tuple(names)
