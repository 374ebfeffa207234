"""How rows of a corpus are written inside of a compiled program."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from effjax.data import permutations, sentences, vocabulary

# Keys of what is drawn, see `corpora.make_corpus` for 1.
_ORDER, _DRAWS, _BIOGRAPHY = 2, 3, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What of a corpus is known before compiling.

  Attributes:
    rows: rows of a batch of this host, B.
    all_rows: rows of a batch of all hosts.
    first_row: first of these rows that is this host's.
    per_row: sentences that a row is made of, K.
    length: tokens of a row, L.
    fixed: tokens of a sentence if rows are cut without regard to sentences,
      otherwise 0.
    layout: see `corpora.make_corpus`.
    order: likewise.
    cycle: sentences, or biographies, until an order begins anew.
    fillers: most fillers of a sentence.
    minority_share: share of sentences with the dissenting object, of facts that
      have one.
    copies: how often each fact is stated.
    sentences: sentences of the whole corpus.
    tokens: tokens of the whole corpus, in the mean where patterns differ.
    steps: batches that hold the whole corpus.
  """

  rows: int
  all_rows: int
  first_row: int
  per_row: int
  length: int
  fixed: int
  layout: str
  order: str
  cycle: int
  fillers: int
  minority_share: float
  copies: int
  sentences: int
  tokens: int
  steps: int


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=(
    "key",
    "table",
    "words",
    "kinds",
    "dissenting",
    "ends",
    "codes",
    "chances",
    "fillers",
  ),
  meta_fields=("plan",),
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
  """A corpus: arrays that a compiled program is given, and a plan.

  A unit is a fact, as a statement or as a question.

  Attributes:
    key: draws everything.
    table: tokens of each word, int32 [words, 2].
    words: rows of the table of subject, relation and value, int32 [U, 3].
    kinds: family of each unit, and 3 more for questions, int32 [U].
    dissenting: row of the table of a dissenting object, -1 without, int32 [U];
      None where no fact has one.
    ends: sentences of an order about this unit or those before it, uint32 [U];
      None where there is one about each. Of biographies for subjects.
    codes: sentences by kind and pattern, int32 [6, T, W].
    chances: probability of a pattern or those before it, float32 [T].
    fillers: tokens that fillers are drawn from, int32.
    plan: the rest.
  """

  key: jax.Array
  table: jax.Array
  words: jax.Array
  kinds: jax.Array
  dissenting: jax.Array | None
  ends: jax.Array | None
  codes: jax.Array
  chances: jax.Array
  fillers: jax.Array
  plan: Plan


def write(corpus: Corpus, step: jax.Array | int) -> dict[str, jax.Array]:
  """Write the rows of a step, see `corpora.batch`."""
  plan = corpus.plan
  step = jnp.asarray(step).astype(jnp.uint32)
  rows = step * jnp.uint32(plan.all_rows) + jnp.uint32(plan.first_row)
  rows = rows + jnp.arange(plan.rows, dtype=jnp.uint32)
  if plan.layout == "biography":
    units = _biographies(corpus, rows)
    offset, positions = None, _numbers(rows * jnp.uint32(plan.per_row), plan)
  else:
    first, offset = _first(rows, plan)
    positions = _numbers(first, plan)
    units = _find(corpus, positions)
  tokens = _sentences(corpus, units, positions)
  found, segments = _lay_out(tokens, offset, plan)
  return {
    "tokens": found,
    "segments": segments,
    "units": units.astype(jnp.int32),
  }


def _numbers(first: jax.Array, plan: Plan) -> jax.Array:
  more = jnp.arange(plan.per_row, dtype=jnp.uint32)
  return first[:, None] + more[None]


