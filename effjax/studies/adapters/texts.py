"""The tales that a model learns from, and those it is judged on."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from effjax import data
from effjax.data import batches, dialogues, tales
from effjax.data.dialogues import Dialogue, Example

PARTS = ("train", "validation", "test")


class Texts(NamedTuple):
  """Dialogues of tales, no tale in two parts.

  Attributes:
    examples: For each of `PARTS` its dialogues as tokens.
    titles: For each part its tales.
    too_long: How many dialogues were left out because they are too long.
    shown: A dialogue of the test part, to show what models make of it.
  """

  examples: dict[str, list[Example]]
  titles: dict[str, list[str]]
  too_long: int
  shown: Dialogue


def prepare(config: Any, tokenizer: Any) -> Texts:
  """Cut tales into dialogues and split them by tale.

  Args:
    config: `data` and `length` of the study.
    tokenizer: A `models.tokenizers.Tokenizer`.

  Returns:
    The texts.

  Raises:
    ValueError: If there are fewer tales than are asked for, or a part has no
      dialogue that is short enough.
    FileNotFoundError: If the tales are not on this machine.
  """
  chosen = config.data
  found = data.source("tales", "all", directory=chosen.directory or None)
  counts = [chosen.tales[part] for part in PARTS]
  if sum(counts) > len(found):
    raise ValueError(
      f"data.tales asks for {sum(counts)} tales, and there are {len(found)}"
    )
  order = batches.generator(chosen.seed, 4).permutation(len(found))
  ends = np.cumsum(counts)
  examples, titles, too_long = {}, {}, 0
  shown = None
  for part, stop, count in zip(PARTS, ends, counts, strict=True):
    numbers = np.sort(order[stop - count : stop])
    cut = [
      dialogue
      for number in numbers
      for dialogue in tales.dialogues(
        found.arrays["texts"][number],
        asked=chosen.asked,
        answered=chosen.answered,
      )
    ]
    encoded = dialogues.encode(cut, tokenizer, length=sys.maxsize)
    kept = [i for i, e in enumerate(encoded) if len(e.tokens) <= config.length]
    if not kept:
      raise ValueError(
        f"no dialogue of the part {part!r} has at most {config.length} tokens"
      )
    too_long += len(encoded) - len(kept)
    kept = _spread(kept, chosen.most[part])
    examples[part] = [encoded[i] for i in kept]
    titles[part] = found.arrays["titles"][numbers].tolist()
    shown = cut[kept[0]]
  assert shown is not None
  return Texts(examples, titles, too_long, shown)


def _spread(numbers: Sequence[int], most: int) -> list[int]:
  """Choose so many, evenly from the first to the last."""
  count = min(most, len(numbers))
  places = np.linspace(0, len(numbers) - 1, count).round().astype(int)
  return [numbers[place] for place in places]
