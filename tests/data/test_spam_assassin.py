"""Authors of a public corpus: persons only, known by a hash."""

import hashlib
import io
import tarfile

import pytest

from effjax.data import registry, spam_assassin

TEXT = "I have read it twice and still think that the second way is better."


def package(mails):
  """Return a tarball with mails of (folder, sender, body)."""
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode="w:gz") as archive:
    for number, (folder, sender, body) in enumerate(mails):
      text = f"From: {sender}\nSubject: s\n\n{body}".encode("latin-1")
      member = tarfile.TarInfo(f"package/data/{folder}/{number:05}.txt")
      member.size = len(text)
      archive.addfile(member, io.BytesIO(text))
  return stream.getvalue()


def source(content):
  arrays = spam_assassin.read(content)
  return registry.Source(
    name="spam_assassin",
    split="all",
    names={},
    arrays=arrays,
    provenance={},
    length=len(arrays["texts"]),
  )


def test_persons_are_told_from_robots_and_hashed():
  ham = "easy-ham-1"
  content = package(
    [
      (
        ham,
        "Ann <Ann@example.org>",
        f"Bob wrote:\n> {TEXT}\n{TEXT}\xfc\n-- \nA",
      ),
      ("easy-ham-2", "ann@example.org", f"{TEXT} 2\n{'_' * 20}\nlist"),
      (ham, "ann@example.org", f"{TEXT} 2\n-----\nlist"),
      (ham, "bob@example.org", f"{TEXT} 3"),
      (ham, "rss@spamassassin.taint.org", TEXT),
      (ham, "bob@example.org", "Too short."),
      (ham, "bob@example.org", "long " * 601),
      (ham, "nobody", TEXT),
      ("spam-1", "bob@example.org", TEXT),
    ]
  )
  found = source(content)
  assert found.arrays["texts"].tolist() == [
    f"{TEXT}\xfc",
    f"{TEXT} 2",
    f"{TEXT} 3",
    f"{TEXT} 2",
  ]
  ann, bob = (
    hashlib.sha256(f"{name}@example.org".encode()).hexdigest()[:12]
    for name in ("ann", "bob")
  )
  assert found.arrays["authors"].tolist() == [ann, ann, bob, ann]
  by_author = spam_assassin.authors(found, least=1)
  assert {k: len(v) for k, v in by_author.items()} == {ann: 2, bob: 1}
  assert next(iter(by_author)) == ann
  assert list(spam_assassin.authors(found, least=2)) == [ann]
  with pytest.raises(ValueError, match="wrote 3 mails; the most of one are 2"):
    spam_assassin.authors(found, least=3)


def test_damaged_packages():
  whole = package([("easy-ham-1", "ann@example.org", TEXT)])
  with pytest.raises(ValueError, match="truncated or damaged"):
    spam_assassin.read(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match="no mails of persons"):
    spam_assassin.read(package([("spam-1", "ann@example.org", TEXT)]))
