"""What is the sender's own in a mail, in English and German."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effjax.data import cleaning

OWN = "The plan is fine with me, and so is the date."
GERMAN = "Am 3. Mai 2024 um 10:00 schrieb Anna Muster <anna@example.org>:"
LONG = "On Fri, May 3, 2024 at 10:00 AM Anna Example-Longname Muster\n"


@pytest.mark.parametrize(
  ("text", "own", "thread"),
  [
    (OWN, OWN, ()),
    (f"{OWN}\r\n\r\nBo\r\n", f"{OWN}\n\nBo", ()),
    # Headers of quotes.
    (f"{OWN}\n\nOn 3 May 2024, Anna wrote:\n> When?", OWN, ("When?",)),
    (f"{OWN}\n{LONG}<anna@example.org>\nwrote:\n> When?", OWN, ("When?",)),
    (f"{OWN}\n{GERMAN}\n> Wann?", OWN, ("Wann?",)),
    (f"{OWN}\n2014-05-03 9:30 GMT+02:00 A <a@b.org>:\n> Ja", OWN, ("Ja",)),
    (f"{OWN}\nAnna wrote:\n> When?", OWN, ("When?",)),
    # A mail below the header that is not quoted by marks.
    (f"{OWN}\nOn 3 May 2024 at 10:00, Anna wrote:\n\nWhen?", OWN, ("When?",)),
    (f"{OWN}\n-----Original Message-----\nWhen?", OWN, None),
    (f"{OWN}\n----- Ursprüngliche Nachricht -----\nWann?", OWN, None),
    (f"{OWN}\n____\nFrom: A\nSent: May\nTo: B\n\nWhen?", OWN, None),
    (f"{OWN}\nVon: A\nGesendet: Mai\nAn: B\n\nWann?", OWN, None),
    # As the largest German providers write it.
    (
      f"{OWN}\n\nGesendet: Freitag, 03. Mai 2024 um 10:15 Uhr\n"
      'Von: "Anna" <anna@example.org>\nAn: me@example.org\nBetreff: Re: Zug\n'
      "\nWann?",
      OWN,
      None,
    ),
    (
      f"{OWN}\n-----Original-Nachricht-----\nBetreff: Zug\nDatum: 3. Mai\n"
      "Von: A\nAn: B\n\nWann?",
      OWN,
      None,
    ),
    (
      f"{OWN}\nBetreff: Zug\nDatum: 3. Mai\nVon: A\nAn: B\n\nWann?",
      OWN,
      None,
    ),
    (
      f"{OWN}\nAnna Muster schrieb am 03.05.2024 10:15:\n> Wann?",
      OWN,
      ("Wann?",),
    ),
    # The header may stand among the lines that are quoted.
    (
      f"{OWN}\n> Am 03.05.2024 um 10:15 schrieb Anna <a@b.org>:\n> \n> Wann?",
      OWN,
      ("Wann?",),
    ),
    # Depths, however marks are spaced, and whatever comes first.
    (
      "> When?\n> > Soon.\n>> Or not.\nFine.",
      "Fine.",
      ("Soon.\nOr not.", "When?"),
    ),
    (f"> When?\n{OWN}", OWN, ("When?",)),
    ("One.\n> When?\nTwo.", "One.\nTwo.", ("When?",)),
    ("  indented\n    more", "indented\n    more", ()),
    # Signatures.
    (f"{OWN}\n-- \nBo\n+1 555", OWN, ()),
    (f"{OWN}\n--\nBo", OWN, ()),
    (f"{OWN}\n\nSent from my iPhone", OWN, ()),
    (f"{OWN}\nVon meinem iPhone gesendet\n", OWN, ()),
    (f"{OWN}\nHolen Sie sich Outlook für iOS", OWN, ()),
    (f"{OWN}\nOutlook für Android herunterladen", OWN, ()),
  ],
)
def test_own_part(text, own, thread):
  found = cleaning.clean(text)
  assert found.text == own
  if thread is not None:
    assert found.thread == thread
  assert not found.forwarded


@pytest.mark.parametrize(
  "text",
  [
    # Genuine sentences, which the published program cuts.
    "On Monday I met Bob.\nWe talked.\nHe wrote the report.\nFine work.",
    "Only one thing: on 3 May 2024\nI wrote to her.\nShe answered.",
    "Am Montag war ich dort.\nBob schrieb mit.\nEs war gut.",
    "On this matter she wrote: it is fine.\nI agree with her.",
    "As I wrote: three things.\nOne.\nTwo.",
    "I work from: home, or the office.\nSent: nothing yet.",
    "Betreff: der Zug.\nDatum: morgen.\nAn: alle, die kommen.",
    "-- not a signature\nand on it goes",
  ],
)
def test_genuine_sentences_stay(text):
  assert cleaning.clean(text) == (text, (), False)


@pytest.mark.parametrize(
  "marker",
  [
    "---------- Forwarded message ---------",
    "---------- Weitergeleitete Nachricht ----------",
    "Begin forwarded message:",
    "Anfang der weitergeleiteten Nachricht:",
  ],
)
def test_forwards(marker):
  assert cleaning.clean(f"{OWN}\n\n{marker}\nFrom: A") == ("", (), True)
  # What is answered may have been forwarded.
  answer = cleaning.clean(f"{OWN}\n> {marker}\n> From: A")
  assert (answer.text, answer.forwarded) == (OWN, False)


def test_the_published_rules():
  clean = lambda text: cleaning.clean(text, convention="reference")
  marker = "---------- Forwarded message ---------"
  assert clean(f"{OWN}\n> {marker}") == ("", (), True)
  # The depth that comes first is the mail, and spaced marks count once.
  assert clean("> When?\n> > Soon.\nFine.") == (
    "When?\n> Soon.",
    ("Fine.",),
    False,
  )
  assert clean("One.\n  two").text == "One.\ntwo"
  # All from "On" is lost if "wrote" follows anywhere.
  assert clean("So.\nOnce I met Bob.\nHe wrote it.\nFine.").text == "So."
  assert clean("So.\nAm Abend.\nEr schrieb.").text == "So."
  assert clean("So.\nOn it goes.").text == "So.\nOn it goes."
  assert clean("So.\n-- \nBo").text == "So.\n--\nBo".replace("--", "-- ")
  with pytest.raises(ValueError, match="convention must be one of"):
    cleaning.clean("", convention="exakt")


def test_wrapped_lines_are_joined():
  line = "word " * 14 + "end"
  text = f"Hi,\n{line}\nand more.\n\n- {line}\n- two\nBest,\nBo"
  found = cleaning.clean(text, unwrap=True).text
  assert found == f"Hi,\n{line} and more.\n\n- {line}\n- two\nBest,\nBo"
  assert cleaning.clean(text).text == text
  # A paragraph before a long word stays one.
  address = "https://example.org/" + "a" * 60
  text = f"Hi,\n\n{address}\n\nBest,\nBo"
  assert cleaning.clean(text, unwrap=True).text == text


def test_characters_are_composed():
  assert cleaning.clean("Cafe\u0301").text == "Caf\u00e9"
  assert cleaning.clean("Cafe\u0301", nfc=False).text == "Cafe\u0301"


@given(
  st.lists(
    st.sampled_from(
      [
        "On 3 May 2024, A",
        "wrote:",
        "> a",
        ">> b",
        "",
        "text",
        "-- ",
        "From: a",
      ]
    )
  )
)
def test_nothing_is_invented(lines):
  found = cleaning.clean("\n".join(lines))
  assert set(found.text.split()) <= set(" ".join(lines).split())
  assert ">" not in found.text
  assert cleaning.identifier(found.text) == cleaning.identifier(
    f" {found.text.upper()}\r\n"
  )


def test_hostile_texts_take_no_time():
  begun = time.process_time()
  cleaning.clean("On 1 " * 20_000)
  cleaning.clean("On 1 wrote\n" * 20_000)
  cleaning.clean("From: a\n" * 20_000)
  assert time.process_time() - begun < 3


def test_languages():
  assert cleaning.language(OWN) == "en"
  assert cleaning.language("Der Plan gefällt mir, und der Tag auch.") == "de"
