"""The programs that make tokens: prefill, then one after the other.

Lengths are padded, so that few programs are compiled, and sequences of any
lengths go together: no token sees padding.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.models import llama
from effjax.models import sampling as sampling_lib


class Kind(NamedTuple):
  """What of the sampling is part of a program."""

  greedy: bool
  top_k: int | None
  top_p: bool
  penalised: bool


class Numbers(NamedTuple):
  """What of the sampling is given to a program; `keys` are one for each row."""

  keys: jax.Array
  temperature: jax.Array
  top_p: jax.Array
  penalty: jax.Array
  eos: jax.Array


class State(NamedTuple):
  """All sequences in the making.

  Attributes:
    cache: what the model has read.
    tokens: new tokens [B, T].
    count: how many of the T there are.
    positions: position of the last token of each sequence [B].
    done: which sequences have ended [B].
    seen: which tokens each has had [B, V]; [B, 0] where it does not matter.
  """

  cache: llama.Cache
  tokens: jax.Array
  count: jax.Array
  positions: jax.Array
  done: jax.Array
  seen: jax.Array


def bucket(count: int) -> int:
  """Return the length to which `count` is padded.

  Lengths are powers of two and one and a half times them, from 16 on.

  >>> [bucket(n) for n in (1, 16, 17, 25, 54, 65, 97)]
  [16, 16, 24, 32, 64, 96, 128]
  """
  size = 16
  while size < count:
    if size + size // 2 >= count:
      return size + size // 2
    size *= 2
  return size


def slots(count: int) -> int:
  """Return the number of slots of a cache for `count` tokens: a power of two.

  Fewer lengths than `bucket` has, since the program that decodes is the largest
  and empty slots cost little.

  >>> [slots(n) for n in (5, 128, 129)]
  [128, 128, 256]
  """
  return max(128, 1 << (count - 1).bit_length())


@functools.partial(jax.jit, static_argnums=1)
def row_keys(key, count):
  """Return a key for each of `count` rows."""
  rows = jnp.arange(count)
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


@functools.partial(jax.jit, static_argnums=(0, 1))
def prefill(module, size, params, tokens, lengths, before, past, parts):
  """Read prompts.

  Args:
    module: The model.
    size: Number of slots of the cache.
    params: The model's parameters.
    tokens: Tokens of the prompts [B, S], padded at the end.
    lengths: How many each has [B].
    before: Cache of one sequence that comes before all of them, or None.
    past: Number of its tokens.
    parts: As in `llama.Llama`.

  Returns:
    The logits after each prompt [B, V], and the cache.
  """
  batch, length = tokens.shape
  if before is not None and before.positions.shape == (batch, size):
    cache = before
  else:
    cache = llama.make_cache(
      module.config,
      batch,
      size,
      dtype=module.dtype,
      scan_layers=module.scan_layers,
    )
    if before is not None:
      cache = _placed(before, cache, module.scan_layers)
  columns = jnp.arange(length, dtype=jnp.int32)[None]
  positions = jnp.where(columns < lengths[:, None], past + columns, -1)
  hidden, cache = module.apply(
    {"params": params},
    tokens,
    positions,
    cache,
    empty=before is None,
    parts=parts,
    method="extend",
  )
  last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], 1)[:, 0]
  logits = module.apply({"params": params}, last, parts=parts, method="logits")
  return logits, cache


def _placed(
  before: llama.Cache, cache: llama.Cache, scanned: bool
) -> llama.Cache:
  """Put the cache of one sequence into the first slots of a larger one."""
  batch, held = cache.positions.shape[0], before.positions.shape[1]

  def place(old, new):
    axis = 1 if scanned else 0
    shape = (*old.shape[:axis], batch, *old.shape[axis + 1 :])
    return new.at[..., :held, :].set(jnp.broadcast_to(old, shape))

  positions = jnp.broadcast_to(before.positions, (batch, held))
  return llama.Cache(
    jax.tree.map(place, before.keys, cache.keys),
    jax.tree.map(place, before.values, cache.values),
    cache.positions.at[:, :held].set(positions),
    before.used,
  )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def begin(kind, cache, logits, seen, positions, numbers):
  """Choose the first tokens."""
  batch, slots = cache.positions.shape
  state = State(
    cache=cache,
    tokens=jnp.zeros((batch, slots), jnp.int32),
    count=jnp.int32(0),
    positions=positions,
    done=jnp.zeros(batch, bool),
    seen=seen,
  )
  return _choose(kind, logits, state, numbers)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def extend(module, kind, params, state, numbers, limit, parts):
  """Make tokens until there are `limit`, or all sequences have ended."""

  def go_on(state):
    return (state.count < limit) & ~jnp.all(state.done)

  def step(state):
    token = jax.lax.dynamic_slice_in_dim(state.tokens, state.count - 1, 1, 1)
    hidden, cache = module.apply(
      {"params": params},
      token,
      state.positions[:, None],
      state.cache,
      parts=parts,
      method="extend",
    )
    logits = module.apply(
      {"params": params}, hidden[:, 0], parts=parts, method="logits"
    )
    return _choose(kind, logits, state._replace(cache=cache), numbers)

  return jax.lax.while_loop(go_on, step, state)


@functools.partial(jax.jit, static_argnums=0)
def take(scanned, state, numbers, rows):
  """Go on with some of the sequences.

  Args:
    scanned: Whether the caches of all layers are one array.
    state: All sequences.
    numbers: What of the sampling is given for them.
    rows: Which to go on with [R].

  Returns:
    The state of these, and their numbers.
  """
  choose = functools.partial(jnp.take, indices=rows, axis=0)
  held = functools.partial(jnp.take, indices=rows, axis=1 if scanned else 0)
  cache = state.cache
  return state._replace(
    cache=llama.Cache(
      jax.tree.map(held, cache.keys),
      jax.tree.map(held, cache.values),
      choose(cache.positions),
      cache.used,
    ),
    tokens=choose(state.tokens),
    positions=choose(state.positions),
    done=choose(state.done),
    seen=choose(state.seen),
  ), numbers._replace(keys=choose(numbers.keys))


def _choose(kind, logits, state, numbers) -> State:
  """Add a token to every sequence; those that have ended get 0."""
  if kind.penalised:
    logits = sampling_lib.penalise(logits, state.seen, numbers.penalty)
  if kind.greedy:
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  else:
    fold = jax.vmap(lambda key: jax.random.fold_in(key, state.count))
    token = sampling_lib.draw(
      fold(numbers.keys),
      logits,
      temperature=numbers.temperature,
      top_k=kind.top_k,
      top_p=numbers.top_p if kind.top_p else None,
    )
  token = jnp.where(state.done, 0, token)
  ended = jnp.any(token[:, None] == numbers.eos[None], axis=1)
  seen = state.seen
  if kind.penalised:
    seen = seen.at[jnp.arange(len(token)), token].set(True)
  zero = jnp.int32(0)
  return state._replace(
    tokens=jax.lax.dynamic_update_slice(
      state.tokens, token[:, None], (zero, state.count)
    ),
    count=state.count + 1,
    positions=state.positions + 1,
    done=state.done | ended,
    seen=seen,
  )


def padded(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
  """Return tokens [B, S], with zeros behind them, and their numbers [B]."""
  lengths = np.array([len(prompt) for prompt in prompts], np.int32)
  padded = np.zeros((len(prompts), bucket(max(lengths))), np.int32)
  for row, prompt in enumerate(prompts):
    padded[row, : len(prompt)] = prompt
  return padded, lengths
