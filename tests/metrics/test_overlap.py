import json
import math
import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from effjax import metrics
from effjax.metrics import overlap

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "personalization"
words = strategies.lists(strategies.sampled_from("abcd"), max_size=9)
some_words = strategies.lists(words, min_size=1, max_size=3)


@pytest.fixture(scope="module")
def golden():
  return json.loads((GOLDEN / "text_metrics.json").read_text())


def count(gram, tokens):
  size = len(gram)
  return sum(
    tokens[i : i + size] == gram for i in range(len(tokens) - size + 1)
  )


def grams(tokens, order):
  return [tokens[i : i + order] for i in range(len(tokens) - order + 1)]


def brute_bleu(prediction, references):
  """Returns BLEU-1 to BLEU-4 by counting anew."""
  scores = []
  c = len(prediction)
  best = references[0]
  for reference in references[1:]:
    if abs(c - len(reference)) < abs(c - len(best)):
      best = reference
  for highest in range(1, 5):
    product = 1.0
    for n in range(1, highest + 1):
      found = grams(prediction, n)
      distinct = [g for i, g in enumerate(found) if g not in found[:i]]
      matched = sum(
        min(count(g, prediction), max(count(g, r) for r in references))
        for g in distinct
      )
      product *= matched / len(found) if found else 0.0
    penalty = 1.0
    if 0 < c <= len(best):
      penalty = math.exp(1 - len(best) / c)
    scores.append(penalty * product ** (1 / highest))
  return scores


def brute_subsequence(first, second):
  table = np.zeros((len(first) + 1, len(second) + 1), int)
  for i, a in enumerate(first):
    for j, b in enumerate(second):
      table[i + 1, j + 1] = (
        table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
      )
  return table[-1, -1]


def test_panza_bleu_golden(golden):
  scores = metrics.panza_bleu(golden["predictions"], golden["references"])
  np.testing.assert_allclose(
    scores.cumulative, golden["panza_bleu_n1to4"], atol=1e-6
  )
  np.testing.assert_allclose(
    scores.scores, golden["panza_bleu_mean"], atol=1e-6
  )
  np.testing.assert_allclose(
    scores.mean, golden["panza_bleu_aggregate"], atol=1e-6
  )
  assert scores.minimum == scores.scores[2] == scores.scores.min()
  cleaned = metrics.panza_bleu(
    golden["cleaned_predictions"], golden["cleaned_references"], clean=False
  )
  assert cleaned.mean == scores.mean
  for case in golden["panza_bleu_multi_ref"]:
    scores = metrics.panza_bleu([case["prediction"]], [case["references"]])
    np.testing.assert_allclose(scores.cumulative[0], case["n1to4"], atol=1e-6)


def test_rouge_golden(golden):
  for clean in (True, False):
    for name, measure in (
      ("rouge1", metrics.rouge_n),
      ("rouge2", lambda *x, clean: metrics.rouge_n(*x, 2, clean=clean)),
      ("rougeL", metrics.rouge_l),
    ):
      scores = measure(golden["predictions"], golden["references"], clean=clean)
      if clean:
        wanted = [
          [
            row[f"{name}_{part}"]
            for part in ("precision", "recall", "fmeasure")
          ]
          for row in golden["panza_rouge"]
        ]
      else:
        wanted = [row[name] for row in golden["rouge_score_raw"]]
      np.testing.assert_allclose(
        np.stack(scores[1:], axis=1), wanted, atol=1e-6 if clean else 1e-12
      )
      assert scores.mean == scores.f_measure.mean()


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(words, some_words)
def test_panza_bleu_equals_counting(prediction, references):
  found = metrics.panza_bleu(
    [" ".join(prediction)], [[" ".join(r) for r in references]]
  )
  np.testing.assert_allclose(
    found.cumulative[0], brute_bleu(prediction, references), atol=1e-12
  )


def test_panza_bleu_edges():
  def score(prediction, *references):
    return metrics.panza_bleu([prediction], [references]).mean

  assert score("", "a b") == 0.0
  assert score("...", "a b") == 0.0
  assert score("a", "") == 0.0
  assert score("", "") == 0.0
  # Of three words there is no 4-gram; of one only BLEU-1 is above 0.
  assert score("a b c", "a b c") == 0.75
  assert score("a", "a") == 0.25
  assert score("A, b c d!", "a b c d") == pytest.approx(1.0, abs=1e-15)
  # Two and four words are equally far from three: the first reference counts.
  kept = score("a b c", "a b", "a b c d")
  cut = score("a b c", "a b c d", "a b")
  assert kept == 0.75
  assert cut == pytest.approx(0.75 * math.exp(-1 / 3))
  # A word counts as often as in the reference that has it most often.
  twice = metrics.panza_bleu(["a a a"], [["a b b", "a a b"]])
  np.testing.assert_allclose(
    twice.cumulative[0], [2 / 3, math.sqrt(1 / 3), 0.0, 0.0]
  )


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(words, words)
def test_longest_common_subsequence_equals_the_table(first, second):
  found = overlap.longest_common_subsequence(first, second)
  assert found == brute_subsequence(first, second)


def test_rouge_tokens_and_references():
  # Letters outside a-z separate tokens, unlike in BLEU.
  assert metrics.rouge_n(["Zürich"], ["rich"]).recall == [1.0]
  assert metrics.rouge_n(["e-mail"], ["email"]).mean == 1.0
  assert metrics.rouge_n(["e-mail"], ["email"], clean=False).mean == 0.0
  # The best reference may be another one for each measure, its first among
  # equals.
  both = [["b a x", "a b c d e f g h"]]
  assert metrics.rouge_n(["a b"], both).recall == [2 / 3]
  assert metrics.rouge_n(["a b"], both, 2).recall == [1 / 7]
  tied = metrics.rouge_l(["a b c d"], [["a x", "a b y z w v x x", "a x"]])
  np.testing.assert_array_equal(tied.precision, [0.25])
  np.testing.assert_array_equal(tied.recall, [0.5])
  # F is 1/6 both times: 2 P R / (P + R) may round it to different numbers.
  tied = metrics.rouge_n(
    ["a " + "b " * 10], [["a x", "a " + "x " * 12, "x " * 13]]
  )
  np.testing.assert_array_equal(tied.precision, [1 / 11])


def test_rouge_of_too_few_words_is_zero():
  scores = metrics.rouge_n(["a", "", "a b", "ö"], ["a", "a", "", "ö"], 2)
  for part in scores[1:]:
    np.testing.assert_array_equal(part, np.zeros(4))
  assert metrics.rouge_l(["ö"], ["ö"]).mean == 0.0
  for order in (0, 2.0, None, "2"):
    with pytest.raises(ValueError, match="order must be a whole number"):
      metrics.rouge_n(["a"], ["a"], order)
  assert metrics.rouge_n(["a b c"], ["a b d"], np.int64(2)).mean == 0.5


def test_self_bleu():
  mails = ["a b c d", "a b c e", "x y"]
  pairs = [
    metrics.panza_bleu([one], [other]).mean
    for i, one in enumerate(mails)
    for j, other in enumerate(mails)
    if i != j
  ]
  assert metrics.self_bleu(mails) == pytest.approx(np.mean(pairs))
  assert metrics.self_bleu(["a b c d"] * 3) == pytest.approx(1.0)
  assert math.isnan(metrics.self_bleu(["a"]))
  with pytest.raises(ValueError, match="at least one"):
    metrics.self_bleu([])
