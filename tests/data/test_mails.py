"""No mail is in both parts of a split."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effjax.data import mails

MAILS = [
  mails.mail(f"Mail {n}", date=f"2024-01-{30 - n:02}T10:00:00+00:00")
  for n in range(10)
]


@given(
  st.lists(st.sampled_from(["a", "A ", "b", "c\n", "C", "d", "e"]), min_size=1),
  st.floats(0.01, 0.99),
  st.sampled_from(["random", "chronological"]),
)
def test_parts_share_no_text(texts, share, order):
  made = [
    mails.mail(t, date=f"2024-01-{1 + n % 28:02}") for n, t in enumerate(texts)
  ]
  distinct = len({text.strip().lower() for text in texts})
  count = int(distinct * (1 - share))
  if not 0 < count < distinct:
    with pytest.raises(ValueError, match="a part would be empty"):
      mails.split(made, share, order=order)
    return
  train, test = mails.split(made, share, order=order)
  assert (len(train), len(test)) == (count, distinct - count)
  assert not {m.text.strip().lower() for m in train} & {
    m.text.strip().lower() for m in test
  }


def test_sizes_and_orders():
  sizes = [
    tuple(map(len, mails.split([mails.mail(str(i)) for i in range(n)])))
    for n in (166, 210, 150)
  ]
  assert sizes == [(132, 34), (168, 42), (120, 30)]
  train, test = mails.split(MAILS)
  shuffled = list(MAILS)
  random.Random(41).shuffle(shuffled)
  assert [*train, *test] == shuffled
  assert mails.split(MAILS, seed=1) != (train, test)
  train, test = mails.split(MAILS, order="chronological")
  assert [*train, *test] == MAILS[::-1]
  # Zones count, and a date without one is of UTC.
  dates = [
    "2024-01-01T10:00:00+05:00",
    "2024-01-01T06:00:00",
    "2024-01-01T04:00Z",
  ]
  zones = [mails.mail(date, date=date) for date in dates]
  train, test = mails.split(zones, 0.3, order="chronological")
  assert [m.date for m in (*train, *test)] == [dates[2], dates[0], dates[1]]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"share": 0.0}, "share must be between 0 and 1, got 0"),
    ({"share": 1}, "share must be between 0 and 1, got 1"),
    ({"order": "dates"}, "order must be 'random' or 'chronological'"),
    ({"mails": MAILS[:1]}, "1 different mails cannot be split"),
    (
      {
        "mails": [*MAILS, mails.mail("x"), mails.mail("y", date="May")],
        "order": "chronological",
      },
      "2 of 12 mails have no date",
    ),
  ],
)
def test_users_errors(change, message):
  with pytest.raises(ValueError, match=message):
    mails.split(**{"mails": MAILS, **change})


def test_ids_are_those_of_texts():
  first = mails.mail("Caf\u00e9 at\r\nten", subject="a")
  assert first.id == mails.mail("cafe\u0301  AT ten").id
  assert first.id != mails.mail("Caf\u00e9 at two").id
  assert len(first.id) == 16
  assert mails.unique([first, first._replace(subject="b")]) == [first]
