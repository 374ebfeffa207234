"""Mailboxes of every kind give their owner's mails, and say what they lack."""

import base64
import json
import tarfile
import time
import zipfile

import pytest

from effjax.data import emails, mailboxes

ME = "me@example.org"
TEXTS = [
  "Thank you for the notes, I will read them all on the train tomorrow.",
  "The meeting is moved to Tuesday at ten, please tell the others about it.",
  "I have sent the report to the office and hope that it arrives today.",
]
GERMAN = "Vielen Dank für die Unterlagen, ich werde sie morgen im Zug lesen."


def message(
  body,
  sender=f"Me <{ME}>",
  date="Fri, 03 May 2024 10:00:00 +0200",
  head="Content-Type: text/plain; charset=utf-8\n",
  charset="utf-8",
):
  date = f"Date: {date}\n" if date else ""
  text = (
    f"From: {sender}\n{date}Subject: =?utf-8?q?Caf=C3=A9?=\n{head}\n{body}\n"
  )
  return text.encode(charset)


def mbox(*messages):
  line = b"From me@example.org Fri May  3 10:00:00 2024\n"
  return b"".join(line + content + b"\n" for content in messages)


def parts(*bodies, kind="mixed"):
  """Return the field and the text of a message of several parts."""
  text = "".join(f"--X\n{body}\n" for body in bodies) + "--X--\n"
  return text, f'Content-Type: multipart/{kind}; boundary="X"\n'


@pytest.fixture
def read(tmp_path):
  """Read messages from an mbox."""

  def run(*messages, **options):
    path = tmp_path / "Sent.mbox"
    path.write_bytes(mbox(*messages))
    return emails.read_mbox(path, **{"owner": ME, **options})

  return run


