import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax import data
from effjax.data import batches as batches_lib


@st.composite
def plans(draw):
  """Return (examples, batch size, shards), with whole shards."""
  count = draw(st.integers(1, 4))
  size = count * draw(st.integers(1, 5))
  return draw(st.integers(size, 60)), size, count


def arrays(length):
  return {"x": np.arange(length), "y": np.arange(length)[:, None] * 10}


def epoch(batches, number=0):
  start = number * batches.per_epoch
  return [batches[start + k]["x"] for k in range(batches.per_epoch)]


@given(plans(), st.integers(0, 2**32), st.integers(0, 3), st.booleans())
def test_every_example_at_most_once_an_epoch(plan, seed, number, shuffle):
  length, size, _ = plan
  batches = data.from_arrays(arrays(length), size, seed=seed, shuffle=shuffle)
  assert batches.per_epoch == length // size
  used = np.concatenate(epoch(batches, number))
  assert len(used) == size * (length // size)
  assert len(np.unique(used)) == len(used)
  if not shuffle:
    assert used.tolist() == list(range(len(used)))


@given(plans(), st.integers(0, 2**32))
def test_shards_are_disjoint_and_their_union_is_the_whole_batch(plan, seed):
  length, size, count = plan
  whole = data.from_arrays(arrays(length), size, seed=seed)
  shards = [
    data.from_arrays(arrays(length), size, seed=seed, shard=(index, count))
    for index in range(count)
  ]
  for position in (0, whole.per_epoch - 1, whole.per_epoch, 1000):
    parts = [shard[position]["x"] for shard in shards]
    assert {len(part) for part in parts} == {size // count}
    np.testing.assert_array_equal(np.concatenate(parts), whole[position]["x"])
  assert {shard.size for shard in shards} == {size // count}


@given(plans(), st.integers(0, 2**32), st.integers(0, 40))
def test_resumed_equals_uninterrupted(plan, seed, start):
  length, size, _ = plan
  make = lambda: data.from_arrays(arrays(length), size, seed=seed)
  uninterrupted = list(itertools.islice(make(), start + 5))[start:]
  resumed = itertools.islice(make().iterate(start), 5)
  for one, other in zip(uninterrupted, resumed, strict=True):
    np.testing.assert_array_equal(one["x"], other["x"])
    np.testing.assert_array_equal(one["y"], other["x"][:, None] * 10)


@given(st.permutations(range(12)))
def test_order_of_access_does_not_matter(positions):
  batches = data.from_arrays(arrays(13), 4, seed=3)
  straight = [batches[k]["x"].tolist() for k in range(12)]
  assert [batches[k]["x"].tolist() for k in positions] == [
    straight[k] for k in positions
  ]


def test_epochs_and_seeds_differ():
  first = data.from_arrays(arrays(64), 8, seed=0)
  second = data.from_arrays(arrays(64), 8, seed=1)
  orders = [epoch(first, 0), epoch(first, 1), epoch(second, 0)]
  assert len({str(np.concatenate(order)) for order in orders}) == 3


def test_order_is_frozen():
  """A checkpoint means the same examples in every version."""
  batches = data.from_arrays(arrays(10), 5, seed=7)
  assert batches[0]["x"].tolist() == [6, 9, 1, 5, 0]
  assert batches[3]["x"].tolist() == [0, 4, 9, 3, 1]


def test_augmentation_depends_on_the_position_only():
  def augment(generator, batch):
    return {"x": batch["x"] + generator.random(len(batch["x"]))}

  make = lambda **k: data.from_arrays(
    {"x": np.zeros(20)}, 4, seed=0, augment=augment, **k
  )
  batches = make()
  forward = [batches[k]["x"] for k in range(6)]
  backward = [make()[k]["x"] for k in reversed(range(6))][::-1]
  np.testing.assert_array_equal(forward, backward)
  assert len(np.unique(forward)) == 24
  shards = [make(shard=(k, 2))[0]["x"] for k in range(2)]
  assert (shards[0] != shards[1]).all()


def test_stack_adds_a_leading_axis_of_members():
  members = [data.from_arrays(arrays(12), 4, seed=seed) for seed in range(3)]
  stacked = data.stack(members)
  assert (stacked.per_epoch, stacked.size) == (3, 4)
  for position in (0, 5):
    batch = stacked[position]
    assert batch["x"].shape == (3, 4)
    assert batch["y"].shape == (3, 4, 1)
    for k, member in enumerate(members):
      np.testing.assert_array_equal(batch["x"][k], member[position]["x"])


def test_user_errors():
  with pytest.raises(ValueError, match=r"common length, not .*'y': 4"):
    data.from_arrays({"x": np.zeros(3), "y": np.zeros(4)}, 2, seed=0)
  with pytest.raises(ValueError, match="batch of 5 cannot be made of 4"):
    data.from_arrays({"x": np.zeros(4)}, 5, seed=0)
  with pytest.raises(ValueError, match="must divide the batch size 4"):
    data.from_arrays({"x": np.zeros(9)}, 4, seed=0, shard=(0, 3))
  with pytest.raises(ValueError, match=r"Shard 2 of 2 must lie in 0\.\.1"):
    data.from_arrays({"x": np.zeros(9)}, 4, seed=0, shard=(2, 2))
  with pytest.raises(IndexError, match="start at 0"):
    data.from_arrays({"x": np.zeros(9)}, 4, seed=0)[-1]
  with pytest.raises(ValueError, match="must agree"):
    data.stack(
      [data.from_arrays({"x": np.zeros(9)}, size, seed=0) for size in (3, 4)]
    )
  with pytest.raises(ValueError, match="be none"):
    data.stack([])


class Examples:
  """Examples that are read one at a time."""

  def __init__(self, length):
    self.length = length

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    if index == 13:
      raise ValueError("example 13 is damaged")
    return {"x": np.int64(index), "y": np.array([index * 10])}


@settings(deadline=None, max_examples=15)
@given(plans(), st.integers(0, 2**32), st.sampled_from([0, 2]), st.data())
def test_from_source_equals_from_arrays(plan, seed, threads, positions):
  length, size, count = plan
  length = min(length, 13)
  if size > length:
    size, count = length, 1
  for index in range(count):
    shard = (index, count)
    lazy = batches_lib.from_source(
      Examples(length), size, seed=seed, shard=shard, threads=threads
    )
    eager = data.from_arrays(arrays(length), size, seed=seed, shard=shard)
    assert (lazy.per_epoch, lazy.size) == (eager.per_epoch, eager.size)
    for position in [0, 1, 2, positions.draw(st.integers(0, 50)), 3]:
      np.testing.assert_array_equal(lazy[position]["x"], eager[position]["x"])
      np.testing.assert_array_equal(lazy[position]["y"], eager[position]["y"])


def test_transform_of_a_source_ignores_threads_and_shards():
  def transform(generator, example):
    return {"x": example["x"], "noise": generator.random()}

  make = lambda **k: batches_lib.from_source(
    Examples(12), 4, seed=0, transform=transform, **k
  )
  alone = make(threads=0)
  threaded = make(threads=3)
  halves = [make(threads=0, shard=(k, 2)) for k in range(2)]
  seen = set()
  for position in (0, 1, 2, 3, 0, 7):
    batch = alone[position]
    parts = [half[position] for half in halves]
    for name in ("x", "noise"):
      np.testing.assert_array_equal(batch[name], threaded[position][name])
      joined = np.concatenate([part[name] for part in parts])
      np.testing.assert_array_equal(batch[name], joined)
    seen |= set(batch["noise"].tolist())
  assert len(seen) == 20  # five positions: epochs do not repeat the noise


def test_a_damaged_example_is_an_error_and_can_be_passed_over():
  batches = batches_lib.from_source(
    Examples(16), 4, seed=0, shuffle=False, threads=2
  )
  assert batches[0]["x"].tolist() == [0, 1, 2, 3]
  with pytest.raises(ValueError, match="example 13 is damaged"):
    batches[3]
  assert batches[2]["x"].tolist() == [8, 9, 10, 11]
  assert batches[4]["x"].tolist() == [0, 1, 2, 3]
