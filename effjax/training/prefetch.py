"""Batches read one ahead of the step that needs them."""

import concurrent.futures
from collections.abc import Callable
from typing import Any, Protocol

from effjax.training.step import Batch


class Batches(Protocol):
  """Anything that gives a batch for a position, the same one every time."""

  def __getitem__(self, position: int) -> Any:
    """Return the batch at a position."""
    ...


class Prefetch:
  """A context that gives batches in order and fetches the next one meanwhile.

  Args:
    batches: What to read from.
    place: Puts a batch on the devices; it runs in the thread too.
    position: The first position.
    count: How many batches there will be.
  """

  def __init__(
    self,
    batches: Batches,
    place: Callable[[Batch], Any],
    position: int,
    count: int,
  ):
    self._batches, self._place = batches, place
    self._position, self._end = position, position + count
    self._pool = concurrent.futures.ThreadPoolExecutor(
      1, thread_name_prefix="batches"
    )

  def __enter__(self) -> Callable[[], Any]:
    self._submit()
    return self._take

  def __exit__(self, *_: object) -> None:
    self._pool.shutdown(cancel_futures=True)

  def _submit(self) -> None:
    read = lambda position: self._place(self._batches[position])
    self._next = self._pool.submit(read, self._position)
    self._position += 1

  def _take(self) -> Any:
    batch = self._next.result()
    if self._position < self._end:
      self._submit()
    return batch
