"""Batches of tokens: several texts in a row, or rows of like length.

A batch is a dict of arrays over B rows:

  tokens     int32 [B, S]
  positions  int32 [B, S], the place of each token in its own text
  segments   int32 [B, S], the number of the text in its row from 1 on; 0 is
             padding, -1 what all texts of the row begin with
  places     int32 [B, K], the columns whose next token counts
  targets    int32 [B, K], these next tokens
  weights    float32 [B, K], 0 where there is none; with a sum of B over the
             batch, so that the mean over rows of their weighted sums is the
             mean over all tokens that count, which are equal, or the mean over
             texts of the means over theirs

Only responses count. S and K are rounded up, so that few shapes are compiled.
What all texts begin with, such as the instructions of a system, may stand once
in a row: what a model makes of it is the same for all of them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from effjax.data import batches
from effjax.data.dialogues import Example

_SHARES = 8  # K is a multiple of so many parts of S
REDUCTIONS = ("token", "per_example")


def packed(
  examples: Sequence[Example],
  rows: int,
  length: int,
  *,
  seed: int,
  shuffle: bool = True,
  reduction: str = "token",
  variants: Callable[[int], Sequence[Example]] | None = None,
  beginning: int = 0,
) -> batches.Batches:
  """Put as many texts into each row as it has room for.

  The longest texts choose their rows first, each the fullest that has room
  (best fit decreasing). How many rows an epoch has depends on the lengths only;
  which texts meet, and the order of the rows, on seed and epoch. Rows that fill
  no batch are dropped, others in each epoch.

  Args:
    examples: The texts.
    rows: Rows of a batch B.
    length: Tokens of a row S.
    seed: Chooses the order.
    shuffle: Whether to shuffle.
    reduction: "token": all tokens of a batch weigh the same; "per_example": all
      texts do, however long they are.
    variants: From an epoch to the texts as they are in it, in the same order
      and none longer than in `examples`, by whose lengths rows are filled; by
      default those of `examples`.
    beginning: How many tokens of the prompts are the same in all texts, of all
      variants too, see `common_beginning`; they stand once in each row.

  Returns:
    The batches.

  Raises:
    ValueError: If a text is longer than a row, they do not fill one batch,
      there is no such reduction, or texts do not begin alike. The last is seen
      of a batch when it is made.

  >>> example = Example(np.arange(4, dtype=np.int32), 2)
  >>> batch = packed([example] * 4, 2, 10, seed=0)[0]
  >>> batch["segments"].tolist()
  [[1, 1, 1, 1, 2, 2, 2, 2, 0, 0], [1, 1, 1, 1, 2, 2, 2, 2, 0, 0]]
  """
  if reduction not in REDUCTIONS:
    raise ValueError(
      f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}"
    )
  sizes = np.array([len(example.tokens) for example in examples])
  _check_beginning(examples, beginning)
  if not len(sizes) or sizes.max() > length:
    longest = sizes.max() if len(sizes) else 0
    raise ValueError(
      f"rows of length={length} must hold every text, and there must be one;"
      f" the longest of {len(sizes)} has {longest} tokens"
    )

  # What stands once takes room once.
  sizes, room_of_row = sizes - beginning, length - beginning

  def fill(epoch: int) -> list[list[int]]:
    order = batches.order(seed, epoch, len(sizes), shuffle)
    order = order[np.argsort(-sizes[order], kind="stable")]
    found: list[list[int]] = []
    room = np.zeros(0, int)
    for text in order.tolist():
      fitting = np.flatnonzero(room >= sizes[text])
      if fitting.size:
        row = fitting[np.argmin(room[fitting])]
      else:
        row = len(found)
        found.append([])
        room = np.append(room, room_of_row)
      found[row].append(text)
      room[row] -= sizes[text]
    shuffled = batches.order(seed + 1, epoch, len(found), shuffle)
    return [found[row] for row in shuffled]

  per_epoch = len(fill(0)) // rows
  if not per_epoch:
    raise ValueError(
      f"the texts fill {len(fill(0))} rows of {length} tokens, and a batch has"
      f" {rows}: take fewer rows, or shorter ones"
    )
  plans = _Latest(fill)
  own = None if variants is None else _Latest(variants)

  def get(position: int) -> batches.Batch:
    epoch, number = divmod(position, per_epoch)
    chosen = plans(epoch)[number * rows : (number + 1) * rows]
    there = examples if own is None else own(epoch)
    texts = [[there[i] for i in row] for row in chosen]
    return _batch(texts, length, reduction, beginning)

  return batches.Batches(get, per_epoch, rows)


def common_beginning(examples: Sequence[Example]) -> int:
  """Count the tokens with which all prompts begin.

  Args:
    examples: Texts.

  Returns:
    How many; less than any prompt has, since the last token of a prompt
    foretells a response.

  >>> texts = [[7, 8, 9, 1], [7, 8, 9, 2], [7, 8, 5, 6]]
  >>> common_beginning([Example(np.array(text), 3) for text in texts])
  2
  """
  if not examples:
    return 0
  most = max(min(example.prompt for example in examples) - 1, 0)
  first = np.stack([example.tokens[:most] for example in examples])
  same = np.all(first == first[0], axis=0)
  return most if same.all() else int(np.argmin(same))


def _check_beginning(texts: Sequence[Example], beginning: int) -> None:
  """Refuse texts that do not begin with so many tokens of the first."""
  if beginning < 0:
    raise ValueError(f"beginning counts tokens, got {beginning}")
  if texts and (found := common_beginning(texts)) < beginning:
    raise ValueError(
      f"the prompts of {len(texts)} texts begin with {found} tokens that are"
      f" the same, the last of the shortest left out, not with {beginning}"
    )


def bucketed(
  examples: Sequence[Example],
  rows: int,
  *,
  seed: int,
  multiple: int = 64,
  window: int = 32,
  shuffle: bool = True,
) -> batches.Batches:
  """Put one text into each row, and texts of like length into a batch.

  Args:
    examples: The texts.
    rows: Rows of a batch B.
    seed: Chooses the order.
    multiple: Of which the length S of a batch is a multiple.
    window: Batches within which texts are sorted by length.
    shuffle: Whether to shuffle; if not, the last batch is filled up with rows
      that do not count, so that each text counts once.

  Returns:
    The batches.

  Raises:
    ValueError: If there are fewer texts than rows, and they are shuffled.
  """
  sizes = np.array([len(example.tokens) for example in examples])
  per_epoch = len(sizes) // rows if shuffle else -(-len(sizes) // rows)
  if not per_epoch:
    raise ValueError(
      f"{len(sizes)} texts do not fill a batch of {rows} rows: take fewer rows"
    )

  def sort(epoch: int) -> list[np.ndarray]:
    order = batches.order(seed, epoch, len(sizes), shuffle)
    found = []
    for start in range(0, len(order), rows * window):
      some = order[start : start + rows * window]
      some = some[np.argsort(sizes[some], kind="stable")]
      found += [some[i : i + rows] for i in range(0, len(some), rows)]
    full = [part for part in found if len(part) == rows or not shuffle]
    shuffled = batches.order(seed + 1, epoch, len(full), shuffle)
    return [full[number] for number in shuffled]

  plans = _Latest(sort)

  def get(position: int) -> batches.Batch:
    epoch, number = divmod(position, per_epoch)
    chosen = plans(epoch)[number]
    size = int(-(-sizes[chosen].max() // multiple)) * multiple
    texts = [[examples[i]] for i in chosen]
    return _batch([*texts, *[[]] * (rows - len(texts))], size)

  return batches.Batches(get, per_epoch, rows)


class _Latest:
  """Remembers what was planned for the latest epoch."""

  def __init__(self, make: Callable[[int], Sequence]):
    self._make = make
    self._kept: tuple[int, Sequence] = (-1, [])

  def __call__(self, epoch: int) -> Sequence:
    # Read once: a batch is fetched in another thread.
    kept = self._kept
    if kept[0] != epoch:
      kept = self._kept = (epoch, self._make(epoch))
    return kept[1]


def _batch(
  rows: Sequence[Sequence[Example]],
  length: int,
  reduction: str = "token",
  beginning: int = 0,
) -> batches.Batch:
  """Write texts into rows."""
  shape = (len(rows), length)
  arrays: batches.Batch = {
    name: np.zeros(shape, np.int32)
    for name in ("tokens", "positions", "segments")
  }
  counted: list[tuple[list[int], list[int], list[float]]] = []
  for row, texts in enumerate(rows):
    start, places, targets, weights = 0, [], [], []
    if beginning:
      _check_beginning(texts, beginning)
      arrays["tokens"][row, :beginning] = texts[0].tokens[:beginning]
      arrays["positions"][row, :beginning] = np.arange(beginning)
      arrays["segments"][row, :beginning] = -1
      start = beginning
    for number, (tokens, prompt) in enumerate(texts, 1):
      tokens, prompt = tokens[beginning:], prompt - beginning
      stop = start + len(tokens)
      arrays["tokens"][row, start:stop] = tokens
      arrays["positions"][row, start:stop] = beginning + np.arange(len(tokens))
      arrays["segments"][row, start:stop] = number
      # The first token of a response is foretold by the last of its prompt.
      places += range(start + max(prompt, 1) - 1, stop - 1)
      own = tokens[max(prompt, 1) :].tolist()
      targets += own
      share = 1.0 if reduction == "token" else 1 / max(len(own), 1)
      weights += [share] * len(own)
      start = stop
    counted.append((places, targets, weights))
  most = max(len(places) for places, _, _ in counted)
  step = max(length // _SHARES, 1)
  size = max(-(-most // step) * step, step)
  # Of equal weights the sum is a whole number, without any rounding.
  total = sum(sum(weights) for _, _, weights in counted)
  for name in ("places", "targets"):
    arrays[name] = np.zeros((len(rows), size), np.int32)
  arrays["weights"] = np.zeros((len(rows), size), np.float32)
  for row, (places, targets, weights) in enumerate(counted):
    arrays["places"][row, : len(places)] = places
    arrays["targets"][row, : len(targets)] = targets
    scaled = np.asarray(weights) * len(rows) / total
    arrays["weights"][row, : len(places)] = scaled
  return arrays
