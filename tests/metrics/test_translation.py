import json
import math
import pathlib

import numpy as np
import pytest

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "personalization"


@pytest.fixture(scope="module")
def golden():
  return json.loads((GOLDEN / "text_metrics.json").read_text())


def test_golden(golden):
  pairs = golden["predictions"], golden["references"]
  expected = golden["sacrebleu"]
  corpus = metrics.bleu(*pairs)
  lower = metrics.bleu(*pairs, lowercase=True)
  found = {
    "corpus_default": corpus.score,
    "corpus_lowercase": lower.score,
    "chrf": metrics.chrf(*pairs),
    "chrf++": metrics.chrf(*pairs, word_order=2),
  }
  assert found == pytest.approx(
    {name: expected[name] for name in found}, abs=1e-9
  )
  details = expected["corpus_details"]
  np.testing.assert_array_equal(corpus.counts, details["counts"])
  np.testing.assert_array_equal(corpus.totals, details["totals"])
  np.testing.assert_allclose(corpus.precisions, details["precisions"])
  assert corpus.brevity == pytest.approx(details["bp"], abs=1e-12)
  assert corpus.length == details["sys_len"]
  assert corpus.reference_length == details["ref_len"]
  for name, options in (
    ("exp_effective_order", {}),
    ("floor_0.1", {"smoothing": "floor", "effective_order": False}),
    ("addk_1", {"smoothing": "add-k", "effective_order": False}),
    ("none", {"smoothing": "none", "effective_order": False}),
  ):
    np.testing.assert_allclose(
      metrics.sentence_bleu(*pairs, **options),
      expected[f"sentence_{name}"],
      rtol=0,
      atol=1e-9,
    )


@pytest.mark.parametrize(
  ("text", "tokens"),
  [
    ("don't stop", "don't stop"),
    ("3,5 a,b 3, .5 5.", "3,5 a , b 3 , . 5 5 ."),
    ("4-5 e-mail -5 5-", "4 - 5 e-mail -5 5 -"),
    ("(a)[b]{c}<d>", "( a ) [ b ] { c } < d >"),
    ("a&quot;b&amp;&lt;&gt;", 'a " b & < >'),
    ("co-\nop\nend<skipped>", "coop end"),
    ("“Ça” – va…", "“Ça” – va…"),
    ("", ""),
  ],
)
def test_tokenize_13a(text, tokens):
  assert metrics.tokenize_13a(text) == tokens.split()


def test_bleu_edges():
  def score(prediction, reference, **options):
    return metrics.sentence_bleu([prediction], [reference], **options)[0]

  for smoothing in ("exp", "floor", "add-k", "none"):
    assert score("", "a b", smoothing=smoothing) == 0.0
    assert score("x y", "a b", smoothing=smoothing) == 0.0
    assert score("a b c d e", "a b c d e", smoothing=smoothing) == (
      pytest.approx(100.0)
    )
  # A text of two words has no 3-gram.
  assert score("a b", "a b") == pytest.approx(100.0)
  assert score("a b", "a b", effective_order=False) == 0.0
  # Orders 2 and 3 have no match: 1/2 of 2, then 1/4 of 1.
  assert score("a x b", "a b y") == pytest.approx(
    100 * ((2 / 3) * (1 / 4) * (1 / 4)) ** (1 / 3)
  )
  assert score("a x b", "a b y", smoothing="floor", amount=0.5) == (
    pytest.approx(100 * ((2 / 3) * (0.5 / 2) * (0.5 / 1)) ** (1 / 3))
  )
  # Two and four tokens are equally far from three: the shorter one counts.
  assert score("a b c", ["a b c d", "a b"], order=3) == (pytest.approx(100.0))
  assert score("a b", "a b c", order=2) == pytest.approx(100 * math.exp(-0.5))
  assert score("A b", "a b", lowercase=True) == pytest.approx(100.0)
  with pytest.raises(ValueError, match="'chen' is unknown"):
    score("a", "a", smoothing="chen")
  with pytest.raises(ValueError, match="1 predictions and 2 references"):
    metrics.bleu(["a"], ["a", "b"])
  with pytest.raises(
    ValueError, match="order must be a whole number of at least 1"
  ):
    metrics.bleu(["a"], ["a"], order=0)
  with pytest.raises(ValueError, match="character_order"):
    metrics.chrf(["a"], ["a"], character_order=0)


