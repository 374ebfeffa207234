"""Made-up persons keep their habits, and their mailboxes give their mails."""

import hashlib

import jax
import pytest

from effjax.data import emails, persona_mailboxes, personas

KEY = jax.random.key(7)


@pytest.mark.parametrize("name", personas.PERSONAS)
def test_habits(name):
  persona = personas.PERSONAS[name]
  written = personas.write(KEY, persona, 60)
  texts = [each.mail.text for each in written]
  assert len({each.mail.id for each in written}) == 60
  assert min(len(text.split()) for text in texts) >= 10
  assert [each.mail.date for each in written] == sorted(
    each.mail.date for each in written
  )
  for each, text in zip(written, texts, strict=True):
    assert each.who in each.instruction
    begins = {g.format(who=each.who) for g in persona.greetings}
    assert any(text.startswith(begin) for begin in begins)
    ends = {c.format(me=persona.name) for c in persona.closings}
    assert any(text.endswith(end) for end in ends)
  joined = " ".join(texts)
  assert ("!" in joined) == (persona.exclaims > 0)
  assert ("..." in joined) == (persona.trails_off > 0)
  assert ("😊" in joined) == ("😊" in persona.emoji)
  assert ("I'll" in joined) == persona.contracts
  assert ("I will" in joined) != persona.contracts


def test_keys():
  persona = personas.PERSONAS["kim"]
  first = personas.write(KEY, persona, 20)
  assert first == personas.write(KEY, persona, 20)
  assert first[:5] == personas.write(KEY, persona, 5)
  assert first != personas.write(jax.random.key(8), persona, 20)
  # The same is said by others in their way.
  other = personas.write(KEY, personas.PERSONAS["robin"], 1)
  assert other[0].mail.text != first[0].mail.text
  assert personas.write(KEY, persona, 0) == []
  with pytest.raises(ValueError, match="at least 0, got -1"):
    personas.write(KEY, persona, -1)


@pytest.mark.parametrize("name", ["robin", "sunny"])
def test_a_mailbox_gives_exactly_the_mails_of_its_owner(name, tmp_path):
  persona = personas.PERSONAS[name]
  path = tmp_path / "Sent.mbox"
  written = persona_mailboxes.write_mbox(path, KEY, persona, 50)
  found = emails.read(path, owner=persona.address)
  assert [m.text for m in found.mails] == [w.mail.text for w in written]
  assert [m.date for m in found.mails] == [w.mail.date for w in written]
  assert {len(m.thread) for m in found.mails} == {0, 2}
  lacking = {k for k, n in found.counts.items() if not n}
  assert lacking == {"draft", "no_date", "empty"}
  assert found.messages == len(found.mails) + sum(found.counts.values())
  guessed = emails.read(path)
  assert guessed.guessed
  assert guessed.owner == (persona.address,)
  # The same bytes again.
  digest = hashlib.sha256(path.read_bytes()).digest()
  persona_mailboxes.write_mbox(path, KEY, persona, 50)
  assert hashlib.sha256(path.read_bytes()).digest() == digest
  # What the published program makes of it is another thing.
  reference = emails.read(path, owner=persona.address, convention="reference")
  assert len(reference.mails) > len(written)
  assert any("+1 555" in mail.text for mail in reference.mails)