def _first(rows, plan):
  """Return the first sentence of each row, and where the row begins in it."""
  if not plan.fixed:
    return rows * jnp.uint32(plan.per_row), None
  # Row t begins at token t L; this product would not fit 32 bits.
  whole, rest = divmod(plan.length, plan.fixed)
  size = jnp.uint32(plan.fixed)
  beyond = (rows % size) * jnp.uint32(rest)
  first = rows * jnp.uint32(whole) + (rows // size) * jnp.uint32(rest)
  return first + beyond // size, (beyond % size).astype(jnp.int32)


def _find(corpus: Corpus, positions: jax.Array) -> jax.Array:
  """Return which unit the sentences at some positions are about."""
  plan = corpus.plan
  key = jax.random.fold_in(corpus.key, _ORDER)
  count = jnp.uint32(plan.cycle)
  if plan.order == "permutation":
    found = permutations.permute(
      key, positions // count, positions % count, plan.cycle
    )
  else:
    draw = lambda p: jax.random.randint(
      jax.random.fold_in(key, p), (), jnp.uint32(0), count, jnp.uint32
    )
    found = jax.vmap(draw)(positions.reshape(-1)).reshape(positions.shape)
  if corpus.ends is None:
    return found
  return jnp.searchsorted(corpus.ends, found, side="right").astype(jnp.uint32)


def _biographies(corpus, rows):
  """Return all facts of a subject for each row, in any order."""
  relations = corpus.plan.per_row
  key = jax.random.fold_in(corpus.key, _BIOGRAPHY)
  draw = lambda row: jax.random.permutation(
    jax.random.fold_in(key, row), relations
  )
  subject = _find(corpus, rows)[:, None] * jnp.uint32(relations)
  return subject + jax.vmap(draw)(rows).astype(jnp.uint32)


def _sentences(corpus, units, positions):
  """Write sentences, int32 [B, K, W]."""
  plan, shape = corpus.plan, units.shape
  patterns = corpus.chances.shape[0]
  words = corpus.words[units]
  random: Any = None
  if patterns > 1 or plan.fillers or corpus.dissenting is not None:
    key = jax.random.fold_in(corpus.key, _DRAWS)
    draw = lambda p: jax.random.uniform(
      jax.random.fold_in(key, p), (2 + plan.fillers,)
    )
    random = jax.vmap(draw)(positions.reshape(-1)).reshape(*shape, -1)
  if corpus.dissenting is not None:
    other = corpus.dissenting[units]
    used = (other >= 0) & (random[..., 0] < plan.minority_share)
    value = jnp.where(used, other, words[..., 2])
    words = jnp.concatenate([words[..., :2], value[..., None]], axis=-1)
  places = corpus.table[words].reshape(*shape, -1)
  if plan.fillers:
    count = corpus.fillers.shape[0]
    drawn = jnp.floor(random[..., 2:] * count).astype(jnp.int32)
    drawn = corpus.fillers[jnp.minimum(drawn, count - 1)]
    places = jnp.concatenate([places, drawn], axis=-1)
  pattern = jnp.zeros(shape, jnp.int32)
  if patterns > 1:
    pattern = jnp.searchsorted(corpus.chances, random[..., 1], side="right")
    pattern = jnp.minimum(pattern, patterns - 1)
  return sentences.fill(corpus.codes[corpus.kinds[units], pattern], places)


def _lay_out(tokens, offset, plan):
  """Put the sentences of each row one behind the other."""
  rows, count, size = tokens.shape
  if count == 1 and not plan.fixed:
    found = jnp.pad(tokens[:, 0], ((0, 0), (1, 0)))  # the end of text is 0
    return found, (found != vocabulary.PADDING).astype(jnp.int32)
  if plan.fixed:
    cut = lambda row, start: jax.lax.dynamic_slice(
      row, (start,), (plan.length,)
    )
    found = jax.vmap(cut)(tokens.reshape(rows, -1), offset)
    place = jnp.arange(plan.length, dtype=jnp.int32)[None] + offset[:, None]
    return found, place // plan.fixed + 1
  # Scattered, because gathers and searches of every token are slower.
  there = tokens != vocabulary.PADDING
  lengths = there.sum(axis=2, dtype=jnp.int32)
  begin = 1 + jnp.cumsum(lengths, axis=1) - lengths
  begin += jnp.arange(rows, dtype=jnp.int32)[:, None] * plan.length
  place = begin[..., None] + jnp.arange(size, dtype=jnp.int32)[None, None]
  place = jnp.where(there, place, rows * plan.length).reshape(-1)
  number = jnp.arange(1, count + 1, dtype=jnp.int32)[None, :, None]
  spread = lambda start, values: (
    jnp.full(rows * plan.length, start, jnp.int32)
    .at[place]
    .set(values.reshape(-1), mode="drop")
    .reshape(rows, plan.length)
  )
  found = spread(vocabulary.PADDING, tokens)
  segments = spread(0, jnp.broadcast_to(number, tokens.shape))
  return found.at[:, 0].set(vocabulary.END), segments.at[:, 0].set(1)
