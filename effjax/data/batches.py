"""Batches by position: deterministic, resumable and shardable by construction.

A `Batches` is a pure function from a position to a batch. Where a run stands
is one number, so a resumed run sees what an uninterrupted one would have seen.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Batches:
  """Random access to an endless sequence of batches.

  Attributes:
    get: function of a position >= 0 to a batch, a dict of arrays [B, ...].
    per_epoch: number of batches in an epoch.
    size: number of examples B in a batch (of this shard).
  """

  get: Callable[[int], Batch]
  per_epoch: int
  size: int

  def __getitem__(self, position: int) -> Batch:
    """Return the batch at a position."""
    if position < 0:
      raise IndexError(
        f"Batch {position} does not exist; positions start at 0."
      )
    return self.get(int(position))

  def iterate(self, start: int = 0) -> Iterator[Batch]:
    """Iterate without end, from the batch at position `start`."""
    position = start
    while True:
      yield self[position]
      position += 1

  def __iter__(self) -> Iterator[Batch]:
    """Iterate without end from the first batch."""
    return self.iterate()


def generator(seed: int, *counters: int) -> np.random.Generator:
  """Return the numpy generator of a seed and counters, such as an epoch.

  Philox is a function of key and counter: generators of different counters
  are independent streams, and none depends on an earlier one.
  """
  sequence = np.random.SeedSequence(seed, spawn_key=counters)
  return np.random.Generator(np.random.Philox(sequence))


def generator_of(key) -> np.random.Generator:
  """Return the numpy generator of a typed jax key, for work on the host.

  Equal keys give equal generators, and the keys that `jax.random.split` and
  `fold_in` derive give independent ones.
  """
  import jax

  words = np.asarray(jax.random.key_data(key)).tolist()
  return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def order(seed: int, epoch: int, length: int, shuffle: bool) -> np.ndarray:
  """Return the order of the examples in an epoch, int64 [length]."""
  if not shuffle:
    return np.arange(length)
  return generator(seed, 0, epoch).permutation(length)


def from_arrays(
  arrays: Mapping[str, np.ndarray],
  batch_size: int,
  *,
  seed: int,
  shuffle: bool = True,
  shard: tuple[int, int] = (0, 1),
  augment: Callable[[np.random.Generator, Batch], Batch] | None = None,
) -> Batches:
  """Make batches of arrays that lie in memory.

  In an epoch every example is used once, in an order that depends on the seed
  and the epoch only; the remainder that fills no batch is dropped, another
  one in each epoch. With several shards (hosts) each batch of `batch_size`
  examples is divided among them, so that their union is the batch of a single
  host.

  Args:
    arrays: arrays [N, ...] with one leading axis of examples.
    batch_size: examples of a batch over all shards.
    seed: chooses the order and the augmentation.
    shuffle: whether to shuffle; if not, the order is that of the arrays.
    shard: (index, count) of this host; count divides `batch_size`.
    augment: function of a numpy generator and a batch to a batch. The
      generator depends on seed, position and shard only.

  Returns:
    The batches.

  Raises:
    ValueError: arrays of different lengths, a batch larger than the data, or
      a shard that does not divide the batch.

  Example:
    >>> batches = from_arrays({"x": np.arange(10)}, 4, seed=0, shuffle=False)
    >>> batches.per_epoch, batches[1]["x"].tolist(), batches[2]["x"].tolist()
    (2, [4, 5, 6, 7], [0, 1, 2, 3])
  """
  arrays = {name: np.asarray(array) for name, array in arrays.items()}
  lengths = {name: len(array) for name, array in arrays.items()}
  if len(set(lengths.values())) != 1:
    raise ValueError(f"Arrays must have one common length, not {lengths}.")
  length = next(iter(lengths.values()))
  size = _shard_size(batch_size, length, shard)
  rows = _positions(seed, length, batch_size, shuffle, shard)

  def get(position: int) -> Batch:
    index = rows(position)
    batch = {name: array[index] for name, array in arrays.items()}
    if augment is None:
      return batch
    return augment(generator(seed, 1, position, shard[0]), batch)

  return Batches(get, length // batch_size, size)


def _shard_size(batch_size: int, length: int, shard: tuple[int, int]) -> int:
  index, count = shard
  if not 0 < batch_size <= length:
    raise ValueError(
      f"A batch of {batch_size} cannot be made of {length} examples."
    )
  if not 0 <= index < count or batch_size % count:
    raise ValueError(
      f"Shard {index} of {count} must lie in 0..{count - 1}, and {count} must"
      f" divide the batch size {batch_size}."
    )
  return batch_size // count


def _positions(
  seed: int, length: int, batch_size: int, shuffle: bool, shard: tuple[int, int]
) -> Callable[[int], np.ndarray]:
  """Return the function from a position to the rows of this shard's batch."""
  index, count = shard
  size = batch_size // count
  per_epoch = length // batch_size
  # The order of the latest epoch, kept: a permutation of 60,000 costs a
  # millisecond, more than a batch. It is a value, so keeping it is harmless.
  latest: dict[int, np.ndarray] = {}

  def rows(position: int) -> np.ndarray:
    epoch, step = divmod(position, per_epoch)
    whole = latest.get(epoch)
    if whole is None:
      whole = order(seed, epoch, length, shuffle)
      latest.clear()
      latest[epoch] = whole
    start = step * batch_size + index * size
    return whole[start : start + size]

  return rows