def test_corpus_bleu_adds_counts():
  predictions = ["a b c d e", "x"]
  references = ["a b c d f", "y z"]
  corpus = metrics.bleu(predictions, references)
  np.testing.assert_array_equal(corpus.counts, [4, 3, 2, 1])
  np.testing.assert_array_equal(corpus.totals, [6, 4, 3, 2])
  product = (4 / 6) * (3 / 4) * (2 / 3) * (1 / 2)
  assert corpus.score == pytest.approx(100 * math.exp(-1 / 6) * product**0.25)


def test_chrf_by_hand():
  # Of "abc" and "abd": 2 of 3 letters, 1 of 2 pairs, no triple.
  share = (2 / 3 + 1 / 2 + 0) / 3
  found = metrics.chrf(["ab c"], ["abd"], character_order=6)
  assert found == pytest.approx(100 * share)
  # With words: none of 2 and 1, no pair in the reference.
  share = (2 / 3 + 1 / 2 + 0 + 0) / 4
  found = metrics.chrf(["ab c"], ["abd"], word_order=2)
  assert found == pytest.approx(100 * share)
  # One letter more: recall 1 weighs four times precision.
  precision = (3 / 4 + 2 / 3 + 1 / 2) / 3
  found = metrics.chrf(["abcd"], ["abc"])
  assert found == pytest.approx(100 * 5 * precision / (4 * precision + 1))
  assert metrics.chrf([""], ["a"]) == metrics.chrf(["a"], ["b"]) == 0.0
  # A mark at the end of a word is a word of its own, else one at its start.
  assert metrics.sentence_chrf(
    ["(hi there!"], ["( hi there !"], word_order=2
  ) == pytest.approx(100.0)
  best = metrics.chrf(["abc"], [["xyz", "abc"]])
  assert best == pytest.approx(100.0)


def test_nothing_is_as_long_as_nothing():
  # As sacreBLEU has it.
  assert metrics.bleu([""], [""]).brevity == 1.0
  assert metrics.bleu([""], ["a"]).brevity == 0.0
  assert metrics.bleu([""], [""]).score == 0.0


@pytest.mark.parametrize(
  ("score", "options", "message"),
  [
    ("bleu", {"order": 2.0}, "order must be a whole number"),
    ("bleu", {"order": None}, "order must be a whole number"),
    ("sentence_bleu", {"order": "4"}, "order must be a whole number"),
    ("bleu", {"smoothing": "floor", "amount": -1}, "amount must be a finite"),
    ("bleu", {"smoothing": "add-k", "amount": math.nan}, "amount must be"),
    ("sentence_bleu", {"amount": "much"}, "amount must be a finite number"),
    ("chrf", {"character_order": 2.0}, "character_order must be a whole"),
    ("chrf", {"word_order": -1}, "word_order must be a whole"),
    ("chrf", {"word_order": None}, "word_order must be a whole"),
    ("chrf", {"beta": math.nan}, "beta must be a finite number"),
    ("chrf", {"beta": math.inf}, "beta must be a finite number"),
    ("sentence_chrf", {"beta": None}, "beta must be a finite number"),
  ],
)
def test_numbers_that_are_none(score, options, message):
  with pytest.raises(ValueError, match=message):
    getattr(metrics, score)(["a b"], ["a c"], **options)


def test_whole_numbers_of_numpy():
  pairs = ["a b c"], ["a b d"]
  two = np.int64(2)
  assert metrics.bleu(*pairs, order=two).score == (
    metrics.bleu(*pairs, order=2).score
  )
  assert metrics.chrf(*pairs, word_order=two) == (
    metrics.chrf(*pairs, word_order=2)
  )
