"""Mails of Panza's persons come from where the user has put them."""

import dataclasses
import hashlib
import json

import pytest

from effjax import data
from effjax.data import panza, registry

LINE = "I think that this is quite long, and so a program has wrapped the line"
ROWS = {
  "david": [{"email": f"Hi,\r\n{LINE}\r\nhere.\r\n\r\nBo", "subject": "Re: a"}],
  "isabel": [{"email": "Hello.", "subject": "b"}] * 2,
  "marcus": [{"email": "Yes.", "subject": "", "date": "2024-05-03T10:00:00Z"}],
}


def test_persons_are_read_and_checked(tmp_path, monkeypatch):
  files = []
  for file in registry.SOURCES["panza"].files:
    rows = ROWS[file.name.split("_")[0]]
    content = "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / file.name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    files.append(dataclasses.replace(file, sha256=digest))
  real = registry.SOURCES["panza"]
  made = dataclasses.replace(real, files=tuple(files))
  with pytest.raises(ValueError, match="sha256"):
    data.source("panza", "david", directory=tmp_path)
  monkeypatch.setitem(registry.SOURCES, "panza", made)
  open_ = lambda name: data.source("panza", name, directory=tmp_path)
  (mail,) = panza.letters(open_("david"))
  assert mail.text == f"Hi,\n{LINE} here.\n\nBo"
  assert (mail.subject, mail.date) == ("Re: a", None)
  (mail,) = panza.letters(open_("david"), unwrap=False)
  assert mail.text == f"Hi,\n{LINE}\nhere.\n\nBo"
  assert len(open_("isabel")) == 2
  assert panza.letters(open_("marcus"))[0].date == ROWS["marcus"][0]["date"]
  (tmp_path / files[0].name).unlink()
  with pytest.raises(FileNotFoundError, match="for research and are not"):
    open_("marcus")
