import math

import numpy as np
import pytest

from effjax import metrics
from effjax.metrics import texts


def test_clean_text_deletes_ascii_punctuation_only():
  assert metrics.clean_text("E-mail,\r\n\tit's  DONE (now)!") == (
    "email its done now"
  )
  assert metrics.clean_text("It’s 5 – 6… Ärger_frei") == "it’s 5 – 6… ärgerfrei"
  assert metrics.clean_text(" \n!?") == ""


def test_cleaning_twice_changes_nothing():
  text = "Dear   Prof. Smith,\n\n«Ça va?» - yes\x85no\xa0end"
  once = metrics.clean_text(text)
  assert metrics.clean_text(once) == once == " ".join(once.split())


def test_reference_sets_keep_the_order():
  sets = metrics.reference_sets(["b", "a", "b"], ["1", "2", "1"])
  assert list(sets.items()) == [("b", ["1", "1"]), ("a", ["2"])]
  with pytest.raises(ValueError, match="1 instructions and 2 mails"):
    metrics.reference_sets(["a"], ["1", "2"])


def test_length_ratio_takes_the_closest_reference():
  ratios = metrics.length_ratio(
    ["a b c", "", "a", "a-b, c d"], [["a", "a b c d e"], "x y", "", "x y z"]
  )
  # Of one and five words, which are equally far from three, the first counts.
  np.testing.assert_array_equal(ratios, [3.0, 0.0, math.nan, 1.0])


@pytest.mark.parametrize(
  ("predictions", "references", "message"),
  [
    (["a", "b"], ["a"], "2 predictions and 1 references"),
    (["a"], [["a"], ["b"]], "1 predictions and 2 references"),
    ([], [], "predictions must hold at least one"),
    (["a"], [[]], r"references\[0\] must hold at least one"),
    ("ab", ["a", "b"], "predictions must be a list"),
    (["a", "b"], "ab", "references must be a list"),
    (["a", None], ["a", "b"], r"predictions\[1\] must be a text, got a None"),
    (["a", "b"], ["a", ["b", 3]], r"references\[1\]\[1\] must be a text"),
    (["a"], [3], r"references\[0\] must be a text or a list"),
  ],
)
def test_what_cannot_be_paired_is_refused(predictions, references, message):
  for measure in (
    metrics.panza_bleu,
    metrics.rouge_n,
    metrics.rouge_l,
    metrics.length_ratio,
  ):
    with pytest.raises(ValueError, match=message):
      measure(predictions, references)


def test_ngrams():
  assert texts.ngrams("abab", 2) == {("a", "b"): 2, ("b", "a"): 1}
  assert texts.ngrams([], 1) == {}
  assert texts.ngrams(["a"], 2) == {}
