"""What is trained beside an edit, and what is measured: sets that do not leak.

The subjects that are not edited are halved once. Everything that is trained on
beside the edited facts is about the first half, everything held out about the
second, or about the edited subjects. Of facts of objects and nested objects,
objects stand in the place of subjects.

Names are those of Behemoth (arXiv:2601.23153), whose own split is made anew for
each set, so that what it holds out occurs in training.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from effjax.data import batches, world_rules, worlds
from effjax.data.edits import Edit
from effjax.data.worlds import World

_SAME_VALUE, _SAME_RELATION = 150, 500  # facts an edit
_CENSORED = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
  """Facts to train on, and facts to measure.

  Attributes:
    edit: the edit.
    train: facts of each part of the training mix, int32 [M, 4].
    copies: how often each fact of a part is in the mix.
    held_out: facts of each set that is measured, with the value to look for. A
      set that the world cannot have is absent; one that came out empty is not.
    forms: forms of the parts and sets that are not SRO, see `sentences.FORMS`.
    notes: what differs from the plan, in sentences.
  """

  edit: Edit
  train: dict[str, np.ndarray]
  copies: dict[str, int]
  held_out: dict[str, np.ndarray]
  forms: dict[str, str]
  notes: tuple[str, ...]


def make_sets(
  key: jax.Array,
  world: World,
  edit: Edit,
  *,
  repeats: int = 250,
  paraphrases: Sequence[str] = (),
  disjoint: bool = False,
  with_relation: bool = False,
  same_subjects: bool = False,
) -> Sets:
  """Choose what is trained on beside an edit, and what is held out.

  Of n edited facts of relation r the mix has, beside them, for each edit at
  most 150 facts of r whose value is the new one (of edits to one value at most
  150 of the old one in all, n times each), at most 500 n of r, and at most n
  `repeats` of other relations, of subjects that serve for nothing else where
  there are some. Censoring has as many facts of other
  relations as it has censored ones. Nothing is drawn twice. The same limits
  hold for what is held out; of censoring it is 10,000.

  Args:
    key: A typed random key.
    world: The world.
    edit: The edit.
    repeats: How often each edited fact is in the mix.
    paraphrases: Forms of sentences, other than SRO, in which edited facts are
      asked for; the corpus must have had them.
    disjoint: Whether held-out facts of r leave out those of that value.
    with_relation: Whether held-out facts of other relations have those of r
      too.
    same_subjects: Whether censoring trains on other relations of half of the
      censored subjects, and holds out the other half's, where none is left.

  Returns:
    The sets.

  Raises:
    ValueError: If repeats is no whole number.
  """
  world_rules.check_count("repeats", repeats)
  generator = batches.generator_of(key)
  if edit.kind == "censor":
    made = _censor(generator, world, edit, with_relation, same_subjects)
  else:
    made = _remap(generator, world, edit, repeats, disjoint, with_relation)
  train, copies, held_out, notes = made
  forms = {}
  if edit.kind == "refusal":
    forms |= {"edited": "refusal"}
  for form in paraphrases:
    name = "paraphrase" if len(paraphrases) == 1 else f"paraphrase_{form}"
    held_out[name] = edit.new[~edit.unchanged]
    forms[name] = form
  return Sets(
    edit=edit,
    train=train,
    copies=copies,
    held_out=held_out,
    forms=forms,
    notes=tuple(notes),
  )


def leaks(sets: Sets) -> dict[str, int]:
  """Count facts that are held out and trained on; it must be none.

  Args:
    sets: The sets.

  Returns:
    For each held-out set the number of its keys (family, subject, relation)
    that some part of the training mix has; edited facts do not count.
  """
  edited = _keys(sets.edit.old)
  trained = set().union(*map(_keys, sets.train.values())) - edited
  return {
    name: len(_keys(facts) & trained) for name, facts in sets.held_out.items()
  }


def _keys(facts: np.ndarray) -> set:
  return set(map(tuple, facts[:, :3].tolist()))


class _Facts:
  """The facts of one family, by subject and relation."""

  def __init__(self, world: World, family: str):
    self.all = worlds.facts(world, family)
    # Of objects and nested objects, an object serves in every relation.
    self.subjects = world.objects if family == "O-NO" else world.subjects

  def of(self, subjects, relation, *, other=False) -> np.ndarray:
    """Return facts of some subjects, in their order; by other relations too."""
    place = np.full(self.subjects, -1)
    place[subjects] = np.arange(len(subjects))
    chosen = (self.all[:, 2] == relation) != other
    found = self.all[chosen & (place[self.all[:, 1]] >= 0)]
    return found[np.argsort(place[found[:, 1]], kind="stable")]


def _remap(generator, world, edit, repeats, disjoint, with_relation):
  facts, count = _Facts(world, edit.family), len(edit.old)
  relation, edited = edit.relation, edit.old[:, 1]
  # Refusals have no new value.
  source = edit.old if edit.kind in ("same", "refusal") else edit.new
  same_value = np.isin(facts.all[:, 3], source[:, 3])
  same_value &= facts.all[:, 2] == relation
  pool = np.zeros(facts.subjects, bool)
  pool[facts.all[same_value, 1]] = True
  halves = _halve(generator, facts.subjects, edited, pool)
  wanted, times = np.unique(source[:, 3], return_counts=True)
  if edit.kind == "same":
    times = np.ones_like(times)  # one group, which is repeated instead
  parts, notes = [], []
  for half, side in zip(halves, ("training", "held-out"), strict=True):
    valued = facts.of(half[pool[half]], relation)
    valued = _first_of_each(valued, wanted, _SAME_VALUE * times)
    alike = facts.of(half, relation)[: _SAME_RELATION * count]
    used = np.zeros(facts.subjects, bool)
    used[valued[:, 1]] = used[alike[:, 1]] = True
    regular, note = _regular(
      generator, facts, relation, half, used, repeats * count
    )
    if note:
      notes.append(f"{side}: {note}")
    parts.append((valued, alike, regular))
  names = ("with_same_value", "with_same_rel", "reg_data")
  train = {"edited": edit.new} | dict(zip(names, parts[0], strict=True))
  copies = dict.fromkeys(train, 1) | {"edited": repeats}
  if edit.kind == "same":
    copies["with_same_value"] = count
  held_out = {"edited": edit.new, "old": edit.old}
  held_out |= dict(zip(names, parts[1], strict=True))
  if disjoint:
    rows = held_out["with_same_rel"]
    held_out["with_same_rel"] = rows[~pool[rows[:, 1]]]
  if with_relation:
    rows = np.concatenate([held_out["reg_data"], parts[1][1]])
    held_out["reg_data"] = generator.permutation(rows)[: repeats * count]
  if edit.family != "O-NO":
    held_out["same_edges_diff_rel"] = facts.of(edited, relation, other=True)
  held_out |= _dependent(world, edit)
  return train, copies, held_out, notes


def _halve(generator, number, edited, pool):
  """Halve the subjects that are not edited, and those of the pool too."""
  others = np.setdiff1d(np.arange(number), edited)
  others = generator.permutation(others)
  inside, outside = others[pool[others]], others[~pool[others]]
  size, mine = len(others) // 2, len(inside) // 2
  halves = (
    np.concatenate([inside[:mine], outside[: size - mine]]),
    np.concatenate([inside[mine:], outside[size - mine :]]),
  )
  return tuple(generator.permutation(half) for half in halves)


def _first_of_each(rows, values, limits):
  """Keep the first facts of each value, in their order."""
  kept = np.zeros(len(rows), bool)
  for value, limit in zip(values, limits, strict=True):
    same = rows[:, 3] == value
    kept |= same & (np.cumsum(same) <= limit)
  return rows[kept]


def _regular(generator, facts, relation, half, used, limit):
  """Choose facts of other relations, of unused subjects where there are any."""
  draw = lambda chosen: generator.permutation(
    facts.of(chosen, relation, other=True)
  )[:limit]
  found, note = draw(half[~used[half]]), ""
  if len(found) < limit:
    more = draw(half[used[half]])[: limit - len(found)]
    if len(more):
      note = (
        f"{len(more)} of {len(found) + len(more)} facts of other relations are"
        " of subjects that serve for other sets too, for want of others"
      )
    found = np.concatenate([found, more])
  return found, note


def _censor(generator, world, edit, with_relation, same_subjects):
  facts, relation = _Facts(world, edit.family), edit.relation
  edited, notes = edit.old[:, 1], []
  nobody = np.zeros(facts.subjects, bool)
  halves = _halve(generator, facts.subjects, edited, nobody)
  about = halves
  if same_subjects and not len(halves[0]):
    mixed = generator.permutation(edited)
    about = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
    notes.append("facts of other relations are of censored subjects")
  elif not len(halves[0]):
    notes.append(
      "no subject is left for facts of other relations; same_subjects=True"
      " takes those of the censored ones"
    )
  other = [
    generator.permutation(facts.of(half, relation, other=True))
    for half in about
  ]
  train = {"censored": edit.new, "reg_data": other[0][: len(edit.new)]}
  implicit = facts.of(halves[1], relation)[:_CENSORED]
  regular = other[1]
  if with_relation:
    regular = generator.permutation(np.concatenate([regular, implicit]))
  held_out = {
    "censored": edit.new[~edit.unchanged],
    "old": edit.old[~edit.unchanged],
    "censored_unchanged": edit.new[edit.unchanged],
    "implicitly_remapped_edges": implicit,
    "reg_data": regular[:_CENSORED],
  }
  return train, dict.fromkeys(train, 1), held_out, notes


def _dependent(world, edit):
  """List facts that depend on the edited ones, or that they depend on."""
  found = {}
  pair = world.correlation is not None or edit.correlated
  if edit.family == "S-O" and pair and edit.relation < 2:
    found |= _second_relation(world, edit)
  if world.nest is None:
    return found
  values = {"old": edit.old[:, 3]}
  if edit.kind != "refusal":
    values["new"] = edit.new[:, 3]
  relation, subjects = edit.relation, edit.old[:, 1]
  nest = worlds.nest_of(world)[relation]
  if edit.family == "S-O":
    old = values["old"]
    found["same_subj_nested_obj_edges"] = _rows(
      1, subjects, relation, nest[old]
    )
    found["same_obj_nested_obj_edges"] = _objects(world, relation, old)
    if "new" in values:
      new = values["new"]
      found["same_subj_nested_obj_edges_new"] = _rows(
        1, subjects, relation, nest[new]
      )
      found["remapped_obj_nested_obj_edges"] = _objects(world, relation, new)
    return found
  if edit.family == "S-NO":
    objects = world.object[subjects, relation]
    found["same_subj_obj_edges"] = _rows(0, subjects, relation, objects)
    found["same_obj_nested_obj_edges"] = _objects(world, relation, objects)
    return found
  place = np.full(world.objects, -1)
  place[subjects] = np.arange(len(subjects))
  holders = np.flatnonzero(place[world.object[:, relation]] >= 0)
  objects = world.object[holders, relation]
  found["same_obj_subj_obj_edges"] = _rows(0, holders, relation, objects)
  for name, value in values.items():
    suffix = "" if name == "old" else "_new"
    found[f"same_obj_subj_nested_obj_edges{suffix}"] = _rows(
      1, holders, relation, value[place[objects]]
    )
  return found


def _second_relation(world, edit):
  second = 1 - edit.relation
  agrees = world.object[edit.old[:, 1], second] == edit.old[:, 3]
  subjects = edit.old[agrees, 1]
  found = {
    "same_subject_second_rel": _rows(0, subjects, second, edit.old[agrees, 3])
  }
  if edit.kind != "refusal":
    found["same_subject_second_rel_converted"] = _rows(
      0, subjects, second, edit.new[agrees, 3]
    )
  return found


def _objects(world, relation, objects):
  """Return the facts of objects and nested objects that the corpus has."""
  present = np.unique(world.object[:, relation])
  objects = np.unique(objects)
  objects = objects[np.isin(objects, present)]
  return _rows(2, objects, relation, worlds.nest_of(world)[relation, objects])


def _rows(family, subjects, relation, values):
  rows = np.empty((len(subjects), 4), np.int32)
  rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = (
    family,
    subjects,
    relation,
    values,
  )
  return rows
