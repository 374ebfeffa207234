"""A mailbox of a made-up person, with all that is in real ones."""

import datetime
import email.generator
import email.message
import email.utils
import io
import os
import pathlib
import textwrap
from collections.abc import Iterator
from typing import Any

from effjax.data import batches, personas
from effjax.data.mails import Mail

_GERMAN = (
  "Vielen Dank für die Unterlagen, ich werde sie morgen auf der Fahrt nach"
  " Hause lesen und mich dann wieder melden."
)
# So many of the person's mails come before one that is ...
_EVERY = {
  "other": 4,
  "forward": 20,
  "german": 24,
  "short": 15,
  "copy": 30,
  "html": 40,
  "broken": 40,
}


def write_mbox(
  path: str | os.PathLike,
  key: Any,
  persona: personas.Persona,
  count: int = 120,
) -> list[personas.Written]:
  """Write an mbox with mails of a person among other messages.

  The person's mails have quotes, headers of quotes, signatures, attachments and
  several encodings. Between them are mails of others, copies, forwarded,
  short, German and HTML mails, and one whose encoding is broken. What
  `emails.read_mbox(path, owner=persona.address)` keeps are the texts that are
  returned.

  Args:
    path: The file to write; one that is there is replaced.
    key: Typed random key.
    persona: Whose mailbox it is.
    count: How many mails of the person.

  Returns:
    The person's mails.

  Raises:
    ValueError: If so many different mails cannot be found.
  """
  written = personas.write(key, persona, count)
  stream = io.BytesIO()
  for message in _messages(key, persona, written):
    generator = email.generator.BytesGenerator(stream, mangle_from_=True)
    generator.flatten(message, unixfrom=True)
    stream.write(b"\n")
  path = pathlib.Path(path)
  scratch = path.with_name(f".{path.name}.tmp")
  scratch.write_bytes(stream.getvalue())
  os.replace(scratch, path)
  return written


def _messages(
  key: Any, persona: personas.Persona, written: list[personas.Written]
) -> Iterator[email.message.EmailMessage]:
  """Yield the person's mails, and other messages between them."""
  generator = batches.generator_of(key)
  generator.random()  # not what the texts were drawn with
  others = list(personas.PERSONAS.values())
  for number, each in enumerate(written):
    mail = each.mail
    text = mail.text
    if number % 2:
      text += f"\n\n{_quote(each)}"
    if number % 3 == 0:
      text += f"\n-- \n{persona.name}\n+1 555 0100"
    charset = "iso-8859-15" if number % 5 == 0 and _fits(text) else "utf-8"
    message = _message(persona, each.who, mail, text, charset=charset)
    if number % 7 == 0:
      table = b"a,b\n1,2\n" * 50
      message.add_attachment(
        table, maintype="text", subtype="csv", filename="table.csv"
      )
      message.set_boundary(f"=={number}==")
    yield message
    other = others[int(generator.integers(len(others)))]
    for kind, every in _EVERY.items():
      if (number + 1) % every == 0:
        yield _between(kind, persona, other, each)


def _between(
  kind: str,
  persona: personas.Persona,
  other: personas.Persona,
  each: personas.Written,
) -> email.message.EmailMessage:
  """Return a message that is not to be learned from."""
  mail, text = each.mail, each.mail.text
  if kind == "other":
    sender = personas.Persona(name=f"{other.name}-else")
    return _message(sender, persona.name, mail, f"{_asked(each)}\n\n{text}")
  if kind == "forward":
    text = (
      f"For you.\n\n---------- Forwarded message ---------\nFrom: {other.name}"
      f" <{other.address}>\nSubject: {mail.subject}\n\n{text}"
    )
  elif kind == "german":
    text = f"Hallo {each.who},\n\n{_GERMAN}\n\n{persona.name}"
  elif kind == "short":
    text = "Fine, see you there."
  elif kind == "copy":
    text = text.replace("\n", "\r\n")
  message = _message(persona, each.who, mail, text)
  if kind == "html":
    message.set_content(f"<p>{text}</p>", subtype="html")
  elif kind == "broken":
    message.set_content(f"Grüße\n{text}", charset="utf-8", cte="8bit")
    latin = "Gr\udcfc\udcdfe\n" + text.encode("ascii", "ignore").decode()
    message.set_payload(latin)
  return message


def _message(
  sender: personas.Persona,
  who: str,
  mail: Mail,
  text: str,
  *,
  charset: str = "utf-8",
) -> email.message.EmailMessage:
  message = email.message.EmailMessage()
  moment = datetime.datetime.fromisoformat(mail.date or "")
  message["From"] = f"{sender.name} <{sender.address}>"
  message["To"] = f"{who} <{who.lower()}@example.org>"
  message["Date"] = email.utils.format_datetime(moment)
  message["Subject"] = mail.subject
  message["Message-ID"] = f"<{mail.id}@example.org>"
  message.set_content(text, charset=charset)
  message.set_unixfrom(f"From {sender.address} {moment:%a %b %d %H:%M:%S %Y}")
  return message


def _asked(each: personas.Written) -> str:
  return f"Did you hear? {each.instruction}"


def _quote(each: personas.Written) -> str:
  """Return what a mail answers, as programs quote it."""
  moment = datetime.datetime.fromisoformat(each.mail.date or "")
  before = moment - datetime.timedelta(hours=3)
  lines = textwrap.wrap(f"{_asked(each)} What do you think?", 60)
  quoted = "\n".join(f"> {line}" for line in lines)
  return (
    f"On {before:%a, %b %d, %Y at %H:%M} {each.who}\n"
    f"<{each.who.lower()}@example.org> wrote:\n\n{quoted}\n>> Well."
  )


def _fits(text: str) -> bool:
  try:
    text.encode("iso-8859-15")
  except UnicodeEncodeError:
    return False
  return True
