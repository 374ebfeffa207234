"""Drafts on the command line and in a page, with a tiny model."""

import json
import threading
import urllib.parse

import pytest

from effjax.data import mails
from effjax.models import sampling
from effjax.studies import language
from effjax.studies.personalize import assistant, folders, prompts, retrieval
from launch import pages, write, writing
from tests.launch import chromium
from tests.launch.local import ask

HOSTILE = "</script><script>document.title='gone'</script><b>tea</b> at two"


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
  """What was learned, by hand: the model itself, two mails and settings."""
  made = folders.make(tmp_path_factory.mktemp("runs") / "kim<b>")
  language.save(made.adapter, language.load(weights))
  kept = [
    mails.mail(f"Dear Ann,\n\n{HOSTILE}.", subject="<i>tea</i>"),
    mails.mail("The report is on the table in the library, as always."),
  ]
  retrieval.save(made.index, retrieval.build(kept, kind="bm25"))
  preamble = {"system": "Write.", "user": ""}
  folders.write_private(
    made.settings,
    {
      "model": weights,
      "preamble": preamble,
      "length": 640,
      "retrieve": 1,
      "max_tokens": 6,
    },
  )
  return made


@pytest.fixture(scope="module")
def served(folder):
  """The page's address and its service, of which the model is loaded."""
  service = writing.Service(folder, lambda: assistant.Assistant(folder))
  with pages.make_server(service) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield pages.address(server), service
    server.shutdown()
    thread.join()


@pytest.fixture
def port(served):
  address, service = served
  if not service.progress()["ready"]:
    service.load()
  return urllib.parse.urlsplit(address).port


GOOD = {
  "instruction": "invite Ann to tea",
  "method": "adapter",
  "retrieve": 1,
  "temperature": 0,
  "seed": 0,
}


def post(port, service, body, **headers):
  headers = {
    "Content_Type": "application/json",
    pages.TOKEN: service.token,
    **headers,
  }
  answer, content = ask(port, "POST", "/draft", body, **headers)
  return answer.status, content


def test_the_page_says_that_the_model_is_loaded(folder):
  service = writing.Service(folder, lambda: assistant.Assistant(folder))
  assert service.progress() == {"stage": "loading the model", "ready": False}
  with pytest.raises(ValueError, match="is being loaded"):
    service.draft(json.dumps(GOOD).encode())


def test_a_draft_is_streamed_with_the_mails_that_were_found(served, port):
  _, service = served
  status, content = post(port, service, json.dumps(GOOD))
  assert status == 200
  first, *pieces, last = [json.loads(line) for line in content.splitlines()]
  (found,) = first["found"]
  assert found["subject"] == "<i>tea</i>"
  assert HOSTILE in found["text"]
  assert found["shown"]
  assert all(list(piece) == ["piece"] for piece in pieces)
  assert last["seconds"] > 0
  text = "".join(piece["piece"] for piece in pieces)
  again = post(port, service, json.dumps(GOOD))[1].splitlines()
  assert "".join(json.loads(x).get("piece", "") for x in again) == text
  without = post(port, service, json.dumps({**GOOD, "retrieve": 0}))[1]
  assert json.loads(without.splitlines()[0]) == {"found": []}


def test_a_draft_ends_where_an_earlier_mail_would_begin(folder, monkeypatch):
  writer = assistant.Assistant(folder)

  def draft():
    asked = writer.ask(
      "invite Ann to tea", retrieve=0, sampled=sampling.Sampling()
    )
    return "".join(asked.pieces)

  whole = draft()
  assert whole
  monkeypatch.setattr(prompts, "HEADING", whole)
  assert draft() == ""


def test_the_page_is_one_safe_file_for_those_who_know_its_token(served, port):
  address, service = served
  where = urllib.parse.urlsplit(address)
  answer, content = ask(port, "GET", f"{where.path}?{where.query}")
  text = content.decode()
  assert answer.status == 200
  assert "Drafts in the style of kim&lt;b&gt;" in text
  assert service.token in text
  policy = answer.headers["Content-Security-Policy"]
  assert "default-src 'none'" in policy
  assert "unsafe" not in policy
  assert "http" not in text
  assert " on" + "click" not in text
  assert " style=" not in text
  assert "at two" not in text  # mails come by questions alone
  for path in ("/", "/?token=guess"):
    refused, content = ask(port, "GET", path)
    assert refused.status == 403
    assert service.token.encode() not in content


def test_the_page_refuses(served, port):
  _, service = served

  def refused(**changes):
    status, content = post(port, service, json.dumps({**GOOD, **changes}))
    assert status == 400
    return json.loads(content)["error"]

  assert "the instruction is empty" in refused(instruction=" ")
  assert "4,000 are the limit" in refused(instruction="x" * 4001)
  assert "did you mean 'adapter'" in refused(method="adaptr")
  assert "from 0 to 10" in refused(retrieve=11)
  assert "retrieve, which is a whole number" in refused(retrieve=True)
  assert "temperature must be from 0 to 2" in refused(temperature=float("nan"))
  assert "seed must be from 0" in refused(seed=-1)
  body = json.dumps(GOOD)
  for wrong in (b"[" * 40_000, b"[]", b"\xff"):
    assert post(port, service, wrong)[0] == 400
  # Pages from elsewhere, other names of this machine, programs that guess.
  assert post(port, service, body, Content_Type="text/plain")[0] == 415
  assert post(port, service, body, Host="evil.example:80")[0] == 403
  assert post(port, service, body, Origin="http://evil.example")[0] == 403
  assert post(port, service, body, Origin="null")[0] == 403
  for token in ("", "guess", "\xff"):
    assert post(port, service, body, **{pages.TOKEN: token})[0] == 403
  assert ask(port, "GET", "/draft")[0].status == 404
  assert post(port, service, b"", Content_Length="50001")[0] == 413


