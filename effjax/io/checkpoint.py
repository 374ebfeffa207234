"""Checkpoints that are atomic and checked; the only file that knows orbax.

A checkpoint is a directory: `arrays/` is written by orbax, `manifest.json`
lists the leaves and the SHA-256 of every file. It is written under a temporary
name and renamed when complete, so what bears a checkpoint's name was complete
once, and what has been damaged since is noticed before anything is read.

Orbax spends milliseconds on each array, whatever its size. Small leaves are
therefore laid end to end in one array of bytes; big or sharded ones stay
arrays of their own, written and read by all processes in parallel.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from effjax.io import files, manifest, packing
from effjax.io.manifest import CorruptCheckpointError as CorruptCheckpointError
from effjax.io.manifest import verify as verify

_logger = logging.getLogger(__name__)
_STEP_NAME = re.compile(r"\d{6,}")
_NO_CHECKPOINT, _NONE_INTACT = -1, -2


def save(
  path: str | os.PathLike,
  tree: Any,
  *,
  metadata: Mapping[str, Any] | None = None,
) -> None:
  """Save a tree of arrays atomically, with a checksum of every file.

  With several processes every one of them must call it, on a file system that
  they share. Once it returns, the checkpoint is complete on the disk.

  Args:
    path: The directory to make; its parents are made too.
    tree: Arrays of any shape and dtype, typed keys and plain numbers; None and
      empty containers are structure and cost nothing.
    metadata: Values that JSON can hold, returned by `read_metadata`.

  Raises:
    FileExistsError: If an intact checkpoint is there already. A damaged one is
      moved aside, never overwritten.
    OSError: If the disk is full or read-only, in one sentence.
  """
  path = pathlib.Path(path).absolute()
  scratch = path.with_name(f"{path.name}.tmp")
  leads = jax.process_index() == 0
  with files.explained("save the checkpoint", path):
    if leads:
      _make_room(path)
    arrays, leaves = packing.pack(tree)
    try:
      if leads:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
      _meet("checkpoint directory")
      _orbax_save(scratch / "arrays", arrays)
      if leads:
        manifest.write(scratch, leaves, metadata or {})
        os.replace(scratch, path)
    except BaseException:
      if leads:  # a full disk has better uses for half a checkpoint
        shutil.rmtree(scratch, ignore_errors=True)
      raise
    _meet("checkpoint complete")


def load(path: str | os.PathLike, abstract: Any) -> Any:
  """Load a checkpoint into the structure of another tree.

  Args:
    path: The directory of the checkpoint.
    abstract: A tree like the one saved: arrays, `jax.ShapeDtypeStruct` or plain
      numbers. A leaf with a sharding is placed by it, whatever the sharding
      was; NumPy arrays come back as NumPy arrays.

  Returns:
    The saved values in the structure of `abstract`.

  Raises:
    FileNotFoundError: If there is no such checkpoint.
    CorruptCheckpointError: If a file is missing, truncated or changed.
    ValueError: If names, shapes or dtypes differ from `abstract`.
  """
  path = pathlib.Path(path).absolute()
  leaves = verify(path)["leaves"]
  try:
    targets = packing.targets(leaves, abstract)
  except ValueError as error:
    raise ValueError(
      f"the checkpoint {path} does not fit what is loaded: {error}"
    ) from None
  arrays = _orbax_load(path / "arrays", targets)
  return packing.unpack(arrays, leaves, abstract)


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """Return the metadata saved with a checkpoint, without its arrays."""
  return manifest.read(path)["metadata"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
  """A directory of checkpoints named by step, `directory/000123`.

  Attributes:
    directory: Where they are.
    keep: How many of the newest intact ones are kept; damaged ones are neither
      counted nor deleted.
  """

  directory: pathlib.Path
  keep: int = 3

  def __post_init__(self):
    if self.keep < 1:
      raise ValueError(f"keep must be at least 1, got {self.keep}")

  def path(self, step: int) -> pathlib.Path:
    """Return the path that the checkpoint of a step has."""
    return self.directory / f"{step:06d}"

  def all(self) -> list[int]:
    """Return the steps that have a checkpoint, intact or not, ascending."""
    if not self.directory.is_dir():
      return []
    found = (entry.name for entry in self.directory.iterdir())
    return sorted(int(name) for name in found if _STEP_NAME.fullmatch(name))

  def save(
    self,
    step: int,
    tree: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
  ) -> None:
    """Save the checkpoint of a step, then delete what `keep` lets go.

    A step that has an intact checkpoint already is left as it is.

    Args:
      step: The step.
      tree: See `save`.
      metadata: See `save`.

    Raises:
      OSError: If the disk is full or read-only, in one sentence.
    """
    if not _agree(manifest.is_intact(self.path(step))):
      save(self.path(step), tree, metadata=metadata)
    if jax.process_index() == 0:
      self._prune(step)

  def load(self, step: int, abstract: Any) -> Any:
    """Load the checkpoint of a step; see `load` of this module."""
    return load(self.path(step), abstract)

  def newest(self) -> int | None:
    """Find the newest step whose checkpoint is intact.

    Every damaged checkpoint met on the way is named in a warning and left
    where it is.

    Returns:
      The step; None if there are no checkpoints.

    Raises:
      CorruptCheckpointError: If there are some and none is intact: to start
        over in silence would throw the run away.
    """
    step, problem = self._search() if jax.process_index() == 0 else (0, "")
    step = _agree(step)
    if step == _NONE_INTACT:
      raise CorruptCheckpointError(
        f"none of the checkpoints in {self.directory} is intact ({problem});"
        " move the directory away to start over"
      )
    return None if step == _NO_CHECKPOINT else step

  def _search(self) -> tuple[int, str]:
    problem = ""
    for step in reversed(self.all()):
      try:
        verify(self.path(step))
      except CorruptCheckpointError as error:
        _logger.warning("%s; it is passed over and left as it is", error)
        problem = problem or str(error)
      else:
        return step, problem
    return (_NONE_INTACT if problem else _NO_CHECKPOINT), problem

  def _prune(self, newest: int) -> None:
    # The step just written is intact. Of the others a look at the sizes tells
    # which ones count; at worst one too many is kept.
    whole = [
      step
      for step in self.all()
      if step != newest and manifest.looks_whole(self.path(step))
    ]
    kept = sorted([*whole, newest])[-self.keep :]
    for step in whole:
      if step not in kept:
        # Renamed first: half a deletion must not look like damage.
        doomed = self.directory / f"{step:06d}.tmp"
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(self.path(step), doomed)
        shutil.rmtree(doomed)


def _make_room(path: pathlib.Path) -> None:
  """Move a damaged checkpoint aside; refuses to replace an intact one."""
  if not path.exists():
    return
  if manifest.is_intact(path):
    raise FileExistsError(f"there is a checkpoint at {path} already")
  number = 1
  while (aside := path.with_name(f"{path.name}.damaged{number}")).exists():
    number += 1
  _logger.warning("the damaged checkpoint %s is moved to %s", path, aside)
  os.replace(path, aside)


def _context() -> Any:
  from orbax.checkpoint import v1 as ocp

  context = ocp.Context()
  # Shardings come from the tree that is loaded into, and the manifest says what
  # orbax's metadata of arrays would; neither is worth its milliseconds.
  context.array.saving.enable_write_sharding_file = False
  context.array.saving.array_metadata_store = None
  return context


def _orbax_save(path: pathlib.Path, arrays: Any) -> None:
  from orbax.checkpoint import v1 as ocp

  with _context(), _quiet():
    ocp.save(str(path), arrays)


def _orbax_load(path: pathlib.Path, targets: Any) -> Any:
  from orbax.checkpoint import v1 as ocp

  with _context(), _quiet():
    return ocp.load(str(path), targets)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silence orbax's log, where one full disk prints a dozen tracebacks."""
  logger = logging.getLogger("absl")
  before, logger.disabled = logger.disabled, True
  try:
    yield
  finally:
    logger.disabled = before


def _meet(purpose: str) -> None:
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(purpose)


def _agree(value: int) -> int:
  """Return the value of process 0 on every process."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
