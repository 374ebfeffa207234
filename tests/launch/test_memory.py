"""Commands that ask for huge pages of memory before they begin."""

import os
import subprocess
import sys

import pytest

from launch import memory

OFFERED = "always [madvise] never"


def test_asks_beside_other_tunables():
  given = {"HOME": "/home", "GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}
  assert memory.with_huge_pages(given, "glibc 2.35", OFFERED) == {
    "HOME": "/home",
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1",
  }


@pytest.mark.parametrize(
  ("given", "library", "mode"),
  [
    ("glibc.malloc.hugetlb=0", "glibc 2.36", OFFERED),
    ("", "glibc 2.34", OFFERED),
    ("", "glibc", OFFERED),
    ("", "musl 1.2", OFFERED),
    ("", "", OFFERED),
    ("", "glibc 2.36", "[always] madvise never"),
    ("", "glibc 2.36", "always madvise [never]"),
  ],
)
def test_leaves_alone_what_is_decided_or_of_no_use(given, library, mode):
  environment = {"GLIBC_TUNABLES": given} if given else {}
  assert memory.with_huge_pages(environment, library, mode) is None


@pytest.fixture
def started(monkeypatch, tmp_path):
  """Processes that would have been started, on a kernel that offers pages."""
  found = []
  mode = tmp_path / "enabled"
  mode.write_text(OFFERED + "\n")
  monkeypatch.setattr(memory, "_MODE", mode)
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
  monkeypatch.setattr(os, "execve", lambda *given: found.append(given))
  return found


def test_starts_the_same_command_once(started, monkeypatch):
  memory.use_huge_pages()
  [(program, arguments, environment)] = started
  assert (program, arguments) == (sys.executable, sys.orig_argv)
  monkeypatch.setenv("GLIBC_TUNABLES", environment["GLIBC_TUNABLES"])
  memory.use_huge_pages()
  assert len(started) == 1


def test_goes_on_where_the_kernel_has_no_such_pages(started, monkeypatch):
  monkeypatch.setattr(memory, "_MODE", memory._MODE.with_name("absent"))
  memory.use_huge_pages()
  assert not started


def test_the_new_process_has_the_arguments_of_the_old(tmp_path):
  script = tmp_path / "script.py"
  script.write_text(
    "import pathlib, sys\n"
    "from launch import memory\n"
    f"memory._MODE = pathlib.Path({str(tmp_path / 'enabled')!r})\n"
    "memory.use_huge_pages()\n"
    "print(*sys.argv[1:], sep='|')\n"
  )
  (tmp_path / "enabled").write_text(OFFERED)
  environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  environment["PYTHONPATH"] = os.getcwd()
  run = subprocess.run(
    [sys.executable, str(script), "a b", "--c=d"],
    env=environment,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert (run.returncode, run.stdout) == (0, "a b|--c=d\n"), run.stderr
