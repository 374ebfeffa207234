"""From a mailbox to a draft on the command line, with a tiny model."""

import json
import stat

import jax
import pytest

from effjax.data import emails, persona_mailboxes, personas
from launch import personalize, write

PERSONA = personas.PERSONAS["kim"]


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory):
  path = tmp_path_factory.mktemp("mail") / "Sent.mbox"
  persona_mailboxes.write_mbox(path, jax.random.key(0), PERSONA, count=24)
  return path


def command(mailbox, weights, place, *more):
  return [
    *("--mailbox", str(mailbox), "--name", "kim", "--workdir", str(place)),
    *("--model", weights, "--retriever", "bm25", "--instructions", "extracted"),
    *("--epochs", "1", "--tested", "2", "--length", "640", "--max_tokens", "8"),
    *("--rank", "2", *more),
  ]


def test_from_a_mailbox_to_a_draft(mailbox, weights, tmp_path, capsys):
  place = tmp_path / "kim"
  words = command(mailbox, weights, place)
  assert personalize.main(words) == 0
  said = capsys.readouterr().out
  assert "mails to learn from" in said
  assert "python -m launch.write --adapter" in said
  origin = json.loads((place / "adapter" / "provenance.json").read_text())
  assert "consent" in origin["purpose"]
  assert origin["mails"] > 0

  # The adapter holds no line of a mail and no address; what does is private.
  kept = emails.read(mailbox).mails
  lines = {x.strip() for mail in kept for x in mail.text.splitlines()}
  lines = [line.encode() for line in lines if len(line.split()) > 3]
  for path in (place / "adapter").rglob("*"):
    content = path.read_bytes()
    assert b"@" not in content or path.suffix == ".safetensors"
    assert not any(line in content for line in lines), path
  assert stat.S_IMODE((place / "private").stat().st_mode) == 0o700
  for name in ("config.json", "environment.json"):
    assert stat.S_IMODE((place / name).stat().st_mode) == 0o600

  # Again: nothing is done a second time.
  assert personalize.main(words) == 0
  capsys.readouterr()

  about = " ".join(max((x.text for x in kept), key=len).split()[:12])
  ask = ["--adapter", str(place), about, "--max_tokens", "4"]
  assert write.main([*ask, "--retrieve", "1"]) == 0
  first = capsys.readouterr()
  assert "in the prompt" in first.err or "no room" in first.err
  assert write.main([*ask, "--retrieve", "1"]) == 0
  assert capsys.readouterr().out == first.out
  assert write.main([*ask, "--method", "adaptr"]) == 2
  assert "there is no method 'adaptr'" in capsys.readouterr().err


def test_an_adapter_that_is_not_there(capsys):
  assert write.main(["--adapter", "nobody", "hello"]) == 2
  assert "there is no adapter 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("", "no mail|empty|no messages|holds no"),
    (
      "From a\nFrom: a@x.org\nDate: Mon, 2 Jan 2023 10:00:00 +0000\n\n"
      "Only one mail of ten words and more is in this small mailbox.\n",
      "10",
    ),
  ],
)
def test_mailboxes_that_are_no_use(content, message, tmp_path, weights, capsys):
  path = tmp_path / "Sent.mbox"
  path.write_text(content)
  assert personalize.main(command(path, weights, tmp_path / "run")) == 2
  found = capsys.readouterr().err
  assert "Traceback" not in found
  assert any(word in found for word in message.split("|")), found
