"""Facts of a synthetic world that are to be changed, and into what.

What else is trained and measured with them is in `edit_sets`, and the rows that
a model is given in `edit_rows`. The tasks are those of Behemoth
(arXiv:2601.23153).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from effjax.data import batches, vocabulary, world_rules, worlds
from effjax.data.worlds import World

KINDS = ("distinct", "same", "binarised", "refusal", "censor")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
  """Facts of one relation before and after.

  Attributes:
    kind: one of `KINDS`.
    family: one of `worlds.FAMILIES`.
    relation: the relation.
    old: the facts as they were, int32 [n, 4], see `worlds.facts`.
    new: the facts as they should be; of refusals, whose answer is no value, as
      they were.
    correlated: whether only subjects were chosen whose objects by relations 0
      and 1 agree.
  """

  kind: str
  family: str
  relation: int
  old: np.ndarray
  new: np.ndarray
  correlated: bool = False

  @property
  def unchanged(self) -> np.ndarray:
    """Which facts had their new value before, bool [n]; never a refusal's."""
    same = self.old[:, 3] == self.new[:, 3]
    return same & (self.kind != "refusal")


def make_edit(
  key: jax.Array,
  world: World,
  *,
  kind: str = "distinct",
  family: str = "S-O",
  relation: int = 0,
  count: int = 1,
  share: float = 1.0,
  correlated: bool = False,
  token: bool = False,
) -> Edit:
  """Choose facts to change, and their new values.

  Args:
    key: A typed random key.
    world: The world.
    kind: "distinct" gives `count` facts, no two of one value, as many other
      values; "same" gives facts of one value one other value; "binarised" turns
      0 and 1 about; "refusal" chooses as "distinct", to be answered by nothing;
      "censor" gives value 0 to a share of all facts of the relation.
    family: Which facts, one of `worlds.FAMILIES`.
    relation: Number of their relation.
    count: Number of facts n, but for "censor".
    share: Of "censor": the share of the facts, rounded up.
    correlated: Whether to choose among subjects only whose objects by relations
      0 and 1, of which one is the relation, agree.
    token: Of "censor": whether a word of its own replaces the value instead of
      value 0, see `vocabulary.FORGOTTEN`.

  Returns:
    The edit.

  Raises:
    ValueError: If there are too few facts or values, naming the shortage.

  >>> world = worlds.make_world(
  ...   jax.random.key(0), subjects=9, relations=2, objects=5
  ... )
  >>> edit = make_edit(jax.random.key(1), world, count=2)
  >>> len(set(edit.old[:, 3].tolist() + edit.new[:, 3].tolist()))
  4
  """
  if kind not in KINDS:
    raise ValueError(
      f"there is no edit {kind!r}; choose one of {', '.join(KINDS)}"
    )
  world_rules.check_count("count", count)
  world_rules.check_count("relation", relation, 0)
  facts = _candidates(world, family, relation, correlated)
  number = values_of(world, family)
  generator = batches.generator_of(key)
  facts = generator.permutation(facts)
  if kind != "censor" and count > len(facts):
    raise ValueError(
      f"count={count} facts cannot be changed: there are {len(facts)} of the"
      f" family {family} and relation {relation}"
      + (" whose subject's pair agrees" if correlated else "")
    )
  if kind == "censor":
    if not 0 < share <= 1:
      raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
    old = facts[: math.ceil(round(share * len(facts), 9))]
    values = np.full(len(old), vocabulary.FORGOTTEN if token else 0)
  elif kind == "same":
    old, values = _same(generator, facts, count, number)
  elif kind == "binarised":
    old = facts[:count]
    if facts[:, 3].max() > 1:
      raise ValueError(
        f"relation {relation} is not binarised, it has the value"
        f" {facts[:, 3].max()}; take relation 0 or 1 of a binarised world"
      )
    values = 1 - old[:, 3]
  else:
    old = _distinct(facts, count, kind)
    values = old[:, 3]
    if kind == "distinct":
      free = np.setdiff1d(np.arange(number), values)
      if len(free) < count:
        raise ValueError(
          f"{count} distinct edits need as many values that are none of the old"
          f" ones; of {number} there are {len(free)} left"
        )
      values = generator.choice(free, count, replace=False)
  new = old.copy()
  new[:, 3] = values
  return Edit(
    kind=kind,
    family=family,
    relation=relation,
    old=old,
    new=new,
    correlated=correlated,
  )


