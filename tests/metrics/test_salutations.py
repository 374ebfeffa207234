import numpy as np
import pytest

from effjax import metrics


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("Hi Anna,\n\nI will be late.", "hi"),
    ("hi", "hi"),
    ("Hi there!\nNews.", "hi there"),
    ("GOOD  MORNING,\nplease", "good morning"),
    ("\n  Sehr geehrte Frau Roth,\nanbei", "sehr geehrte"),
    ("Hey Tom, are you there?", "hey"),
    ("Anna,\nyes.", "other"),
    ("Yo team!\nyes.", "other"),
    ("Anna,", ""),
    ("High water came.\nSo", ""),
    ("Dearest friends of all times,\nso", ""),
    ("", ""),
  ],
)
def test_greeting(text, expected):
  assert metrics.greeting(text) == expected


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("Yes.\n\nBest,\nDavid", "best"),
    ("Yes.\nBest regards, David Smith", "best regards"),
    ("Yes.\nBest Regards", "best regards"),
    (
      "Yes.\nMit freundlichen  Grüßen\nEva Roth\nLeipzig",
      "mit freundlichen grüßen",
    ),
    ("Yes.\nThanks!\nJ.", "thanks"),
    ("Yes.\nthanks :)\nJ.", "thanks"),
    ("Thanks, Tom", ""),
    ("Yes.\nThanks for the help.\nDavid", ""),
    ("Yes.\nThank you, again, for it.\nDavid", ""),
    ("Yes.\nSee you tomorrow,\nDavid", "other"),
    ("Yes.\nIf it rains,\nI will be at home all day", ""),
    ("Best of all\nit works.", ""),
    ("Yes.\nBest,\nDavid\n1 Main Street\nRome\nItaly", ""),
    ("Yes.\nDavid", ""),
    ("", ""),
  ],
)
def test_closing(text, expected):
  assert metrics.closing(text) == expected


def test_known_phrases_can_be_given():
  assert metrics.greeting("Ahoi Tom,\nyes", ["ahoi"]) == "ahoi"
  assert metrics.greeting("Hi Tom\nyes", ["ahoi"]) == ""
  assert (
    metrics.closing("Yes.\nFair winds\nTom", ["fair winds"]) == "fair winds"
  )


def test_agreement():
  found = metrics.salutation_agreement(
    ["Hi A,\nyes\nBest,\nB", "Yes.", "Hello,\nno", "Dear A,\nno\nCheers"],
    [
      "Hi C,\nno\nBest, D",
      "No.",
      "Hi,\nyes\nBest,\nA",
      ["Hi B,\nno\nBest,\nA", "Dear B,\nso\nRegards,\nA"],
    ],
  )
  np.testing.assert_array_equal(found.greetings, [True, True, False, True])
  np.testing.assert_array_equal(found.closings, [True, True, False, False])
  assert (found.greeting, found.closing) == (0.75, 0.5)
  with pytest.raises(ValueError, match="1 predictions and 2 references"):
    metrics.salutation_agreement(["a"], ["a", "b"])


def test_without_closing():
  mail = "Hi,\n\nyes.\n\nBest,\n\nDavid\n\n"
  assert metrics.without_closing(mail) == "Hi,\n\nyes."
  assert metrics.without_closing("Hi,\nyes.\n") == "Hi,\nyes."
  assert metrics.without_closing("") == ""
