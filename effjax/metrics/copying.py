"""What a language model has memorised: copied runs of tokens, planted canaries.

These functions run on the host.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np


class CopiedRuns(NamedTuple):
  """The longest run of tokens of each output that a source has as well.

  Attributes:
    rate: [N], its length over that of the output; NaN for an empty output.
    length: [N] integers, in tokens.
    start: [N] integers, where it begins in the output; 0 where nothing is
      copied.
    source: [N] integers, the first source that has it; -1 where nothing is
      copied.
  """

  rate: np.ndarray
  length: np.ndarray
  start: np.ndarray
  source: np.ndarray


def copied_runs(
  outputs: Sequence[str | Sequence[Hashable]],
  sources: Sequence[str | Sequence[Hashable]],
) -> CopiedRuns:
  """Returns how much of each output stands in one piece in a source.

  Args:
    outputs: [N] texts, compared word by word, or sequences of tokens.
    sources: [M] texts or sequences, such as the mails that a model was trained
      on. A run does not go on from one source to the next.

  Returns:
    A `CopiedRuns`; among runs of one length the one that ends first in the
    output counts.

  Raises:
    ValueError: If `outputs` or `sources` is a single text.

  >>> runs = copied_runs(["see you at ten"], ["will you come", "you at ten?"])
  >>> runs.rate.tolist(), runs.start.tolist(), runs.source.tolist()
  ([0.5], [1], [1])
  """
  outputs = _sequences(outputs, "outputs")
  sources = _sequences(sources, "sources")
  owner, places = _index(sources)
  found = np.array([_longest(x, len(owner), places) for x in outputs], np.int64)
  length, start, end = found.reshape(-1, 3).T
  sizes = np.array([len(x) for x in outputs], np.int64)
  rate = np.where(sizes > 0, length / np.maximum(sizes, 1), np.nan)
  return CopiedRuns(rate, length, start, np.where(length > 0, owner[end], -1))


def exposure(canaries: Any, candidates: Any) -> np.ndarray:
  """Returns how much more likely than chance a model finds planted canaries.

  log2 |R| - log2 rank, where the rank of a canary is that of its log-perplexity
  among all |R| texts which could have been planted. A canary that was never
  seen has 1.44 on average, one that a model has learnt log2 |R|; a model that
  finds all texts equally likely gives each the middle rank.
  Carlini et al. 2019, arXiv:1802.08232, definition 4.

  Args:
    canaries: [C], the log-perplexity of each canary.
    candidates: [R], those of texts of the same form that were not planted, or
      [C, R], others for each canary.

  Returns:
    [C] float64, in bits, between 0 and log2(R + 1).

  Raises:
    ValueError: If the shapes do not fit, there is no candidate, or a number is
      NaN.

  >>> exposure([1.0, 5.0, 9.0], [4.0, 6.0, 8.0]).round(3).tolist()
  [2.0, 1.0, 0.0]
  """
  canaries = np.asarray(canaries, np.float64)
  candidates = np.asarray(candidates, np.float64)
  if canaries.ndim != 1 or candidates.shape[:-1] not in ((), canaries.shape):
    raise ValueError(
      f"canaries {list(canaries.shape)} must be [C] and candidates"
      f" {list(candidates.shape)} [R] or [C, R]."
    )
  if not candidates.ndim or not candidates.shape[-1]:
    raise ValueError("There must be at least one candidate beside a canary.")
  if np.isnan(canaries).any() or np.isnan(candidates).any():
    raise ValueError("A log-perplexity of canaries or candidates is NaN.")
  own = canaries[:, None]
  rank = 1 + (candidates < own).sum(-1) + 0.5 * (candidates == own).sum(-1)
  return np.log2(candidates.shape[-1] + 1) - np.log2(rank)


def _sequences(values: Sequence, name: str) -> list[Sequence[Hashable]]:
  if isinstance(values, str):
    raise ValueError(f"{name} must be a list of texts, got a single text.")
  return [x.split() if isinstance(x, str) else list(x) for x in values]


def _index(sources: list) -> tuple[np.ndarray, dict]:
  """Lays the sources end to end, with gaps around them.

  Args:
    sources: Sequences of tokens.

  Returns:
    The number of the source at each place of the stream, and the places of
    every token.
  """
  places: dict[Hashable, list[int]] = {}
  owner = [-1]
  for number, source in enumerate(sources):
    for token in source:
      places.setdefault(token, []).append(len(owner))
      owner.append(number)
    owner.append(-1)
  return np.array(owner), {t: np.array(x) for t, x in places.items()}


def _longest(
  output: Sequence[Hashable], size: int, places: dict
) -> tuple[int, int, int]:
  """Returns length and start of the longest run, and where it ends in a source.

  `run` is the length of the run that ends at a place of the stream and at the
  token of step `seen`: one row of the table of dynamic programming.
  """
  run, seen = np.zeros(size, np.int64), np.full(size, -2)
  best = (0, 0, 0)
  for step, token in enumerate(output):
    here = places.get(token)
    if here is None:
      continue
    before = here - 1
    lengths = np.where(seen[before] == step - 1, run[before], 0) + 1
    run[here], seen[here] = lengths, step
    longest = lengths.argmax()
    if lengths[longest] > best[0]:
      length = int(lengths[longest])
      best = (length, step + 1 - length, int(here[longest]))
  return best