def test_a_half_of_a_character_is_no_error(served, port):
  _, service = served
  status, content = post(
    port, service, json.dumps({**GOOD, "instruction": "tea \ud83d"})
  )
  assert status == 200
  assert b"error" not in content


def test_a_prompt_without_room_is_told(served, port):
  _, service = served
  status, content = post(
    port, service, json.dumps({**GOOD, "instruction": "tea " * 900})
  )
  assert status == 200
  assert "shorten them" in json.loads(content.splitlines()[-1])["error"]
  assert service.progress() == {"stage": "", "ready": True}


def test_who_goes_away_stops_the_draft(served, port):
  _, service = served
  lines = service.draft(json.dumps(GOOD).encode())
  next(lines)
  assert service.progress()["stage"] == "reading"
  lines.close()
  assert service.progress()["stage"] == ""
  assert post(port, service, json.dumps(GOOD))[0] == 200


def test_what_the_command_line_refuses(folder, served, port, capsys):
  def fails(*arguments):
    assert write.main(["--adapter", str(folder.root), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error

  assert "TEXT is missing" in fails()
  assert "give one of them" in fails("hi", "--greedy", "--temperature=0.5")
  assert "from 0 to 2" in fails("hi", "--temperature=nan")
  assert f"the port {port} cannot be had" in fails("--serve", f"--port={port}")
  assert "--port must be" in fails("--serve", "--port=70000")


def test_a_model_that_cannot_be_loaded_ends_the_page(folder, capsys):
  command = ["--adapter", str(folder.root), "--serve", "--port=0"]
  assert write.main([*command, "--model=smolm2"]) == 2
  said = capsys.readouterr()
  assert "/?token=" in said.out
  assert "did you mean 'smollm2'" in said.err


def test_settings_that_are_not_there_are_told(folder, tmp_path, capsys):
  alone = folders.Folder(tmp_path)
  alone.adapter.symlink_to(folder.adapter)
  command = ["--adapter", str(tmp_path), "invite Ann", "--model"]
  assert write.main([*command, str(folder.adapter), "--max_tokens=890"]) == 2
  said = capsys.readouterr().err
  assert "settings.json is missing or damaged" in said
  assert "asked in the usual way" in said


@pytest.mark.slow
@pytest.mark.skipif(chromium.find() is None, reason="there is no Chromium")
def test_the_page_in_a_browser(folder, tmp_path):
  load = threading.Event()

  def wait():
    load.wait(60)
    return assistant.Assistant(folder)

  service = writing.Service(folder, wait)
  with pages.make_server(service) as server:
    for work in (server.serve_forever, service.load):
      threading.Thread(target=work, daemon=True).start()
    page = chromium.Page(chromium.find(), tmp_path / "profile")
    get = lambda name: f"document.getElementById('{name}')"
    try:
      page.open(pages.address(server))
      page.wait(f"{get('state')}.textContent.includes('loading the model')")
      assert page.js(f"{get('write')}.disabled")
      load.set()
      page.wait("document.body.dataset.ready === '1'")
      page.js(f"{get('instruction')}.value = 'invite Ann to tea'")
      page.js(f"{get('write')}.click()")
      page.wait("document.body.dataset.done === '1'")
      assert page.js(f"{get('state')}.textContent").startswith("written in")
      assert page.js(f"{get('draft')}.value")
      # What is in a mail stays text.
      assert page.js("document.title") == "Drafts: kim<b>"
      assert HOSTILE in page.js(f"{get('mails')}.textContent")
      assert (
        page.js(f"{get('mails')}.querySelectorAll('b, i, script').length") == 0
      )
      seed = page.js(f"{get('seed')}.value")
      page.js(f"{get('again')}.click()")
      page.wait("document.body.dataset.done === '2'")
      assert page.js(f"{get('seed')}.value") == str(int(seed) + 1)
      page.js(f"{get('retrieve')}.value = '0'")
      page.js(f"{get('write')}.click()")
      page.wait("document.body.dataset.done === '3'")
      assert page.js(f"{get('none')}.hidden") is False
      # On a phone nothing is wider than the screen.
      page.resize(360, 740)
      assert page.js("document.documentElement.scrollWidth") <= 360
      assert page.complaints() == []
      page.js(f"{get('instruction')}.value = ' '")
      page.js(f"{get('write')}.click()")
      page.wait(f"!{get('error')}.hidden")
      assert "is empty" in page.js(f"{get('error')}.textContent")
    finally:
      page.close()
      server.shutdown()