def test_every_kind_is_read_alike(tmp_path):
  messages = [message(text) for text in TEXTS]
  content = mbox(*messages)
  (tmp_path / "Sent").write_bytes(content)
  for name in ("maildir/cur", "maildir/new", "eml"):
    (tmp_path / name).mkdir(parents=True)
  for number, each in enumerate(messages):
    folder = "new" if number == 2 else "cur"
    (tmp_path / "maildir" / folder / f"{number}:2,S").write_bytes(each)
    (tmp_path / "eml" / f"{number}.eml").write_bytes(each)
  inner = "Takeout/Mail/Sent.mbox"
  with zipfile.ZipFile(tmp_path / "takeout.zip", "w") as archive:
    archive.writestr(inner, content)
    archive.writestr("Takeout/archive_browser.html", "x")
  with tarfile.open(tmp_path / "takeout.tgz", "w:gz") as archive:
    archive.add(tmp_path / "Sent", inner)
  folder = tmp_path / "folder" / inner
  folder.parent.mkdir(parents=True)
  folder.write_bytes(content)
  lines = [
    {
      "email": text.replace(" ", "\r\n", 1),
      "subject": "Café",
      "date": "2024-05-03T10:00:00+02:00",
    }
    for text in TEXTS
  ]
  (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
  expected = emails.read_mbox(tmp_path / "Sent")
  assert [mail.text for mail in expected.mails] == TEXTS
  assert expected.mails[0] == emails.mail(
    TEXTS[0], subject="Café", date="2024-05-03T10:00:00+02:00"
  )
  assert expected.owner == (ME,)
  assert expected.guessed
  for name, reader in [
    ("Sent", emails.read_mbox),
    ("maildir", emails.read_maildir),
    ("takeout.zip", emails.read_takeout),
    ("takeout.tgz", emails.read_takeout),
    ("folder", emails.read_takeout),
    ("eml", emails.read_eml),
  ]:
    assert emails.read(tmp_path / name) == expected
    assert reader(tmp_path / name) == expected
  found = emails.read_jsonl(tmp_path / "a.jsonl")
  assert emails.read(tmp_path / "a.jsonl") == found
  assert [m.id for m in found.mails] == [m.id for m in expected.mails]
  single = emails.read(tmp_path / "eml" / "1.eml")
  assert [mail.text for mail in single.mails] == TEXTS[1:2]


def test_every_reason_is_counted_once(read):
  plain = "Content-Type: text/plain; charset=utf-8\n"
  html = "Content-Type: text/html\n"
  found = read(
    message(TEXTS[0]),
    message(f"\n{TEXTS[0].upper()}  \n"),
    message(TEXTS[1], sender="Me <notme@example.org>"),
    message("Too short."),
    message(GERMAN),
    message(f"<p>{TEXTS[1]}</p>", head=html),
    message("Fine.\n---------- Forwarded message ---------\n" + TEXTS[1]),
    message("> " + TEXTS[1]),
    message("Gr\u00fc\u00dfe! " + TEXTS[1], head=plain, charset="latin-1"),
    message(TEXTS[2], sender="ME@Example.org", date=None),
    message(
      TEXTS[1], head=f"{plain}X-Gmail-Labels: =?utf-8?q?Entw=C3=BCrfe?=\n"
    ),
  )
  assert [mail.text for mail in found.mails] == [TEXTS[0], TEXTS[2]]
  assert found.mails[1].date is None
  assert found.messages == 11
  assert found.counts == {**dict.fromkeys(emails.REASONS, 1), "no_date": 0}
  assert found.messages == len(found.mails) + sum(found.counts.values())
  said = emails.describe(found)
  assert said.startswith(
    "2 of 11 messages kept; left out: 1 not from the owner"
  )
  assert "1 not in English" in said
  assert len(read(message(GERMAN), english=False).mails) == 1
  assert len(read(message("Short."), words=1, english=False).mails) == 1


def test_charsets(read):
  text = "Grüße an alle – " + TEXTS[0]
  for charset in ("utf-8", "windows-1252", "utf-16"):
    coded = base64.b64encode(text.encode(charset)).decode()
    head = f"Content-Type: text/plain; charset={charset}\n"
    head += "Content-Transfer-Encoding: base64\n"
    assert read(message(coded, head=head)).mails[0].text == text
  # A charset that nobody knows, and none: it may be UTF-8.
  head = "Content-Type: text/plain; charset=x-unheard-of\n"
  assert read(message(text, head=head)).mails[0].text == text
  assert read(message(text, head="")).mails[0].text == text


def test_attachments_are_not_mail(read):
  own = f"Content-Type: text/plain\n\n{TEXTS[0]}"
  attached = f"Content-Type: text/plain; name=a.txt\n\n{TEXTS[1]}"
  other = (
    "Content-Type: text/plain\nContent-Disposition: attachment\n\n" + TEXTS[1]
  )
  inner = "Content-Type: message/rfc822\n\n" + message(TEXTS[1]).decode()
  body, head = parts(own, attached, other, inner)
  found = read(message(body, head=head))
  assert [mail.text for mail in found.mails] == [TEXTS[0]]
  body, head = parts(
    own, f"Content-Type: text/html\n\n<p>{TEXTS[1]}</p>", kind="alternative"
  )
  assert read(message(body, head=head)).mails[0].text == TEXTS[0]
  # Each text by itself, as in the published program.
  body, head = parts(own, attached)
  found = read(message(body, head=head), convention="reference")
  assert [mail.text for mail in found.mails] == TEXTS[:2]


def test_a_gigantic_attachment(read):
  own = f"Content-Type: text/plain\n\n{TEXTS[0]}"
  line = "QUJD" * 19 + "\n"
  giant = "Content-Type: application/zip\n\n" + line * 100_000
  body, head = parts(own, giant)
  begun = time.process_time()
  found = read(message(body, head=head), message(TEXTS[1]))
  assert [mail.text for mail in found.mails] == TEXTS[:2]
  assert time.process_time() - begun < 10


def test_lines_that_begin_with_from_cut_nothing(read):
  text = f"{TEXTS[0]}\n\nFrom here on all is new, and\n>From there it is old."
  found = read(message(text), message(TEXTS[1]))
  assert found.messages == 2
  assert found.mails[0].text == text.replace(">From", "From")
  assert found.mails[0].thread == ()


def test_the_published_counters(read):
  found = read(
    message(TEXTS[0]),
    message(TEXTS[0]),
    message("---------- Forwarded message ---------\n" + TEXTS[1]),
    message(TEXTS[1], date=None),
    message(TEXTS[1], sender="not" + ME),
    convention="reference",
  )
  assert [mail.text for mail in found.mails] == [TEXTS[0], TEXTS[0], TEXTS[1]]
  counts = {name: n for name, n in found.counts.items() if n}
  assert counts == {"forwarded": 1, "short": 1, "no_date": 1}


@pytest.mark.parametrize(
  ("content", "options", "said"),
  [
    (b"", {}, "holds no message"),
    (
      mbox(message(GERMAN)),
      {},
      "is in English: left out were 1 not in English",
    ),
    (
      mbox(message("Short.")),
      {},
      "0 usable mails of 1 messages, and at least 1",
    ),
    (
      mbox(message(TEXTS[0])),
      {"least": 10},
      "has 1 usable mails of 1 messages",
    ),
    (
      mbox(message(TEXTS[0])),
      {"owner": "you@example.org"},
      "is from you@example.org; the most frequent sender is me@example.org",
    ),
    (mbox(message(TEXTS[0])), {"owner": "me"}, "addresses such as"),
    (
      mbox(message(TEXTS[0], sender="")),
      {"owner": None},
      "says who it is from",
    ),
    (
      mbox(message(TEXTS[0])),
      {"kind": "pst"},
      "the kind 'pst'; known are mbox",
    ),
    (mbox(message(TEXTS[0])), {"convention": "x"}, "convention must be one of"),
    (b"\x00\x01", {}, "is no mailbox; known are mbox"),
  ],
)
def test_users_errors(tmp_path, content, options, said):
  path = tmp_path / "Sent.mbox"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=said):
    emails.read(path, **options)


