"""Corpora of synthetic worlds, written while they are read.

A corpus is never stored: the sentences of a batch are a function of its step.
Which fact sentence number p is about, and what is drawn for it, depends on p
alone, so that a corpus has random access, goes on from any step, and can be
divided among hosts.
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from effjax.data import batches, sentences, vocabulary, world_rules, worlds
from effjax.data.corpus_rows import Corpus, Plan, write
from effjax.data.vocabulary import Vocabulary
from effjax.data.worlds import World

LAYOUTS = ("rows", "packed", "biography")
ORDERS = ("permutation", "replacement")
_LARGEST = 2**32 - 1


def make_corpus(
  key: jax.Array,
  world: World,
  words: Vocabulary,
  *,
  rows: int,
  copies: int = 500,
  creator: str = "inverted",
  inverted: float = 0.0,
  questions: float = 0.0,
  asked: float = 0.5,
  nested_copies: int = 1,
  order: str = "permutation",
  layout: str = "rows",
  length: int = 1024,
  shard: tuple[int, int] = (0, 1),
) -> Corpus:
  """Plan a corpus.

  Args:
    key: Draws the order, patterns, fillers, dissenting objects and the subjects
      that are asked about.
    world: The world.
    words: Its vocabulary.
    rows: Rows of a batch B, those of all hosts together.
    copies: How often each fact is stated, n; where frequencies are skewed, in
      the mean, and once at least.
    creator: What sentences look like, see `sentences.creator`.
    inverted: See there.
    questions: Sentences that are questions, as a share of all statements, q.
    asked: Share of the subjects that questions are about, e: each fact of
      int(e S) subjects is asked int(n / e q) times.
    nested_copies: How often facts of objects and nested objects are stated
      where others are stated once, u.
    order: "permutation" states facts exactly as often as that: each n-th of the
      corpus holds each fact once, in an order of its own; with questions or
      skewed frequencies the corpus has one order as a whole. "replacement"
      draws facts independently.
    layout: "rows" puts one sentence into a row, behind an end of text; "packed"
      as many as there is room for; "biography" all facts of a subject.
    length: Tokens of a packed row. Where all sentences have equally many tokens
      rows are cut from one text without regard to sentences, as trainers of
      plain text do; otherwise they begin with an end of text, hold whole
      sentences, and end with padding.
    shard: (index, count) of this host; count divides `rows`.

  Returns:
    The corpus, for `batch`.

  Raises:
    ValueError: If an option is impossible, naming the rule.

  >>> key = jax.random.key(0)
  >>> world = worlds.make_world(key, subjects=3, relations=2, objects=2)
  >>> words = vocabulary.make_vocabulary(world)
  >>> corpus = make_corpus(key, world, words, rows=2, copies=1)
  >>> corpus.plan.sentences, corpus.plan.tokens
  (6, 66)
  """
  _check(rows, copies, nested_copies, order, layout, shard)
  facts, asks, counts = _units(
    key, world, copies, questions, asked, nested_copies
  )
  patterns = sentences.creator(creator, inverted)
  codes = _codes(words, patterns, facts, asks)
  # Of statements, without what a question may be longer or shorter by.
  sizes = (codes != vocabulary.PADDING).sum(axis=2)
  chances = np.array([chance for _, chance in patterns])
  kinds = facts[:, 0] + len(worlds.FAMILIES) * asks
  tokens = counts @ (sizes @ chances)[kinds]
  slots = counts
  if layout == "biography":
    slots = _by_subject(world, asks, counts)
  per_pass = (counts % copies == 0).all() and world.frequency is None
  cycle = slots // copies if per_pass and not asks.any() else slots
  if max(int(cycle.sum()), int(counts.sum())) > _LARGEST:
    raise ValueError(
      f"the corpus has {int(counts.sum())} sentences; there may be {_LARGEST}"
    )
  used = sizes[np.unique(kinds)]
  per_row, width, fixed = _shape(layout, length, used, world.relations)
  steps = int(slots.sum()) / (rows * (1 if layout == "biography" else per_row))
  if fixed:
    steps = tokens / (rows * length)
  plan = Plan(
    rows=rows // shard[1],
    all_rows=rows,
    first_row=shard[0] * (rows // shard[1]),
    per_row=per_row,
    length=width,
    fixed=fixed,
    layout=layout,
    order=order,
    cycle=int(cycle.sum()),
    fillers=max(pattern.split().count("*") for pattern, _ in patterns),
    minority_share=world.minority_share,
    copies=copies,
    sentences=int(counts.sum()),
    tokens=round(float(tokens)),
    steps=math.ceil(steps),
  )
  ends = None if (cycle == 1).all() else np.cumsum(cycle).astype(np.uint32)
  return Corpus(
    key=key,
    table=jnp.asarray(words.table),
    words=jnp.asarray(words.rows(facts)),
    kinds=jnp.asarray(kinds),
    dissenting=_dissenting(world, words, facts),
    ends=None if ends is None else jnp.asarray(ends),
    codes=jnp.asarray(codes),
    chances=jnp.asarray(np.cumsum(chances) / chances.sum(), jnp.float32),
    fillers=jnp.asarray(words.fillers),
    plan=plan,
  )


@jax.jit
def batch(corpus: Corpus, step: jax.Array | int) -> dict[str, jax.Array]:
  """Write the sentences of one step.

  Args:
    corpus: The corpus.
    step: The step, from 0 on; beyond the end the corpus is written again, in
      another order.

  Returns:
    Arrays over the B rows of this host:

      tokens    int32 [B, L]
      segments  int32 [B, L], the number of the sentence in its row from 1 on,
                0 for padding
      units     int32 [B, K], what each sentence is about: the number of a fact
                among those of all families in turn, then questions
  """
  return write(corpus, step)


def asked_subjects(key: jax.Array, world: World, asked: float) -> np.ndarray:
  """Say which subjects the questions of a corpus are about.

  Args:
    key: The key of the corpus.
    world: The world.
    asked: Share of the subjects that questions are about.

  Returns:
    Bools [S]; facts of the others are never asked, so that questions about them
    measure whether a model generalises from one form to the other.
  """
  generator = batches.generator_of(jax.random.fold_in(key, 1))
  chosen = np.zeros(world.subjects, bool)
  count = int(asked * world.subjects)
  chosen[generator.choice(world.subjects, count, replace=False)] = True
  return chosen


def stream(
  corpus: Corpus, start: int = 0, stop: int | None = None
) -> Iterator[dict[str, jax.Array]]:
  """Yield the batches from step `start` to before `stop`, or without end."""
  step = start
  while stop is None or step < stop:
    yield batch(corpus, step)
    step += 1


def as_batches(corpus: Corpus) -> batches.Batches:
  """Make batches on the host of a corpus, for `training.fit`.

  Args:
    corpus: The corpus.

  Returns:
    Batches of `tokens` and `segments`; an epoch is the whole corpus.
  """

  def get(position: int) -> batches.Batch:
    found = batch(corpus, position)
    return {name: np.asarray(found[name]) for name in ("tokens", "segments")}

  return batches.Batches(get, corpus.plan.steps, corpus.plan.rows)


def _check(rows, copies, nested_copies, order, layout, shard):
  for name, value in (
    ("rows", rows),
    ("copies", copies),
    ("nested_copies", nested_copies),
  ):
    world_rules.check_count(name, value)
  for name, value, choices in (
    ("order", order, ORDERS),
    ("layout", layout, LAYOUTS),
  ):
    if value not in choices:
      raise ValueError(
        f"{name} must be one of {', '.join(choices)}, got {value!r}"
      )
  index, count = shard
  if not 0 <= index < count or rows % count:
    raise ValueError(
      f"shard {index} of {count} must lie in 0..{count - 1}, and {count} must"
      f" divide the {rows} rows of a batch"
    )


def _units(key, world, copies, questions, asked, nested_copies):
  """List what sentences are about: facts, whether asked, and how often."""
  families = worlds.FAMILIES if world.nest is not None else ("S-O",)
  listed = [worlds.facts(world, family) for family in families]
  facts = np.concatenate(listed)
  counts = np.full(len(facts), copies, np.int64)
  of_subjects = facts[:, 0] != worlds.FAMILIES.index("O-NO")
  counts[~of_subjects] *= nested_copies
  if world.frequency is not None:
    scaled = np.rint(copies * world.frequency).astype(np.int64)
    counts[of_subjects] = np.maximum(scaled, 1)[facts[of_subjects, 1]]
  asks = np.zeros(len(facts), bool)
  if not questions:
    return facts, asks, counts
  if not (0 < asked <= 1 and questions > 0):
    raise ValueError(
      "questions must be a share from 0 on, and asked one above 0 and at most"
      f" 1, got {questions!r} and {asked!r}"
    )
  chosen, times = (
    asked_subjects(key, world, asked),
    int(copies / asked * questions),
  )
  if not chosen.any() or not times:
    raise ValueError(
      f"questions={questions} and asked={asked} come to {times} questions about"
      f" each fact of {chosen.sum()} subjects: take more copies or subjects"
    )
  # Objects stand in the place of subjects in the last family.
  more = facts[of_subjects & chosen[np.where(of_subjects, facts[:, 1], 0)]]
  return (
    np.concatenate([facts, more]),
    np.concatenate([asks, np.ones(len(more), bool)]),
    np.concatenate([counts, np.full(len(more), times, np.int64)]),
  )


def _codes(words, patterns, facts, asks):
  """Return the codes of all sentences by kind and pattern, int32 [6, T, W]."""
  tail = [vocabulary.PERIOD, vocabulary.END]
  families = set(facts[:, 0].tolist())
  asked = sentences.FORMS["question"] if asks.any() else None
  listed = []
  for question in (False, True):
    for family in range(len(worlds.FAMILIES)):
      for pattern, _ in patterns:
        chosen = asked if question else pattern
        known = family in families and chosen is not None
        listed.append(
          [*sentences.codes(words, chosen, family), *tail] if known else []
        )
  table, _ = sentences.pad(listed)
  return table.reshape(2 * len(worlds.FAMILIES), len(patterns), -1)


def _dissenting(world, words, facts):
  if world.minority is None:
    return None
  other = world.minority[facts[:, 1], facts[:, 2]]
  there = other >= 0
  changed = np.column_stack([facts[:, :3], np.where(there, other, 0)])
  return jnp.asarray(np.where(there, words.rows(changed)[:, 2], -1), jnp.int32)


def _by_subject(world, asks, counts):
  """Return how often each subject is written about."""
  if world.nest is not None or asks.any():
    raise ValueError(
      "biographies hold statements about subjects: the world must not be"
      " nested, and questions 0"
    )
  return counts.reshape(world.object.shape)[:, 0]


def _shape(layout, length, sizes, relations):
  """Return sentences and tokens of a row, and tokens of a sentence if fixed."""
  least, most = int(sizes.min()), int(sizes.max())
  if layout == "rows":
    return 1, most + 1, 0
  if layout == "biography":
    return relations, relations * most + 1, 0
  world_rules.check_count("length", length, most + 1)
  if least == most:
    return -(-(length + most - 1) // most), length, most
  return (length - 1) // most, length, 0