def edit_facts(
  world: World,
  subjects: Sequence[int],
  relation: int,
  values: Any,
  *,
  family: str = "S-O",
) -> Edit:
  """Name the facts to change, and their new values.

  Args:
    world: The world.
    subjects: Subjects of the facts; of "O-NO" objects of the relation.
    relation: Their relation.
    values: The new value of each, or one for all.
    family: One of `worlds.FAMILIES`.

  Returns:
    An edit of the kind "same" if all old and all new values are equal, else
    "distinct".

  Raises:
    ValueError: If a fact is unknown, named twice, or has that value already.

  >>> world = worlds.World(object=np.array([[1, 0]], np.int32), objects=3)
  >>> edit_facts(world, [0], 1, 2).new.tolist()
  [[0, 0, 1, 2]]
  """
  facts = _candidates(world, family, relation, False)
  by_subject = {fact[1]: fact for fact in facts.tolist()}
  number, subjects = values_of(world, family), list(map(int, subjects))
  if not subjects or len(set(subjects)) < len(subjects):
    raise ValueError(
      f"name each fact to change once, got subjects {subjects[:20]}"
    )
  values = np.asarray(values)
  if not np.issubdtype(values.dtype, np.integer):
    raise ValueError(f"values must be whole numbers, got {values.dtype}")
  given = np.broadcast_to(values, (len(subjects),)).tolist()
  for subject, value in zip(subjects, given, strict=True):
    if subject not in by_subject:
      raise ValueError(
        f"there is no fact of subject {subject} and relation {relation} in the"
        f" family {family}, which has {len(facts)} of that relation"
      )
    if not 0 <= value < number:
      raise ValueError(
        f"the new value of subject {subject} must be 0 to {number - 1}, got"
        f" {value}"
      )
    if by_subject[subject][3] == value:
      raise ValueError(
        f"the fact of subject {subject} and relation {relation} has the value"
        f" {value} already; give another"
      )
  old = np.array([by_subject[subject] for subject in subjects], np.int32)
  new = np.column_stack([old[:, :3], given]).astype(np.int32)
  alike = len(np.unique(old[:, 3])) == len(np.unique(new[:, 3])) == 1
  return Edit(
    kind="same" if alike else "distinct",
    family=family,
    relation=relation,
    old=old,
    new=new,
  )


def values_of(world: World, family: str) -> int:
  """Return how many values facts of a family and relation may have."""
  return world.objects if family == "S-O" else world.nested_objects


def _candidates(world, family, relation, correlated):
  """List the facts of a relation that may be changed."""
  facts = worlds.facts(world, family)
  if not 0 <= relation < world.relations:
    raise ValueError(
      f"relation must be 0 to {world.relations - 1}, got {relation!r}"
    )
  facts = facts[facts[:, 2] == relation]
  if not correlated:
    return facts
  if family == "O-NO" or relation > 1 or world.relations < 2:
    raise ValueError(
      "correlated edits are of subjects and of relations 0 or 1, which may"
      f" agree; got the family {family} and relation {relation}"
    )
  agrees = world.object[:, 0] == world.object[:, 1]
  return facts[agrees[facts[:, 1]]]


def _distinct(facts, count, kind):
  """Choose facts of different values, the first of each."""
  _, first = np.unique(facts[:, 3], return_index=True)
  if len(first) < count:
    hint = ", or kind 'binarised'" if kind == "distinct" else ""
    raise ValueError(
      f"{count} edits need facts of as many different values; there are"
      f" {len(first)}: take fewer{hint}"
    )
  return facts[np.sort(first)[:count]]


def _same(generator, facts, count, number):
  values, times = np.unique(facts[:, 3], return_counts=True)
  enough = values[times >= count]
  if not len(enough):
    raise ValueError(
      f"{count} facts must share one value; at most {times.max()} do"
    )
  if number < 2:
    raise ValueError("the relation has one value, and no other to change it to")
  chosen = generator.choice(enough)
  step = generator.integers(1, number)
  old = facts[facts[:, 3] == chosen][:count]
  return old, np.full(count, (chosen + step) % number)