def test_errors_of_other_kinds(tmp_path):
  with pytest.raises(FileNotFoundError, match="no file or directory"):
    emails.read(tmp_path / "absent")
  with pytest.raises(ValueError, match="neither the folders cur/"):
    emails.read(tmp_path)
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a.txt", "x")
  with pytest.raises(ValueError, match=r"holds no \.mbox"):
    emails.read(path)
  with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
    (tmp_path / "a").write_bytes(mbox(*[message(t) for t in TEXTS]) * 999)
    archive.add(tmp_path / "a", "a.mbox")
  whole = (tmp_path / "a.tgz").read_bytes()
  (tmp_path / "a.tgz").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match="truncated or damaged"):
    emails.read(tmp_path / "a.tgz")
  path = tmp_path / "a.jsonl"
  for content, said in [
    ("{", "line 1 is not JSON"),
    ('\n["a"]', "line 2 must be an object"),
    ('{"subject": "a"}', "has no text 'email' or 'text'"),
    ('{"text": "a", "date": 3}', "'date' must be a text"),
    ('{"text": "a", "thread": "b"}', "'thread' must be a list"),
    ("", "holds no message"),
  ]:
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
      emails.read_jsonl(path)


@pytest.mark.parametrize(
  ("name", "address"),
  [
    ("=?utf-8?q?me=40example=2Eorg?=", "phisher@example.com"),
    ("=?utf-8?q?Me_=40_home?=", ME),
    ("=?utf-8?q?Anna_M=C3=BCller_=28ACME?=", ME),
    ("=?utf-8?q?Me_=22Nick_M=C3=BCller?=", ME),
    ('"Doe, Anna"', ME),
    ("", ME),
  ],
)
def test_a_name_is_no_address(read, name, address):
  content = message(TEXTS[0], sender=f"{name} <{address}>")
  assert mailboxes.senders(mailboxes.head(content)) == (address,)
  found = read(content, message(TEXTS[1]))
  assert found.counts["not_owner"] == (address != ME)


def test_a_byte_order_mark_hides_no_message(tmp_path):
  path = tmp_path / "Sent.mbox"
  path.write_bytes(b"\xef\xbb\xbf" + mbox(*map(message, TEXTS)))
  assert emails.read_mbox(path, owner=ME).messages == len(TEXTS)


def test_damaged_headers_stop_nothing(read):
  odd = b"From: =?utf-8?b?!!!?= <me@example.org>\nDate: yesterday\n"
  odd += b"Subject: =?x-none?q?a?= \xff\xfe\n\n" + TEXTS[0].encode()
  (mail,) = read(odd).mails
  assert (mail.text, mail.date) == (TEXTS[0], None)
  assert mailboxes.senders(mailboxes.head(b"no header at all")) == ()