def from_source(
  source,
  batch_size: int,
  *,
  seed: int,
  shuffle: bool = True,
  shard: tuple[int, int] = (0, 1),
  transform: Callable[[np.random.Generator, Mapping], Batch] | None = None,
  threads: int = 4,
) -> Batches:
  """Make batches of examples that are read one at a time, through grain.

  The order is that of `from_arrays`. Batches that are taken one after another
  are prepared ahead by threads; any other position restarts them there, with
  the same result.

  Args:
    source: anything with `len(source)` and `source[i]`, a dict of arrays:
      a `Source`, a TFDS data source, a grain data source.
    batch_size: examples of a batch over all shards.
    seed: chooses the order and the augmentation.
    shuffle: whether to shuffle; if not, the order is that of the source.
    shard: (index, count) of this host; count divides `batch_size`.
    transform: function of a numpy generator and an example to a dict of
      arrays. The generator depends on the seed and on the example's position
      in the endless sequence only, not on shards or threads.
    threads: batches that are prepared ahead, each by a thread of its own; 0
      reads in the caller's thread.

  Returns:
    The batches.

  Raises:
    ValueError: a batch larger than the data, or a shard that does not divide
      the batch.
  """
  import grain

  length = len(source)
  size = _shard_size(batch_size, length, shard)
  per_epoch = length // batch_size
  rows = _positions(seed, length, batch_size, shuffle, shard)

  def example(index: int) -> Mapping[str, np.ndarray]:
    position, offset = divmod(int(index), size)
    found = source[int(rows(position)[offset])]
    if transform is None:
      return found
    place = position * batch_size + shard[0] * size + offset
    return transform(generator(seed, 2, place), found)

  # A million epochs stand for an endless sequence.
  examples = grain.MapDataset.range(size * per_epoch * 10**6).map(example)
  batches: Any = examples.batch(size, drop_remainder=True)
  if threads == 0:
    return Batches(lambda position: batches[position], per_epoch, size)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
  return Batches(_Ahead(batches, options), per_epoch, size)


class _Ahead:
  """A function of a position that prepares the following ones meanwhile.

  What it remembers (where the threads are) changes how long a call takes, not
  what it returns.
  """

  def __init__(self, batches, options):
    self._iterator = iter(batches.to_iter_dataset(options))
    self._next = 0
    self._lock = threading.Lock()

  def __call__(self, position: int) -> Batch:
    with self._lock:
      if position != self._next:
        self._iterator.set_state({"next_index": position})
      self._next = -1  # unknown, if reading fails
      batch = next(self._iterator)
      self._next = position + 1
      return batch


def stack(members: Sequence[Batches]) -> Batches:
  """Join the batches of several runs along a new leading axis.

  Args:
    members: M batches with equal `per_epoch` and `size`.

  Returns:
    Batches of arrays [M, B, ...].

  Raises:
    ValueError: no members, or members that differ in size or epoch length.
  """
  kinds = {(member.per_epoch, member.size) for member in members}
  if len(kinds) != 1:
    raise ValueError(
      "Stacked batches must agree in (per_epoch, size), not"
      f" {sorted(kinds) or 'be none'}."
    )
  per_epoch, size = kinds.pop()

  def get(position: int) -> Batch:
    batches = [member[position] for member in members]
    return {
      name: np.stack([batch[name] for batch in batches]) for name in batches[0]
    }

  return Batches(get, per_epoch, size)
