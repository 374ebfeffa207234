"""Huge pages of memory for commands that compute on the CPU.

XLA asks the C library for the temporary arrays of every step anew, and Linux
hands out memory in pages of 4 KB, each cleared when it is first touched: a step
of a language model spends up to a third of its time so. With pages of 2 MB it
spends next to none. The C library reads its tunables when a process starts, so
that a command has to start itself again.
"""

import os
import pathlib
import sys
from collections.abc import Mapping

_TUNABLE = "glibc.malloc.hugetlb"
_MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def with_huge_pages(
  environment: Mapping[str, str], library: str, mode: str
) -> dict[str, str] | None:
  """Return the environment in which the C library asks for huge pages.

  Args:
    environment: That of this process.
    library: The C library and its version, as `confstr` has it.
    mode: What the kernel offers, its choice in brackets.

  Returns:
    The environment; None where it would make no difference: the user has
    decided already (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0` declines), the
    kernel gives huge pages to all who ask or to nobody, or another C library
    or one before 2.35 does not know the tunable.

  >>> with_huge_pages({}, "glibc 2.36", "always [madvise] never")
  {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
  >>> with_huge_pages({}, "glibc 2.31", "always [madvise] never")
  """
  name, _, version = library.partition(" ")
  numbers = version.split(".")
  known = name == "glibc" and all(x.isdecimal() for x in numbers)
  if not known or tuple(map(int, numbers)) < (2, 35):
    return None
  given = environment.get("GLIBC_TUNABLES", "")
  if _TUNABLE in given or "[madvise]" not in mode:
    return None
  tunables = f"{given}:{_TUNABLE}=1" if given else f"{_TUNABLE}=1"
  return {**environment, "GLIBC_TUNABLES": tunables}


def improved_environment() -> dict[str, str] | None:
  """Return what `with_huge_pages` does for this process on this machine."""
  try:
    library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    mode = _MODE.read_text()
  except (AttributeError, OSError, ValueError):
    return None
  return with_huge_pages(os.environ, library, mode)


def use_huge_pages() -> None:
  """Start this command again with huge pages, where they make a difference.

  The process, its arguments and its terminal stay the same. To be called before
  anything is done.
  """
  environment = improved_environment()
  if environment is not None:
    os.execve(sys.executable, sys.orig_argv, environment)
