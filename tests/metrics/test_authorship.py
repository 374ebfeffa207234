import functools
import random
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from effjax import metrics

WORDS = ("meeting", "report", "tomorrow", "please", "room", "friday", "draft")
STYLES = {
  "ann": ("Hi {}, {}!!! {} :) ", "Best,\nAnn"),
  "bob": ("Dear {}, {}. {}; ", "Kind regards,\nBob"),
  "cat": ("{} -- {} ... {} lol ", "Cat"),
}


def mail(draw, author, body=None):
  sentence, end = STYLES[body or author]
  text = sentence.format(*(draw.choice(WORDS) for _ in range(3))) * 2
  return f"{text}\n{STYLES[author][1] if body else end}"


@functools.cache
def mails(count, seed):
  draw = random.Random(seed)
  pairs = [(mail(draw, a), a) for a in STYLES for _ in range(count)]
  return tuple(zip(*pairs, strict=True))


@functools.cache
def fitted():
  return metrics.fit_authorship(*mails(12, 0))


def test_classifier_equals_scikit_learn():
  texts, authors = mails(12, 0)
  held_out, _ = mails(4, 1)
  # Styles of uneven numbers, so that the balance matters; scikit-learn makes
  # one blank of several.
  texts, authors = texts[5:], authors[5:]
  texts, held_out = (
    [re.sub(r"\s+", " ", text) for text in part] for part in (texts, held_out)
  )
  peer = TfidfVectorizer(
    analyzer="char",
    lowercase=False,
    sublinear_tf=True,
    min_df=2,
    ngram_range=(3, 5),
  )
  regression = LogisticRegression(
    C=1 / 0.3, class_weight="balanced", tol=1e-10, max_iter=5000
  ).fit(peer.fit_transform(texts), authors)
  found = metrics.fit_authorship(texts, authors, penalty=0.3)
  assert found.features == peer.vocabulary_
  np.testing.assert_allclose(found.idf, peer.idf_)
  np.testing.assert_allclose(found.weights.T, regression.coef_, atol=1e-5)
  np.testing.assert_allclose(
    metrics.predict_authorship(found, held_out),
    regression.predict_proba(peer.transform(held_out)),
    atol=1e-6,
  )


def test_report():
  texts, authors = mails(4, 1)
  report = metrics.authorship_report(fitted(), texts, authors)
  assert report.accuracy == 1.0
  assert report.chance == 1 / 3
  assert report.authors == ("ann", "bob", "cat")
  # Bob's model writes like Ann half of the time; nobody writes like Cat.
  draw = random.Random(2)
  texts = [mail(draw, "bob"), mail(draw, "ann"), mail(draw, "ann")]
  report = metrics.authorship_report(fitted(), texts, ["bob", "bob", "ann"])
  np.testing.assert_array_equal(report.found, [1, 0, 0])
  np.testing.assert_array_equal(
    report.confusion, [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
  )
  np.testing.assert_array_equal(report.precision, [0.5, 1.0, np.nan])
  np.testing.assert_array_equal(report.recall, [1.0, 0.5, np.nan])
  assert report.accuracy == pytest.approx(2 / 3)


def test_names_alone_give_authors_away_until_they_are_removed():
  draw = random.Random(3)
  # Everybody writes like Ann, and signs.
  pairs = [(mail(draw, a, body="ann"), a) for a in STYLES for _ in range(30)]
  draw.shuffle(pairs)
  accuracies = []
  for guard in (False, True):
    texts, authors = zip(*pairs, strict=True)
    if guard:
      texts = [metrics.remove_identity(text, list(STYLES)) for text in texts]
    model = metrics.fit_authorship(texts[:60], authors[:60], penalty=0.01)
    report = metrics.authorship_report(model, texts[60:], authors[60:])
    accuracies.append(report.accuracy)
  assert accuracies[0] == 1.0
  assert accuracies[1] < 0.7


def test_unknown_text_has_the_bias():
  found = metrics.predict_authorship(fitted(), ["", "ζ" * 9])
  bias = np.exp(fitted().bias)
  np.testing.assert_allclose(found, np.tile(bias / bias.sum(), (2, 1)))
  assert metrics.predict_authorship(fitted(), []).shape == (0, 3)


@pytest.mark.parametrize(
  ("arguments", "options", "message"),
  [
    ((["a", "b"], ["x"]), {}, "2 mails and 1 authors"),
    ((["abc", "abc"], ["x", "x"]), {}, "at least two authors"),
    ((["abc", "def"], ["x", "y"]), {}, "No n-gram of 3 to 5 occurs in 2"),
    ((["abc", "abc"], ["x", "y"]), {"orders": (5, 3)}, "must ascend"),
    ((["abc", "abc"], ["x", "y"]), {"orders": (3, 5.0)}, "orders must be"),
    ((["abc", "abc"], ["x", "y"]), {"orders": (3, 4, 5)}, "must ascend in two"),
    ((["abc", "abc"], ["x", "y"]), {"orders": None}, "orders must be"),
    ((["abc", "abc"], ["x", "y"]), {"least": 1.5}, "least must be a whole"),
    ((["abc", "abc"], ["x", "y"]), {"penalty": 0.0}, "penalty"),
    (
      (["abc", "abc"], ["x", "y"]),
      {"penalty": np.inf},
      "penalty must be a fin",
    ),
    ((["abc", "abc"], ["x", "y"]), {"penalty": None}, "penalty must be a fin"),
    (("ab", ["x", "y"]), {}, "mails must be a list"),
  ],
)
def test_what_cannot_be_fitted(arguments, options, message):
  with pytest.raises(ValueError, match=message):
    metrics.fit_authorship(*arguments, **options)


def test_what_cannot_be_reported():
  with pytest.raises(ValueError, match="'dan', only ann, bob, cat"):
    metrics.authorship_report(fitted(), ["a"], ["dan"])
  with pytest.raises(ValueError, match="at least one"):
    metrics.authorship_report(fitted(), [], [])


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("Yes.\r\n\r\nBest,\r\nAnn Lee", "Yes."),
    ("Yes.\nAnn", "Yes."),
    ("Yes.\n\nA. L.\n", "Yes."),
    ("Yes.\nSee you then,\nann", "Yes."),
    ("Yes.\nCheers\nAnn\n-- \nLee Inc.\n030 1234567", "Yes."),
    ("Yes.\n:-)", "Yes.\n:-)"),
    (
      "I am ANN, not Annie; ask ann42 or Lee's.",
      "I am , not Annie; ask or 's.",
    ),
    ("Write to ann.lee+x@mail.example.org, now", "Write to , now"),
    ("See https://a.example/ann?x=1 or www.lee.example", "See or"),
    ("Call +49 (0)30 123-45 67, room 1234", "Call , room 1234"),
    ("On 2026-11-27 10:30 or 27.11.2026", "On 2026-11-27 10:30 or 27.11.2026"),
    ("A plan: I am A. and L. too", "A plan: I am A. and L. too"),
    ("", ""),
  ],
)
def test_remove_identity(text, expected):
  assert metrics.remove_identity(text, ["Ann Lee", "A. Lee"]) == expected


def test_identity_without_names():
  assert metrics.remove_identity("Hi Bob,\nyes.", []) == "Hi Bob,\nyes."
  with pytest.raises(ValueError, match="names must be a list"):
    metrics.remove_identity("Hi", "Ann")
