"""Synthetic worlds: tables of facts that are known completely.

A world says which object each subject has by each relation: `object[s, r]` is
one of the O objects of relation r. Some facts may have a dissenting object, and
objects may themselves belong to nested objects: `nest[r, o]` is one of N.

Facts are rows [family, subject, relation, value]. There are three families, see
`FAMILIES`: of subjects and objects, of subjects and the nested objects of their
objects, and of objects and their nested objects. In the last one an object
stands in the place of the subject.

The worlds are those of Behemoth (Iofinova and Alistarh 2026, arXiv:2601.23153),
from an explicit key, and with frequencies that may be skewed.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from effjax import arguments
from effjax.data import batches, world_rules

# Facts of subjects and objects, of subjects and nested objects, of objects and
# nested objects.
FAMILIES = ("S-O", "S-NO", "O-NO")
FREQUENCIES = ("uniform", "zipf")

# Each purpose has a key of its own, so that one option does not change what the
# others draw.
_PURPOSES = {"object": 1, "pair": 2, "minority": 3, "nest": 4, "frequency": 5}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class World:
  """A table of facts.

  Attributes:
    object: object of each subject by each relation, int32 [S, R].
    objects: number of objects of a relation, O.
    minority: dissenting objects, int32 [S, R], -1 where there is none; None
      where no fact has one.
    minority_share: share of the sentences of a fact that use its dissenting
      object.
    nest: nested object of each object, int32 [R, O], -1 where unknown; None
      without nesting.
    nested_objects: number of nested objects of a relation, N; 0 without.
    frequency: how often facts of each subject are written relative to others,
      float64 [S] of mean 1; None where all are written equally often.
    correlation: share of subjects whose objects by relations 0 and 1 agree by
      construction; None where the relations are independent.
    binarised: whether relations 0 and 1 have the objects 0 and 1 alone.
  """

  object: np.ndarray
  objects: int
  minority: np.ndarray | None = None
  minority_share: float = 0.1
  nest: np.ndarray | None = None
  nested_objects: int = 0
  frequency: np.ndarray | None = None
  correlation: float | None = None
  binarised: bool = False

  @property
  def subjects(self) -> int:
    """Number of subjects S."""
    return self.object.shape[0]

  @property
  def relations(self) -> int:
    """Number of relations R."""
    return self.object.shape[1]


def make_world(
  key: jax.Array,
  *,
  subjects: int = 100_000,
  relations: int = 6,
  objects: int = 400,
  correlation: float | None = None,
  binarised: bool = False,
  minority: float = 0.0,
  minority_share: float = 0.1,
  nested_objects: int = 0,
  frequency: str = "uniform",
  exponent: float = 1.0,
  convention: str = "exact",
) -> World:
  """Draw a world.

  Args:
    key: A typed random key; equal keys and options give equal worlds, and an
      option changes nothing but what it is about.
    subjects: Number of subjects S.
    relations: Number of relations R.
    objects: Number of objects of a relation, O; each is equally likely.
    correlation: Probability that a subject's objects by relations 0 and 1 have
      one number; None leaves them independent.
    binarised: Whether relations 0 and 1, which must be correlated, have the
      objects 0 and 1 alone.
    minority: Share of the facts that have a dissenting object.
    minority_share: Share of the sentences of such a fact that use it.
    nested_objects: Number of nested objects of a relation, N, to each of which
      O / N objects belong; 0 for none.
    frequency: "zipf" writes facts of the subject of rank k in proportion to
      k ** -exponent, with ranks at random.
    exponent: See there.
    convention: "reference" draws the objects that do not agree as the published
      program does: 0 is never among them, and O - 1 stands in for what agrees
      by chance.

  Returns:
    The world.

  Raises:
    ValueError: If the parameters are impossible, naming the rule.

  >>> world = make_world(
  ...   jax.random.key(0), subjects=5, relations=2, objects=3
  ... )
  >>> world.object.shape, graph(world).shape
  ((5, 2), (10, 5))
  """
  sizes = {"subjects": subjects, "relations": relations, "objects": objects}
  for name, value in sizes.items():
    world_rules.check_count(name, value)
  shares = {"minority": minority, "minority_share": minority_share}
  shares |= {} if correlation is None else {"correlation": correlation}
  for name, value in shares.items():
    arguments.finite(name, value, 0)
  world_rules.check_correlation(
    correlation, binarised, relations, objects, minority
  )
  world_rules.check_minority(minority, minority_share, objects, nested_objects)
  world_rules.check_nesting(nested_objects, objects)
  if convention not in ("exact", "reference"):
    raise ValueError(
      f"convention must be 'exact' or 'reference', got {convention!r}"
    )
  draw = lambda purpose: batches.generator_of(
    jax.random.fold_in(key, _PURPOSES[purpose])
  )
  table = draw("object").integers(0, objects, (subjects, relations), np.int32)
  if correlation is not None:
    table[:, 0], table[:, 1] = _pair(
      draw("pair"), table[:, 0], objects, correlation, binarised, convention
    )
  nest = None
  if nested_objects:
    nest = np.arange(nested_objects, dtype=np.int32)
    nest = np.repeat(nest, objects // nested_objects)
    nest = draw("nest").permuted(np.tile(nest, (relations, 1)), axis=1)
  return World(
    object=table,
    objects=objects,
    minority=_dissent(draw("minority"), table, objects, minority),
    minority_share=float(minority_share),
    nest=nest,
    nested_objects=nested_objects,
    frequency=_frequency(draw("frequency"), subjects, frequency, exponent),
    correlation=None if correlation is None else float(correlation),
    binarised=binarised,
  )


def graph(world: World) -> np.ndarray:
  """List the facts of subjects and objects as edges.

  Args:
    world: The world.

  Returns:
    Rows [subject, relation, object, minority, nested], int64 [S R, 5], all
    relations of a subject in turn; -1 stands for none.

  >>> world = World(object=np.array([[1, 0]], np.int32), objects=2)
  >>> graph(world).tolist()
  [[0, 0, 1, -1, -1], [0, 1, 0, -1, -1]]
  """
  subject, relation = np.indices(world.object.shape)
  none = np.full(world.object.shape, -1)
  nested = none if world.nest is None else world.nest[relation, world.object]
  minority = none if world.minority is None else world.minority
  columns = (subject, relation, world.object, minority, nested)
  return np.stack([x.reshape(-1).astype(np.int64) for x in columns], axis=1)


def world_from_graph(
  edges: Any,
  *,
  objects: int | None = None,
  nested_objects: int | None = None,
  minority_share: float = 0.1,
  correlation: float | None = None,
  binarised: bool = False,
) -> World:
  """Make a world of edges that were drawn elsewhere.

  Args:
    edges: Rows [subject, relation, object, minority, nested] in any order, the
      last two optional; -1 stands for none.
    objects: Number of objects of a relation; by default the largest and 1.
    nested_objects: Number of nested objects, likewise.
    minority_share: Share of the sentences that use the dissenting object.
    correlation: What `make_world` would have been given; it is not checked.
    binarised: Likewise.

  Returns:
    The world.

  Raises:
    ValueError: If a fact is missing, stands there twice or is out of range, an
      object has two nested objects, or a dissenting object is impossible.
  """
  arguments.finite("minority_share", minority_share, 0)
  edges = world_rules.check_edges(edges)
  subjects, relations = (int(x) + 1 for x in edges[:, :2].max(axis=0))
  order = np.lexsort((edges[:, 1], edges[:, 0]))
  edges = edges[order]
  wanted = np.stack(np.divmod(np.arange(subjects * relations), relations), 1)
  if len(edges) != len(wanted) or not np.array_equal(edges[:, :2], wanted):
    have, times = np.unique(edges[:, :2], axis=0, return_counts=True)
    twice = have[times > 1]
    raise ValueError(
      f"the graph must have one edge for each of {subjects} subjects and"
      f" {relations} relations, {len(wanted)} in all; it has {len(edges)}, of"
      f" which {len(twice)} facts stand there more than once"
      + (f", such as {twice[0].tolist()}" if len(twice) else "")
    )
  table, minority, nested = (
    edges[:, i].reshape(subjects, -1).astype(np.int32) for i in (2, 3, 4)
  )
  objects = _number("objects", objects, [table, minority])
  found = nested.max() >= 0
  if not found and nested_objects:
    raise ValueError(
      f"nested_objects={nested_objects}, but no edge has a nested object"
    )
  nest = None
  if found:
    nested_objects = _number("nested_objects", nested_objects, [nested])
    nest = _nest_of(table, nested, objects)
  share = float(np.mean(minority >= 0))
  world_rules.check_minority(
    share, minority_share, objects, int(nested_objects or 0)
  )
  if (minority == table).any():
    raise ValueError("a dissenting object must be another than the majority's")
  return World(
    object=table,
    objects=objects,
    minority=minority if minority.max() >= 0 else None,
    minority_share=minority_share,
    nest=nest,
    nested_objects=int(nested_objects or 0),
    correlation=correlation,
    binarised=binarised,
  )


def facts(world: World, family: str = "S-O") -> np.ndarray:
  """List all facts of a family.

  Args:
    world: The world.
    family: One of `FAMILIES`.

  Returns:
    Rows [number of the family, subject, relation, value], int32 [M, 4]. Of
    objects and nested objects there is one for each object that some subject
    has; the object is its "subject", and the value the nested object.

  Raises:
    ValueError: If there is no such family, or the world is not nested.

  >>> world = World(object=np.array([[1, 0]], np.int32), objects=2)
  >>> facts(world).tolist()
  [[0, 0, 0, 1], [0, 0, 1, 0]]
  """
  number = family_number(world, family)
  if family == "O-NO":
    present = np.zeros((world.relations, world.objects), bool)
    present[np.arange(world.relations)[None], world.object] = True
    relation, subject = np.nonzero(present)
    value = nest_of(world)[relation, subject]
  else:
    subject, relation = (x.reshape(-1) for x in np.indices(world.object.shape))
    value = world.object[subject, relation]
    if family == "S-NO":
      value = nest_of(world)[relation, value]
  columns = (np.full(len(value), number), subject, relation, value)
  return np.stack(columns, axis=1).astype(np.int32)


def family_number(world: World, family: str) -> int:
  """Return the number of a family, if the world has it; see `facts`."""
  if family not in FAMILIES:
    raise ValueError(
      f"there is no family {family!r}; choose one of {', '.join(FAMILIES)}"
    )
  if family != "S-O":
    nest_of(world)
  return FAMILIES.index(family)


def nest_of(world: World) -> np.ndarray:
  """Return the nested object of each object [R, O]; an error if none has."""
  if world.nest is None:
    raise ValueError(
      "the world has no nested objects; make it with nested_objects="
    )
  return world.nest


def table_bits(world: World) -> float:
  """Return the information of a table, S R log2 O + R O log2 N bits.

  Args:
    world: The world; that relations may be correlated is not subtracted.

  Returns:
    Bits. Divided by the parameters of a model's blocks they are the load, of
    which models can store about two bits a parameter (arXiv:2404.05405).

  >>> table_bits(World(object=np.zeros((8, 2), np.int32), objects=4))
  32.0
  """
  bits = world.object.size * math.log2(world.objects)
  if world.nest is not None:
    bits += world.nest.size * math.log2(world.nested_objects)
  return bits


def _pair(generator, first, objects, correlation, binarised, convention):
  """Draw the objects by two relations, of which the second may agree."""
  count = len(first)
  agrees = generator.random(count) < correlation
  if binarised:
    first = generator.integers(0, 2, count, np.int32)
    return first, np.where(agrees, first, 1 - first)
  if convention == "reference":
    other = generator.integers(1, objects, count, np.int32)
    other = np.where(other == first, objects - 1, other)
  else:
    step = generator.integers(1, objects, count, np.int32)
    other = (first + step) % objects
  return first, np.where(agrees, first, other).astype(np.int32)


def _dissent(generator, table, objects, share):
  # Other orders are rounded to other counts: 27 of 180 by 5 at a share of 0.03.
  count = int(share * table.shape[0] * table.shape[1])
  if not count:
    return None
  chosen = generator.choice(table.size, count, replace=False, shuffle=False)
  step = generator.integers(1, objects, count, np.int32)
  minority = np.full(table.size, -1, np.int32)
  minority[chosen] = (table.reshape(-1)[chosen] + step) % objects
  return minority.reshape(table.shape)


def _frequency(generator, subjects, kind, exponent):
  if kind not in FREQUENCIES:
    raise ValueError(
      f"frequency must be one of {', '.join(FREQUENCIES)}, got {kind!r}"
    )
  if kind == "uniform":
    return None
  if not (math.isfinite(exponent) and exponent > 0):
    raise ValueError(f"exponent must be finite and above 0, got {exponent!r}")
  weights = (1.0 + generator.permutation(subjects)) ** -float(exponent)
  return weights / weights.mean()


def _number(name, given, tables):
  largest = max(int(table.max()) for table in tables)
  if given is not None and arguments.whole(name, given, 0) <= largest:
    raise ValueError(
      f"{name}={given}, but the graph has number {largest}; it must be at least"
      f" {largest + 1}"
    )
  return int(given or largest + 1)


def _nest_of(table, nested, objects):
  relations = np.broadcast_to(np.arange(table.shape[1])[None], table.shape)
  nest = np.full((table.shape[1], objects), -1, np.int32)
  nest[relations, table] = nested
  wrong = (nest[relations, table] != nested) | (nested < 0)
  if wrong.any():
    subject, relation = np.argwhere(wrong)[0].tolist()
    raise ValueError(
      f"object {table[subject, relation]} of relation {relation} has no nested"
      " object, or two: each object must belong to one"
    )
  return nest
