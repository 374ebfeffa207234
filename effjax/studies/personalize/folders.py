"""What the model of a mailbox lies in: what is shared, and what never is.

`adapter/` holds the weights and where they come from, and no text; `private/`
holds the mails, for the user alone.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from effjax.io import files, peft_config
from effjax.studies.text import meant

# Where the folders of all names are.
HOME = pathlib.Path("runs/personalize")


@dataclasses.dataclass(frozen=True)
class Folder:
  """The folder of one mailbox.

  Attributes:
    root: Its path.
  """

  root: pathlib.Path

  @property
  def private(self) -> pathlib.Path:
    """What holds mails, for the user alone."""
    return self.root / "private"

  @property
  def mails(self) -> pathlib.Path:
    """The mails, split, and what was left out."""
    return self.private / "mails.json"

  @property
  def instructions(self) -> pathlib.Path:
    """What the mails follow."""
    return self.private / "instructions.jsonl"

  @property
  def index(self) -> pathlib.Path:
    """The mails as they are searched."""
    return self.private / "index.safetensors"

  @property
  def settings(self) -> pathlib.Path:
    """How the model is asked."""
    return self.private / "settings.json"

  @property
  def training(self) -> pathlib.Path:
    """Checkpoints."""
    return self.root / "training"

  @property
  def results(self) -> pathlib.Path:
    """What the examination found, numbers only."""
    return self.root / "results.json"

  @property
  def adapter(self) -> pathlib.Path:
    """What was learned."""
    return self.root / "adapter"


def make(path: str | os.PathLike) -> Folder:
  """Make a folder that nobody else may read.

  Args:
    path: Where; it may be there already.

  Returns:
    The folder.

  Raises:
    OSError: If the disk refuses.
  """
  found = Folder(pathlib.Path(path))
  with files.explained("make the folder", found.root):
    for each in (found.root, found.private):
      each.mkdir(mode=0o700, parents=True, exist_ok=True)
    found.private.chmod(0o700)
  return found


def find(name: str | os.PathLike) -> Folder:
  """Find the folder of an adapter.

  Args:
    name: A name below `HOME`, a folder, or the adapter in it.

  Returns:
    The folder.

  Raises:
    FileNotFoundError: If there is none, with the nearest name, or it holds no
      adapter yet.
  """
  path = pathlib.Path(name)
  if not path.is_dir() and path.name == str(name):
    path = HOME / path
  if not path.is_dir():
    known = sorted(each.parent.name for each in HOME.glob("*/adapter"))
    raise FileNotFoundError(
      f"there is no adapter {str(name)!r}{meant(str(name), known)}; neither"
      f" {HOME / str(name)} nor {name} is a directory"
    )
  if is_adapter(path):
    # An adapter may be anywhere; only where it was made mails lie beside it.
    return Folder(path.parent) if path.name == "adapter" else Folder(path)
  if not is_adapter(path / "adapter"):
    raise FileNotFoundError(
      f"{path} holds no adapter; is python -m launch.personalize done with it?"
    )
  return Folder(path)


def is_adapter(path: pathlib.Path) -> bool:
  """Say whether a directory holds an adapter, or all weights of a model."""
  return any((path / n).is_file() for n in (peft_config.NAME, "config.json"))


def write_private(path: pathlib.Path, content: Any) -> None:
  """Write a JSON file that the user alone may read."""
  files.write_json(path, content)
  path.chmod(0o600)


def read(path: pathlib.Path) -> dict[str, Any] | None:
  """Read a JSON file; None if there is none, or half of one."""
  try:
    return json.loads(path.read_text("utf-8"))
  except (FileNotFoundError, ValueError):
    return None


def digest(path: str | os.PathLike) -> str:
  """Return the SHA-256 of a file, or of the names and files of a directory."""
  path = pathlib.Path(path)
  if path.is_file():
    return files.sha256(path)
  if not path.is_dir():
    raise FileNotFoundError(f"there is no file or directory {path}")
  found = hashlib.sha256()
  for each in sorted(p for p in path.rglob("*") if p.is_file()):
    found.update(str(each.relative_to(path)).encode("utf-8", "replace"))
    found.update(files.sha256(each).encode())
  return found.hexdigest()


def split_digest(train: Sequence[str], test: Sequence[str]) -> str:
  """Return the SHA-256 of which mails were learned from, by their ids."""
  text = json.dumps([sorted(train), sorted(test)])
  return hashlib.sha256(text.encode()).hexdigest()
