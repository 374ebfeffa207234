import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from effjax import metrics

tokens = strategies.lists(strategies.integers(0, 3), max_size=8)


def brute_run(output, sources):
  """Returns length, start and source by trying all runs."""
  for length in range(len(output), 0, -1):
    for start in range(len(output) - length + 1):
      for number, source in enumerate(sources):
        for at in range(len(source) - length + 1):
          if source[at : at + length] == output[start : start + length]:
            return length, start, number
  return 0, 0, -1


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(
  strategies.lists(tokens, max_size=3), strategies.lists(tokens, max_size=3)
)
def test_copied_runs_equal_brute_force(outputs, sources):
  runs = metrics.copied_runs(outputs, sources)
  for i, output in enumerate(outputs):
    length, start, source = brute_run(output, sources)
    assert (runs.length[i], runs.start[i], runs.source[i]) == (
      (length, start, source)
    )
    if output:
      assert runs.rate[i] == length / len(output)
    else:
      assert math.isnan(runs.rate[i])
  assert len(runs.rate) == len(outputs)


def test_copied_runs_of_words_and_arrays():
  sources = ["a b c", "d e", "x a a a y"]
  runs = metrics.copied_runs(["c d e", "a a a a", "z", ""], sources)
  # "c d e" goes on from one source to the next: only "d e" is copied.
  np.testing.assert_array_equal(runs.length, [2, 3, 0, 0])
  np.testing.assert_array_equal(runs.start, [1, 0, 0, 0])
  np.testing.assert_array_equal(runs.source, [1, 2, -1, -1])
  np.testing.assert_array_equal(runs.rate, [2 / 3, 3 / 4, 0.0, math.nan])
  ids = metrics.copied_runs([np.array([5, 7, 7])], [np.array([7, 7, 9])])
  np.testing.assert_array_equal(ids.rate, [2 / 3])
  with pytest.raises(ValueError, match="outputs must be a list"):
    metrics.copied_runs("a b", ["a"])
  with pytest.raises(ValueError, match="sources must be a list"):
    metrics.copied_runs(["a"], "a b")


def test_exposure_is_a_rank_in_bits():
  others = np.arange(1023) + 0.5
  canaries = [0.0, 1.0, 1000.0, 2000.0]
  # Ranks 1, 2, 1001 and 1024.
  np.testing.assert_allclose(
    metrics.exposure(canaries, others),
    10 - np.log2([1, 2, 1001, 1024]),
  )
  own = np.stack([others, others + 1.0])
  np.testing.assert_allclose(metrics.exposure([1.0, 1.0], own), [9.0, 10.0])


def test_exposure_of_a_model_without_preference_is_no_exposure():
  found = metrics.exposure(np.ones(3), np.ones(999))
  np.testing.assert_allclose(found, np.log2(1000) - np.log2(500.5))
  draws = np.random.default_rng(0).normal(size=(400, 256))
  found = metrics.exposure(draws[:, 0], draws[:, 1:])
  # log2(e) on average, less at a finite number of candidates.
  np.testing.assert_allclose(found.mean(), math.log2(math.e), atol=0.2)


@pytest.mark.parametrize(
  ("canaries", "candidates", "message"),
  [
    (1.0, [1.0], "canaries"),
    ([1.0], [[1.0], [2.0]], "candidates"),
    ([1.0], 1.0, "at least one candidate"),
    ([1.0], [], "at least one candidate"),
    ([math.nan], [1.0], "NaN"),
    ([1.0], [math.nan], "NaN"),
  ],
)
def test_wrong_perplexities(canaries, candidates, message):
  with pytest.raises(ValueError, match=message):
    metrics.exposure(canaries, candidates)
