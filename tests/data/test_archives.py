import gzip
import io
import shutil
import tarfile
import zipfile

import pytest

from effjax.data import archives

FILES = {"pkg/data/a.bin": b"first" * 100, "pkg/b.txt": b"second"}


def write_zip(path, files):
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return path


def tarball(files, mode, prefix=""):
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode=mode) as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(prefix + name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return stream.getvalue()


def write_deb(path, files, payload="data.tar.xz"):
  """Write a Debian package: an ar archive of three members."""
  members = {
    "debian-binary": b"2.0\n",
    "control.tar.xz": tarball({"control": b"Package: toy\n"}, "w:xz", "./"),
    payload: tarball(files, "w:xz", "./"),
  }
  content = b"!<arch>\n"
  for name, data in members.items():
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
    content += header.encode() + data + b"\n" * (len(data) % 2)
  path.write_bytes(content)
  return path


def write(kind, folder, files=FILES):
  path = folder / f"package.{kind}"
  if kind in ("whl", "zip"):
    return write_zip(path, files)
  if kind == "deb":
    return write_deb(path, files)
  path.write_bytes(gzip.compress(tarball(files, "w")))
  return path


@pytest.mark.parametrize("kind", ["whl", "zip", "tgz", "tar.gz", "deb"])
def test_files_are_read_by_name(tmp_path, kind):
  path = write(kind, tmp_path)
  assert archives.read_members(path, tuple(FILES)) == FILES
  only = archives.read_members(path, ("pkg/b.txt",))
  assert only == {"pkg/b.txt": b"second"}


def test_debian_package_without_dpkg(tmp_path, monkeypatch):
  path = write("deb", tmp_path)
  monkeypatch.setattr(shutil, "which", lambda name: None)
  assert archives.read_members(path, tuple(FILES)) == FILES


def test_unknown_compression_names_dpkg(tmp_path, monkeypatch):
  path = write_deb(tmp_path / "new.deb", FILES, payload="data.tar.zst")
  monkeypatch.setattr(shutil, "which", lambda name: None)
  with pytest.raises(ValueError, match="needs the program dpkg-deb"):
    archives.read_members(path, tuple(FILES))


@pytest.mark.parametrize("kind", ["whl", "tgz", "deb"])
def test_missing_member_is_named(tmp_path, kind):
  path = write(kind, tmp_path)
  with pytest.raises(FileNotFoundError, match=r"does not hold pkg/c\.txt"):
    archives.read_members(path, ("pkg/b.txt", "pkg/c.txt"))


@pytest.mark.parametrize("dpkg", [True, False])
@pytest.mark.parametrize("kind", ["whl", "tgz", "deb"])
def test_truncated_archive_is_named(tmp_path, monkeypatch, kind, dpkg):
  if not dpkg:
    monkeypatch.setattr(shutil, "which", lambda name: None)
  path = write(kind, tmp_path)
  path.write_bytes(path.read_bytes()[:-60])
  with pytest.raises(ValueError, match="is truncated or damaged") as error:
    archives.read_members(path, tuple(FILES))
  assert str(path) in str(error.value)


def test_unknown_kind(tmp_path):
  with pytest.raises(ValueError, match=r"x\.rar is not an archive"):
    archives.read_members(tmp_path / "x.rar", ("a",))
