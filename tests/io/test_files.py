import errno
import os

import pytest

from effjax.io import files


def test_write_is_atomic(tmp_path, monkeypatch):
  path = tmp_path / "a.json"
  files.write_json(path, {"b": 1})
  assert path.read_text() == '{\n  "b": 1\n}\n'

  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", killed)
  with pytest.raises(KeyboardInterrupt):
    files.write_json(path, {"b": 2})
  assert '"b": 1' in path.read_text()


@pytest.mark.parametrize(
  ("number", "kind", "words"),
  [
    (errno.ENOSPC, OSError, "no space is left"),
    (errno.EROFS, OSError, "read-only"),
    (errno.EACCES, PermissionError, "permission is denied"),
    (errno.EDQUOT, OSError, "quota"),
  ],
)
def test_failures_of_the_disk_are_explained(tmp_path, number, kind, words):
  with (
    pytest.raises(kind, match=words) as caught,
    files.explained("write a thing", tmp_path),
  ):
    raise OSError(number, os.strerror(number))
  assert caught.value.errno == number
  assert str(tmp_path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_full_disk_behind_a_library_is_recognised(tmp_path):
  with (
    pytest.raises(OSError, match="no space is left") as caught,
    files.explained("write a thing", tmp_path),
  ):
    raise ValueError("RESOURCE_EXHAUSTED: No space left on device [28]")
  assert caught.value.errno == errno.ENOSPC


def test_other_errors_pass(tmp_path):
  with pytest.raises(ValueError, match="mine"), files.explained("x", tmp_path):
    raise ValueError("mine")


def test_sha256_of_known_bytes(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"abc")
  assert files.sha256(path).startswith("ba7816bf8f01cfea414140de5dae2223")
