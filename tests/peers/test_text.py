"""Measures of texts against sacrebleu, rouge-score and torchmetrics."""

import random

import numpy as np
import pytest

from effjax import metrics

pytestmark = pytest.mark.peers
WORDS = """a the cat Cats sat. on, mat; it's Zürich (hi) 3.5 3,5 4-5 e-mail
&amp;lt; &quot;yes&quot; ... -- ’ – 日本 é x- <skipped> @home /a/b !?"""
PIECES = (*WORDS.split(), "\n", "-\n", "\x85", "\xa0", "don't\tgo")


def texts(seed, count, longest=14):
  draw = random.Random(seed)
  return [
    " ".join(draw.choice(PIECES) for _ in range(draw.randrange(longest)))
    for _ in range(count)
  ]


@pytest.fixture(scope="module")
def corpus():
  predictions = texts(0, 120)
  several = list(zip(*(texts(seed, 120) for seed in (1, 2, 3)), strict=True))
  return predictions, [list(x) for x in several]


def streams(references):
  return [list(x) for x in zip(*references, strict=True)]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("effective", [False, True])
@pytest.mark.parametrize(
  ("smoothing", "amount"),
  [
    ("exp", None),
    ("floor", None),
    ("floor", 0.3),
    ("add-k", None),
    ("add-k", 2),
    ("none", None),
  ],
)
def test_bleu_equals_sacrebleu(corpus, smoothing, amount, effective, lowercase):
  sacrebleu = pytest.importorskip("sacrebleu.metrics")
  peer = sacrebleu.BLEU(
    smooth_method=smoothing,
    smooth_value=amount,
    effective_order=effective,
    lowercase=lowercase,
    force=True,
  )
  options = {
    "smoothing": smoothing,
    "amount": amount,
    "effective_order": effective,
    "lowercase": lowercase,
  }
  predictions, references = corpus
  found = metrics.bleu(predictions, references, **options)
  expected = peer.corpus_score(predictions, streams(references))
  np.testing.assert_allclose(found.score, expected.score, atol=1e-9)
  np.testing.assert_allclose(found.precisions, expected.precisions, atol=1e-9)
  np.testing.assert_allclose(found.brevity, expected.bp, atol=1e-12)
  assert found.length == expected.sys_len
  assert found.reference_length == expected.ref_len
  np.testing.assert_allclose(
    metrics.sentence_bleu(predictions, references, **options),
    [
      peer.sentence_score(text, several).score
      for text, several in zip(predictions, references, strict=True)
    ],
    atol=1e-9,
  )


def test_tokens_equal_sacrebleu(corpus):
  module = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a")
  peer = module.Tokenizer13a()
  signs = [
    chr(a) + chr(b) + "1" for a in range(32, 127) for b in range(32, 127)
  ]
  for text in (*corpus[0], *signs):
    assert " ".join(metrics.tokenize_13a(text)) == peer(text), repr(text)


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("words", [0, 1, 2])
def test_chrf_equals_sacrebleu(corpus, words, lowercase):
  sacrebleu = pytest.importorskip("sacrebleu.metrics")
  peer = sacrebleu.CHRF(word_order=words, lowercase=lowercase)
  predictions, references = corpus
  options = {"word_order": words, "lowercase": lowercase}
  np.testing.assert_allclose(
    metrics.chrf(predictions, references, **options),
    peer.corpus_score(predictions, streams(references)).score,
    atol=1e-9,
  )
  np.testing.assert_allclose(
    metrics.sentence_chrf(predictions, references, **options),
    [
      peer.sentence_score(text, several).score
      for text, several in zip(predictions, references, strict=True)
    ],
    atol=1e-9,
  )


def test_rouge_equals_rouge_score(corpus):
  module = pytest.importorskip("rouge_score.rouge_scorer")
  names = ["rouge1", "rouge2", "rouge3", "rougeL"]
  scorer = module.RougeScorer(names)
  predictions, references = corpus
  first = [several[0] for several in references]
  for name in names:
    if name == "rougeL":
      found = metrics.rouge_l(predictions, first, clean=False)
    else:
      found = metrics.rouge_n(predictions, first, int(name[-1]), clean=False)
    expected = [
      scorer.score(target, prediction)[name]
      for target, prediction in zip(first, predictions, strict=True)
    ]
    np.testing.assert_allclose(
      np.stack(found[1:], axis=1), expected, atol=1e-12
    )


def test_panza_scores_equal_torchmetrics(corpus, torchmetrics):
  bleu = torchmetrics.functional.text.bleu_score
  rouge = torchmetrics.functional.text.rouge_score
  predictions, references = corpus
  found = metrics.panza_bleu(predictions, references).cumulative
  overlaps = {
    "rouge1": metrics.rouge_n(predictions, references, 1),
    "rouge2": metrics.rouge_n(predictions, references, 2),
    "rougeL": metrics.rouge_l(predictions, references),
  }
  for i, (text, several) in enumerate(
    zip(predictions, references, strict=True)
  ):
    text = metrics.clean_text(text)
    several = [metrics.clean_text(other) for other in several]
    expected = [float(bleu([text], [several], n_gram=n)) for n in range(1, 5)]
    np.testing.assert_allclose(found[i], expected, atol=1e-5)
    peer = rouge([text], [several], rouge_keys=tuple(overlaps))
    for name, scores in overlaps.items():
      for part, ours in (
        ("precision", scores.precision),
        ("recall", scores.recall),
        ("fmeasure", scores.f_measure),
      ):
        np.testing.assert_allclose(ours[i], peer[f"{name}_{part}"], atol=1e-6)
